//! Proves that the epoch changes only when another log may have replaced the one that clients know.
//!
//! In each test the log ends at 10 when the copy is made. A client receives events up to 15. Then the copy replaces
//! the original and grows to 20 with other events. With the same epoch the client would resume after 15 and miss five
//! events.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use usher_devdb::binaries::{Binaries, ProgramSearch};
use usher_devdb::cluster::{Cluster, ClusterOptions, StopMode};
use usher_devdb::os_user::OsUser;
use uuid::Uuid;

use crate::client::Client;
use crate::database::{Database, User, fresh, shared};
use crate::gateway::Gateway;

#[tokio::test]
async fn a_dump_that_is_restored_into_another_database_is_another_epoch() {
    let scene = Scene::begin(Database::create().await).await;
    let dump = dump(&scene.db).await;
    let position = scene.go_on().await;

    let url = fresh().await;
    restore(&url, &dump, &[]).await;
    let name = url.rsplit_once('/').unwrap().1;
    let restored = Database::open(shared().await, name).await;
    scene.is_told_of_another_log(&restored, &position).await;
}

#[tokio::test]
async fn a_dump_that_is_restored_in_place_is_another_epoch() {
    let scene = Scene::begin(Database::create().await).await;
    let dump = dump(&scene.db).await;
    let position = scene.go_on().await;

    restore(&scene.db.url, &dump, &["--clean", "--if-exists"]).await;
    scene.is_told_of_another_log(&scene.db, &position).await;
}

#[tokio::test]
async fn rows_that_are_restored_into_the_same_tables_are_another_epoch() {
    let scene = Scene::begin(Database::create().await).await;
    let dump = dump(&scene.db).await;
    let position = scene.go_on().await;

    let tables: String = scene
        .db
        .one(
            "select string_agg(format('%I.%I', schemaname, tablename), ', ')
             from pg_tables where schemaname in ('public', 'usher', 'auth')",
        )
        .await;
    scene
        .db
        .run(&format!(
            "set session_replication_role = replica; truncate {tables}; reset session_replication_role"
        ))
        .await;
    let rows = [
        "--data-only",
        "--disable-triggers",
        "--schema=public",
        "--schema=usher",
        "--schema=auth",
    ];
    restore(&scene.db.url, &dump, &rows).await;
    scene.is_told_of_another_log(&scene.db, &position).await;
}

#[tokio::test]
async fn a_copy_of_the_database_is_another_epoch() {
    let mut scene = Scene::begin(Database::create().await).await;
    let (name, copy) = (
        scene.db.name().to_owned(),
        Uuid::new_v4().simple().to_string(),
    );
    // A template may have no connections.
    let elsewhere = crate::database::connect(&shared().await.superuser_url()).await;
    scene.db.client = crate::database::connect(&shared().await.superuser_url()).await;
    elsewhere
        .batch_execute(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
        ))
        .await
        .unwrap();
    elsewhere
        .batch_execute(&format!("create database copy_{copy} template {name}"))
        .await
        .unwrap();
    scene.db.reconnect().await;
    let position = scene.go_on().await;

    let copy = Database::open(shared().await, &format!("copy_{copy}")).await;
    scene.is_told_of_another_log(&copy, &position).await;
}

#[tokio::test]
async fn a_promoted_standby_and_a_recovery_to_an_earlier_time_are_other_epochs() {
    let homes = TempDir::with_prefix("usher-epoch-").unwrap();
    open_to_all(homes.path());
    let home = |name: &str| homes.path().join(name);
    let mut first = start(home("first")).await;
    let mut scene = Scene::begin(Database::create_in(&first).await).await;
    first.stop_server(StopMode::Fast).await.unwrap();
    for (copy, signal) in [
        ("standby", "standby.signal"),
        ("earlier", "recovery.signal"),
    ] {
        run(Command::new("cp")
            .arg("-a")
            .args([home("first"), home(copy)]));
        run(Command::new("cp").arg("-a").args([
            home(copy).join("data/PG_VERSION"),
            home(copy).join("data").join(signal),
        ]));
        let settings = home(copy).join("data/postgresql.auto.conf");
        let text = std::fs::read_to_string(&settings).unwrap_or_default();
        std::fs::write(&settings, format!("{text}restore_command = 'false'\n")).unwrap();
    }
    first.start_server().await.unwrap();
    scene.db.reconnect().await;
    let position = scene.go_on().await;
    let name = scene.db.name().to_owned();
    first.stop().await;

    for copy in ["standby", "earlier"] {
        let cluster = start(home(copy)).await;
        let db = Database::open(&cluster, &name).await;
        if copy == "standby" {
            assert!(db.one::<bool>("select pg_promote()").await);
        }
        db.until("not pg_is_in_recovery()").await;
        scene.is_told_of_another_log(&db, &position).await;
        cluster.stop().await;
    }
}

#[tokio::test]
async fn a_restore_under_a_running_gateway_resets_its_viewers() {
    let scene = Scene::begin(Database::create().await).await;
    let gateway = Gateway::start(&scene.db, |_| {}).await;
    let mut viewer = Client::connect(gateway.at, &scene.ann).await;
    let before = viewer.subscribe(scene.session).await["epoch"].clone();
    let dump = dump(&scene.db).await;
    scene.speak(5).await;
    viewer.event(scene.session, 15).await;

    restore(&scene.db.url, &dump, &["--clean", "--if-exists"]).await;
    scene.speak(10).await;
    let reset = viewer.expect("reset").await;
    assert_eq!(reset["reason"], "ahead");
    assert_ne!(reset["epoch"], before);
    viewer.event(scene.session, 20).await;
    viewer.has_the_whole_log(&scene.db, scene.session).await;
}

#[tokio::test]
async fn upkeep_of_the_tables_leaves_the_epoch_alone() {
    let scene = Scene::begin(Database::create().await).await;
    let epoch: String = scene.db.one("select usher.epoch()").await;
    for upkeep in [
        "vacuum (full, freeze) usher.identity",
        "vacuum (full, freeze) usher.session_events",
        "reindex table usher.session_events",
        "cluster usher.session_events using session_events_pkey",
        "analyze",
        "checkpoint",
        "select pg_switch_wal()",
    ] {
        scene.db.run(upkeep).await;
        assert_eq!(
            scene.db.one::<String>("select usher.epoch()").await,
            epoch,
            "{upkeep}"
        );
    }
}

struct Scene {
    db: Database,
    ann: User,
    session: Uuid,
}

impl Scene {
    /// A session with ten messages.
    async fn begin(db: Database) -> Self {
        let ann = db.user("ann").await;
        let session = db.session(&ann).await;
        let scene = Self { db, ann, session };
        scene.speak(10).await;
        scene
    }

    async fn speak(&self, messages: u32) {
        self.speak_in(&self.db, messages).await;
    }

    async fn speak_in(&self, db: &Database, messages: u32) {
        for _ in 0..messages {
            db.say(self.session, &self.ann, &Uuid::new_v4().to_string())
                .await;
        }
    }

    /// Five more messages, and the position of a client that has seen them.
    async fn go_on(&self) -> Value {
        let gateway = Gateway::start(&self.db, |_| {}).await;
        let mut client = Client::connect(gateway.at, &self.ann).await;
        client.subscribe(self.session).await;
        self.speak(5).await;
        client.event(self.session, 15).await;
        let position = client.position(self.session);
        drop(client);
        gateway.stop().await;
        position
    }

    /// The log of this database grows past a position that was given in another, and a client that resumes there receives all
    /// of it.
    async fn is_told_of_another_log(&self, db: &Database, position: &Value) {
        self.speak_in(db, 10).await;
        let gateway = Gateway::start(db, |_| {}).await;
        let mut client = Client::connect(gateway.at, &self.ann).await;
        let subscribed = client.resume_with(self.session, position.clone()).await;
        assert_eq!(
            (
                &subscribed["recovered"],
                &subscribed["reason"],
                &subscribed["seq"]
            ),
            (&json!(false), &json!("ahead"), &json!(0))
        );
        assert_ne!(subscribed["epoch"], position["epoch"]);
        client.event(self.session, 20).await;
        client.has_the_whole_log(db, self.session).await;
        gateway.stop().await;
    }
}

/// A dump in the custom format, of everything in the database.
async fn dump(db: &Database) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    run(Command::new(program("pg_dump").await)
        .args(["--format=custom", "--dbname", &db.url, "--file"])
        .arg(file.path()));
    file
}

async fn restore(url: &str, dump: &tempfile::NamedTempFile, options: &[&str]) {
    run(Command::new(program("pg_restore").await)
        .args(["--exit-on-error", "--single-transaction", "--dbname", url])
        .args(options)
        .arg(dump.path()));
}

async fn program(name: &str) -> PathBuf {
    let binaries = Binaries::find(&ProgramSearch::default(), OsUser::for_server()).await;
    binaries.unwrap().program(name)
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The account that Postgres runs as goes through here.
fn open_to_all(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
}

async fn start(home: PathBuf) -> Cluster {
    let options = ClusterOptions {
        data: Some(home),
        ..ClusterOptions::default()
    };
    Cluster::start(options).await.unwrap()
}

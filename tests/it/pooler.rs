//! Proves, with a real pgbouncer, what the README promises about a transaction pooler and what it says cannot work.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use usher::postgres::connect::Target;

use crate::client::{Client, until, votes};
use crate::database::{Database, GATEWAY_PASSWORD, shared};
use crate::doctor::{assert_finds, doctor, report, verdict};
use crate::gateway::{Gateway, Process};
use crate::http::get;
use crate::settings;

/// Fewer than the gateway's own pool has, so that server connections change hands.
const SERVER_CONNECTIONS: u8 = 2;

#[tokio::test]
async fn everything_but_listen_works_through_a_transaction_pooler() {
    let db = Database::create().await;
    let pooler = Pooler::start(&db, "transaction").await;
    let gateway = Gateway::start(&db, |config| {
        config.database = Target::parse(&pooler.url.as_str().into(), None).unwrap();
        config.pool_size = 6;
    })
    .await;
    let streamer = db.user("streamer").await;
    let session = db.session(&streamer).await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    let users = [
        db.user("ann").await,
        db.user("ben").await,
        db.user("cleo").await,
        db.user("dora").await,
    ];
    let mut viewers = Vec::new();
    for user in &users {
        viewers.push(Client::connect(gateway.at, user).await);
    }
    // All at the same time, so that many queries share few connections.
    let evenings = viewers
        .into_iter()
        .enumerate()
        .map(async |(n, mut viewer)| {
            viewer.subscribe(session).await;
            for word in ["one", "two", "three", "four", "five"] {
                viewer.send(session, word).await;
                viewer.vote(voting, Some(movies[n % 2])).await;
                let path = format!("/v1/sessions/{session}/events?after=0");
                assert_eq!(get(gateway.at, &path, &[]).await.status, 200);
                let path = format!("/v1/sessions/{session}/messages");
                assert_eq!(get(gateway.at, &path, &[]).await.status, 200);
            }
            viewer
        });
    let viewers = futures::future::join_all(evenings).await;
    let counts = db.count_votes(voting).await;
    assert_eq!(counts.iter().map(|(_, votes)| votes).sum::<u64>(), 4);
    for viewer in viewers {
        // Read from the database again, because there is no resume token.
        let mut viewer = viewer.reconnect(gateway.at).await;
        let told = viewer.subscribe(session).await;
        assert_eq!(votes(&told["votings"][0]), counts);
        viewer.has_the_whole_log(&db, session).await;
    }
    // Those of the pooler, and LISTEN's own.
    let used: i64 = db
        .one(
            "select count(*) from pg_stat_activity \
             where datname = current_database() and usename = 'usher_gateway'",
        )
        .await;
    assert!(used <= i64::from(SERVER_CONNECTIONS) + 1, "{used}");
    gateway.stop().await;
}

#[tokio::test]
async fn settings_of_the_role_do_no_harm_through_a_transaction_pooler() {
    let db = Database::create().await;
    // The pooler itself sets the parameters that it tracks, and reports no others.
    settings::set(&db, "role usher_gateway in database", &settings::HOSTILE).await;
    let pooler = Pooler::start(&db, "transaction").await;
    settings::use_every_path(&db, |config| {
        config.database = Target::parse(&pooler.url.as_str().into(), None).unwrap();
    })
    .await;
}

#[tokio::test]
async fn doctor_tells_a_pooler_that_cannot_listen_from_one_that_can() {
    let db = Database::create().await;
    let transaction = Pooler::start(&db, "transaction").await;
    let session = Pooler::start(&db, "session").await;
    for (database, listen, expected, words) in [
        (
            &transaction.url,
            &db.gateway_url,
            "ok",
            "hears a notification",
        ),
        (
            &db.gateway_url,
            &transaction.url,
            "failed",
            "is a transaction pooler",
        ),
        (
            &transaction.url,
            &transaction.url,
            "failed",
            "is a transaction pooler",
        ),
        (&session.url, &session.url, "ok", "hears a notification"),
    ] {
        let settings = [
            ("DATABASE_URL", database.as_str()),
            ("USHER_LISTEN_DATABASE_URL", listen.as_str()),
        ];
        let report = report(&doctor(&db, &settings));
        assert_finds(&report, "listen", expected, words);
        if expected == "ok" && database == &transaction.url {
            assert_finds(&report, "pooler", "ok", "which is fine for queries");
        }
        assert_eq!(report["ok"], expected == "ok", "{report:#}");
        for check in ["database", "role", "migrations", "grants", "triggers"] {
            assert_eq!(verdict(&report, check), "ok", "{check}: {report:#}");
        }
        if expected == "failed" {
            let advice = "set USHER_LISTEN_DATABASE_URL to the direct connection";
            assert_finds(&report, "listen", expected, advice);
        }
    }
}

#[tokio::test]
async fn a_gateway_that_listens_through_a_transaction_pooler_is_not_ready_and_says_why() {
    let db = Database::create().await;
    let pooler = Pooler::start(&db, "transaction").await;
    let settings = [
        ("DATABASE_URL", pooler.url.as_str()),
        ("SUPABASE_JWT_SECRET", crate::database::JWT_SECRET),
    ];
    let gateway = Process::start(&db, ([127, 0, 0, 1], 0).into(), &settings).await;
    let mut said = String::new();
    until("the log names the pooler", async || {
        said.push_str(&gateway.lines().join("\n"));
        said.contains("a transaction pooler (port 6543) where LISTEN cannot work")
    })
    .await;
    let ready = get(gateway.at, "/readyz", &[]).await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["checks"]["listen"], false, "{ready:?}");
    assert_eq!(ready.json()["checks"]["database"], true, "{ready:?}");
}

/// A pgbouncer in front of the shared cluster. Its Unix socket needs no free port.
struct Pooler {
    url: String,
    process: Child,
    _home: TempDir,
}

impl Pooler {
    async fn start(db: &Database, mode: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        // pgbouncer refuses to run as root, so it becomes a user that can read this folder.
        fs::set_permissions(home.path(), Permissions::from_mode(0o777)).unwrap();
        let path = |name: &str| home.path().join(name).display().to_string();
        let users = format!("\"usher_gateway\" \"{GATEWAY_PASSWORD}\"\n");
        fs::write(path("users"), users).unwrap();
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\npool_mode = {mode}\n\
             listen_addr =\nunix_socket_dir = {}\nauth_type = scram-sha-256\nauth_file = {}\n\
             logfile = {}\ndefault_pool_size = {SERVER_CONNECTIONS}\n",
            shared().await.port(),
            home.path().display(),
            path("users"),
            path("log"),
        );
        fs::write(path("config"), config).unwrap();
        // Where tests/run puts what it fetches, after what the system has.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let paths = std::env::var("PATH").unwrap();
        let paths = format!("{paths}:/usr/sbin:{}/test-tools/bin", target.display());
        let mut command = Command::new("pgbouncer");
        command.env("PATH", paths).stderr(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        let process = command.arg(path("config")).spawn();
        let process = process.expect("pgbouncer is needed: tests/run fetches it");
        let socket = home.path().display().to_string().replace('/', "%2F");
        let (_, name) = db.gateway_url.rsplit_once('/').unwrap();
        let (login, _) = db.gateway_url.rsplit_once('@').unwrap();
        let pooler = Self {
            url: format!("{login}@{socket}:6432/{name}"),
            process,
            _home: home,
        };
        let target = Target::parse(&pooler.url.as_str().into(), None).unwrap();
        until("pgbouncer answers", async || target.connect().await.is_ok()).await;
        pooler
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

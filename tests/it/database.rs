//! Starts one Postgres for all tests of this process, makes one database per test, and has helpers that fill it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use secrecy::SecretString;
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio_postgres::Client;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use usher::postgres::connect::Target;
use usher::postgres::migrations;
use usher_core::auth::mint::{NewClaims, mint};
use usher_core::protocol::id::UserId;
use usher_devdb::cluster::{Cluster, ClusterOptions};
use uuid::Uuid;

/// What signs the users' tokens in every test.
pub(crate) const JWT_SECRET: &str = "the secret of all tests, 32 bytes or more";

pub(crate) const GATEWAY_PASSWORD: &str = "a password for tests alone";
const TEMPLATE: &str = "usher_template";

/// What the platform does to keep files from being lost: nothing in storage is deleted by SQL.
pub(crate) const PROTECT_DELETE: &str = "
    create function storage.protect_delete() returns trigger language plpgsql as $$
    begin
        if coalesce(current_setting('storage.allow_delete_query', true), 'false') <> 'true' then
            raise exception 'Direct deletion from storage tables is not allowed. Use the Storage API instead.'
                using errcode = '42501';
        end if;
        return null;
    end $$;
    create trigger protect_buckets_delete before delete on storage.buckets
        for each statement execute function storage.protect_delete();
    create trigger protect_objects_delete before delete on storage.objects
        for each statement execute function storage.protect_delete();";

/// Never dropped: its watchdog ends it when the process does.
static SHARED: OnceCell<Cluster> = OnceCell::const_new();
static SHARED_TEMPLATE: OnceCell<()> = OnceCell::const_new();

/// The shared cluster, which no test may stop.
pub(crate) async fn shared() -> &'static Cluster {
    SHARED
        .get_or_init(async || {
            let started = Cluster::start(ClusterOptions::default()).await;
            started.expect("a Postgres is needed: its error says what to do")
        })
        .await
}

/// The superuser's URL of a fresh, empty database.
pub(crate) async fn fresh() -> String {
    let name = format!("test_{}", Uuid::new_v4().simple());
    let url = shared().await.superuser_url();
    let client = connect(&url).await;
    client
        .batch_execute(&format!("create database {name}"))
        .await
        .unwrap();
    in_database(&url, &name)
}

/// A client whose connection is driven until the client is dropped.
pub(crate) async fn connect(url: &str) -> Client {
    let target = Target::parse(&url.into(), None).unwrap();
    let (client, link) = target.connect().await.unwrap();
    tokio::spawn(link.drive());
    client
}

/// A migrated database of one test's own. Dropping it leaves the database to the end of its cluster.
pub(crate) struct Database {
    /// The superuser's.
    pub(crate) url: String,
    pub(crate) gateway_url: String,
    pub(crate) client: Client,
    users: AtomicU32,
}

/// A user with an account and a token.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) token: String,
}

impl Database {
    /// A database in the shared cluster.
    pub(crate) async fn create() -> Self {
        let cluster = shared().await;
        SHARED_TEMPLATE.get_or_init(|| make_template(cluster)).await;
        Self::copy(cluster).await
    }

    /// A database in a cluster that the test has for itself, and may stop.
    pub(crate) async fn create_in(cluster: &Cluster) -> Self {
        make_template(cluster).await;
        Self::copy(cluster).await
    }

    async fn copy(cluster: &Cluster) -> Self {
        let name = format!("test_{}", Uuid::new_v4().simple());
        let superuser_url = cluster.superuser_url();
        let client = connect(&superuser_url).await;
        let create = format!("create database {name} template {TEMPLATE}");
        client.batch_execute(&create).await.unwrap();
        Self::open(cluster, &name).await
    }

    /// A migrated database that is there already.
    pub(crate) async fn open(cluster: &Cluster, name: &str) -> Self {
        let url = in_database(&cluster.superuser_url(), name);
        Self {
            client: connect(&url).await,
            gateway_url: cluster.url_for("usher_gateway", GATEWAY_PASSWORD, name),
            url,
            users: AtomicU32::new(1),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.url.rsplit_once('/').unwrap().1
    }

    /// Connects again, after the server was away.
    pub(crate) async fn reconnect(&mut self) {
        self.client = connect(&self.url).await;
    }

    /// Runs statements.
    pub(crate) async fn run(&self, sql: &str) {
        if let Err(error) = self.client.batch_execute(sql).await {
            panic!("{error:?}\nin {sql}");
        }
    }

    /// Asks for one value.
    pub(crate) async fn one<T: FromSqlOwned>(&self, sql: &str) -> T {
        one(&self.client, sql, &[]).await
    }

    /// The name of a channel: `events`, `votes` or `control`.
    pub(crate) async fn channel(&self, kind: &str) -> String {
        self.one(&format!("select {kind} from usher.channels"))
            .await
    }

    /// Waits until a condition holds in the database.
    pub(crate) async fn until(&self, condition: &str) {
        crate::client::until(condition, async || {
            self.one::<bool>(&format!("select {condition}")).await
        })
        .await;
    }

    /// Creates a user as the sign-up does. A trigger makes the profile.
    pub(crate) async fn user(&self, name: &str) -> User {
        let number = self.users.fetch_add(1, Ordering::Relaxed);
        let id = Uuid::from_u128(0x0a00_0000_0000_4000_8000_0000_0000_0000 + u128::from(number));
        let sql = "insert into auth.users (id, aud, role, raw_user_meta_data)
            values ($1, 'authenticated', 'authenticated', jsonb_build_object('username', $2::text))";
        self.client.execute(sql, &[&id, &name]).await.unwrap();
        User {
            token: token(id, Duration::from_hours(1)),
            name: name.to_owned(),
            id,
        }
    }

    /// Makes a live session that all users may watch and write to.
    pub(crate) async fn session(&self, streamer: &User) -> Uuid {
        let sql = "insert into public.movie_sessions (streamer_id, title, status)
            values ($1, 'A night at the movies', 'live') returning id";
        one(&self.client, sql, &[&streamer.id]).await
    }

    /// So many movies.
    pub(crate) async fn movies(&self, count: i32) -> Vec<Uuid> {
        let sql = "insert into public.movies (title) select 'Movie ' || n from generate_series(1, $1) n returning id";
        let rows = self.client.query(sql, &[&count]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Creates a draft of a poll. `settings` is the list after `set` in an update.
    pub(crate) async fn draft(&self, session: Uuid, movies: &[Uuid], settings: &str) -> Uuid {
        let sql = "insert into public.voting_sessions (session_id, question) values ($1, 'What next?') returning id";
        let voting: Uuid = one(&self.client, sql, &[&session]).await;
        let sql = "insert into public.voting_options (voting_session_id, movie_id, position)
            select $1, o.movie, o.n from unnest($2::uuid[]) with ordinality as o (movie, n)";
        self.client.execute(sql, &[&voting, &movies]).await.unwrap();
        if !settings.is_empty() {
            self.set_voting(voting, settings).await;
        }
        voting
    }

    /// Creates an open poll.
    pub(crate) async fn voting(&self, session: Uuid, movies: &[Uuid], settings: &str) -> Uuid {
        let voting = self.draft(session, movies, settings).await;
        self.set_voting(voting, "state = 'open'").await;
        voting
    }

    pub(crate) async fn set_voting(&self, voting: Uuid, settings: &str) {
        let sql = format!("update public.voting_sessions set {settings} where id = '{voting}'");
        self.run(&sql).await;
    }

    pub(crate) async fn set_session(&self, session: Uuid, settings: &str) {
        let sql = format!("update public.movie_sessions set {settings} where id = '{session}'");
        self.run(&sql).await;
    }

    /// Inserts a message as anybody with SQL could; says its id.
    pub(crate) async fn say(&self, session: Uuid, author: &User, body: &str) -> Uuid {
        say(&self.client, session, author, body).await
    }

    /// Bans a user. `until` is an SQL expression; `null` bans permanently.
    pub(crate) async fn ban(&self, session: Uuid, user: &User, until: &str) {
        let sql = format!(
            "insert into public.session_bans (session_id, user_id, until) values ('{session}', '{}', {until})
             on conflict (session_id, user_id) do update set until = excluded.until",
            user.id
        );
        self.run(&sql).await;
    }

    pub(crate) async fn join(&self, session: Uuid, user: &User) {
        let sql = "insert into public.session_members (session_id, user_id) values ($1, $2)";
        let joined = self.client.execute(sql, &[&session, &user.id]).await;
        joined.unwrap();
    }

    /// The newest number of a session's log.
    pub(crate) async fn head(&self, session: Uuid) -> u64 {
        let sql = "select seq from usher.session_heads where session_id = $1";
        let head: i64 = one(&self.client, sql, &[&session]).await;
        u64::try_from(head).unwrap()
    }

    /// The whole log as it goes out.
    pub(crate) async fn log(&self, session: Uuid) -> Vec<Value> {
        let sql = "select usher.wire_event(seq, type, at, data) from usher.session_events
            where session_id = $1 order by seq";
        let rows = self.client.query(sql, &[&session]).await.unwrap();
        let parse = |text: &str| serde_json::from_str(text).unwrap();
        rows.iter().map(|row| parse(row.get(0))).collect()
    }

    /// What the table says: votes by movie, those without any left out.
    pub(crate) async fn count_votes(&self, voting: Uuid) -> Vec<(Uuid, u64)> {
        let sql = "select movie_id, count(*) from public.votes where voting_session_id = $1 group by 1 order by 1";
        let rows = self.client.query(sql, &[&voting]).await.unwrap();
        rows.iter()
            .map(|row| (row.get(0), u64::try_from(row.get::<_, i64>(1)).unwrap()))
            .collect()
    }
}

/// Inserts a message over a connection of one's own; says its id.
pub(crate) async fn say(client: &Client, session: Uuid, author: &User, body: &str) -> Uuid {
    let sql = "insert into public.chat_messages (session_id, user_id, body) values ($1, $2, $3) returning id";
    one(client, sql, &[&session, &author.id, &body]).await
}

/// A token for a user, valid from now on.
pub(crate) fn token(user: Uuid, ttl: Duration) -> String {
    sign(JWT_SECRET, &NewClaims::user(UserId(user)), ttl)
}

/// A token with any claims, valid from now on.
pub(crate) fn sign(secret: &str, claims: &NewClaims, ttl: Duration) -> String {
    let secret: SecretString = secret.into();
    mint(&secret, claims, jsonwebtoken::get_current_timestamp(), ttl)
}

async fn one<T: FromSqlOwned>(client: &Client, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> T {
    match client.query_one(sql, parameters).await {
        Ok(row) => row.get(0),
        Err(error) => panic!("{error:?}\nin {sql}"),
    }
}

async fn make_template(cluster: &Cluster) {
    let url = cluster.superuser_url();
    let client = connect(&url).await;
    let create = format!("create database {TEMPLATE}");
    client.batch_execute(&create).await.unwrap();
    let mut client = connect(&in_database(&url, TEMPLATE)).await;
    migrations::shim(&mut client).await.unwrap();
    migrations::up(&mut client).await.unwrap();
    let password = format!("alter role usher_gateway password '{GATEWAY_PASSWORD}'");
    client.batch_execute(&password).await.unwrap();
}

/// The URL of another database of the same cluster.
pub(crate) fn in_database(url: &str, name: &str) -> String {
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

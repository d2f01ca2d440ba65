//! Proves that the gateway sets the Postgres settings that it relies on, even if the role or the database has others.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::api::{Caller, data};
use crate::client::{Client, votes};
use crate::database::Database;
use crate::gateway::Gateway;
use crate::http::metric;

/// Each of them, were it to hold, could break something or say something in another form.
pub(crate) const HOSTILE: [(&str, &str); 17] = [
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_read_only", "on"),
    ("default_transaction_deferrable", "on"),
    ("timezone", "Asia/Kolkata"),
    ("datestyle", "SQL, DMY"),
    ("intervalstyle", "sql_standard"),
    ("extra_float_digits", "-15"),
    ("bytea_output", "escape"),
    ("standard_conforming_strings", "off"),
    ("transform_null_equals", "on"),
    ("row_security", "off"),
    ("search_path", "nowhere"),
    ("statement_timeout", "50ms"),
    ("lock_timeout", "1ms"),
    ("idle_in_transaction_session_timeout", "2s"),
    ("idle_session_timeout", "300ms"),
    ("synchronous_commit", "off"),
];

#[tokio::test]
async fn everything_works_whatever_the_role_or_the_database_have_set() {
    for whose in ["role usher_gateway in database", "database"] {
        let db = Database::create().await;
        set(&db, whose, &HOSTILE).await;
        use_every_path(&db, |_| {}).await;
    }
    // The other level under which no vote could be counted.
    let db = Database::create().await;
    let level = ("default_transaction_isolation", "repeatable read");
    set(&db, "role usher_gateway in database", &[level]).await;
    use_every_path(&db, |_| {}).await;
}

#[tokio::test]
async fn what_is_acknowledged_waits_for_the_disk_and_says_the_time_in_utc() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    set(&db, "role usher_gateway in database", &HOSTILE).await;
    // What a writer's transaction runs under.
    db.run(
        "create table public.seen as select name, setting from pg_settings with no data;
         grant insert on public.seen to authenticated;
         create function public.look() returns trigger language plpgsql security definer as $$
         begin
           insert into public.seen select name, setting from pg_catalog.pg_settings;
           return null;
         end $$;
         create trigger look after insert on public.chat_messages
         for each statement execute function public.look()",
    )
    .await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.send(session, "hello").await;
    for (name, expected) in [
        ("synchronous_commit", "on"),
        ("transaction_isolation", "read committed"),
        ("transaction_read_only", "off"),
        ("transaction_deferrable", "off"),
        ("TimeZone", "UTC"),
        ("row_security", "on"),
        ("transform_null_equals", "off"),
    ] {
        let setting = format!("select setting from public.seen where name = '{name}'");
        assert_eq!(db.one::<String>(&setting).await, expected, "{name}");
    }
}

#[tokio::test]
async fn sql_that_needs_another_isolation_level_names_it() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    for level in ["serializable", "repeatable read"] {
        for (what, statement) in [
            (
                "voting needs",
                format!(
                    "insert into public.votes (voting_session_id, user_id, movie_id)
                     values ('{voting}', '{}', '{}')",
                    ann.id, movies[0]
                ),
            ),
            (
                "closing a poll or showing its counts needs",
                format!("update public.voting_sessions set state = 'closed' where id = '{voting}'"),
            ),
        ] {
            db.run(&format!("begin isolation level {level}")).await;
            let error = db.client.batch_execute(&statement).await.unwrap_err();
            db.run("rollback").await;
            let error = error.as_db_error().unwrap();
            let expected =
                format!("{what} isolation level read committed; this transaction has {level}");
            assert_eq!(error.message(), expected);
            let hint = "Begin it with: begin isolation level read committed";
            assert_eq!(error.hint(), Some(hint));
        }
    }
}

/// Alters settings of a role or of the database, for connections from now on.
pub(crate) async fn set(db: &Database, whose: &str, settings: &[(&str, &str)]) {
    let name: String = db.one("select current_database()").await;
    for (setting, value) in settings {
        // Lists are not quoted as one text.
        let value = match *setting {
            "datestyle" => (*value).to_owned(),
            _ => format!("'{value}'"),
        };
        let alter = format!("alter {whose} {name} set {setting} = {value}");
        db.run(&alter).await;
    }
}

/// Uses the gateway in every way that goes through the database.
pub(crate) async fn use_every_path(db: &Database, adapt: impl FnOnce(&mut usher::config::Config)) {
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let session = db.session(&ann).await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    let gateway = Gateway::start(db, adapt).await;
    let mut client = Client::connect(gateway.at, &ben).await;
    client.subscribe(session).await;
    client.send(session, "hello").await;
    client.vote(voting, Some(movies[0])).await;
    client.vote(voting, Some(movies[1])).await;
    let expected = vec![(movies[1], 1)];
    client
        .expect_where("tally", |tally| votes(tally) == expected)
        .await;

    // Longer than the session settings would let an idle connection live.
    sleep(Duration::from_secs(1)).await;
    let (streamer, viewer) = (Caller::new(&gateway, &ann), Caller::new(&gateway, &ben));
    let path = format!("/v1/sessions/{session}/messages");
    let page = data(&viewer.get(&path).await, 200);
    assert_eq!(page["messages"][0]["body"], "hello");
    let created = page["messages"][0]["created_at"].as_str().unwrap();
    assert!(
        created.ends_with("+00:00") || created.ends_with('Z'),
        "{page}"
    );
    let path = format!("/v1/votings/{voting}");
    let closed = streamer.send("PATCH", &path, json!({"state": "closed"}));
    data(&closed.await, 200);
    let event = client.event_of(session, 0, "voting.closed").await;
    assert_eq!(event["data"]["id"], json!(voting));
    let path = format!("/v1/sessions/{session}/bans/{}", ben.id);
    let ban = data(
        &streamer.send("PUT", &path, json!({"seconds": 600})).await,
        200,
    );
    let until = ban["until"].as_str().unwrap();
    assert!(until.ends_with("+00:00"), "{ban}");
    let path = format!("/v1/sessions/{session}/bans");
    let bans = data(&streamer.get(&path).await, 200);
    assert_eq!(bans["bans"][0]["user"], json!(ben.id));
    data(&viewer.get("/v1/movies?search=a").await, 200);
    client.has_the_whole_log(db, session).await;
    assert_eq!(metric(gateway.at, "usher_listen_losses_total").await, 0.0);
}

//! Proves that the usual recipe for "state, then stream" loses events, and that Usher loses none under the same
//! schedules.
//!
//! The recipe: rows have serial numbers; a client reads the state and the highest number, then asks for rows with
//! higher numbers. It has two holes. The order of statements alone opens them here, so each run shows them.

use tokio_postgres::Client as Connection;

use crate::client::Client;
use crate::database::{self, Database};
use crate::gateway::Gateway;

#[tokio::test]
async fn a_state_read_before_its_position_misses_what_is_committed_between() {
    let db = Database::create().await;
    db.run(NAIVE).await;
    let reader = database::connect(&db.url).await;

    // Read committed, the default: each statement has its own snapshot.
    reader.batch_execute("begin").await.unwrap();
    let state = bodies(&reader, 0).await;
    db.run("insert into naive (body) values ('between')").await;
    let position = highest(&reader).await;
    reader.batch_execute("commit").await.unwrap();
    db.run("insert into naive (body) values ('after')").await;
    let stream = bodies(&reader, position).await;

    assert_eq!((state, stream), (vec![], vec!["after".to_owned()]));
}

#[tokio::test]
async fn a_number_taken_before_the_commit_is_passed_over() {
    let db = Database::create().await;
    db.run(NAIVE).await;
    let (slow, reader) = (
        database::connect(&db.url).await,
        database::connect(&db.url).await,
    );

    let first = "begin; insert into naive (body) values ('slow')";
    slow.batch_execute(first).await.unwrap();
    db.run("insert into naive (body) values ('quick')").await;
    // One snapshot for both this time: that hole is closed, this one is not.
    let snapshot = "begin isolation level repeatable read";
    reader.batch_execute(snapshot).await.unwrap();
    let (state, position) = (bodies(&reader, 0).await, highest(&reader).await);
    reader.batch_execute("commit").await.unwrap();
    slow.batch_execute("commit").await.unwrap();
    let stream = bodies(&reader, position).await;

    assert_eq!((state, stream), (vec!["quick".to_owned()], vec![]));
}

#[tokio::test]
async fn ours_gives_the_slow_writer_its_turn_and_the_reader_both() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| ()).await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let slow = database::connect(&db.url).await;

    slow.batch_execute("begin").await.unwrap();
    database::say(&slow, session, &ann, "slow").await;
    // The number is taken until the commit; no other writer may take it.
    let lock = format!("select from usher.session_heads where session_id = '{session}' for update");
    slow.batch_execute(&lock).await.unwrap();
    // It takes its number behind the slow one, and so waits for it.
    let quick = database::connect(&db.url).await;
    let second = {
        let ann = ann.clone();
        tokio::spawn(async move { database::say(&quick, session, &ann, "quick").await })
    };
    db.until("exists (select 1 from pg_locks where not granted)")
        .await;

    // New and earlier viewers see neither event while the transaction is open, and both after it.
    let mut client = Client::connect(gateway.at, &ann).await;
    let subscribed = client.subscribe(session).await;
    assert_eq!(subscribed["head"], 0, "{subscribed}");
    slow.batch_execute("commit").await.unwrap();
    second.await.unwrap();
    let seen = [
        client.event(session, 1).await["data"]["body"].clone(),
        client.event(session, 2).await["data"]["body"].clone(),
    ];
    assert_eq!(seen, ["slow", "quick"]);
    client.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn ours_misses_nothing_that_is_committed_while_clients_come() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| ()).await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let writer = {
        let (url, ann) = (db.url.clone(), ann.clone());
        tokio::spawn(async move {
            let client = database::connect(&url).await;
            for n in 0..300 {
                database::say(&client, session, &ann, &format!("row {n}")).await;
            }
        })
    };

    // Each comes at another moment between the commits, and checks its numbers from there on.
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut client = Client::connect(gateway.at, &ann).await;
        client.subscribe(session).await;
        clients.push(client);
    }
    writer.await.unwrap();
    // The test's client fails on the first number that does not follow the one before.
    for client in &mut clients {
        client.event(session, 300).await;
    }
}

const NAIVE: &str = "create table naive (id bigserial primary key, body text not null)";

async fn bodies(client: &Connection, after: i64) -> Vec<String> {
    let sql = "select body from naive where id > $1 order by id";
    let rows = client.query(sql, &[&after]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn highest(client: &Connection) -> i64 {
    let sql = "select coalesce(max(id), 0) from naive";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

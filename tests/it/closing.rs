//! What a client still gets when the gateway closes its socket: the answers to its pending writes, then the close.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::protocol::Message;
use usher::config::rates::Rate;
use usher::limits::{FRAME_BYTES_MAX, MALFORMED_FRAMES_MAX};
use uuid::Uuid;

use crate::client::{Client, PATIENCE, until};
use crate::database::{self, Database};
use crate::gateway::Gateway;
use crate::http::metric;

#[tokio::test]
async fn a_client_that_is_closed_for_flooding_has_the_answers_to_its_writes() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let gateway = Gateway::start(&db, |config| {
        config.rates.frames = Some(Rate {
            count: 30.try_into().unwrap(),
            period: Duration::from_secs(60),
        });
    })
    .await;
    let mut client = Client::connect(gateway.at, &ann).await;
    let lock = lock_log(&db, session).await;
    for n in 0..20 {
        let body = format!("message {n}");
        client
            .say(&json!({"type": "send", "id": n, "session": session, "body": body}))
            .await;
    }
    for _ in 0..80 {
        client.say(&json!({"type": "ping"})).await;
    }
    closes(gateway.at, 4029).await;
    lock.batch_execute("commit").await.unwrap();
    let mut acks = answers_before(&mut client, 4029).await;
    acks.retain(|answer| answer["type"] == "ack");
    let seqs: BTreeSet<u64> = acks
        .iter()
        .map(|ack| ack["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, (1..=20).collect(), "{acks:#?}");
    assert_eq!(db.head(session).await, 20);
}

#[tokio::test]
async fn answers_come_before_every_close_of_the_gateways_own() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let session = db.session(&ann).await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut number = 0;
    for code in [1002, 1009, 4001, 4500, 4509, 1012] {
        let ttl = Duration::from_secs(if code == 4001 { 3 } else { 600 });
        let ends_at = Duration::from_secs(jsonwebtoken::get_current_timestamp()) + ttl;
        let token = Some(database::token(ann.id, ttl));
        let mut client = Client::open(gateway.at, "ann", token).await;
        let lock = lock_log(&db, session).await;
        if code == 4001 {
            // Shortly before the end, since a write does not wait for a lock for long.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            sleep(ends_at.saturating_sub(now + Duration::from_millis(600))).await;
        }
        let body = format!("before {code}");
        client
            .say(&json!({"type": "send", "id": "w", "session": session, "body": body}))
            .await;
        let waits = "select exists (select from pg_stat_activity where usename = 'usher_gateway' \
             and datname = current_database() and wait_event_type = 'Lock')";
        until("it waits for the lock", async || db.one(waits).await).await;
        match code {
            // A frame without a mask.
            1002 => client.say_bytes(&[0x81, 0x01, b'x']).await,
            1009 => {
                let large = "x".repeat(FRAME_BYTES_MAX + 1);
                client.say_raw(Message::text(large)).await;
            }
            4500 => {
                for _ in 0..=MALFORMED_FRAMES_MAX {
                    client.say_raw(Message::text("[]")).await;
                }
            }
            4509 => {
                client
                    .say(&json!({"type": "auth", "token": ben.token}))
                    .await
            }
            1012 => gateway.begin_stop(),
            _ => {}
        }
        if code == 1012 {
            let frame = client.read_until(Instant::now() + PATIENCE).await;
            assert_eq!(frame.unwrap()["type"], "reconnect");
        } else {
            closes(gateway.at, code).await;
        }
        lock.batch_execute("commit").await.unwrap();
        number += 1;
        let answers = answers_before(&mut client, code).await;
        let ack = answers.iter().find(|answer| answer["id"] == "w");
        let ack = ack.unwrap_or_else(|| panic!("no answer before {code}: {answers:#?}"));
        assert_eq!((&ack["type"], &ack["seq"]), (&json!("ack"), &json!(number)));
    }
}

/// Waits until a socket was closed with a code, as far as the gateway is concerned.
async fn closes(at: SocketAddr, code: u16) {
    let name = format!("usher_closes_total{{kind=\"{code}\"}}");
    until("the gateway closes", async || {
        metric(at, &name).await == 1.0
    })
    .await;
}

/// Everything that comes before the close, which must have this code.
async fn answers_before(client: &mut Client, code: u16) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    let mut answers = Vec::new();
    loop {
        match client.read_until(deadline).await {
            Ok(answer) => answers.push(answer),
            Err(closed) => {
                assert_eq!(closed, code, "{answers:#?}");
                return answers;
            }
        }
    }
}

/// Locks the log of a session until the given connection commits: batches stop there.
async fn lock_log(db: &Database, session: Uuid) -> tokio_postgres::Client {
    let client = database::connect(&db.url).await;
    let sql =
        format!("begin; select from usher.session_heads where session_id = '{session}' for update");
    client.batch_execute(&sql).await.unwrap();
    client
}

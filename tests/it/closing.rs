//! Proves what a client still receives when the gateway closes its socket: the answers to its pending writes, then
//! the close frame.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::protocol::Message;
use usher::config::rates::Rate;
use usher_core::limits::{FRAME_BYTES_MAX, MALFORMED_FRAMES_MAX};
use usher_core::protocol::refusal::CloseCode;
use uuid::Uuid;

use crate::client::{Client, PATIENCE, until};
use crate::database::{self, Database};
use crate::gateway::Gateway;
use crate::http::metric;
use crate::stage::Stage;

#[tokio::test]
async fn a_client_that_is_closed_for_flooding_has_the_answers_to_its_writes() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::adapted(|config| {
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
    let Stage {
        db,
        gateway,
        session,
        ann,
        ben,
    } = Stage::new().await;
    let mut number = 0;
    for code in [1002, 1007, 1009, 4001, 4500, 4503, 4509, 1012] {
        let ttl = Duration::from_secs(if code == 4001 { 3 } else { 600 });
        let ends_at = Duration::from_secs(jsonwebtoken::get_current_timestamp()) + ttl;
        let token = Some(database::token(ann.id, ttl));
        let mut client = Client::open(gateway.at, "ann", token).await;
        let other = db.session(&ben).await;
        if code == 4503 {
            client.subscribe(other).await;
        }
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
        until("the write waits for the lock", async || db.one(WAITS).await).await;
        match code {
            // A frame without a mask.
            1002 => client.say_bytes(&[0x81, 0x01, b'x']).await,
            1009 => {
                let large = "x".repeat(FRAME_BYTES_MAX + 1);
                client.say_raw(Message::text(large)).await;
            }
            // A frame of text that is none.
            1007 => client.say_bytes(&[0x81, 0x81, 0, 0, 0, 0, 0xff]).await,
            // The socket's last subscription.
            4503 => db.ban(other, &ann, "null").await,
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

#[tokio::test]
async fn a_client_that_is_closed_as_dead_has_the_answer_to_its_write() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let heartbeat = Duration::from_millis(400);
    let gateway = Gateway::start(&db, |config| config.heartbeat = heartbeat).await;
    let lock = lock_log(&db, session).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.say(&say_in(session)).await;
    // It reads nothing, so it does not answer pings either.
    closes(gateway.at, 4009).await;
    lock.batch_execute("commit").await.unwrap();
    has_the_ack(&mut client, 4009).await;
}

#[tokio::test]
async fn a_client_that_is_closed_as_too_slow_has_the_answer_that_waited_for_its_socket() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let (session, other) = (db.session(&ann).await, db.session(&ann).await);
    let heartbeat = Duration::from_secs(1);
    let gateway = Gateway::start(&db, |config| config.heartbeat = heartbeat).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let socket = socket.connect(gateway.at).await.unwrap();
    let token = Some(ann.token.clone());
    let mut client = Client::over(socket, gateway.at, "ann", token).await;
    client.expect("welcome").await;
    client.subscribe(other).await;
    let lock = lock_log(&db, session).await;
    client.say(&say_in(session)).await;
    until("the write waits for the lock", async || db.one(WAITS).await).await;
    let flood = |count: u32| {
        format!(
            "insert into public.chat_messages (session_id, user_id, body) \
             select '{other}', '{}', repeat('x', 2000) from generate_series(1, {count})",
            ann.id
        )
    };
    while metric(gateway.at, "usher_stalls_total").await < 1.0 {
        db.run(&flood(100)).await;
    }
    lock.batch_execute("commit").await.unwrap();
    db.run(&flood(4_000)).await;
    closes(gateway.at, 4008).await;
    has_the_ack(&mut client, 4008).await;
}

fn say_in(session: Uuid) -> Value {
    json!({"type": "send", "id": "w", "session": session, "body": "hello"})
}

/// The first message of a session is acknowledged before the close with this code.
async fn has_the_ack(client: &mut Client, code: u16) {
    let answers = answers_before(client, code).await;
    let ack = answers.iter().find(|answer| answer["id"] == "w");
    let ack = ack.unwrap_or_else(|| panic!("no answer before {code}"));
    assert_eq!((&ack["type"], &ack["seq"]), (&json!("ack"), &json!(1)));
}

/// The codes whose clients have no pending write: no client writes before the gateway has accepted its token.
#[test]
fn every_close_code_is_tried_here() {
    let tried = [
        1002, 1007, 1009, 1012, 4001, 4008, 4009, 4029, 4500, 4503, 4509,
    ];
    let without_writes = [1013, 4501];
    let known: BTreeSet<u16> = CloseCode::ALL.iter().map(|code| code.as_u16()).collect();
    assert_eq!(
        known,
        tried.into_iter().chain(without_writes).collect(),
        "a new code needs its case"
    );
}

/// Whether a batch of this database waits for a lock.
const WAITS: &str = "select exists (select from pg_stat_activity where usename = 'usher_gateway' \
     and datname = current_database() and wait_event_type = 'Lock')";

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

//! Proves the write path: a flooding client delays only its own writes, the queue is bounded, and after any failure a
//! write is done once and answered with its real result.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use usher::exposition::Format;
use usher::metrics::Metrics;
use usher::postgres::batcher::{Writer, batchers};
use usher::postgres::connect::Target;
use usher::postgres::store::Store;
use usher_core::auth::identity::{Identity, Role};
use usher_core::protocol::client::{Body, NewMessage};
use usher_core::protocol::id::{SessionId, UserId};
use usher_core::protocol::refusal::{Refusal, RefusalCode};
use usher_core::protocol::server::WriteOutcome;
use usher_core::relay::message::Write;
use usher_core::relay::write_queue::Bounds;
use uuid::Uuid;

use crate::client::{Client, PATIENCE, refused, until};
use crate::database::{Database, User, connect};
use crate::gateway::Gateway;
use crate::http::metric;
use crate::proxy::Proxy;
use crate::stage::Stage;

#[tokio::test]
async fn a_flooding_client_delays_only_its_own_writes() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let (session, elsewhere) = (db.session(&ann).await, db.session(&ann).await);
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut quiet = Client::connect(gateway.at, &ben).await;
    let mut flood = [
        Client::connect(gateway.at, &ann).await,
        Client::connect(gateway.at, &ann).await,
        Client::connect(gateway.at, &ann).await,
    ];
    shut_gate(&db, session).await;
    flood[0].say(&message(session, 0, "me!")).await;
    db.until(&format!("(select count(*) = 1 {AT_THE_GATE})"))
        .await;

    // One is under way and stands at the gate, 64 may wait behind it, and the rest may not.
    for (place, client) in flood.iter_mut().enumerate() {
        for id in usize::from(place == 0)..32 {
            client.say(&message(session, id, "me! me! me!")).await;
        }
    }
    until("the flood is in", async || {
        metric(gateway.at, "usher_write_refusals_total{kind=\"author\"}").await >= 31.0
    })
    .await;
    quiet.say(&message(session, 1, "and I?")).await;
    // A slow session delays no other session.
    let elsewhere = quiet.try_send(elsewhere, "here").await;
    assert_eq!(elsewhere["type"], "ack", "{elsewhere}");
    open_gate(&db).await;

    // In the next batch of fifty, although 64 were there before.
    let ack = quiet.expect_where("ack", |ack| ack["id"] == 1).await;
    assert!(ack["seq"].as_u64().unwrap() <= 51, "{ack}");
    let mut refusals = 0;
    for client in &mut flood {
        for answer in answers(client, 32).await {
            if answer["type"] == "error" {
                let refusal = refused(answer, "rate_limited");
                assert!(refusal["retry_after_ms"].as_u64() > Some(0), "{refusal}");
                refusals += 1;
            }
        }
    }
    assert_eq!((refusals, db.head(session).await), (31, 66));
    assert_eq!(metric(gateway.at, "usher_write_queue").await, 0.0);
    assert_eq!(metric(gateway.at, "usher_write_queue_bytes").await, 0.0);
}

#[tokio::test]
async fn a_flooded_session_leaves_room_for_others() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let (session, elsewhere) = (db.session(&ann).await, db.session(&ann).await);
    let bounds = Bounds {
        bytes_max: 100_000,
        wait_max: PATIENCE,
        ..Bounds::default()
    };
    let batcher = TestBatcher::open(&db, bounds);
    shut_gate(&db, session).await;
    let body = "🎬".repeat(2_000);
    let mut flood = Vec::new();
    for _ in 0..20 {
        flood.push(batcher.write(&ann, "{}", session, &body));
    }
    // The gateway queues about 50 messages of 100 KB. The rest of the queue is for other users.
    until("the flood is in", async || {
        batcher.refusals("session") > 5.0
    })
    .await;
    assert!(batcher.number("usher_write_queue_bytes") < 70_000.0);
    let quiet = batcher.write(&ann, "{}", elsewhere, &body).await.unwrap();
    assert!(matches!(quiet, Ok(WriteOutcome::Sent(_))), "{quiet:?}");
    open_gate(&db).await;
    let mut written = 0;
    for outcome in flood {
        match outcome.await.unwrap() {
            Ok(_) => written += 1,
            Err(refusal) => assert_eq!(refusal.code, RefusalCode::RateLimited),
        }
    }
    assert_eq!(db.head(session).await, written);
    assert_eq!(batcher.number("usher_write_queue_bytes"), 0.0);
}

#[tokio::test]
async fn a_write_that_waits_too_long_is_refused_and_not_written() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ben,
    } = Stage::new().await;
    let mut first = Client::connect(gateway.at, &ann).await;
    let mut second = Client::connect(gateway.at, &ben).await;
    shut_gate(&db, session).await;

    first.say(&message(session, 1, "under way")).await;
    db.until(&format!("(select count(*) = 1 {AT_THE_GATE})"))
        .await;
    let began = Instant::now();
    let answer = second.try_send(session, "behind it").await;
    let refusal = refused(answer, "unavailable");
    assert!(refusal["retry_after_ms"].as_u64() > Some(0), "{refusal}");
    assert!(began.elapsed().as_secs_f64() > 4.9);
    let refusals = metric(gateway.at, "usher_write_refusals_total{kind=\"waited\"}").await;
    assert_eq!(refusals, 1.0);

    open_gate(&db).await;
    let ack = first.expect("ack").await;
    assert_eq!(ack["seq"], 1);
    assert_eq!(second.send(session, "again").await["seq"], 2);
}

#[tokio::test]
async fn messages_of_one_author_keep_their_order() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let sessions = [
        db.session(&ann).await,
        db.session(&ann).await,
        db.session(&ann).await,
    ];
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut clients = [
        Client::connect(gateway.at, &ann).await,
        Client::connect(gateway.at, &ben).await,
    ];
    for round in 0..4 {
        for client in &mut clients {
            for id in 0..30 {
                let session = sessions[id % 3];
                client
                    .say(&message(session, id, &format!("{:03}", 30 * round + id)))
                    .await;
            }
        }
        for client in &mut clients {
            for answer in answers(client, 30).await {
                assert_eq!(answer["type"], "ack", "{answer}");
            }
        }
    }
    for session in sessions {
        let log = db.log(session).await;
        assert_eq!(log.len(), 80);
        for user in [&ann, &ben] {
            let said = log
                .iter()
                .filter(|event| event["data"]["user_id"] == json!(user.id));
            let said: Vec<&str> = said
                .map(|event| event["data"]["body"].as_str().unwrap())
                .collect();
            assert!(said.is_sorted(), "{said:?}");
        }
    }
}

#[tokio::test]
async fn rows_that_a_trigger_adds_to_a_batch_are_in_the_log() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    db.run(
        "create function public.answer() returns trigger language plpgsql security definer set search_path = '' as $$
         begin
           if new.body <> 'an answer' then
             insert into public.chat_messages (session_id, user_id, body)
             values (new.session_id, new.user_id, 'an answer');
           end if;
           return null;
         end $$;
         create trigger answer after insert on public.chat_messages
           for each row execute function public.answer();",
    )
    .await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    assert_eq!(client.send(session, "a question").await["seq"], 1);
    let answer = client.event(session, 2).await;
    assert_eq!(answer["data"]["body"], "an answer");
    client.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn the_same_nonce_over_two_gateways_at_once_is_one_message() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    // Opposite orders can meet in a circle, which the database breaks and the gateway tries again.
    let gateways = [
        Gateway::start(&db, |_| {}).await,
        Gateway::start(&db, |_| {}).await,
    ];
    let mut clients = [
        Client::connect(gateways[0].at, &ann).await,
        Client::connect(gateways[0].at, &ann).await,
        Client::connect(gateways[1].at, &ann).await,
    ];
    let nonces: Vec<Uuid> = (0..20).map(|_| Uuid::new_v4()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        for place in 0..nonces.len() {
            let id = if number == 2 {
                nonces.len() - 1 - place
            } else {
                place
            };
            let mut frame = message(session, id, &format!("message {id}"));
            frame["nonce"] = json!(nonces[id]);
            client.say(&frame).await;
        }
    }
    let mut told = HashSet::new();
    for client in &mut clients {
        for answer in answers(client, nonces.len()).await {
            assert_eq!(answer["type"], "ack", "{answer}");
            told.insert((
                answer["id"].as_u64().unwrap(),
                answer["seq"].as_u64().unwrap(),
                answer["message"].as_str().unwrap().to_owned(),
            ));
        }
    }
    assert_eq!(
        told.len(),
        nonces.len(),
        "the same answer for all: {told:?}"
    );
    assert_eq!(db.head(session).await, 20);
    assert_eq!(
        db.one::<i64>("select count(*) from public.chat_messages")
            .await,
        20
    );
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_acknowledged_once() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "allow_change = false").await;
    let before = db.head(session).await;
    let proxy = Proxy::start(&db.gateway_url).await;
    let gateway = Gateway::start(&db, |config| config.database = proxy.target()).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.send(session, "the usual way").await;

    proxy.lose_answer_to("post_messages");
    let nonce = Uuid::new_v4();
    let frame = json!({"type": "send", "session": session, "body": "committed", "nonce": nonce});
    let ack = client.ask(frame.clone()).await;
    assert_eq!(
        (&ack["type"], &ack["seq"]),
        (&json!("ack"), &json!(before + 2)),
        "{ack}"
    );
    assert_eq!(proxy.lost(), 1);
    // Also one to which the client gave no nonce: it has one of the gateway's.
    proxy.lose_answer_to("post_messages");
    assert_eq!(
        client.send(session, "without a nonce").await["seq"],
        before + 3
    );
    assert_eq!(client.ask(frame).await["message"], ack["message"]);
    assert_eq!(db.head(session).await, before + 3);

    // The first vote, told twice, is no change where none is allowed.
    proxy.lose_answer_to("cast_votes");
    client.vote(voting, Some(movies[0])).await;
    assert_eq!(proxy.lost(), 3);
    client.vote(voting, Some(movies[0])).await;
    refused(client.try_vote(voting, Some(movies[1])).await, "conflict");
    assert_eq!(db.count_votes(voting).await, vec![(movies[0], 1)]);
    assert_eq!(metric(gateway.at, "usher_batch_retries_total").await, 3.0);
}

#[tokio::test]
async fn a_backend_that_dies_before_its_commit_has_written_nothing() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    shut_gate(&db, session).await;
    client.say(&message(session, 1, "once")).await;
    until("its backend is ended at the gate", async || {
        let sql = format!("select count(pg_terminate_backend(pid)) {AT_THE_GATE}");
        db.one::<i64>(&sql).await == 1
    })
    .await;
    open_gate(&db).await;
    assert_eq!(client.expect("ack").await["seq"], 1);
    assert_eq!(db.head(session).await, 1);
}

#[tokio::test]
async fn a_vote_that_is_posted_again_stands_though_the_voting_has_closed() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let session = db.session(&ann).await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    let gateway = connect(&db.gateway_url).await;
    let cast = async |user: &User, movie: Value, again: bool| {
        let batch = json!([{
            "role": "authenticated", "claims": {"sub": user.id}, "voting": voting, "movie": movie, "again": again,
        }]);
        let sql = "select refusal from usher.cast_votes($1)";
        let row = gateway.query_one(sql, &[&batch]).await.unwrap();
        row.get::<_, Option<String>>(0)
    };
    let closed = Some("voting_closed".to_owned());
    assert_eq!(cast(&ann, json!(movies[0]), false).await, None);
    db.set_voting(voting, "state = 'closed'").await;
    assert_eq!(cast(&ann, json!(movies[0]), true).await, None);
    assert_eq!(cast(&ann, json!(movies[0]), false).await, closed);
    assert_eq!(cast(&ann, json!(movies[1]), true).await, closed);
    assert_eq!(cast(&ann, Value::Null, true).await, closed);
    assert_eq!(cast(&ben, json!(movies[0]), true).await, closed);
    assert_eq!(cast(&ben, Value::Null, true).await, None);
    assert_eq!(db.count_votes(voting).await, vec![(movies[0], 1)]);
}

#[tokio::test]
async fn a_poisoned_write_harms_itself_alone_and_is_found_soon() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let session = db.session(&ann).await;
    let batcher = TestBatcher::open(&db, Bounds::default());
    shut_gate(&db, session).await;
    let mut good = vec![batcher.write(&ann, "{}", session, "before")];
    db.until(&format!("(select count(*) = 1 {AT_THE_GATE})"))
        .await;
    for _ in 1..32 {
        good.push(batcher.write(&ann, "{}", session, "beside it"));
    }
    // Good JSON, which Postgres has no text for. No token gets here with it.
    let poison = batcher.write(&ben, r#"{"name":"a\u0000b"}"#, session, "poison");
    until("all of them wait", async || {
        batcher.number("usher_write_queue") >= 32.0
    })
    .await;
    open_gate(&db).await;

    for outcome in good {
        assert!(outcome.await.unwrap().is_ok());
    }
    let refusal = poison.await.unwrap().unwrap_err();
    assert_eq!(refusal.code, RefusalCode::BadRequest);
    assert_eq!(batcher.refusals("unreadable"), 1.0);
    assert_eq!(db.head(session).await, 32);
    // One alone, then 32 that were halved five times: not 32 questions.
    let batches = batcher.number("usher_batch_seconds_count");
    assert!(batches <= 2.0 + 2.0 * 5.0, "{batches}");
}

/// The batcher without a gateway around it: with bounds of the test's own, and writers that no token would make.
pub(crate) struct TestBatcher {
    writer: Writer,
    metrics: Arc<Metrics>,
}

impl TestBatcher {
    pub(crate) fn open(db: &Database, bounds: Bounds) -> Self {
        let target = Target::parse(&db.gateway_url.as_str().into(), None).unwrap();
        let metrics = Arc::new(Metrics::new());
        let (writer, batchers) = batchers(&Store::new(target.pool(4)), bounds, &[], &metrics);
        tokio::spawn(batchers.run());
        Self { writer, metrics }
    }

    pub(crate) fn write(
        &self,
        user: &User,
        more_claims: &str,
        session: Uuid,
        body: &str,
    ) -> JoinHandle<Result<WriteOutcome, Refusal>> {
        let (write, identity) = parts(user, more_claims, session, body);
        let writer = self.writer.clone();
        tokio::spawn(async move { writer.write(write, identity).await })
    }

    /// Writes all of them, in this order.
    pub(crate) fn write_all(
        &self,
        user: &User,
        session: Uuid,
        bodies: Vec<String>,
    ) -> JoinHandle<Vec<Result<WriteOutcome, Refusal>>> {
        let (writer, user) = (self.writer.clone(), user.clone());
        tokio::spawn(async move {
            let writing = bodies.iter().map(|body| {
                let (write, identity) = parts(&user, "{}", session, body);
                writer.write(write, identity)
            });
            join_all(writing).await
        })
    }

    pub(crate) fn number(&self, name: &str) -> f64 {
        let text = self.metrics.encode(Format::Text);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |number| number.parse().unwrap())
    }

    pub(crate) fn refusals(&self, kind: &str) -> f64 {
        self.number(&format!("usher_write_refusals_total{{kind=\"{kind}\"}}"))
    }
}

/// A message and its author.
fn parts(user: &User, more_claims: &str, session: Uuid, body: &str) -> (Write, Arc<Identity>) {
    let claims = format!(
        r#"{{"sub":"{}","role":"authenticated","more":{more_claims}}}"#,
        user.id
    );
    let identity = Arc::new(Identity {
        subject: Some(UserId(user.id)),
        role: Role::Authenticated,
        claims: claims.into(),
        expires_at: None,
    });
    let message = Write::Message(NewMessage {
        session: SessionId(session),
        body: Body::parse(body.to_owned()).unwrap(),
        nonce: None,
        reply_to: None,
    });
    (message, identity)
}

/// Backends of this database that stand at a gate within a batch.
const AT_THE_GATE: &str = "from pg_stat_activity where usename = 'usher_gateway' and datname = current_database() \
     and wait_event = 'PgSleep' and query like '%post_messages%'";

/// Makes every write to a session stop until the gate is open. No lock is waited for: a slow trigger does the same.
async fn shut_gate(db: &Database, session: Uuid) {
    db.run(&format!(
        "create table public.gate (session_id uuid primary key);
         create function public.stand_at_gate() returns trigger language plpgsql security definer set search_path = '' as $$
         begin
           while exists (select 1 from public.gate g where g.session_id = new.session_id) loop
             perform pg_catalog.pg_sleep(0.01);
           end loop;
           return new;
         end $$;
         create trigger stand_at_gate before insert on public.chat_messages
           for each row execute function public.stand_at_gate();
         insert into public.gate values ('{session}')"
    ))
    .await;
}

async fn open_gate(db: &Database) {
    db.run("delete from public.gate").await;
}

fn message(session: Uuid, id: usize, body: &str) -> Value {
    json!({"type": "send", "id": id, "session": session, "body": body})
}

/// So many answers to frames that bore an id, whatever they are.
async fn answers(client: &mut Client, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    let mut answers = Vec::new();
    while answers.len() < count {
        match client.read_until(deadline).await {
            Ok(frame) if frame["id"].is_number() => answers.push(frame),
            Ok(_) => {}
            Err(code) => client.fail(&format!("closed with {code}")),
        }
    }
    answers
}

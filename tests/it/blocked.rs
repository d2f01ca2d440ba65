//! Proves that an open transaction with a lock delays only the calls that need that lock. The test holds the lock
//! until it releases it, so the lock did not delay any answer that arrives before.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio_postgres::Client as Sql;
use usher::postgres::connect::Target;
use usher::postgres::statement::StoreError;
use usher::postgres::store::Store;
use usher_core::protocol::id::{Seq, SessionId, VotingId};
use usher_core::relay::write_queue::Bounds;
use uuid::Uuid;

use crate::api::{Caller, data};
use crate::client::{Client, PATIENCE, refused, until};
use crate::database::{Database, User, connect};
use crate::gateway::Gateway;
use crate::http::metric;
use crate::writes::TestBatcher;

#[tokio::test]
async fn a_hundred_blocked_sessions_delay_only_themselves() {
    const USERS: usize = 4;
    const SESSIONS_EACH: usize = 25;
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let mut users = Vec::new();
    for number in 0..USERS {
        users.push(db.user(&format!("writer_{number}")).await);
    }
    let mut sessions = Vec::new();
    for _ in 0..USERS * SESSIONS_EACH {
        sessions.push(db.session(&ann).await);
    }
    let free = db.session(&ann).await;
    let gateway = Gateway::start(&db, |config| assert_eq!(config.pool_size, 4)).await;
    let mut writers = Vec::new();
    for user in &users {
        writers.push(Client::connect(gateway.at, user).await);
    }
    let mut quiet = Client::connect(gateway.at, &ann).await;
    quiet.send(free, "before").await;

    let lock = lock_logs(&db, &sessions).await;
    for (writer, sessions) in writers.iter_mut().zip(sessions.chunks(SESSIONS_EACH)) {
        for (id, session) in sessions.iter().enumerate() {
            writer.say(&message(*session, id)).await;
        }
    }
    // Calls that wait for the locks get a named error while they are held. Other calls are not delayed.
    for number in 0..50 {
        quiet.send(free, &format!("message {number}")).await;
    }
    for writer in &mut writers {
        for _ in 0..SESSIONS_EACH {
            is_busy(writer.expect("error").await);
        }
    }
    quiet.send(free, "all the while").await;
    let busy = metric(gateway.at, "usher_write_refusals_total{kind=\"busy\"}").await;
    assert_eq!(busy, 100.0);
    assert_eq!(metric(gateway.at, "usher_held_sessions").await, 100.0);
    let waiting: f64 = metric(gateway.at, "usher_write_queue").await;
    assert_eq!(waiting, 0.0);

    // They work again after the lock ends, and no refused message was written.
    lock.batch_execute("commit").await.unwrap();
    for (writer, sessions) in writers.iter_mut().zip(sessions.chunks(SESSIONS_EACH)) {
        for (id, session) in sessions.iter().enumerate() {
            writer.say(&message(*session, id)).await;
        }
        for _ in 0..SESSIONS_EACH {
            assert_eq!(writer.expect("ack").await["seq"], 1);
        }
    }
    assert_eq!(metric(gateway.at, "usher_held_sessions").await, 0.0);
    assert_eq!(db.head(free).await, 52);
}

#[tokio::test]
async fn writes_that_waited_for_a_lock_are_written_once_and_in_order() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let (blocked, beside) = (db.session(&ann).await, db.session(&ann).await);
    let bounds = Bounds {
        busy_after: PATIENCE,
        ..Bounds::default()
    };
    let batcher = TestBatcher::open(&db, bounds);
    let lock = lock_logs(&db, &[blocked]).await;
    let first = batcher.write(&ann, "{}", blocked, "000");
    until("the session is held apart", async || {
        batcher.number("usher_held_sessions") == 1.0
    })
    .await;
    let bodies: Vec<String> = (1..60).map(|number| format!("{number:03}")).collect();
    let rest = batcher.write_all(&ann, blocked, bodies);
    until("the rest waits", async || {
        batcher.number("usher_write_queue") > 5.0
    })
    .await;
    let beside = batcher.write(&ben, "{}", beside, "beside it").await;
    assert!(beside.unwrap().is_ok());
    assert_eq!(db.head(blocked).await, 0);

    lock.batch_execute("commit").await.unwrap();
    assert!(first.await.unwrap().is_ok());
    assert!(rest.await.unwrap().iter().all(Result::is_ok));
    let log = db.log(blocked).await;
    let said: Vec<&str> = log
        .iter()
        .map(|event| event["data"]["body"].as_str().unwrap())
        .collect();
    assert_eq!(said.len(), 60);
    assert!(said.is_sorted(), "{said:?}");
    assert_eq!(batcher.number("usher_held_sessions"), 0.0);
    let all: i64 = db.one("select count(*) from public.chat_messages").await;
    assert_eq!(all, 61);
}

#[tokio::test]
async fn a_write_that_was_busy_or_whose_author_hung_up_is_written_once() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let gateway = Gateway::start(&db, |config| {
        config.rates.repeat_pause = Duration::from_secs(30);
    })
    .await;
    let message = |body: &str| json!({"type": "send", "session": session, "body": body, "nonce": Uuid::new_v4()});
    let (busy, first, second) = (message("busy"), message("first"), message("second"));
    let lock = lock_logs(&db, &[session]).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    is_busy(client.ask(busy.clone()).await);
    // Its author may say the same again: it was not written.
    is_busy(client.ask(busy.clone()).await);
    for frame in [&first, &second] {
        client.say(frame).await;
    }
    until("both wait", async || {
        metric(gateway.at, "usher_write_queue").await >= 1.0
    })
    .await;
    drop(client);
    lock.batch_execute("commit").await.unwrap();
    until("both are written", async || db.head(session).await == 2).await;

    let mut client = Client::connect(gateway.at, &ann).await;
    for (frame, seq) in [(&busy, 3), (&first, 1), (&second, 2), (&busy, 3)] {
        let ack = client.ask(frame.clone()).await;
        assert_eq!((&ack["type"], &ack["seq"]), (&json!("ack"), &json!(seq)));
    }
    let bodies: String = db
        .one("select string_agg(body, ' ' order by created_at, id) from public.chat_messages")
        .await;
    assert_eq!(bodies, "first second busy");
}

#[tokio::test]
async fn a_gateway_that_stops_answers_what_waits_for_a_lock() {
    let Stage {
        db,
        gateway,
        ann,
        blocked,
        ..
    } = stage().await;
    let lock = lock_logs(&db, &[blocked]).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.say(&message(blocked, 7)).await;
    until("the session is held apart", async || {
        metric(gateway.at, "usher_held_sessions").await == 1.0
    })
    .await;
    let stopping = tokio::spawn(gateway.stop());
    is_busy(client.expect("error").await);
    assert_eq!(client.closed().await, 1012);
    stopping.await.unwrap();
    drop(lock);
    assert_eq!(db.head(blocked).await, 0);
}

#[tokio::test]
async fn an_author_whose_row_is_locked_delays_no_other_author() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let session = db.session(&ben).await;
    let answered = db.say(session, &ben, "a question").await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut blocked = Client::connect(gateway.at, &ann).await;
    let mut free = Client::connect(gateway.at, &ben).await;

    for row in [
        format!("public.profiles where id = '{}'", ann.id),
        format!("public.chat_messages where id = '{answered}'"),
    ] {
        let lock = lock(&db, &format!("select from {row} for update")).await;
        let mut reply = message(session, 1);
        reply["reply_to"] = json!(answered);
        blocked.say(&reply).await;
        // It does not overtake what its author wrote before.
        blocked.say(&message(session, 2)).await;
        free.send(session, "not blocked").await;
        for _ in 0..2 {
            is_busy(blocked.expect("error").await);
        }
        free.send(session, "nor now").await;
        lock.batch_execute("commit").await.unwrap();
        blocked.send(session, "free again").await;
    }
    // The question, and three messages in each round.
    assert_eq!(db.head(session).await, 7);
}

#[tokio::test]
async fn the_pace_of_one_author_that_is_locked_delays_no_other_author() {
    let db = Database::create().await;
    let (sam, ann, ben) = (
        db.user("sam").await,
        db.user("ann").await,
        db.user("ben").await,
    );
    let session = db.session(&sam).await;
    db.set_session(session, "slow_mode_seconds = 1").await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut blocked = Client::connect(gateway.at, &ann).await;
    let mut free = Client::connect(gateway.at, &ben).await;
    // As a message of hers by SQL whose transaction is open.
    let sql = format!(
        "select pg_advisory_xact_lock(usher.pace_lock_key('{session}', '{}'))",
        ann.id
    );
    let lock = lock(&db, &sql).await;
    blocked.say(&message(session, 1)).await;
    free.send(session, "not blocked").await;
    is_busy(blocked.expect("error").await);
    lock.batch_execute("commit").await.unwrap();
    blocked.send(session, "free again").await;
}

#[tokio::test]
async fn a_blocked_poll_delays_no_other_poll() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let movies = db.movies(2).await;
    let mut votings = Vec::new();
    for _ in 0..3 {
        let session = db.session(&ann).await;
        votings.push(db.voting(session, &movies, "").await);
    }
    let [boxed, own, free] = votings[..] else {
        unreachable!("three were made");
    };
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut voter = Client::connect(gateway.at, &ann).await;
    let mut other = Client::connect(gateway.at, &ben).await;
    voter.vote(own, Some(movies[0])).await;

    // A transaction closes one poll and does not commit; another locks a voter's row of the other poll.
    let locks = [
        lock(
            &db,
            &format!("select pg_advisory_xact_lock(usher.ballot_lock_key('{boxed}'))"),
        )
        .await,
        lock(
            &db,
            &format!("select from public.votes where voting_session_id = '{own}' for update"),
        )
        .await,
    ];
    for (id, (voting, movie)) in [
        (boxed, json!(movies[0])),
        (boxed, Value::Null),
        (own, json!(movies[1])),
        // A later vote never comes before an earlier one.
        (own, Value::Null),
    ]
    .into_iter()
    .enumerate()
    {
        let vote = json!({"type": "vote", "id": id, "voting": voting, "movie": movie});
        voter.say(&vote).await;
    }
    other.vote(free, Some(movies[0])).await;
    other.vote(own, Some(movies[0])).await;
    for _ in 0..4 {
        is_busy(voter.expect("error").await);
    }
    for lock in locks {
        lock.batch_execute("commit").await.unwrap();
    }
    voter.vote(boxed, Some(movies[1])).await;
    voter.vote(own, Some(movies[1])).await;
    assert_eq!(db.count_votes(boxed).await, [(movies[1], 1)]);
    let mut counts = vec![(movies[0], 1), (movies[1], 1)];
    counts.sort_unstable();
    assert_eq!(db.count_votes(own).await, counts);
}

#[tokio::test]
async fn calls_over_http_are_busy_with_a_time_to_come_back() {
    let Stage {
        db,
        gateway,
        sam,
        ann,
        blocked,
        free,
    } = stage().await;
    let voting = db.draft(blocked, &db.movies(2).await, "").await;
    let said = db.say(blocked, &ann, "said before").await;
    let lock = lock_logs(&db, &[blocked]).await;
    let (sam, writer) = (Caller::new(&gateway, &sam), Caller::new(&gateway, &ann));

    let path = |rest: &str| format!("/v1/sessions/{blocked}{rest}");
    let ban = path(&format!("/bans/{}", ann.id));
    let (message, poll) = (
        format!("/v1/messages/{said}"),
        format!("/v1/votings/{voting}"),
    );
    let answers = join_all([
        writer.send("POST", &path("/messages"), json!({"body": "hello"})),
        sam.send("PATCH", &path(""), json!({"slow_mode_seconds": 10})),
        sam.send("PUT", &ban, json!({"seconds": 60})),
        sam.send("DELETE", &message, Value::Null),
        sam.send("PATCH", &poll, json!({"state": "open"})),
    ])
    .await;
    for answer in answers {
        answer.is_refusal(503, "busy");
        assert!(answer.json()["error"]["retry_after_ms"].as_u64() > Some(0));
        assert_eq!(answer.headers["retry-after"], "1", "{answer:?}");
        assert!(!answer.body.contains("cannot be reached"), "{answer:?}");
    }
    // Meanwhile calls for another session succeed, and reads wait for no row lock.
    let elsewhere = format!("/v1/sessions/{free}");
    let change = json!({"slow_mode_seconds": 10});
    data(&sam.send("PATCH", &elsewhere, change.clone()).await, 200);
    for rest in ["/events", "/messages"] {
        data(&writer.get(&path(rest)).await, 200);
    }
    lock.batch_execute("commit").await.unwrap();
    data(&sam.send("PATCH", &path(""), change).await, 200);
    assert_eq!(db.head(blocked).await, 2);
}

#[tokio::test]
async fn moderators_of_blocked_sessions_stop_neither_chat_nor_moderators() {
    const MODERATORS: usize = 20;
    let Stage {
        db,
        gateway,
        sam,
        ann,
        blocked,
        free,
    } = stage().await;
    let lock = lock_logs(&db, &[blocked]).await;
    let caller = Caller::new(&gateway, &sam);
    let path = format!("/v1/sessions/{blocked}");
    let calls = (0..MODERATORS).map(|seconds| {
        let change = json!({"slow_mode_seconds": seconds + 1});
        caller.send("PATCH", &path, change)
    });
    let elsewhere = async {
        let mut client = Client::connect(gateway.at, &ann).await;
        client.subscribe(free).await;
        for number in 0..30 {
            client.send(free, &number.to_string()).await;
        }
        let path = format!("/v1/sessions/{free}");
        let change = json!({"slow_mode_seconds": 5});
        let answer = Caller::new(&gateway, &sam)
            .send("PATCH", &path, change)
            .await;
        data(&answer, 200);
    };
    let (answers, ()) = tokio::join!(join_all(calls), elsewhere);
    for answer in answers {
        answer.is_refusal(503, "busy");
    }
    lock.batch_execute("commit").await.unwrap();
    assert_eq!(db.head(free).await, 31);
}

#[tokio::test]
async fn a_poll_that_is_locked_keeps_no_other_from_closing() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let movies = db.movies(2).await;
    let sessions = [
        db.session(&ann).await,
        db.session(&ann).await,
        db.session(&ann).await,
    ];
    let mut votings = Vec::new();
    for session in sessions {
        votings.push(db.voting(session, &movies, "").await);
    }
    // One voter does not commit, and another transaction holds a log.
    let vote = format!(
        "insert into public.votes (voting_session_id, user_id, movie_id) values ('{}', '{}', '{}')",
        votings[0], ann.id, movies[0]
    );
    let vote = lock(&db, &vote).await;
    for voting in votings {
        db.set_voting(voting, "closes_at = now() + interval '1 ms'")
            .await;
    }
    let locks = [vote, lock_logs(&db, &sessions[1..2]).await];
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut viewer = Client::connect(gateway.at, &ben).await;
    for session in sessions {
        viewer.subscribe(session).await;
    }
    viewer.event_of(sessions[2], 0, "voting.closed").await;
    for lock in locks {
        lock.batch_execute("commit").await.unwrap();
    }
    for session in &sessions[..2] {
        let closed = viewer.event_of(*session, 0, "voting.closed").await;
        let total = i32::from(*session == sessions[0]);
        assert_eq!(closed["data"]["results"]["total"], total, "{closed}");
    }
}

#[tokio::test]
async fn a_log_that_is_locked_keeps_no_other_from_being_trimmed() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let sessions = [
        db.session(&ann).await,
        db.session(&ann).await,
        db.session(&ann).await,
    ];
    for session in sessions {
        for number in 0..5 {
            db.say(session, &ann, &number.to_string()).await;
        }
    }
    let trimming = connect(&db.url).await;
    let trim = async || {
        let sql = "select usher.trim_logs('1 day', 2, 100)";
        let row = trimming.query_one(sql, &[]).await.unwrap();
        row.get::<_, i64>(0)
    };
    let mut sorted = sessions;
    sorted.sort_unstable();
    let lock = lock_logs(&db, &sorted[..1]).await;
    assert_eq!(trim().await, 6);
    lock.batch_execute("commit").await.unwrap();
    assert_eq!(trim().await, 3);
}

#[tokio::test]
async fn a_client_that_waits_for_a_locked_table_gets_busy() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    let caller = Caller::new(&gateway, &ann);
    // As a migration of the app's holds it.
    let lock = lock(&db, "lock table public.movie_sessions").await;
    is_busy(client.try_subscribe(session).await);
    is_busy(client.try_send(session, "hello").await);
    let answer = caller.get(&format!("/v1/sessions/{session}/events")).await;
    answer.is_refusal(503, "busy");
    lock.batch_execute("commit").await.unwrap();
    client.subscribe(session).await;
    client.send(session, "hello").await;
    client.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn no_read_waits_long_for_a_locked_table() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let voting = db.voting(session, &db.movies(2).await, "").await;
    let said = db.say(session, &ann, "said before").await;
    let target = Target::parse(&db.gateway_url.as_str().into(), None).unwrap();
    let store = Store::new(target.pool(1));
    for table in ["usher.session_events", "usher.vote_tallies"] {
        let lock = lock(&db, &format!("lock table {table}")).await;
        let is_locked = match table {
            "usher.session_events" => {
                let page = store.page(SessionId(session), Seq(0)).await;
                matches!(page, Err(StoreError::Locked))
            }
            _ => {
                let counts = store.tallies(&[VotingId(voting)]).await;
                matches!(counts, Err(StoreError::Locked))
            }
        };
        assert!(is_locked, "{table}");
        lock.batch_execute("commit").await.unwrap();
    }

    // Through a gateway: readers of the locked table delay no other reader, and receive the missed events later.
    let gateway = Gateway::start(&db, |_| {}).await;
    let caller = Caller::new(&gateway, &ann);
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    let lock = lock(&db, "lock table usher.session_events").await;
    let events = format!("/v1/sessions/{session}/events");
    let calls = join_all((0..8).map(|_| caller.get(&events)));
    for answer in calls.await {
        answer.is_refusal(503, "busy");
    }
    lock.batch_execute("commit").await.unwrap();
    data(&caller.get(&events).await, 200);
    client.send(session, "said after").await;
    client.has_the_whole_log(&db, session).await;
    let page = caller
        .get(&format!("/v1/sessions/{session}/messages"))
        .await;
    let page = data(&page, 200);
    assert_eq!(page["messages"].as_array().unwrap().len(), 2, "{page}");
    assert!(page.to_string().contains(&said.to_string()), "{page}");
}

struct Stage {
    db: Database,
    gateway: Gateway,
    sam: User,
    ann: User,
    blocked: Uuid,
    free: Uuid,
}

/// Two sessions that sam streams.
async fn stage() -> Stage {
    let db = Database::create().await;
    let (sam, ann) = (db.user("sam").await, db.user("ann").await);
    let (blocked, free) = (db.session(&sam).await, db.session(&sam).await);
    let gateway = Gateway::start(&db, |_| {}).await;
    Stage {
        db,
        gateway,
        sam,
        ann,
        blocked,
        free,
    }
}

/// Takes locks until the given connection commits.
async fn lock(db: &Database, sql: &str) -> Sql {
    let client = connect(&db.url).await;
    client.batch_execute("begin").await.unwrap();
    client.batch_execute(sql).await.unwrap();
    client
}

/// Locks the logs of sessions until the given connection commits.
async fn lock_logs(db: &Database, sessions: &[Uuid]) -> Sql {
    let sessions: Vec<String> = sessions.iter().map(|id| format!("'{id}'")).collect();
    let sessions = sessions.join(",");
    let sql =
        format!("select from usher.session_heads where session_id in ({sessions}) for update");
    lock(db, &sql).await
}

fn message(session: Uuid, id: usize) -> Value {
    json!({"type": "send", "id": id, "session": session, "body": "hello"})
}

#[track_caller]
fn is_busy(answer: Value) {
    let refusal = refused(answer, "busy");
    assert!(refusal["retry_after_ms"].as_u64() > Some(0), "{refusal}");
}

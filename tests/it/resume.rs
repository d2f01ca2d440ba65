//! Proves that a reconnecting client that sends its position receives every later event, or the reason why it cannot.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, refused};
use crate::database::{self, Database, User};
use crate::gateway::Gateway;
use crate::http::metric;
use crate::stage::Stage;

#[tokio::test]
async fn a_dropped_socket_resumes_where_it_stood() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    for is_with_token in [true, false] {
        let mut client = Client::connect(gateway.at, &ann).await;
        client.subscribe(session).await;
        speak(&db, session, &ann, 3).await;
        client.has_the_whole_log(&db, session).await;
        let stood = client.seq(session);

        let mut client = client.reconnect(gateway.at).await;
        speak(&db, session, &ann, 4).await;
        let subscribed = if is_with_token {
            client.resume(session).await
        } else {
            client.resume_with(session, json!({"seq": stood})).await
        };
        assert_eq!(
            (&subscribed["recovered"], &subscribed["reason"]),
            (&json!(true), &Value::Null)
        );
        client.has_the_whole_log(&db, session).await;
        speak(&db, session, &ann, 1).await;
        client.has_the_whole_log(&db, session).await;
    }
}

#[tokio::test]
async fn a_token_that_is_not_good_is_no_error() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let other_session = db.session(&ann).await;
    let ben = db.user("ben").await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    client.subscribe(other_session).await;
    let mut other = Client::connect(gateway.at, &ben).await;
    other.subscribe(session).await;
    speak(&db, session, &ann, 5).await;
    client.event(session, 5).await;
    let good = client.standing(session).token.clone();
    let tampered = {
        let mut letters = good.clone().into_bytes();
        letters[20] = if letters[20] == b'A' { b'B' } else { b'A' };
        String::from_utf8(letters).unwrap()
    };

    for (token, is_admitted) in [
        (json!(good), 0.0),
        (json!(tampered), 1.0),
        (json!("nonsense"), 1.0),
        (json!("x".repeat(3_000)), 1.0),
        (json!(42), 1.0),
        (json!(client.standing(other_session).token), 1.0),
        (json!(other.standing(session).token), 1.0),
    ] {
        let before = metric(gateway.at, "usher_admission_seconds_count").await;
        let mut back = Client::connect(gateway.at, &ann).await;
        let position = json!({"seq": 2, "epoch": client.standing(session).epoch, "token": token});
        let subscribed = back.resume_with(session, position).await;
        assert_eq!(subscribed["recovered"], true, "{token}");
        back.event(session, 5).await;
        let admissions = metric(gateway.at, "usher_admission_seconds_count").await - before;
        assert_eq!(admissions, is_admitted, "admissions with {token}");
    }
}

#[tokio::test]
async fn an_expired_token_is_no_error_and_a_fresh_one_comes_in_time() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::adapted(|config| {
        config.resume_ttl = Duration::from_secs(2);
        // What one loop remembers another does not.
        config.fanout_loops = 1;
    })
    .await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    let first = client.position(session);
    client.expect("resume_token").await;
    client.expect("resume_token").await;
    let fresh = client.position(session);
    assert_ne!(first, fresh);
    speak(&db, session, &ann, 1).await;

    for (position, admissions) in [(fresh, 0.0), (first, 1.0)] {
        let before = metric(gateway.at, "usher_admission_seconds_count").await;
        let mut back = Client::connect(gateway.at, &ann).await;
        assert_eq!(back.resume_with(session, position).await["recovered"], true);
        back.event(session, 1).await;
        let after = metric(gateway.at, "usher_admission_seconds_count").await;
        assert_eq!(after - before, admissions);
    }
}

#[tokio::test]
async fn a_database_that_went_back_in_time_is_said() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    speak(&db, session, &ann, 60).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    client.event(session, 60).await;
    let mut other_epoch = client.position(session);
    other_epoch["epoch"] = json!("another");
    let mut beyond = client.position(session);
    beyond["seq"] = json!(61);

    for position in [other_epoch, beyond, json!({"seq": i64::MAX})] {
        let mut back = Client::connect(gateway.at, &ann).await;
        let subscribed = back.resume_with(session, position.clone()).await;
        assert_eq!(
            (
                &subscribed["recovered"],
                &subscribed["reason"],
                &subscribed["seq"]
            ),
            (&json!(false), &json!("ahead"), &json!(10)),
            "{position}"
        );
        back.event(session, 60).await;
        assert_eq!(back.standing(session).events, db.log(session).await[10..]);
    }
}

#[tokio::test]
async fn a_database_that_was_put_back_while_all_connections_held_is_noticed() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    speak(&db, session, &ann, 5).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    let before = client.subscribe(session).await["epoch"].clone();
    client.event(session, 5).await;

    // What a restore by hand comes to: rows of another time, under the same server, told by their identity.
    db.run("update usher.identity set id = gen_random_uuid()")
        .await;
    let reset = client.expect("reset").await;
    assert_eq!(reset["reason"], "ahead");
    assert_ne!(reset["epoch"], before);
    client.has_the_whole_log(&db, session).await;
    speak(&db, session, &ann, 1).await;
    client.event(session, 6).await;
}

#[tokio::test]
async fn a_position_that_the_log_no_longer_reaches_is_said() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    speak(&db, session, &ann, 2).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    client.event(session, 2).await;
    let client = client.reconnect(gateway.at).await;
    drop(client.position(session));
    let gateway = restart(&db, gateway).await;
    speak(&db, session, &ann, 298).await;
    let trimmed = db
        .one::<i64>("select usher.trim_events('1 year', 100, 10000)")
        .await;
    assert_eq!(trimmed, 200);

    let mut back = client.reconnect(gateway.at).await;
    let subscribed = back.resume(session).await;
    assert_eq!(
        (
            &subscribed["recovered"],
            &subscribed["reason"],
            &subscribed["seq"]
        ),
        (&json!(false), &json!("too_old"), &json!(250))
    );
    back.event(session, 300).await;
    // Just at the floor nothing is missing, just below it something is.
    for (seq, recovered) in [(200, true), (199, false)] {
        let subscribed = back.resume_with(session, json!({"seq": seq})).await;
        assert_eq!(subscribed["recovered"], recovered, "{seq}");
        back.event(session, 300).await;
    }
}

#[tokio::test]
async fn a_resume_of_a_live_session_with_its_token_asks_the_database_nothing() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut watcher = warm(&gateway, session).await;
    let mut clients = Vec::new();
    for name in ["ben", "cleo", "dora"] {
        let user = db.user(name).await;
        let mut client = Client::connect(gateway.at, &user).await;
        client.subscribe(session).await;
        clients.push(client);
    }
    speak(&db, session, &ann, 10).await;
    for client in &mut clients {
        client.event(session, 10).await;
    }
    speak(&db, session, &ann, 5).await;
    watcher.event(session, 15).await;
    let before = metric(gateway.at, "usher_admission_seconds_count").await;
    // Any access query now fails with an error, which would fail the test.
    db.run(
        "alter function usher.admit(uuid) rename to admit_gone;
         alter function usher.session_snapshot(uuid) rename to session_snapshot_gone;
         alter function usher.events_after(uuid, bigint, int, int) rename to events_after_gone;
         alter function usher.heads(uuid[]) rename to heads_gone",
    )
    .await;

    for client in clients {
        let mut client = client.reconnect(gateway.at).await;
        let subscribed = client.resume(session).await;
        assert_eq!(subscribed["recovered"], true);
        client.event(session, 15).await;
    }
    assert_eq!(
        metric(gateway.at, "usher_admission_seconds_count").await,
        before
    );
}

#[tokio::test]
async fn a_ban_voids_a_resume_token_immediately() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut watcher = warm(&gateway, session).await;
    let (ben, cleo) = (db.user("ben").await, db.user("cleo").await);
    let mut positions = Vec::new();
    for user in [&ben, &cleo] {
        let mut client = Client::connect(gateway.at, user).await;
        client.subscribe(session).await;
        positions.push(client.position(session));
    }

    db.ban(session, &ben, "null").await;
    db.ban(session, &cleo, "now() + interval '1 hour'").await;
    watcher.event(session, 2).await;
    // Each loop caches the session again: only the ban itself rejects the old tokens.
    let _others = warm(&gateway, session).await;

    let mut back = Client::connect(gateway.at, &ben).await;
    let frame = json!({"type": "subscribe", "session": session, "resume": positions[0]});
    refused(back.ask(frame).await, "banned");
    let mut back = Client::connect(gateway.at, &cleo).await;
    let subscribed = back.resume_with(session, positions[1].clone()).await;
    assert_eq!(
        (&subscribed["recovered"], &subscribed["can"]["send"]),
        (&json!(true), &json!(false))
    );
    speak(&db, session, &ann, 1).await;
    back.event(session, 3).await;
}

#[tokio::test]
async fn a_client_far_behind_receives_every_event() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::adapted(|config| config.ring_events = 16).await;
    let mut watcher = Client::anonymous(gateway.at).await;
    watcher.subscribe(session).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    let client = client.reconnect(gateway.at).await;
    speak(&db, session, &ann, 1_300).await;
    watcher.has_the_whole_log(&db, session).await;

    // More than two pages, with new events while they are read.
    let writer = tokio::spawn(write(db.url.clone(), session, ann.clone(), 100));
    let mut client = client.reconnect(gateway.at).await;
    assert_eq!(client.resume(session).await["recovered"], true);
    writer.await.unwrap();
    client.has_the_whole_log(&db, session).await;
    watcher.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn a_client_that_drops_its_socket_all_the_time_misses_nothing() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    let writer = tokio::spawn(write(db.url.clone(), session, ann.clone(), 400));
    let mut drops = 0;
    while !writer.is_finished() {
        let next = client.seq(session) + 1 + drops % 7;
        client.event(session, next.min(400)).await;
        client = client.reconnect(gateway.at).await;
        assert_eq!(client.resume(session).await["recovered"], true);
        drops += 1;
    }
    writer.await.unwrap();
    client.has_the_whole_log(&db, session).await;
    assert!(drops > 5, "{drops} drops");
}

#[tokio::test]
async fn a_position_and_its_token_are_good_on_every_node() {
    let Stage {
        db,
        gateway: first,
        session,
        ann,
        ..
    } = Stage::new().await;
    let second = Gateway::start(&db, |_| {}).await;
    let mut watcher = warm(&second, session).await;
    let mut client = Client::connect(first.at, &ann).await;
    client.subscribe(session).await;
    client.send(session, "over the first node").await;
    client.event(session, 1).await;
    speak(&db, session, &ann, 3).await;
    watcher.event(session, 4).await;

    let before = metric(second.at, "usher_admission_seconds_count").await;
    let mut client = client.reconnect(second.at).await;
    assert_eq!(client.resume(session).await["recovered"], true);
    client.has_the_whole_log(&db, session).await;
    assert_eq!(
        metric(second.at, "usher_admission_seconds_count").await,
        before
    );
    client.send(session, "over the second").await;
    watcher.has_the_whole_log(&db, session).await;
}

/// A session is remembered by each fan-out loop that has watched it: connections are dealt out in turn, so two in a row
/// reach both.
async fn warm(gateway: &Gateway, session: Uuid) -> Client {
    let mut watcher = Client::anonymous(gateway.at).await;
    let mut other = Client::anonymous(gateway.at).await;
    watcher.subscribe(session).await;
    other.subscribe(session).await;
    watcher
}

async fn restart(db: &Database, gateway: Gateway) -> Gateway {
    let at = gateway.at;
    gateway.stop().await;
    Gateway::start(db, |config| config.listen = at).await
}

/// So many messages, each its own statement.
async fn speak(db: &Database, session: Uuid, author: &User, count: usize) {
    for n in 1..=count {
        db.say(session, author, &format!("message {n}")).await;
    }
}

/// Writes over its own connection.
async fn write(url: String, session: Uuid, author: User, count: usize) {
    let client = database::connect(&url).await;
    for n in 1..=count {
        database::say(&client, session, &author, &format!("written {n}")).await;
    }
}

/// In one transaction, so that no other transaction sees the session missing. Its messages are lost.
#[tokio::test]
async fn a_session_that_was_deleted_and_inserted_again_starts_over() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut viewer = Client::connect(gateway.at, &ann).await;
    viewer.subscribe(session).await;
    db.say(session, &ann, "gone").await;
    viewer.event(session, 1).await;

    db.run(&format!(
        "begin;
         delete from public.movie_sessions where id = '{session}';
         insert into public.movie_sessions (id, streamer_id, title, status) values ('{session}', '{}', 'again', 'live');
         commit",
        ann.id
    ))
    .await;
    let reset = viewer.expect("reset").await;
    assert_eq!(
        (&reset["reason"], &reset["seq"]),
        (&json!("too_old"), &json!(2))
    );
    db.say(session, &ann, "new").await;
    assert_eq!(viewer.event(session, 3).await["data"]["body"], "new");
    viewer.has_the_whole_log(&db, session).await;
}

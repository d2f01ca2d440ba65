//! Proves that the database decides who may do what, and that a change reaches open sockets within a second.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, refused};
use crate::database::{Database, User};
use crate::gateway::Gateway;
use crate::http::metric;

/// What the protocol gives a change of access, and the machine that runs the tests on top.
const SOON: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_time_out_takes_the_pen_and_leaves_the_view() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = stage().await;
    let movies = db.movies(1).await;
    let voting = db.voting(session, &movies, "").await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;

    db.ban(session, &ann, "clock_timestamp() + interval '1 hour'")
        .await;
    let access = client.expect("access").await;
    assert_eq!(
        (&access["session"], &access["can"]),
        (
            &json!(session),
            &json!({"send": false, "vote": false, "moderate": false})
        )
    );
    refused(client.try_send(session, "hello").await, "banned");
    refused(client.try_vote(voting, Some(movies[0])).await, "banned");
    let banned = client.event(session, 2).await;
    assert_eq!(
        (&banned["type"], &banned["data"]["user_id"]),
        (&json!("member.banned"), &json!(ann.id))
    );
    client.has_the_whole_log(&db, session).await;

    db.run("delete from public.session_bans").await;
    assert_eq!(client.expect("access").await["can"]["send"], true);
    let unbanned = client.event(session, 3).await;
    assert_eq!(
        (&unbanned["type"], &unbanned["data"]["user_id"]),
        (&json!("member.unbanned"), &json!(ann.id))
    );
    client.send(session, "back again").await;
    client.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn a_time_out_that_runs_out_gives_the_pen_back() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = stage().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;

    db.ban(session, &ann, "clock_timestamp() + interval '2 seconds'")
        .await;
    assert_eq!(client.expect("access").await["can"]["send"], false);
    assert_eq!(client.expect("access").await["can"]["send"], true);
    client.send(session, "back again").await;
    client.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn a_ban_for_good_ends_the_subscription_and_the_socket() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = stage().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    let mut other = Client::anonymous(gateway.at).await;
    other.subscribe(session).await;

    db.ban(session, &ann, "null").await;
    let over = client.expect("unsubscribed").await;
    assert_eq!(
        (&over["session"], &over["reason"]),
        (&json!(session), &json!("banned"))
    );
    assert_eq!(client.closed_within(SOON).await, 4503);

    let mut again = Client::connect(gateway.at, &ann).await;
    refused(again.try_subscribe(session).await, "banned");
    refused(again.try_send(session, "let me in").await, "banned");
    // The ban affects no other user.
    db.say(session, &ann, "by SQL").await;
    other.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn a_ban_in_one_session_leaves_the_others() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = stage().await;
    let second = db.session(&ann).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    client.subscribe(second).await;

    db.ban(session, &ann, "null").await;
    let over = client.expect("unsubscribed").await;
    assert_eq!(over["session"], json!(session));
    let seen = client.seq(session);
    db.say(session, &ann, "not for her").await;
    db.say(second, &ann, "for her").await;
    client.has_the_whole_log(&db, second).await;
    assert_eq!(client.seq(session), seen);
}

#[tokio::test]
async fn a_session_that_turns_private_is_left_by_strangers() {
    let Stage {
        db,
        gateway,
        session,
        sam,
        ann,
    } = stage().await;
    let ben = db.user("ben").await;
    db.join(session, &ben).await;
    let mut strangers = [
        Client::connect(gateway.at, &ann).await,
        Client::anonymous(gateway.at).await,
    ];
    let mut members = [
        Client::connect(gateway.at, &sam).await,
        Client::connect(gateway.at, &ben).await,
    ];
    for client in strangers.iter_mut().chain(&mut members) {
        client.subscribe(session).await;
    }

    db.set_session(session, "visibility = 'private'").await;
    for client in &mut strangers {
        assert_eq!(client.expect("unsubscribed").await["reason"], "forbidden");
        assert_eq!(client.closed_within(SOON).await, 4503);
    }
    db.say(session, &sam, "just us").await;
    for client in &mut members {
        client.has_the_whole_log(&db, session).await;
    }

    // A client that proves earlier access gets `forbidden`; any other client learns only that there is no such session.
    let position = strangers[0].position(session);
    let mut back = Client::connect(gateway.at, &ann).await;
    let frame = json!({"type": "subscribe", "session": session, "resume": position});
    refused(back.ask(frame).await, "forbidden");
    let mut stranger = Client::connect(gateway.at, &ann).await;
    let there = refused(stranger.try_subscribe(session).await, "not_found");
    let nowhere = refused(stranger.try_subscribe(Uuid::new_v4()).await, "not_found");
    assert_eq!(there["message"], nowhere["message"]);
    refused(stranger.try_send(session, "hello?").await, "not_found");
    // A new member may enter, and loses access again when removed.
    db.join(session, &ann).await;
    stranger.subscribe(session).await;
    stranger.send(session, "thanks").await;
    db.run(&format!(
        "delete from public.session_members where user_id = '{}'",
        ann.id
    ))
    .await;
    assert_eq!(stranger.expect("unsubscribed").await["reason"], "forbidden");
    assert_eq!(stranger.closed_within(SOON).await, 4503);
}

#[tokio::test]
async fn a_deleted_session_is_no_ban() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = stage().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;

    db.run(&format!(
        "delete from public.movie_sessions where id = '{session}'"
    ))
    .await;
    assert_eq!(client.expect("unsubscribed").await["reason"], "forbidden");
    assert_eq!(client.closed_within(SOON).await, 4503);
}

#[tokio::test]
async fn a_members_session_is_read_by_all_and_written_by_members() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = stage().await;
    let ben = db.user("ben").await;
    db.join(session, &ben).await;
    db.set_session(session, "visibility = 'members'").await;
    let mut stranger = Client::connect(gateway.at, &ann).await;
    let mut member = Client::connect(gateway.at, &ben).await;
    assert_eq!(stranger.subscribe(session).await["can"]["send"], false);
    assert_eq!(member.subscribe(session).await["can"]["send"], true);

    refused(stranger.try_send(session, "me too").await, "forbidden");
    member.send(session, "hello").await;
    stranger.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn slow_mode_says_how_long_to_wait() {
    let Stage {
        db,
        gateway,
        session,
        sam,
        ann,
    } = stage().await;
    db.set_session(session, "slow_mode_seconds = 30").await;
    let mut client = Client::connect(gateway.at, &ann).await;
    let nonce = Uuid::new_v4();
    let first = json!({"type": "send", "session": session, "body": "first", "nonce": nonce});
    let ack = client.ask(first.clone()).await;
    client.check_kind(&ack, "ack");

    let refusal = refused(client.try_send(session, "second").await, "slow_mode");
    let wait = refusal["retry_after_ms"].as_u64().unwrap();
    assert!((20_000..=30_000).contains(&wait), "{refusal}");
    // The same message again is not another one.
    assert_eq!(client.ask(first).await["seq"], ack["seq"]);
    let mut streamer = Client::connect(gateway.at, &sam).await;
    streamer.send(session, "as often").await;
    streamer.send(session, "as I like").await;
}

#[tokio::test]
async fn an_ended_session_takes_no_more() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = stage().await;
    let movies = db.movies(1).await;
    let voting = db.voting(session, &movies, "").await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    client.vote(voting, Some(movies[0])).await;

    db.set_session(session, "status = 'ended'").await;
    let access = client.expect("access").await;
    assert_eq!(
        access["can"],
        json!({"send": false, "vote": false, "moderate": false})
    );
    refused(client.try_send(session, "wait").await, "session_ended");
    refused(client.try_vote(voting, None).await, "session_ended");
    // Its voting is closed, and the log can still be read.
    client.event_of(session, 1, "voting.closed").await;
    let mut late = Client::anonymous(gateway.at).await;
    assert_eq!(late.subscribe(session).await["info"]["status"], "ended");
    late.has_the_whole_log(&db, session).await;
    client.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn a_chat_that_is_switched_off_is_for_moderators() {
    let Stage {
        db,
        gateway,
        session,
        sam,
        ann,
    } = stage().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    db.set_session(session, "chat_enabled = false").await;
    client.event_of(session, 0, "session.updated").await;
    refused(client.try_send(session, "hello").await, "forbidden");
    let mut streamer = Client::connect(gateway.at, &sam).await;
    streamer.send(session, "please listen").await;
    client.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn a_deleted_message_leaves_the_past_too() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = stage().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    let ack = client.send(session, "a secret").await;
    client.event(session, 1).await;

    db.run(&format!(
        "update public.chat_messages set deleted_at = now() where id = '{}'",
        text(&ack["message"])
    ))
    .await;
    let deleted = client.event(session, 2).await;
    assert_eq!(
        (&deleted["type"], &deleted["data"]["id"]),
        (&json!("chat.deleted"), &ack["message"])
    );
    assert!(!deleted.to_string().contains("secret"), "{deleted}");

    // Another gateway has nothing in memory: what it tells comes from the log.
    let other = Gateway::start(&db, |_| {}).await;
    let mut late = Client::anonymous(other.at).await;
    late.subscribe(session).await;
    late.event(session, 2).await;
    let created = &late.standing(session).events[0];
    assert_eq!(
        (&created["type"], &created["data"]["body"]),
        (&json!("chat.created"), &Value::Null)
    );
    assert!(created["data"]["deleted_at"].is_string(), "{created}");
    late.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn an_edited_message_is_an_event() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = stage().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    let message = db.say(session, &ann, "teh movie").await;
    db.run(&format!(
        "update public.chat_messages set body = 'the movie' where id = '{message}'"
    ))
    .await;
    let updated = client.event(session, 2).await;
    assert_eq!(
        (&updated["type"], &updated["data"]["body"]),
        (&json!("chat.updated"), &json!("the movie"))
    );
    client.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn the_projects_own_policies_decide() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = stage().await;
    let ben = db.user("ben").await;
    db.run(&format!(
        "create policy not_for_ann on public.movie_sessions as restrictive for select to authenticated
             using (auth.uid() is distinct from '{}');
         create policy no_shouting on public.chat_messages as restrictive for insert to authenticated
             with check (body <> upper(body));
         create policy nobody_votes on public.votes as restrictive for insert to authenticated with check (false);
         drop policy movie_sessions_select_anon on public.movie_sessions",
        ann.id
    ))
    .await;
    let movies = db.movies(1).await;
    let voting = db.voting(session, &movies, "").await;
    let mut anonymous = Client::anonymous(gateway.at).await;
    let mut stranger = Client::connect(gateway.at, &ann).await;
    let mut client = Client::connect(gateway.at, &ben).await;

    refused(anonymous.try_subscribe(session).await, "not_found");
    refused(stranger.try_subscribe(session).await, "not_found");
    client.subscribe(session).await;
    refused(client.try_send(session, "HELLO").await, "forbidden");
    refused(client.try_vote(voting, Some(movies[0])).await, "forbidden");
    client.send(session, "hello").await;
    client.has_the_whole_log(&db, session).await;
}

struct Stage {
    db: Database,
    gateway: Gateway,
    session: Uuid,
    sam: User,
    ann: User,
}

async fn stage() -> Stage {
    let db = Database::create().await;
    let (sam, ann) = (db.user("sam").await, db.user("ann").await);
    let session = db.session(&sam).await;
    let gateway = Gateway::start(&db, |_| {}).await;
    Stage {
        db,
        gateway,
        session,
        sam,
        ann,
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test]
async fn concurrent_equal_requests_share_one_query() {
    const VIEWERS: usize = 100;
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut viewers = Vec::new();
    for _ in 0..VIEWERS {
        let mut viewer = Client::anonymous(gateway.at).await;
        viewer.subscribe(session).await;
        viewers.push(viewer);
    }
    let asked = async || metric(gateway.at, "usher_access_checks_total").await;
    let shared = async || metric(gateway.at, "usher_access_checks_shared_total").await;
    let (asked_before, shared_before) = (asked().await, shared().await);

    // This change concerns all viewers and ends the access of each.
    db.set_session(session, "visibility = 'private'").await;
    for viewer in &mut viewers {
        let gone = viewer.expect("unsubscribed").await;
        assert_eq!(gone["reason"], "forbidden");
    }
    let (asked, shared) = (asked().await - asked_before, shared().await - shared_before);
    assert_eq!(asked + shared, 100.0);
    assert!(asked < 50.0, "{asked} questions for {VIEWERS} viewers");
}

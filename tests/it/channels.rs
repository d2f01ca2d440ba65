//! Proves which roles can listen on the NOTIFY channels and write to them, and what a forged event causes.

use serde_json::json;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::client::Client;
use crate::database::{Database, connect};
use crate::http::metric;
use crate::stage::Stage;

#[tokio::test]
async fn no_role_but_the_gateways_knows_the_channels() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut viewer = Client::connect(gateway.at, &ann).await;
    viewer.subscribe(session).await;
    let name = db.channel("events").await;
    let suffix = name.strip_prefix("usher_events_").unwrap();
    assert_eq!(suffix.len(), 32, "{name}");

    for role in ["anon", "authenticated", "service_role"] {
        let client = connect(&db.url).await;
        client
            .batch_execute(&format!("set role {role}"))
            .await
            .unwrap();
        for sql in [
            "select usher.channel_names()",
            "select events from usher.channels",
            "update usher.channels set events = 'usher_events'",
        ] {
            let refused = client.batch_execute(sql).await.unwrap_err();
            assert_eq!(refused.code().unwrap().code(), "42501", "{role}: {sql}");
        }
        // The listener's own statement names them.
        let seen = client
            .query_one(
                "select count(*) from pg_stat_activity where query like '%' || $1::text || '%' and pid <> pg_backend_pid()",
                &[&suffix],
            )
            .await
            .unwrap();
        assert_eq!(seen.get::<_, i64>(0), 0, "{role}");
        // Names that one would guess lead nowhere.
        let forged = format!(
            r#"select pg_notify('usher_events', '{{"s":"{session}","q":1,"e":{{"seq":1,"type":"chat.created","data":{{}}}}}}')"#
        );
        client.batch_execute(&forged).await.unwrap();
    }
    db.say(session, &ann, "true").await;
    viewer.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn a_forged_event_is_taken_back() {
    let Stage {
        db,
        mut gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut viewer = Client::connect(gateway.at, &ann).await;
    viewer.subscribe(session).await;
    db.say(session, &ann, "first").await;
    viewer.event(session, 1).await;

    let channel = db.channel("events").await;
    let forge = async |payload: &str| {
        db.run(&format!("select pg_notify('{channel}', '{payload}')"))
            .await;
    };
    // With the next number: it is shown until the true event of that number arrives, whole or too large for a NOTIFY.
    let large = "\u{1f3ac}".repeat(2_000);
    for (seq, body) in [(2, "true"), (4, &large)] {
        forge(&format!(
            r#"{{"s":"{session}","q":{seq},"e":{{"seq":{seq},"type":"chat.created","at":"2026-11-30T20:00:00.000Z","data":{{"body":"forged"}}}}}}"#
        ))
        .await;
        let shown = viewer.event(session, seq).await;
        assert_eq!(shown["data"]["body"], "forged");
        db.say(session, &ann, body).await;
        let reset = viewer.expect("reset").await;
        assert_eq!(
            (&reset["reason"], &reset["seq"]),
            (&json!("ahead"), &json!(0))
        );
        viewer.has_the_whole_log(&db, session).await;
        db.say(session, &ann, "what follows").await;
        viewer.event(session, seq + 1).await;
    }
    assert_eq!(metric(gateway.at, "usher_forged_events_total").await, 2.0);
    // A hint with a number that viewers have: the log confirms their event.
    forge(&format!(
        r#"{{"s":"{session}","q":5,"e":{{"seq":5,"type":"chat.created","data":{{"body":"forged"}}}}}}"#
    ))
    .await;
    db.say(session, &ann, "last").await;
    viewer.event(session, 6).await;
    viewer.has_the_whole_log(&db, session).await;
    assert_eq!(viewer.received("reset"), 2);
    gateway.take_errors();
    // Forged notifications may continue all night, and the log stays readable.
    let log = gateway.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("is not in the log"));
    assert_eq!(lines.count(), 1, "{log}");
}

#[tokio::test]
async fn channels_that_get_other_names_are_found_again() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut viewer = Client::connect(gateway.at, &ann).await;
    viewer.subscribe(session).await;
    db.run("update usher.channels set events = 'usher_events_' || replace(gen_random_uuid()::text, '-', '')")
        .await;
    db.say(session, &ann, "on the new channel").await;
    viewer.event(session, 1).await;
    db.say(session, &ann, "and another").await;
    viewer.event(session, 2).await;
    assert_eq!(viewer.received("reset"), 0);
}

/// Every role can set `trace_notify`, which makes Postgres tell the sender of a NOTIFY its channel.
#[tokio::test]
async fn debug_messages_do_not_name_the_channels() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let voting = db.voting(session, &db.movies(1).await, "").await;
    let (client, mut connection) = tokio_postgres::connect(&db.url, NoTls).await.unwrap();
    let told = tokio::spawn(async move {
        let mut told = String::new();
        while let Some(Ok(message)) =
            std::future::poll_fn(|context| connection.poll_message(context)).await
        {
            if let AsyncMessage::Notice(notice) = message {
                told.push_str(&format!("{notice} {:?}\n", notice.detail()));
            }
        }
        told
    });
    client
        .batch_execute(&format!(
            "set role authenticated;
             set request.jwt.claims = '{{\"sub\": \"{ann}\", \"role\": \"authenticated\"}}';
             set client_min_messages = debug5;
             set trace_notify = on; set debug_print_parse = on; set debug_print_rewritten = on; set debug_print_plan = on;
             notify heard;
             select usher.access_changed('{session}', null);
             insert into public.votes (voting_session_id, movie_id)
             select '{voting}', movie_id from public.voting_options;
             insert into public.chat_messages (session_id, body) values ('{session}', 'one');
             insert into public.chat_messages (session_id, body) select '{session}', 'of several' from generate_series(1, 3);
             update public.chat_messages set deleted_at = now();",
            ann = ann.id
        ))
        .await
        .unwrap();
    drop(client);
    let told = told.await.unwrap();
    assert!(told.contains("Async_Notify(heard)"), "{told:.1000}");
    for kind in ["events", "votes", "control"] {
        let name = db.channel(kind).await;
        // As text, and as the bytes of a constant in a plan.
        let (_, suffix) = name.rsplit_once('_').unwrap();
        let bytes: Vec<String> = suffix.bytes().map(|byte| byte.to_string()).collect();
        assert!(!told.contains(suffix), "{kind}");
        assert!(!told.contains(&bytes.join(" ")), "{kind}");
    }
    assert!(db.head(session).await >= 5);
}

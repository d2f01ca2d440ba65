//! Proves that any bad frame leads to a named error or a named close code, and that other clients do not notice.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use usher_core::limits::FRAME_BYTES_MAX;
use uuid::Uuid;

use crate::client::{Client, refused};
use crate::rfc6455::masked;
use crate::stage::Stage;

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of frames and fields")]
async fn a_wrong_value_is_refused_by_the_name_of_its_field() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    let uuid = Uuid::new_v4();
    for (frame, field) in [
        (json!({}), "type"),
        (json!({"type": 7}), "type"),
        (json!({"type": "dance"}), "type"),
        (json!({"type": null}), "type"),
        (json!({"type": "subscribe"}), "session"),
        (json!({"type": "subscribe", "session": 7}), "session"),
        (json!({"type": "subscribe", "session": "seven"}), "session"),
        (
            json!({"type": "subscribe", "session": session, "history": "all"}),
            "history",
        ),
        (
            json!({"type": "subscribe", "session": session, "history": 201}),
            "history",
        ),
        (
            json!({"type": "subscribe", "session": session, "history": -1}),
            "history",
        ),
        (
            json!({"type": "subscribe", "session": session, "history": 1.5}),
            "history",
        ),
        (
            json!({"type": "subscribe", "session": session, "resume": 7}),
            "resume",
        ),
        (
            json!({"type": "subscribe", "session": session, "resume": {}}),
            "resume.seq",
        ),
        (
            json!({"type": "subscribe", "session": session, "resume": {"seq": -1}}),
            "resume.seq",
        ),
        (
            json!({"type": "subscribe", "session": session, "resume": {"seq": "1"}}),
            "resume.seq",
        ),
        (
            json!({"type": "subscribe", "session": session, "resume": {"seq": u64::MAX}}),
            "resume.seq",
        ),
        (
            json!({"type": "subscribe", "session": session, "resume": {"seq": 1, "epoch": 7}}),
            "resume.epoch",
        ),
        (json!({"type": "unsubscribe", "session": []}), "session"),
        (json!({"type": "send", "session": session}), "body"),
        (
            json!({"type": "send", "session": session, "body": 7}),
            "body",
        ),
        (
            json!({"type": "send", "session": session, "body": ""}),
            "body",
        ),
        (
            json!({"type": "send", "session": session, "body": "nul \u{0}"}),
            "body",
        ),
        (
            json!({"type": "send", "session": session, "body": "x", "nonce": "mine"}),
            "nonce",
        ),
        (
            json!({"type": "send", "session": session, "body": "x", "reply_to": 7}),
            "reply_to",
        ),
        (json!({"type": "vote", "movie": uuid}), "voting"),
        (json!({"type": "vote", "voting": uuid}), "movie"),
        (
            json!({"type": "vote", "voting": uuid, "movie": true}),
            "movie",
        ),
        (json!({"type": "auth"}), "token"),
        (json!({"type": "auth", "token": {}}), "token"),
    ] {
        // `ask` takes the answer that carries the id.
        let refusal = refused(client.ask(frame.clone()).await, "bad_request");
        assert!(
            refusal["message"].as_str().unwrap().contains(field),
            "{frame}: {refusal}"
        );
    }
    let long = "x".repeat(2_001);
    refused(client.try_send(session, &long).await, "too_large");
    let ack = client.send(session, &"\u{1F37F}".repeat(2_000)).await;
    assert_eq!(ack["seq"], 1);
    assert_eq!(db.head(session).await, 1);
}

#[tokio::test]
async fn an_answer_carries_the_id_as_it_was_given() {
    let Stage { gateway, ann, .. } = Stage::new().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    for id in [
        json!(0),
        json!(-7),
        json!(9_007_199_254_740_992_i64),
        json!(-9_007_199_254_740_992_i64),
        json!("a \"name\""),
        json!("\u{1F37F}"),
        json!(""),
    ] {
        client.say(&json!({"type": "ping", "id": id})).await;
        assert_eq!(client.expect("pong").await["id"], id);
        client.say(&json!({"type": "dance", "id": id})).await;
        assert_eq!(client.expect("error").await["id"], id);
    }
    client.say(&json!({"type": "ping"})).await;
    assert_eq!(client.expect("pong").await.get("id"), None);
    // Ids that would return in another form, and values that cannot be ids.
    let long = format!("\"{}\"", "x".repeat(65));
    for id in [
        "1.50",
        "1.0",
        "1e2",
        "-0",
        "9007199254740993",
        "-9007199254740993",
        "18446744073709551617",
        "1e400",
        "[]",
        "{}",
        "true",
        &*long,
        r#""\ud83c""#,
    ] {
        let frame = format!(r#"{{"type":"ping","id":{id}}}"#);
        client.say_raw(frame.into()).await;
        let refusal = refused(client.expect("error").await, "bad_request");
        assert!(
            ["id must be", "id cannot be read"]
                .iter()
                .any(|named| { refusal["message"].as_str().unwrap().starts_with(named) }),
            "{id}: {refusal}"
        );
        assert_eq!(refusal.get("id"), None);
    }
}

#[tokio::test]
async fn unknown_and_repeated_keys_are_ignored() {
    let Stage {
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    let frame = format!(
        r#"{{"type":"send","id":1,"session":"{session}","body":"hello","body":"hello","colour":"red","deep":{{"er":[1]}}}}"#
    );
    client.say_raw(frame.into()).await;
    assert_eq!(client.expect("ack").await["seq"], 1);
}

#[tokio::test]
async fn a_client_of_another_protocol_is_told_and_then_closed() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut bystander = Client::connect(gateway.at, &ann).await;
    bystander.subscribe(session).await;
    let deep = "[".repeat(20_000);
    for garbage in [
        Message::text("hello"),
        Message::text("[1,2]"),
        Message::text("null"),
        Message::text("\"text\""),
        Message::text(""),
        Message::text("{\"type\":\"ping\""),
        Message::text("{\"type\":\"ping\"} "),
        Message::text(deep),
        Message::binary(b"{\"type\":\"ping\"}".to_vec()),
    ] {
        let mut client = Client::connect(gateway.at, &ann).await;
        let is_fine = matches!(&garbage, Message::Text(text) if text.ends_with("} "));
        client.say_raw(garbage.clone()).await;
        if is_fine {
            client.expect("pong").await;
            continue;
        }
        let refusal = refused(client.expect("error").await, "bad_request");
        assert_eq!(refusal.get("id"), None);
        // Once is a mistake, and the socket is as good as before.
        client.subscribe(session).await;
        for _ in 0..5 {
            client.say_raw(garbage.clone()).await;
        }
        assert_eq!(client.closed().await, 4500);
    }
    db.say(session, &ann, "still here").await;
    bystander.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn a_frame_that_is_too_large_closes_the_socket() {
    let Stage {
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let padded = |bytes: usize| {
        let frame = json!({"type": "ping", "id": 1, "padding": ""}).to_string();
        let padding = "x".repeat(bytes - frame.len());
        json!({"type": "ping", "id": 1, "padding": padding}).to_string()
    };
    let mut client = Client::connect(gateway.at, &ann).await;
    client.say_raw(padded(FRAME_BYTES_MAX).into()).await;
    client.expect("pong").await;
    client.say_raw(padded(FRAME_BYTES_MAX + 1).into()).await;
    assert_eq!(client.closed().await, 1009);

    // The size that a header promises is enough, and so are fragments that add up.
    let mut client = Client::connect(gateway.at, &ann).await;
    client
        .say_bytes(&[
            0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4,
        ])
        .await;
    assert_eq!(client.closed().await, 1009);
    let mut client = Client::connect(gateway.at, &ann).await;
    for n in 0..=FRAME_BYTES_MAX / 8_000 {
        let code = if n == 0 { Data::Text } else { Data::Continue };
        let fragment = Frame::message(vec![b' '; 8_000], OpCode::Data(code), false);
        client.say_raw(Message::Frame(fragment)).await;
    }
    assert_eq!(client.closed().await, 1009);
    Client::connect(gateway.at, &ann)
        .await
        .subscribe(session)
        .await;
}

#[tokio::test]
async fn a_message_in_fragments_is_one_frame() {
    let Stage { gateway, ann, .. } = Stage::new().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    let parts = [
        (Data::Text, "{\"type\":", false),
        (Data::Continue, "\"ping\",\"id\"", false),
        (Data::Continue, ":7}", true),
    ];
    for (code, part, is_last) in parts {
        let fragment = Frame::message(part.as_bytes().to_vec(), OpCode::Data(code), is_last);
        client.say_raw(Message::Frame(fragment)).await;
        // Control frames may come in between.
        client.ping(b"in between").await;
    }
    assert_eq!(client.expect("pong").await["id"], 7);
}

#[tokio::test]
async fn a_violation_of_rfc_6455_closes_the_socket_with_its_code() {
    let Stage {
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    for (what, bytes, code) in [
        (
            "text that is not UTF-8",
            masked(0x81, b"{\"type\":\"p\xff\"}"),
            1007,
        ),
        ("a frame without a mask", vec![0x81, 0x02, b'{', b'}'], 1002),
        ("a reserved bit", masked(0xc1, b"{}"), 1002),
        ("a reserved opcode", masked(0x83, b"{}"), 1002),
        ("a reserved control opcode", masked(0x8b, b""), 1002),
        ("a continuation of nothing", masked(0x80, b"{}"), 1002),
        ("a control frame in fragments", masked(0x09, b""), 1002),
    ] {
        let mut client = Client::connect(gateway.at, &ann).await;
        client.say_bytes(&bytes).await;
        assert_eq!(client.closed().await, code, "{what}");
    }
    Client::connect(gateway.at, &ann)
        .await
        .subscribe(session)
        .await;
}

#[tokio::test]
async fn pings_are_answered_and_a_goodbye_is_returned() {
    let Stage {
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    client.ping(b"").await;
    client.ping(&[7; 125]).await;
    client.say_raw(Message::Close(None)).await;
    assert!(matches!(
        client.closed_within(Duration::from_secs(5)).await,
        1000 | 1005
    ));
}

#[tokio::test]
async fn more_writes_than_may_be_under_way_are_refused_by_name() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    // The log is held, so that no answer comes.
    let writer = crate::database::connect(&db.url).await;
    writer
        .batch_execute("begin; update usher.session_heads set seq = seq")
        .await
        .unwrap();
    for id in 1..=40 {
        client
            .say(&json!({"type": "send", "id": id, "session": session, "body": "hello"}))
            .await;
    }
    for _ in 33..=40 {
        let refusal = refused(client.expect("error").await, "rate_limited");
        assert!(refusal["retry_after_ms"].as_u64().is_some(), "{refusal}");
    }
    writer.batch_execute("commit").await.unwrap();
    for _ in 1..=32 {
        client.expect("ack").await;
    }
    assert_eq!(db.head(session).await, 32);
}

#[tokio::test]
async fn hostile_text_comes_back_as_it_was_written() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    let texts = [
        "'; drop table public.chat_messages; --",
        "<script>alert(1)</script>",
        "\u{202e}backwards\u{0007}\u{7f}\r\n\t",
        "\"}],\"seq\":99,\"x\":[{\"",
        "e\u{301}\u{FEFF}\u{10FFFF}",
        "\\u0000 \\ \\\\",
    ];
    for text in texts {
        let seq = client.send(session, text).await["seq"].as_u64().unwrap();
        assert_eq!(
            client.event(session, seq).await["data"]["body"],
            json!(text)
        );
    }
    client.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn errors_carry_nothing_of_the_inside() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    let movies = db.movies(1).await;
    let draft = db.draft(session, &movies, "").await;
    db.set_session(session, "status = 'ended'").await;
    let refusals = [
        client.try_send(session, "x").await,
        client.try_send(Uuid::new_v4(), "x").await,
        client.try_vote(draft, Some(movies[0])).await,
        client.try_vote(draft, Some(Uuid::new_v4())).await,
        client.try_subscribe(Uuid::new_v4()).await,
    ];
    for refusal in refusals {
        assert_eq!(refusal["type"], "error");
        let message = refusal["message"].as_str().unwrap().to_lowercase();
        for inside in [
            "select",
            "insert",
            "usher.",
            "public.",
            "sqlstate",
            "us0",
            "127.0.0.1",
            "postgres",
            "panicked",
        ] {
            assert!(!message.contains(inside), "{refusal}");
        }
        assert!(refusal["retry_after_ms"] == Value::Null, "{refusal}");
    }
}

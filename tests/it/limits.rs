//! Proves that the gateway refuses a client over a limit with a named error and the time to wait, and that other
//! clients are not affected.

use std::io::ErrorKind::WouldBlock;
use std::num::NonZero;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::protocol::Message;
use usher::limits::PLAIN_CONNECTIONS_PER_ADDRESS_MAX;
use uuid::Uuid;

use crate::client::{Client, PATIENCE, refused, until};
use crate::database::Database;
use crate::gateway::Gateway;
use crate::http::{UPGRADE, get, metric, read_head, shake};
use crate::stage::Stage;
use usher::config::rates::Rate;

fn rate(count: u32, seconds: u64) -> Option<Rate> {
    Some(Rate {
        count: NonZero::new(count).unwrap(),
        period: Duration::from_secs(seconds),
    })
}

/// Checks a refusal for the rate, and that the wait is within the rate's period; gives the wait.
#[track_caller]
fn limited(answer: Value, seconds: u64) -> Duration {
    let refusal = refused(answer, "rate_limited");
    let wait = refusal["retry_after_ms"].as_u64().expect("a time to wait");
    assert!(wait > 0 && wait <= 1_000 * seconds, "{refusal}");
    Duration::from_millis(wait)
}

#[tokio::test]
async fn a_user_says_so_much_over_all_sockets_and_others_are_not_held_up() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ben,
    } = Stage::adapted(|config| config.rates.messages = rate(20, 1_200)).await;
    let mut first = Client::connect(gateway.at, &ben).await;
    for number in 0..10 {
        first.send(session, &format!("first {number}")).await;
    }
    let mut second = Client::connect(gateway.at, &ben).await;
    for number in 0..10 {
        second.send(session, &format!("second {number}")).await;
    }

    limited(second.try_send(session, "one more").await, 60);
    limited(first.try_send(session, "one more").await, 60);
    let mut other = Client::connect(gateway.at, &ann).await;
    other.send(session, "not my fault").await;
    assert_eq!(db.head(session).await, 21);
}

#[tokio::test]
async fn a_client_that_waits_as_told_may_write_and_an_early_one_gets_the_remaining_time() {
    let Stage {
        gateway,
        session,
        ben,
        ..
    } = Stage::adapted(|config| config.rates.messages = rate(1, 4)).await;
    let mut client = Client::connect(gateway.at, &ben).await;
    client.send(session, "one").await;
    let wait = limited(client.try_send(session, "two").await, 4);
    let told = Instant::now();
    // The sleeps of this test are the wait that the gateway asks for.
    tokio::time::sleep(wait / 2).await;
    let rest = limited(client.try_send(session, "two").await, 4);
    // The refused message used none of the limit: the end of the wait is unchanged.
    let drift = (told.elapsed() + rest).abs_diff(wait);
    assert!(
        drift < Duration::from_millis(500),
        "{wait:?}, then {rest:?}"
    );
    tokio::time::sleep(rest).await;
    client.send(session, "two").await;
}

#[tokio::test]
async fn slow_mode_accepts_a_message_after_the_stated_wait() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let session = db.session(&ann).await;
    db.set_session(session, "slow_mode_seconds = 3").await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut client = Client::connect(gateway.at, &ben).await;
    client.send(session, "one").await;
    let refusal = refused(client.try_send(session, "two").await, "slow_mode");
    let wait = refusal["retry_after_ms"].as_u64().unwrap();
    assert!(wait > 0 && wait <= 3_000, "{refusal}");
    // The wait that the gateway asks for.
    tokio::time::sleep(Duration::from_millis(wait)).await;
    client.send(session, "two").await;
}

#[tokio::test]
async fn a_moderator_has_higher_limits() {
    let Stage {
        gateway,
        session,
        ann,
        ..
    } = Stage::adapted(|config| {
        config.rates.messages = rate(2, 30);
        config.rates.moderator_messages = rate(10, 30);
    })
    .await;
    let mut streamer = Client::connect(gateway.at, &ann).await;
    assert_eq!(streamer.subscribe(session).await["can"]["moderate"], true);
    for number in 0..10 {
        streamer.send(session, &format!("order {number}")).await;
    }
    limited(streamer.try_send(session, "order 10").await, 30);
}

#[tokio::test]
async fn votes_and_the_writes_of_everybody_together_have_rates_too() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let session = db.session(&ann).await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    let gateway = Gateway::start(&db, |config| {
        config.rates.votes = rate(2, 30);
        config.rates.session_writes = rate(3, 30);
    })
    .await;
    let mut client = Client::connect(gateway.at, &ben).await;
    client.vote(voting, Some(movies[0])).await;
    client.vote(voting, Some(movies[1])).await;
    limited(client.try_vote(voting, Some(movies[0])).await, 30);
    assert_eq!(db.count_votes(voting).await, vec![(movies[1], 1)]);

    for number in 0..3 {
        client.send(session, &format!("message {number}")).await;
    }
    let mut other = Client::connect(gateway.at, &ann).await;
    limited(other.try_send(session, "there is no room").await, 30);
}

#[tokio::test]
async fn the_same_words_are_not_said_twice_in_a_row() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let (session, other) = (db.session(&ann).await, db.session(&ann).await);
    let gateway = Gateway::start(&db, |config| {
        config.rates.repeat_pause = Duration::from_secs(30);
    })
    .await;
    let mut client = Client::connect(gateway.at, &ben).await;
    let nonce = Uuid::new_v4();
    let frame = json!({"type": "send", "session": session, "body": "first!", "nonce": nonce});
    let ack = client.ask(frame.clone()).await;
    assert_eq!(ack["type"], "ack");
    // The same message, sent again because its answer was lost, is no repetition.
    let again = client.ask(frame).await;
    assert_eq!(
        (&again["seq"], &again["message"]),
        (&ack["seq"], &ack["message"])
    );

    limited(client.try_send(session, "first!").await, 30);
    client.send(other, "first!").await;
    client.send(session, "second!").await;
    client.send(session, "first!").await;

    // The refused messages were not written.
    db.set_session(session, "slow_mode_seconds = 1").await;
    refused(client.try_send(session, "slowly").await, "slow_mode");
    until("slow mode lets it pass", async || {
        let answer = client.try_send(session, "slowly").await;
        assert_ne!(answer["code"], "rate_limited", "{answer}");
        answer["type"] == "ack"
    })
    .await;
    // A moderator may shout.
    let mut streamer = Client::connect(gateway.at, &ann).await;
    streamer.subscribe(other).await;
    streamer.send(other, "quiet!").await;
    streamer.send(other, "quiet!").await;
}

#[tokio::test]
async fn equal_messages_on_two_sockets_are_written_once() {
    // Fewer than would close the socket that is refused each time.
    const ROUNDS: u64 = 50;
    let Stage {
        db,
        gateway,
        session,
        ben,
        ..
    } = Stage::adapted(|config| {
        config.rates.repeat_pause = Duration::from_secs(30);
    })
    .await;
    let mut first = Client::connect(gateway.at, &ben).await;
    let mut second = Client::connect(gateway.at, &ben).await;
    for round in 0..ROUNDS {
        let body = format!("round {round}");
        let (one, other) = tokio::join!(
            first.try_send(session, &body),
            second.try_send(session, &body)
        );
        let (written, repeated) = if one["type"] == "ack" {
            (one, other)
        } else {
            (other, one)
        };
        assert_eq!(written["type"], "ack", "{written}");
        limited(repeated, 30);
    }
    assert_eq!(db.head(session).await, ROUNDS);
}

#[tokio::test]
async fn a_flood_of_frames_is_told_and_then_closed() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let gateway = Gateway::start(&db, |config| config.rates.frames = rate(10, 60)).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    for _ in 0..10 {
        assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong");
    }
    let answer = client.ask(json!({"type": "ping"})).await;
    limited(answer, 60);
    for id in 0..60 {
        client
            .say(&json!({"type": "ping", "id": format!("{id}")}))
            .await;
    }
    assert_eq!(client.closed().await, 4029);
    assert_eq!(
        metric(gateway.at, "usher_closes_total{kind=\"4029\"}").await,
        1.0
    );
    // The gateway serves another client, and the same client later.
    let mut other = Client::connect(gateway.at, &ann).await;
    assert_eq!(other.ask(json!({"type": "ping"})).await["type"], "pong");
}

#[tokio::test]
async fn a_flood_of_pings_or_pongs_is_one_of_frames() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let gateway = Gateway::start(&db, |config| config.rates.frames = rate(10, 60)).await;
    for control in [Message::Ping("x".into()), Message::Pong("x".into())] {
        let mut client = Client::connect(gateway.at, &ann).await;
        for _ in 0..11 {
            client.say_raw(control.clone()).await;
        }
        limited(client.expect("error").await, 60);
        for _ in 0..60 {
            client.say_raw(control.clone()).await;
        }
        assert_eq!(client.closed().await, 4029);
    }
    let received = metric(gateway.at, "usher_control_frames_received_total").await;
    assert!(received >= 140.0, "{received}");
}

#[tokio::test]
async fn bytes_and_subscriptions_of_a_socket_have_rates_too() {
    let Stage {
        gateway,
        session,
        ann,
        ..
    } = Stage::adapted(|config| {
        config.rates.bytes = rate(40_000, 60);
        config.rates.joins = rate(2, 60);
    })
    .await;
    let mut client = Client::connect(gateway.at, &ann).await;
    let pad = "x".repeat(30_000);
    let large = json!({"type": "ping", "pad": pad});
    assert_eq!(client.ask(large.clone()).await["type"], "pong");
    limited(client.ask(large).await, 60);
    assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong");

    client.subscribe(session).await;
    client.subscribe(session).await;
    limited(client.try_subscribe(session).await, 60);
    // However the word is spelled.
    let spelled = format!(r#"{{"type":"\u0073ubscribe","id":"s","session":"{session}"}}"#);
    client.say_raw(spelled.into()).await;
    let answer = client
        .expect_where("error", |error| error["id"] == "s")
        .await;
    limited(answer, 60);
    client
        .send(session, "the word \"subscribe\" costs nothing")
        .await;
}

#[tokio::test]
async fn an_address_has_a_handshake_rate_and_a_socket_limit() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |config| {
        config.rates.requests = rate(4, 60);
        config.rates.connections_per_address = NonZero::new(2);
    })
    .await;
    let from = |address: &'static str| [("X-Forwarded-For", address)];
    let authenticate = async |headers: &[(&str, &str)]| shake(gateway.at, "", headers).await;
    // The tests come from a loopback address, which is taken for a proxy: it is believed, and is not limited itself.
    for _ in 0..10 {
        assert_eq!(authenticate(&[]).await.status, 101);
    }
    for _ in 0..4 {
        assert_eq!(authenticate(&from("192.0.2.1")).await.status, 101);
        // A socket counts until the gateway has seen its end.
        until("the socket is closed", async || {
            metric(gateway.at, "usher_connections").await == 0.0
        })
        .await;
    }
    let answer = authenticate(&from("192.0.2.1")).await;
    answer.is_refusal(429, "rate_limited");
    let seconds: u64 = answer.headers["retry-after"].parse().unwrap();
    assert!((1..=15).contains(&seconds), "{answer:?}");
    // What the client itself writes there does not help it.
    authenticate(&from("203.0.113.9, 192.0.2.1"))
        .await
        .is_refusal(429, "rate_limited");
    assert_eq!(authenticate(&from("192.0.2.2")).await.status, 101);
    assert!(
        metric(
            gateway.at,
            "usher_handshake_refusals_total{kind=\"address\"}"
        )
        .await
            >= 2.0
    );
}

#[tokio::test]
async fn an_address_counts_in_every_form_and_those_that_cannot_be_read_count_together() {
    let db = Database::create().await;
    let mut gateway = Gateway::start(&db, |config| {
        config.rates.requests = rate(4, 60);
        config.rates.connections_per_address = NonZero::new(100);
    })
    .await;
    let path = format!("/v1/sessions/{}/events", Uuid::new_v4());
    let authenticate = async |header: &'static str, said: &str| {
        get(gateway.at, &path, &[(header, said)]).await.status
    };
    let with_a_port = [
        "192.0.2.1:4711",
        "\"192.0.2.1\"",
        "192.0.2.1",
        "[::ffff:192.0.2.1]:1",
        "192.0.2.1:4712",
    ];
    let of_a_network = [
        "2001:db8:1:2::1",
        "[2001:db8:1:2::2]",
        "[2001:db8:1:2::3]:4711",
        "2001:db8:1:2::4%eth0",
        "[2001:db8:1:2::5]",
    ];
    let unreadable = ["unknown", "_hidden", "", "unix:", "192.0.2.1, -"];
    for forms in [with_a_port, of_a_network, unreadable] {
        for form in &forms[..4] {
            assert_eq!(authenticate("X-Forwarded-For", form).await, 404, "{form}");
        }
        assert_eq!(
            authenticate("X-Forwarded-For", forms[4]).await,
            429,
            "{forms:?}"
        );
    }
    // In the other header as well, where that one is not there.
    assert_eq!(
        authenticate("Forwarded", "for=\"192.0.2.1:4713\"").await,
        429
    );
    assert_eq!(authenticate("Forwarded", "for=\"_secret\"").await, 429);
    assert_eq!(authenticate("Forwarded", "for=192.0.2.2").await, 404);
    let log = gateway.log();
    let told = log.matches("client addresses that cannot be read").count();
    assert_eq!(told, 1, "{log}");
    let counted = metric(gateway.at, "usher_unreadable_addresses_total").await;
    assert_eq!(counted, 6.0);
}

#[tokio::test]
async fn sockets_of_an_address_count_whatever_the_port_of_each() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |config| {
        config.rates.connections_per_address = NonZero::new(2);
    })
    .await;
    let mut held = Vec::new();
    for (form, status) in [
        ("192.0.2.1:4711", 101),
        ("192.0.2.1:4712", 101),
        ("192.0.2.1:4713", 429),
        ("unknown", 101),
        ("_a", 101),
        ("_b", 429),
    ] {
        let mut socket = TcpStream::connect(gateway.at).await.unwrap();
        let headers: String = UPGRADE
            .iter()
            .map(|(n, v)| format!("{n}: {v}\r\n"))
            .collect();
        let request = format!(
            "GET /v1/socket HTTP/1.1\r\nHost: x\r\n{headers}X-Forwarded-For: {form}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(read_head(&mut socket).await.0, status, "{form}");
        held.push(socket);
    }
}

#[tokio::test]
async fn forwarded_addresses_count_only_from_a_trusted_proxy() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |config| {
        config.rates.connections_per_address = NonZero::new(2);
        config.rates.trusted_proxies = Vec::new();
    })
    .await;
    let first = Client::anonymous(gateway.at).await;
    let _second = Client::anonymous(gateway.at).await;
    let forged = [("X-Forwarded-For", "192.0.2.77")];
    shake(gateway.at, "", &forged)
        .await
        .is_refusal(429, "rate_limited");
    drop(first);
    until("a closed socket frees its place", async || {
        shake(gateway.at, "", &forged).await.status == 101
    })
    .await;
}

#[tokio::test]
async fn an_address_that_says_nothing_keeps_only_itself_out() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |config| config.rates.trusted_proxies = Vec::new()).await;
    let connect = async |address: [u8; 4]| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        socket.connect(gateway.at).await.unwrap()
    };
    let mut other = connect([127, 0, 0, 2]).await;
    let mut silent = Vec::new();
    for _ in 0..PLAIN_CONNECTIONS_PER_ADDRESS_MAX + 10 {
        silent.push(connect([127, 0, 0, 1]).await);
    }
    for oldest in &mut silent[..10] {
        let ended = timeout(PATIENCE / 4, oldest.read_u8()).await;
        assert!(ended.expect("the oldest stay").is_err());
    }
    let mut byte = [0];
    assert!(
        other
            .try_read(&mut byte)
            .is_err_and(|error| error.kind() == WouldBlock)
    );
    assert!(
        silent[10]
            .try_read(&mut byte)
            .is_err_and(|error| error.kind() == WouldBlock)
    );
    // The gateway serves clients that send, whatever other clients of their address do.
    Client::anonymous(gateway.at).await;
    other
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    other.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

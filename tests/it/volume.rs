//! Proves that the gateway copes with many events at the same time, and with receivers that do not read them.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use tokio::time::Instant;
use uuid::Uuid;

use crate::client::Client;
use crate::database::{Database, User};
use crate::gateway::Process;
use crate::http::metric;
use crate::stage::Stage;

#[tokio::test]
async fn a_message_too_large_for_a_notification_arrives() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    let large = "\u{1F37F}".repeat(2_000);

    db.say(session, &ann, "before").await;
    db.say(session, &ann, &large).await;
    let ack = client.send(session, &large).await;
    db.say(session, &ann, "after").await;
    assert_eq!(ack["seq"], 3);
    for seq in [2, 3] {
        assert_eq!(
            client.event(session, seq).await["data"]["body"],
            json!(large)
        );
    }
    client.has_the_whole_log(&db, session).await;
    // Each character escaped, it still fits a frame.
    let escaped = format!(
        r#"{{"type":"send","id":1,"session":"{session}","body":"{}"}}"#,
        r"\ud83c\udf7f".repeat(2_000)
    );
    client.say_raw(escaped.into()).await;
    client.expect("ack").await;
    client.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn a_thousand_rows_at_once_arrive_complete_and_in_order() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut clients = [
        Client::connect(gateway.at, &ann).await,
        Client::anonymous(gateway.at).await,
    ];
    for client in &mut clients {
        client.subscribe(session).await;
    }
    db.say(session, &ann, "before").await;

    bulk(&db, session, &ann, 1_000, 100).await;
    let mut newcomer = Client::anonymous(gateway.at).await;
    let all = newcomer.resume_with(session, json!({"seq": 0})).await;
    assert_eq!(all["recovered"], true);
    db.say(session, &ann, "after").await;

    for client in clients.iter_mut().chain([&mut newcomer]) {
        client.has_the_whole_log(&db, session).await;
        let bodies: Vec<&str> = client.standing(session).events[1..=1_000]
            .iter()
            .map(|event| {
                event["data"]["body"]
                    .as_str()
                    .unwrap()
                    .split(' ')
                    .next()
                    .unwrap()
            })
            .collect();
        let expected: Vec<String> = (1..=1_000).map(|n| n.to_string()).collect();
        assert_eq!(bodies, expected);
    }
}

#[tokio::test]
async fn rows_of_many_sessions_in_one_statement_arrive_each_in_its_own() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    let mut sessions = vec![session];
    for _ in 0..4 {
        sessions.push(db.session(&ann).await);
    }
    for session in &sessions {
        client.subscribe(*session).await;
    }
    db.run(&format!(
        "insert into public.chat_messages (session_id, user_id, body)
         select s.id, '{}', n::text from generate_series(1, 60) n cross join public.movie_sessions s",
        ann.id
    ))
    .await;
    for session in sessions {
        client.has_the_whole_log(&db, session).await;
        assert_eq!(client.seq(session), 60);
    }
}

#[tokio::test]
async fn stalled_clients_delay_no_other_client_and_take_no_memory() {
    const STALLED: usize = 8;
    const EVENTS: usize = 6_000;
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let session = db.session(&ann).await;
    let gateway = Process::serve(&db, ([127, 0, 0, 1], 0).into()).await;
    let mut healthy = [
        Client::connect(gateway.at, &ann).await,
        Client::anonymous(gateway.at).await,
    ];
    for client in &mut healthy {
        client.subscribe(session).await;
    }
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut client = narrow(gateway.at, &ben).await;
        client.subscribe(session).await;
        stalled.push(client);
    }
    // Once everything in memory is as large as it gets.
    bulk(&db, session, &ann, 600, 2_000).await;
    for client in &mut healthy {
        client.event(session, 600).await;
    }
    let before = gateway.resident_bytes();

    let total = 600 + EVENTS as u64;
    for _ in 0..EVENTS / 200 {
        bulk(&db, session, &ann, 200, 2_000).await;
    }
    let [first, second] = &mut healthy;
    tokio::join!(first.event(session, total), second.event(session, total));

    // 13 MB, once or for each that is stalled, if they were kept.
    assert!(metric(gateway.at, "usher_stalls_total").await >= STALLED as f64);
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "{} KiB more", grown >> 10);

    // Each client reads again and receives everything, immediately or after it reconnects.
    let last = stalled.pop().unwrap();
    for client in [stalled.pop().unwrap(), last] {
        let mut client = client;
        let mut has_come_back = false;
        while client.seq(session) < total {
            match client
                .read_until(Instant::now() + Duration::from_secs(20))
                .await
            {
                Ok(_) => {}
                Err(code) => {
                    assert_eq!(code, 4008, "closed");
                    has_come_back = true;
                    client = client.reconnect(gateway.at).await;
                    client.resume(session).await;
                }
            }
        }
        assert!(has_come_back || client.standing(session).events.len() == EVENTS + 600);
        client.has_the_whole_log(&db, session).await;
    }
}

#[tokio::test]
async fn a_client_that_reads_again_is_caught_up_on_the_same_socket() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut slow = narrow(gateway.at, &ann).await;
    slow.subscribe(session).await;
    let mut other = Client::anonymous(gateway.at).await;
    other.subscribe(session).await;
    for _ in 0..20 {
        bulk(&db, session, &ann, 100, 2_000).await;
    }
    other.event(session, 2_000).await;
    assert!(metric(gateway.at, "usher_stalls_total").await >= 1.0);

    // It asks something while it is behind: nothing is lost of that either.
    slow.say(&json!({"type": "send", "id": "s", "session": session, "body": "I am here"}))
        .await;
    slow.event(session, 2_001).await;
    assert_eq!(slow.expect("ack").await["seq"], 2_001);
    slow.has_the_whole_log(&db, session).await;
    other.has_the_whole_log(&db, session).await;
}

/// Inserts so many rows in one statement; a body begins with its number.
async fn bulk(db: &Database, session: Uuid, author: &User, count: usize, bytes: usize) {
    db.run(&format!(
        "insert into public.chat_messages (session_id, user_id, body)
         select '{session}', '{}', rpad(n || ' ', {bytes}, 'x') from generate_series(1, {count}) n",
        author.id
    ))
    .await;
}

/// A client with a small window, which reads only on demand.
async fn narrow(at: SocketAddr, user: &User) -> Client {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    socket.connect(&at.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = TcpStream::from_std(socket.into()).unwrap();
    let mut client = Client::over(socket, at, &user.name, Some(user.token.clone())).await;
    client.expect("welcome").await;
    client
}

//! Proves the life cycle of a connection and of the gateway: heartbeats, a graceful stop, and what an operator sees.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use expect_test::expect;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use usher::limits::PLAIN_CONNECTION_MAX;
use uuid::Uuid;

use crate::client::{Client, PATIENCE, until};
use crate::database::{Database, JWT_SECRET};
use crate::gateway::Gateway;
use crate::http::{UPGRADE, call, get, metric, read_head, shake};
use crate::rfc6455::read_frame;
use crate::stage::Stage;

#[test]
fn a_gateway_whose_log_nobody_reads_still_stops() {
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_usher"))
        .arg("serve")
        .env(
            "DATABASE_URL",
            "postgres://usher_gateway:x@127.0.0.1:1/none",
        )
        .env("SUPABASE_JWT_SECRET", JWT_SECRET)
        .env("USHER_LISTEN", "127.0.0.1:0")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(gateway.stderr.take().unwrap());
    let mut lines = log.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("accepting connections")));
    drop(lines);

    kill_process(Pid::from_child(&gateway), Signal::TERM).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = gateway.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            gateway.kill().unwrap();
            panic!("it does not stop");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_silent_client_is_closed_and_one_that_answers_pings_is_not() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let heartbeat = Duration::from_millis(500);
    let gateway = Gateway::start(&db, |config| config.heartbeat = heartbeat).await;
    // A browser at rest: it answers pings and says nothing.
    let mut answering = Client::connect(gateway.at, &ann).await;
    answering.subscribe(session).await;
    let mut socket = TcpStream::connect(gateway.at).await.unwrap();
    let mut request = format!("GET /v1/socket HTTP/1.1\r\nHost: {}\r\n", gateway.at);
    for (name, value) in UPGRADE {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    socket
        .write_all(format!("{request}\r\n").as_bytes())
        .await
        .unwrap();
    let began = Instant::now();

    let silence = async {
        let code = close_code(&mut socket).await;
        let lived = began.elapsed();
        assert_eq!(code, 4009);
        assert!(
            lived >= 2 * heartbeat && lived < 10 * heartbeat,
            "closed after {lived:?}"
        );
        // The other client must outlive two more heartbeats.
        tokio::time::sleep(2 * heartbeat).await;
        db.say(session, &ann, "anybody there?").await;
    };
    tokio::join!(silence, answering.event(session, 1));
}

#[tokio::test]
async fn a_graceful_stop_tells_clients_when_to_reconnect() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::adapted(|config| config.drain = Duration::from_secs(5)).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = Client::connect(gateway.at, &ann).await;
        client.subscribe(session).await;
        clients.push(client);
    }
    db.say(session, &ann, "before").await;
    for client in &mut clients {
        client.event(session, 1).await;
    }

    gateway.begin_stop();
    let mut after = HashSet::new();
    for client in &mut clients {
        let reconnect = client.expect("reconnect").await;
        assert_eq!(reconnect["reason"], "draining");
        let after_ms = reconnect["after_ms"].as_u64().unwrap();
        assert!(after_ms < 5_000, "{reconnect}");
        after.insert(after_ms);
        assert_eq!(client.closed().await, 1012);
    }
    assert!(
        after.len() > 5,
        "the reconnect times of many clients must differ: {after:?}"
    );
    let at = gateway.at;
    gateway.stop().await;
    // Everything is gone: the port, and the connections to the database.
    drop(TcpListener::bind(at).unwrap());
    db.until("not exists (select from pg_stat_activity where usename = 'usher_gateway' and datname = current_database())")
        .await;
}

#[tokio::test]
async fn writes_sent_before_a_stop_are_answered() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    for id in 1..=20 {
        client.say(&serde_json::json!({"type": "send", "id": id, "session": session, "body": "last words"})).await;
    }
    client.event(session, 1).await;
    gateway.stop().await;
    // Every acknowledged write is there; any other write may be missing.
    assert_eq!(client.closed().await, 1012);
    let acks = client.take("ack").len() as u64;
    assert!(acks <= db.head(session).await, "{acks} answers");
}

#[tokio::test]
async fn an_operator_sees_health_readiness_and_metrics() {
    let Stage {
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    assert_eq!(get(gateway.at, "/healthz", &[]).await.status, 200);
    let ready = get(gateway.at, "/readyz", &[]).await;
    assert_eq!(
        (ready.status, &ready.json()["ready"]),
        (200, &serde_json::json!(true))
    );
    let checks = ready.json()["checks"].as_object().unwrap().clone();
    assert!(checks.values().all(|check| check == true), "{checks:?}");

    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    client.send(session, "hello").await;
    client.event(session, 1).await;
    client.try_send(session, "").await;
    shake(gateway.at, "?access_token=nonsense", &[]).await;
    for (name, value) in [
        ("usher_connections", 1.0),
        ("usher_connections_opened_total", 1.0),
        ("usher_subscriptions", 1.0),
        ("usher_frames_received_total", 3.0),
        ("usher_listening", 1.0),
        ("usher_admission_seconds_count", 1.0),
        ("usher_write_seconds_count", 1.0),
        ("usher_batch_items_sum", 1.0),
        ("usher_refusals_total{kind=\"bad_request\"}", 1.0),
        ("usher_handshake_refusals_total{kind=\"token\"}", 1.0),
        ("usher_subscription_starts_total{kind=\"fresh\"}", 1.0),
        ("usher_stalls_total", 0.0),
        ("usher_ready", 1.0),
        ("usher_command_queue", 0.0),
        ("usher_write_queue", 0.0),
        ("usher_query_queue", 0.0),
    ] {
        assert_eq!(metric(gateway.at, name).await, value, "{name}");
    }
    assert!(metric(gateway.at, "usher_notifications_total").await >= 1.0);
    assert!(metric(gateway.at, "usher_bytes_sent_total").await >= 500.0);
    assert!(metric(gateway.at, "usher_lag_seconds_count").await >= 1.0);
    assert!(metric(gateway.at, "usher_lag_seconds_sum").await < 20.0);
    assert!(metric(gateway.at, "usher_echo_delay_seconds_count").await >= 1.0);
    drop(client);
    until("the count of sockets goes down", async || {
        metric(gateway.at, "usher_connections").await
            + metric(gateway.at, "usher_subscriptions").await
            == 0.0
    })
    .await;
}

#[tokio::test]
async fn calls_are_counted_by_route_and_outcome_and_by_nothing_that_a_client_makes_up() {
    let Stage {
        gateway, session, ..
    } = Stage::new().await;
    let events = format!("/v1/sessions/{session}/events");
    for (method, path) in [
        ("GET", events.as_str()),
        ("HEAD", &events),
        ("GET", "/v1/sessions/7/events"),
        ("GET", &format!("/v1/sessions/{}/events", Uuid::new_v4())),
        ("POST", &format!("/v1/sessions/{session}/messages")),
        ("PUT", &events),
        ("BREW", &events),
        ("GET", "/"),
        ("GET", "/made/up"),
    ] {
        call(gateway.at, method, path, &[], "").await;
    }
    let text = get(gateway.at, "/metrics", &[]).await.body;
    let counts = text
        .lines()
        .filter_map(|line| line.strip_prefix("usher_calls_total"));
    let mut counts: Vec<&str> = counts.collect();
    counts.sort_unstable();
    expect![[r#"
        {call="GET /v1/sessions/{id}/events",kind="bad_request"} 1
        {call="GET /v1/sessions/{id}/events",kind="not_found"} 1
        {call="GET /v1/sessions/{id}/events",kind="ok"} 2
        {call="POST /v1/sessions/{id}/messages",kind="unauthorized"} 1
        {call="other",kind="bad_request"} 2
        {call="other",kind="not_found"} 1
        {call="other",kind="ok"} 1"#]]
    .assert_eq(&counts.join("\n"));
}

#[tokio::test]
async fn the_metrics_are_openmetrics() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut client = Client::anonymous(gateway.at).await;
    client.ask(serde_json::json!({"type": "dance"})).await;
    let accept = [("Accept", "application/openmetrics-text; version=1.0.0")];
    let answer = get(gateway.at, "/metrics", &accept).await;
    assert!(answer.headers["content-type"].starts_with("application/openmetrics-text"));
    let lines: Vec<&str> = answer.body.lines().collect();
    assert_eq!(lines.last(), Some(&"# EOF"));
    let mut families = HashSet::new();
    for line in &lines[..lines.len() - 1] {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["#", "HELP", name, ..] => {
                let is_named = ["usher_", "process_"]
                    .iter()
                    .any(|prefix| name.starts_with(prefix));
                assert!(is_named && words.len() > 3, "{line}")
            }
            ["#", "TYPE", name, kind] => {
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(families.insert(name), "twice: {line}");
            }
            [sample, value] => {
                let name = sample.split('{').next().unwrap();
                assert!(
                    families.iter().any(|family| name.starts_with(family)),
                    "{line}"
                );
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
            _ => panic!("not a line of OpenMetrics: {line}"),
        }
    }
    assert!(families.len() > 20, "{families:?}");

    // Those who do not ask for it get the format that every scraper reads and a browser shows.
    for accept in [
        &[][..],
        &[("Accept", "*/*")],
        &[("Accept", "text/html,*/*;q=0.8")],
    ] {
        let answer = get(gateway.at, "/metrics", accept).await;
        let kind = &answer.headers["content-type"];
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
        assert!(
            answer
                .body
                .contains("# TYPE usher_refusals_total counter\n")
        );
        assert!(!answer.body.contains("# EOF"));
    }
}

#[tokio::test]
async fn a_session_counts_once_on_any_number_of_fan_out_loops() {
    let db = Database::create().await;
    let streamer = db.user("sam").await;
    let sessions = [db.session(&streamer).await, db.session(&streamer).await];
    let gateway = Gateway::start(&db, |config| config.fanout_loops = 3).await;
    let mut viewers = Vec::new();
    for number in 0..6 {
        let mut viewer = Client::anonymous(gateway.at).await;
        viewer.subscribe(sessions[usize::from(number == 5)]).await;
        viewers.push(viewer);
    }
    until("both sessions are counted", async || {
        metric(gateway.at, "usher_sessions").await == 2.0
    })
    .await;
    drop(viewers);
    until("the count is back at zero", async || {
        metric(gateway.at, "usher_sessions").await == 0.0
    })
    .await;
}

/// Waits until `/readyz` says that this, and nothing else, is missing; `None` where nothing is.
async fn lacks(gateway: &Gateway, missing: Option<&str>) {
    let told = format!("/readyz lacks {missing:?}");
    until(&told, async || {
        let answer = get(gateway.at, "/readyz", &[]).await;
        let checks = answer.json()["checks"].as_object().unwrap().clone();
        let good =
            |(name, check): (&String, &Value)| (*check == true) == (Some(&**name) != missing);
        let status = if missing.is_some() { 503 } else { 200 };
        answer.status == status && checks.iter().all(good)
    })
    .await;
}

#[tokio::test]
async fn readiness_needs_what_the_gateway_calls() {
    let db = Database::create().await;
    let mut gateway = Gateway::start(&db, |_| {}).await;
    for (breaks, mends) in [
        (
            "alter function usher.admit(uuid) rename to admit_gone",
            "alter function usher.admit_gone(uuid) rename to admit",
        ),
        (
            "revoke execute on function usher.post_messages(jsonb) from usher_gateway",
            "grant execute on function usher.post_messages(jsonb) to usher_gateway",
        ),
    ] {
        db.run(breaks).await;
        lacks(&gateway, Some("migrations")).await;
        db.run(mends).await;
        lacks(&gateway, None).await;
        // One line each time that it comes to lack something.
        let errors = gateway.take_errors();
        assert_eq!(errors.matches("`usher migrate up`").count(), 1, "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}

#[tokio::test]
async fn readiness_needs_room_for_another_viewer() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |config| config.connections_max = 2).await;
    let first = Client::anonymous(gateway.at).await;
    let _second = Client::anonymous(gateway.at).await;
    lacks(&gateway, Some("room")).await;
    assert_eq!(shake(gateway.at, "", &[]).await.status, 503);
    drop(first);
    lacks(&gateway, None).await;
    Client::anonymous(gateway.at).await;
}

#[tokio::test]
async fn readiness_needs_a_listen_connection_that_hears() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| {}).await;
    // The query connections stay open: only LISTEN cannot reconnect.
    let name: String = db.one("select current_database()::text").await;
    let limit = format!("alter database {name} connection limit");
    db.run(&format!("{limit} 0")).await;
    db.run(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and query = 'select usher.epoch(), (usher.channel_names()).*'",
    )
    .await;
    lacks(&gateway, Some("listen")).await;
    // The process itself is well: to restart it would mend nothing.
    assert_eq!(get(gateway.at, "/healthz", &[]).await.status, 200);
    assert_eq!(metric(gateway.at, "usher_ready").await, 0.0);
    db.run(&format!("{limit} -1")).await;
    lacks(&gateway, None).await;
    assert_eq!(metric(gateway.at, "usher_ready").await, 1.0);
}

#[tokio::test]
async fn a_connection_that_was_kept_for_a_minute_ends_between_two_requests() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let token = db.user("ann").await.token;
    let began = Instant::now();
    let mut kept = TcpStream::connect(gateway.at).await.unwrap();
    let mut busy = TcpStream::connect(gateway.at).await.unwrap();
    let keeping = async {
        let limit = began + PLAIN_CONNECTION_MAX + PATIENCE;
        assert!(!keep(&mut kept, limit).await, "still open");
        assert!(began.elapsed() >= PLAIN_CONNECTION_MAX);
    };
    let working = async {
        let last = began + PLAIN_CONNECTION_MAX - Duration::from_secs(2);
        assert!(keep(&mut busy, last).await, "closed before its time");
        // The body is under way when the minute is over.
        let head = format!(
            "POST /v1/sessions/{}/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{",
            Uuid::new_v4()
        );
        busy.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep_until(began + PLAIN_CONNECTION_MAX + Duration::from_millis(500)).await;
        busy.write_all(b"}").await.unwrap();
        let (status, headers) = read_head(&mut busy).await;
        assert_eq!((status, &*headers["connection"]), (400, "close"));
    };
    tokio::join!(keeping, working);
}

/// Asks again and again, as a client does that keeps its connection; false once the gateway has closed it.
async fn keep(socket: &mut TcpStream, until: Instant) -> bool {
    const PAUSE: Duration = Duration::from_secs(4);
    while Instant::now() < until {
        let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        socket.write_all(request).await.unwrap();
        let (status, _) = read_head(socket).await;
        let mut body = [0; 3];
        socket.read_exact(&mut body).await.unwrap();
        assert_eq!((status, &body), (200, b"ok\n"));
        let next = until.min(Instant::now() + PAUSE);
        if let Ok(read) = timeout_at(next, socket.read(&mut body)).await {
            assert_eq!(read.unwrap(), 0, "an unexpected answer");
            return false;
        }
    }
    true
}

#[tokio::test]
async fn a_request_that_never_ends_is_given_up() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut sockets = Vec::new();
    for head in [
        "",
        "GET /v1/so",
        "GET /v1/socket HTTP/1.1\r\nHost: x\r\nX-Slow: ",
    ] {
        let mut socket = TcpStream::connect(gateway.at).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        sockets.push(socket);
    }
    for mut socket in sockets {
        let mut rest = Vec::new();
        let ended = timeout(PATIENCE, socket.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "still open after {PATIENCE:?}");
    }
    // A head that is too large is refused before it is read to its end.
    let mut socket = TcpStream::connect(gateway.at).await.unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nX-Large: {}\r\n\r\n",
        "x".repeat(64 * 1024)
    );
    let _ = socket.write_all(head.as_bytes()).await;
    let mut answer = [0; 12];
    if socket.read_exact(&mut answer).await.is_ok() {
        assert_eq!(&answer, b"HTTP/1.1 431");
    }
}

/// Reads the answer to a handshake and frames, answering none, until the close; gives its code.
async fn close_code(socket: &mut TcpStream) -> u16 {
    let reading = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101"));
        loop {
            if let (0x88, payload) = read_frame(socket).await.unwrap() {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("no close came")
}

//! Attacks a running gateway process. After each attack it must serve an ordinary client, hold no resources of the
//! attack, and return to its earlier memory use.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, join_all};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use usher::limits::PLAIN_CONNECTIONS_MAX;
use usher_core::limits::FRAME_BYTES_MAX;
use uuid::Uuid;

use crate::client::{Client, PATIENCE, until};
use crate::database::{Database, JWT_SECRET, User};
use crate::gateway::Process;
use crate::http::{get, metric, shake};
use crate::rfc6455::{RawSocket, handshake, masked, read_frame};

/// By how much the memory of a process may have grown after an attack: what allocators keep for themselves, which was 15
/// to 25 MiB from run to run, and no more after many attacks than after two.
const GROWTH_BYTES_MAX: u64 = 40 * 1024 * 1024;

/// The time within which the gateway serves an ordinary client on a busy machine.
const SOON: Duration = Duration::from_secs(5);

const TEXT: u8 = 0x81;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// The gateway process under attack.
#[derive(Clone, Debug)]
struct Victim {
    at: SocketAddr,
    session: Uuid,
    somebody: User,
    has_limits: bool,
}

type Attack = fn(Victim) -> BoxFuture<'static, ()>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attacks_are_stopped_by_the_limits_and_leave_nothing() {
    withstands(true, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attacks_leave_nothing_where_an_operator_has_no_limits() {
    let off =
        ["FRAMES", "BYTES", "JOINS", "VOTES", "REQUESTS"].map(|name| format!("USHER_LIMIT_{name}"));
    let off: Vec<_> = off.iter().map(|name| (name.as_str(), "off")).collect();
    withstands(false, &off).await;
}

#[expect(clippy::too_many_lines, reason = "a table")]
async fn withstands(has_limits: bool, settings: &[(&str, &str)]) {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let settings = [&[("SUPABASE_JWT_SECRET", JWT_SECRET)], settings].concat();
    let process = Process::start(&db, ([127, 0, 0, 1], 0).into(), &settings).await;
    until("usher serve is ready", async || {
        get(process.at, "/readyz", &[]).await.status == 200
    })
    .await;
    let victim = Victim {
        at: process.at,
        session,
        somebody: db.user("ben").await,
        has_limits,
    };
    let attacks: [(&str, Attack); 13] = [
        ("heads that never end", |victim| slow_heads(victim).boxed()),
        ("connections that say nothing", |victim| {
            silence(victim).boxed()
        }),
        ("handshakes with bad tokens", |victim| {
            bad_handshakes(victim).boxed()
        }),
        ("sockets that are reset at once", |victim| {
            resets(victim).boxed()
        }),
        ("text", |victim| {
            floods(victim, masked(TEXT, br#"{"type":"ping"}"#), None).boxed()
        }),
        ("pings", |victim| {
            floods(victim, masked(PING, &[7; 125]), None).boxed()
        }),
        ("pongs", |victim| {
            floods(victim, masked(PONG, b""), None).boxed()
        }),
        ("tokens", |victim| {
            floods(
                victim,
                masked(TEXT, br#"{"type":"auth","token":"a.b.c"}"#),
                None,
            )
            .boxed()
        }),
        ("binary frames", |victim| {
            floods(victim, masked(0x82, b"{}"), Some(4500)).boxed()
        }),
        ("fragments without an end", |victim| {
            floods(victim, masked(0x00, b""), Some(1009)).boxed()
        }),
        ("messages that never end", |victim| {
            unfinished(victim).boxed()
        }),
        ("json to choke on", |victim| bombs(victim).boxed()),
        ("sessions that do not exist", |victim| {
            strangers(victim).boxed()
        }),
    ];
    is_well(&victim).await;
    let before = process.resident_bytes();
    for (name, attack) in attacks {
        timeout(6 * PATIENCE, attack(victim.clone()))
            .await
            .unwrap_or_else(|_| panic!("{name} do not end"));
        is_well(&victim).await;
        until(&format!("the memory is back after {name}"), async || {
            process.resident_bytes() <= before + GROWTH_BYTES_MAX
        })
        .await;
    }
    assert_eq!(process.end(Signal::TERM), Some(0));
}

/// The gateway serves an ordinary client in time, and keeps nothing of an attack.
async fn is_well(victim: &Victim) {
    let serving = async {
        let mut client = Client::connect(victim.at, &victim.somebody).await;
        client.subscribe(victim.session).await;
        let seq = client.send(victim.session, "still here").await["seq"]
            .as_u64()
            .unwrap();
        client.event(victim.session, seq).await;
    };
    timeout(SOON, serving)
        .await
        .expect("an ordinary client is not served");
    until("the attack holds no more resources", async || {
        let sockets = metric(victim.at, "usher_connections").await;
        let sessions = metric(victim.at, "usher_sessions").await;
        let windows = metric(victim.at, "usher_windows").await;
        // The window of the ordinary client's own session lingers, in each loop.
        sockets == 0.0 && sessions == 0.0 && windows <= 2.0
    })
    .await;
}

/// Sends a byte at intervals until the gateway closes the connection. Meanwhile the gateway serves other clients.
async fn slow_heads(victim: Victim) {
    let dripping = (0..60).map(|_| async {
        let mut socket = TcpStream::connect(victim.at).await.unwrap();
        let head = format!("GET /v1/socket HTTP/1.1\r\nX-Slow: {}", "x".repeat(10_000));
        for byte in head.bytes() {
            let ended = timeout(Duration::from_millis(200), socket.read_u8()).await;
            if ended.is_ok() || socket.write_all(&[byte]).await.is_err() {
                return;
            }
        }
        panic!("never given up");
    });
    let meanwhile = async {
        // The attack is under way by then.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let served = timeout(SOON, Client::anonymous(victim.at)).await;
        served.expect("others are kept out");
    };
    tokio::join!(join_all(dripping), meanwhile);
}

/// Opens more silent connections than the gateway allows. Meanwhile the gateway serves other clients.
async fn silence(victim: Victim) {
    let evicted = metric(victim.at, "usher_evicted_connections_total").await;
    let mut silent = Vec::new();
    for _ in 0..PLAIN_CONNECTIONS_MAX + 300 {
        silent.push(TcpStream::connect(victim.at).await.unwrap());
    }
    for _ in 0..5 {
        let served = timeout(SOON, Client::anonymous(victim.at)).await;
        served.expect("others are kept out");
    }
    assert!(metric(victim.at, "usher_evicted_connections_total").await >= evicted + 300.0);
}

async fn bad_handshakes(victim: Victim) {
    let forged = victim.somebody.token.replace('.', ".e");
    for _ in 0..20 {
        let tokens = ["a.b.c", &forged, "", "sb_secret_x"];
        let knocks = tokens.iter().cycle().take(40).map(|token| async move {
            let header = format!("Bearer {token}");
            let answer = shake(victim.at, "", &[("Authorization", &header)]).await;
            assert_eq!(answer.status, if token.is_empty() { 101 } else { 401 });
        });
        join_all(knocks).await;
    }
}

async fn resets(victim: Victim) {
    for _ in 0..10 {
        let sockets = (0..30).map(|_| async {
            let mut socket = TcpStream::connect(victim.at).await.unwrap();
            socket
                .write_all(handshake(victim.at, "").as_bytes())
                .await
                .unwrap();
            let _ = socket.read_u8().await;
            socket2::SockRef::from(&socket)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        });
        join_all(sockets).await;
    }
}

/// The same frame again and again, on a few sockets. With limits it is told and then closed; without, only where the
/// frame is never good.
async fn floods(victim: Victim, frame: Vec<u8>, code: Option<u16>) {
    const FRAMES: usize = 10_000;
    let begins_a_message = if frame[0] == 0 {
        masked(0x01, b"{")
    } else {
        Vec::new()
    };
    let bytes = [begins_a_message, frame.repeat(FRAMES)].concat();
    let code = code.or(victim.has_limits.then_some(4029));
    let sockets = (0..3).map(|_| flood(victim.at, &bytes));
    for came in join_all(sockets).await {
        assert!(
            code.is_none() || came == code,
            "{came:?} instead of {code:?}"
        );
    }
}

/// Messages as large as they may be, each a piece short of its end.
async fn unfinished(victim: Victim) {
    let mut sockets = Vec::new();
    for _ in 0..300 {
        let mut socket = RawSocket::open(victim.at).await;
        socket.write(&masked(0x01, &[b' '; 16_000])).await;
        socket.write(&masked(0x00, &[b' '; 16_000])).await;
        // A header that promises the rest.
        socket.write(&[0x00, 0xfe, 2, 0, 1, 2, 3, 4]).await;
        sockets.push(socket);
    }
}

/// Text that costs a parser more than its sender.
async fn bombs(victim: Victim) {
    let deep = |open: &str, close: &str, levels| open.repeat(levels) + "1" + &close.repeat(levels);
    let keys: String = (0..2_500).map(|n| format!("\"{n}\":[],")).collect();
    let field = |value: &str| format!(r#"{{"type":"ping","id":1,"x":{value}}}"#);
    let texts = [
        deep("[", "]", 16_000),
        deep(r#"{"a":"#, "}", 5_000),
        field(&deep("[", "]", 16_000)),
        field(&deep(r#"{"a":"#, "}", 4_000)),
        field(&format!("[{}1]", "[],".repeat(10_000))),
        field(&format!("[{}1]", "{},".repeat(10_000))),
        format!("{{{keys}\"type\":\"ping\"}}"),
        format!(
            "{{{}\"type\":\"ping\"}}",
            "\"type\":\"send\",".repeat(2_000)
        ),
        field(&"9".repeat(30_000)),
        field(&format!("0.{}1", "0".repeat(30_000))),
        field("1e999999999999999999"),
        field("-1e-999999999999999999"),
        field(&format!("\"{}\"", "\\u0000".repeat(5_000))),
        field(&format!("\"{}\"", "\\ud83c".repeat(5_000))),
        format!(r#"{{"{}":1,"type":"ping"}}"#, "k".repeat(32_000)),
        format!(r#"{{"type":"{}"}}"#, "x".repeat(32_000)),
        " ".repeat(FRAME_BYTES_MAX),
        "\\".repeat(FRAME_BYTES_MAX),
        format!("\u{FEFF}{}", field("1")),
    ];
    join_all(texts.iter().map(|text| bomb(victim.at, text))).await;
}

async fn bomb(at: SocketAddr, text: &str) {
    let frame = masked(TEXT, text.as_bytes());
    let mut socket = RawSocket::open(at).await;
    socket.write(&frame).await;
    let (first, answer) = socket.frame().await.unwrap();
    assert_eq!(first, TEXT);
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let kind = answer["type"].as_str().unwrap();
    assert!(["pong", "error"].contains(&kind), "{answer}");
    assert!(
        answer.to_string().len() < 500,
        "the answer does not repeat the input"
    );
    let came = flood(at, &frame.repeat(20)).await;
    assert!(matches!(came, None | Some(4500 | 4029)), "{came:?}");
}

/// Subscribes to thousands of sessions that do not exist, and unsubscribes.
async fn strangers(victim: Victim) {
    let sockets = (0..10).map(|_| async {
        let mut client = Client::connect(victim.at, &victim.somebody).await;
        for _ in 0..50 {
            let answer = client.try_subscribe(Uuid::new_v4()).await;
            assert_eq!(answer["code"], "not_found", "{answer}");
            let frame = json!({"type": "unsubscribe", "session": Uuid::new_v4()});
            let answer = client.ask(frame).await;
            assert_eq!(answer["type"], "unsubscribed", "{answer}");
        }
    });
    join_all(sockets).await;
}

/// Sends bytes for as long as they are taken; gives the code of the close, `None` where all were taken.
async fn flood(at: SocketAddr, bytes: &[u8]) -> Option<u16> {
    const QUIET: Duration = Duration::from_secs(1);
    let (mut reader, mut writer) = RawSocket::open(at).await.into_split();
    let bytes = bytes.to_vec();
    let writing = tokio::spawn(async move {
        let _ = writer.write_all(&bytes).await;
        writer
    });
    loop {
        match timeout(QUIET, read_frame(&mut reader)).await {
            Ok(Some((0x88, payload))) => {
                return payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            }
            Ok(Some(_)) => {}
            Ok(None) => panic!("hung up without a code"),
            Err(_) if writing.is_finished() => return None,
            Err(_) => {}
        }
    }
}

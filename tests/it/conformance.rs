//! Runs the cases of the Autobahn test suite against our end of a WebSocket.
//!
//! The suite needs an echo server, and the gateway is none. So this file builds an echo server from the code that
//! reads and closes a gateway's sockets; `tests/it/rfc6455.rs` tests the gateway itself. Kosoku (PyPI) runs the
//! suite's own case files.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use usher::net::socket::Socket;
use usher::net::socket::close;
use usher::net::socket::inbound::{Inbound, Incoming};
use usher_core::protocol::deflate::{self, Compressor};
use usher_core::protocol::websocket;

/// What a gateway has no room for, by intent: messages beyond `max_frame_bytes`. And 12.5, where Kosoku trips over its own
/// feet.
const LEFT_OUT: [&str; 9] = [
    "1.1.6", "1.1.7", "1.1.8", "1.2.6", "1.2.7", "1.2.8", "9.*", "10.1.1", "12.5.*",
];

/// Of the eighteen sizes of the compression cases, each a thousand messages, those that are run: 1 KiB, 4 KiB, and 8 KiB in
/// pieces. Others are too large for a gateway, or tell nothing new for their time.
const COMPRESSED_SIZES: [u32; 3] = [4, 5, 11];

/// Offers that ask for a smaller window than the largest alone: those are declined, as the RFC allows.
const DECLINED: [&str; 2] = ["13.3.", "13.5."];

/// Text that goes wrong within a frame is refused when the frame is whole, not at once. The suite calls that good, if not
/// strict.
const NOT_STRICT: [&str; 2] = ["6.4.3", "6.4.4"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_autobahn_cases_pass() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let echoing = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(echo(socket));
        }
    });
    let reports = tempfile::tempdir().unwrap();
    let mut suite = Command::new("kosoku");
    suite.env("PATH", path_with_tools());
    suite
        .args(["--parallelism", "8", "--outdir"])
        .arg(reports.path());
    for case in LEFT_OUT {
        suite.args(["--exclude", case]);
    }
    for size in (1..=18).filter(|size| !COMPRESSED_SIZES.contains(size)) {
        suite.args(["--exclude", &format!("12.*.{size}")]);
        suite.args(["--exclude", &format!("13.*.{size}")]);
    }
    suite.arg(&address).stdin(Stdio::null()).kill_on_drop(true);
    let ran = timeout(Duration::from_secs(120), suite.output()).await;
    let ran = ran.expect("the suite does not end");
    let ran =
        ran.expect("kosoku is missing: tests/run installs it, and so does pip install kosoku");
    echoing.abort();

    let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    let index = fs::read_to_string(reports.path().join("index.json"));
    let index: Value = serde_json::from_str(&index.unwrap_or_else(|_| panic!("{said}"))).unwrap();
    let cases = index.as_object().unwrap().values().next().unwrap();
    let cases = cases.as_object().unwrap();
    assert!(cases.len() >= 240, "only {} cases ran\n{said}", cases.len());
    let fails = |(name, case): &(&String, &Value)| {
        let is_good = |how: &Value| how == "OK" || how == "INFORMATIONAL";
        let is_allowed = case["behavior"] == "NON-STRICT" && NOT_STRICT.contains(&name.as_str());
        let is_declined = case["behavior"] == "UNIMPLEMENTED"
            && DECLINED.iter().any(|cases| name.starts_with(cases));
        let is_allowed = is_allowed || is_declined;
        !is_good(&case["behaviorClose"]) || !(is_good(&case["behavior"]) || is_allowed)
    };
    let failed: Vec<_> = cases.iter().filter(fails).collect();
    assert!(failed.is_empty(), "{failed:#?}\n{said}");
}

/// Every message goes back as it came; control frames are answered and closes returned as a gateway does.
async fn echo(mut socket: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = socket.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then_some(value)
    });
    let accept = derive_accept_key(key.unwrap().trim().as_bytes());
    let offers = head.lines().filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-extensions")
            .then_some(value)
    });
    let extension = deflate::accept(offers);
    let agreed = extension.map(|extension| format!("Sec-WebSocket-Extensions: {extension}\r\n"));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{}\r\n",
        agreed.unwrap_or_default()
    );
    socket.write_all(answer.as_bytes()).await.unwrap();
    let socket = Arc::new(Socket::Plain(socket));
    let mut inbound = Inbound::new(Arc::clone(&socket), Vec::new(), extension.is_some()).await;
    let mut compressor = extension.map(|_| Compressor::default());
    loop {
        let mut frames = Vec::new();
        let mut is_over = false;
        match inbound.next().await {
            Incoming::Text(text) => frames.push(websocket::text(&text)),
            Incoming::Binary(bytes) => frames.push(binary(&bytes)),
            Incoming::Control => {}
            Incoming::Goodbye => is_over = true,
            Incoming::Breach(code) => {
                return close::close(code, [].into(), &socket, &mut inbound).await;
            }
            Incoming::Gone => return,
        }
        if let Some(compressor) = &mut compressor {
            frames = frames
                .iter()
                .map(|frame| compressor.compress(frame))
                .collect();
        }
        frames.extend(inbound.take_reply().await);
        for frame in frames {
            let mut rest = &frame[..];
            while !rest.is_empty() {
                if socket.writable().await.is_err() {
                    return;
                }
                match socket.try_write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        }
        if is_over {
            return;
        }
    }
}

/// A binary frame has the same header as a text frame, but for its opcode.
fn binary(bytes: &[u8]) -> Bytes {
    let mut frame = bytes::BytesMut::new();
    websocket::put_text_header(&mut frame, bytes.len());
    frame[0] = 0x82;
    frame.extend_from_slice(bytes);
    frame.freeze()
}

/// Where `tests/run` puts what it installs with pip.
fn path_with_tools() -> String {
    let target = env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(target)
        .join("test-tools/bin");
    format!(
        "{}:{}",
        env::var("PATH").unwrap_or_default(),
        tools.display()
    )
}

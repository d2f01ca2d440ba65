//! Proves the opening handshake byte by byte: which requests the gateway accepts, and which it refuses before the
//! upgrade (RFC 6455 §4, and RFC 9112 for the HTTP around it).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{Client, PATIENCE};
use crate::database::Database;
use crate::gateway::Gateway;

/// How long nothing comes after an answer that is the only one.
const QUIET: Duration = Duration::from_millis(100);

/// The end of the connection without an answer.
const SILENCE: u16 = 0;

/// The header lines of a good handshake, which a case leaves out, changes or adds to.
const HOST: &str = "Host: gateway.example\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\n";
const CONNECTION: &str = "Connection: Upgrade\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn a_handshake_is_taken_or_refused_as_the_rfcs_say() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let good = [HOST, UPGRADE, CONNECTION, KEY, VERSION];
    let with = |line: &str| request("GET /v1/socket HTTP/1.1", &[&good[..], &[line]].concat());
    let instead = |place: usize, line: &str| {
        let mut lines = good;
        lines[place] = line;
        request("GET /v1/socket HTTP/1.1", &lines)
    };
    let line = |line: &str| request(line, &good);
    let many_parameters = format!("GET /v1/socket?{}x HTTP/1.1", "a=b&".repeat(3_500));
    let long_target = format!("GET /v1/socket?{} HTTP/1.1", "a".repeat(65_536));
    let long_line = format!("X-Long: {}\r\n", "x".repeat(65_536));
    let many_lines = "X-Many: x\r\n".repeat(500);
    let mut wrong = Vec::new();
    for (what, bytes, status) in [
        (
            "the plain one",
            request("GET /v1/socket HTTP/1.1", &good),
            101,
        ),
        (
            "6455 §4.2.1 names in any case",
            instead(1, "uPGRADE: websocket\r\n"),
            101,
        ),
        (
            "6455 §4.2.1 websocket in any case",
            instead(1, "Upgrade: WebSocket\r\n"),
            101,
        ),
        (
            "6455 §4.2.1 upgrade among others",
            instead(2, "Connection: keep-alive, Upgrade\r\n"),
            101,
        ),
        (
            "6455 §4.2.2 extensions that are not known",
            with("Sec-WebSocket-Extensions: x-none; a=1\r\n"),
            101,
        ),
        (
            "6455 §4.2.2 a subprotocol that is not known",
            with("Sec-WebSocket-Protocol: chat\r\n"),
            101,
        ),
        (
            "9112 §3.2.2 the absolute form",
            line("GET http://gateway.example/v1/socket HTTP/1.1"),
            101,
        ),
        ("many parameters", line(&many_parameters), 101),
        (
            "9112 §6.3 a length of zero",
            with("Content-Length: 0\r\n"),
            101,
        ),
        // RFC 6455 §4.2.1, each requirement missing or wrong.
        ("no key", instead(3, ""), 426),
        ("an empty key", instead(3, "Sec-WebSocket-Key:\r\n"), 426),
        (
            "a key of 15 bytes",
            instead(3, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n"),
            426,
        ),
        (
            "a key of 17 bytes",
            instead(3, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZXg=\r\n"),
            426,
        ),
        (
            "a key that is not base64",
            instead(3, "Sec-WebSocket-Key: !!!!IHNhbXBsZSBub25jZQ==\r\n"),
            426,
        ),
        ("two keys", with(KEY), 400),
        ("no version", instead(4, ""), 426),
        (
            "an old version",
            instead(4, "Sec-WebSocket-Version: 8\r\n"),
            426,
        ),
        (
            "a list of versions",
            instead(4, "Sec-WebSocket-Version: 13, 8\r\n"),
            426,
        ),
        ("two versions", with(VERSION), 400),
        ("no upgrade", instead(1, ""), 426),
        (
            "an upgrade to something else",
            instead(1, "Upgrade: h2c\r\n"),
            426,
        ),
        (
            "a connection that is not upgraded",
            instead(2, "Connection: keep-alive\r\n"),
            426,
        ),
        ("no connection", instead(2, ""), 426),
        ("no host", instead(0, ""), 400),
        ("two hosts", with(HOST), 400),
        ("another method", line("POST /v1/socket HTTP/1.1"), 426),
        (
            "a method in lower case",
            line("get /v1/socket HTTP/1.1"),
            426,
        ),
        ("HTTP/1.0", line("GET /v1/socket HTTP/1.0"), 426),
        // RFC 9112: what two readers could read in two ways.
        ("§6.3 a body", with("Content-Length: 5\r\n") + "hello", 400),
        (
            "§6.1 a body in chunks",
            with("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n",
            400,
        ),
        (
            "§6.1 both",
            with("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n") + "0\r\n\r\n",
            400,
        ),
        (
            "§6.3 two lengths",
            with("Content-Length: 0\r\nContent-Length: 7\r\n"),
            400,
        ),
        (
            "§6.3 a length that is none",
            with("Content-Length: +0\r\n"),
            400,
        ),
        (
            "§6.1 a coding that is not known",
            with("Transfer-Encoding: xchunked\r\n"),
            400,
        ),
        ("§5.2 a folded line", with("X-Folded: a\r\n b\r\n"), 400),
        (
            "§5.1 a space before the colon",
            with("Content-Length : 5\r\n"),
            400,
        ),
        ("§5 a line without a colon", with("nonsense\r\n"), 400),
        (
            "§2.2 a space before the first header",
            with(" X: y\r\n"),
            400,
        ),
        ("9110 §5.5 NUL in a value", with("X-Nul: a\0b\r\n"), 400),
        (
            "9110 §5.5 a bare CR in a value",
            with("X-Cr: a\rb\r\n"),
            400,
        ),
        ("§3 no version", line("GET /v1/socket"), 400),
        (
            "§3 a version that does not exist",
            line("GET /v1/socket HTTP/9.9"),
            400,
        ),
        ("§3 two spaces", line("GET  /v1/socket HTTP/1.1"), 400),
        (
            "another protocol",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            SILENCE,
        ),
        (
            "TLS",
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}\r\n\r\n".to_owned(),
            400,
        ),
        ("a line of 64 KiB", with(&long_line), 431),
        ("500 lines", with(&many_lines), 431),
        ("a target of 64 KiB", line(&long_target), 431),
    ] {
        let answers = exchange(gateway.at, bytes.as_bytes()).await;
        let came = status_of(&answers);
        // Whether 414 or 431 is sent depends on how many bytes have arrived.
        let is_meant = came == status || (status == 431 && came == 414);
        if !is_meant {
            wrong.push(format!("{what}: {came} instead of {status}"));
            continue;
        }
        let head = answers.to_lowercase();
        let has = |line: &str| head.contains(line);
        assert!(!has("sec-websocket-extensions"), "{what}: {answers}");
        assert!(!has("sec-websocket-protocol"), "{what}: {answers}");
        // RFC 6455 §4.4: a version that is not spoken is answered by the one that is.
        assert_eq!(
            has("sec-websocket-version: 13"),
            came == 426,
            "{what}: {answers}"
        );
        // RFC 6455 §1.3 has this very key and its answer.
        let accepted = "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=";
        assert_eq!(has(accepted), came == 101, "{what}: {answers}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Client::anonymous(gateway.at).await;
}

#[tokio::test]
async fn a_request_in_the_body_of_a_handshake_is_never_answered() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let hidden = "GET /metrics HTTP/1.1\r\nHost: gateway.example\r\n\r\n";
    let length = format!("Content-Length: {}\r\n", hidden.len());
    let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    for (lines, body) in [
        (length.as_str(), hidden),
        ("Transfer-Encoding: chunked\r\n", &chunk),
        (&format!("{length}Transfer-Encoding: chunked\r\n"), hidden),
        (&format!("{length}Transfer-Encoding: chunked\r\n"), &chunk),
    ] {
        let good = [HOST, UPGRADE, CONNECTION, KEY, VERSION, lines];
        let bytes = request("GET /v1/socket HTTP/1.1", &good) + body;
        let answers = exchange(gateway.at, bytes.as_bytes()).await;
        assert_eq!(status_of(&answers), 400, "{lines}: {answers}");
        assert!(!answers.contains("usher_"), "{lines}: {answers}");
        assert_eq!(
            answers.matches("HTTP/1.1 2").count(),
            0,
            "{lines}: {answers}"
        );
    }
}

#[tokio::test]
async fn the_subprotocol_is_found_among_others() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let good = [HOST, UPGRADE, CONNECTION, KEY, VERSION];
    for (lines, is_echoed) in [
        ("Sec-WebSocket-Protocol: usher.v1\r\n", true),
        ("Sec-WebSocket-Protocol: graphql-ws, usher.v1\r\n", true),
        (
            "Sec-WebSocket-Protocol: graphql-ws\r\nSec-WebSocket-Protocol: usher.v1\r\n",
            true,
        ),
        ("Sec-WebSocket-Protocol: usher.v2\r\n", false),
        ("Sec-WebSocket-Protocol: USHER.V1\r\n", false),
        ("Sec-WebSocket-Protocol: usher.v1x\r\n", false),
    ] {
        let bytes = request("GET /v1/socket HTTP/1.1", &[&good[..], &[lines]].concat());
        let answer = exchange(gateway.at, bytes.as_bytes()).await.to_lowercase();
        assert_eq!(status_of(&answer), 101, "{lines}: {answer}");
        let echoed = answer
            .matches("sec-websocket-protocol: usher.v1\r\n")
            .count();
        assert_eq!(echoed, usize::from(is_echoed), "{lines}: {answer}");
    }
}

#[tokio::test]
async fn a_token_that_is_no_text_is_not_taken_for_none() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let good = [HOST, UPGRADE, CONNECTION, KEY, VERSION];
    for (lines, status) in [
        ("Authorization: Bearer \u{e9}\u{e9}\r\n", 401),
        (
            "Authorization: Bearer a.b.c\r\nAuthorization: Basic eDp5\r\n",
            401,
        ),
        ("Authorization: Bearer\r\n", 101),
        ("Authorization: Basic eDp5\r\n", 101),
    ] {
        let bytes = request("GET /v1/socket HTTP/1.1", &[&good[..], &[lines]].concat());
        let answer = exchange(gateway.at, bytes.as_bytes()).await;
        assert_eq!(status_of(&answer), status, "{lines}: {answer}");
    }
}

fn request(first: &str, lines: &[&str]) -> String {
    format!("{first}\r\n{}\r\n", lines.concat())
}

fn status_of(answers: &str) -> u16 {
    let status = answers.split(' ').nth(1);
    status
        .and_then(|status| status.parse().ok())
        .unwrap_or(SILENCE)
}

/// Sends bytes. Returns the whole answer, or only the head if the connection became a socket.
async fn exchange(at: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(at).await.unwrap();
    let (mut reader, mut writer) = socket.split();
    let mut answers = Vec::new();
    let reading = async {
        let mut chunk = [0; 4_096];
        let mut patience = PATIENCE;
        loop {
            match timeout(patience, reader.read(&mut chunk)).await {
                Ok(Ok(count)) if count > 0 => answers.extend_from_slice(&chunk[..count]),
                // Bytes that were not read any more reset the connection after the answer.
                Ok(_) | Err(_) => return,
            }
            if answers.starts_with(b"HTTP/1.1 101") {
                return;
            }
            patience = QUIET;
        }
    };
    let writing = writer.write_all(bytes);
    let _ = tokio::join!(writing, reading);
    String::from_utf8_lossy(&answers).into_owned()
}

//! Proves RFC 6455 rule by rule, byte by byte, on a gateway's socket. Each case names its section. The opening
//! handshake is in `handshake.rs`.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use usher_core::limits::FRAGMENTS_MAX;

use crate::client::PATIENCE;
use crate::database::Database;
use crate::gateway::Gateway;
use crate::http::UPGRADE;

const TEXT: u8 = 0x81;
const PING: u8 = 0x89;
const CLOSE: u8 = 0x88;

/// What must follow the bytes of a case.
#[derive(Debug)]
enum Then {
    /// The `pong` to `{"type":"ping","id":1}`.
    Answer,
    /// A pong frame with this payload.
    Pong(Vec<u8>),
    /// A close frame with this code, and the end of the socket.
    Close(u16),
    /// An `error` frame with this code; the socket stays.
    Refusal(&'static str),
}

use Then::{Answer, Close, Pong, Refusal};

#[tokio::test]
async fn frames_are_taken_and_refused_as_the_rfc_says() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| {}).await;
    for (section, what, bytes, then) in cases() {
        let mut socket = RawSocket::open(gateway.at).await;
        socket.write(&bytes).await;
        let what = format!("§{section} {what}");
        match then {
            Answer => socket.is_answered(1, &what).await,
            Pong(payload) => {
                let (first, answer) = socket.frame().await.expect(&what);
                assert_eq!((first, answer), (0x8a, payload), "{what}");
            }
            Close(code) => {
                socket.is_closed(code, &what).await;
                continue;
            }
            Refusal(code) => {
                let (_, text) = socket.frame().await.expect(&what);
                let error: Value = serde_json::from_slice(&text).expect(&what);
                assert_eq!(
                    (&error["type"], &error["code"]),
                    (&json!("error"), &json!(code)),
                    "{what}"
                );
            }
        }
        // After any of these frames the socket still works.
        socket
            .write(&masked(TEXT, br#"{"type":"ping","id":2}"#))
            .await;
        socket.is_answered(2, &what).await;
    }
}

#[tokio::test]
async fn bytes_may_come_one_by_one() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut socket = RawSocket::open(gateway.at).await;
    let frames = [
        masked(0x01, br#"{"type":"#),
        masked(PING, b"hi"),
        masked(0x80, br#""ping","id":1}"#),
    ];
    for byte in frames.concat() {
        socket.write(&[byte]).await;
    }
    assert_eq!(socket.frame().await, Some((0x8a, b"hi".to_vec())));
    socket.is_answered(1, "byte by byte").await;
}

#[tokio::test]
async fn frames_may_come_with_the_handshake() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut socket = TcpStream::connect(gateway.at).await.unwrap();
    let mut bytes = handshake(gateway.at, "").into_bytes();
    bytes.extend(masked(PING, b"early"));
    bytes.extend(masked(TEXT, br#"{"type":"ping","id":1}"#));
    socket.write_all(&bytes).await.unwrap();
    let mut socket = RawSocket::shaken(socket).await;
    assert_eq!(socket.frame().await, Some((0x8a, b"early".to_vec())));
    socket.is_answered(1, "with the handshake").await;
}

#[tokio::test]
async fn a_goodbye_is_returned_and_nothing_after_it_is_heard() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| {}).await;
    // §5.5.1: the answer has the code of the close frame, or no code if the frame has none.
    for (payload, reply) in [
        (close_payload(1000, "bye"), Some(1000)),
        (close_payload(1001, ""), Some(1001)),
        (close_payload(3999, "\u{1F37F}"), Some(3999)),
        (close_payload(4999, ""), Some(4999)),
        (Vec::new(), None),
    ] {
        let mut socket = RawSocket::open(gateway.at).await;
        socket.write(&masked(CLOSE, &payload)).await;
        let (first, answer) = socket.frame().await.unwrap();
        assert_eq!(first, CLOSE);
        let code = answer
            .get(..2)
            .map(|code| u16::from_be_bytes([code[0], code[1]]));
        assert_eq!(code, reply);
        assert_eq!(
            socket.frame().await,
            None,
            "§7.1.1: the server ends the connection"
        );
    }
    // §1.4: after a close frame nothing is processed.
    let mut socket = RawSocket::open(gateway.at).await;
    let late = [
        masked(CLOSE, &close_payload(1000, "")),
        masked(TEXT, br#"{"type":"ping","id":1}"#),
    ];
    socket.write(&late.concat()).await;
    let (first, _) = socket.frame().await.unwrap();
    assert_eq!(first, CLOSE);
    assert_eq!(socket.frame().await, None);
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<(&'static str, &'static str, Vec<u8>, Then)> {
    let ping = br#"{"type":"ping","id":1}"#;
    let (head, tail) = ping.split_at(9);
    let long = json!({"type": "ping", "id": 1, "pad": "x".repeat(300)}).to_string();
    let large = json!({"type": "ping", "id": 1, "pad": "x".repeat(32_700)}).to_string();
    let pieces = |count: u32| {
        let mut bytes = masked(0x01, head);
        for _ in 1..count {
            bytes.extend(masked(0x00, b""));
        }
        bytes.extend(masked(0x80, tail));
        bytes
    };
    let two_byte = |length: u16| [&[TEXT, 0xfe][..], &length.to_be_bytes(), &[0; 4]].concat();
    let eight_byte = |length: u64| [&[TEXT, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
    let mut cases = vec![
        ("5.2", "a text frame", masked(TEXT, ping), Answer),
        (
            "5.2",
            "a length of two bytes",
            masked(TEXT, long.as_bytes()),
            Answer,
        ),
        (
            "5.2",
            "the largest frame",
            masked(TEXT, large.as_bytes()),
            Answer,
        ),
        (
            "5.2",
            "a length of two bytes that fits seven bits",
            two_byte(125),
            Close(1002),
        ),
        (
            "5.2",
            "a length of two bytes of zero",
            two_byte(0),
            Close(1002),
        ),
        (
            "5.2",
            "a length of eight bytes that fits two",
            eight_byte(65_535),
            Close(1002),
        ),
        (
            "5.2",
            "a length with the highest bit set",
            eight_byte(1 << 63),
            Close(1002),
        ),
        (
            "5.2",
            "all bits of a length set",
            eight_byte(u64::MAX),
            Close(1002),
        ),
        (
            "7.4.1",
            "a length beyond all memory",
            eight_byte(i64::MAX as u64),
            Close(1009),
        ),
        (
            "7.4.1",
            "a length that is one too many",
            two_byte(40_961),
            Close(1009),
        ),
        (
            "5.1",
            "a text frame without a mask",
            [&[TEXT, 22], &ping[..]].concat(),
            Close(1002),
        ),
        ("5.1", "a ping without a mask", vec![PING, 0], Close(1002)),
        (
            "5.1",
            "a close without a mask",
            vec![CLOSE, 2, 3, 0xe8],
            Close(1002),
        ),
        (
            "5.3",
            "a mask of zeros",
            [&[TEXT, 0x80 | 22, 0, 0, 0, 0], &ping[..]].concat(),
            Answer,
        ),
        (
            "5.4",
            "two fragments",
            [masked(0x01, head), masked(0x80, tail)].concat(),
            Answer,
        ),
        (
            "5.4",
            "empty fragments",
            [masked(0x01, b""), masked(0x00, ping), masked(0x80, b"")].concat(),
            Answer,
        ),
        (
            "5.4",
            "as many fragments as a message may have",
            pieces(FRAGMENTS_MAX),
            Answer,
        ),
        (
            "5.4",
            "one fragment more",
            pieces(FRAGMENTS_MAX + 1),
            Close(1009),
        ),
        (
            "5.4",
            "a ping between fragments",
            [masked(0x01, head), masked(PING, b"x"), masked(0x80, tail)].concat(),
            Pong(b"x".to_vec()),
        ),
        (
            "5.4",
            "a pong between fragments",
            [masked(0x01, head), masked(0x8a, b"x"), masked(0x80, tail)].concat(),
            Answer,
        ),
        (
            "5.4",
            "a close between fragments",
            [masked(0x01, head), masked(CLOSE, &close_payload(1000, ""))].concat(),
            Close(1000),
        ),
        (
            "5.4",
            "a continuation of nothing",
            masked(0x80, ping),
            Close(1002),
        ),
        (
            "5.4",
            "a continuation of nothing that goes on",
            masked(0x00, ping),
            Close(1002),
        ),
        (
            "5.4",
            "a continuation of an ended message",
            [
                masked(TEXT, br#"{"type":"unsubscribe"}"#),
                masked(0x80, b""),
            ]
            .concat(),
            Close(1002),
        ),
        (
            "5.4",
            "a message within a message",
            [masked(0x01, head), masked(TEXT, ping)].concat(),
            Close(1002),
        ),
        (
            "5.4",
            "a message begun twice",
            [masked(0x01, head), masked(0x01, tail)].concat(),
            Close(1002),
        ),
        (
            "5.5",
            "a ping with 125 bytes",
            masked(PING, &[7; 125]),
            Pong(vec![7; 125]),
        ),
        (
            "5.5",
            "a ping with 126 bytes",
            masked(PING, &[7; 126]),
            Close(1002),
        ),
        (
            "5.5",
            "a pong with 126 bytes",
            masked(0x8a, &[7; 126]),
            Close(1002),
        ),
        (
            "5.5",
            "a close with 126 bytes",
            masked(CLOSE, &[3; 126]),
            Close(1002),
        ),
        ("5.5", "a ping in fragments", masked(0x09, b""), Close(1002)),
        ("5.5", "a pong in fragments", masked(0x0a, b""), Close(1002)),
        (
            "5.5",
            "a close in fragments",
            masked(0x08, b""),
            Close(1002),
        ),
        (
            "5.5.2",
            "an empty ping",
            masked(PING, b""),
            Pong(Vec::new()),
        ),
        (
            "5.5.2",
            "a ping that is not text",
            masked(PING, b"\xff\x00\xfe"),
            Pong(b"\xff\x00\xfe".to_vec()),
        ),
        (
            "5.5.3",
            "an unsolicited pong",
            [masked(0x8a, b"unasked"), masked(TEXT, ping)].concat(),
            Answer,
        ),
        (
            "5.6",
            "a binary frame",
            masked(0x82, ping),
            Refusal("bad_request"),
        ),
        (
            "5.6",
            "binary in fragments",
            [masked(0x02, head), masked(0x80, tail)].concat(),
            Refusal("bad_request"),
        ),
        (
            "8.1",
            "a byte that no text has",
            masked(TEXT, b"{\"a\":\"\xff\"}"),
            Close(1007),
        ),
        (
            "8.1",
            "a surrogate as text",
            masked(TEXT, b"\"\xed\xa0\x80\""),
            Close(1007),
        ),
        (
            "8.1",
            "an overlong form",
            masked(TEXT, b"\"\xc0\xaf\""),
            Close(1007),
        ),
        (
            "8.1",
            "beyond U+10FFFF",
            masked(TEXT, b"\"\xf4\x90\x80\x80\""),
            Close(1007),
        ),
        (
            "8.1",
            "a character that does not end",
            masked(TEXT, b"{\"a\":\"\xf0\x9f"),
            Close(1007),
        ),
        (
            "8.1",
            "a character cut between fragments",
            [
                masked(0x01, b"{\"type\":\"ping\",\"id\":1,\"x\":\"\xf0\x9f"),
                masked(0x80, b"\x8d\xbf\"}"),
            ]
            .concat(),
            Answer,
        ),
        (
            "8.1",
            "a bad character cut between fragments, sent together",
            [masked(0x01, b"\"\xf0\x9f"), masked(0x00, b"\x41")].concat(),
            Close(1007),
        ),
        (
            "8.1",
            "bad text in a first fragment, sent together",
            masked(0x01, b"\"\xff"),
            Close(1007),
        ),
        (
            "7.4.1",
            "a close with half a code",
            masked(CLOSE, &[3]),
            Close(1002),
        ),
        (
            "7.4.1",
            "a close with bad text",
            masked(CLOSE, b"\x03\xe8\xff\xfe"),
            Close(1007),
        ),
    ];
    for first in [0xc1, 0xa1, 0x91, 0xf1, 0xc9, 0x99, 0xc8] {
        cases.push((
            "5.2",
            "a reserved bit, no extension being negotiated",
            masked(first, b"{}"),
            Close(1002),
        ));
    }
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        cases.push((
            "5.2",
            "a reserved opcode",
            masked(0x80 | opcode, b"{}"),
            Close(1002),
        ));
        cases.push((
            "5.2",
            "a reserved opcode, empty",
            masked(0x80 | opcode, b""),
            Close(1002),
        ));
    }
    for code in [
        0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        cases.push((
            "7.4.2",
            "a code that must not be sent",
            masked(CLOSE, &close_payload(code, "")),
            Close(1002),
        ));
    }
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ] {
        cases.push((
            "7.4.2",
            "a code that may be sent",
            masked(CLOSE, &close_payload(code, "")),
            Close(code),
        ));
    }
    cases
}

fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// A frame with a mask and the shortest length.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length), _) if length <= 125 => frame.push(0x80 | length),
        (_, Ok(length)) => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// The request that makes a socket, with further header lines.
pub(crate) fn handshake(at: SocketAddr, lines: &str) -> String {
    let mut request = format!("GET /v1/socket HTTP/1.1\r\nHost: {at}\r\n{lines}");
    for (name, value) in UPGRADE {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request + "\r\n"
}

/// A socket of which every byte is the test's own.
pub(crate) struct RawSocket(TcpStream);

impl RawSocket {
    /// Shakes hands; takes the welcome.
    pub(crate) async fn open(at: SocketAddr) -> Self {
        Self::open_with(at, "").await
    }

    /// The same, with further lines in the head of the request.
    pub(crate) async fn open_with(at: SocketAddr, lines: &str) -> Self {
        let mut socket = TcpStream::connect(at).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let request = handshake(at, lines);
        socket.write_all(request.as_bytes()).await.unwrap();
        Self::shaken(socket).await
    }

    /// Takes the answer to a handshake, and the welcome.
    pub(crate) async fn shaken(mut socket: TcpStream) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(
                timeout(PATIENCE, socket.read_u8())
                    .await
                    .expect("no answer")
                    .unwrap(),
            );
        }
        assert!(
            head.starts_with(b"HTTP/1.1 101"),
            "{}",
            String::from_utf8_lossy(&head)
        );
        let mut socket = Self(socket);
        let (_, welcome) = socket.frame().await.unwrap();
        assert!(welcome.starts_with(br#"{"type":"welcome""#));
        socket
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        // A client that is closed while it sends still receives the close frame.
        let _ = self.0.write_all(bytes).await;
    }

    /// The next frame: its first byte and its payload; `None` where the socket has ended.
    pub(crate) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let reading = read_frame(&mut self.0);
        timeout(PATIENCE, reading).await.expect("nothing came")
    }

    /// Its two halves.
    pub(crate) fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        self.0.into_split()
    }

    /// Waits for the `pong` with this id; earlier ones are passed over, and those of the protocol below.
    pub(crate) async fn is_answered(&mut self, id: u64, what: &str) {
        loop {
            let (first, payload) = self.frame().await.expect(what);
            if first == TEXT {
                let answer: Value = serde_json::from_slice(&payload).expect(what);
                assert_eq!(answer["type"], "pong", "{what}: {answer}");
                if answer["id"] == id {
                    return;
                }
            } else {
                assert_eq!(first, 0x8a, "{what}: {}", String::from_utf8_lossy(&payload));
            }
        }
    }

    /// Waits for the close and answers it; then the socket ends.
    pub(crate) async fn is_closed(&mut self, code: u16, what: &str) {
        loop {
            let (first, payload) = self
                .frame()
                .await
                .unwrap_or_else(|| panic!("{what}: no close frame"));
            if first == CLOSE {
                let (came, reason) = payload.split_at(2);
                assert_eq!(u16::from_be_bytes([came[0], came[1]]), code, "{what}");
                assert!(std::str::from_utf8(reason).is_ok(), "{what}");
                break;
            }
        }
        self.write(&masked(CLOSE, &code.to_be_bytes())).await;
        assert_eq!(self.frame().await, None, "{what}: frames after the close");
    }
}

/// Reads a frame of the gateway's: its first byte and its payload; `None` where the socket has ended.
pub(crate) async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let first = reader.read_u8().await.ok()?;
    let length = match reader.read_u8().await.ok()? {
        126 => u64::from(reader.read_u16().await.ok()?),
        127 => reader.read_u64().await.ok()?,
        length => u64::from(length),
    };
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    reader.read_exact(&mut payload).await.ok()?;
    Some((first, payload))
}

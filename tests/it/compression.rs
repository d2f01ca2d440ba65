//! Proves `permessage-deflate`: the gateway agrees to it if the client offers it, delivers the same messages as
//! without it, and rejects decompression bombs.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::client::{Client, PATIENCE};
use crate::database::Database;
use crate::gateway::Gateway;
use crate::http::{get, metric};
use crate::rfc6455::{RawSocket, masked};
use crate::stage::Stage;

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
const TEXT: u8 = 0x81;
const PACKED_TEXT: u8 = 0xc1;

#[tokio::test]
async fn a_client_that_offers_compression_gets_the_same_messages_in_fewer_bytes() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut plain = Client::connect(gateway.at, &ann).await;
    plain.subscribe(session).await;

    let mut socket = RawSocket::open_with(gateway.at, OFFER).await;
    let subscribe = json!({"type": "subscribe", "id": 1, "session": session}).to_string();
    socket
        .write(&masked(PACKED_TEXT, &deflate(&subscribe)))
        .await;
    let (subscribed, _) = next(&mut socket, "subscribed").await;
    assert_eq!(subscribed["id"], 1);
    let bytes_before = metric(gateway.at, "usher_bytes_sent_total").await;

    let body = "the same words over and over, ".repeat(60);
    db.say(session, &ann, &body).await;
    let expected = plain.event(session, 1).await;
    let (events, was_packed) = next(&mut socket, "events").await;
    assert_eq!(events["events"][0], expected);
    assert!(was_packed);
    let sent = metric(gateway.at, "usher_bytes_sent_total").await - bytes_before;
    assert!(
        sent < 2.0 * body.len() as f64,
        "{sent} bytes for two who take {} each",
        body.len()
    );

    // Short frames are not worth it, and a client may mix as well.
    socket
        .write(&masked(TEXT, br#"{"type":"ping","id":2}"#))
        .await;
    let (pong, was_packed) = next(&mut socket, "pong").await;
    assert_eq!((&pong["id"], was_packed), (&json!(2), false));
}

#[tokio::test]
async fn without_an_agreement_compressed_frames_are_a_breach() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| {}).await;
    for lines in [
        "",
        "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n",
    ] {
        let mut socket = RawSocket::open_with(gateway.at, lines).await;
        let ping = deflate(r#"{"type":"ping","id":1}"#);
        socket.write(&masked(PACKED_TEXT, &ping)).await;
        socket.is_closed(1002, lines).await;
    }
}

#[tokio::test]
async fn bombs_and_rubbish_close_the_socket_that_they_come_on() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let spaces = |count| deflate(&format!("{}{{}}", " ".repeat(count)));
    for (what, frames, code) in [
        (
            "a bomb",
            vec![masked(PACKED_TEXT, &spaces(20_000_000))],
            1009,
        ),
        (
            "a bomb in pieces",
            vec![
                masked(0x41, &spaces(20_000_000)[..4_000]),
                masked(0x80, &spaces(20_000_000)[4_000..]),
            ],
            1009,
        ),
        ("rubbish", vec![masked(PACKED_TEXT, b"\xff\xff\xff")], 1007),
        (
            "no text",
            vec![masked(PACKED_TEXT, &deflate_bytes(b"\xff\xfe"))],
            1007,
        ),
        ("a compressed ping", vec![masked(0xc9, b"")], 1002),
        (
            "another bit",
            vec![masked(0xa1, &deflate(r#"{"type":"ping"}"#))],
            1002,
        ),
    ] {
        let mut socket = RawSocket::open_with(gateway.at, OFFER).await;
        for frame in frames {
            socket.write(&frame).await;
        }
        socket.is_closed(code, what).await;
    }
    let mut socket = RawSocket::open_with(gateway.at, OFFER).await;
    socket
        .write(&masked(PACKED_TEXT, &deflate(r#"{"type":"ping","id":1}"#)))
        .await;
    socket.is_answered(1, "afterwards").await;
    assert_eq!(get(gateway.at, "/healthz", &[]).await.status, 200);
}

/// The next text frame of a type, and whether it was compressed. Others are passed over.
async fn next(socket: &mut RawSocket, kind: &str) -> (Value, bool) {
    let waiting = async {
        loop {
            let (first, payload) = socket.frame().await.expect("the socket has ended");
            let (text, was_packed) = match first {
                TEXT => (payload, false),
                PACKED_TEXT => (inflate(&payload), true),
                _ => continue,
            };
            let frame: Value = serde_json::from_slice(&text).unwrap();
            if frame["type"] == kind {
                return (frame, was_packed);
            }
        }
    };
    timeout(PATIENCE, waiting).await.expect("it did not come")
}

fn deflate(text: &str) -> Vec<u8> {
    deflate_bytes(text.as_bytes())
}

fn deflate_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 64);
    Compress::new(Compression::default(), false)
        .compress_vec(bytes, &mut out, FlushCompress::Sync)
        .unwrap();
    assert_eq!(out.split_off(out.len() - 4), [0, 0, 0xff, 0xff]);
    out
}

/// What a browser does: a fresh window for each message, since no context is taken over.
fn inflate(compressed: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 << 20);
    let whole = [compressed, &[0, 0, 0xff, 0xff]].concat();
    Decompress::new(false)
        .decompress_vec(&whole, &mut out, FlushDecompress::Sync)
        .unwrap();
    out
}

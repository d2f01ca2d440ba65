//! Translates the gateway's WebSocket frames into Server-Sent Events (the HTML standard, §9.2).
//!
//! Accepts the bytes of a WebSocket in pieces of any size. A frame's text becomes the `data` of an event, and its newest
//! event number becomes the `id`. A ping becomes a comment. Frames that are useful only to a client that can send are
//! left out.

use std::borrow::Cow;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::Deserialize;

use crate::protocol::refusal::{Refusal, RefusalCode, TokenFlaw};

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const MASKED: u8 = 0x80;
const FINAL: u8 = 0x80;

/// Finds the gateway's frames in a stream of bytes.
#[derive(Debug, Default)]
pub struct FrameReader {
    bytes: BytesMut,
}

/// One of the gateway's frames.
#[derive(Debug, PartialEq)]
pub enum ReadFrame {
    /// A text frame's JSON.
    Text(Bytes),
    /// A ping, which needs a pong.
    Ping,
    /// A close frame. No frame follows it.
    Close,
    /// Any other frame. An event stream ignores it.
    Other,
}

impl FrameReader {
    /// Appends received bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next frame; `None` if it needs more bytes.
    pub fn next_frame(&mut self) -> Option<ReadFrame> {
        let (header, payload) = match self.bytes.get(1)? {
            127 => (
                10,
                u64::from_be_bytes(self.bytes.get(2..10)?.try_into().ok()?),
            ),
            126 => (
                4,
                u16::from_be_bytes(self.bytes.get(2..4)?.try_into().ok()?).into(),
            ),
            length => (2, u64::from(*length)),
        };
        let payload = usize::try_from(payload).ok()?;
        if self.bytes.len() < header + payload {
            return None;
        }
        let kind = self.bytes[0] & 0x0f;
        self.bytes.advance(header);
        let payload = self.bytes.split_to(payload).freeze();
        Some(match kind {
            TEXT => ReadFrame::Text(payload),
            PING => ReadFrame::Ping,
            CLOSE => ReadFrame::Close,
            _ => ReadFrame::Other,
        })
    }
}

/// The translation of a text frame.
#[derive(Debug, PartialEq)]
pub enum StreamEvent {
    /// An event to send.
    Send(Bytes),
    /// A refusal. If it is the first frame of the stream, the gateway refused the subscribe and there is
    /// nothing to stream.
    Refused {
        /// The refusal, for an HTTP error response.
        refusal: Refusal,
        /// The event to send if the stream has started.
        event: Bytes,
    },
    /// No event: the frame has no meaning for an event stream, such as `welcome`, `resume_token` or `ack`.
    Nothing,
}

/// The contents of an event's `id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ids {
    /// The newest number in the event.
    #[default]
    Seq,
    /// The newest number and its epoch, as [`LastEventId`] writes them.
    SeqAndEpoch,
}

/// A number, with its epoch if known: `1302@k3v9` or `1302`. A parser that reads digits up to the first other character
/// gets the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastEventId {
    /// The number, in digits.
    pub seq: String,
    /// The epoch of the number, if the id has one.
    pub epoch: Option<String>,
}

impl LastEventId {
    /// Splits an id into number and epoch.
    #[must_use]
    pub fn parse(id: &str) -> Self {
        let (seq, epoch) = id.split_once(EPOCH_MARK).unwrap_or((id, ""));
        Self {
            seq: seq.to_owned(),
            epoch: (!epoch.is_empty()).then(|| epoch.to_owned()),
        }
    }
}

const EPOCH_MARK: char = '@';

/// Translates the frames of one stream into events.
#[derive(Debug, Default)]
pub struct Translator {
    ids: Ids,
    /// The epoch of the current numbers. Only `subscribed` and `reset` name it.
    epoch: Option<String>,
}

impl Translator {
    /// Creates a translator for a stream with this kind of ids.
    #[must_use]
    pub fn new(ids: Ids) -> Self {
        Self { ids, epoch: None }
    }

    /// Translates the text of a frame.
    #[must_use]
    pub fn event(&mut self, text: &[u8]) -> StreamEvent {
        let Ok(frame) = serde_json::from_slice::<Outline<'_>>(text) else {
            return StreamEvent::Nothing;
        };
        if self.ids == Ids::SeqAndEpoch
            && let Some(epoch) = &frame.epoch
        {
            self.epoch = Some(epoch.to_string());
        }
        event(text, frame, self.epoch.as_deref())
    }
}

#[derive(Deserialize)]
struct Outline<'a> {
    r#type: &'a str,
    #[serde(default)]
    seq: Option<u64>,
    #[serde(borrow, default)]
    epoch: Option<Cow<'a, str>>,
    #[serde(default)]
    events: Vec<Numbered>,
    #[serde(default)]
    after_ms: Option<u64>,
    #[serde(default)]
    code: Option<&'a str>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    retry_after_ms: Option<u64>,
    #[serde(default)]
    reason: Option<&'a str>,
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

fn event(text: &[u8], frame: Outline<'_>, epoch: Option<&str>) -> StreamEvent {
    let id = match frame.r#type {
        "welcome" | "resume_token" | "authenticated" | "ack" | "pong" => {
            return StreamEvent::Nothing;
        }
        "events" => frame.events.last().map(|event| event.seq),
        "subscribed" | "reset" => frame.seq,
        _ => None,
    };
    let mut out = BytesMut::with_capacity(text.len() + 64);
    if let Some(after_ms) = frame.after_ms {
        out.put_slice(format!("retry: {after_ms}\n").as_bytes());
    }
    if let Some(id) = id {
        let mark = epoch.map(|epoch| format!("{EPOCH_MARK}{epoch}"));
        out.put_slice(format!("id: {id}{}\n", mark.unwrap_or_default()).as_bytes());
    }
    // Line breaks in JSON are white space between tokens. Each line becomes a `data` field.
    for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.put_slice(b"data: ");
        out.put_slice(line);
        out.put_u8(b'\n');
    }
    out.put_u8(b'\n');
    let event = out.freeze();
    if frame.r#type != "error" {
        return StreamEvent::Send(event);
    }
    let code = frame.code.and_then(RefusalCode::parse);
    let message = frame.message.unwrap_or_default();
    let mut refusal = Refusal::new(code.unwrap_or(RefusalCode::Internal), message);
    if let Some(ms) = frame.retry_after_ms {
        refusal = refusal.retry_in(std::time::Duration::from_millis(ms));
    }
    refusal.reason = frame.reason.and_then(TokenFlaw::parse);
    StreamEvent::Refused { refusal, event }
}

/// Returns a comment, which every client ignores: it keeps the stream alive.
#[must_use]
pub fn comment() -> Bytes {
    Bytes::from_static(b":\n\n")
}

/// Returns the field that tells the client when to reconnect after the stream ends without a reason.
#[must_use]
pub fn retry(ms: u64) -> Bytes {
    format!("retry: {ms}\n\n").into()
}

/// Encodes a text frame as a client sends it. The mask protects proxies, so between two ends of one process it
/// may be zero.
///
/// # Panics
/// Never for a `subscribe` frame, which is shorter than 64 KiB.
#[must_use]
pub fn client_text(payload: &str) -> Vec<u8> {
    let mut out = vec![FINAL | TEXT];
    let length = u16::try_from(payload.len()).expect("a subscribe frame is short");
    match u8::try_from(length) {
        Ok(length) if length <= 125 => out.push(MASKED | length),
        _ => {
            out.push(MASKED | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload.as_bytes());
    out
}

/// A pong as a client sends it.
pub const CLIENT_PONG: [u8; 6] = [FINAL | 0xa, MASKED, 0, 0, 0, 0];

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::protocol::refusal::CloseCode;
    use crate::protocol::websocket;

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let long = "x".repeat(70_000);
        let mut bytes = Vec::new();
        for text in ["", "short", &"y".repeat(300), &long] {
            bytes.extend(websocket::text(text));
        }
        bytes.extend(websocket::ping());
        bytes.extend(websocket::close(CloseCode::Restart));
        for size in [1, 7, 4_096, bytes.len()] {
            let (mut frames, mut found) = (FrameReader::default(), Vec::new());
            for piece in bytes.chunks(size) {
                frames.extend(piece);
                found.extend(std::iter::from_fn(|| frames.next_frame()));
            }
            assert_eq!(found.len(), 6, "in pieces of {size}");
            assert_eq!(found[3], ReadFrame::Text(long.clone().into()));
            assert_eq!(
                (&found[4], &found[5]),
                (&ReadFrame::Ping, &ReadFrame::Close)
            );
        }
    }

    #[test]
    fn an_events_id_is_the_newest_number_of_its_frame() {
        check(
            r#"{"type":"events","session":"s","events":[{"seq":7,"data":{"seq":1}},{"seq":8,"data":{"seq":9}}]}"#,
            expect![[r#"
                id: 8
                data: {"type":"events","session":"s","events":[{"seq":7,"data":{"seq":1}},{"seq":8,"data":{"seq":9}}]}

            "#]],
        );
        check(
            r#"{"type":"subscribed","seq":6,"head":8}"#,
            expect![[r#"
                id: 6
                data: {"type":"subscribed","seq":6,"head":8}

            "#]],
        );
        check(
            r#"{"type":"viewers","count":3}"#,
            expect![[r#"
                data: {"type":"viewers","count":3}

            "#]],
        );
        check(
            r#"{"type":"reconnect","reason":"draining","after_ms":1840}"#,
            expect![[r#"
                retry: 1840
                data: {"type":"reconnect","reason":"draining","after_ms":1840}

            "#]],
        );
    }

    #[test]
    fn a_line_break_cannot_start_another_field() {
        check(
            "{\"type\":\"tally\",\r\n\"a\":\n1}",
            expect![[r#"
                data: {"type":"tally",
                data: 
                data: "a":
                data: 1}

            "#]],
        );
    }

    #[test]
    fn frames_without_meaning_are_left_out_and_a_refusal_is_returned() {
        for kind in ["welcome", "resume_token", "pong"] {
            let text = format!(r#"{{"type":"{kind}"}}"#);
            assert_eq!(plain(text.as_bytes()), StreamEvent::Nothing);
        }
        let refused = plain(br#"{"type":"error","code":"banned","message":"out"}"#);
        let StreamEvent::Refused { refusal, .. } = refused else {
            return assert_eq!(refused, StreamEvent::Nothing);
        };
        assert_eq!(refusal, Refusal::new(RefusalCode::Banned, "out"));
    }

    #[test]
    fn ids_are_parsed_back_with_and_without_an_epoch() {
        let mut translator = Translator::new(Ids::SeqAndEpoch);
        let mut ids = Vec::new();
        for text in [
            r#"{"type":"subscribed","seq":6,"epoch":"k3"}"#,
            r#"{"type":"events","events":[{"seq":7}]}"#,
            r#"{"type":"viewers","count":3}"#,
            r#"{"type":"reset","seq":2,"epoch":"w@4"}"#,
            r#"{"type":"events","events":[{"seq":3},{"seq":4}]}"#,
        ] {
            let StreamEvent::Send(event) = translator.event(text.as_bytes()) else {
                panic!("nothing of {text}");
            };
            let event = String::from_utf8(event.to_vec()).expect("utf-8");
            ids.extend(
                event
                    .lines()
                    .find_map(|line| line.strip_prefix("id: ").map(str::to_owned)),
            );
        }
        assert_eq!(ids, ["6@k3", "7@k3", "2@w@4", "4@w@4"]);
        for (id, seq, epoch) in [
            ("4@w@4", "4", Some("w@4")),
            ("4", "4", None),
            ("4@", "4", None),
        ] {
            let place = LastEventId::parse(id);
            assert_eq!((&*place.seq, place.epoch.as_deref()), (seq, epoch), "{id}");
        }
    }

    fn plain(text: &[u8]) -> StreamEvent {
        Translator::default().event(text)
    }

    fn check(text: &str, expected: Expect) {
        let StreamEvent::Send(event) = plain(text.as_bytes()) else {
            return expected.assert_eq("nothing");
        };
        expected.assert_eq(std::str::from_utf8(&event).expect("utf-8"));
    }
}

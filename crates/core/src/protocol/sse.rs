//! The socket's frames as Server-Sent Events (the HTML standard, §9.2), and what little such a client says back.
//!
//! Takes the bytes that go to a WebSocket, however they are cut. The text of a frame becomes the `data` of an event, the
//! newest number in it the event's `id`; a ping becomes a comment. What has no meaning without a way back is left out.

use std::borrow::Cow;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::Deserialize;

use crate::protocol::refusal::{Refusal, RefusalCode, TokenFlaw};

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const MASKED: u8 = 0x80;
const FINAL: u8 = 0x80;

/// Frames of our own, as they come.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: BytesMut,
}

/// One frame of ours, as far as an event stream cares.
#[derive(Debug, PartialEq)]
pub enum Frame {
    /// What is said, as JSON.
    Text(Bytes),
    /// A sign of life that wants one back.
    Ping,
    /// The end, and nothing after it.
    Close,
    /// Nothing for anybody.
    Other,
}

impl Frames {
    /// Takes the next bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame; `None` where more bytes are needed.
    pub fn next_frame(&mut self) -> Option<Frame> {
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
            TEXT => Frame::Text(payload),
            PING => Frame::Ping,
            CLOSE => Frame::Close,
            _ => Frame::Other,
        })
    }
}

/// What an event stream makes of a text frame.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// Something to send.
    Send(Bytes),
    /// Something was refused. Where it is the first of all, that was the wish to watch, and there is nothing to stream.
    Refused {
        /// Why.
        refusal: Refusal,
        /// What to send, where there is a stream.
        event: Bytes,
    },
    /// Nothing that means anything here: a greeting, a resume token, an answer.
    Nothing,
}

/// What the `id` of an event names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ids {
    /// The newest number in the event.
    #[default]
    Seq,
    /// The number and the epoch that it belongs to, as [`Place`] writes them.
    SeqAndEpoch,
}

/// A number with its epoch, if one is given: `1302@k3v9`, or `1302`. What reads a number up to the first character that is
/// none gets the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The number, in digits.
    pub seq: String,
    /// The epoch.
    pub epoch: Option<String>,
}

impl Place {
    /// Takes the two apart.
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

/// Makes events of frames, one stream's after the other.
#[derive(Debug, Default)]
pub struct Translator {
    ids: Ids,
    /// The epoch of the numbers that follow; only `subscribed` and `reset` name it.
    epoch: Option<String>,
}

impl Translator {
    /// For a stream whose events have such ids.
    #[must_use]
    pub fn new(ids: Ids) -> Self {
        Self { ids, epoch: None }
    }

    /// Makes an event of the text of a frame.
    #[must_use]
    pub fn event(&mut self, text: &[u8]) -> Event {
        let Ok(frame) = serde_json::from_slice::<Outline<'_>>(text) else {
            return Event::Nothing;
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

fn event(text: &[u8], frame: Outline<'_>, epoch: Option<&str>) -> Event {
    let id = match frame.r#type {
        "welcome" | "resume_token" | "authenticated" | "ack" | "pong" => return Event::Nothing,
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
    // Line breaks in JSON are white space between its parts, and each line of an event is said to be data.
    for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.put_slice(b"data: ");
        out.put_slice(line);
        out.put_u8(b'\n');
    }
    out.put_u8(b'\n');
    let event = out.freeze();
    if frame.r#type != "error" {
        return Event::Send(event);
    }
    let code = frame.code.and_then(RefusalCode::parse);
    let message = frame.message.unwrap_or_default();
    let mut refusal = Refusal::new(code.unwrap_or(RefusalCode::Internal), message);
    refusal.retry_after_ms = frame.retry_after_ms;
    refusal.reason = frame.reason.and_then(TokenFlaw::parse);
    Event::Refused { refusal, event }
}

/// A comment, which every client passes over: a sign of life.
#[must_use]
pub fn comment() -> Bytes {
    Bytes::from_static(b":\n\n")
}

/// After how long the client comes back when the stream ends without a word.
#[must_use]
pub fn retry(ms: u64) -> Bytes {
    format!("retry: {ms}\n\n").into()
}

/// A text frame as a client sends it. The mask is there for proxies; between two ends of one process zeros will do.
///
/// # Panics
/// Never for what is said here: a wish to watch is shorter than 64 KiB.
#[must_use]
pub fn client_text(payload: &str) -> Vec<u8> {
    let mut out = vec![FINAL | TEXT];
    let length = u16::try_from(payload.len()).expect("a wish to watch is short");
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
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(size) {
                frames.extend(piece);
                found.extend(std::iter::from_fn(|| frames.next_frame()));
            }
            assert_eq!(found.len(), 6, "in pieces of {size}");
            assert_eq!(found[3], Frame::Text(long.clone().into()));
            assert_eq!((&found[4], &found[5]), (&Frame::Ping, &Frame::Close));
        }
    }

    #[test]
    fn an_event_bears_the_newest_number_of_its_frame() {
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
    fn a_line_break_cannot_begin_a_field_of_its_own() {
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
    fn what_means_nothing_here_is_left_out_and_a_refusal_is_told() {
        for kind in ["welcome", "resume_token", "pong"] {
            let text = format!(r#"{{"type":"{kind}"}}"#);
            assert_eq!(plain(text.as_bytes()), Event::Nothing);
        }
        let refused = plain(br#"{"type":"error","code":"banned","message":"out"}"#);
        let Event::Refused { refusal, .. } = refused else {
            return assert_eq!(refused, Event::Nothing);
        };
        assert_eq!(refusal, Refusal::new(RefusalCode::Banned, "out"));
    }

    #[test]
    fn ids_with_an_epoch_are_read_back_and_those_without_too() {
        let mut translator = Translator::new(Ids::SeqAndEpoch);
        let mut ids = Vec::new();
        for text in [
            r#"{"type":"subscribed","seq":6,"epoch":"k3"}"#,
            r#"{"type":"events","events":[{"seq":7}]}"#,
            r#"{"type":"viewers","count":3}"#,
            r#"{"type":"reset","seq":2,"epoch":"w@4"}"#,
            r#"{"type":"events","events":[{"seq":3},{"seq":4}]}"#,
        ] {
            let Event::Send(event) = translator.event(text.as_bytes()) else {
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
            let place = Place::parse(id);
            assert_eq!((&*place.seq, place.epoch.as_deref()), (seq, epoch), "{id}");
        }
    }

    fn plain(text: &[u8]) -> Event {
        Translator::default().event(text)
    }

    fn check(text: &str, expected: Expect) {
        let Event::Send(event) = plain(text.as_bytes()) else {
            return expected.assert_eq("nothing");
        };
        expected.assert_eq(std::str::from_utf8(&event).expect("utf-8"));
    }
}

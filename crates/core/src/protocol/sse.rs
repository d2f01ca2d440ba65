//! The socket's frames as Server-Sent Events (the HTML standard, §9.2).
//!
//! The text of a frame becomes the `data` of an event, and the newest number in it becomes the event's `id`. A ping becomes
//! a comment. Frames without a meaning for a client that can only listen are left out.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::protocol::id::Seq;
use crate::protocol::server::{Content, Frames};
use crate::protocol::websocket;

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

/// Encodes the frames of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoder {
    ids: Ids,
    /// The epoch of the numbers that follow, if ids name it. Only `subscribed` and `reset` change it.
    epoch: Option<Arc<str>>,
}

impl Encoder {
    /// Encodes events with such ids.
    #[must_use]
    pub fn new(ids: Ids) -> Self {
        Self { ids, epoch: None }
    }

    /// Encodes frames, and remembers the epoch if they begin one.
    #[must_use]
    pub fn encode(&mut self, frames: &Frames) -> Bytes {
        if self.ids == Ids::SeqAndEpoch
            && let Content::Start(_, epoch) = &frames.content
        {
            self.epoch = Some(Arc::clone(epoch));
        }
        self.form(frames)
    }

    /// Encodes frames. Equal encoders give equal bytes.
    #[must_use]
    pub fn form(&self, frames: &Frames) -> Bytes {
        let mut out = BytesMut::new();
        match &frames.content {
            Content::SocketOnly => {}
            Content::Ping => return Bytes::from_static(b":\n\n"),
            Content::Events(newest) => {
                out.reserve(frames.bytes.len() + 64 * newest.len());
                let mut rest = &frames.bytes[..];
                for seq in newest {
                    let (_, text, others) =
                        websocket::split(rest).expect("frames of ours are whole");
                    self.put_id(&mut out, *seq);
                    put_data(&mut out, text);
                    rest = others;
                }
            }
            Content::Reconnect(after_ms) => {
                out.put_slice(format!("retry: {after_ms}\n").as_bytes());
                put_data(&mut out, websocket::payload(&frames.bytes));
            }
            Content::Start(seq, _) => {
                self.put_id(&mut out, *seq);
                put_data(&mut out, websocket::payload(&frames.bytes));
            }
            Content::State => put_data(&mut out, websocket::payload(&frames.bytes)),
        }
        out.freeze()
    }

    fn put_id(&self, out: &mut BytesMut, seq: Seq) {
        let id = match &self.epoch {
            Some(epoch) => format!("id: {}{EPOCH_MARK}{epoch}\n", seq.0),
            None => format!("id: {}\n", seq.0),
        };
        out.put_slice(id.as_bytes());
    }
}

/// Writes the text of a frame. Line breaks in JSON are white space between its parts, and each line begins with `data`.
fn put_data(out: &mut BytesMut, text: &[u8]) {
    out.reserve(text.len() + 16);
    for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.put_slice(b"data: ");
        out.put_slice(line);
        out.put_u8(b'\n');
    }
    out.put_u8(b'\n');
}

/// Says after how long the client reconnects if the stream ends without a `reconnect` frame.
#[must_use]
pub fn retry(ms: u64) -> Bytes {
    format!("retry: {ms}\n\n").into()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use uuid::Uuid;

    use super::*;
    use crate::limits::EVENTS_FRAME_BYTES_MAX;
    use crate::protocol::id::SessionId;
    use crate::protocol::server::{self, ServerFrame};

    #[test]
    fn an_event_bears_the_newest_number_of_its_frame() {
        let list = [
            Bytes::from_static(br#"{"seq":7,"data":{"seq":1}}"#),
            Bytes::from_static(br#"{"seq":8,"data":{"seq":9}}"#),
        ];
        check(
            &server::events(session(), Seq(6), list.iter()),
            expect![[r#"
                id: 8
                data: {"type":"events","session":"00000000-0000-0000-0000-000000000000","events":[{"seq":7,"data":{"seq":1}},{"seq":8,"data":{"seq":9}}]}

            "#]],
        );
        check(
            &start(6, "k3"),
            expect![[r#"
                id: 6
                data: {"type":"subscribed"}

            "#]],
        );
        check(
            &ServerFrame::Viewers {
                session: session(),
                count: 3,
            }
            .encode(),
            expect![[r#"
                data: {"type":"viewers","session":"00000000-0000-0000-0000-000000000000","count":3}

            "#]],
        );
        check(
            &ServerFrame::Reconnect {
                reason: "draining",
                after_ms: 1_840,
            }
            .encode(),
            expect![[r#"
                retry: 1840
                data: {"type":"reconnect","reason":"draining","after_ms":1840}

            "#]],
        );
        check(
            &Frames::ping(),
            expect![[r#"
                :

            "#]],
        );
    }

    #[test]
    fn each_frame_of_a_long_run_is_an_event() {
        let event = Bytes::from(vec![b'1'; EVENTS_FRAME_BYTES_MAX - 1]);
        let list = vec![event; 3];
        let frames = server::events(session(), Seq(6), list.iter());
        assert_eq!(ids(&mut Encoder::new(Ids::Seq), &frames), ["7", "8", "9"]);
    }

    #[test]
    fn a_line_break_cannot_begin_a_field_of_its_own() {
        check(
            &Frames::state("{\"type\":\"tally\",\r\n\"a\":\n1}"),
            expect![[r#"
                data: {"type":"tally",
                data: 
                data: "a":
                data: 1}

            "#]],
        );
    }

    #[test]
    fn a_frame_without_a_meaning_here_is_left_out() {
        check(&ServerFrame::Pong { id: None }.encode(), expect![""]);
    }

    #[test]
    fn ids_with_an_epoch_are_read_back_and_those_without_too() {
        let mut encoder = Encoder::new(Ids::SeqAndEpoch);
        let events = |after, count| {
            let list = vec![Bytes::from_static(b"{}"); count];
            server::events(session(), Seq(after), list.iter())
        };
        let mut found = Vec::new();
        for frames in [
            start(6, "k3"),
            events(6, 1),
            Frames::state("{}"),
            start(2, "w@4"),
            events(2, 2),
        ] {
            found.extend(ids(&mut encoder, &frames));
        }
        assert_eq!(found, ["6@k3", "7@k3", "2@w@4", "4@w@4"]);
        for (id, seq, epoch) in [
            ("4@w@4", "4", Some("w@4")),
            ("4", "4", None),
            ("4@", "4", None),
        ] {
            let last = LastEventId::parse(id);
            assert_eq!((&*last.seq, last.epoch.as_deref()), (seq, epoch), "{id}");
        }
    }

    fn session() -> SessionId {
        SessionId(Uuid::nil())
    }

    fn start(seq: u64, epoch: &str) -> Frames {
        Frames {
            content: Content::Start(Seq(seq), epoch.into()),
            ..Frames::state(r#"{"type":"subscribed"}"#)
        }
    }

    fn ids(encoder: &mut Encoder, frames: &Frames) -> Vec<String> {
        let text = String::from_utf8(encoder.encode(frames).to_vec()).expect("utf-8");
        let ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
        ids.map(str::to_owned).collect()
    }

    fn check(frames: &Frames, expected: Expect) {
        let text = Encoder::new(Ids::Seq).encode(frames);
        expected.assert_eq(std::str::from_utf8(&text).expect("utf-8"));
    }
}

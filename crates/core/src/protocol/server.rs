//! Encodes the gateway's frames as their final bytes, WebSocket header included.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::limits::EVENTS_FRAME_BYTES_MAX;
use crate::limits::HEADER_BYTES_MAX;
use crate::protocol::client::FrameId;
use crate::protocol::id::{MessageId, MovieId, Seq, SessionId, UserId, VotingId};
use crate::protocol::refusal::{Refusal, RefusalCode};
use crate::protocol::websocket;

/// Encoded frames, with what an event stream needs to know of them.
#[derive(Clone, Debug)]
pub struct Frames {
    /// WebSocket frames, headers included.
    pub bytes: Bytes,
    /// What they hold.
    pub content: Content,
}

/// What frames hold, as far as an event stream needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Frames of events, each with the newest number in it.
    Events(Vec<Seq>),
    /// A sign of life.
    Ping,
    /// The client reconnects after so many milliseconds.
    Reconnect(u64),
    /// A frame without a meaning for a client that can only listen.
    SocketOnly,
    /// The numbers that follow begin after this one, in this epoch.
    Start(Seq, Arc<str>),
    /// Any other frame.
    State,
}

impl Frames {
    /// Returns a frame that event streams leave out.
    #[must_use]
    pub fn socket_only(bytes: Bytes) -> Self {
        let content = Content::SocketOnly;
        Self { bytes, content }
    }

    /// Returns a frame of state with JSON text.
    #[must_use]
    pub(crate) fn state(json: &str) -> Self {
        Self {
            bytes: websocket::text(json),
            content: Content::State,
        }
    }

    /// Returns a ping.
    #[must_use]
    pub(crate) fn ping() -> Self {
        Self {
            bytes: websocket::ping(),
            content: Content::Ping,
        }
    }
}

/// All frames except `events`, which [`events`] assembles from the database's JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are those of the protocol")]
pub enum ServerFrame<'a> {
    Access {
        session: SessionId,
        can: Can,
    },
    Ack {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a FrameId>,
        #[serde(flatten)]
        done: WriteOutcome,
    },
    Authenticated {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a FrameId>,
        sub: Option<UserId>,
        role: &'a str,
        expires_at: Option<u64>,
    },
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a FrameId>,
        #[serde(flatten)]
        refusal: &'a Refusal,
    },
    Mine {
        session: SessionId,
        voting: VotingId,
        movie: Option<MovieId>,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a FrameId>,
    },
    Reconnect {
        reason: &'a str,
        after_ms: u64,
    },
    Reset(Box<Reset<'a>>),
    ResumeToken {
        session: SessionId,
        token: &'a str,
    },
    Subscribed(Box<Subscribed<'a>>),
    TokenExpiring {
        expires_at: u64,
    },
    Unsubscribed {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a FrameId>,
        session: SessionId,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
    },
    Viewers {
        session: SessionId,
        count: u64,
    },
    Welcome {
        connection: Uuid,
        server: &'a str,
        heartbeat_ms: u64,
        max_frame_bytes: usize,
    },
}

/// The answer to `subscribe`.
#[derive(Debug, Serialize)]
pub struct Subscribed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<&'a FrameId>,
    pub(crate) session: SessionId,
    pub(crate) epoch: &'a str,
    pub(crate) seq: Seq,
    /// The newest event when the frame was made. Events up to it are history; later ones are live.
    pub(crate) head: Seq,
    pub(crate) recovered: bool,
    pub(crate) reason: Option<StartReason>,
    pub(crate) resume_token: &'a str,
    pub(crate) can: Can,
    pub(crate) viewers: u64,
    pub(crate) info: &'a RawValue,
    pub(crate) votings: Vec<VotingView<'a>>,
}

/// The frame after a loss of continuity. Its info, polls and permissions replace the changes that the client missed.
#[derive(Debug, Serialize)]
pub struct Reset<'a> {
    pub(crate) session: SessionId,
    pub(crate) epoch: &'a str,
    pub(crate) seq: Seq,
    /// As [`Subscribed::head`].
    pub(crate) head: Seq,
    pub(crate) reason: StartReason,
    pub(crate) can: Can,
    pub(crate) info: &'a RawValue,
    pub(crate) votings: Vec<VotingView<'a>>,
}

/// A poll as one subscriber may see it.
#[derive(Debug, Serialize)]
pub(crate) struct VotingView<'a> {
    pub(crate) session: SessionId,
    pub(crate) voting: VotingId,
    pub(crate) status: &'a str,
    pub(crate) version: u64,
    pub(crate) total: u64,
    pub(crate) counts: Option<&'a RawValue>,
    pub(crate) closes_at: Option<&'a RawValue>,
    pub(crate) question: &'a RawValue,
    pub(crate) results_visibility: &'a str,
    pub(crate) allow_change: bool,
    pub(crate) options: &'a RawValue,
    /// The subscriber's own vote. Absent if the database was not asked: the client then keeps the vote
    /// that it remembers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mine: Option<Option<MovieId>>,
}

/// A subscriber's permissions in a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Can {
    /// May write chat messages.
    pub send: bool,
    /// May vote in open polls.
    pub vote: bool,
    /// May moderate, and sees hidden counts.
    pub moderate: bool,
}

/// The reason why a subscription does not continue from the client's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StartReason {
    /// The log has not reached the client's position or has another epoch: the database went back in time.
    Ahead,
    /// The client sent no position.
    Fresh,
    /// The log no longer reaches back to the client's position.
    TooOld,
}

/// The result of a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum WriteOutcome {
    /// A message.
    Sent(Sent),
    /// A vote, cast or withdrawn.
    Voted(Voted),
}

/// A written message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Posted))]
pub struct Sent {
    /// The number of its event; null if the event was trimmed from the log since.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>, required))]
    pub seq: Option<Seq>,
    /// The id of the message.
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub message: MessageId,
    /// Whether this try wrote the message. Not on the wire.
    #[serde(skip)]
    pub is_new: bool,
}

/// A vote, cast or withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Voted {
    /// The id of the poll.
    #[cfg_attr(feature = "openapi", schema(value_type = Uuid))]
    pub voting: VotingId,
    /// The movie; null if the vote is withdrawn.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Uuid>, required))]
    pub movie: Option<MovieId>,
}

impl ServerFrame<'_> {
    /// Returns the frame's JSON text.
    ///
    /// # Panics
    /// Never: every frame has string keys and plain values.
    #[must_use]
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("frames have string keys and plain values")
    }

    /// Returns the frame as it is sent.
    #[must_use]
    pub fn encode(&self) -> Frames {
        let content = match self {
            Self::Ack { .. }
            | Self::Authenticated { .. }
            | Self::Pong { .. }
            | Self::ResumeToken { .. }
            | Self::Welcome { .. } => Content::SocketOnly,
            Self::Reconnect { after_ms, .. } => Content::Reconnect(*after_ms),
            Self::Reset(reset) => Content::Start(reset.seq, reset.epoch.into()),
            Self::Subscribed(subscribed) => Content::Start(subscribed.seq, subscribed.epoch.into()),
            Self::Access { .. }
            | Self::Error { .. }
            | Self::Mine { .. }
            | Self::TokenExpiring { .. }
            | Self::Unsubscribed { .. }
            | Self::Viewers { .. } => Content::State,
        };
        let bytes = websocket::text(&self.json());
        Frames { bytes, content }
    }
}

/// Returns the `unsubscribed` frame for a client whose access was withdrawn.
#[must_use]
pub(crate) fn withdrawn(session: SessionId, code: RefusalCode) -> Frames {
    let reason = if code == RefusalCode::Banned {
        "banned"
    } else {
        "forbidden"
    };
    let frame = ServerFrame::Unsubscribed {
        id: None,
        session,
        reason: Some(reason),
    };
    frame.encode()
}

/// Returns the answer to a refused frame.
#[must_use]
pub fn error(id: Option<&FrameId>, refusal: &Refusal) -> Frames {
    ServerFrame::Error { id, refusal }.encode()
}

/// Returns the consecutive events of one session after a number as `events` frames. Each frame has as many as fit into
/// [`EVENTS_FRAME_BYTES_MAX`], and at least one.
pub fn events<'a>(
    session: SessionId,
    after: Seq,
    events: impl Iterator<Item = &'a Bytes>,
) -> Frames {
    let mut out = BytesMut::new();
    let mut newest = Vec::new();
    let mut seq = after;
    let mut frame: Vec<&Bytes> = Vec::new();
    let mut frame_bytes = 0;
    for event in events {
        if !frame.is_empty() && frame_bytes + event.len() > EVENTS_FRAME_BYTES_MAX {
            put_events_frame(&mut out, session, &frame);
            newest.push(seq);
            frame.clear();
            frame_bytes = 0;
        }
        frame_bytes += event.len() + 1;
        frame.push(event);
        seq = seq.next();
    }
    if !frame.is_empty() {
        put_events_frame(&mut out, session, &frame);
        newest.push(seq);
    }
    Frames {
        bytes: out.freeze(),
        content: Content::Events(newest),
    }
}

fn put_events_frame(out: &mut BytesMut, session: SessionId, events: &[&Bytes]) {
    const HEAD: &[u8] = br#"{"type":"events","session":""#;
    const MIDDLE: &[u8] = br#"","events":["#;
    const TAIL: &[u8] = b"]}";
    let mut buffer = Uuid::encode_buffer();
    let name = session.0.hyphenated().encode_lower(&mut buffer);
    let events_bytes: usize = events.iter().map(|event| event.len()).sum();
    let commas = events.len().saturating_sub(1);
    let payload = HEAD.len() + name.len() + MIDDLE.len() + events_bytes + commas + TAIL.len();
    out.reserve(HEADER_BYTES_MAX + payload);
    websocket::put_text_header(out, payload);
    out.put_slice(HEAD);
    out.put_slice(name.as_bytes());
    out.put_slice(MIDDLE);
    for (position, event) in events.iter().enumerate() {
        if position > 0 {
            out.put_u8(b',');
        }
        out.put_slice(event);
    }
    out.put_slice(TAIL);
}

impl Serialize for FrameId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(self.as_json())
            .expect("a frame id holds JSON text by construction");
        raw.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::protocol::client;

    #[test]
    fn frames_follow_the_protocol() {
        let request = client::decode(r#"{"type":"ping","id":"a"}"#).expect("a frame");
        let id = request.id.as_ref();
        let uuid = Uuid::nil();
        check(
            &ServerFrame::Pong { id },
            expect![[r#"{"type":"pong","id":"a"}"#]],
        );
        check(
            &ServerFrame::Ack {
                id,
                done: WriteOutcome::Sent(Sent {
                    seq: Some(Seq(7)),
                    message: MessageId(uuid),
                    is_new: true,
                }),
            },
            expect![[
                r#"{"type":"ack","id":"a","seq":7,"message":"00000000-0000-0000-0000-000000000000"}"#
            ]],
        );
        check(
            &ServerFrame::Ack {
                id: None,
                done: WriteOutcome::Voted(Voted {
                    voting: VotingId(uuid),
                    movie: None,
                }),
            },
            expect![[
                r#"{"type":"ack","voting":"00000000-0000-0000-0000-000000000000","movie":null}"#
            ]],
        );
        check(
            &ServerFrame::Mine {
                session: SessionId(uuid),
                voting: VotingId(uuid),
                movie: None,
            },
            expect![[
                r#"{"type":"mine","session":"00000000-0000-0000-0000-000000000000","voting":"00000000-0000-0000-0000-000000000000","movie":null}"#
            ]],
        );
        check(
            &ServerFrame::Reconnect {
                reason: "draining",
                after_ms: 18,
            },
            expect![[r#"{"type":"reconnect","reason":"draining","after_ms":18}"#]],
        );
    }

    #[test]
    fn events_are_spliced_untouched() {
        let list = [
            Bytes::from_static(br#"{"seq":1}"#),
            Bytes::from_static(br#"{"seq":2}"#),
        ];
        let frames = events(SessionId(Uuid::nil()), Seq(0), list.iter());
        let bytes = frames.bytes;
        assert_eq!(
            std::str::from_utf8(&bytes[2..]),
            Ok(
                r#"{"type":"events","session":"00000000-0000-0000-0000-000000000000","events":[{"seq":1},{"seq":2}]}"#
            )
        );
        assert_eq!(usize::from(bytes[1]), bytes.len() - 2);
        assert_eq!(frames.content, Content::Events(vec![Seq(2)]));
    }

    #[test]
    fn a_long_run_is_cut_into_frames() {
        let event = Bytes::from(vec![b'1'; EVENTS_FRAME_BYTES_MAX / 2]);
        let list = vec![event; 5];
        let Frames { bytes, content } = events(SessionId(Uuid::nil()), Seq(6), list.iter());
        let frames = bytes
            .windows(7)
            .filter(|window| window == br#""events"#)
            .count()
            / 2;
        assert!(frames >= 3, "{frames} frames");
        let Content::Events(newest) = content else {
            panic!("{content:?}");
        };
        assert_eq!((newest.len(), newest.last()), (frames, Some(&Seq(11))));
        let none = events(SessionId(Uuid::nil()), Seq(6), [].iter());
        assert!(none.bytes.is_empty() && none.content == Content::Events(Vec::new()));
    }

    fn check(frame: &ServerFrame<'_>, expected: Expect) {
        expected.assert_eq(&frame.json());
    }
}

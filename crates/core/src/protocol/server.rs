//! What the gateway says: every frame as its final bytes, WebSocket header included.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::limits::EVENTS_FRAME_BYTES_MAX;
use crate::protocol::client::FrameId;
use crate::protocol::id::{MessageId, MovieId, Seq, SessionId, UserId, VotingId};
use crate::protocol::refusal::{Refusal, RefusalCode, TokenFlaw};
use crate::protocol::websocket::{self, HEADER_BYTES_MAX};

/// Every frame but `events`, which [`events`] splices from what the database wrote.
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
        code: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        /// What is wrong with the token, where it is that.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
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
    /// The newest event when this was said: what follows up to here is history, what comes after is live.
    pub(crate) head: Seq,
    pub(crate) recovered: bool,
    pub(crate) reason: Option<StartReason>,
    pub(crate) resume_token: &'a str,
    pub(crate) can: Can,
    pub(crate) viewers: u64,
    pub(crate) info: &'a RawValue,
    pub(crate) votings: Vec<VotingView<'a>>,
}

/// What a subscriber is told when continuity is lost. Events that told of changes were missed, so it tells them anew.
#[derive(Debug, Serialize)]
pub struct Reset<'a> {
    pub(crate) session: SessionId,
    pub(crate) epoch: &'a str,
    pub(crate) seq: Seq,
    /// As in [`Subscribed`].
    pub(crate) head: Seq,
    pub(crate) reason: StartReason,
    pub(crate) can: Can,
    pub(crate) info: &'a RawValue,
    pub(crate) votings: Vec<VotingView<'a>>,
}

/// A voting as one subscriber may see it.
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
    /// The subscriber's own vote. Absent where the database was not asked: then the client's own memory stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mine: Option<Option<MovieId>>,
}

/// What a subscriber may do in a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Can {
    /// Write chat messages.
    pub send: bool,
    /// Vote in open votings.
    pub vote: bool,
    /// Moderate, and see counts that are hidden from others.
    pub moderate: bool,
}

/// Why a subscription does not go on where the client stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StartReason {
    /// The client stands where the log, or this epoch of it, has not come: the database went back in time.
    Ahead,
    /// There was nothing to go on from.
    Fresh,
    /// The log no longer reaches back.
    TooOld,
}

/// What was written for a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the fields are those of the protocol")]
pub enum WriteOutcome {
    /// A message, with the number of its event; without, where the log has been trimmed since.
    Sent {
        seq: Option<Seq>,
        message: MessageId,
        /// Not on the wire: whether it was written by this very try.
        #[serde(skip)]
        is_new: bool,
    },
    /// A vote, cast or withdrawn.
    Voted {
        voting: VotingId,
        movie: Option<MovieId>,
    },
}

impl ServerFrame<'_> {
    /// The JSON text of the frame.
    ///
    /// # Panics
    /// Never: the frames have string keys and no map of ours can fail.
    #[must_use]
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("frames have string keys and plain values")
    }

    /// The frame as it goes out.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        websocket::text(&self.json())
    }
}

/// The `unsubscribed` frame for a client that may not watch a session any more.
#[must_use]
pub(crate) fn withdrawn(session: SessionId, code: RefusalCode) -> Bytes {
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

/// The answer to a frame that was refused.
#[must_use]
pub fn error(id: Option<&FrameId>, refusal: &Refusal) -> Bytes {
    ServerFrame::Error {
        id,
        code: refusal.code.as_str(),
        message: &refusal.message,
        retry_after_ms: refusal.retry_after_ms,
        reason: refusal.reason.map(TokenFlaw::as_str),
    }
    .encode()
}

/// Frames of consecutive events of one session, as one run of bytes. A frame holds as many as fit
/// [`EVENTS_FRAME_BYTES_MAX`], and at least one.
pub fn events<'a>(session: SessionId, events: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let mut out = BytesMut::new();
    let mut frame: Vec<&Bytes> = Vec::new();
    let mut frame_bytes = 0;
    for event in events {
        if !frame.is_empty() && frame_bytes + event.len() > EVENTS_FRAME_BYTES_MAX {
            put_events_frame(&mut out, session, &frame);
            frame.clear();
            frame_bytes = 0;
        }
        frame_bytes += event.len() + 1;
        frame.push(event);
    }
    if !frame.is_empty() {
        put_events_frame(&mut out, session, &frame);
    }
    out.freeze()
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
    fn frames_look_as_the_protocol_has_them() {
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
                done: WriteOutcome::Sent {
                    seq: Some(Seq(7)),
                    message: MessageId(uuid),
                    is_new: true,
                },
            },
            expect![[
                r#"{"type":"ack","id":"a","seq":7,"message":"00000000-0000-0000-0000-000000000000"}"#
            ]],
        );
        check(
            &ServerFrame::Ack {
                id: None,
                done: WriteOutcome::Voted {
                    voting: VotingId(uuid),
                    movie: None,
                },
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
        let bytes = events(SessionId(Uuid::nil()), list.iter());
        assert_eq!(
            std::str::from_utf8(&bytes[2..]),
            Ok(
                r#"{"type":"events","session":"00000000-0000-0000-0000-000000000000","events":[{"seq":1},{"seq":2}]}"#
            )
        );
        assert_eq!(usize::from(bytes[1]), bytes.len() - 2);
    }

    #[test]
    fn a_long_run_is_cut_into_frames() {
        let event = Bytes::from(vec![b'1'; EVENTS_FRAME_BYTES_MAX / 2]);
        let list = vec![event; 5];
        let bytes = events(SessionId(Uuid::nil()), list.iter());
        let frames = bytes
            .windows(7)
            .filter(|window| window == br#""events"#)
            .count()
            / 2;
        assert!(frames >= 3, "{frames} frames");
        assert!(events(SessionId(Uuid::nil()), [].iter()).is_empty());
    }

    fn check(frame: &ServerFrame<'_>, expected: Expect) {
        expected.assert_eq(&frame.json());
    }
}

//! Parses client frames: one JSON object each, into types that hold only valid values.
//!
//! An unknown or repeated key is ignored. A value of the wrong type or out of range causes a refusal that
//! names the field.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

use crate::limits::{
    ACCESS_TOKEN_BYTES_MAX, BODY_CHARS_MAX, FRAME_ID_CHARS_MAX, FRAME_ID_NUMBER_MAX,
    HISTORY_DEFAULT, HISTORY_MAX, RESUME_TOKEN_BYTES_MAX,
};
use crate::protocol::id::{MessageId, MovieId, Nonce, Seq, SessionId, VotingId};
use crate::protocol::refusal::{Refusal, RefusalCode, TokenFlaw};
use crate::protocol::text::has_ink;

/// A client's frame with its `id`.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// The frame's id, which the direct answer repeats.
    pub id: Option<FrameId>,
    /// The frame's contents.
    pub frame: ClientFrame,
}

/// The frames that a client can send.
#[derive(Debug, PartialEq)]
pub enum ClientFrame {
    /// Sends a token: the first one, or a new one.
    Auth {
        /// A Supabase JWT that is not verified yet.
        token: String,
    },
    /// Asks for a `pong`. Browsers cannot send WebSocket pings.
    Ping,
    /// Writes a chat message.
    Send(NewMessage),
    /// Subscribes to a session's events.
    Subscribe(Subscribe),
    /// Ends a subscription.
    Unsubscribe {
        /// The session to leave.
        session: SessionId,
    },
    /// Casts or withdraws a vote.
    Vote(NewVote),
}

/// The fields of `subscribe`.
#[derive(Debug, PartialEq)]
pub struct Subscribe {
    /// The session to watch.
    pub session: SessionId,
    /// The number of newest events to send first, if there is nothing to resume.
    pub history: u16,
    /// The client's position before it lost its socket.
    pub resume: Option<ResumePoint>,
}

/// A client's position before it lost its socket.
#[derive(Debug, PartialEq)]
pub struct ResumePoint {
    /// The number of the last event that the client received.
    pub seq: Seq,
    /// The epoch of that number. Without one, the gateway assumes the current epoch.
    pub epoch: Option<String>,
    /// A resume token: proves a recent admission, so that the gateway need not ask the database.
    pub token: Option<String>,
}

/// A chat message to write.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Message))]
pub struct NewMessage {
    /// The session to write to.
    #[cfg_attr(feature = "openapi", schema(ignore))]
    pub session: SessionId,
    /// The text of the message. At least one of its characters is visible.
    #[cfg_attr(
        feature = "openapi",
        schema(
            value_type = String, min_length = 1, max_length = 2000, pattern = r"^[^\u0000]+$",
            examples("hello")
        )
    )]
    pub body: Body,
    /// The client's id for the message.
    #[cfg_attr(feature = "openapi", schema(ignore))]
    pub nonce: Option<Nonce>,
    /// The message that this one replies to.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub reply_to: Option<MessageId>,
}

/// A vote to cast.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Vote))]
pub struct NewVote {
    /// The poll to vote in.
    #[cfg_attr(feature = "openapi", schema(ignore))]
    pub voting: VotingId,
    /// A movie on the ballot; null withdraws the vote.
    #[cfg_attr(
        feature = "openapi",
        schema(
            value_type = Option<uuid::Uuid>, required = true,
            examples("a0c5a1de-0000-4000-8000-000000000001")
        )
    )]
    pub movie: Option<MovieId>,
}

/// The text of a chat message: 1 to 2,000 characters. At least one of them is visible, and none is NUL, which
/// Postgres cannot store.
#[derive(Clone, Debug, PartialEq)]
pub struct Body(String);

impl Body {
    /// Parses a text that a client sent.
    ///
    /// # Errors
    /// `bad_request` for a text that is empty or invisible or contains NUL; `too_large` for a text that is too long.
    pub fn parse(text: String) -> Result<Self, Refusal> {
        if text.is_empty() {
            return Err(Refusal::bad_request("body must not be empty"));
        }
        if text.contains('\0') {
            return Err(Refusal::bad_request(
                "body must not contain the character U+0000",
            ));
        }
        if text.chars().count() > BODY_CHARS_MAX {
            let message = format!("body must have at most {BODY_CHARS_MAX} characters");
            return Err(Refusal::new(RefusalCode::TooLarge, message));
        }
        if !has_ink(&text) {
            return Err(Refusal::bad_request(
                "body must have at least one visible character",
            ));
        }
        Ok(Self(text))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A frame's id, as the JSON text that the answer repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameId(Box<str>);

impl FrameId {
    /// Returns the JSON text: a number or a quoted string.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

/// The reason why a frame could not be decoded.
#[derive(Debug, PartialEq)]
pub enum DecodeError {
    /// The text is not a JSON object, so the client may speak another protocol.
    NotAnObject,
    /// The text is an object but not a valid frame.
    Refused {
        /// The frame's id, if it could be read.
        id: Option<FrameId>,
        /// The refusal to answer with.
        refusal: Refusal,
    },
}

/// Parses one text frame.
///
/// # Errors
/// The text is not a JSON object, or the object is not a valid frame.
pub fn decode(text: &str) -> Result<Request, DecodeError> {
    let (object, flaw) = object(text).ok_or(DecodeError::NotAnObject)?;
    let mut fields = Fields(object);
    let id = match fields.id() {
        Ok(id) => id,
        Err(refusal) => return Err(DecodeError::Refused { id: None, refusal }),
    };
    match flaw.map_or_else(|| fields.frame(), Err) {
        Ok(frame) => Ok(Request { id, frame }),
        Err(refusal) => Err(DecodeError::Refused { id, refusal }),
    }
}

/// Parses a message to a session from a JSON object without a frame, as in a call over HTTP.
///
/// # Errors
/// `bad_request` that names the field; `too_large` for a text that is too long.
pub fn message(
    session: SessionId,
    nonce: Option<Nonce>,
    json: &[u8],
) -> Result<NewMessage, Refusal> {
    let mut fields = Fields::parse(json)?;
    Ok(NewMessage {
        session,
        body: fields.body()?,
        nonce,
        reply_to: fields.uuid("reply_to")?,
    })
}

/// Parses a vote in a poll from a JSON object without a frame, as in a call over HTTP.
///
/// # Errors
/// `bad_request` that names the field.
pub fn vote(voting: VotingId, json: &[u8]) -> Result<NewVote, Refusal> {
    let movie = Fields::parse(json)?.movie()?;
    Ok(NewVote { voting, movie })
}

/// Returns an object's fields, and a refusal if the object has a field that cannot be read.
fn object(text: &str) -> Option<(Map<String, Value>, Option<Refusal>)> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Some((object, None)),
        Ok(_) => None,
        Err(_) => readable(text),
    }
}

/// Reads an object that follows JSON's grammar but has values that [`Value`] cannot hold: half of a surrogate pair,
/// which browsers send for an emoji that was cut in two; a number out of range; 128 levels or more. The refusal names
/// the first known field with such a value. Unknown keys are ignored, as always.
fn readable(text: &str) -> Option<(Map<String, Value>, Option<Refusal>)> {
    const FIELDS: [&str; 14] = [
        "body", "history", "id", "movie", "movies", "nonce", "question", "reason", "reply_to",
        "resume", "session", "token", "type", "voting",
    ];
    let raw: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    let mut object = Map::new();
    let mut flaw = None;
    for (name, raw) in raw {
        match serde_json::from_str(raw.get()) {
            Ok(value) => drop(object.insert(name, value)),
            Err(_) if flaw.is_none() && FIELDS.contains(&name.as_str()) => {
                flaw = Some(Refusal::bad_request(format!(
                    "{name} cannot be read: it must have whole characters, no half of a surrogate pair, \
                     numbers within range and less than 128 levels"
                )));
            }
            Err(_) => {}
        }
    }
    Some((object, flaw))
}

/// An object's fields, taken one by one by name. `null` counts as absent, except where it has a meaning.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, Refusal> {
        let object = std::str::from_utf8(json).ok().and_then(object);
        match object {
            Some((object, None)) => Ok(Self(object)),
            Some((_, Some(flaw))) => Err(flaw),
            None => Err(Refusal::bad_request("the body must be one JSON object")),
        }
    }

    fn frame(&mut self) -> Result<ClientFrame, Refusal> {
        let kind = self
            .text("type", usize::MAX)?
            .ok_or_else(|| missing("type", "a string"))?;
        Ok(match kind.as_str() {
            "auth" => ClientFrame::Auth {
                token: self.token()?,
            },
            "ping" => ClientFrame::Ping,
            "send" => ClientFrame::Send(NewMessage {
                session: self
                    .uuid("session")?
                    .ok_or_else(|| missing("session", "a uuid"))?,
                body: self.body()?,
                nonce: self.uuid("nonce")?,
                reply_to: self.uuid("reply_to")?,
            }),
            "subscribe" => ClientFrame::Subscribe(Subscribe {
                session: self
                    .uuid("session")?
                    .ok_or_else(|| missing("session", "a uuid"))?,
                history: self.history()?,
                resume: self.resume()?,
            }),
            "unsubscribe" => ClientFrame::Unsubscribe {
                session: self
                    .uuid("session")?
                    .ok_or_else(|| missing("session", "a uuid"))?,
            },
            "vote" => ClientFrame::Vote(NewVote {
                voting: self
                    .uuid("voting")?
                    .ok_or_else(|| missing("voting", "a uuid"))?,
                movie: self.movie()?,
            }),
            _ => {
                return Err(Refusal::bad_request(
                    "type must be one of auth, subscribe, unsubscribe, send, vote, ping",
                ));
            }
        })
    }

    fn id(&mut self) -> Result<Option<FrameId>, Refusal> {
        match self.take("id") {
            None => Ok(None),
            Some(Value::Number(number)) if is_safe_integer(&number) => {
                Ok(Some(FrameId(number.to_string().into())))
            }
            Some(Value::String(text)) if text.chars().count() <= FRAME_ID_CHARS_MAX => {
                Ok(Some(FrameId(Value::String(text).to_string().into())))
            }
            Some(_) => Err(Refusal::bad_request(format!(
                "id must be a whole number from -2^53 to 2^53, or a string of at most {FRAME_ID_CHARS_MAX} characters"
            ))),
        }
    }

    fn token(&mut self) -> Result<String, Refusal> {
        let token = self
            .text("token", usize::MAX)?
            .ok_or_else(|| missing("token", "a string"))?;
        if token.len() > ACCESS_TOKEN_BYTES_MAX {
            // A distinct code: neither a new token nor another try helps.
            let message = format!("token must have at most {ACCESS_TOKEN_BYTES_MAX} bytes");
            let mut refusal = Refusal::new(RefusalCode::TooLarge, message);
            refusal.reason = Some(TokenFlaw::TooLarge);
            return Err(refusal);
        }
        Ok(token)
    }

    fn body(&mut self) -> Result<Body, Refusal> {
        let text = self
            .text("body", usize::MAX)?
            .ok_or_else(|| missing("body", "a string"))?;
        Body::parse(text)
    }

    fn movie(&mut self) -> Result<Option<MovieId>, Refusal> {
        if !self.has("movie") {
            return Err(missing("movie", "a uuid, or null to withdraw the vote"));
        }
        self.uuid("movie")
    }

    fn history(&mut self) -> Result<u16, Refusal> {
        let Some(value) = self.take("history") else {
            return Ok(HISTORY_DEFAULT);
        };
        value
            .as_u64()
            .and_then(|count| u16::try_from(count).ok())
            .filter(|count| *count <= HISTORY_MAX)
            .ok_or_else(|| {
                Refusal::bad_request(format!("history must be a number from 0 to {HISTORY_MAX}"))
            })
    }

    fn resume(&mut self) -> Result<Option<ResumePoint>, Refusal> {
        match self.take("resume") {
            None => Ok(None),
            Some(Value::Object(object)) => {
                let mut point = Self(object);
                let seq = point
                    .take("seq")
                    .and_then(|seq| seq.as_u64())
                    .filter(|seq| i64::try_from(*seq).is_ok())
                    .ok_or_else(|| {
                        Refusal::bad_request("resume.seq must be a whole number from 0 on")
                    })?;
                // A token that is too long is not an error: the database decides about the admission.
                let token = point.text("token", RESUME_TOKEN_BYTES_MAX).unwrap_or(None);
                let epoch = point
                    .text("epoch", usize::MAX)
                    .map_err(|_| Refusal::bad_request("resume.epoch must be a string"))?;
                Ok(Some(ResumePoint {
                    seq: Seq(seq),
                    epoch,
                    token,
                }))
            }
            Some(_) => Err(Refusal::bad_request("resume must be an object with a seq")),
        }
    }

    fn uuid<T: std::str::FromStr>(&mut self, name: &str) -> Result<Option<T>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => match text.parse() {
                Ok(id) => Ok(Some(id)),
                Err(_) => Err(Refusal::bad_request(format!("{name} must be a uuid"))),
            },
            Some(_) => Err(Refusal::bad_request(format!("{name} must be a uuid"))),
        }
    }

    pub(crate) fn text(&mut self, name: &str, bytes_max: usize) -> Result<Option<String>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= bytes_max => Ok(Some(text)),
            Some(Value::String(_)) => Err(Refusal::bad_request(format!(
                "{name} must have at most {bytes_max} bytes"
            ))),
            Some(_) => Err(Refusal::bad_request(format!("{name} must be a string"))),
        }
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// Whether the field is present, even as `null`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// Whether a number returns to every client exactly as the client sent it. `1.50` and 2^64 + 1 would not.
fn is_safe_integer(number: &Number) -> bool {
    let number = number.as_i64();
    number.is_some_and(|n| (-FRAME_ID_NUMBER_MAX..=FRAME_ID_NUMBER_MAX).contains(&n))
}

pub(crate) fn missing(name: &str, what: &str) -> Refusal {
    Refusal::bad_request(format!("{name} is missing: it must be {what}"))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    const SESSION: &str = "00000000-0000-4000-8000-000000000007";

    #[test]
    fn frames_are_decoded() {
        check(
            r#"{"type":"subscribe","id":2,"session":"S","history":10}"#,
            expect![[r#"2 Subscribe(Subscribe { session: S, history: 10, resume: None })"#]],
        );
        check(
            r#"{"type":"subscribe","session":"S","resume":{"seq":7,"epoch":"k3","token":"t"}}"#,
            expect![[
                r#"- Subscribe(Subscribe { session: S, history: 50, resume: Some(ResumePoint { seq: Seq(7), epoch: Some("k3"), token: Some("t") }) })"#
            ]],
        );
        check(
            r#"{"id":"a\"b","type":"send","session":"S","body":"hi","body":"ho","extra":[1]}"#,
            expect![[
                r#""a\"b" Send(NewMessage { session: S, body: Body("ho"), nonce: None, reply_to: None })"#
            ]],
        );
        check(
            r#"{"type":"vote","voting":"S","movie":null}"#,
            expect!["- Vote(NewVote { voting: S, movie: None })"],
        );
        check(r#"{"type":"ping"}"#, expect!["- Ping"]);
    }

    #[test]
    fn a_refusal_names_the_field() {
        check(
            r#"{"id":3}"#,
            expect!["3 bad_request: type is missing: it must be a string"],
        );
        check(
            r#"{"type":"dance"}"#,
            expect![
                "- bad_request: type must be one of auth, subscribe, unsubscribe, send, vote, ping"
            ],
        );
        check(
            r#"{"type":"subscribe","session":"nope"}"#,
            expect!["- bad_request: session must be a uuid"],
        );
        check(
            r#"{"type":"subscribe","session":"S","history":201}"#,
            expect!["- bad_request: history must be a number from 0 to 200"],
        );
        check(
            r#"{"type":"subscribe","session":"S","resume":{"seq":-1}}"#,
            expect!["- bad_request: resume.seq must be a whole number from 0 on"],
        );
        check(
            r#"{"type":"send","session":"S","body":7}"#,
            expect!["- bad_request: body must be a string"],
        );
        check(
            r#"{"type":"send","session":"S","body":""}"#,
            expect!["- bad_request: body must not be empty"],
        );
        check(
            r#"{"type":"send","session":"S","body":" \n\u200b\u3164"}"#,
            expect!["- bad_request: body must have at least one visible character"],
        );
        check(
            r#"{"type":"vote","voting":"S"}"#,
            expect![
                "- bad_request: movie is missing: it must be a uuid, or null to withdraw the vote"
            ],
        );
        check(
            r#"{"id":{},"type":"ping"}"#,
            expect![
                "- bad_request: id must be a whole number from -2^53 to 2^53, or a string of at most 64 characters"
            ],
        );
    }

    #[test]
    fn an_unreadable_field_is_refused_by_name_and_an_unknown_one_ignored() {
        const REST: &str = "cannot be read: it must have whole characters, no half of a surrogate pair, \
             numbers within range and less than 128 levels";
        let deep = "[".repeat(5_000) + &"]".repeat(5_000);
        for (field, text) in [
            (
                "body",
                r#"{"type":"send","id":3,"session":"S","body":"cut \ud83c"}"#.to_owned(),
            ),
            (
                "body",
                r#"{"body":"\udf7f\ud83c","id":3,"type":"send"}"#.to_owned(),
            ),
            (
                "history",
                r#"{"type":"subscribe","id":3,"session":"S","history":1e999}"#.to_owned(),
            ),
            (
                "resume",
                format!(r#"{{"type":"subscribe","id":3,"session":"S","resume":{deep}}}"#),
            ),
        ] {
            let Err(DecodeError::Refused { id, refusal }) = decode(&text) else {
                panic!("{text}");
            };
            assert_eq!(id.as_ref().map(FrameId::as_json), Some("3"), "{text}");
            assert_eq!(refusal.message, format!("{field} {REST}"));
        }
        for unknown in [r#""\ud83c""#, "-1e999", &deep] {
            let text = format!(r#"{{"type":"ping","colour":{unknown},"id":3}}"#);
            assert!(decode(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_body_is_counted_in_characters() {
        assert!(Body::parse("🎬".repeat(BODY_CHARS_MAX)).is_ok());
        let refusal = Body::parse("a".repeat(BODY_CHARS_MAX + 1)).expect_err("too long");
        assert_eq!(refusal.code, RefusalCode::TooLarge);
    }

    #[test]
    fn a_text_that_is_no_object_is_its_own_error() {
        for text in ["", "[]", "7", "null", "{", "\"ping\"", &"[".repeat(10_000)] {
            assert_eq!(decode(text), Err(DecodeError::NotAnObject), "{text}");
        }
    }

    proptest! {
        #[test]
        fn decoding_any_text_does_not_panic(text in ".*") {
            let _ = decode(&text);
        }

        #[test]
        fn decoding_any_object_does_not_panic(kind in "auth|subscribe|send|vote|ping", key in "[a-z_]*", value in ".*") {
            let object = serde_json::json!({ "type": kind, "session": SESSION, (key): value });
            let _ = decode(&object.to_string());
        }
    }

    /// Decodes a frame and compares the result with the expected text; `S` stands for a UUID.
    fn check(text: &str, expected: Expect) {
        let show_id = |id: Option<FrameId>| id.map_or("-".to_owned(), |id| id.as_json().to_owned());
        let shown = match decode(&text.replace("\"S\"", &format!("\"{SESSION}\""))) {
            Ok(request) => format!("{} {:?}", show_id(request.id), request.frame),
            Err(DecodeError::NotAnObject) => "not an object".to_owned(),
            Err(DecodeError::Refused { id, refusal }) => {
                format!(
                    "{} {}: {}",
                    show_id(id),
                    refusal.code.as_str(),
                    refusal.message
                )
            }
        };
        expected.assert_eq(&shown.replace(SESSION, "S"));
    }
}

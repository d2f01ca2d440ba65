//! One batch of writes: the JSON for the functions of schema `usher`, and their answer.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::postgres::log_limiter::LogLimiter;
use crate::postgres::statement::may_pass;
use usher_core::auth::identity::Identity;
use usher_core::protocol::id::{MessageId, MovieId, Seq, SessionId, UserId, VotingId};
use usher_core::protocol::refusal::{Refusal, RefusalCode};
use usher_core::protocol::server::{Sent, Voted, WriteOutcome};
use usher_core::relay::message::Write;
use usher_core::relay::personal::OwnVote;

/// The kind of the writes in a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BatchKind {
    /// Chat messages.
    Messages,
    /// Votes.
    Votes,
}

/// One write of a batch.
pub(crate) struct BatchItem<'a> {
    /// The message or vote.
    pub(crate) write: &'a Write,
    /// The author of the message or vote.
    pub(crate) identity: &'a Identity,
    /// The nonce of a message. Votes do not use it.
    pub(crate) nonce: Uuid,
    /// Whether an earlier try, whose answer was lost, may have succeeded.
    pub(crate) is_again: bool,
}

#[derive(Serialize)]
struct ItemJson<'a> {
    role: &'static str,
    /// The token's payload, copied as it was signed.
    claims: &'a RawValue,
    #[serde(flatten)]
    what: WhatJson<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WhatJson<'a> {
    Message {
        session: SessionId,
        body: &'a str,
        nonce: Uuid,
        reply_to: Option<MessageId>,
    },
    Vote {
        voting: VotingId,
        movie: Option<MovieId>,
        again: bool,
    },
}

/// Returns the batch as a JSON array.
pub(crate) fn json<'a>(parts: impl Iterator<Item = BatchItem<'a>>) -> String {
    let items: Vec<ItemJson<'a>> = parts
        .map(|part| ItemJson {
            role: part.identity.role.as_str(),
            claims: serde_json::from_str(&part.identity.claims)
                .expect("a verified token's payload is JSON"),
            what: match part.write {
                Write::Message(message) => WhatJson::Message {
                    session: message.session,
                    body: message.body.as_str(),
                    nonce: part.nonce,
                    reply_to: message.reply_to,
                },
                Write::Vote(vote) => WhatJson::Vote {
                    voting: vote.voting,
                    movie: vote.movie,
                    again: part.is_again,
                },
            },
        })
        .collect();
    serde_json::to_string(&items).expect("ids, texts and JSON make JSON")
}

/// Returns whether one item can be the cause of a batch's error. A missing right or object would fail every item.
pub(crate) fn is_about_an_item(error: &tokio_postgres::Error) -> bool {
    // Not supported, invalid authorization, no such database or schema, syntax or access.
    const CLASSES: [&str; 5] = ["0A", "28", "3D", "3F", "42"];
    let state = error.code().map(|state| state.code());
    state.is_some_and(|state| !CLASSES.iter().any(|class| state.starts_with(class)))
}

/// Returns whether the database cannot read a single item. The gateway writes all of an item except the claims.
pub(crate) fn is_unreadable(error: &tokio_postgres::Error) -> bool {
    // Data that its type does not allow; nesting that is too deep.
    let state = error.code().map(|state| state.code());
    state.is_some_and(|state| state.starts_with("22") || state == "54001")
}

impl BatchKind {
    /// Returns the statement for a batch.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Messages => {
                "select b.item, b.seq, b.message, b.created, b.refusal, b.retry_after_ms, b.detail \
                 from usher.post_messages($1::jsonb) as b"
            }
            Self::Votes => {
                "select b.item, b.voting, b.movie, b.refusal, b.retry_after_ms, b.detail, \
                 case when b.refusal is null then usher.session_of(b.voting) end as session \
                 from usher.cast_votes($1::jsonb) as b"
            }
        }
    }

    /// Returns the outcome of a row without a refusal.
    pub(crate) fn done(self, row: &Row) -> WriteOutcome {
        match self {
            Self::Messages => WriteOutcome::Sent(Sent {
                seq: row
                    .get::<_, Option<i64>>("seq")
                    .and_then(|seq| u64::try_from(seq).ok())
                    .map(Seq),
                message: MessageId(row.get("message")),
                is_new: row.get("created"),
            }),
            Self::Votes => WriteOutcome::Voted(Voted {
                voting: VotingId(row.get("voting")),
                movie: row.get::<_, Option<Uuid>>("movie").map(MovieId),
            }),
        }
    }
}

impl BatchKind {
    /// Returns the vote of a row; `None` for a message, a refusal or a deleted poll.
    pub(crate) fn own_vote(self, row: &Row, user: UserId) -> Option<OwnVote> {
        let Self::Votes = self else {
            return None;
        };
        Some(OwnVote {
            user,
            session: SessionId(row.get::<_, Option<Uuid>>("session")?),
            voting: VotingId(row.get("voting")),
            movie: row.get::<_, Option<Uuid>>("movie").map(MovieId),
        })
    }
}

/// Returns the refusal of a row, if it has one.
pub(crate) fn refusal(row: &Row, log: &LogLimiter) -> Option<Refusal> {
    let name: &str = row.get::<_, Option<&str>>("refusal")?;
    let detail = row.get::<_, Option<&str>>("detail");
    let wait = row
        .get::<_, Option<i32>>("retry_after_ms")
        .and_then(|ms| u64::try_from(ms).ok())
        .map(Duration::from_millis);
    if name == RefusalCode::Internal.as_str() && detail.is_some_and(may_pass) {
        return Some(Refusal::unavailable());
    }
    let Some(code) = RefusalCode::parse(name).filter(|code| *code != RefusalCode::Internal) else {
        log.on_refusal(name, detail);
        return Some(Refusal::new(RefusalCode::Internal, "the write failed"));
    };
    let message = match (code, detail, wait) {
        (RefusalCode::BadRequest, Some("movie"), _) => {
            "movie must be on the ballot of the poll".to_owned()
        }
        (RefusalCode::BadRequest, Some(field), _) => format!("{field} is not valid here"),
        (RefusalCode::SlowMode, None, Some(wait)) => {
            let seconds = wait.as_millis().div_ceil(1_000);
            format!("wait {seconds} s before the next message")
        }
        (_, _, _) => default_message(code).to_owned(),
    };
    let refusal = Refusal::new(code, message);
    Some(match wait {
        Some(wait) => refusal.retry_in(wait),
        None => refusal,
    })
}

fn default_message(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::BadRequest => "a field is not as it should be",
        RefusalCode::Banned => "the author may not take part in this session",
        RefusalCode::Busy => "an open transaction locks what this needs",
        RefusalCode::Conflict => "this poll does not allow a vote to be changed",
        RefusalCode::Forbidden => "not allowed here",
        RefusalCode::Internal => "the write failed",
        RefusalCode::NotFound => "no such session or voting, or not for this caller",
        RefusalCode::RateLimited => "too many, slow down",
        RefusalCode::SessionEnded => "the session has ended",
        RefusalCode::SlowMode => "wait before the next message",
        RefusalCode::TooLarge => "larger than the limit",
        RefusalCode::Unauthorized => "a token is needed",
        RefusalCode::Unavailable => "try again",
        RefusalCode::VotingClosed => "the poll is not open",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use usher_core::protocol::client::{ClientFrame, decode};

    #[test]
    fn claims_are_spliced_and_not_read() {
        let identity = Identity {
            claims: r#"{"role": "authenticated",  "n": 1e999}"#.into(),
            ..Identity::anonymous()
        };
        let frame =
            r#"{"type":"vote","voting":"00000000-0000-0000-0000-000000000001","movie":null}"#;
        let ClientFrame::Vote(vote) = decode(frame).unwrap().frame else {
            panic!("a vote");
        };
        let part = BatchItem {
            write: &Write::Vote(vote),
            identity: &identity,
            nonce: Uuid::nil(),
            is_again: true,
        };
        assert_eq!(
            json([part].into_iter()),
            concat!(
                r#"[{"role":"anon","claims":{"role": "authenticated",  "n": 1e999},"#,
                r#""voting":"00000000-0000-0000-0000-000000000001","movie":null,"again":true}]"#
            )
        );
    }
}

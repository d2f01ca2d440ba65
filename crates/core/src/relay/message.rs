//! The messages between a peer, its router and the database.
//!
//! A peer emits [`Effect`]s. The shell passes each [`RouterRequest`] to the fan-out loop and each [`Query`] to the
//! database, unchanged, and hands the [`RouterReply`] and the [`QueryResult`] to the peer. `attempt` numbers the tries
//! of one subscription: the peer ignores a reply to an earlier try.

use crate::auth::identity::Identity;
use crate::protocol::client::{FrameId, NewMessage, NewVote};
use crate::protocol::id::{Seq, SessionId, UserId};
use crate::protocol::refusal::{CloseCode, Refusal};
use crate::protocol::server::{Frames, WriteOutcome};
use crate::relay::delivery::{Attached, CachedState, LogPage, Position, TurnKind};
use crate::relay::resume::{Grant, GrantVerdict};
use crate::relay::snapshot::{Access, Admission};
use crate::relay::start_point::StartOutcome;

/// A write that a client asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A chat message, from `send`.
    Message(NewMessage),
    /// A vote or its withdrawal, from `vote`.
    Vote(NewVote),
}

/// An action that the shell around a peer carries out.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names of the fields explain them")]
pub enum Effect {
    /// Sends the answer to a finished write.
    Answer(Frames),
    /// Counts how a subscription started.
    Began(StartOutcome),
    /// Sends the close frame and ends the connection.
    Close(CloseCode),
    /// Verifies a token. The shell reads no further frame from the client until it has passed on the result.
    Prove {
        id: Option<FrameId>,
        token: Box<str>,
    },
    /// Asks the database.
    Query(Query),
    /// Answers a frame with a refusal.
    Refuse {
        id: Option<FrameId>,
        refusal: Refusal,
    },
    /// Passes a request to the router.
    Router(RouterRequest),
    /// Sends a frame.
    Send(Frames),
    /// Writes to the database. The result carries the same ticket.
    Write {
        ticket: u32,
        author: UserId,
        write: Write,
        is_moderator: bool,
    },
}

/// A request of a peer to its router.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names of the fields explain them")]
pub enum RouterRequest {
    /// Delivers events from a position on.
    Attach {
        session: SessionId,
        attempt: u32,
        from: Position,
    },
    /// Records the user of the connection.
    Identify { user: Option<UserId> },
    /// Records the interest in a session, and judges the grant of a resume token.
    Join {
        session: SessionId,
        attempt: u32,
        user: Option<UserId>,
        grant: Option<Grant>,
    },
    /// Removes the interest in a session.
    Leave { session: SessionId },
    /// Sets whether the receiver sees hidden counts.
    SeesHidden {
        session: SessionId,
        sees_hidden: bool,
    },
}

/// A message of a router to a peer.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names of the fields explain them")]
pub enum RouterReply {
    /// Answers [`RouterRequest::Attach`].
    Attached {
        session: SessionId,
        attempt: u32,
        attached: Attached,
    },
    /// Answers [`RouterRequest::Join`]: the interest is recorded.
    Joined {
        session: SessionId,
        attempt: u32,
        cached: Option<Box<CachedState>>,
        /// Whether the grant is still valid; `None` if the request had none.
        grant: Option<GrantVerdict>,
        viewers: u64,
    },
    /// Reports a change of a subscription that the peer did not request.
    Turned {
        session: SessionId,
        attempt: u32,
        turn: TurnKind,
    },
}

/// A query of a peer to the database.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names of the fields explain them")]
pub enum Query {
    /// Reads whether the peer may watch the session, and its other permissions.
    Admit { session: SessionId, attempt: u32 },
    /// Reads the permissions again: at the regular interval, or urgently because they may have changed.
    CheckAccess {
        session: SessionId,
        attempt: u32,
        is_urgent: bool,
    },
    /// Reads the events after a position.
    ReadPage {
        session: SessionId,
        attempt: u32,
        after: Seq,
    },
}

impl Query {
    /// Returns the session and the attempt of the subscription that asked.
    #[must_use]
    pub fn subscription(&self) -> (SessionId, u32) {
        match self {
            Self::Admit { session, attempt }
            | Self::CheckAccess {
                session, attempt, ..
            }
            | Self::ReadPage {
                session, attempt, ..
            } => (*session, *attempt),
        }
    }
}

/// The result of a query, a token check or a write. `answer` or `page` is `None` if the database could not be reached.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names of the fields explain them")]
pub enum QueryResult {
    /// Answers [`Query::Admit`].
    Admitted {
        session: SessionId,
        attempt: u32,
        answer: Option<Result<Admission, Refusal>>,
    },
    /// Answers [`Query::CheckAccess`].
    Checked {
        session: SessionId,
        attempt: u32,
        answer: Option<Result<Access, Refusal>>,
    },
    /// Answers [`Query::ReadPage`].
    Page {
        session: SessionId,
        attempt: u32,
        page: Option<LogPage>,
    },
    /// Answers [`Effect::Prove`].
    Proven {
        id: Option<FrameId>,
        outcome: Result<Identity, Refusal>,
    },
    /// Answers [`Effect::Write`].
    Written {
        ticket: u32,
        outcome: Result<WriteOutcome, Refusal>,
    },
}

impl QueryResult {
    /// Whether it answers a [`Query`], rather than a token check or a write.
    #[must_use]
    pub fn is_to_query(&self) -> bool {
        matches!(
            self,
            Self::Admitted { .. } | Self::Checked { .. } | Self::Page { .. }
        )
    }
}

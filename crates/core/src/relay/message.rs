//! The messages between a peer, its router and the database.
//!
//! A peer emits [`Effect`]s. The shell passes each [`RouterRequest`] to the fan-out loop and each [`Query`] to the
//! database, unchanged, and hands the [`RouterReply`] and the [`QueryResult`] to the peer. An `attempt` tells the tries of
//! one subscription apart: the peer ignores a reply to an earlier try.

use bytes::Bytes;

use crate::auth::identity::Identity;
use crate::protocol::client::FrameId;
use crate::protocol::id::{Seq, SessionId, UserId};
use crate::protocol::refusal::{CloseCode, Refusal};
use crate::protocol::server::WriteOutcome;
use crate::relay::peer::Write;
use crate::relay::resume::{Grant, GrantVerdict};
use crate::relay::router::{Attached, CachedState, LogPage, Position, TurnKind};
use crate::relay::snapshot::{Access, Admission};
use crate::relay::start_point::StartOutcome;

/// What the shell around a peer does next.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after what they are")]
pub enum Effect {
    /// Sends the answer to a write that is done.
    Answer(Bytes),
    /// Counts how a subscription began.
    Began(StartOutcome),
    /// Sends the close frame and ends.
    Close(CloseCode),
    /// Verifies a token. The shell reads nothing more from the client before it passes on the result.
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
    Send(Bytes),
    /// Writes to the database; the result names the ticket.
    Write {
        ticket: u32,
        author: UserId,
        write: Write,
        is_moderator: bool,
    },
}

/// What a peer asks of its router.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after what they are")]
pub enum RouterRequest {
    /// Deliver from a position on.
    Attach {
        session: SessionId,
        attempt: u32,
        from: Position,
    },
    /// Note which user is behind the connection.
    Identify { user: Option<UserId> },
    /// Note the interest in a session, and judge a resume token's grant.
    Join {
        session: SessionId,
        attempt: u32,
        user: Option<UserId>,
        grant: Option<Grant>,
    },
    /// Forget the interest.
    Leave { session: SessionId },
    /// Show or hide hidden counts.
    SeesHidden {
        session: SessionId,
        sees_hidden: bool,
    },
}

/// What a router tells a peer.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after what they are")]
pub enum RouterReply {
    /// To [`RouterRequest::Attach`].
    Attached {
        session: SessionId,
        attempt: u32,
        attached: Attached,
    },
    /// To [`RouterRequest::Join`]: the interest is noted.
    Joined {
        session: SessionId,
        attempt: u32,
        cached: Option<Box<CachedState>>,
        /// Whether the grant still holds; `None` without one.
        grant: Option<GrantVerdict>,
        viewers: u64,
    },
    /// Something happened to a subscription without a request.
    Turned {
        session: SessionId,
        attempt: u32,
        turn: TurnKind,
    },
}

/// What a peer asks of the database.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after what they are")]
pub enum Query {
    /// May the peer watch the session, and what else may it do?
    Admit { session: SessionId, attempt: u32 },
    /// May it still? Asked in turn, or soon if something changed.
    CheckAccess {
        session: SessionId,
        attempt: u32,
        is_urgent: bool,
    },
    /// Which events follow a position?
    ReadPage {
        session: SessionId,
        attempt: u32,
        after: Seq,
    },
}

impl Query {
    /// The subscription that it is about, and which of its tries.
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

/// What came of a query, a token or a write. An answer is `None` if the database could not be asked.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after what they are")]
pub enum QueryResult {
    /// To [`Query::Admit`].
    Admitted {
        session: SessionId,
        attempt: u32,
        answer: Option<Result<Admission, Refusal>>,
    },
    /// To [`Query::CheckAccess`].
    Checked {
        session: SessionId,
        attempt: u32,
        answer: Option<Result<Access, Refusal>>,
    },
    /// To [`Query::ReadPage`].
    Page {
        session: SessionId,
        attempt: u32,
        page: Option<LogPage>,
    },
    /// To [`Effect::Prove`].
    Proven {
        id: Option<FrameId>,
        outcome: Result<Identity, Refusal>,
    },
    /// To [`Effect::Write`].
    Written {
        ticket: u32,
        outcome: Result<WriteOutcome, Refusal>,
    },
}

impl QueryResult {
    /// Whether it answers a [`Query`], and not a token or a write.
    #[must_use]
    pub fn is_to_query(&self) -> bool {
        matches!(
            self,
            Self::Admitted { .. } | Self::Checked { .. } | Self::Page { .. }
        )
    }
}

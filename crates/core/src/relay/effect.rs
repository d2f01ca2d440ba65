//! What a peer wants done.

use bytes::Bytes;

use crate::protocol::client::FrameId;
use crate::protocol::id::{Seq, SessionId, UserId};
use crate::protocol::refusal::{CloseCode, Refusal};
use crate::relay::peer::Write;
use crate::relay::resume::Grant;
use crate::relay::router::Position;
use crate::relay::start_point::StartOutcome;

/// What the shell around a peer shall do. An `attempt` goes back with the answer.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after what they are")]
pub enum Effect {
    /// Ask the database what the peer may do in a session.
    Admit { session: SessionId, attempt: u32 },
    /// Send the answer to a write that is done.
    Answer(Bytes),
    /// Ask the router to deliver from a position on.
    Attach {
        session: SessionId,
        attempt: u32,
        from: Position,
    },
    /// Count how a subscription began.
    Began(StartOutcome),
    /// Ask the database whether the peer may still do what it may: in turn, or soon, where something has changed.
    CheckAccess {
        session: SessionId,
        attempt: u32,
        is_urgent: bool,
    },
    /// Send the close frame and end.
    Close(CloseCode),
    /// Tell the router who is behind the connection.
    Identify { user: Option<UserId> },
    /// Tell the router of an interest.
    Join {
        session: SessionId,
        attempt: u32,
        grant: Option<Grant>,
    },
    /// Tell the router that it is gone.
    Leave { session: SessionId },
    /// Ask who the bearer of a token is. Nothing more is taken from the client before [`crate::relay::peer::Peer::on_proven`].
    Prove {
        id: Option<FrameId>,
        token: Box<str>,
    },
    /// Read a page of the log.
    ReadPage {
        session: SessionId,
        attempt: u32,
        after: Seq,
    },
    /// Answer a frame with a refusal.
    Refuse {
        id: Option<FrameId>,
        refusal: Refusal,
    },
    /// Tell the router whether hidden counts are shown.
    SeesHidden {
        session: SessionId,
        sees_hidden: bool,
    },
    /// Send a frame.
    Send(Bytes),
    /// Write to the database; the answer names the ticket.
    Write {
        ticket: u32,
        author: UserId,
        write: Write,
        is_moderator: bool,
    },
}

//! The values that pass between a router and its shell: positions, log pages, reads of the log, changes of
//! subscriptions, and the sink for bytes.

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::id::{MovieId, Seq, SessionId, VotingId};
use crate::protocol::notify::Event;
use crate::protocol::server::{Frames, StartReason};
use crate::relay::PeerId;
use crate::relay::snapshot::Snapshot;

/// Accepts frames for receivers.
pub trait Sink {
    /// Offers frames to a receiver. Returns false if the receiver can take nothing at the moment; then nothing was
    /// taken. The receiver reports when it can take frames again, and
    /// [`Router::catch_up`](crate::relay::router::Router::catch_up) continues from its cursor.
    fn offer(&mut self, peer: PeerId, frames: &Frames) -> bool;
}

/// A read of the log: the events after `after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refill {
    /// The session whose log to read.
    pub session: SessionId,
    /// Returns with the page, so that the router ignores a page for a session that it forgot or restarted since.
    pub(crate) generation: u64,
    /// The position to read from: usually the newest stored number.
    pub after: Seq,
    /// The reason for the read, for the metrics.
    pub cause: RefillCause,
}

/// The reason for a read of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefillCause {
    /// A notification skipped numbers.
    Gap,
    /// The last page was not the last of the log, or notifications arrived while it was read.
    More,
    /// A notification had the next number but not the event, because the event is too large.
    Oversized,
    /// The LISTEN connection was lost and is restored.
    Resync,
    /// A notification's event differs from the stored one with the same number.
    Conflict,
}

/// A page of a session's log.
#[derive(Clone, Debug)]
pub struct LogPage {
    /// The epoch that the page was read in.
    pub epoch: String,
    /// The newest number when the page was read.
    pub head: Seq,
    /// The number before the log's oldest event.
    pub floor: Seq,
    /// Consecutive events after the requested position.
    pub events: Vec<Event>,
}

/// A change of a receiver's subscription that the receiver did not request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The receiver's connection.
    pub peer: PeerId,
    /// The session of the subscription.
    pub session: SessionId,
    /// The subscription's attempt.
    pub attempt: u32,
    /// The kind of change.
    pub kind: TurnKind,
}

/// The kinds of changes that a receiver does not request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnKind {
    /// The ring moved past the receiver's position: read the log from there.
    Behind(Seq),
    /// The receiver's numbers are invalid: start over.
    Lost(StartReason),
    /// Permissions may have changed: check the access again.
    Recheck,
    /// As [`Self::Recheck`], after a delay, so that many receivers do not ask the database together.
    RecheckLater(Duration),
    /// The receiver's user voted, on this socket or another.
    OwnVote(VotingId, Option<MovieId>),
}

/// The remembered state of a session that is already watched here.
#[derive(Clone, Debug)]
pub struct CachedState {
    /// The snapshot for a new subscriber.
    pub(crate) snapshot: Arc<Snapshot>,
    /// The lowest position that a subscriber can continue from without reading the log.
    pub(crate) reach: Seq,
    /// The newest stored number.
    pub(crate) head: Seq,
}

/// The position that a receiver wants to continue from.
#[derive(Clone, Debug)]
pub struct Position {
    /// The number of the receiver's last event.
    pub seq: Seq,
    /// The epoch of that number.
    pub epoch: Box<str>,
    /// The snapshot of the receiver's admission; `None` if it does not come from one.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Whether the receiver sees hidden counts.
    pub sees_hidden: bool,
}

/// The answer to an attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The receiver is live: every event after its position was delivered or will be.
    Live,
    /// The ring does not reach back to the position: read a page of the log and try again.
    Behind,
    /// The position's epoch is not the router's epoch, or the router does not know the receiver: try again later.
    Stale,
}

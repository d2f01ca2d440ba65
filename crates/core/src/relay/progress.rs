//! How far a subscription has come.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::protocol::id::Seq;
use crate::protocol::notify::Event;
use crate::relay::snapshot::Snapshot;
use crate::relay::start_point::Start;

/// Whether a subscription goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It does.
    Stay,
    /// It is over and was said to be.
    End,
    /// It is over because access was withdrawn.
    Withdrawn,
}

/// What a subscription waits for.
#[derive(Debug)]
pub(crate) enum State {
    /// The router was told of the interest.
    Joining(Box<Start>),
    /// The database was asked.
    Authorizing(Box<Start>),
    /// A page of the log was asked for.
    CatchingUp(Box<CatchUp>),
    /// The router was asked to go on from a position.
    Attaching(Box<CatchUp>),
    /// The router delivers.
    Live,
    /// The database had no answer; asks again at a time.
    Waiting { until: Instant, next: Retry },
}

/// What is tried again.
#[derive(Debug)]
pub(crate) enum Retry {
    Start(Box<Start>),
    Page(Box<CatchUp>),
}

/// How far a subscription has come.
#[derive(Debug)]
pub(crate) struct CatchUp {
    pub(crate) position: Seq,
    /// What the admission read, for the router to remember; without one after a page that followed being live.
    pub(crate) snapshot: Option<Arc<Snapshot>>,
}

impl State {
    /// Whether an answer of the router to a join is awaited.
    pub(crate) fn is_joining(&self) -> bool {
        matches!(self, Self::Joining(_))
    }

    /// Whether a page of the log is awaited.
    pub(crate) fn is_catching_up(&self) -> bool {
        matches!(self, Self::CatchingUp(_))
    }

    /// Whether an answer of the router to a wish to go on is awaited.
    pub(crate) fn is_attaching(&self) -> bool {
        matches!(self, Self::Attaching(_))
    }

    /// Whether the subscriber is yet to be told where it begins, or begins anew.
    pub(crate) fn is_beginning(&self) -> bool {
        matches!(
            self,
            Self::Joining(_)
                | Self::Authorizing(_)
                | Self::Waiting {
                    next: Retry::Start(_),
                    ..
                }
        )
    }
}

impl CatchUp {
    /// Takes the events of a page that follow the position without a gap, and moves on. A trim may have taken others.
    pub(crate) fn take<'a>(&mut self, events: &'a [Event]) -> Vec<&'a Bytes> {
        let follows = |event: &&Event| {
            let is_next = event.seq == self.position.next();
            if is_next {
                self.position = event.seq;
            }
            is_next
        };
        let events = events.iter().take_while(follows);
        events.map(|event| &event.json).collect()
    }
}

//! The states of a subscription, from joining to live.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::protocol::id::Seq;
use crate::protocol::notify::Event;
use crate::relay::snapshot::Snapshot;
use crate::relay::start_point::Start;

/// Whether a subscription continues after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It continues, perhaps in another state.
    Stay,
    /// It has ended, and the client has its answer.
    End,
    /// It has ended because access was withdrawn.
    Withdrawn,
}

/// The answer that a subscription waits for.
#[derive(Debug)]
pub(crate) enum SubscriptionState {
    /// The router's answer to `Join`.
    Joining(Box<Start>),
    /// The database's answer to `Admit`.
    Authorizing(Box<Start>),
    /// A page of the log.
    CatchingUp(Box<CatchUp>),
    /// The router's answer to `Attach`.
    Attaching(Box<CatchUp>),
    /// None: the router delivers events.
    Live,
    /// The time of the next try, after the database or the router had no answer.
    Waiting { until: Instant, next: Retry },
}

/// The step to try again.
#[derive(Debug)]
pub(crate) enum Retry {
    Start(Box<Start>),
    Page(Box<CatchUp>),
}

/// The position that a subscription has reached, and the snapshot that it started from.
#[derive(Debug)]
pub(crate) struct CatchUp {
    pub(crate) position: Seq,
    /// The snapshot of the admission, for the router to remember. `None` if a live subscription fell behind and
    /// reads pages again.
    pub(crate) snapshot: Option<Arc<Snapshot>>,
}

impl SubscriptionState {
    /// Whether the subscription waits for the router's answer to `Join`.
    pub(crate) fn is_joining(&self) -> bool {
        matches!(self, Self::Joining(_))
    }

    /// Whether the subscription waits for a page of the log.
    pub(crate) fn is_catching_up(&self) -> bool {
        matches!(self, Self::CatchingUp(_))
    }

    /// Whether the subscription waits for the router's answer to `Attach`.
    pub(crate) fn is_attaching(&self) -> bool {
        matches!(self, Self::Attaching(_))
    }

    /// Whether the client still waits for `subscribed` or `reset`.
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
    /// Returns the events of a page that follow the position without a gap, and moves the position past them. It stops
    /// at a gap, which a trim of the log can cause.
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

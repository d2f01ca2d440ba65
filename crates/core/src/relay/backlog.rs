//! A run of events for a receiver that is behind, as one frame.

use bytes::Bytes;

use crate::limits::RUN_BYTES_MAX;
use crate::protocol::id::{Seq, SessionId};
use crate::protocol::server;

/// Consecutive events as they go to one receiver that is behind. A bounded part of what it lacks: what a socket does not
/// take is kept until it does.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// The position before its first event.
    pub(crate) from: Seq,
    /// The number of its last event.
    pub(crate) to: Seq,
    /// The frame.
    pub(crate) bytes: Bytes,
}

impl Backlog {
    /// Takes as many of the events after a position as fit, at least one.
    pub(crate) fn new<'a>(
        session: SessionId,
        from: Seq,
        rest: impl Iterator<Item = &'a Bytes> + Clone,
    ) -> Self {
        let mut bytes = 0;
        let fits = |event: &&Bytes| {
            bytes += event.len();
            bytes <= RUN_BYTES_MAX || bytes == event.len()
        };
        let count = rest.clone().take_while(fits).count();
        Self {
            from,
            to: Seq(from.0 + count as u64),
            bytes: server::events(session, rest.take(count)),
        }
    }
}

//! Encodes consecutive events for a receiver that is behind.

use bytes::Bytes;

use crate::limits::RUN_BYTES_MAX;
use crate::protocol::id::{Seq, SessionId};
use crate::protocol::server::{self, Frames};

/// Consecutive events for a receiver that is behind, encoded as one run of bytes. It has at most [`RUN_BYTES_MAX`] bytes
/// of events, or one larger event, so a receiver that is far behind gets several backlogs.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// The position before the first event.
    pub(crate) from: Seq,
    /// The number of the last event.
    pub(crate) to: Seq,
    /// The events.
    pub(crate) frames: Frames,
}

impl Backlog {
    /// Takes as many events after a position as fit into [`RUN_BYTES_MAX`], at least one.
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
            frames: server::events(session, from, rest.take(count)),
        }
    }
}

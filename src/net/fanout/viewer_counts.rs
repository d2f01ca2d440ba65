//! Counts the subscriptions of each session on this node, over all fan-out loops.

use dashmap::DashMap;
use rustc_hash::FxBuildHasher;

use usher_core::protocol::id::SessionId;

/// The counts. Never held over an await.
#[derive(Debug, Default)]
pub(crate) struct ViewerCounts {
    counts: DashMap<SessionId, u64, FxBuildHasher>,
}

impl ViewerCounts {
    pub(crate) fn enter(&self, session: SessionId) {
        *self.counts.entry(session).or_insert(0) += 1;
    }

    pub(crate) fn leave(&self, session: SessionId) {
        if let Some(mut count) = self.counts.get_mut(&session) {
            *count = count.saturating_sub(1);
        }
        self.counts.remove_if(&session, |_, count| *count == 0);
    }

    #[must_use]
    pub(crate) fn count(&self, session: SessionId) -> u64 {
        self.counts.get(&session).map_or(0, |count| *count)
    }

    /// The number of sessions with a subscription.
    #[must_use]
    pub(crate) fn sessions(&self) -> usize {
        self.counts.len()
    }
}

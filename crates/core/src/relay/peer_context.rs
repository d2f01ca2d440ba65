//! What every step of a subscription knows about its peer: who it is, what holds for it, and when it happens.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::identity::Identity;
use crate::relay::peer::{Moment, Rules};
use crate::relay::resume::ResumeKey;

/// What every step of a subscription needs to know about its peer.
#[derive(Debug)]
pub(crate) struct PeerContext<'a> {
    /// Who the peer is.
    pub(crate) identity: &'a Arc<Identity>,
    /// Seals resume tokens.
    pub(crate) key: &'a ResumeKey,
    /// How long they live.
    pub(crate) resume_ttl: Duration,
    /// How old an admission may be before the database is asked again.
    pub(crate) access_check: Duration,
    /// Another for each peer: spreads over time what all of them do.
    pub(crate) seed: u64,
    /// The time.
    pub(crate) now: Moment,
}

impl<'a> PeerContext<'a> {
    /// What a peer knows of itself at a time.
    #[must_use]
    pub(crate) fn new(
        identity: &'a Arc<Identity>,
        rules: &'a Rules,
        seed: u64,
        now: Moment,
    ) -> Self {
        Self {
            identity,
            key: &rules.resume_key,
            resume_ttl: rules.resume_ttl,
            access_check: rules.access_check,
            seed,
            now,
        }
    }

    /// When access is checked next after it was: in the last quarter of the interval, each peer at another time.
    #[must_use]
    pub(crate) fn next_check(&self) -> Duration {
        self.access_check * 3 / 4 + self.part_of(self.access_check / 4)
    }

    /// A part of a time, another for each peer and moment.
    #[must_use]
    pub(crate) fn part_of(&self, time: Duration) -> Duration {
        // Consecutive numbers land far from each other (Fibonacci hashing).
        let mixed = (self.seed ^ self.now.unix_ms).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let part = u32::try_from(mixed >> 32).unwrap_or_default();
        time.mul_f64(f64::from(part) / f64::from(u32::MAX))
    }
}

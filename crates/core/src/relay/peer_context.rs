//! The facts about a peer that every step of its subscriptions needs: identity, rules and the time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::auth::identity::Identity;
use crate::relay::resume::ResumeKey;

/// The current time on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The monotonic clock, for deadlines.
    pub at: Instant,
    /// The wall clock, for tokens: milliseconds since 1970.
    pub unix_ms: u64,
}

/// The settings that all peers of a gateway share.
#[derive(Debug)]
pub struct Rules {
    /// Seals and opens resume tokens.
    pub resume_key: ResumeKey,
    /// The lifetime of a resume token.
    pub resume_ttl: Duration,
    /// The interval between pings. A client that is silent for two intervals is closed.
    pub heartbeat: Duration,
    /// Whether clients without a token may watch.
    pub allow_anonymous: bool,
    /// The age at which an admission is checked again with the database.
    pub access_check: Duration,
}

/// The facts about a peer that every step of its subscriptions needs.
#[derive(Debug)]
pub(crate) struct PeerContext<'a> {
    /// The peer's identity.
    pub(crate) identity: &'a Arc<Identity>,
    /// Seals and opens resume tokens.
    pub(crate) key: &'a ResumeKey,
    /// The lifetime of a resume token.
    pub(crate) resume_ttl: Duration,
    /// The age at which an admission is checked again with the database.
    pub(crate) access_check: Duration,
    /// Differs from peer to peer, so that peers spread their queries over time.
    pub(crate) seed: u64,
    pub(crate) now: Moment,
}

impl<'a> PeerContext<'a> {
    /// Combines a peer's identity with the gateway's rules and the time.
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

    /// Returns the delay until the next access check. It falls in the last quarter of the interval and differs from
    /// peer to peer.
    #[must_use]
    pub(crate) fn next_check(&self) -> Duration {
        self.access_check * 3 / 4 + self.part_of(self.access_check / 4)
    }

    /// Returns a part of a duration that differs from peer to peer and from moment to moment.
    #[must_use]
    pub(crate) fn part_of(&self, time: Duration) -> Duration {
        // Consecutive numbers land far from each other (Fibonacci hashing).
        let mixed = (self.seed ^ self.now.unix_ms).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let part = u32::try_from(mixed >> 32).unwrap_or_default();
        time.mul_f64(f64::from(part) / f64::from(u32::MAX))
    }
}

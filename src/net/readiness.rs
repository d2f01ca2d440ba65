//! Whether a new viewer would be served, and whether the process makes progress.
//!
//! The database is looked at once a second, however often somebody asks: an open port must not be a way to load it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::limits::{LOOP_SILENCE_MAX, READINESS_INTERVAL, READINESS_TIMEOUT};
use crate::postgres::store::{Store, StoreError};
use usher_core::relay::peer_context::Moment;

/// What the database is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DatabaseState {
    /// It answers.
    pub(crate) answers: bool,
    /// It has the functions that the gateway calls, and lets it call them.
    pub(crate) is_migrated: bool,
}

/// What a new viewer needs, one by one. It is served when and only when all hold.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Checks {
    /// The database answers.
    pub(crate) database: bool,
    /// The database has what the gateway calls.
    pub(crate) migrations: bool,
    /// The LISTEN connection hears.
    pub(crate) listen: bool,
    /// There are keys to verify tokens with.
    pub(crate) keys: bool,
    /// Every fan-out loop takes its turns.
    pub(crate) loops: bool,
    /// There is room for another socket.
    pub(crate) room: bool,
    /// The gateway is not about to stop.
    pub(crate) serving: bool,
}

impl Checks {
    /// Whether all hold.
    #[must_use]
    pub(crate) fn are_good(&self) -> bool {
        self.database
            && self.migrations
            && self.listen
            && self.keys
            && self.loops
            && self.room
            && self.serving
    }
}

/// Looks at the database until the gateway stops.
pub(crate) async fn watch_database(
    store: Store,
    state: watch::Sender<DatabaseState>,
    stop: CancellationToken,
) {
    let mut tick = interval(READINESS_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        // Cancel-safe: a question that is given up leaves its connection to the pool, which tests it before use.
        let seen = match timeout(READINESS_TIMEOUT, store.is_migrated()).await {
            Ok(Ok(is_migrated)) => {
                store.log().on_schema(is_migrated);
                DatabaseState {
                    answers: true,
                    is_migrated,
                }
            }
            Ok(Err(error)) => {
                if !matches!(error, StoreError::Unavailable(_)) {
                    store.log().on_failure("readiness", &error);
                }
                DatabaseState::default()
            }
            Err(_) => DatabaseState::default(),
        };
        state.send_replace(seen);
    }
}

/// The sign of life of a fan-out loop.
#[derive(Debug)]
pub(crate) struct Pulse {
    beat_ms: AtomicU64,
}

impl Pulse {
    /// Alive as of now.
    #[must_use]
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            beat_ms: AtomicU64::new(now.unix_ms),
        }
    }

    /// Takes a turn.
    pub(crate) fn beat(&self, now: Moment) {
        self.beat_ms.store(now.unix_ms, Ordering::Relaxed);
    }

    /// Whether a turn was taken not long ago.
    #[must_use]
    pub(crate) fn is_felt(&self, now: Moment) -> bool {
        let silence = now
            .unix_ms
            .saturating_sub(self.beat_ms.load(Ordering::Relaxed));
        Duration::from_millis(silence) <= LOOP_SILENCE_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::moment;

    #[test]
    fn a_loop_that_takes_no_turn_is_not_felt() {
        let now = moment();
        let pulse = Pulse::new(now);
        let later = |delay: Duration| Moment {
            unix_ms: now.unix_ms + u64::try_from(delay.as_millis()).unwrap(),
            ..now
        };
        let after = later(LOOP_SILENCE_MAX + Duration::from_millis(1));
        assert!(pulse.is_felt(later(LOOP_SILENCE_MAX)) && !pulse.is_felt(after));
        pulse.beat(after);
        assert!(pulse.is_felt(after));
    }
}

//! The clock of the gateway and its commands. No other file of this crate reads the time of day.
//!
//! The core gets the time as an argument. Timers use `tokio::time`, which tests can pause.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::{Interval, MissedTickBehavior, interval};

use usher_core::protocol::ms;
use usher_core::relay::peer_context::Moment;

/// Reads the monotonic clock and the time of day.
#[expect(
    clippy::disallowed_methods,
    reason = "the shells read the clock here and nowhere else"
)]
pub(crate) fn moment() -> Moment {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Moment {
        at: Instant::now(),
        unix_ms: ms(since_1970),
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    moment().unix_ms / 1_000
}

/// Ticks immediately, then every `period`. A late tick delays all later ones.
pub(crate) fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

//! The clock of the load tester. No other file of this crate reads the time of day.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Counts the microseconds since a run began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one clock of the load tester"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now_us(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(crate) fn at(self, us: u64) -> Instant {
        self.0 + Duration::from_micros(us)
    }
}

/// Seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one clock of the load tester"
)]
pub(crate) fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

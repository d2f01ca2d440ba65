//! The clock that publisher and viewers of a run share: microseconds since its creation.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(crate) fn now_us(self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Returns the time until `then_us`, or zero if it has passed.
    pub(crate) fn until(self, then_us: u64) -> Duration {
        Duration::from_micros(then_us.saturating_sub(self.now_us()))
    }
}

/// Truncates a number to its integer part.
#[expect(
    clippy::cast_possible_truncation,
    reason = "microseconds and messages of a run are far below 2^53"
)]
pub(crate) fn whole(number: f64) -> u64 {
    number as u64
}

//! How much one socket may say.

use std::num::NonZero;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::config::rates::{Rate, Rates};
use crate::limits::{FLOOD_REFUSALS_MAX, FLOOD_WINDOW};
use crate::server::throttle::{ms_rounded_up, quota};

type Limiter = RateLimiter<
    NotKeyed,
    InMemoryState,
    MonotonicClock,
    NoOpMiddleware<<MonotonicClock as Clock>::Instant>,
>;

/// What one socket has used of its rates.
#[derive(Debug)]
pub struct Meter {
    frames: Option<Limiter>,
    bytes: Option<Limiter>,
    joins: Option<Limiter>,
    refusals: Limiter,
}

impl Meter {
    /// Nothing is used.
    #[must_use]
    pub fn new(rates: &Rates) -> Self {
        let limiter = |rate: Option<Rate>| rate.map(|rate| direct(quota(rate)));
        let refusals = Rate {
            count: FLOOD_REFUSALS_MAX,
            period: FLOOD_WINDOW,
        };
        Self {
            frames: limiter(rates.frames),
            bytes: limiter(rates.bytes),
            joins: limiter(rates.joins),
            refusals: direct(quota(refusals)),
        }
    }

    /// Lets a frame pass, or says how long to wait, in milliseconds.
    ///
    /// # Errors
    /// The time to wait.
    pub fn frame(&self, text: &str) -> Result<(), u64> {
        let size = u32::try_from(text.len()).unwrap_or(u32::MAX);
        check(self.frames.as_ref(), 1)?;
        check(self.bytes.as_ref(), size)?;
        // A quote within a JSON string has a backslash before it, so no message is taken for a subscribe frame.
        if text.contains(r#""subscribe""#) {
            check(self.joins.as_ref(), 1)?;
        }
        Ok(())
    }

    /// Something was refused for its rate. False where the client goes on regardless.
    #[must_use]
    pub fn forgives(&self) -> bool {
        self.refusals.check().is_ok()
    }
}

fn direct(quota: Quota) -> Limiter {
    RateLimiter::direct_with_clock(quota, MonotonicClock)
}

fn check(limiter: Option<&Limiter>, amount: u32) -> Result<(), u64> {
    let (Some(limiter), Some(amount)) = (limiter, NonZero::new(amount)) else {
        return Ok(());
    };
    match limiter.check_n(amount) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(not_until)) => Err(ms_rounded_up(
            not_until.wait_time_from(MonotonicClock.now()),
        )),
        // No setting is below the largest frame.
        Err(_) => Ok(()),
    }
}

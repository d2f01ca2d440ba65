//! Limits the inbound frames and bytes of one socket.

use std::num::NonZero;
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::config::rates::{Rate, Rates};
use crate::limits::{FLOOD_REFUSALS_MAX, FLOOD_WINDOW};
use crate::net::admission::rate_limits::quota;
use usher_core::protocol::client::{ClientFrame, DecodeError, Request};

type Limiter = RateLimiter<
    NotKeyed,
    InMemoryState,
    MonotonicClock,
    NoOpMiddleware<<MonotonicClock as Clock>::Instant>,
>;

/// The rate limiters of one socket.
#[derive(Debug)]
pub(crate) struct SocketLimits {
    frames: Option<Limiter>,
    bytes: Option<Limiter>,
    joins: Option<Limiter>,
    refusals: Limiter,
}

impl SocketLimits {
    /// Starts with full allowances.
    #[must_use]
    pub(crate) fn new(rates: &Rates) -> Self {
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

    /// Lets a text frame of so many bytes pass, or says how long to wait.
    ///
    /// # Errors
    /// The time to wait.
    pub(crate) fn frame(
        &self,
        bytes: usize,
        frame: &Result<Request, DecodeError>,
    ) -> Result<(), Duration> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        check(self.frames.as_ref(), 1)?;
        check(self.bytes.as_ref(), bytes)?;
        match frame {
            Ok(request) if matches!(request.frame, ClientFrame::Subscribe(_)) => {
                check(self.joins.as_ref(), 1)
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Lets a ping or a pong pass, or says how long to wait.
    ///
    /// # Errors
    /// The time to wait.
    pub(crate) fn control_frame(&self) -> Result<(), Duration> {
        check(self.frames.as_ref(), 1)
    }

    /// Counts a refusal for a rate. Returns false if the client has continued in spite of many.
    #[must_use]
    pub(crate) fn forgives(&self) -> bool {
        self.refusals.check().is_ok()
    }
}

fn direct(quota: Quota) -> Limiter {
    RateLimiter::direct_with_clock(quota, MonotonicClock)
}

fn check(limiter: Option<&Limiter>, amount: u32) -> Result<(), Duration> {
    let (Some(limiter), Some(amount)) = (limiter, NonZero::new(amount)) else {
        return Ok(());
    };
    match limiter.check_n(amount) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(not_until)) => Err(not_until.wait_time_from(MonotonicClock.now())),
        // Unreachable: every accepted setting is at least the largest frame.
        Err(_) => Ok(()),
    }
}

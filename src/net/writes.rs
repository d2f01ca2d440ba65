//! Writes messages and votes within the rate limits of their authors.

use std::sync::Arc;
use std::time::Instant;

use crate::clock::moment;
use crate::metrics::Metrics;
use crate::net::admission::rate_limits::{Passed, RateLimits};
use crate::postgres::batcher::Writer;
use usher_core::auth::identity::Identity;
use usher_core::protocol::id::UserId;
use usher_core::protocol::refusal::Refusal;
use usher_core::protocol::server::WriteOutcome;
use usher_core::relay::message::Write;

/// Checks rate limits and writes to the database.
#[derive(Debug)]
pub(crate) struct Writes {
    writer: Writer,
    rate_limits: Arc<RateLimits>,
    metrics: Arc<Metrics>,
}

impl Writes {
    #[must_use]
    pub(crate) fn new(writer: Writer, rate_limits: Arc<RateLimits>, metrics: Arc<Metrics>) -> Self {
        Self {
            writer,
            rate_limits,
            metrics,
        }
    }

    /// Checks the rate limits. [`Self::write`] takes the proof.
    ///
    /// # Errors
    /// `rate_limited`, with the time to wait.
    pub(crate) fn admit(
        &self,
        author: UserId,
        write: &Write,
        is_moderator: bool,
        now: Instant,
    ) -> Result<Passed, Refusal> {
        self.rate_limits.admit(author, write, is_moderator, now)
    }

    /// Writes and waits for the commit.
    ///
    /// # Errors
    /// The refusal of the database, or `unavailable` if the database gives no answer.
    pub(crate) async fn write(
        &self,
        write: Write,
        identity: Arc<Identity>,
        passed: Passed,
    ) -> Result<WriteOutcome, Refusal> {
        let began = moment().at;
        let outcome = self.writer.write(write.clone(), identity).await;
        if outcome.is_err() {
            self.rate_limits.on_refused(passed, &write);
        }
        let took = (moment().at - began).as_secs_f64();
        self.metrics.writes.observe(took);
        outcome
    }
}

//! The chores: closes votings whose time has come and lets old events go from the log.
//!
//! Every node does them; the database lets only one have each.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::limits::TRIM_EVENTS_MAX;
use crate::metrics::Metrics;
use crate::postgres::store::{Store, StoreError};
use crate::server::answered;

const CLOSE_INTERVAL: Duration = Duration::from_secs(1);
const TRIM_INTERVAL: Duration = Duration::from_secs(60);

/// What the keeper needs.
#[derive(Debug)]
pub struct Keeper {
    /// Where the chores are done.
    pub store: Store,
    /// Age beyond which an event leaves the log.
    pub age_max: Duration,
    /// Events of a session beyond which its oldest leave.
    pub events_max: u64,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Keeper {
    /// Runs until the gateway stops.
    pub async fn run(self, stop: CancellationToken) {
        let mut close = tokio::time::interval(CLOSE_INTERVAL);
        let mut trim = tokio::time::interval(TRIM_INTERVAL);
        close.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        trim.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = close.tick() => {
                    self.report(self.store.close_due_votings().await);
                }
                _ = trim.tick() => self.trim(&stop).await,
            }
        }
    }

    /// A batch at a time, so that no lock is held for long.
    async fn trim(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let trimmed = self.report(self.store.trim(self.age_max, self.events_max).await);
            self.metrics.trimmed.inc_by(trimmed);
            if trimmed < TRIM_EVENTS_MAX {
                return;
            }
        }
    }

    fn report(&self, outcome: Result<u64, StoreError>) -> u64 {
        answered(outcome, "a chore", &self.store, &self.metrics).unwrap_or(0)
    }
}

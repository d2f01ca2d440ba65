//! Regular maintenance of the database: closes due polls, updates the movies' vote totals, and trims the log.
//!
//! Every node runs it. The database lets one node at a time do each task.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::ticks;
use crate::limits::{
    CLOSE_INTERVAL, TOTAL_CHANGES_MAX, TOTALS_INTERVAL, TRIM_EVENTS_MAX, TRIM_INTERVAL,
};
use crate::metrics::Metrics;
use crate::net::answered;
use crate::postgres::statement::StoreError;
use crate::postgres::store::Store;

#[derive(Debug)]
pub(crate) struct Maintenance {
    pub(crate) store: Store,
    /// The log drops events older than this.
    pub(crate) age_max: Duration,
    /// The log keeps at most so many events of one session.
    pub(crate) events_max: u64,
    pub(crate) metrics: Arc<Metrics>,
}

impl Maintenance {
    /// Runs until the gateway stops.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut close = ticks(CLOSE_INTERVAL);
        let mut totals = ticks(TOTALS_INTERVAL);
        let mut trim = ticks(TRIM_INTERVAL);
        let mut is_blocked = false;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = close.tick() => is_blocked = self.close_due(is_blocked, &stop).await,
                _ = totals.tick() => self.update_totals(&stop).await,
                _ = trim.tick() => self.trim(&stop).await,
            }
        }
    }

    /// Closes due polls in one transaction. If a poll is locked in the database, closes each in its own transaction, so that a
    /// locked poll does not delay others. Returns whether one is locked.
    async fn close_due(&self, was_blocked: bool, stop: &CancellationToken) -> bool {
        if !was_blocked {
            let closed = self.store.close_due_votings().await;
            if !matches!(closed, Err(StoreError::Locked)) {
                answered(closed, "close due polls", &self.store, &self.metrics);
                return false;
            }
        }
        let due = answered(
            self.store.due_votings().await,
            "due polls",
            &self.store,
            &self.metrics,
        );
        let due = due.unwrap_or_default();
        let lock_wait = self.store.lock_wait(due.len());
        let mut is_blocked = false;
        for voting in due {
            if stop.is_cancelled() {
                break;
            }
            let closed = self.store.close_due_voting(voting, lock_wait).await;
            is_blocked |= matches!(closed, Err(StoreError::Locked));
            answered(closed, "close due polls", &self.store, &self.metrics);
        }
        is_blocked
    }

    /// Updates totals in batches until no change is left.
    async fn update_totals(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let taken = self.report(self.store.update_vote_totals().await);
            if taken < TOTAL_CHANGES_MAX {
                return;
            }
        }
    }

    /// Trims in batches, so that no lock is held for long.
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
        answered(outcome, "maintenance", &self.store, &self.metrics).unwrap_or(0)
    }
}

//! Reads the counts of votings that changed and hands them to the fan-out loops, a few times a second each.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::error;

use crate::metrics::Metrics;
use crate::postgres::listener::Heard;
use crate::postgres::store::{Store, StoreError};
use crate::protocol::id::VotingId;
use crate::relay::tally::Conflation;
use crate::server::fanout::Command;
use crate::server::moment;

const IDLE: Duration = Duration::from_secs(3_600);

/// The reader of counts.
#[derive(Debug)]
pub struct TallyReader {
    /// Decides when.
    pub conflation: Conflation,
    /// What the database says has changed.
    pub heard: mpsc::Receiver<Arc<Heard>>,
    /// What the fan-out loops think may have changed.
    pub dirty: mpsc::Receiver<Vec<VotingId>>,
    /// Where counts are read.
    pub store: Store,
    /// Who wants them.
    pub loops: Vec<mpsc::Sender<Command>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl TallyReader {
    /// Runs until the listener and the loops are gone.
    pub async fn run(mut self) {
        let mut news = Vec::new();
        loop {
            let due = self
                .conflation
                .deadline()
                .unwrap_or_else(|| moment().at + IDLE);
            // Every arm is cancel-safe: what it has not returned it has not taken.
            let votings: Vec<VotingId> = tokio::select! {
                biased;
                count = self.heard.recv_many(&mut news, usize::MAX) => {
                    if count == 0 {
                        return;
                    }
                    news.drain(..).flat_map(|heard| changed(&heard)).collect()
                }
                Some(votings) = self.dirty.recv() => votings,
                () = sleep_until(due.into()) => Vec::new(),
            };
            let now = moment().at;
            for voting in votings {
                // Where no more can be remembered the oldest are about to be read anyway.
                self.conflation.on_change(voting, now);
            }
            let due = self.conflation.take_due(now);
            if !due.is_empty() {
                self.read(&due).await;
            }
        }
    }

    async fn read(&mut self, votings: &[VotingId]) {
        match self.store.tallies(votings).await {
            Ok(tallies) => {
                for tally in tallies {
                    self.metrics.tallies.inc();
                    let tally = Arc::new(tally);
                    for fanout in &self.loops {
                        let _ = fanout.send(Command::Tally(Arc::clone(&tally))).await;
                    }
                }
            }
            Err(error) => {
                self.metrics.query_failures.inc();
                if !matches!(error, StoreError::Unavailable(_)) {
                    error!(
                        error = &error as &dyn std::error::Error,
                        "counts cannot be read"
                    );
                }
                // The promise that the last change is told stands until it is kept.
                let now = moment().at;
                for voting in votings {
                    self.conflation.on_change(*voting, now);
                }
            }
        }
    }
}

fn changed(heard: &Heard) -> Vec<VotingId> {
    match heard {
        Heard::Back { .. } => Vec::new(),
        Heard::Notices { votings, .. } => votings.clone(),
    }
}

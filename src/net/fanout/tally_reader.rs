//! Reads the changed counts of polls and sends them to the fan-out loops, at most a few times a second per poll.
//!
//! Takes changes also while it reads: the listener must not wait for the database.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::clock::moment;
use crate::limits::TALLY_IDLE;
use crate::metrics::Metrics;
use crate::net::fanout::loops::{FanoutCommand, FanoutLoops};
use crate::net::{answered, finished};
use crate::postgres::statement::StoreError;
use crate::postgres::store::Store;
use usher_core::protocol::id::VotingId;
use usher_core::relay::tally::{Conflation, Tally};

/// A read that is under way: its polls, and the result.
type TallyRead = BoxFuture<'static, (Vec<VotingId>, Result<Vec<Tally>, StoreError>)>;

/// Reads the counts of polls.
#[derive(Debug)]
pub(crate) struct TallyReader {
    /// Decides when to read which poll.
    pub(crate) conflation: Conflation,
    /// Changed polls from the listener. Always taken: the listener, and with it every event, waits for this queue.
    pub(crate) changed: mpsc::Receiver<Vec<VotingId>>,
    /// Polls that the fan-out loops want read again. Not taken while there is no room; a loop keeps what it cannot send.
    pub(crate) recounts: mpsc::Receiver<Vec<VotingId>>,
    pub(crate) store: Store,
    pub(crate) loops: Arc<FanoutLoops>,
    pub(crate) metrics: Arc<Metrics>,
}

impl TallyReader {
    /// Runs until `stop`. It cannot end with its senders: it and the fan-out loops hold senders to each other.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut reading: Option<TallyRead> = None;
        loop {
            let idle = moment().at + TALLY_IDLE;
            let due = self.conflation.deadline().unwrap_or(idle);
            // Every arm is cancel-safe: it takes only what it returns.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                votings = self.changed.recv() => match votings {
                    Some(votings) => self.note(&votings),
                    None => return,
                },
                votings = self.recounts.recv(), if self.conflation.has_room() => match votings {
                    Some(votings) => self.recount(&votings),
                    None => return,
                },
                (votings, tallies) = finished(&mut reading) => {
                    reading = None;
                    self.on_read(&votings, tallies).await;
                }
                () = sleep_until(due.into()), if reading.is_none() => {}
            }
            if reading.is_none() {
                let votings = self.conflation.take_due(moment().at);
                if !votings.is_empty() {
                    reading = Some(self.read(votings));
                }
            }
            if self.conflation.take_overflow() {
                self.loops.broadcast(|| FanoutCommand::Recount).await;
            }
        }
    }

    fn note(&mut self, votings: &[VotingId]) {
        let now = moment().at;
        for voting in votings {
            if !self.conflation.on_change(*voting, now) {
                self.metrics.tallies_postponed.inc();
            }
        }
    }

    fn recount(&mut self, votings: &[VotingId]) {
        let now = moment().at;
        for voting in votings {
            self.conflation.on_recount(*voting, now);
        }
    }

    fn read(&self, votings: Vec<VotingId>) -> TallyRead {
        let store = self.store.clone();
        async move {
            let tallies = store.tallies(&votings).await;
            (votings, tallies)
        }
        .boxed()
    }

    async fn on_read(&mut self, votings: &[VotingId], tallies: Result<Vec<Tally>, StoreError>) {
        let Some(tallies) = answered(tallies, "counts", &self.store, &self.metrics) else {
            // Tries again: viewers must receive the last change.
            return self.recount(votings);
        };
        for tally in tallies.into_iter().map(Arc::new) {
            self.metrics.tallies.inc();
            let command = || FanoutCommand::Tally(Arc::clone(&tally));
            self.loops.broadcast(command).await;
        }
    }
}

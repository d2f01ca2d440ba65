//! Reads the counts of votings that changed and hands them to the fan-out loops, a few times a second each.
//!
//! Hears of changes also while it reads: whoever tells of them must not wait for the database.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, pending};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::clock::moment;
use crate::limits::TALLY_IDLE;
use crate::metrics::Metrics;
use crate::net::answered;
use crate::net::fanout::loops::{FanoutCommand, FanoutLoops};
use crate::postgres::store::{Store, StoreError};
use usher_core::protocol::id::VotingId;
use usher_core::relay::tally::{Conflation, Tally};

/// A reading that is under way: of which votings, and what came of it.
type TallyRead = BoxFuture<'static, (Vec<VotingId>, Result<Vec<Tally>, StoreError>)>;

/// The reader of counts.
#[derive(Debug)]
pub(crate) struct TallyReader {
    /// Decides when.
    pub(crate) conflation: Conflation,
    /// What the database says has changed. Always taken: the listener, and with it every event, waits for it.
    pub(crate) changed: mpsc::Receiver<Vec<VotingId>>,
    /// What the fan-out loops want read again, a bounded number of polls at a time. It waits while there is no room, and
    /// a loop keeps what it cannot send.
    pub(crate) recounts: mpsc::Receiver<Vec<VotingId>>,
    /// Where counts are read.
    pub(crate) store: Store,
    /// Who wants them.
    pub(crate) loops: Arc<FanoutLoops>,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
}

impl TallyReader {
    /// Runs until it is told to stop: it and the fan-out loops know each other, so neither could wait for the other's end.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut reading: Option<TallyRead> = None;
        loop {
            let idle = moment().at + TALLY_IDLE;
            let due = self.conflation.deadline().unwrap_or(idle);
            // Every arm is cancel-safe: what it has not returned it has not taken.
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
            // The promise that the last change is told stands until it is kept.
            return self.recount(votings);
        };
        for tally in tallies.into_iter().map(Arc::new) {
            self.metrics.tallies.inc();
            let command = || FanoutCommand::Tally(Arc::clone(&tally));
            self.loops.broadcast(command).await;
        }
    }
}

async fn finished(
    reading: &mut Option<TallyRead>,
) -> (Vec<VotingId>, Result<Vec<Tally>, StoreError>) {
    match reading {
        Some(reading) => reading.await,
        None => pending().await,
    }
}

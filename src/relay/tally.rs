//! Tallies, conflated: when the counts of which voting are to be read, and which of those read are news.
//!
//! Keeps two promises: the first change is told at once and the last always; between them at most one reading in an
//! interval. Invariant: a voting that is dirty is either due at a known time or being read.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::limits::DIRTY_VOTINGS_MAX;
use crate::protocol::id::{SessionId, VotingId};
use crate::protocol::websocket;

/// The counts of a voting at one moment.
#[derive(Clone, Debug)]
pub struct Tally {
    /// The life of the database in which they were read.
    pub epoch: Box<str>,
    /// In which session.
    pub session: SessionId,
    /// Which voting.
    pub voting: VotingId,
    /// `open` or `closed`.
    pub status: String,
    /// Grows with every change.
    pub version: u64,
    /// All votes together.
    pub total: u64,
    /// The counts, as a JSON array.
    pub counts: Box<RawValue>,
    /// When it closes by itself.
    pub closes_at: Option<Box<RawValue>>,
    /// The frame for those who may see the counts.
    pub full: Bytes,
    /// The frame for everybody else, where there is a difference.
    pub masked: Option<Bytes>,
}

impl Tally {
    /// Takes the counts as the database wrote them in an epoch: the JSON of the frame, and of the masked one where one
    /// is needed.
    ///
    /// # Errors
    /// Text that is no tally frame.
    pub fn parse(epoch: &str, full: &str, masked: Option<&str>) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Frame {
            session: SessionId,
            voting: VotingId,
            status: String,
            version: u64,
            total: u64,
            counts: Box<RawValue>,
            #[serde(default)]
            closes_at: Option<Box<RawValue>>,
        }
        let frame: Frame = serde_json::from_str(full)?;
        Ok(Self {
            epoch: epoch.into(),
            session: frame.session,
            voting: frame.voting,
            status: frame.status,
            version: frame.version,
            total: frame.total,
            counts: frame.counts,
            closes_at: frame.closes_at,
            full: websocket::text(full),
            masked: masked.map(websocket::text),
        })
    }

    /// The frame for somebody who may, or may not, see hidden counts.
    #[must_use]
    pub fn frame(&self, sees_hidden: bool) -> &Bytes {
        match &self.masked {
            Some(masked) if !sees_hidden => masked,
            _ => &self.full,
        }
    }
}

/// Decides when which votings are read.
#[derive(Debug)]
pub struct Conflation {
    interval: Duration,
    votings: BTreeMap<VotingId, State>,
}

#[derive(Debug)]
struct State {
    /// Read at this time at the earliest; `None` while nothing is to be read.
    due: Option<Instant>,
    /// When it was last read.
    read_at: Option<Instant>,
}

impl Conflation {
    /// Reads each voting at most once in `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            votings: BTreeMap::new(),
        }
    }

    /// Something changed in a voting. False where no more votings can be remembered: the caller then reads all.
    pub fn on_change(&mut self, voting: VotingId, now: Instant) -> bool {
        let full = self.votings.len() >= DIRTY_VOTINGS_MAX;
        if full && !self.votings.contains_key(&voting) {
            return false;
        }
        let state = self.votings.entry(voting).or_insert(State {
            due: None,
            read_at: None,
        });
        if state.due.is_none() {
            let earliest = state.read_at.map_or(now, |read_at| read_at + self.interval);
            state.due = Some(earliest.max(now));
        }
        true
    }

    /// Takes the votings that are to be read at `now`. What changes while they are read is due again.
    pub fn take_due(&mut self, now: Instant) -> Vec<VotingId> {
        let mut taken = Vec::new();
        self.votings.retain(|voting, state| {
            if state.due.is_some_and(|due| due <= now) {
                *state = State {
                    due: None,
                    read_at: Some(now),
                };
                taken.push(*voting);
            }
            // A voting that was quiet for an interval owes no pause and is forgotten.
            state.due.is_some() || state.read_at.is_some_and(|at| at + self.interval > now)
        });
        taken
    }

    /// When [`Self::take_due`] is next worth a call.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.votings.values().filter_map(|state| state.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_is_read_at_once_and_the_last_always() {
        let (mut conflation, start) = (Conflation::new(Duration::from_millis(200)), now());
        let voting = VotingId(uuid::Uuid::nil());
        conflation.on_change(voting, start);
        assert_eq!(conflation.take_due(start), [voting]);
        for ms in [10, 50, 199] {
            conflation.on_change(voting, start + Duration::from_millis(ms));
            assert_eq!(conflation.take_due(start + Duration::from_millis(ms)), []);
        }
        assert_eq!(
            conflation.deadline(),
            Some(start + Duration::from_millis(200))
        );
        assert_eq!(
            conflation.take_due(start + Duration::from_millis(200)),
            [voting]
        );
        assert_eq!(conflation.deadline(), None);
    }

    #[test]
    fn a_quiet_voting_is_forgotten() {
        let (mut conflation, start) = (Conflation::new(Duration::from_millis(200)), now());
        conflation.on_change(VotingId(uuid::Uuid::nil()), start);
        conflation.take_due(start);
        conflation.take_due(start + Duration::from_millis(200));
        assert!(conflation.votings.is_empty());
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an instant has no other constructor"
    )]
    fn now() -> Instant {
        Instant::now()
    }
}

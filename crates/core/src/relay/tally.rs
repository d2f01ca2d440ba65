//! Tallies, conflated: when the counts of which voting are to be read, and which of those read are news.
//!
//! Keeps two promises: the first change is told at once and the last always; between them at most one reading in an
//! interval. Invariant: a voting that is dirty is due at a known time, or being read, or among those that are read once
//! there is room.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::limits::{DIRTY_VOTINGS_MAX, TALLIES_READ_MAX};
use crate::protocol::id::{SessionId, VotingId};
use crate::protocol::websocket;

/// The counts of a voting at one moment.
#[derive(Clone, Debug)]
pub struct Tally {
    /// The life of the database in which they were read.
    pub(crate) epoch: Box<str>,
    /// In which session.
    pub session: SessionId,
    /// Which voting.
    pub(crate) voting: VotingId,
    /// `open` or `closed`.
    pub(crate) status: String,
    /// Grows with every change.
    pub(crate) version: u64,
    /// All votes together.
    pub(crate) total: u64,
    /// The counts, as a JSON array.
    pub(crate) counts: Box<RawValue>,
    /// When it closes by itself.
    pub(crate) closes_at: Option<Box<RawValue>>,
    /// The frame for those who may see the counts.
    pub(crate) full: Bytes,
    /// The frame for everybody else, where there is a difference.
    pub(crate) masked: Option<Bytes>,
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
///
/// Remembers at most [`DIRTY_VOTINGS_MAX`] of them. A change beyond is not lost: once there is room again,
/// [`Self::take_overflow`] has the caller name every voting that somebody watches, and the counts of all of them are read.
#[derive(Debug)]
pub struct Conflation {
    interval: Duration,
    votings: HashMap<VotingId, State>,
    /// Those that are to be read, by when.
    due: BTreeSet<(Instant, VotingId)>,
    /// Those that were read, by when: each owes a pause.
    resting: VecDeque<(Instant, VotingId)>,
    has_overflowed: bool,
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
            votings: HashMap::new(),
            due: BTreeSet::new(),
            resting: VecDeque::new(),
            has_overflowed: false,
        }
    }

    /// Something changed in a voting. Returns false where no more votings can be remembered: the change is made up for by
    /// [`Self::take_overflow`].
    pub fn on_change(&mut self, voting: VotingId, now: Instant) -> bool {
        self.forget_rested(now);
        if self.votings.len() >= DIRTY_VOTINGS_MAX && !self.votings.contains_key(&voting) {
            self.has_overflowed = true;
            return false;
        }
        self.on_recount(voting, now);
        true
    }

    /// The counts of a voting are to be read although no notice said so. The caller asks [`Self::has_room`] first.
    pub fn on_recount(&mut self, voting: VotingId, now: Instant) {
        let state = self.votings.entry(voting).or_insert(State {
            due: None,
            read_at: None,
        });
        if state.due.is_none() {
            let earliest = state.read_at.map_or(now, |read_at| read_at + self.interval);
            let due = earliest.max(now);
            state.due = Some(due);
            self.due.insert((due, voting));
        }
    }

    /// Whether another [`TALLIES_READ_MAX`] recounts can be remembered. They have room of their own, so that changes
    /// cannot keep them out.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.votings.len() <= DIRTY_VOTINGS_MAX
    }

    /// Returns true, once, when changes were not remembered and there is room for their votings again.
    pub fn take_overflow(&mut self) -> bool {
        // Not with the first free place: each call has all that are watched read.
        self.votings.len() <= DIRTY_VOTINGS_MAX / 2 && std::mem::take(&mut self.has_overflowed)
    }

    /// Takes votings that are to be read at `now`, the longest due first, at most [`TALLIES_READ_MAX`]. What changes while
    /// they are read is due again.
    pub fn take_due(&mut self, now: Instant) -> Vec<VotingId> {
        let mut taken = Vec::new();
        while taken.len() < TALLIES_READ_MAX
            && let Some((due, voting)) = self.due.first().copied()
            && due <= now
        {
            self.due.pop_first();
            let state = State {
                due: None,
                read_at: Some(now),
            };
            self.votings.insert(voting, state);
            self.resting.push_back((now, voting));
            taken.push(voting);
        }
        self.forget_rested(now);
        taken
    }

    /// When [`Self::take_due`] is next worth a call: when a voting is due, or when one that rested makes the room that
    /// others wait for.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let due = self.due.first().map(|(due, _)| *due);
        let is_short_of_room = self.has_overflowed || !self.has_room();
        let rested = self.resting.front().filter(|_| is_short_of_room);
        let rested = rested.map(|(read_at, _)| *read_at + self.interval);
        due.into_iter().chain(rested).min()
    }

    /// A voting that was quiet for an interval owes no pause and is forgotten.
    fn forget_rested(&mut self, now: Instant) {
        while let Some((read_at, voting)) = self.resting.front().copied()
            && read_at + self.interval <= now
        {
            self.resting.pop_front();
            // One that is due again, or was read since, stays: it rests once more.
            let is_forgotten =
                |state: &State| state.due.is_none() && state.read_at == Some(read_at);
            if self.votings.get(&voting).is_some_and(is_forgotten) {
                self.votings.remove(&voting);
            }
        }
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

    #[test]
    fn a_change_beyond_the_bound_is_made_up_for_once_there_is_room() {
        let (mut conflation, start) = (Conflation::new(Duration::from_millis(200)), now());
        let max = DIRTY_VOTINGS_MAX as u128;
        for number in 0..max {
            assert!(conflation.on_change(voting(number), start));
        }
        assert!(conflation.on_change(voting(0), start), "it is known");
        assert!(!conflation.on_change(voting(max), start));
        assert!(conflation.has_room() && !conflation.take_overflow());
        for number in 0..TALLIES_READ_MAX as u128 {
            conflation.on_recount(voting(max + 1 + number), start);
        }
        assert!(!conflation.has_room());

        // They are read so many at a time, the longest due first, until half of them are done.
        let (mut read, mut at) = (Vec::new(), start);
        while !conflation.take_overflow() {
            let taken = conflation.take_due(at);
            assert_eq!(taken.len(), TALLIES_READ_MAX);
            read.extend(taken);
            at += Duration::from_millis(200);
        }
        assert_eq!(read[..3], [voting(0), voting(1), voting(2)]);
        assert!(read.len() >= DIRTY_VOTINGS_MAX / 2);
        assert!(!conflation.take_overflow(), "once");
    }

    #[test]
    fn room_comes_although_all_was_read_at_once_and_nothing_changes_any_more() {
        let (mut conflation, start) = (Conflation::new(Duration::from_millis(200)), now());
        for number in 0..=DIRTY_VOTINGS_MAX as u128 {
            conflation.on_change(voting(number), start);
        }
        while !conflation.take_due(start).is_empty() {}
        assert!(!conflation.take_overflow(), "each still owes a pause");
        let rested = start + Duration::from_millis(200);
        assert_eq!(conflation.deadline(), Some(rested));
        assert_eq!(conflation.take_due(rested), []);
        assert!(conflation.take_overflow());
        assert_eq!(conflation.deadline(), None);
    }

    #[test]
    fn what_cannot_be_read_at_once_is_read_next() {
        let (mut conflation, start) = (Conflation::new(Duration::from_millis(200)), now());
        let count = 2 * TALLIES_READ_MAX + 1;
        for number in 0..count as u128 {
            conflation.on_change(voting(number), start);
        }
        let sizes: Vec<usize> = (0..4).map(|_| conflation.take_due(start).len()).collect();
        assert_eq!(sizes, [TALLIES_READ_MAX, TALLIES_READ_MAX, 1, 0]);
        // What could not be read, the database being away, is due after the pause that it owes.
        assert!(conflation.on_change(voting(7), start));
        assert_eq!(
            conflation.deadline(),
            Some(start + Duration::from_millis(200))
        );
    }

    fn voting(number: u128) -> VotingId {
        VotingId(uuid::Uuid::from_u128(number))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an instant has no other constructor"
    )]
    fn now() -> Instant {
        Instant::now()
    }
}

//! Conflates tallies: decides when to read the counts of which poll.
//!
//! Two promises hold. The first change of a poll is read immediately, and the last change is always read. In between, a
//! poll is read at most once per interval. Invariant: a dirty poll is due at a known time, or is being read, or is read
//! once there is room (see [`Conflation::take_overflow`]).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::limits::{DIRTY_VOTINGS_MAX, TALLIES_READ_MAX};
use crate::protocol::id::{SessionId, VotingId};
use crate::protocol::server::Frames;

/// The counts of a poll at one moment.
#[derive(Clone, Debug)]
pub struct Tally {
    /// The database's epoch when the counts were read.
    pub(crate) epoch: Box<str>,
    /// The poll's session.
    pub session: SessionId,
    pub(crate) voting: VotingId,
    /// `open` or `closed`.
    pub(crate) status: String,
    /// Grows with every change of the counts.
    pub(crate) version: u64,
    /// The number of all votes.
    pub(crate) total: u64,
    /// The unmasked counts, as a JSON array.
    pub(crate) counts: Box<RawValue>,
    /// When the poll closes automatically.
    pub(crate) closes_at: Option<Box<RawValue>>,
    /// The frame for receivers that may see the counts.
    pub(crate) full: Frames,
    /// The frame for all other receivers, if it differs.
    pub(crate) masked: Option<Frames>,
}

impl Tally {
    /// Parses the frames that the database wrote in an epoch. `masked` is the frame with hidden counts, if the
    /// poll hides them.
    ///
    /// # Errors
    /// The text is not a tally frame.
    pub fn parse(epoch: &str, full: &str, masked: Option<&str>) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct TallyFrame {
            session: SessionId,
            voting: VotingId,
            status: String,
            version: u64,
            total: u64,
            counts: Box<RawValue>,
            #[serde(default)]
            closes_at: Option<Box<RawValue>>,
        }
        let frame: TallyFrame = serde_json::from_str(full)?;
        Ok(Self {
            epoch: epoch.into(),
            session: frame.session,
            voting: frame.voting,
            status: frame.status,
            version: frame.version,
            total: frame.total,
            counts: frame.counts,
            closes_at: frame.closes_at,
            full: Frames::state(full),
            masked: masked.map(Frames::state),
        })
    }

    /// Returns the frame for a receiver that may or may not see hidden counts.
    #[must_use]
    pub fn frame(&self, sees_hidden: bool) -> &Frames {
        match &self.masked {
            Some(masked) if !sees_hidden => masked,
            _ => &self.full,
        }
    }
}

/// Decides when to read the counts of which poll.
///
/// Remembers at most [`DIRTY_VOTINGS_MAX`] changed polls. A change beyond that is not lost: once there is room again,
/// [`Self::take_overflow`] makes the caller name every watched poll, and the counts of all of them are read.
#[derive(Debug)]
pub struct Conflation {
    interval: Duration,
    votings: HashMap<VotingId, ReadSchedule>,
    /// The polls to read, by due time.
    due: BTreeSet<(Instant, VotingId)>,
    /// The polls that were read, by time of reading. Each pauses for one interval.
    resting: VecDeque<(Instant, VotingId)>,
    has_overflowed: bool,
}

#[derive(Debug)]
struct ReadSchedule {
    /// The earliest time of the next reading; `None` if none is needed.
    due: Option<Instant>,
    /// The time of the last reading.
    read_at: Option<Instant>,
}

impl Conflation {
    /// Creates a conflation that reads each poll at most once per `interval`.
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

    /// Records a change of a poll. Returns false if there is no room for another poll; [`Self::take_overflow`] then
    /// makes up for the change.
    pub fn on_change(&mut self, voting: VotingId, now: Instant) -> bool {
        self.forget_rested(now);
        if self.votings.len() >= DIRTY_VOTINGS_MAX && !self.votings.contains_key(&voting) {
            self.has_overflowed = true;
            return false;
        }
        self.on_recount(voting, now);
        true
    }

    /// Schedules a reading of a poll's counts without a notification. The caller checks [`Self::has_room`] first.
    pub fn on_recount(&mut self, voting: VotingId, now: Instant) {
        let state = self.votings.entry(voting).or_insert(ReadSchedule {
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

    /// Whether there is room for [`TALLIES_READ_MAX`] more recounts. Recounts have room beyond [`DIRTY_VOTINGS_MAX`],
    /// so that changes cannot block them.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.votings.len() <= DIRTY_VOTINGS_MAX
    }

    /// Returns true, once, when changes were not remembered and there is room again.
    pub fn take_overflow(&mut self) -> bool {
        // Not as soon as one place is free: each overflow reads every watched poll.
        self.votings.len() <= DIRTY_VOTINGS_MAX / 2 && std::mem::take(&mut self.has_overflowed)
    }

    /// Takes the polls to read at `now`, the longest due first, at most [`TALLIES_READ_MAX`]. A poll that changes
    /// during the reading becomes due again.
    pub fn take_due(&mut self, now: Instant) -> Vec<VotingId> {
        let mut taken = Vec::new();
        while taken.len() < TALLIES_READ_MAX
            && let Some((due, voting)) = self.due.first().copied()
            && due <= now
        {
            self.due.pop_first();
            let state = ReadSchedule {
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

    /// Returns when [`Self::take_due`] must be called next: when a poll is due, or when the end of a pause makes room
    /// that other polls need.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let due = self.due.first().map(|(due, _)| *due);
        let is_short_of_room = self.has_overflowed || !self.has_room();
        let rested = self.resting.front().filter(|_| is_short_of_room);
        let rested = rested.map(|(read_at, _)| *read_at + self.interval);
        due.into_iter().chain(rested).min()
    }

    /// Forgets each poll whose pause has ended without a change.
    fn forget_rested(&mut self, now: Instant) {
        while let Some((read_at, voting)) = self.resting.front().copied()
            && read_at + self.interval <= now
        {
            self.resting.pop_front();
            // A poll that is due again, or was read since, stays: its next pause ends later.
            let is_forgotten =
                |state: &ReadSchedule| state.due.is_none() && state.read_at == Some(read_at);
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
    fn the_first_change_is_read_immediately_and_the_last_always() {
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
    fn a_quiet_poll_is_forgotten() {
        let (mut conflation, start) = (Conflation::new(Duration::from_millis(200)), now());
        conflation.on_change(VotingId(uuid::Uuid::nil()), start);
        conflation.take_due(start);
        conflation.take_due(start + Duration::from_millis(200));
        assert!(conflation.votings.is_empty());
    }

    #[test]
    fn a_change_beyond_the_bound_is_read_once_there_is_room() {
        let (mut conflation, start) = (Conflation::new(Duration::from_millis(200)), now());
        let max = DIRTY_VOTINGS_MAX as u128;
        for number in 0..max {
            assert!(conflation.on_change(voting(number), start));
        }
        assert!(
            conflation.on_change(voting(0), start),
            "it is remembered already"
        );
        assert!(!conflation.on_change(voting(max), start));
        assert!(conflation.has_room() && !conflation.take_overflow());
        for number in 0..TALLIES_READ_MAX as u128 {
            conflation.on_recount(voting(max + 1 + number), start);
        }
        assert!(!conflation.has_room());

        // At most `TALLIES_READ_MAX` are read at a time, the longest due first, until half of them are done.
        let (mut read, mut at) = (Vec::new(), start);
        while !conflation.take_overflow() {
            let taken = conflation.take_due(at);
            assert_eq!(taken.len(), TALLIES_READ_MAX);
            read.extend(taken);
            at += Duration::from_millis(200);
        }
        assert_eq!(read[..3], [voting(0), voting(1), voting(2)]);
        assert!(read.len() >= DIRTY_VOTINGS_MAX / 2);
        assert!(!conflation.take_overflow(), "only once");
    }

    #[test]
    fn pauses_that_end_make_room_without_further_changes() {
        let (mut conflation, start) = (Conflation::new(Duration::from_millis(200)), now());
        for number in 0..=DIRTY_VOTINGS_MAX as u128 {
            conflation.on_change(voting(number), start);
        }
        while !conflation.take_due(start).is_empty() {}
        assert!(!conflation.take_overflow(), "each poll still pauses");
        let rested = start + Duration::from_millis(200);
        assert_eq!(conflation.deadline(), Some(rested));
        assert_eq!(conflation.take_due(rested), []);
        assert!(conflation.take_overflow());
        assert_eq!(conflation.deadline(), None);
    }

    #[test]
    fn polls_beyond_one_reading_are_read_next() {
        let (mut conflation, start) = (Conflation::new(Duration::from_millis(200)), now());
        let count = 2 * TALLIES_READ_MAX + 1;
        for number in 0..count as u128 {
            conflation.on_change(voting(number), start);
        }
        let sizes: Vec<usize> = (0..4).map(|_| conflation.take_due(start).len()).collect();
        assert_eq!(sizes, [TALLIES_READ_MAX, TALLIES_READ_MAX, 1, 0]);
        // A poll that changes right after its reading is due after its pause, even if the reading failed.
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

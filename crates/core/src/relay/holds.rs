//! Tracks the places whose writes could not get a lock, and schedules their next tries.
//!
//! A place is a session or a poll. When a batch of several places times out on a lock, the gateway does not know which
//! place is locked. Every place of the batch becomes a suspect:
//!
//! - The gateway tries each suspect alone. It starts with the place that was written to most recently, because that is
//!   the least likely to be locked.
//! - A suspect that gets its lock is free again. A suspect that does not is blocked, and is tried again after a pause
//!   that doubles with every failure.
//! - Suspects come before blocked places, so a free place does not wait behind blocked ones.
//! - The more places are held, the shorter each try waits for its lock. A place that is held alone waits long enough
//!   for its turn among many writers.
//! - After each successful try, the next try takes twice as many places. A thousand places that one short table lock
//!   held are therefore free again after a few dozen tries.
//!
//! A held place is a suspect or blocked. Knows nothing about the writes themselves.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::limits::{
    BATCH_ITEMS_MAX, HELD_PLACES_MAX, LOCK_PAUSE_MAX, LOCK_PAUSE_MIN, LOCK_ROUND, LOCK_WAIT_MIN,
    RECENT_PLACES_MAX,
};

/// The session or poll that a write belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriteTarget(pub Uuid);

/// Returns how long a try may wait for its lock if `waiting` places try one after the other.
#[must_use]
pub fn lock_wait(waiting: usize, max: Duration) -> Duration {
    let waiting = u32::try_from(waiting).unwrap_or(u32::MAX).max(1);
    (LOCK_ROUND / waiting).clamp(LOCK_WAIT_MIN, max)
}

/// The held places, and the order in which they are tried.
#[derive(Debug)]
pub(crate) struct Holds {
    places: HashMap<WriteTarget, Hold>,
    /// Held places with pending writes and no try under way.
    due: BTreeSet<TryOrder>,
    recent: RecentWrites,
    /// Held places without pending writes and without a try under way, by the time since when.
    idle: BTreeSet<(u64, WriteTarget)>,
    /// The number of places with a try under way.
    under_way: usize,
    /// The number of places that the next try takes.
    together: usize,
    counter: u64,
}

/// The order of tries: suspects first, the most recently written one first. Then blocked places by due time.
type TryOrder = (bool, Reverse<u64>, Instant, WriteTarget);

#[derive(Debug)]
struct Hold {
    /// The number of the place's last successful write; 0 if none is remembered.
    last_write: u64,
    /// The number of failed tries alone; 0 for a suspect.
    failures: u32,
    due: Instant,
    state: HoldState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HoldState {
    Due,
    Idle { since: u64 },
    UnderWay,
}

/// The result for a place in a batch that did not get all its locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fared {
    /// The batch had other places, too.
    Together,
    /// The place was the only one, and none of its writes was written.
    Alone,
    /// Some of its writes were written.
    InPart,
}

impl Holds {
    /// Creates a tracker without held places.
    pub(crate) fn new() -> Self {
        Self {
            places: HashMap::new(),
            due: BTreeSet::new(),
            recent: RecentWrites::default(),
            idle: BTreeSet::new(),
            under_way: 0,
            together: 1,
            counter: 0,
        }
    }

    /// Whether a place is held.
    pub(crate) fn contains(&self, place: WriteTarget) -> bool {
        self.places.contains_key(&place)
    }

    /// Holds a place whose try or batch has ended. The place stays idle until [`Self::queue`].
    pub(crate) fn hold(&mut self, place: WriteTarget, fared: Fared, now: Instant) {
        self.together = 1;
        let failures = self.release(place).unwrap_or(0);
        let failures = match fared {
            Fared::Together => failures,
            Fared::Alone => failures.saturating_add(1),
            Fared::InPart => 1,
        };
        let pause = match fared {
            Fared::Together => Duration::ZERO,
            Fared::Alone | Fared::InPart => pause_after(failures),
        };
        let hold = Hold {
            last_write: self.recent.number_of(place),
            failures,
            due: now + pause,
            state: HoldState::UnderWay,
        };
        self.under_way += 1;
        self.places.insert(place, hold);
        self.rest(place);
        if self.idle.len() > HELD_PLACES_MAX
            && let Some((_, longest)) = self.idle.first().copied()
        {
            self.release(longest);
        }
    }

    /// Records that all of a batch's writes to a place succeeded.
    pub(crate) fn on_written(&mut self, place: WriteTarget) {
        self.recent.note(place);
    }

    /// Records a successful try: the next one takes twice as many places.
    pub(crate) fn on_success(&mut self) {
        self.together = (2 * self.together).min(BATCH_ITEMS_MAX);
    }

    /// Frees a place. Returns how many tries of it alone had failed.
    pub(crate) fn release(&mut self, place: WriteTarget) -> Option<u32> {
        let hold = self.places.remove(&place)?;
        self.leave_state(place, &hold);
        Some(hold.failures)
    }

    /// Schedules a held place that has pending writes and no try under way.
    pub(crate) fn queue(&mut self, place: WriteTarget) {
        self.enter(place, HoldState::Due);
    }

    /// Marks a held place that has no pending writes any more.
    pub(crate) fn rest(&mut self, place: WriteTarget) {
        self.counter += 1;
        let since = self.counter;
        self.enter(place, HoldState::Idle { since });
    }

    /// Takes the places of the next try.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<WriteTarget> {
        let due = self.due.iter().take(self.together);
        let places: Vec<WriteTarget> = due
            .take_while(|(_, _, due, _)| *due <= now)
            .map(|(.., place)| *place)
            .collect();
        for place in &places {
            self.enter(*place, HoldState::UnderWay);
        }
        places
    }

    /// Returns how many held places have pending writes or a try under way.
    pub(crate) fn waiting(&self) -> usize {
        self.due.len() + self.under_way
    }

    /// Returns when [`Self::take`] next returns a place.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        // Suspects come first, and they are always due.
        self.due.first().map(|(_, _, due, _)| *due)
    }

    /// Returns how many places are held.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    fn enter(&mut self, place: WriteTarget, state: HoldState) {
        let Some(mut hold) = self.places.remove(&place) else {
            return;
        };
        self.leave_state(place, &hold);
        hold.state = state;
        match state {
            HoldState::Due => {
                self.due.insert(hold.turn(place));
            }
            HoldState::Idle { since } => {
                self.idle.insert((since, place));
            }
            HoldState::UnderWay => self.under_way += 1,
        }
        self.places.insert(place, hold);
    }

    fn leave_state(&mut self, place: WriteTarget, hold: &Hold) {
        match hold.state {
            HoldState::Due => {
                self.due.remove(&hold.turn(place));
            }
            HoldState::Idle { since } => {
                self.idle.remove(&(since, place));
            }
            HoldState::UnderWay => self.under_way -= 1,
        }
    }
}

impl Hold {
    fn turn(&self, place: WriteTarget) -> TryOrder {
        let is_blocked = self.failures > 0;
        let last_write = if is_blocked { 0 } else { self.last_write };
        (is_blocked, Reverse(last_write), self.due, place)
    }
}

/// The most recently written places, at most [`RECENT_PLACES_MAX`], numbered in order.
#[derive(Debug, Default)]
struct RecentWrites {
    numbers: HashMap<WriteTarget, u64>,
    places: BTreeMap<u64, WriteTarget>,
    counter: u64,
}

impl RecentWrites {
    fn note(&mut self, place: WriteTarget) {
        self.counter += 1;
        if let Some(earlier) = self.numbers.insert(place, self.counter) {
            self.places.remove(&earlier);
        }
        self.places.insert(self.counter, place);
        if self.places.len() > RECENT_PLACES_MAX
            && let Some((_, longest)) = self.places.pop_first()
        {
            self.numbers.remove(&longest);
        }
    }

    fn number_of(&self, place: WriteTarget) -> u64 {
        self.numbers.get(&place).copied().unwrap_or(0)
    }
}

fn pause_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (LOCK_PAUSE_MIN * 2_u32.pow(doublings)).min(LOCK_PAUSE_MAX)
}

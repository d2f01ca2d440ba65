//! Places whose writes could not get a lock, and when each is tried again.
//!
//! A batch of several places that waits for a lock in vain does not say which of them is blocked. All of them become
//! suspects: each is tried by itself, the one that was written to most recently first, since it is the least likely to be
//! blocked. A suspect that gets its lock is free again. One that does not is blocked, and is
//! tried again after a pause that doubles. Suspects come first, so a free place does not wait behind blocked ones. The more
//! places are held, the shorter each try waits for its lock; a place that is held alone waits long enough for its turn
//! among many writers. After a try that succeeds, twice as many places are tried together: a thousand places that one short
//! lock of a table held are free again in a few dozen tries.
//!
//! Knows nothing of what is written.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::limits::{
    BATCH_ITEMS_MAX, HELD_PLACES_MAX, LOCK_PAUSE_MAX, LOCK_PAUSE_MIN, LOCK_ROUND, LOCK_WAIT_MIN,
    RECENT_PLACES_MAX,
};
use crate::relay::write_queue::Place;

/// How long one of so many that wait for locks one after the other waits for its own.
#[must_use]
pub fn lock_wait(waiting: usize, max: Duration) -> Duration {
    let waiting = u32::try_from(waiting).unwrap_or(u32::MAX).max(1);
    (LOCK_ROUND / waiting).clamp(LOCK_WAIT_MIN, max)
}

/// The held places.
#[derive(Debug)]
pub(crate) struct Holds {
    places: HashMap<Place, Hold>,
    /// Held places with something waiting and nothing under way.
    due: BTreeSet<Due>,
    recent: RecentWrites,
    /// Held places with nothing waiting and nothing under way, by when that began.
    idle: BTreeSet<(u64, Place)>,
    /// Places with a try under way.
    under_way: usize,
    /// Places that the next try takes together.
    together: usize,
    counter: u64,
}

/// The order of tries: suspects first, those written to most recently before others; then the blocked by when they are due.
type Due = (bool, Reverse<u64>, Instant, Place);

#[derive(Debug)]
struct Hold {
    /// The number of its last write that succeeded; 0 if none is remembered.
    last_write: u64,
    /// Tries by itself that failed; none while it is only suspected.
    failures: u32,
    due: Instant,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Due,
    Idle { since: u64 },
    UnderWay,
}

/// How a place fared in a batch that did not get all its locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fared {
    /// Its batch had other places too.
    Together,
    /// It was the batch's only place, and nothing of it was written.
    Alone,
    /// Some of its writes were written.
    InPart,
}

impl Holds {
    /// Nothing is held.
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
    pub(crate) fn contains(&self, place: Place) -> bool {
        self.places.contains_key(&place)
    }

    /// Holds a place that has nothing under way any more. Until something waits there, it is idle.
    pub(crate) fn hold(&mut self, place: Place, fared: Fared, now: Instant) {
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
            state: State::UnderWay,
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

    /// Everything of a batch was written to a place.
    pub(crate) fn on_written(&mut self, place: Place) {
        self.recent.note(place);
    }

    /// A try succeeded: the next one takes more places together.
    pub(crate) fn on_success(&mut self) {
        self.together = (2 * self.together).min(BATCH_ITEMS_MAX);
    }

    /// Frees a place; says how often it had failed by itself.
    pub(crate) fn release(&mut self, place: Place) -> Option<u32> {
        let hold = self.places.remove(&place)?;
        self.leave_state(place, &hold);
        Some(hold.failures)
    }

    /// Something waits at a held place with nothing under way.
    pub(crate) fn queue(&mut self, place: Place) {
        self.enter(place, State::Due);
    }

    /// Nothing waits at a held place any more.
    pub(crate) fn rest(&mut self, place: Place) {
        self.counter += 1;
        let since = self.counter;
        self.enter(place, State::Idle { since });
    }

    /// Takes the places that are tried next.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<Place> {
        let due = self.due.iter().take(self.together);
        let places: Vec<Place> = due
            .take_while(|(_, _, due, _)| *due <= now)
            .map(|(.., place)| *place)
            .collect();
        for place in &places {
            self.enter(*place, State::UnderWay);
        }
        places
    }

    /// How many held places have something that waits or is tried.
    pub(crate) fn waiting(&self) -> usize {
        self.due.len() + self.under_way
    }

    /// When [`Self::take`] next has something to give.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        // Suspects are first, and due since they became it.
        self.due.first().map(|(_, _, due, _)| *due)
    }

    /// How many places are held.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    fn enter(&mut self, place: Place, state: State) {
        let Some(mut hold) = self.places.remove(&place) else {
            return;
        };
        self.leave_state(place, &hold);
        hold.state = state;
        match state {
            State::Due => {
                self.due.insert(hold.turn(place));
            }
            State::Idle { since } => {
                self.idle.insert((since, place));
            }
            State::UnderWay => self.under_way += 1,
        }
        self.places.insert(place, hold);
    }

    fn leave_state(&mut self, place: Place, hold: &Hold) {
        match hold.state {
            State::Due => {
                self.due.remove(&hold.turn(place));
            }
            State::Idle { since } => {
                self.idle.remove(&(since, place));
            }
            State::UnderWay => self.under_way -= 1,
        }
    }
}

impl Hold {
    fn turn(&self, place: Place) -> Due {
        let is_blocked = self.failures > 0;
        let last_write = if is_blocked { 0 } else { self.last_write };
        (is_blocked, Reverse(last_write), self.due, place)
    }
}

/// The places that were written to most recently, at most [`RECENT_PLACES_MAX`], numbered in order.
#[derive(Debug, Default)]
struct RecentWrites {
    numbers: HashMap<Place, u64>,
    places: BTreeMap<u64, Place>,
    counter: u64,
}

impl RecentWrites {
    fn note(&mut self, place: Place) {
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

    fn number_of(&self, place: Place) -> u64 {
        self.numbers.get(&place).copied().unwrap_or(0)
    }
}

fn pause_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (LOCK_PAUSE_MIN * 2_u32.pow(doublings)).min(LOCK_PAUSE_MAX)
}

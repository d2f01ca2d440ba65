//! Queues writes for the next transaction, and decides whose turn it is.
//!
//! Sessions take turns, and so do the authors within a session, one write per turn: an author who floods waits behind
//! their own writes. The writes of one author to one session keep their order. Turns count writes, not bytes, because a
//! transaction's cost is in its rows; bytes are only bounded. A session with a batch under way waits for its end, so
//! that its batches follow each other.
//!
//! A batch that does not get a lock in time is rolled back as a whole. Its writes return to the queue and keep their
//! places in the order. Their sessions are then held apart (`holds`), so a session that is locked in the database
//! delays only itself.
//!
//! The queue for votes uses polls in the place of sessions. Knows nothing about the contents of writes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::limits::{
    BATCH_BYTES_MAX, BATCH_ITEMS_MAX, BUSY_AFTER, LOCK_WAIT_APART, LOCK_WAIT_MIN,
    WRITE_QUEUE_BYTES_MAX, WRITE_QUEUE_LEN, WRITE_WAIT_MAX, WRITES_PER_AUTHOR_MAX,
};
use crate::protocol::id::UserId;
use crate::relay::holds::{Fared, Holds, WriteTarget, lock_wait};

/// The bounds of a queue: its size, the waiting time and the size of a batch.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "each is a bound of `limits`")]
pub struct Bounds {
    pub items_max: usize,
    pub bytes_max: usize,
    pub author_items_max: usize,
    pub wait_max: Duration,
    pub busy_after: Duration,
    pub lock_wait_max: Duration,
    pub batch_items_max: usize,
    pub batch_bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            items_max: WRITE_QUEUE_LEN,
            bytes_max: WRITE_QUEUE_BYTES_MAX,
            author_items_max: WRITES_PER_AUTHOR_MAX,
            wait_max: WRITE_WAIT_MAX,
            busy_after: BUSY_AFTER,
            lock_wait_max: LOCK_WAIT_APART,
            batch_items_max: BATCH_ITEMS_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
        }
    }
}

/// The reason why a queue refuses a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Full {
    /// Its author has [`Bounds::author_items_max`] pending writes.
    Author,
    /// Its place has as many pending writes as the rest of the queue has room for.
    Place,
    /// The queue is full.
    Queue,
}

/// A write in the queue, or one just taken from it.
#[derive(Clone, Debug)]
pub struct Waiting<T> {
    /// The session or poll.
    pub place: WriteTarget,
    /// The author; all callers without an account count as one.
    pub(crate) author: Option<UserId>,
    /// The size that counts for the bounds.
    pub(crate) bytes: usize,
    /// The time of its arrival. The waiting time counts from here.
    pub since: Instant,
    /// The contents, which the queue does not read.
    pub item: T,
    /// Its number in the order of arrivals, assigned by the queue.
    number: u64,
}

impl<T> Waiting<T> {
    /// Creates a write that has just arrived. The queue assigns its number.
    pub fn new(
        place: WriteTarget,
        author: Option<UserId>,
        bytes: usize,
        since: Instant,
        item: T,
    ) -> Self {
        Self {
            place,
            author,
            bytes,
            since,
            item,
            number: 0,
        }
    }
}

/// The reason why a write waited too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// Writes arrive faster than the database commits them.
    Waited,
    /// An open transaction holds a lock that the write needs.
    Busy,
}

/// The pending writes of one kind.
#[derive(Debug)]
pub struct WriteQueue<T> {
    bounds: Bounds,
    lines: HashMap<WriteTarget, TargetQueue<T>>,
    /// Places with pending writes and no batch under way that are not held, in the order of their turns.
    turns: VecDeque<WriteTarget>,
    /// The held places: those that wait for a lock.
    holds: Holds,
    /// The number of pending writes of each author.
    authors: HashMap<Option<UserId>, usize>,
    /// The pending writes at places that are not held, the oldest first.
    arrivals: BTreeMap<u64, Arrival>,
    /// The pending writes at held places, the oldest first.
    held: BTreeMap<u64, Arrival>,
    bytes: usize,
    next_number: u64,
}

/// The pending writes at one place.
#[derive(Debug)]
struct TargetQueue<T> {
    /// The authors in the order of their turns.
    turns: VecDeque<Option<UserId>>,
    /// Each author's writes in order.
    writes: HashMap<Option<UserId>, VecDeque<Waiting<T>>>,
    items: usize,
    bytes: usize,
    is_under_way: bool,
}

#[derive(Clone, Copy, Debug)]
struct Arrival {
    place: WriteTarget,
    author: Option<UserId>,
    since: Instant,
}

impl<T> WriteQueue<T> {
    /// Creates an empty queue.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            lines: HashMap::new(),
            turns: VecDeque::new(),
            holds: Holds::new(),
            authors: HashMap::new(),
            arrivals: BTreeMap::new(),
            held: BTreeMap::new(),
            bytes: 0,
            next_number: 0,
        }
    }

    /// Adds a write.
    ///
    /// # Errors
    /// The write, and the reason why the queue refuses it.
    pub fn push(&mut self, mut write: Waiting<T>) -> Result<(), (Full, Waiting<T>)> {
        if let Some(full) = self.refuses(&write) {
            return Err((full, write));
        }
        write.number = self.next_number;
        self.next_number += 1;
        let place = write.place;
        self.count(&write);
        let line = self.lines.entry(place).or_insert_with(TargetQueue::new);
        let was_empty = line.items == 0;
        line.push(write);
        if was_empty {
            self.give_turn(place);
        }
        Ok(())
    }

    /// Takes the next batch, in the order of arrival; empty if no place is ready. The places of the batch
    /// wait until [`Self::on_done`].
    pub fn take(&mut self) -> Vec<Waiting<T>> {
        let mut turns = std::mem::take(&mut self.turns);
        let batch = self.gather(&mut turns);
        turns.retain(|place| !self.lines[place].is_under_way);
        self.turns = turns;
        batch
    }

    /// Takes the next batch of held places, and returns how long it may wait for a lock. Only one such batch is under
    /// way at a time.
    pub fn take_held(&mut self, now: Instant) -> (Vec<Waiting<T>>, Duration) {
        let mut turns: VecDeque<WriteTarget> = self.holds.take(now).into();
        let wait = lock_wait(self.holds.waiting(), self.bounds.lock_wait_max);
        let batch = self.gather(&mut turns);
        let since = batch.iter().map(|write| write.since).min();
        let left =
            since.map(|since| (since + self.bounds.busy_after).saturating_duration_since(now));
        let wait = left.map_or(wait, |left| wait.min(left).max(LOCK_WAIT_MIN));
        for place in turns {
            if !self.lines[&place].is_under_way {
                self.holds.queue(place);
            }
        }
        (batch, wait)
    }

    /// Ends a batch. `posted` has the number of writes at each of its places. `blocked` has the writes that did not get
    /// a lock and were not written: they return to the queue. The places take turns again.
    pub fn on_done(
        &mut self,
        posted: &BTreeMap<WriteTarget, usize>,
        blocked: Vec<Waiting<T>>,
        now: Instant,
    ) {
        let was_held = posted.keys().any(|place| self.holds.contains(*place));
        let mut left: BTreeMap<WriteTarget, usize> = BTreeMap::new();
        // The newest first: each goes before its author's pending writes.
        let mut blocked = blocked;
        blocked.sort_unstable_by_key(|write| write.number);
        let is_whole = !blocked.is_empty();
        for write in blocked.into_iter().rev() {
            *left.entry(write.place).or_default() += 1;
            self.count(&write);
            let line = self.lines.get_mut(&write.place).expect(HAS_LINE);
            line.push_front(write);
        }
        if was_held && !is_whole {
            self.holds.on_success();
        }
        for (place, count) in posted {
            let Some(line) = self.lines.get_mut(place) else {
                continue;
            };
            if !std::mem::take(&mut line.is_under_way) {
                continue;
            }
            match left.get(place) {
                None => {
                    self.holds.on_written(*place);
                    self.release(*place);
                }
                Some(left) if left < count => self.hold(*place, Fared::InPart, now),
                Some(_) if posted.len() == 1 => self.hold(*place, Fared::Alone, now),
                Some(_) => self.hold(*place, Fared::Together, now),
            }
            if self.lines[place].items > 0 {
                self.give_turn(*place);
            } else {
                self.lines.remove(place);
            }
        }
    }

    /// Takes the writes that waited too long, the oldest first, each with the reason.
    pub fn take_overdue(&mut self, now: Instant) -> Vec<(Overdue, Waiting<T>)> {
        let mut overdue = Vec::new();
        while let Some((number, arrival)) = oldest(&self.arrivals)
            && now >= arrival.since + self.bounds.wait_max
        {
            overdue.push((Overdue::Waited, self.remove(number, arrival)));
        }
        while let Some((number, arrival)) = oldest(&self.held)
            && now >= arrival.since + self.bounds.busy_after
        {
            overdue.push((Overdue::Busy, self.remove(number, arrival)));
        }
        overdue
    }

    /// Returns when [`Self::take_overdue`] must be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let waited = oldest(&self.arrivals).map(|(_, at)| at.since + self.bounds.wait_max);
        let busy = oldest(&self.held).map(|(_, at)| at.since + self.bounds.busy_after);
        waited.into_iter().chain(busy).min()
    }

    /// Returns when [`Self::take_held`] next returns a batch.
    #[must_use]
    pub fn next_try(&self) -> Option<Instant> {
        self.holds.next_due()
    }

    /// Returns how many places are held, including those without pending writes.
    #[must_use]
    pub fn held_places(&self) -> usize {
        self.holds.len()
    }

    /// Whether [`Self::take`] returns a batch.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Whether no write is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of pending writes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.arrivals.len() + self.held.len()
    }

    /// Returns the bytes of the pending writes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn refuses(&self, write: &Waiting<T>) -> Option<Full> {
        // Writes that return from batches may exceed the bounds, by at most the batches under way.
        let free_items = self.bounds.items_max.saturating_sub(self.len());
        let free_bytes = self.bounds.bytes_max.saturating_sub(self.bytes);
        let author_items = self.authors.get(&write.author).copied().unwrap_or(0);
        let line = self.lines.get(&write.place);
        let (items, bytes) = line.map_or((0, 0), |line| (line.items, line.bytes));
        if author_items >= self.bounds.author_items_max {
            Some(Full::Author)
        } else if free_items == 0 || write.bytes > free_bytes {
            Some(Full::Queue)
        } else if items >= free_items || bytes > free_bytes {
            // However many sessions are flooded, each leaves as much room as it takes: there is room for one more.
            Some(Full::Place)
        } else {
            None
        }
    }

    /// Takes turns of these places until a batch is full.
    fn gather(&mut self, turns: &mut VecDeque<WriteTarget>) -> Vec<Waiting<T>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < self.bounds.batch_items_max
            && let Some(place) = turns.pop_front()
        {
            let line = self.lines.get_mut(&place).expect(HAS_LINE);
            let fits = batch.is_empty() || bytes + line.next_bytes() <= self.bounds.batch_bytes_max;
            if !fits {
                turns.push_front(place);
                break;
            }
            let write = line.take_turn().expect("a place with a turn has a write");
            line.is_under_way = true;
            if line.items > 0 {
                turns.push_back(place);
            }
            bytes += write.bytes;
            self.forget(&write);
            batch.push(write);
        }
        batch.sort_unstable_by_key(|write| write.number);
        batch
    }

    /// Queues a place for its turn, if it has pending writes and no batch under way.
    fn give_turn(&mut self, place: WriteTarget) {
        if self.lines[&place].is_under_way {
            return;
        }
        if self.holds.contains(place) {
            self.holds.queue(place);
        } else {
            self.turns.push_back(place);
        }
    }

    /// Holds a place and its pending writes.
    fn hold(&mut self, place: WriteTarget, fared: Fared, now: Instant) {
        if !self.holds.contains(place) {
            for number in self.lines[&place].numbers() {
                let arrival = self.arrivals.remove(&number).expect(HAS_ARRIVAL);
                self.held.insert(number, arrival);
            }
        }
        self.holds.hold(place, fared, now);
    }

    /// Frees a place and its pending writes.
    fn release(&mut self, place: WriteTarget) {
        if self.holds.release(place).is_some() {
            for number in self.lines[&place].numbers() {
                let arrival = self.held.remove(&number).expect(HAS_ARRIVAL);
                self.arrivals.insert(number, arrival);
            }
        }
    }

    /// Removes a pending write, which is its author's oldest at its place.
    fn remove(&mut self, number: u64, arrival: Arrival) -> Waiting<T> {
        let line = self.lines.get_mut(&arrival.place).expect(HAS_LINE);
        let write = line.remove(arrival.author, number);
        if line.items == 0 {
            if !line.is_under_way {
                self.lines.remove(&arrival.place);
                self.holds.rest(arrival.place);
            }
            self.turns.retain(|place| *place != arrival.place);
        }
        self.forget(&write);
        write
    }

    fn count(&mut self, write: &Waiting<T>) {
        let arrivals = if self.holds.contains(write.place) {
            &mut self.held
        } else {
            &mut self.arrivals
        };
        let arrival = Arrival {
            place: write.place,
            author: write.author,
            since: write.since,
        };
        arrivals.insert(write.number, arrival);
        *self.authors.entry(write.author).or_default() += 1;
        self.bytes += write.bytes;
    }

    fn forget(&mut self, write: &Waiting<T>) {
        let arrival = self.arrivals.remove(&write.number);
        let arrival = arrival.or_else(|| self.held.remove(&write.number));
        arrival.expect(HAS_ARRIVAL);
        self.bytes -= write.bytes;
        let count = self
            .authors
            .get_mut(&write.author)
            .expect("a pending write is counted");
        *count -= 1;
        if *count == 0 {
            self.authors.remove(&write.author);
        }
    }
}

fn oldest(arrivals: &BTreeMap<u64, Arrival>) -> Option<(u64, Arrival)> {
    let (number, arrival) = arrivals.first_key_value()?;
    Some((*number, *arrival))
}

impl<T> TargetQueue<T> {
    fn new() -> Self {
        Self {
            turns: VecDeque::new(),
            writes: HashMap::new(),
            items: 0,
            bytes: 0,
            is_under_way: false,
        }
    }

    fn push(&mut self, write: Waiting<T>) {
        self.items += 1;
        self.bytes += write.bytes;
        let author = write.author;
        let own = self.writes.entry(author).or_insert_with(|| {
            self.turns.push_back(author);
            VecDeque::new()
        });
        own.push_back(write);
    }

    /// Puts a write back that is older than its author's pending ones. The author takes the next turn.
    fn push_front(&mut self, write: Waiting<T>) {
        self.items += 1;
        self.bytes += write.bytes;
        let author = write.author;
        let own = self.writes.entry(author).or_insert_with(|| {
            self.turns.push_front(author);
            VecDeque::new()
        });
        assert!(own.front().is_none_or(|next| write.number < next.number));
        own.push_front(write);
    }

    fn take_turn(&mut self) -> Option<Waiting<T>> {
        let author = self.turns.pop_front()?;
        let taken = self.take_oldest(author);
        if self.writes.contains_key(&author) {
            self.turns.push_back(author);
        }
        Some(taken)
    }

    /// Removes an author's oldest write, which has this number.
    fn remove(&mut self, author: Option<UserId>, number: u64) -> Waiting<T> {
        let write = self.take_oldest(author);
        assert_eq!(write.number, number, "an author's writes keep their order");
        if !self.writes.contains_key(&author) {
            self.turns.retain(|other| *other != author);
        }
        write
    }

    fn take_oldest(&mut self, author: Option<UserId>) -> Waiting<T> {
        let own = self.writes.get_mut(&author).expect(HAS_WRITES);
        let write = own.pop_front().expect(HAS_WRITES);
        if own.is_empty() {
            self.writes.remove(&author);
        }
        self.items -= 1;
        self.bytes -= write.bytes;
        write
    }

    fn numbers(&self) -> impl Iterator<Item = u64> {
        self.writes.values().flatten().map(|write| write.number)
    }

    /// Returns the bytes of the write whose turn is next.
    fn next_bytes(&self) -> usize {
        let next = self.turns.front().map(|author| &self.writes[author]);
        let next = next.and_then(VecDeque::front);
        next.map_or(0, |write| write.bytes)
    }
}

const HAS_LINE: &str = "a place with something waiting or under way has a line";
const HAS_ARRIVAL: &str = "a pending write is among the arrivals";
const HAS_WRITES: &str = "an author with a turn has something waiting";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use expect_test::{Expect, expect};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::limits::LOCK_PAUSE_MAX;

    #[test]
    fn sessions_take_turns_and_so_do_their_authors() {
        check(
            "a:1 a:1 a:1 a:1 a:2 b:3 | take | done | take | done | take",
            // Each author gets one turn first, then those with further writes do. A batch is in the order of arrival.
            expect![[r#"
                take: a:1#0 a:2#4 b:3#5
                take: a:1#1 a:1#2 a:1#3
                take: -"#]],
        );
    }

    #[test]
    fn a_place_that_had_no_turn_is_first_in_the_next_batch() {
        check(
            "a:1 b:1 c:1 d:1 a:2 b:2 c:2 d:2 | take | done | take | done | take",
            expect![[r#"
                take: a:1#0 b:1#1 c:1#2
                take: d:1#3 a:2#4 b:2#5
                take: c:2#6 d:2#7"#]],
        );
    }

    #[test]
    fn a_session_with_a_batch_under_way_waits_and_others_do_not() {
        check(
            "a:1 a:1 | take | a:2 a:2 b:1 | take | take | done a | take | done b a | take",
            expect![[r#"
                take: a:1#0 a:1#1
                take: b:1#4
                take: -
                take: a:2#2 a:2#3
                take: -"#]],
        );
    }

    #[test]
    fn bytes_bound_a_batch_of_more_than_one_write() {
        check(
            "a:1*90 b:1*90 c:1*20 c:1 | take | done | take | done | take",
            expect![[r#"
                take: a:1#0
                take: b:1#1
                take: c:1#2 c:1#3"#]],
        );
    }

    #[test]
    fn overdue_writes_leave_oldest_first_and_free_their_room() {
        check(
            "a:1 | wait 3 | b:1 a:2 | overdue | wait 2 | overdue | take | done | wait 9 | overdue | take",
            expect![[r#"
                overdue: -
                overdue: a:1#0 (Waited)
                take: b:1#1 a:2#2
                overdue: -
                take: -"#]],
        );
        check(
            "a:1 a:1 | take | a:1 | wait 5 | overdue | done a | take | a:1 | take",
            expect![[r#"
                take: a:1#0 a:1#1
                overdue: a:1#2 (Waited)
                take: -
                take: a:1#3"#]],
        );
    }

    #[test]
    fn the_blocked_session_of_a_batch_is_found() {
        check(
            "a:1 b:1 c:1 | take | blocked | b:2 d:1 | take | done | \
             try | blocked | try | done | try | done | try | take | ms 50 | try | done | a:1 | take",
            // The three sessions are tried one by one, within a second in total. Writes to other sessions
            // are not delayed.
            expect![[r#"
                take: a:1#0 b:1#1 c:1#2
                take: d:1#4
                try 333 ms: a:1#0
                try 333 ms: b:1#1 b:2#3
                try 500 ms: c:1#2
                try 1000 ms: -
                take: -
                try 1000 ms: a:1#0
                take: a:1#5"#]],
        );
    }

    #[test]
    fn the_suspect_written_to_most_recently_is_tried_first() {
        check(
            "a:1 b:1 | take | done | c:1 | take | done | b:2 | take | done | a:3 b:3 c:3 | take | blocked | \
             try | blocked | try | blocked | try",
            expect![[r#"
                take: a:1#0 b:1#1
                take: c:1#2
                take: b:2#3
                take: a:3#4 b:3#5 c:3#6
                try 333 ms: b:3#5
                try 333 ms: c:3#6
                try 333 ms: a:3#4"#]],
        );
    }

    #[test]
    fn a_blocked_session_is_tried_again_after_pauses_that_double() {
        check(
            "a:1 | take | blocked | ms 49 | try | ms 1 | try | blocked | ms 99 | try | ms 1 | try | blocked | \
             ms 200 | try | blocked | ms 400 | try | blocked | ms 500 | try | done | a:1 | take",
            expect![[r#"
                take: a:1#0
                try 1000 ms: -
                try 1000 ms: a:1#0
                try 1000 ms: -
                try 1000 ms: a:1#0
                try 1000 ms: a:1#0
                try 1000 ms: a:1#0
                try 750 ms: a:1#0
                take: a:1#1"#]],
        );
    }

    #[test]
    fn writes_that_wait_for_a_lock_end_as_busy_and_their_session_stays_held() {
        check(
            "b:1 a:1 | take | blocked a | wait 1 | b:2 a:2 | wait 1 | overdue | wait 1 | overdue | take | done | \
             wait 60 | a:3 b:3 | take | try | done | a:4 | take",
            expect![[r#"
                take: b:1#0 a:1#1
                overdue: a:1#1 (Busy)
                overdue: a:2#3 (Busy)
                take: b:2#2
                take: b:3#5
                try 1000 ms: a:3#4
                take: a:4#6"#]],
        );
    }

    #[test]
    fn returned_writes_go_before_later_writes_of_their_author() {
        check(
            "a:1 a:2 a:1 | take | a:1 a:3 a:2 | blocked | ms 50 | try | done | take",
            expect![[r#"
                take: a:1#0 a:2#1 a:1#2
                try 1000 ms: a:1#0 a:2#1 a:3#4
                take: a:1#2 a:1#3 a:2#5"#]],
        );
    }

    #[test]
    fn each_successful_try_doubles_the_places_of_the_next() {
        check(
            "a:1 b:1 c:1 | take | d:1 e:1 f:1 | take | blocked | try | done | try | done | try | done",
            expect![[r#"
                take: a:1#0 b:1#1 c:1#2
                take: d:1#3 e:1#4 f:1#5
                try 166 ms: a:1#0
                try 200 ms: b:1#1 c:1#2
                try 333 ms: d:1#3 e:1#4 f:1#5"#]],
        );
    }

    #[test]
    fn a_partly_blocked_session_continues() {
        check(
            "a:1 a:2 a:3 | take | part 2 | a:1 | ms 50 | try | part 1 | ms 50 | try | done",
            expect![[r#"
                take: a:1#0 a:2#1 a:3#2
                try 1000 ms: a:2#1 a:3#2 a:1#3
                try 1000 ms: a:1#3"#]],
        );
    }

    #[test]
    fn an_authors_pending_writes_are_bounded_over_all_sessions() {
        check(
            "a:1 b:1 c:1 d:1 e:1 a:2 | take | e:1",
            expect![[r#"
                e:1: Author
                take: a:1#0 b:1#1 c:1#2"#]],
        );
    }

    #[test]
    fn a_flooded_session_leaves_room_for_others() {
        check(
            "a:1 a:2 a:3 a:4 a:5 a:6 a:7 a:8 | b:1 b:2 b:3 b:4 | c:1 c:2 | d:1 e:1 f:2",
            expect![[r#"
                a:7: Place
                a:8: Place
                b:4: Place
                e:1: Author
                f:2: Queue"#]],
        );
        check(
            "a:1*400 a:2*200 a:3 b:1*400 b:1*300",
            expect![[r#"
                a:3: Place
                b:1: Queue"#]],
        );
    }

    /// Small bounds, so that scripts reach them.
    const BOUNDS: Bounds = Bounds {
        items_max: 12,
        bytes_max: 1_000,
        author_items_max: 4,
        wait_max: Duration::from_secs(5),
        busy_after: Duration::from_secs(2),
        lock_wait_max: Duration::from_secs(1),
        batch_items_max: 3,
        batch_bytes_max: 100,
    };

    /// Ends the batches that contain a named session, or all batches. If `are_blocked`, the writes to these sessions
    /// return to the queue.
    fn end_batches(
        queue: &mut WriteQueue<String>,
        under_way: &mut Vec<Vec<Waiting<String>>>,
        named: &[WriteTarget],
        are_blocked: bool,
        now: Instant,
    ) {
        let is_meant = |write: &Waiting<String>| named.is_empty() || named.contains(&write.place);
        let ended = under_way.extract_if(.., |batch| batch.iter().any(is_meant));
        for batch in ended {
            let posted = posted(&batch);
            let is_back = |write: &Waiting<String>| are_blocked && is_meant(write);
            let back = batch.into_iter().filter(is_back).collect();
            queue.on_done(&posted, back, now);
        }
    }

    /// Runs a script. `a:1*90` is a write of 90 bytes by author 1 to session a. The other words call the queue: `done`
    /// and `blocked` end all batches under way, or those that contain a named session. `blocked` returns the writes to
    /// the named sessions, or all writes. `part N` returns the batch's newest N writes.
    fn check(script: &str, expected: Expect) {
        let mut now = start();
        let mut queue = WriteQueue::new(BOUNDS);
        let mut out = Vec::new();
        let mut under_way: Vec<Vec<Waiting<String>>> = Vec::new();
        let mut number = 0;
        let mut words = script
            .split([' ', '|'])
            .filter(|word| !word.is_empty())
            .peekable();
        while let Some(word) = words.next() {
            match word {
                "take" => {
                    let batch = queue.take();
                    out.push(show(word, &batch));
                    under_way.push(batch);
                }
                "try" => {
                    let (batch, wait) = queue.take_held(now);
                    out.push(show(&format!("try {} ms", wait.as_millis()), &batch));
                    under_way.push(batch);
                }
                "overdue" => {
                    let overdue = queue.take_overdue(now).into_iter();
                    let named = |(why, mut write): (Overdue, Waiting<String>)| {
                        write.item = format!("{} ({why:?})", write.item);
                        write
                    };
                    out.push(show(word, &overdue.map(named).collect::<Vec<_>>()));
                }
                "wait" => now += Duration::from_secs(words.next().unwrap().parse().unwrap()),
                "ms" => now += Duration::from_millis(words.next().unwrap().parse().unwrap()),
                "part" => {
                    let count: usize = words.next().unwrap().parse().unwrap();
                    let mut batch = under_way.pop().unwrap();
                    let posted = posted(&batch);
                    let back = batch.split_off(batch.len() - count);
                    queue.on_done(&posted, back, now);
                }
                "done" | "blocked" => {
                    let mut named = Vec::new();
                    while let Some(name) = words.next_if(|word| word.len() == 1) {
                        named.push(place(name));
                    }
                    end_batches(&mut queue, &mut under_way, &named, word == "blocked", now);
                }
                write => {
                    let (what, bytes) = write.split_once('*').unwrap_or((write, "1"));
                    let (where_to, author) = what.split_once(':').unwrap();
                    let pushed = queue.push(Waiting::new(
                        place(where_to),
                        user(author.parse().unwrap()),
                        bytes.parse().unwrap(),
                        now,
                        format!("{what}#{number}"),
                    ));
                    match pushed {
                        Ok(()) => number += 1,
                        Err((full, _)) => out.push(format!("{what}: {full:?}")),
                    }
                }
            }
        }
        expected.assert_eq(&out.join("\n"));
    }

    fn show(name: &str, writes: &[Waiting<String>]) -> String {
        let items: Vec<&str> = writes.iter().map(|write| write.item.as_str()).collect();
        let items = if items.is_empty() {
            "-".to_owned()
        } else {
            items.join(" ")
        };
        format!("{name}: {items}")
    }

    fn posted<T>(batch: &[Waiting<T>]) -> BTreeMap<WriteTarget, usize> {
        let mut posted = BTreeMap::new();
        for write in batch {
            *posted.entry(write.place).or_default() += 1;
        }
        posted
    }

    proptest! {
        /// Under any sequence of steps, no write is lost, duplicated or overtaken by a later one of its author, and
        /// every bound holds.
        #[test]
        fn no_write_is_lost_and_every_author_gets_a_turn(
            steps in prop::collection::vec((0..10_u8, 0..6_u8, 0..5_u8, 1..150_usize), 1..400)
        ) {
            let mut now = start();
            let mut queue = WriteQueue::new(BOUNDS);
            let mut waiting: Vec<(WriteTarget, Option<UserId>, u32)> = Vec::new();
            let mut under_way: Vec<Vec<Waiting<u32>>> = Vec::new();
            let mut is_trying = false;
            // For each pending write: how many batches its place has had without it.
            let mut passed: HashMap<u32, usize> = HashMap::new();
            let mut number = 0;
            for (step, where_to, author, bytes) in steps {
                match step {
                    0..5 => {
                        let place = WriteTarget(Uuid::from_u128(where_to.into()));
                        let author = user(author.into());
                        match queue.push(Waiting::new(place, author, bytes, now, number)) {
                            Ok(()) => {
                                waiting.push((place, author, number));
                                number += 1;
                            }
                            Err((Full::Author, _)) => {
                                let own = waiting.iter().filter(|(_, other, _)| *other == author);
                                prop_assert!(own.count() >= BOUNDS.author_items_max);
                            }
                            Err((Full::Place, _)) => {
                                prop_assert!(waiting.iter().any(|(other, ..)| *other == place));
                            }
                            Err((Full::Queue, write)) => prop_assert!(
                                waiting.len() >= BOUNDS.items_max
                                    || queue.bytes() + write.bytes > BOUNDS.bytes_max
                            ),
                        }
                    }
                    5 | 6 => {
                        let is_try = step == 6;
                        if is_try && is_trying {
                            continue;
                        }
                        let is_ready = if is_try {
                            queue.next_try().is_some_and(|due| due <= now)
                        } else {
                            queue.is_ready()
                        };
                        let batch = if is_try { queue.take_held(now).0 } else { queue.take() };
                        prop_assert_eq!(is_ready, !batch.is_empty());
                        is_trying |= is_try && is_ready;
                        prop_assert!(batch.len() <= BOUNDS.batch_items_max);
                        let bytes: usize = batch.iter().map(|write| write.bytes).sum();
                        prop_assert!(batch.len() == 1 || bytes <= BOUNDS.batch_bytes_max);
                        let places: HashSet<WriteTarget> = batch.iter().map(|write| write.place).collect();
                        prop_assert!(under_way.iter().flatten().all(|write| !places.contains(&write.place)));
                        for write in &batch {
                            // The author's oldest write at this place.
                            let own = |(place, author, _): &(WriteTarget, Option<UserId>, u32)|
                                *place == write.place && *author == write.author;
                            let first = waiting.iter().position(own);
                            prop_assert!(first.is_some_and(|first| waiting[first].2 == write.item));
                            waiting.remove(first.unwrap());
                            passed.remove(&write.item);
                        }
                        for (place, _, number) in &waiting {
                            if places.contains(place) {
                                *passed.entry(*number).or_default() += 1;
                            }
                        }
                        // There are five authors with at most four writes each, and each batch with the place takes
                        // at least one.
                        prop_assert!(passed.values().all(|batches| *batches <= 20));
                        if !batch.is_empty() {
                            under_way.push(batch);
                        }
                    }
                    7 | 8 => {
                        if !under_way.is_empty() {
                            let mut batch = under_way.remove(0);
                            let posted = posted(&batch);
                            is_trying &= batch.iter().any(|write| !queue.holds.contains(write.place));
                            // The batch is written as a whole, returns as a whole, or returns the writes of one author.
                            let back = if step == 7 { Vec::new() } else {
                                let blocked = batch[bytes % batch.len()].author;
                                batch.retain(|write| author == 0 || write.author == blocked);
                                batch
                            };
                            for write in &back {
                                let place = waiting.iter().position(|(.., number)| *number > write.item);
                                let known = (write.place, write.author, write.item);
                                waiting.insert(place.unwrap_or(waiting.len()), known);
                            }
                            // Returned writes may go before writes that were counted here, so the counts start over.
                            passed.clear();
                            queue.on_done(&posted, back, now);
                        }
                    }
                    _ => {
                        now += Duration::from_millis(500);
                        for (why, write) in queue.take_overdue(now) {
                            let bound = if why == Overdue::Busy { BOUNDS.busy_after } else { BOUNDS.wait_max };
                            prop_assert!(now >= write.since + bound);
                            let own = waiting.iter().position(|(place, author, _)|
                                (*place, *author) == (write.place, write.author));
                            let first = waiting.remove(own.unwrap());
                            prop_assert_eq!(first.2, write.item);
                            passed.remove(&write.item);
                        }
                        prop_assert!(queue.deadline().is_none_or(|deadline| deadline > now));
                    }
                }
                prop_assert_eq!(queue.len(), waiting.len());
                let in_flight = under_way.len() * BOUNDS.batch_items_max + BOUNDS.batch_items_max;
                prop_assert!(queue.len() <= BOUNDS.items_max + 3 * in_flight);
            }
            // In the end the queue empties and remembers only which places were blocked.
            loop {
                for batch in under_way.drain(..) {
                    queue.on_done(&posted(&batch), Vec::new(), now);
                }
                now += LOCK_PAUSE_MAX;
                let mut batch = queue.take();
                if batch.is_empty() {
                    batch = queue.take_held(now).0;
                }
                if batch.is_empty() {
                    break;
                }
                waiting.retain(|(.., number)| batch.iter().all(|write| write.item != *number));
                under_way.push(batch);
            }
            prop_assert!(waiting.is_empty() && queue.is_empty() && queue.bytes() == 0);
            prop_assert!(queue.lines.is_empty() && queue.authors.is_empty() && queue.turns.is_empty());
            prop_assert!(queue.next_try().is_none());
        }

        /// A write to another session is in one of the next few batches, however many writes a flooder has pending.
        #[test]
        fn a_flood_does_not_delay_other_sessions(flooded in 1..6_u128) {
            let bounds = Bounds { items_max: 4_096, author_items_max: 4_096, ..BOUNDS };
            let mut queue = WriteQueue::new(bounds);
            for number in 0..4_096 {
                let place = WriteTarget(Uuid::from_u128(number % flooded));
                let _ = queue.push(Waiting::new(place, user(1), 0, start(), false));
            }
            let place = WriteTarget(Uuid::from_u128(99));
            let newcomer = Waiting::new(place, user(2), 0, start(), true);
            prop_assert!(queue.push(newcomer).is_ok(), "there is room");
            let mut batches = 0;
            loop {
                batches += 1;
                let batch = queue.take();
                if batch.iter().any(|write| write.item) {
                    break;
                }
                queue.on_done(&posted(&batch), Vec::new(), start());
            }
            let turns = usize::try_from(flooded).unwrap() + 1;
            prop_assert!(batches <= turns.div_ceil(BOUNDS.batch_items_max), "{batches}");
        }
    }

    fn place(name: &str) -> WriteTarget {
        WriteTarget(Uuid::from_u128(name.as_bytes()[0].into()))
    }

    fn user(number: u128) -> Option<UserId> {
        (number > 0).then(|| UserId(Uuid::from_u128(number)))
    }

    #[expect(clippy::disallowed_methods, reason = "the tests need any instant")]
    fn start() -> Instant {
        Instant::now()
    }
}

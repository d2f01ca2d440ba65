//! Writes that wait for a transaction, and whose turn it is.
//!
//! Sessions take turns, and within a session its authors do, one write a turn: whoever floods waits behind its own. What
//! one author writes to one session keeps its order. Writes and not bytes are counted, since a transaction's cost is in
//! its rows; bytes are bounded. A session with a batch under way waits for its end, so that its next batch follows.
//!
//! A batch that does not get a lock in time is rolled back whole, and its writes come back: they keep their places in the
//! order. Their sessions are then held apart (`holds`), so a session that is locked in the database delays itself alone.
//!
//! For votes a voting stands where a session does. Knows nothing of what is written.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::limits::{
    BATCH_BYTES_MAX, BATCH_ITEMS_MAX, BUSY_AFTER, LOCK_WAIT_APART, LOCK_WAIT_MIN,
    WRITE_QUEUE_BYTES_MAX, WRITE_QUEUE_LEN, WRITE_WAIT_MAX, WRITES_PER_AUTHOR_MAX,
};
use crate::protocol::id::UserId;
use crate::relay::holds::{Fared, Holds, lock_wait};

/// Where something is written: a session, or a voting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(pub Uuid);

/// How much may wait, for how long, and how much goes together.
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

/// Why a write may not even wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Full {
    /// Its author has enough waiting.
    Author,
    /// Its session has as much waiting as there is room for everybody else.
    Place,
    /// There is no room at all.
    Queue,
}

/// A write that waits, or has just been taken.
#[derive(Clone, Debug)]
pub struct Waiting<T> {
    /// Where it goes.
    pub place: Place,
    /// Who it is from; everybody without an account counts as one.
    pub(crate) author: Option<UserId>,
    /// What it takes up.
    pub(crate) bytes: usize,
    /// When it came.
    pub since: Instant,
    /// What is written.
    pub item: T,
    /// Its place in the order of arrivals; the queue's own.
    number: u64,
}

impl<T> Waiting<T> {
    /// A write that has just come.
    pub fn new(
        place: Place,
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

/// Why a write has waited too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// More is written than the database takes.
    Waited,
    /// An open transaction holds a lock that it needs.
    Busy,
}

/// The writes of one kind that wait.
#[derive(Debug)]
pub struct WriteQueue<T> {
    bounds: Bounds,
    lines: HashMap<Place, Line<T>>,
    /// Places with something waiting and nothing under way that are not held, the next one first.
    turns: VecDeque<Place>,
    /// Places that wait for a lock.
    holds: Holds,
    /// Writes that wait, by author.
    authors: HashMap<Option<UserId>, usize>,
    /// Where each waits that is not held, the oldest first.
    arrivals: BTreeMap<u64, Arrival>,
    /// The same for places that are held.
    held: BTreeMap<u64, Arrival>,
    bytes: usize,
    next_number: u64,
}

/// What waits at one place.
#[derive(Debug)]
struct Line<T> {
    /// Authors in the order of their turns.
    turns: VecDeque<Option<UserId>>,
    /// What each wrote, in order.
    writes: HashMap<Option<UserId>, VecDeque<Waiting<T>>>,
    items: usize,
    bytes: usize,
    is_under_way: bool,
}

#[derive(Clone, Copy, Debug)]
struct Arrival {
    place: Place,
    author: Option<UserId>,
    since: Instant,
}

impl<T> WriteQueue<T> {
    /// Nothing waits.
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

    /// Lets a write wait.
    ///
    /// # Errors
    /// The write, and why it may not wait.
    pub fn push(&mut self, mut write: Waiting<T>) -> Result<(), (Full, Waiting<T>)> {
        if let Some(full) = self.refuses(&write) {
            return Err((full, write));
        }
        write.number = self.next_number;
        self.next_number += 1;
        let place = write.place;
        self.count(&write);
        let line = self.lines.entry(place).or_insert_with(Line::new);
        let was_empty = line.items == 0;
        line.push(write);
        if was_empty {
            self.give_turn(place);
        }
        Ok(())
    }

    /// Takes what goes together next, in the order in which it came; nothing where nothing may go. Its places wait until
    /// [`Self::on_done`].
    pub fn take(&mut self) -> Vec<Waiting<T>> {
        let mut turns = std::mem::take(&mut self.turns);
        let batch = self.gather(&mut turns);
        turns.retain(|place| !self.lines[place].is_under_way);
        self.turns = turns;
        batch
    }

    /// Takes what goes together next of places that are held, with how long it may wait for a lock. One try at a time.
    pub fn take_held(&mut self, now: Instant) -> (Vec<Waiting<T>>, Duration) {
        let mut turns: VecDeque<Place> = self.holds.take(now).into();
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

    /// A batch has ended, with so many writes for each of its places. Those that are given back did not get a lock and
    /// were not written: they wait again. The places have turns again.
    pub fn on_done(
        &mut self,
        posted: &BTreeMap<Place, usize>,
        blocked: Vec<Waiting<T>>,
        now: Instant,
    ) {
        let was_held = posted.keys().any(|place| self.holds.contains(*place));
        let mut left: BTreeMap<Place, usize> = BTreeMap::new();
        // The newest first, each before what its author has waiting.
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

    /// Takes what has waited too long, the oldest first, and says why it had to wait.
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

    /// When [`Self::take_overdue`] is next worth a call.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let waited = oldest(&self.arrivals).map(|(_, at)| at.since + self.bounds.wait_max);
        let busy = oldest(&self.held).map(|(_, at)| at.since + self.bounds.busy_after);
        waited.into_iter().chain(busy).min()
    }

    /// When [`Self::take_held`] next has something to give.
    #[must_use]
    pub fn next_try(&self) -> Option<Instant> {
        self.holds.next_due()
    }

    /// How many places are held, also those without a write that waits.
    #[must_use]
    pub fn held_places(&self) -> usize {
        self.holds.len()
    }

    /// Whether [`Self::take`] has something to give.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.arrivals.len() + self.held.len()
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn refuses(&self, write: &Waiting<T>) -> Option<Full> {
        // What came back from batches may be more than there is room for: by as much as was under way.
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
            // However many sessions are flooded, each leaves as much as it has: there is room for one more.
            Some(Full::Place)
        } else {
            None
        }
    }

    /// Takes the turns of these places until a batch is full.
    fn gather(&mut self, turns: &mut VecDeque<Place>) -> Vec<Waiting<T>> {
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

    /// Queues a place for its turn, where it has something waiting and nothing under way.
    fn give_turn(&mut self, place: Place) {
        if self.lines[&place].is_under_way {
            return;
        }
        if self.holds.contains(place) {
            self.holds.queue(place);
        } else {
            self.turns.push_back(place);
        }
    }

    /// Holds a place, and with it what waits there.
    fn hold(&mut self, place: Place, fared: Fared, now: Instant) {
        if !self.holds.contains(place) {
            for number in self.lines[&place].numbers() {
                let arrival = self.arrivals.remove(&number).expect(HAS_ARRIVAL);
                self.held.insert(number, arrival);
            }
        }
        self.holds.hold(place, fared, now);
    }

    /// Frees a place, and with it what waits there.
    fn release(&mut self, place: Place) {
        if self.holds.release(place).is_some() {
            for number in self.lines[&place].numbers() {
                let arrival = self.held.remove(&number).expect(HAS_ARRIVAL);
                self.arrivals.insert(number, arrival);
            }
        }
    }

    /// Removes a write that waits; it is its author's oldest at its place.
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
        let count = self.authors.get_mut(&write.author).expect("it was counted");
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

impl<T> Line<T> {
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

    /// Takes a write back that is older than all that its author has waiting, and gives the author the next turn.
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

    /// Bytes of the write whose turn is next.
    fn next_bytes(&self) -> usize {
        let next = self.turns.front().map(|author| &self.writes[author]);
        let next = next.and_then(VecDeque::front);
        next.map_or(0, |write| write.bytes)
    }
}

const HAS_LINE: &str = "a place with something waiting or under way has a line";
const HAS_ARRIVAL: &str = "what waits is among the arrivals";
const HAS_WRITES: &str = "an author with a turn has something waiting";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::limits::LOCK_PAUSE_MAX;

    #[test]
    fn sessions_take_turns_and_so_do_their_authors() {
        check(
            "a:1 a:1 a:1 a:1 a:2 b:3 | take | done | take | done | take",
            // The first of everybody, then the next of those who have more; in the order in which they came.
            expect![[r#"
                take: a:1#0 a:2#4 b:3#5
                take: a:1#1 a:1#2 a:1#3
                take: -"#]],
        );
    }

    #[test]
    fn who_had_no_turn_comes_first_the_next_time() {
        check(
            "a:1 b:1 c:1 d:1 a:2 b:2 c:2 d:2 | take | done | take | done | take",
            expect![[r#"
                take: a:1#0 b:1#1 c:1#2
                take: d:1#3 a:2#4 b:2#5
                take: c:2#6 d:2#7"#]],
        );
    }

    #[test]
    fn a_session_under_way_waits_and_others_do_not() {
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
    fn bytes_end_a_batch_and_one_write_always_goes() {
        check(
            "a:1*90 b:1*90 c:1*20 c:1 | take | done | take | done | take",
            expect![[r#"
                take: a:1#0
                take: b:1#1
                take: c:1#2 c:1#3"#]],
        );
    }

    #[test]
    fn what_has_waited_too_long_goes_oldest_first_and_frees_its_room() {
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
    fn a_blocked_session_is_found_among_those_who_shared_its_batch() {
        check(
            "a:1 b:1 c:1 | take | blocked | b:2 d:1 | take | done | \
             try | blocked | try | done | try | done | try | take | ms 50 | try | done | a:1 | take",
            // The three are tried one by one, in a second together; what comes for others goes its own way.
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
    fn of_those_who_shared_a_batch_the_last_one_written_to_is_tried_first() {
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
    fn what_waits_for_a_lock_is_answered_sooner_and_its_session_stays_apart() {
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
    fn what_comes_back_goes_before_what_its_author_wrote_since() {
        check(
            "a:1 a:2 a:1 | take | a:1 a:3 a:2 | blocked | ms 50 | try | done | take",
            expect![[r#"
                take: a:1#0 a:2#1 a:1#2
                try 1000 ms: a:1#0 a:2#1 a:3#4
                take: a:1#2 a:1#3 a:2#5"#]],
        );
    }

    #[test]
    fn sessions_that_are_free_again_are_tried_by_more_and_more() {
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
    fn a_session_of_which_a_part_is_blocked_goes_on() {
        check(
            "a:1 a:2 a:3 | take | part 2 | a:1 | ms 50 | try | part 1 | ms 50 | try | done",
            expect![[r#"
                take: a:1#0 a:2#1 a:3#2
                try 1000 ms: a:2#1 a:3#2 a:1#3
                try 1000 ms: a:1#3"#]],
        );
    }

    #[test]
    fn an_author_has_so_much_waiting_over_all_sessions() {
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

    /// Ends the batches with a session that is named, or all. If they are blocked, what is for these sessions goes back.
    fn end_batches(
        queue: &mut WriteQueue<String>,
        under_way: &mut Vec<Vec<Waiting<String>>>,
        named: &[Place],
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

    /// Runs a script: `a:1*90` is a write of 90 bytes by author 1 to session a, the rest are the queue's own words.
    /// `done` and `blocked` end batches that are under way: all, or those with a session that is named. `blocked` gives
    /// back what is for the sessions that are named, or everything; `part` gives back so many of the newest.
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

    fn posted<T>(batch: &[Waiting<T>]) -> BTreeMap<Place, usize> {
        let mut posted = BTreeMap::new();
        for write in batch {
            *posted.entry(write.place).or_default() += 1;
        }
        posted
    }

    proptest! {
        /// Whatever comes, goes and comes back: nothing is lost, doubled or overtaken by its author, and every bound holds.
        #[test]
        fn nothing_is_lost_and_everybody_gets_a_turn(
            steps in prop::collection::vec((0..10_u8, 0..6_u8, 0..5_u8, 1..150_usize), 1..400)
        ) {
            let mut now = start();
            let mut queue = WriteQueue::new(BOUNDS);
            let mut waiting: Vec<(Place, Option<UserId>, u32)> = Vec::new();
            let mut under_way: Vec<Vec<Waiting<u32>>> = Vec::new();
            let mut is_trying = false;
            // For each that waits, how many batches its place has had without it.
            let mut passed: HashMap<u32, usize> = HashMap::new();
            let mut number = 0;
            for (step, where_to, author, bytes) in steps {
                match step {
                    0..5 => {
                        let place = Place(Uuid::from_u128(where_to.into()));
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
                        let places: HashSet<Place> = batch.iter().map(|write| write.place).collect();
                        prop_assert!(under_way.iter().flatten().all(|write| !places.contains(&write.place)));
                        for write in &batch {
                            // The author's oldest for this place.
                            let own = |(place, author, _): &(Place, Option<UserId>, u32)|
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
                        // Five authors with four writes each at most, and a batch of the place has one at least.
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
                            // What is written and what comes back: all, nothing, or what one author has from a point on.
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
                            // Who comes back lets nobody pass that was not there before.
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
            // In the end everything goes, and nothing is remembered but which places were blocked.
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

        /// However much a flooder has waiting, a newcomer elsewhere is in the next batch but so many.
        #[test]
        fn a_flood_is_not_felt_elsewhere(flooded in 1..6_u128) {
            let bounds = Bounds { items_max: 4_096, author_items_max: 4_096, ..BOUNDS };
            let mut queue = WriteQueue::new(bounds);
            for number in 0..4_096 {
                let place = Place(Uuid::from_u128(number % flooded));
                let _ = queue.push(Waiting::new(place, user(1), 0, start(), false));
            }
            let place = Place(Uuid::from_u128(99));
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

    fn place(name: &str) -> Place {
        Place(Uuid::from_u128(name.as_bytes()[0].into()))
    }

    fn user(number: u128) -> Option<UserId> {
        (number > 0).then(|| UserId(Uuid::from_u128(number)))
    }

    #[expect(clippy::disallowed_methods, reason = "any instant does")]
    fn start() -> Instant {
        Instant::now()
    }
}

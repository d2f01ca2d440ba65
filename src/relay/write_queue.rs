//! Writes that wait for a transaction, and whose turn it is.
//!
//! Sessions take turns, and within a session its authors do, one write a turn: whoever floods waits behind its own. What
//! one author writes to one session keeps its order. Writes and not bytes are counted, since a transaction's cost is in
//! its rows; bytes are bounded. A session with a batch under way waits for its end, so that its next batch follows and a
//! session that is locked in the database holds up only those who share its batch.
//!
//! For votes a voting stands where a session does. Knows nothing of what is written.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::limits::{
    BATCH_BYTES_MAX, BATCH_ITEMS_MAX, WRITE_QUEUE_BYTES_MAX, WRITE_QUEUE_LEN, WRITE_WAIT_MAX,
    WRITES_PER_AUTHOR_MAX,
};
use crate::protocol::id::UserId;

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
#[derive(Debug)]
pub struct Waiting<T> {
    /// Where it goes.
    pub place: Place,
    /// Who it is from; everybody without an account counts as one.
    pub author: Option<UserId>,
    /// What it takes up.
    pub bytes: usize,
    /// When it came.
    pub since: Instant,
    /// What is written.
    pub item: T,
}

/// The writes of one kind that wait.
#[derive(Debug)]
pub struct WriteQueue<T> {
    bounds: Bounds,
    lines: HashMap<Place, Line<T>>,
    /// Places with something waiting and nothing under way, the next one first.
    turns: VecDeque<Place>,
    /// Writes that wait, by author.
    authors: HashMap<Option<UserId>, usize>,
    /// Where each waits, the oldest first.
    arrivals: BTreeMap<u64, Arrival>,
    bytes: usize,
    next_number: u64,
}

/// What waits at one place.
#[derive(Debug)]
struct Line<T> {
    /// Authors in the order of their turns.
    turns: VecDeque<Option<UserId>>,
    /// What each wrote, in order and numbered.
    writes: HashMap<Option<UserId>, VecDeque<(u64, Waiting<T>)>>,
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
            authors: HashMap::new(),
            arrivals: BTreeMap::new(),
            bytes: 0,
            next_number: 0,
        }
    }

    /// Lets a write wait.
    ///
    /// # Errors
    /// The write, and why it may not wait.
    pub fn push(&mut self, write: Waiting<T>) -> Result<(), (Full, Waiting<T>)> {
        if let Some(full) = self.refuses(&write) {
            return Err((full, write));
        }
        let (place, author) = (write.place, write.author);
        let number = self.next_number;
        self.next_number += 1;
        let since = write.since;
        self.arrivals.insert(
            number,
            Arrival {
                place,
                author,
                since,
            },
        );
        *self.authors.entry(author).or_default() += 1;
        self.bytes += write.bytes;
        let line = self.lines.entry(place).or_insert_with(Line::new);
        if line.items == 0 && !line.is_under_way {
            self.turns.push_back(place);
        }
        line.push(number, write);
        Ok(())
    }

    /// Takes what goes together next, in the order in which it came; nothing where nothing may go. Its places wait until
    /// [`Self::on_done`].
    pub fn take(&mut self) -> Vec<Waiting<T>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < self.bounds.batch_items_max
            && let Some(place) = self.turns.pop_front()
        {
            let line = self.lines.get_mut(&place).expect(HAS_LINE);
            let fits = batch.is_empty() || bytes + line.next_bytes() <= self.bounds.batch_bytes_max;
            if !fits {
                self.turns.push_front(place);
                break;
            }
            let (number, write) = line.take_turn().expect("a place with a turn has a write");
            line.is_under_way = true;
            if line.items > 0 {
                self.turns.push_back(place);
            }
            bytes += write.bytes;
            self.forget(number, &write);
            batch.push((number, write));
        }
        let lines = &self.lines;
        self.turns.retain(|place| !lines[place].is_under_way);
        batch.sort_unstable_by_key(|(number, _)| *number);
        batch.into_iter().map(|(_, write)| write).collect()
    }

    /// A batch with these places has ended, as it may have: they have turns again.
    pub fn on_done(&mut self, places: impl IntoIterator<Item = Place>) {
        for place in places {
            let Some(line) = self.lines.get_mut(&place) else {
                continue;
            };
            if !std::mem::take(&mut line.is_under_way) {
                continue;
            }
            if line.items > 0 {
                self.turns.push_back(place);
            } else {
                self.lines.remove(&place);
            }
        }
    }

    /// Takes what has waited too long, the oldest first.
    pub fn take_overdue(&mut self, now: Instant) -> Vec<Waiting<T>> {
        let mut overdue = Vec::new();
        while let Some((number, arrival)) = self.oldest()
            && now >= arrival.since + self.bounds.wait_max
        {
            let line = self.lines.get_mut(&arrival.place).expect(HAS_LINE);
            let write = line.remove(arrival.author, number);
            if line.items == 0 {
                if !line.is_under_way {
                    self.lines.remove(&arrival.place);
                }
                self.turns.retain(|place| *place != arrival.place);
            }
            self.forget(number, &write);
            overdue.push(write);
        }
        overdue
    }

    /// When [`Self::take_overdue`] is next worth a call.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let (_, arrival) = self.oldest()?;
        Some(arrival.since + self.bounds.wait_max)
    }

    /// Whether [`Self::take`] has something to give.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
    }

    /// Writes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.arrivals.len()
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn refuses(&self, write: &Waiting<T>) -> Option<Full> {
        let free_items = self.bounds.items_max - self.len();
        let free_bytes = self.bounds.bytes_max - self.bytes;
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

    fn oldest(&self) -> Option<(u64, Arrival)> {
        let (number, arrival) = self.arrivals.first_key_value()?;
        Some((*number, *arrival))
    }

    fn forget(&mut self, number: u64, write: &Waiting<T>) {
        self.arrivals.remove(&number);
        self.bytes -= write.bytes;
        let count = self.authors.get_mut(&write.author).expect("it was counted");
        *count -= 1;
        if *count == 0 {
            self.authors.remove(&write.author);
        }
    }
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

    fn push(&mut self, number: u64, write: Waiting<T>) {
        self.items += 1;
        self.bytes += write.bytes;
        let author = write.author;
        let own = self.writes.entry(author).or_insert_with(|| {
            self.turns.push_back(author);
            VecDeque::new()
        });
        own.push_back((number, write));
    }

    fn take_turn(&mut self) -> Option<(u64, Waiting<T>)> {
        let author = self.turns.pop_front()?;
        let taken = self.take_oldest(author);
        if self.writes.contains_key(&author) {
            self.turns.push_back(author);
        }
        Some(taken)
    }

    /// Removes an author's oldest write, which has this number.
    fn remove(&mut self, author: Option<UserId>, number: u64) -> Waiting<T> {
        let (oldest, write) = self.take_oldest(author);
        assert_eq!(oldest, number, "an author's writes keep their order");
        if !self.writes.contains_key(&author) {
            self.turns.retain(|other| *other != author);
        }
        write
    }

    fn take_oldest(&mut self, author: Option<UserId>) -> (u64, Waiting<T>) {
        let own = self.writes.get_mut(&author).expect(HAS_WRITES);
        let (number, write) = own.pop_front().expect(HAS_WRITES);
        if own.is_empty() {
            self.writes.remove(&author);
        }
        self.items -= 1;
        self.bytes -= write.bytes;
        (number, write)
    }

    /// Bytes of the write whose turn is next.
    fn next_bytes(&self) -> usize {
        let next = self.turns.front().map(|author| &self.writes[author]);
        let next = next.and_then(VecDeque::front);
        next.map_or(0, |(_, write)| write.bytes)
    }
}

const HAS_LINE: &str = "a place with something waiting has a line";
const HAS_WRITES: &str = "an author with a turn has something waiting";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

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
                overdue: a:1#0
                take: b:1#1 a:2#2
                overdue: -
                take: -"#]],
        );
        check(
            "a:1 a:1 | take | a:1 | wait 5 | overdue | done a | take | a:1 | take",
            expect![[r#"
                take: a:1#0 a:1#1
                overdue: a:1#2
                take: -
                take: a:1#3"#]],
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
        batch_items_max: 3,
        batch_bytes_max: 100,
    };

    /// Runs a script: `a:1*90` is a write of 90 bytes by author 1 to session a, the rest are the queue's own words.
    fn check(script: &str, expected: Expect) {
        let began = start();
        let mut now = began;
        let mut queue = WriteQueue::new(BOUNDS);
        let mut out = Vec::new();
        let mut under_way = Vec::new();
        let mut number = 0;
        let show = |name: &str, writes: &[Waiting<String>]| {
            let items: Vec<&str> = writes.iter().map(|write| write.item.as_str()).collect();
            let items = if items.is_empty() {
                "-".to_owned()
            } else {
                items.join(" ")
            };
            format!("{name}: {items}")
        };
        let mut words = script
            .split([' ', '|'])
            .filter(|word| !word.is_empty())
            .peekable();
        while let Some(word) = words.next() {
            match word {
                "take" => {
                    let batch = queue.take();
                    under_way.extend(batch.iter().map(|write| write.place));
                    out.push(show(word, &batch));
                }
                "overdue" => out.push(show(word, &queue.take_overdue(now))),
                "wait" => now += Duration::from_secs(words.next().unwrap().parse().unwrap()),
                "done" => {
                    let mut named = Vec::new();
                    while let Some(name) = words.next_if(|word| word.len() == 1) {
                        named.push(place(name));
                    }
                    let is_meant = |place: &Place| named.is_empty() || named.contains(place);
                    queue.on_done(under_way.extract_if(.., |place| is_meant(place)));
                }
                write => {
                    let (what, bytes) = write.split_once('*').unwrap_or((write, "1"));
                    let (where_to, author) = what.split_once(':').unwrap();
                    let pushed = queue.push(Waiting {
                        place: place(where_to),
                        author: user(author.parse().unwrap()),
                        bytes: bytes.parse().unwrap(),
                        since: now,
                        item: format!("{what}#{number}"),
                    });
                    match pushed {
                        Ok(()) => number += 1,
                        Err((full, _)) => out.push(format!("{what}: {full:?}")),
                    }
                }
            }
        }
        expected.assert_eq(&out.join("\n"));
    }

    proptest! {
        /// Whatever comes and goes: nothing is lost, doubled or overtaken by its author, and every bound holds.
        #[test]
        fn nothing_is_lost_and_everybody_gets_a_turn(
            steps in prop::collection::vec((0..8_u8, 0..6_u8, 0..5_u8, 1..150_usize), 1..400)
        ) {
            let mut now = start();
            let mut queue = WriteQueue::new(BOUNDS);
            let mut waiting: Vec<(Place, Option<UserId>, u32)> = Vec::new();
            let mut under_way: Vec<Vec<Place>> = Vec::new();
            // For each that waits, how many batches its place has had without it.
            let mut passed: HashMap<u32, usize> = HashMap::new();
            let mut number = 0;
            for (step, where_to, author, bytes) in steps {
                match step {
                    0..5 => {
                        let place = Place(Uuid::from_u128(where_to.into()));
                        let author = user(author.into());
                        let write = Waiting { place, author, bytes, since: now, item: number };
                        match queue.push(write) {
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
                                waiting.len() == BOUNDS.items_max
                                    || queue.bytes() + write.bytes > BOUNDS.bytes_max
                            ),
                        }
                    }
                    5 => {
                        let is_ready = queue.is_ready();
                        let batch = queue.take();
                        prop_assert_eq!(is_ready, !batch.is_empty());
                        prop_assert!(batch.len() <= BOUNDS.batch_items_max);
                        let bytes: usize = batch.iter().map(|write| write.bytes).sum();
                        prop_assert!(batch.len() == 1 || bytes <= BOUNDS.batch_bytes_max);
                        let places: HashSet<Place> = batch.iter().map(|write| write.place).collect();
                        prop_assert!(under_way.iter().flatten().all(|place| !places.contains(place)));
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
                        if !places.is_empty() {
                            under_way.push(places.into_iter().collect());
                        }
                    }
                    6 => {
                        if !under_way.is_empty() {
                            queue.on_done(under_way.remove(0));
                        }
                    }
                    _ => {
                        now += Duration::from_secs(1);
                        for write in queue.take_overdue(now) {
                            prop_assert!(now >= write.since + BOUNDS.wait_max);
                            let first = waiting.remove(0);
                            prop_assert_eq!((first.0, first.1, first.2), (write.place, write.author, write.item));
                            passed.remove(&write.item);
                        }
                        prop_assert!(queue.deadline().is_none_or(|deadline| deadline > now));
                    }
                }
                prop_assert_eq!(queue.len(), waiting.len());
                prop_assert!(queue.len() <= BOUNDS.items_max && queue.bytes() <= BOUNDS.bytes_max);
            }
            // In the end everything goes, and nothing is remembered.
            loop {
                under_way.drain(..).for_each(|places| queue.on_done(places));
                let batch = queue.take();
                if batch.is_empty() {
                    break;
                }
                waiting.retain(|(.., number)| batch.iter().all(|write| write.item != *number));
                under_way.push(batch.iter().map(|write| write.place).collect());
            }
            prop_assert!(waiting.is_empty() && queue.is_empty() && queue.bytes() == 0);
            prop_assert!(queue.lines.is_empty() && queue.authors.is_empty() && queue.turns.is_empty());
        }

        /// However much a flooder has waiting, a newcomer elsewhere is in the next batch but so many.
        #[test]
        fn a_flood_is_not_felt_elsewhere(flooded in 1..6_u128) {
            let bounds = Bounds { items_max: 4_096, author_items_max: 4_096, ..BOUNDS };
            let mut queue = WriteQueue::new(bounds);
            for number in 0..4_096 {
                let _ = queue.push(Waiting {
                    place: Place(Uuid::from_u128(number % flooded)),
                    author: user(1),
                    bytes: 0,
                    since: start(),
                    item: false,
                });
            }
            let place = Place(Uuid::from_u128(99));
            let newcomer = Waiting { place, author: user(2), bytes: 0, since: start(), item: true };
            prop_assert!(queue.push(newcomer).is_ok(), "there is room");
            let mut batches = 0;
            loop {
                batches += 1;
                let batch = queue.take();
                if batch.iter().any(|write| write.item) {
                    break;
                }
                queue.on_done(batch.iter().map(|write| write.place));
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

//! The ring: the latest events of one session, in memory.
//!
//! Returns the events after a position. Bounded by count and by bytes; drops the oldest event first, but never one that
//! was not flushed. Knows nothing about receivers. Invariant: the stored numbers are consecutive and end at `head`.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::protocol::id::Seq;
use crate::protocol::notify::Event;

/// The latest events of a session's log.
#[derive(Debug)]
pub(crate) struct History {
    head: Seq,
    events: VecDeque<Held>,
    bytes: usize,
}

#[derive(Debug)]
struct Held {
    json: Bytes,
    origin: Origin,
}

/// The source of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A notification. It is true unless someone forged it.
    Hint,
    /// A page of the log. It is always true.
    Log,
}

impl History {
    /// Creates an empty ring whose newest number is `head`.
    #[must_use]
    pub(crate) fn new(head: Seq) -> Self {
        Self {
            head,
            events: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Appends the next event.
    pub(crate) fn append(&mut self, event: &Event, origin: Origin) {
        assert_eq!(
            event.seq,
            self.head.next(),
            "the ring takes only consecutive numbers"
        );
        self.head = event.seq;
        self.bytes += event.json.len();
        self.events.push_back(Held {
            json: event.json.clone(),
            origin,
        });
    }

    /// Drops the oldest events until the ring holds at most `events_max` events and `bytes_max` bytes. Keeps every
    /// event after `kept`, even beyond these bounds.
    pub(crate) fn trim(&mut self, events_max: usize, bytes_max: usize, kept: Seq) {
        while (self.events.len() > events_max || self.bytes > bytes_max)
            && self.reach() < kept
            && let Some(event) = self.events.pop_front()
        {
            self.bytes -= event.json.len();
        }
    }

    /// Returns the events after `position`, or `None` if the ring does not reach back to it.
    #[must_use]
    pub(crate) fn after(&self, position: Seq) -> Option<impl Iterator<Item = &Bytes> + Clone> {
        if position < self.reach() {
            return None;
        }
        let skipped = usize::try_from(position.0 - self.reach().0).unwrap_or(usize::MAX);
        Some(self.events.iter().skip(skipped).map(|held| &held.json))
    }

    /// Returns the event with a number if only a notification, and not the log, has confirmed it.
    #[must_use]
    pub(crate) fn unconfirmed(&self, seq: Seq) -> Option<&Bytes> {
        let held = self.events.get(self.place(seq)?)?;
        (held.origin == Origin::Hint).then_some(&held.json)
    }

    /// Records that the log has the event with this number.
    pub(crate) fn confirm(&mut self, seq: Seq) {
        if let Some(held) = self.place(seq).and_then(|place| self.events.get_mut(place)) {
            held.origin = Origin::Log;
        }
    }

    /// Returns the newest number.
    #[must_use]
    pub(crate) fn head(&self) -> Seq {
        self.head
    }

    /// Returns the lowest position that [`Self::after`] accepts: the number before the oldest stored event.
    #[must_use]
    pub(crate) fn reach(&self) -> Seq {
        Seq(self.head.0 - self.events.len() as u64)
    }

    /// Returns the bytes of the stored events.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn place(&self, seq: Seq) -> Option<usize> {
        usize::try_from(seq.0.checked_sub(self.reach().0 + 1)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_returns_the_events_after_a_position() {
        let history = filled(5, 3);
        assert_eq!(numbers(&history, 5), Some(vec![6, 7, 8]));
        assert_eq!(numbers(&history, 7), Some(vec![8]));
        assert_eq!(numbers(&history, 8), Some(vec![]));
        assert_eq!(numbers(&history, 9), Some(vec![]));
        assert_eq!(numbers(&history, 4), None);
    }

    #[test]
    fn it_returns_only_events_that_the_log_has_not_confirmed() {
        let mut history = filled(5, 2);
        history.append(&event(8), Origin::Log);
        history.append(&event(9), Origin::Hint);
        history.confirm(Seq(6));
        let unconfirmed = |seq| history.unconfirmed(Seq(seq)).map(|json| &json[..]);
        let found = [5, 6, 7, 8, 9, 10].map(unconfirmed);
        assert_eq!(found, [None, None, Some(&b"7"[..]), None, Some(b"9"), None]);
    }

    #[test]
    fn trimming_drops_the_oldest_but_nothing_unflushed() {
        let mut history = filled(0, 6);
        history.trim(2, usize::MAX, Seq(3));
        assert_eq!(numbers(&history, 3), Some(vec![4, 5, 6]));
        history.trim(2, usize::MAX, Seq(6));
        assert_eq!(numbers(&history, 4), Some(vec![5, 6]));
        history.trim(2, 1, Seq(6));
        assert_eq!(numbers(&history, 5), Some(vec![6]));
    }

    #[test]
    #[should_panic(expected = "consecutive")]
    fn appending_past_a_gap_panics() {
        filled(0, 1).append(&event(3), Origin::Hint);
    }

    proptest! {
        #[test]
        fn the_bounds_hold_and_bytes_are_counted(
            base in 0u64..9,
            count in 0u64..40,
            most in 0usize..20,
            bytes in 0usize..60,
        ) {
            let mut history = filled(base, count);
            history.trim(most, bytes, history.head());
            prop_assert!(history.events.len() <= most && history.bytes <= bytes);
            prop_assert_eq!(history.bytes, history.events.iter().map(|held| held.json.len()).sum::<usize>());
            prop_assert_eq!(history.head(), Seq(base + count));
        }
    }

    fn filled(base: u64, count: u64) -> History {
        let mut history = History::new(Seq(base));
        for seq in base + 1..=base + count {
            history.append(&event(seq), Origin::Hint);
        }
        history
    }

    fn event(seq: u64) -> Event {
        Event::new(Seq(seq), &seq.to_string())
    }

    fn numbers(history: &History, position: u64) -> Option<Vec<u64>> {
        let events = history.after(Seq(position))?;
        Some(
            events
                .map(|json| std::str::from_utf8(json).unwrap().parse().unwrap())
                .collect(),
        )
    }
}

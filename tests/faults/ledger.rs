//! The events that one viewer has received in one session, and the errors in them.
//!
//! Every number must arrive exactly once and in order. The ledger counts any deviation and never repairs it, so every
//! viewer detects a gateway that breaks the guarantee.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

/// Counts of broken guarantees. The run passes only if all of them are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flaws {
    /// Events in the log that were never received; acknowledged messages that are missing; texts that differ.
    pub(crate) lost: u64,
    /// Events that were received twice, written twice, or never committed.
    pub(crate) doubled: u64,
    /// Numbers that the gateway skipped.
    pub(crate) gaps: u64,
    /// Numbers that arrived after a later one, and resumes at another position than the viewer's.
    pub(crate) disorder: u64,
    /// Final tallies that differ from the table.
    pub(crate) tallies: u64,
}

impl Flaws {
    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.gaps += other.gaps;
        self.disorder += other.disorder;
        self.tallies += other.tallies;
    }

    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// All events received since the viewer's start.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The number before the first event.
    first: u64,
    position: u64,
    events: Vec<(u64, u64)>,
    skipped: BTreeSet<u64>,
    flaws: Flaws,
}

/// One row of the log: its number and a fingerprint of its text.
pub(crate) type Row = (u64, u64);

/// Returns a hash that identifies a text.
pub(crate) fn fingerprint(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

impl Ledger {
    /// Starts over after `seq`, as the gateway announced.
    pub(crate) fn begin(&mut self, seq: u64) {
        *self = Self {
            first: seq,
            position: seq,
            flaws: self.flaws,
            ..Self::default()
        };
    }

    /// Continues after `seq`, as the gateway announced.
    pub(crate) fn go_on(&mut self, seq: u64) {
        if seq != self.position {
            self.flaws.disorder += 1;
        }
    }

    pub(crate) fn receive(&mut self, seq: u64, text: &str) {
        let due = self.position + 1;
        if seq > due {
            self.flaws.gaps += 1;
            self.skipped.extend(due..seq);
        } else if seq < due {
            if self.skipped.remove(&seq) {
                self.flaws.disorder += 1;
            } else {
                self.flaws.doubled += 1;
                return;
            }
        }
        self.position = self.position.max(seq);
        self.events.push((seq, fingerprint(text)));
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn received(&self) -> u64 {
        self.events.len() as u64
    }

    /// Compares the received events with `log`, the complete log sorted by number.
    pub(crate) fn audit(&self, log: &[Row]) -> Flaws {
        let mut flaws = self.flaws;
        let mut received = self.events.clone();
        received.sort_unstable();
        for row in log.iter().filter(|(seq, _)| *seq > self.first) {
            if received.binary_search(row).is_err() {
                flaws.lost += 1;
            }
        }
        for event in &self.events {
            flaws.doubled += u64::from(log.binary_search(event).is_err());
        }
        flaws
    }
}

#[cfg(test)]
#[allow(
    dead_code,
    reason = "a binary without a harness compiles these and does not run them"
)]
mod tests {
    use super::*;

    #[test]
    fn events_in_order_have_no_flaws() {
        let (ledger, log) = after(&[1, 2, 3]);
        assert!(ledger.audit(&log).is_none());
    }

    #[test]
    fn every_flaw_is_counted() {
        let flaws = |numbers: &[u64]| {
            let (ledger, log) = after(numbers);
            ledger.audit(&log)
        };
        assert_eq!((flaws(&[1, 2]).lost, flaws(&[1, 3]).lost), (1, 1));
        assert_eq!(flaws(&[1, 3]).gaps, 1);
        assert_eq!(flaws(&[1, 2, 2, 3]).doubled, 1);
        assert_eq!(flaws(&[1, 3, 2]).disorder, 1);
        assert_eq!(flaws(&[1, 2, 3, 4]).doubled, 1);
    }

    fn after(numbers: &[u64]) -> (Ledger, Vec<Row>) {
        let mut ledger = Ledger::default();
        ledger.begin(0);
        for seq in numbers {
            ledger.receive(*seq, "text");
        }
        (
            ledger,
            (1..=3).map(|seq| (seq, fingerprint("text"))).collect(),
        )
    }
}

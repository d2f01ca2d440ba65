//! What one viewer has received of one session, and what is wrong with it.
//!
//! A number is due exactly once and in its turn. Whatever comes otherwise is counted and not repaired, so that a gateway
//! that breaks its promise is found out by every viewer.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

/// Broken promises. All of them are zero, or the run has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flaws {
    /// In the log or acknowledged, and never received or not in the table; or received with another text.
    pub(crate) lost: u64,
    /// Received, or written, more often than it was committed: twice, or without having been.
    pub(crate) doubled: u64,
    /// Numbers that were skipped.
    pub(crate) gaps: u64,
    /// Numbers that came after a later one, or a position that is not where the viewer stood.
    pub(crate) disorder: u64,
    /// Final tallies that are not what the table says.
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

/// Everything received since the viewer's first number.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The number before the first, once there was a start.
    first: u64,
    position: u64,
    events: Vec<(u64, u64)>,
    skipped: BTreeSet<u64>,
    flaws: Flaws,
}

/// One row of the log: its number and a fingerprint of its text.
pub(crate) type Row = (u64, u64);

/// Tells texts apart.
pub(crate) fn fingerprint(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

impl Ledger {
    /// The gateway says that there is a new beginning after `seq`.
    pub(crate) fn begin(&mut self, seq: u64) {
        *self = Self {
            first: seq,
            position: seq,
            flaws: self.flaws,
            ..Self::default()
        };
    }

    /// The gateway says that it goes on after `seq`.
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

    /// Compares with the log, of which `log` is all that there is, by number.
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
    fn what_comes_in_its_turn_is_right() {
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

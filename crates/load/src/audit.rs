//! Checks a viewer's event numbers against the promise: consecutive, each once, in order.
//!
//! A skipped number is missing until it arrives. A number that arrives late was out of order. A number that arrives
//! again is a duplicate. A number that never arrives is lost. Events that the gateway says it can no longer deliver
//! (`recovered: false`, `reset`) count separately, as skipped.

use std::ops::{AddAssign, RangeInclusive};

use serde::Serialize;

use crate::limits::MISSING_RANGES_MAX;

/// The counts of an audit, summed over viewers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Audit {
    /// Events that arrived, each counted once.
    pub(crate) received: u64,
    /// Events that never arrived, although later events did or the log continued.
    pub(crate) lost: u64,
    /// Events that arrived again.
    pub(crate) duplicates: u64,
    /// Times that numbers were skipped.
    pub(crate) gaps: u64,
    /// Events that arrived after a higher number.
    pub(crate) order_errors: u64,
    /// Events that the gateway said it could no longer deliver.
    pub(crate) skipped: u64,
    /// Times that the gateway said so.
    pub(crate) restarts: u64,
}

impl Audit {
    /// Returns the number of events to receive.
    #[must_use]
    pub(crate) fn expected(&self) -> u64 {
        self.received + self.lost + self.skipped
    }

    /// Whether the gateway kept the promise.
    #[must_use]
    pub(crate) fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicates == 0 && self.gaps == 0 && self.order_errors == 0
    }
}

impl AddAssign for Audit {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        // Wrapping: a late event subtracts a loss that another interval counted.
        self.lost = self.lost.wrapping_add(other.lost);
        self.duplicates += other.duplicates;
        self.gaps += other.gaps;
        self.order_errors += other.order_errors;
        self.skipped += other.skipped;
        self.restarts += other.restarts;
    }
}

/// One viewer's view of one log.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The highest number that arrived; `None` before the first `subscribed`.
    last: Option<u64>,
    missing: Vec<RangeInclusive<u64>>,
}

impl Ledger {
    /// Returns the highest number that arrived.
    pub(crate) fn last(&self) -> Option<u64> {
        self.last
    }

    /// Handles the viewer's position in `subscribed` or `reset`.
    pub(crate) fn on_start(&mut self, seq: u64, is_recovered: bool, audit: &mut Audit) {
        let Some(last) = self.last else {
            self.last = Some(seq);
            return;
        };
        if is_recovered {
            self.pass_over(last, seq, audit);
        } else {
            audit.restarts += 1;
            audit.skipped += seq.saturating_sub(last);
            self.last = Some(seq);
        }
    }

    /// Handles an event.
    pub(crate) fn on_event(&mut self, seq: u64, audit: &mut Audit) {
        let last = self.last.unwrap_or(seq.saturating_sub(1));
        if seq == last + 1 {
            audit.received += 1;
            self.last = Some(seq);
        } else if seq > last {
            self.pass_over(last, seq - 1, audit);
            audit.received += 1;
            self.last = Some(seq);
        } else if self.take_missing(seq) {
            audit.received += 1;
            audit.order_errors += 1;
            audit.lost = audit.lost.wrapping_sub(1);
        } else {
            audit.duplicates += 1;
        }
    }

    /// Ends the audit of a log that reaches to `head`. Events that have not arrived are lost.
    pub(crate) fn on_end(&self, head: u64, audit: &mut Audit) {
        if let Some(last) = self.last {
            audit.lost = audit.lost.wrapping_add(head.saturating_sub(last));
        }
    }

    fn pass_over(&mut self, last: u64, until: u64, audit: &mut Audit) {
        if until > last {
            audit.gaps += 1;
            audit.lost = audit.lost.wrapping_add(until - last);
            if self.missing.len() == MISSING_RANGES_MAX {
                self.missing.remove(0);
            }
            self.missing.push(last + 1..=until);
            self.last = Some(until);
        }
    }

    fn take_missing(&mut self, seq: u64) -> bool {
        let Some(place) = self.missing.iter().position(|range| range.contains(&seq)) else {
            return false;
        };
        let range = self.missing.remove(place);
        let parts = [*range.start()..=seq - 1, seq + 1..=*range.end()];
        self.missing
            .extend(parts.into_iter().filter(|part| !part.is_empty()));
        true
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn consecutive_numbers_are_received() {
        check("start 10 | 11 12 13 | end 13", expect!["received 3"]);
    }

    #[test]
    fn a_number_that_never_arrives_is_lost() {
        check(
            "start 10 | 11 14 15 | end 15",
            expect!["received 3 lost 2 gaps 1"],
        );
    }

    #[test]
    fn a_number_that_arrives_late_is_out_of_order_and_not_lost() {
        check(
            "start 10 | 11 14 13 12 | end 14",
            expect!["received 4 gaps 1 order 2"],
        );
    }

    #[test]
    fn a_number_that_arrives_again_is_a_duplicate() {
        check(
            "start 10 | 11 12 12 11 10 | end 12",
            expect!["received 2 duplicates 3"],
        );
        check(
            "start 10 | 13 12 12 | end 13",
            expect!["received 2 lost 1 duplicates 1 gaps 1 order 1"],
        );
    }

    #[test]
    fn numbers_missing_at_the_end_are_lost() {
        check("start 10 | 11 | end 15", expect!["received 1 lost 4"]);
        check("end 15", expect![""]);
    }

    #[test]
    fn events_before_a_new_start_are_skipped() {
        check(
            "start 10 | 11 | fresh 20 | 21 | end 21",
            expect!["received 2 skipped 9 restarts 1"],
        );
        // The database went back in time and assigns numbers again.
        check(
            "start 10 | 11 12 | fresh 5 | 6 7 | end 7",
            expect!["received 4 restarts 1"],
        );
    }

    #[test]
    fn a_recovery_at_a_later_number_is_a_gap() {
        check(
            "start 10 | 11 | start 11 | 12 | end 12",
            expect!["received 2"],
        );
        check(
            "start 10 | 11 | start 13 | 14 | end 14",
            expect!["received 2 lost 2 gaps 1"],
        );
    }

    #[test]
    fn the_remembered_gaps_are_bounded() {
        let (mut ledger, mut audit) = (Ledger::default(), Audit::default());
        ledger.on_start(0, false, &mut audit);
        for seq in (2..4_000).step_by(2) {
            ledger.on_event(seq, &mut audit);
        }
        assert_eq!(ledger.missing.len(), MISSING_RANGES_MAX);
        assert_eq!((audit.received, audit.lost), (1_999, 1_999));
    }

    proptest! {
        #[test]
        fn every_number_is_received_or_lost(
            mut seqs in prop::collection::vec(1_u64..60, 0..80),
            halves in prop::collection::vec(any::<bool>(), 0..80),
        ) {
            let (mut ledger, mut total) = (Ledger::default(), Audit::default());
            ledger.on_start(0, false, &mut total);
            for (index, seq) in seqs.iter().enumerate() {
                // Counted in intervals, as the workers do.
                let mut interval = Audit::default();
                ledger.on_event(*seq, &mut interval);
                if halves.get(index).copied().unwrap_or(false) {
                    ledger.on_event(*seq, &mut interval);
                }
                total += interval;
            }
            ledger.on_end(60, &mut total);
            let given = seqs.len() as u64 + halves.iter().take(seqs.len()).filter(|half| **half).count() as u64;
            seqs.sort_unstable();
            seqs.dedup();
            prop_assert_eq!(total.received, seqs.len() as u64);
            prop_assert_eq!(total.lost, 60 - seqs.len() as u64);
            prop_assert_eq!(total.duplicates, given - seqs.len() as u64);
        }
    }

    /// Runs a script of a viewer's frames.
    fn check(script: &str, expected: Expect) {
        let (mut ledger, mut audit) = (Ledger::default(), Audit::default());
        for step in script.split(" | ") {
            let words: Vec<&str> = step.split(' ').collect();
            let number = |word: &str| word.parse::<u64>().unwrap();
            match words.as_slice() {
                ["start", seq] => ledger.on_start(number(seq), true, &mut audit),
                ["fresh", seq] => ledger.on_start(number(seq), false, &mut audit),
                ["end", head] => ledger.on_end(number(head), &mut audit),
                events => events
                    .iter()
                    .for_each(|seq| ledger.on_event(number(seq), &mut audit)),
            }
        }
        let counts = [
            ("received", audit.received),
            ("lost", audit.lost),
            ("duplicates", audit.duplicates),
            ("gaps", audit.gaps),
            ("order", audit.order_errors),
            ("skipped", audit.skipped),
            ("restarts", audit.restarts),
        ];
        let said: Vec<String> = counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        expected.assert_eq(&said.join(" "));
    }
}

//! Decides when messages are due, and which rate a search tries next.
//!
//! The schedule is open loop: a message is due at its time whether or not the previous one has arrived, and every
//! measurement starts at that time. A gateway that stalls is therefore charged for every message that waits.

use crate::limits::{HALVINGS, STEPS_MAX};

/// A steady rate of messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The time of the first message, in microseconds of the run's clock.
    pub(crate) start_us: u64,
    pub(crate) per_second: f64,
    pub(crate) count: u64,
    /// The number of the first message.
    pub(crate) first: u64,
}

impl Pace {
    /// Creates a pace with as many messages as fit into `seconds`.
    pub(crate) fn lasting(start_us: u64, per_second: f64, seconds: f64, first: u64) -> Self {
        Self {
            start_us,
            per_second,
            count: whole(per_second * seconds),
            first,
        }
    }

    /// Returns when the message at `index` is due.
    pub(crate) fn due_us(&self, index: u64) -> u64 {
        self.start_us + whole(index as f64 * 1e6 / self.per_second)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates and times are small and positive"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// Searches for the highest rate that the gateway serves in time. Raises the rate until one
/// is too high, then narrows the range.
#[derive(Clone, Debug)]
pub(crate) struct LimitSearch {
    good: Option<f64>,
    bad: Option<f64>,
    next: f64,
    steps_left: u32,
    halvings_left: u32,
}

/// The factor between one rate and the next.
const GROWTH: f64 = 1.5;

impl LimitSearch {
    pub(crate) fn from(rate: f64) -> Self {
        Self {
            good: None,
            bad: None,
            next: rate,
            steps_left: STEPS_MAX,
            halvings_left: HALVINGS,
        }
    }

    /// Returns the rate to try next, or `None` at the end of the search.
    pub(crate) fn next(&self) -> Option<f64> {
        (self.steps_left > 0).then_some(self.next)
    }

    /// Records whether the gateway served the rate in time.
    pub(crate) fn on_step(&mut self, is_good: bool) {
        self.steps_left -= 1;
        if is_good {
            self.good = Some(self.next);
        } else {
            self.bad = Some(self.next);
        }
        match (self.good, self.bad) {
            (Some(good), None) => self.next = good * GROWTH,
            (Some(good), Some(bad)) if self.halvings_left > 0 => {
                self.halvings_left -= 1;
                self.next = (good * bad).sqrt();
            }
            // Even the first rate was too high: lower it until one is not.
            (None, Some(bad)) if bad > 1.0 => self.next = bad / 2.0,
            (None | Some(_), None | Some(_)) => self.steps_left = 0,
        }
    }

    /// Returns the highest rate that the gateway served in time.
    pub(crate) fn knee(&self) -> Option<f64> {
        self.good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_at_their_times_without_drift() {
        let pace = Pace::lasting(1_000_000, 3.0, 10.0, 0);
        assert_eq!(pace.count, 30);
        assert_eq!(
            [0, 1, 2, 3].map(|beat| pace.due_us(beat)),
            [1_000_000, 1_333_333, 1_666_667, 2_000_000]
        );
        assert_eq!(pace.due_us(30), 11_000_000);
    }

    #[test]
    fn the_search_finds_the_limit() {
        for limit in [3.0, 55.0, 777.0, 12_345.0] {
            let mut search = LimitSearch::from(20.0);
            let mut steps = 0;
            while let Some(rate) = search.next() {
                search.on_step(rate <= limit);
                steps += 1;
            }
            let knee = search.knee().unwrap();
            assert!(knee <= limit && knee > limit * 0.9, "{knee} of {limit}");
            assert!(steps <= STEPS_MAX);
        }
    }

    #[test]
    fn a_search_ends_if_every_rate_is_served_or_none() {
        for is_good in [true, false] {
            let mut search = LimitSearch::from(20.0);
            let mut steps = 0;
            while search.next().is_some() {
                search.on_step(is_good);
                steps += 1;
            }
            assert!(steps <= STEPS_MAX);
            assert_eq!(search.knee().is_some(), is_good);
        }
    }
}

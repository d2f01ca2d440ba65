//! The counts of a worker since its last report, and their sums.
//!
//! Histograms are merged, never averaged: a run's percentiles are those of all its deliveries.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::audit::Audit;

/// A histogram of times in microseconds, with three significant digits.
#[derive(Clone, Debug)]
pub(crate) struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new(3).expect("three digits are allowed"))
    }
}

impl Times {
    pub(crate) fn record(&mut self, us: u64) {
        self.record_many(us, 1);
    }

    pub(crate) fn record_many(&mut self, us: u64, count: u64) {
        // The histogram grows as needed, so recording cannot fail.
        let _ = self.0.record_n(us.max(1), count);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn ms_at(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Returns the figures for a table; `None` if nothing was measured.
    #[must_use]
    pub(crate) fn spread(&self) -> Option<Spread> {
        (!self.0.is_empty()).then(|| Spread {
            count: self.0.len(),
            mean_ms: self.0.mean() / 1e3,
            min_ms: self.0.min() as f64 / 1e3,
            p50_ms: self.ms_at(0.5),
            p90_ms: self.ms_at(0.9),
            p99_ms: self.ms_at(0.99),
            p999_ms: self.ms_at(0.999),
            max_ms: self.0.max() as f64 / 1e3,
        })
    }

    /// Returns a histogram whose bounds grow by a constant factor.
    #[must_use]
    pub(crate) fn bars(&self, count: usize) -> Vec<Bar> {
        let (low, high) = (self.0.min().max(1) as f64, self.0.max() as f64 + 1.0);
        let factor = (high / low).powf(1.0 / count as f64).max(1.000_001);
        self.fill(
            (0..=count)
                .map(|bound| low * factor.powf(bound as f64))
                .collect(),
        )
    }

    /// Returns a histogram with bars of equal width, from zero on.
    #[must_use]
    pub(crate) fn even_bars(&self, count: usize) -> Vec<Bar> {
        let width = (self.0.max() as f64 + 1.0) / count as f64;
        self.fill((0..=count).map(|bound| width * bound as f64).collect())
    }

    fn fill(&self, bounds_us: Vec<f64>) -> Vec<Bar> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let bounds = bounds_us.windows(2);
        let mut bars: Vec<Bar> = bounds
            .map(|bound| Bar {
                from_ms: bound[0] / 1e3,
                to_ms: bound[1] / 1e3,
                count: 0,
            })
            .collect();
        for value in self.0.iter_recorded() {
            let ms = value.value_iterated_to() as f64 / 1e3;
            let place = bars.iter().position(|bar| ms < bar.to_ms);
            let place = place.unwrap_or(bars.len() - 1);
            bars[place].count += value.count_since_last_iteration();
        }
        bars
    }

    /// Returns the curve of percentiles, denser towards the slow end.
    #[must_use]
    pub(crate) fn curve(&self) -> Vec<Point> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut quantiles = vec![0.0, 0.1, 0.25, 0.5, 0.75];
        let mut rest = 0.25;
        // Ends once less than one value lies above the quantile.
        while rest * self.0.len() as f64 >= 1.0 && rest > 1e-6 {
            rest /= 1.5;
            quantiles.push(1.0 - rest);
        }
        quantiles
            .into_iter()
            .map(|quantile| Point {
                quantile,
                ms: self.ms_at(quantile),
            })
            .collect()
    }
}

impl AddAssign<&Self> for Times {
    fn add_assign(&mut self, other: &Self) {
        // The histogram grows as needed, so adding cannot fail.
        let _ = self.0.add(&other.0);
    }
}

/// The percentiles of measured times, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) count: u64,
    pub(crate) mean_ms: f64,
    pub(crate) min_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

/// One bar of a histogram: the number of times between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Bar {
    pub(crate) from_ms: f64,
    pub(crate) to_ms: f64,
    pub(crate) count: u64,
}

/// One point of the curve of percentiles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Point {
    /// The quantile, from 0 to 1.
    pub(crate) quantile: f64,
    /// The time that this share of the measured times did not exceed.
    pub(crate) ms: f64,
}

/// Counts by name.
pub(crate) type Counts = BTreeMap<String, u64>;

/// The counts of a worker, or of a whole run, within a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interval {
    /// From a message's due time to its arrival at each viewer, within the measured time.
    pub(crate) latency: Times,
    /// From a message's due time to its acknowledgement, within the measured time.
    pub(crate) ack: Times,
    pub(crate) vote_ack: Times,
    /// From a message's due time to the commit of its INSERT, within the measured time.
    pub(crate) insert: Times,
    /// From a viewer's due time to its open socket.
    pub(crate) connect: Times,
    /// From `subscribe` to `subscribed`.
    pub(crate) join: Times,
    /// For viewers that were dropped on purpose: from the drop until they caught up again.
    pub(crate) recovery: Times,
    pub(crate) audit: Audit,
    /// Events that arrived, including duplicates.
    pub(crate) deliveries: u64,
    pub(crate) bytes: u64,
    pub(crate) frames: u64,
    pub(crate) messages: WriteCounts,
    pub(crate) votes: WriteCounts,
    /// Sockets that ended, by close code or reason.
    pub(crate) closes: Counts,
    /// Failed attempts to connect, by reason.
    pub(crate) failures: Counts,
    /// Slow readers that the gateway closed.
    pub(crate) evicted: u64,
    /// Viewers that are watching at the end of the interval.
    pub(crate) watching: u64,
}

/// The counts of messages or votes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct WriteCounts {
    /// Writes that were due.
    pub(crate) due: u64,
    /// Writes that were sent to the gateway or the database.
    pub(crate) sent: u64,
    /// Writes that were acknowledged or committed.
    pub(crate) acknowledged: u64,
    /// Writes that were refused, by error code.
    pub(crate) refused: Counts,
}

impl WriteCounts {
    /// Returns the number of writes that were sent but neither acknowledged nor refused.
    #[must_use]
    pub(crate) fn unanswered(&self) -> u64 {
        let refused: u64 = self.refused.values().sum();
        self.sent.saturating_sub(self.acknowledged + refused)
    }
}

impl AddAssign<&Self> for WriteCounts {
    fn add_assign(&mut self, other: &Self) {
        self.due += other.due;
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        add(&mut self.refused, &other.refused);
    }
}

impl AddAssign<&Self> for Interval {
    fn add_assign(&mut self, other: &Self) {
        self.latency += &other.latency;
        self.ack += &other.ack;
        self.vote_ack += &other.vote_ack;
        self.insert += &other.insert;
        self.connect += &other.connect;
        self.join += &other.join;
        self.recovery += &other.recovery;
        self.audit += other.audit;
        self.deliveries += other.deliveries;
        self.bytes += other.bytes;
        self.frames += other.frames;
        self.messages += &other.messages;
        self.votes += &other.votes;
        add(&mut self.closes, &other.closes);
        add(&mut self.failures, &other.failures);
        self.evicted += other.evicted;
        self.watching += other.watching;
    }
}

/// Adds one to the count of a name.
pub(crate) fn count(tally: &mut Counts, name: &str) {
    match tally.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            tally.insert(name.to_owned(), 1);
        }
    }
}

fn add(tally: &mut Counts, other: &Counts) {
    for (name, count) in other {
        *tally.entry(name.clone()).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentiles_of_a_sum_are_those_of_all_values() {
        let (mut fast, mut slow) = (Times::default(), Times::default());
        for _ in 0..990 {
            fast.record(1_000);
        }
        for _ in 0..10 {
            slow.record(500_000);
        }
        fast += &slow;
        let spread = fast.spread().unwrap();
        assert_eq!(spread.count, 1_000);
        let near = |a: f64, b: f64| (a - b).abs() < b * 0.001;
        assert!(
            near(spread.p50_ms, 1.0) && near(spread.p99_ms, 1.0),
            "{spread:?}"
        );
        // The mean of the two p99 values would be 250.
        assert!(
            near(spread.p999_ms, 500.0) && near(spread.max_ms, 500.0),
            "{spread:?}"
        );
    }

    #[test]
    fn bars_and_curve_contain_every_value_once() {
        let mut times = Times::default();
        for us in 1..=10_000 {
            times.record(us * 7);
        }
        let bars = times.bars(30);
        assert_eq!(bars.len(), 30);
        assert_eq!(bars.iter().map(|bar| bar.count).sum::<u64>(), 10_000);
        assert!(
            bars.windows(2)
                .all(|pair| (pair[0].to_ms - pair[1].from_ms).abs() < 1e-9)
        );
        let curve = times.curve();
        assert!(
            curve
                .windows(2)
                .all(|pair| pair[0].quantile < pair[1].quantile && pair[0].ms <= pair[1].ms)
        );
        assert!(curve.last().unwrap().quantile > 0.999);
    }

    #[test]
    fn an_empty_histogram_has_no_percentiles() {
        let times = Times::default();
        assert_eq!(times.spread(), None);
        assert!(times.bars(10).is_empty() && times.curve().is_empty());
        let mut one = Times::default();
        one.record(0);
        assert_eq!(one.bars(10).iter().map(|bar| bar.count).sum::<u64>(), 1);
        assert_eq!(one.spread().unwrap().count, 1);
    }

    #[test]
    fn counts_are_summed_by_name() {
        let mut total = WriteCounts::default();
        for code in ["rate_limited", "slow_mode", "rate_limited"] {
            let mut part = WriteCounts {
                due: 2,
                sent: 2,
                acknowledged: 1,
                ..WriteCounts::default()
            };
            count(&mut part.refused, code);
            total += &part;
        }
        assert_eq!(
            total.refused,
            Counts::from([("rate_limited".into(), 2), ("slow_mode".into(), 1)])
        );
        assert_eq!(
            (total.sent, total.acknowledged, total.unanswered()),
            (6, 3, 0)
        );
    }
}

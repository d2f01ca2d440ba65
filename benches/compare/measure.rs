//! Runs all measurements on one server: idle memory, a steady load, saturation, latency of a smaller crowd.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, whole};
use crate::crowd::Crowd;
use crate::peers::{Peer, Running, Stage};
use crate::process::core_ticks;
use crate::publisher::{Load, Published, Publisher};

/// 99th percentile above which a server counts as saturated.
const SATURATED_US: u64 = 250_000;

/// A step of the search ends early if a delivery is later than this: the step has failed.
const HOPELESS_US: u64 = 1_500_000;

/// Factor by which the search for saturation raises the rate until a step fails.
const GROWTH: f64 = 4.0;

/// Steps between the last rate that succeeded and the first that failed.
const BISECTIONS: u32 = 4;

const STEP_WARM_UP_US: u64 = 500_000;
const STEP_US: u64 = 1_500_000;
/// Longest wait for late deliveries after the last message, in total and without any delivery.
const DRAIN_US: u64 = 20_000_000;
const SILENCE_US: u64 = 2_500_000;

/// Parameters of the measurements, the same for each server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) viewers: usize,
    pub(crate) rate: f64,
    pub(crate) seconds: u64,
    pub(crate) message_bytes: usize,
    pub(crate) near_viewers: usize,
    /// First and highest rate of the search for saturation.
    pub(crate) search: (f64, f64),
    /// Time that a load runs before the measurement, and in which memory settles.
    pub(crate) warm_up_ms: u64,
    pub(crate) generator_core: usize,
    pub(crate) server_core: usize,
}

/// Results of one server in one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) peer: Peer,
    pub(crate) round: usize,
    /// KiB of the server's processes per idle viewer.
    pub(crate) resident_kib_per_viewer: f64,
    pub(crate) proportional_kib_per_viewer: f64,
    /// All viewers at the steady rate.
    pub(crate) steady: Run,
    /// The highest rate that succeeded.
    pub(crate) saturation: Saturation,
    /// Fewer viewers at the same rate.
    pub(crate) near: Run,
}

/// One load as the viewers saw it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) viewers: usize,
    /// Messages per second.
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// Deliveries within the measured time.
    pub(crate) deliveries: u64,
    pub(crate) seconds: f64,
    pub(crate) server_cpu_seconds: f64,
    /// Messages of the whole run.
    pub(crate) published: u64,
    pub(crate) lost: u64,
    pub(crate) disordered: u64,
    pub(crate) closed: u64,
    pub(crate) bytes_per_delivery: f64,
    /// Busy share of each core, 0 to 1.
    pub(crate) generator_core_busy: f64,
    pub(crate) server_core_busy: f64,
    /// Delay of the publisher behind its schedule, and its wait for answers.
    pub(crate) publisher_late_p99_ms: f64,
    pub(crate) publish_p50_ms: f64,
    #[serde(skip)]
    is_hopeless: bool,
}

/// The limit of a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Saturation {
    /// Deliveries per second at the highest rate that succeeded.
    pub(crate) deliveries_per_second: f64,
    /// Every step of the search, in order.
    pub(crate) steps: Vec<Run>,
    /// Whether the core of generator and Postgres was full there. Then the server may be capable of more.
    pub(crate) is_generator_full: bool,
}

impl Run {
    pub(crate) fn deliveries_per_cpu_second(&self) -> f64 {
        self.deliveries as f64 / self.server_cpu_seconds.max(0.001)
    }

    /// Whether all messages arrived, in time.
    pub(crate) fn is_within(&self, p99_ms: f64) -> bool {
        self.p99_ms <= p99_ms && self.closed == 0
    }

    fn is_held(&self) -> bool {
        !self.is_hopeless
            && self.p99_ms * 1e3 <= SATURATED_US as f64
            && self.lost == 0
            && self.closed == 0
            && self.deliveries as f64 >= 0.9 * self.rate * self.seconds * self.viewers as f64
    }
}

/// Runs all measurements on one server.
pub(crate) fn measure(
    peer: Peer,
    round: usize,
    stage: &Stage,
    plan: &Plan,
    mut say: impl FnMut(&str),
) -> anyhow::Result<Outcome> {
    let running = peer.start(stage)?;
    let text_bytes = peer.text_bytes(plan.message_bytes);
    let mut bench = Bench::new(running, stage.clock, *plan, text_bytes)?;

    let before = bench.running.server.memory()?;
    bench.crowd.fill(plan.viewers, 0)?;
    bench.rest(Duration::from_millis(plan.warm_up_ms))?;
    let after = bench.running.server.memory()?;
    let per_viewer = |after: u64, before: u64| (after as f64 - before as f64) / plan.viewers as f64;
    let resident = per_viewer(after.resident_kib, before.resident_kib);
    say(&format!("{resident:.1} KiB a viewer"));

    let (warm_up_us, measured_us) = (plan.warm_up_ms * 1_000, plan.seconds * 1_000_000);
    let steady = bench.run(plan.rate, warm_up_us, measured_us, None)?;
    say(&format!(
        "{:.0} k/CPU-s, p50 {:.1} p99 {:.1} ms{}",
        steady.deliveries_per_cpu_second() / 1e3,
        steady.p50_ms,
        steady.p99_ms,
        faults(&steady)
    ));
    let saturation = bench.saturate()?;
    say(&format!(
        "{:.0} k/s",
        saturation.deliveries_per_second / 1e3
    ));

    bench.crowd.shrink(plan.near_viewers);
    bench.crowd.fill(plan.near_viewers, bench.published)?;
    let near = bench.run(plan.rate, warm_up_us, measured_us, None)?;
    say(&format!(
        "near: p50 {:.1} p99 {:.1} ms",
        near.p50_ms, near.p99_ms
    ));
    Ok(Outcome {
        peer,
        round,
        resident_kib_per_viewer: resident,
        proportional_kib_per_viewer: per_viewer(after.proportional_kib, before.proportional_kib),
        steady,
        saturation,
        near,
    })
}

fn faults(run: &Run) -> String {
    if run.lost + run.disordered + run.closed == 0 {
        return String::new();
    }
    let Run {
        lost,
        disordered,
        closed,
        ..
    } = run;
    format!(" ({lost} lost, {disordered} disordered, {closed} closed)")
}

/// A server with its viewers and its publisher.
struct Bench {
    running: Running,
    crowd: Crowd,
    publisher: Publisher,
    clock: Clock,
    plan: Plan,
    /// Messages published so far, which is the number of the next one.
    published: u64,
}

/// Resources used up to a moment.
struct Usage {
    at_us: u64,
    deliveries: u64,
    server_cpu_seconds: f64,
    generator: (u64, u64),
    server: (u64, u64),
}

impl Bench {
    fn new(running: Running, clock: Clock, plan: Plan, text_bytes: usize) -> anyhow::Result<Self> {
        let publisher = Publisher::start(running.entry.clone(), clock, text_bytes);
        let crowd = Crowd::new(clock, running.address, running.dialect.clone(), text_bytes)?;
        Ok(Self {
            running,
            crowd,
            publisher,
            clock,
            plan,
            published: 0,
        })
    }

    /// Raises the rate until a step fails, then narrows the limit down between the last two rates.
    fn saturate(&mut self) -> anyhow::Result<Saturation> {
        let mut steps = Vec::new();
        let (mut held, mut failed) = (0.0_f64, f64::INFINITY);
        let (mut rate, rate_max) = self.plan.search;
        while failed.is_infinite() && rate <= rate_max {
            let step = self.step(rate)?;
            if step.is_held() {
                held = rate;
                rate *= GROWTH;
            } else {
                failed = rate;
            }
            steps.push(step);
        }
        for _ in 0..BISECTIONS {
            if failed.is_infinite() {
                break;
            }
            rate = if held > 0.0 {
                (held * failed).sqrt()
            } else {
                failed / GROWTH
            };
            let step = self.step(rate)?;
            if step.is_held() {
                held = rate;
            } else {
                failed = rate;
            }
            steps.push(step);
        }
        let best = steps
            .iter()
            .filter(|step| step.is_held())
            .max_by(|a, b| a.rate.total_cmp(&b.rate));
        Ok(Saturation {
            deliveries_per_second: best.map_or(0.0, |best| best.deliveries as f64 / best.seconds),
            is_generator_full: best.is_some_and(|best| best.generator_core_busy > 0.93),
            steps,
        })
    }

    /// Runs one step of the search with all viewers connected. Repeats a narrow failure once, because the machine may have
    /// stalled.
    fn step(&mut self, rate: f64) -> anyhow::Result<Run> {
        let step = self.try_step(rate)?;
        if step.is_held() || step.is_hopeless {
            return Ok(step);
        }
        self.try_step(rate)
    }

    fn try_step(&mut self, rate: f64) -> anyhow::Result<Run> {
        let step = self.run(rate, STEP_WARM_UP_US, STEP_US, Some(HOPELESS_US))?;
        self.crowd.fill(self.plan.viewers, self.published)?;
        Ok(step)
    }

    /// Publishes at a rate and counts deliveries. Ends early if a delivery is later than `hopeless_us`.
    fn run(
        &mut self,
        rate: f64,
        warm_up_us: u64,
        measured_us: u64,
        hopeless_us: Option<u64>,
    ) -> anyhow::Result<Run> {
        let viewers = self.crowd.watching();
        let start_us = self.clock.now_us() + 20_000;
        let from_us = start_us + warm_up_us;
        let to_us = from_us + measured_us;
        self.crowd.begin(from_us)?;
        self.publisher.publish(Load {
            first: self.published,
            count: whole((to_us - start_us) as f64 * rate / 1e6),
            start_us,
            rate,
        })?;
        let hopeless_us = hopeless_us.unwrap_or(u64::MAX);
        self.watch(from_us, hopeless_us)?;
        let before = self.usage()?;
        self.watch(to_us, hopeless_us)?;
        let after = self.usage()?;
        let is_hopeless = self.crowd.counts().latest_us > hopeless_us;
        if is_hopeless {
            self.publisher.stop();
        }
        let published = self.finish()?;
        Ok(self.outcome(viewers, rate, &before, &after, &published, is_hopeless))
    }

    /// Waits until the publisher is done and the late deliveries have arrived.
    fn finish(&mut self) -> anyhow::Result<Published> {
        let start_us = self.clock.now_us();
        let published = loop {
            self.crowd.turn(Duration::from_millis(5))?;
            if let Some(published) = self.publisher.outcome()? {
                break published;
            }
            let waited_us = self.clock.now_us() - start_us;
            ensure!(waited_us < 60_000_000, "the publisher does not finish");
        };
        self.published += published.count;
        let deadline_us = self.clock.now_us() + DRAIN_US;
        let mut missing = self.crowd.missing(self.published);
        let mut progress_us = self.clock.now_us();
        while missing > 0 {
            let now_us = self.clock.now_us();
            if now_us > deadline_us || now_us > progress_us + SILENCE_US {
                break;
            }
            self.crowd.turn(Duration::from_millis(20))?;
            let left = self.crowd.missing(self.published);
            if left != missing {
                progress_us = self.clock.now_us();
                missing = left;
            }
        }
        Ok(published)
    }

    fn outcome(
        &mut self,
        viewers: usize,
        rate: f64,
        before: &Usage,
        after: &Usage,
        published: &Published,
        is_hopeless: bool,
    ) -> Run {
        let counts = self.crowd.counts().clone();
        let missing = self.crowd.missing(self.published);
        self.crowd.skip_to(self.published);
        let busy = |before: (u64, u64), after: (u64, u64)| {
            (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64
        };
        Run {
            viewers,
            rate,
            p50_ms: millis(&counts.latency, 0.5),
            p99_ms: millis(&counts.latency, 0.99),
            max_ms: millis(&counts.latency, 1.0),
            deliveries: after.deliveries - before.deliveries,
            seconds: (after.at_us - before.at_us) as f64 / 1e6,
            server_cpu_seconds: after.server_cpu_seconds - before.server_cpu_seconds,
            published: published.count,
            lost: counts.lost + missing,
            disordered: counts.disordered,
            closed: counts.closed,
            bytes_per_delivery: counts.bytes as f64 / counts.deliveries.max(1) as f64,
            generator_core_busy: busy(before.generator, after.generator),
            server_core_busy: busy(before.server, after.server),
            publisher_late_p99_ms: millis(&published.lateness, 0.99),
            publish_p50_ms: millis(&published.round_trip, 0.5),
            is_hopeless,
        }
    }

    fn watch(&mut self, until_us: u64, hopeless_us: u64) -> anyhow::Result<()> {
        while self.clock.now_us() < until_us && self.crowd.counts().latest_us <= hopeless_us {
            let wait = self.clock.until(until_us).min(Duration::from_millis(50));
            self.crowd.turn(wait)?;
        }
        Ok(())
    }

    fn rest(&mut self, time: Duration) -> anyhow::Result<()> {
        let until_us = self.clock.now_us() + u64::try_from(time.as_micros())?;
        self.watch(until_us, u64::MAX)
    }

    fn usage(&self) -> anyhow::Result<Usage> {
        Ok(Usage {
            at_us: self.clock.now_us(),
            deliveries: self.crowd.counts().deliveries,
            server_cpu_seconds: self
                .running
                .server
                .cpu_seconds()
                .context("the server has ended")?,
            generator: core_ticks(self.plan.generator_core)?,
            server: core_ticks(self.plan.server_core)?,
        })
    }
}

fn millis(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e3
}

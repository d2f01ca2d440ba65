//! Gathers a run's figures: per second, for the measured part, and for the whole run.

use crate::clock::Clock;
use crate::interval::{Interval, Times};
use crate::machine::{self, Usage};
use crate::outcome::{
    Outcome, Recovered, Resources, Run, SearchOutcome, SearchStep, SlowOutcome, StormOutcome, Tick,
    Verdict,
};
use crate::pacer::Paced;
use crate::plan::RunContext;
use crate::proc;
use crate::verdict::{self};
use crate::worker::Collected;

/// The version of the run's JSON.
const FORMAT: u32 = 1;

const TICK_US: u64 = 1_000_000;
const MIB: f64 = 1024.0 * 1024.0;

/// Bars of the histogram, and points of the recovery curve.
const BARS: usize = 48;

/// The figures of a measured part of a run.
#[derive(Clone, Default)]
pub(crate) struct MeasuredPart {
    pub(crate) interval: Interval,
    pub(crate) resources: Resources,
    seconds: f64,
    /// Events that arrived before the part's time, and within it.
    deliveries_before: u64,
    deliveries: u64,
}

impl MeasuredPart {
    pub(crate) fn deliveries_per_second(&self) -> f64 {
        if self.seconds > 0.0 {
            self.deliveries as f64 / self.seconds
        } else {
            0.0
        }
    }
}

/// The values at a moment, to measure differences from.
#[derive(Clone, Default)]
struct Mark {
    at_us: u64,
    usage: Usage,
    /// The CPU time of each worker.
    worked_us: Vec<u64>,
}

/// The figures of a run.
pub(crate) struct Recorder {
    pub(crate) phase: &'static str,
    pub(crate) whole: Interval,
    pub(crate) watching: u64,
    /// Cores that the gateway may use.
    pub(crate) gateway_cores_max: usize,
    clock: Clock,
    gateway: Option<u32>,
    server: String,
    worked_us: Vec<u64>,
    opened: Mark,
    everybody: Usage,
    tick: Mark,
    since_tick: Interval,
    part_mark: Mark,
    part: Option<MeasuredPart>,
    kept: MeasuredPart,
    lateness: Times,
    dealt: (u64, u64),
    storm_at_seconds: Option<f64>,
    search: Option<SearchOutcome>,
    timeline: Vec<Tick>,
}

impl Recorder {
    pub(crate) fn open(shared: &RunContext, server: String) -> Self {
        let gateway = shared
            .plan
            .gateway_pid
            .or_else(|| proc::listener(shared.plan.gateway.address));
        let cores = gateway.and_then(proc::cores_of);
        let clock = shared.clock;
        let worked_us = vec![0; shared.plan.threads];
        let mark = Mark {
            at_us: clock.now_us(),
            usage: Usage::read(gateway),
            worked_us: worked_us.clone(),
        };
        Self {
            phase: "joining",
            whole: Interval::default(),
            watching: 0,
            gateway_cores_max: cores.unwrap_or(usize::MAX),
            clock,
            gateway,
            server,
            worked_us,
            opened: mark.clone(),
            everybody: mark.usage,
            tick: mark,
            since_tick: Interval::default(),
            part_mark: Mark::default(),
            part: None,
            kept: MeasuredPart::default(),
            lateness: Times::default(),
            dealt: (0, 0),
            storm_at_seconds: None,
            search: None,
            timeline: Vec::new(),
        }
    }

    // Recording -----------------------------------------------------------------------------------------

    /// Adds the counts of a worker.
    pub(crate) fn take(&mut self, worker: usize, collected: Collected) {
        self.worked_us[worker] = collected.worked_us;
        self.whole += &collected.interval;
        self.since_tick += &collected.interval;
        if let Some(part) = &mut self.part {
            part.interval += &collected.interval;
        }
    }

    pub(crate) fn on_everybody_there(&mut self) {
        self.everybody = Usage::read(self.gateway);
    }

    pub(crate) fn on_storm(&mut self) {
        self.storm_at_seconds = Some(self.seconds());
    }

    pub(crate) fn on_paced(&mut self, messages: &Paced, votes: &Paced) {
        self.whole.messages.due += messages.due;
        self.whole.votes.due += votes.due;
        self.dealt.0 += messages.dealt;
        self.dealt.1 += votes.dealt;
        self.lateness += &messages.lateness;
        self.lateness += &votes.lateness;
    }

    pub(crate) fn on_search(
        &mut self,
        bound_ms: f64,
        steps: Vec<SearchStep>,
        knee: Option<f64>,
        limited_by: String,
    ) {
        let at_knee = steps.iter().find(|step| Some(step.rate) == knee);
        self.search = Some(SearchOutcome {
            bound_ms,
            knee_rate: knee,
            knee_deliveries: at_knee.map(|step| step.delivered),
            limited_by,
            steps,
        });
    }

    /// Starts to keep counts for a part. Its measured time starts later.
    pub(crate) fn open_part(&mut self) {
        self.part = Some(MeasuredPart::default());
    }

    /// Starts the part's measured time.
    pub(crate) fn begin_part(&mut self) {
        self.part_mark = self.mark();
        if let Some(part) = &mut self.part {
            part.deliveries_before = part.interval.deliveries;
        }
    }

    /// Ends the part's measured time. Its messages may still arrive.
    pub(crate) fn end_part(&mut self) {
        let now = self.mark();
        let resources = self.resources_since(&self.part_mark, &now);
        if let Some(part) = &mut self.part {
            part.seconds = now.at_us.saturating_sub(self.part_mark.at_us) as f64 / 1e6;
            part.deliveries = part.interval.deliveries - part.deliveries_before;
            part.resources = resources;
            if let Some(cores) = part.resources.gateway_cores {
                let used_us = cores * part.seconds * 1e6;
                part.resources.gateway_us_per_delivery =
                    (part.deliveries > 0).then(|| used_us / part.deliveries as f64);
            }
        }
    }

    /// Returns the part, once all its events have arrived.
    pub(crate) fn take_part(&mut self) -> MeasuredPart {
        self.part.take().unwrap_or_default()
    }

    /// Makes a part the subject of the outcome.
    pub(crate) fn keep(&mut self, part: MeasuredPart) {
        self.kept = part;
    }

    /// Ends the current second and adds it to the timeline.
    pub(crate) fn tick(&mut self) -> &Tick {
        let now = self.mark();
        let seconds = (now.at_us.saturating_sub(self.tick.at_us) as f64 / 1e6).max(1e-3);
        let resources = self.resources_since(&self.tick, &now);
        let counted = std::mem::take(&mut self.since_tick);
        let latency = counted.latency.spread();
        self.timeline.push(Tick {
            at_seconds: self.seconds(),
            phase: self.phase,
            watching: self.watching,
            sent: counted.messages.sent as f64 / seconds,
            deliveries: counted.deliveries as f64 / seconds,
            bytes: counted.bytes as f64 / seconds,
            p50_ms: latency.map(|latency| latency.p50_ms),
            p99_ms: latency.map(|latency| latency.p99_ms),
            max_ms: latency.map(|latency| latency.max_ms),
            lost: self.whole.audit.lost,
            generator_busy: resources.generator_busy,
            gateway_cores: resources.gateway_cores,
            gateway_mib: now.usage.gateway_bytes.map(|bytes| bytes as f64 / MIB),
            machine_busy: resources.machine_busy,
        });
        self.tick = now;
        self.timeline.last().expect("it was just pushed")
    }

    // Results -------------------------------------------------------------------------------------------

    pub(crate) fn next_tick_us(&self) -> u64 {
        self.tick.at_us + TICK_US
    }

    /// Whether every write that a writer took was sent and answered.
    pub(crate) fn is_answered(&self) -> bool {
        let (messages, votes) = (&self.whole.messages, &self.whole.votes);
        let is_sent = messages.sent >= self.dealt.0 && votes.sent >= self.dealt.1;
        is_sent && messages.unanswered() == 0 && votes.unanswered() == 0
    }

    fn seconds(&self) -> f64 {
        self.clock.now_us().saturating_sub(self.opened.at_us) as f64 / 1e6
    }

    fn mark(&self) -> Mark {
        Mark {
            at_us: self.clock.now_us(),
            usage: Usage::read(self.gateway),
            worked_us: self.worked_us.clone(),
        }
    }

    fn resources_since(&self, then: &Mark, now: &Mark) -> Resources {
        let elapsed_us = now.at_us.saturating_sub(then.at_us).max(1);
        let worked = now.worked_us.iter().zip(&then.worked_us);
        let busiest_us = worked
            .map(|(now, then)| now.saturating_sub(*then))
            .max()
            .unwrap_or_default();
        Resources {
            generator_busy: busiest_us as f64 / elapsed_us as f64,
            generator_cores: now.usage.generator_cores_since(&then.usage, elapsed_us),
            gateway_cores: now.usage.gateway_cores_since(&then.usage, elapsed_us),
            machine_busy: now.usage.machine_busy_since(&then.usage),
            ..Resources::default()
        }
    }

    /// Creates the outcome.
    pub(crate) fn close(self, shared: &RunContext, absent: u64) -> Outcome {
        let plan = &shared.plan;
        let mut outcome = Outcome {
            format: FORMAT,
            run: self.run(shared),
            verdict: Verdict::default(),
            latency: self.kept.interval.latency.spread(),
            latency_curve: self.kept.interval.latency.curve(),
            latency_bars: self.kept.interval.latency.bars(BARS),
            ack: self.kept.interval.ack.spread(),
            vote_ack: self.kept.interval.vote_ack.spread(),
            insert: self.kept.interval.insert.spread(),
            connect: self.whole.connect.spread(),
            join: self.whole.join.spread(),
            audit: self.whole.audit,
            expected: self.whole.audit.expected(),
            deliveries_per_second: self.kept.deliveries_per_second(),
            bytes: self.whole.bytes,
            frames: self.whole.frames,
            messages: self.whole.messages.clone(),
            votes: self.whole.votes.clone(),
            closes: self.whole.closes.clone(),
            failures: self.whole.failures.clone(),
            absent,
            storm: self.storm_at_seconds.map(|at_seconds| StormOutcome {
                at_seconds,
                dropped: plan.storm.map_or(0, |storm| storm.viewers.into()),
                whole: self.whole.recovery.count(),
                recovery: self.whole.recovery.spread(),
                curve: recovered(&self.whole.recovery),
            }),
            slow: (plan.slow_readers > 0).then(|| SlowOutcome {
                stalled: plan.slow_readers.into(),
                evicted: self.whole.evicted,
            }),
            resources: self.resources(plan.viewers),
            search: self.search,
            timeline: self.timeline,
        };
        outcome.verdict = verdict::judge(&outcome);
        outcome
    }

    fn resources(&self, viewers: u32) -> Resources {
        let per_viewer = |before: u64, after: u64| {
            after.saturating_sub(before) as f64 / 1024.0 / f64::from(viewers)
        };
        let (before, after) = (self.opened.usage, self.everybody);
        let limited_by = match &self.search {
            Some(search) => search.limited_by.clone(),
            None => verdict::limit(&self.kept.resources, self.gateway_cores_max),
        };
        Resources {
            generator_lateness: self.lateness.spread(),
            generator_kib_per_viewer: Some(per_viewer(
                before.generator_bytes,
                after.generator_bytes,
            )),
            gateway_mib: after.gateway_bytes.map(|bytes| bytes as f64 / MIB),
            gateway_kib_per_viewer: before
                .gateway_bytes
                .zip(after.gateway_bytes)
                .map(|(before, after)| per_viewer(before, after)),
            limited_by,
            ..self.kept.resources.clone()
        }
    }

    fn run(&self, shared: &RunContext) -> Run {
        let plan = &shared.plan;
        Run {
            id: shared.run.clone(),
            command: plan.command.clone(),
            started_at: shared.started_at,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            server: self.server.clone(),
            target: plan.gateway.url.clone(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            system: machine::system(),
            sessions: plan.sessions.len(),
            viewers: plan.viewers,
            slow_readers: plan.slow_readers,
            chatters: plan.chatters,
            voters: plan.voters,
            rate: plan.rate,
            vote_rate: plan.vote_rate,
            message_characters: plan.message_characters,
            written_by: plan.route.name(),
            ramp: plan.ramp,
            warm_up_seconds: plan.warm_up.as_secs_f64(),
            measured_seconds: self.kept.seconds,
            threads: plan.threads,
            addresses: plan.addresses as usize,
        }
    }
}

/// Returns the number of viewers that had caught up, over time.
fn recovered(times: &Times) -> Vec<Recovered> {
    let mut whole = 0;
    let mut curve: Vec<Recovered> = Vec::new();
    for bar in times.even_bars(BARS) {
        whole += bar.count;
        curve.push(Recovered {
            ms: bar.to_ms,
            whole,
        });
    }
    curve
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_curve_ends_with_every_viewer_that_caught_up() {
        let mut times = Times::default();
        for ms in [10_u64, 20, 20, 900] {
            times.record(ms * 1_000);
        }
        let curve = recovered(&times);
        assert_eq!(curve.last().map(|point| point.whole), Some(4));
        assert!(
            curve
                .windows(2)
                .all(|pair| pair[0].whole <= pair[1].whole && pair[0].ms < pair[1].ms)
        );
        assert_eq!(curve[2].whole, 3);
        assert!(recovered(&Times::default()).is_empty());
    }
}

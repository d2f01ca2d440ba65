//! What a run showed: what the table prints, `--json` writes and the report draws.

use serde::Serialize;

use crate::audit::Audit;
use crate::interval::{Bar, Point, Spread, Tally, Writes};
use crate::verdict::Verdict;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The version of this format.
    pub(crate) format: u32,
    /// What was run where.
    pub(crate) run: Run,
    /// What it is worth.
    pub verdict: Verdict,
    /// From when a message was due until each viewer had it.
    pub(crate) latency: Option<Spread>,
    /// The same as a curve of percentiles.
    pub(crate) latency_curve: Vec<Point>,
    /// The same as a histogram.
    pub(crate) latency_bars: Vec<Bar>,
    /// From when a message was due until the gateway acknowledged it.
    pub(crate) ack: Option<Spread>,
    /// From when a vote was due until the gateway acknowledged it.
    pub(crate) vote_ack: Option<Spread>,
    /// From when a message was due until its INSERT was committed.
    pub(crate) insert: Option<Spread>,
    /// From when a viewer was due to come until its socket was open.
    pub(crate) connect: Option<Spread>,
    /// From `subscribe` to `subscribed`.
    pub(crate) join: Option<Spread>,
    /// The promise of the log, over the whole run with warm-up and end.
    pub(crate) audit: Audit,
    /// What was to be received by everybody.
    pub(crate) expected: u64,
    /// Events a second over the measured time.
    pub(crate) deliveries_per_second: f64,
    /// Bytes that arrived over the whole run.
    pub(crate) bytes: u64,
    /// WebSocket frames that arrived over the whole run.
    pub(crate) frames: u64,
    /// The messages of the whole run.
    pub(crate) messages: Writes,
    /// The votes of the whole run.
    pub(crate) votes: Writes,
    /// Sockets that ended before the run did, by close code or by what went wrong.
    pub(crate) closes: Tally,
    /// Attempts to connect that failed, by reason.
    pub(crate) failures: Tally,
    /// Viewers that were not watching at the end.
    pub(crate) absent: u64,
    /// The storm, where there was one.
    pub(crate) storm: Option<StormOutcome>,
    /// The slow readers, where there were any.
    pub(crate) slow: Option<SlowOutcome>,
    /// The search for the limit, where there was one.
    pub(crate) search: Option<SearchOutcome>,
    /// Who used how much of the machine.
    pub(crate) resources: Resources,
    /// Second by second.
    pub(crate) timeline: Vec<Tick>,
}

/// What was run where.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Run {
    /// The random mark of the run, which is in its messages.
    pub(crate) id: String,
    /// How it was started: the command line, without secrets.
    pub(crate) command: String,
    /// When it began, in seconds since 1970.
    pub(crate) started_at: u64,
    /// The version of the load tester.
    pub(crate) version: String,
    /// What the gateway says it is.
    pub(crate) server: String,
    /// Where it was reached.
    pub(crate) target: String,
    /// Cores of the machine of the generator.
    pub(crate) cores: usize,
    /// Its system.
    pub(crate) system: String,
    /// Sessions watched.
    pub(crate) sessions: usize,
    /// Viewers over all sessions.
    pub(crate) viewers: u32,
    /// Of them, those who read nothing while it was measured.
    pub(crate) slow_readers: u32,
    /// Those who write messages.
    pub(crate) chatters: u32,
    /// Those who vote.
    pub(crate) voters: u32,
    /// Messages a second.
    pub(crate) rate: f64,
    /// Votes a second.
    pub(crate) vote_rate: f64,
    /// Characters of a message.
    pub(crate) message_characters: usize,
    /// How messages get in.
    pub(crate) written_by: &'static str,
    /// Viewers that came a second.
    pub(crate) ramp: f64,
    /// Seconds whose messages are not measured.
    pub(crate) warm_up_seconds: f64,
    /// Seconds whose messages are measured.
    pub(crate) measured_seconds: f64,
    /// Threads that hold the sockets.
    pub(crate) threads: usize,
    /// Source addresses used.
    pub(crate) addresses: usize,
}

/// Viewers that were dropped at once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct StormOutcome {
    /// When, in seconds of the timeline.
    pub(crate) at_seconds: f64,
    /// How many.
    pub(crate) dropped: u64,
    /// How many were whole again: subscribed, and at the highest number that anybody had seen.
    pub(crate) whole: u64,
    /// How long that took each.
    pub(crate) recovery: Option<Spread>,
    /// How many were whole after how many milliseconds.
    pub(crate) curve: Vec<Recovered>,
}

/// One point of a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Recovered {
    /// Milliseconds after the drop.
    pub(crate) ms: f64,
    /// Viewers that were whole.
    pub(crate) whole: u64,
}

/// Viewers that read nothing while it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SlowOutcome {
    /// How many.
    pub(crate) stalled: u64,
    /// How many sockets the gateway closed for it.
    pub(crate) evicted: u64,
}

/// A search for the highest rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SearchOutcome {
    /// The bound on p99.
    pub(crate) bound_ms: f64,
    /// The steps in the order in which they were made.
    pub(crate) steps: Vec<Step>,
    /// The highest rate that was served within the bound.
    pub(crate) knee_rate: Option<f64>,
    /// Deliveries a second at that rate.
    pub(crate) knee_deliveries: Option<f64>,
    /// What ended it.
    pub(crate) limited_by: String,
}

/// One rate that was tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Step {
    /// Messages a second.
    pub(crate) rate: f64,
    /// Deliveries a second that were due.
    pub(crate) offered: f64,
    /// Deliveries a second that came.
    pub(crate) delivered: f64,
    /// Half were faster.
    pub(crate) p50_ms: f64,
    /// One in a hundred was slower.
    pub(crate) p99_ms: f64,
    /// Whether it was served within the bound.
    pub(crate) is_good: bool,
    /// Why not.
    pub(crate) reason: Option<String>,
    /// Share of its time that the busiest thread of the generator worked.
    pub(crate) generator_busy: f64,
    /// Cores that the gateway used, where that can be seen.
    pub(crate) gateway_cores: Option<f64>,
}

/// Who used how much of the machine, over the measured time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Resources {
    /// Share of its time that the busiest thread of the generator worked.
    pub(crate) generator_busy: f64,
    /// Cores that the generator used.
    pub(crate) generator_cores: f64,
    /// How late messages left, against their schedule.
    pub(crate) generator_lateness: Option<Spread>,
    /// Memory of the generator for each viewer.
    pub(crate) generator_kib_per_viewer: Option<f64>,
    /// Cores that the gateway used, where that can be seen.
    pub(crate) gateway_cores: Option<f64>,
    /// Microseconds of a core for each delivery.
    pub(crate) gateway_us_per_delivery: Option<f64>,
    /// Resident memory of the gateway when all viewers had come.
    pub(crate) gateway_mib: Option<f64>,
    /// How much it grew for each viewer that came.
    pub(crate) gateway_kib_per_viewer: Option<f64>,
    /// Share of the machine that was used, by everybody.
    pub(crate) machine_busy: Option<f64>,
    /// What was at its limit.
    pub(crate) limited_by: String,
}

/// One second.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Tick {
    /// Seconds since the viewers began to come.
    pub(crate) at_seconds: f64,
    /// What was going on.
    pub(crate) phase: &'static str,
    /// Viewers that watched.
    pub(crate) watching: u64,
    /// Messages that left, a second.
    pub(crate) sent: f64,
    /// Deliveries a second.
    pub(crate) deliveries: f64,
    /// Bytes a second.
    pub(crate) bytes: f64,
    /// Half of what arrived was faster; nothing where nothing measured arrived.
    pub(crate) p50_ms: Option<f64>,
    /// One in a hundred was slower.
    pub(crate) p99_ms: Option<f64>,
    /// The slowest.
    pub(crate) max_ms: Option<f64>,
    /// Lost so far.
    pub(crate) lost: u64,
    /// Share of its time that the busiest thread of the generator worked.
    pub(crate) generator_busy: f64,
    /// Cores that the gateway used.
    pub(crate) gateway_cores: Option<f64>,
    /// Resident memory of the gateway.
    pub(crate) gateway_mib: Option<f64>,
    /// Share of the machine that was used, by everybody.
    pub(crate) machine_busy: Option<f64>,
}

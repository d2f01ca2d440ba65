//! What a run showed: what the table prints, `--json` writes and the report draws.

use serde::Serialize;

use crate::audit::Audit;
use crate::interval::{Bar, Point, Spread, Tally, Writes};
use crate::verdict::Verdict;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The version of this format.
    pub format: u32,
    /// What was run where.
    pub run: Run,
    /// What it is worth.
    pub verdict: Verdict,
    /// From when a message was due until each viewer had it.
    pub latency: Option<Spread>,
    /// The same as a curve of percentiles.
    pub latency_curve: Vec<Point>,
    /// The same as a histogram.
    pub latency_bars: Vec<Bar>,
    /// From when a message was due until the gateway acknowledged it.
    pub ack: Option<Spread>,
    /// From when a vote was due until the gateway acknowledged it.
    pub vote_ack: Option<Spread>,
    /// From when a message was due until its INSERT was committed.
    pub insert: Option<Spread>,
    /// From when a viewer was due to come until its socket was open.
    pub connect: Option<Spread>,
    /// From `subscribe` to `subscribed`.
    pub join: Option<Spread>,
    /// The promise of the log, over the whole run with warm-up and end.
    pub audit: Audit,
    /// What was to be received by everybody.
    pub expected: u64,
    /// Events a second over the measured time.
    pub deliveries_per_second: f64,
    /// Bytes that arrived over the whole run.
    pub bytes: u64,
    /// WebSocket frames that arrived over the whole run.
    pub frames: u64,
    /// The messages of the whole run.
    pub messages: Writes,
    /// The votes of the whole run.
    pub votes: Writes,
    /// Sockets that ended before the run did, by close code or by what went wrong.
    pub closes: Tally,
    /// Attempts to connect that failed, by reason.
    pub failures: Tally,
    /// Viewers that were not watching at the end.
    pub absent: u64,
    /// The storm, where there was one.
    pub storm: Option<StormOutcome>,
    /// The slow readers, where there were any.
    pub slow: Option<SlowOutcome>,
    /// The search for the limit, where there was one.
    pub search: Option<SearchOutcome>,
    /// Who used how much of the machine.
    pub resources: Resources,
    /// Second by second.
    pub timeline: Vec<Tick>,
}

/// What was run where.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Run {
    /// The random mark of the run, which is in its messages.
    pub id: String,
    /// How it was started: the command line, without secrets.
    pub command: String,
    /// When it began, in seconds since 1970.
    pub started_at: u64,
    /// The version of the load tester.
    pub version: String,
    /// What the gateway says it is.
    pub server: String,
    /// Where it was reached.
    pub target: String,
    /// Cores of the machine of the generator.
    pub cores: usize,
    /// Its system.
    pub system: String,
    /// Sessions watched.
    pub sessions: usize,
    /// Viewers over all sessions.
    pub viewers: u32,
    /// Of them, those who read nothing while it was measured.
    pub slow_readers: u32,
    /// Those who write messages.
    pub chatters: u32,
    /// Those who vote.
    pub voters: u32,
    /// Messages a second.
    pub rate: f64,
    /// Votes a second.
    pub vote_rate: f64,
    /// Characters of a message.
    pub message_characters: usize,
    /// How messages get in.
    pub written_by: &'static str,
    /// Viewers that came a second.
    pub ramp: f64,
    /// Seconds whose messages are not measured.
    pub warm_up_seconds: f64,
    /// Seconds whose messages are measured.
    pub measured_seconds: f64,
    /// Threads that hold the sockets.
    pub threads: usize,
    /// Source addresses used.
    pub addresses: usize,
}

/// Viewers that were dropped at once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StormOutcome {
    /// When, in seconds of the timeline.
    pub at_seconds: f64,
    /// How many.
    pub dropped: u64,
    /// How many were whole again: subscribed, and at the highest number that anybody had seen.
    pub whole: u64,
    /// How long that took each.
    pub recovery: Option<Spread>,
    /// How many were whole after how many milliseconds.
    pub curve: Vec<Recovered>,
}

/// One point of a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recovered {
    /// Milliseconds after the drop.
    pub ms: f64,
    /// Viewers that were whole.
    pub whole: u64,
}

/// Viewers that read nothing while it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SlowOutcome {
    /// How many.
    pub stalled: u64,
    /// How many sockets the gateway closed for it.
    pub evicted: u64,
}

/// A search for the highest rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SearchOutcome {
    /// The bound on p99.
    pub bound_ms: f64,
    /// The steps in the order in which they were made.
    pub steps: Vec<Step>,
    /// The highest rate that was served within the bound.
    pub knee_rate: Option<f64>,
    /// Deliveries a second at that rate.
    pub knee_deliveries: Option<f64>,
    /// What ended it.
    pub limited_by: String,
}

/// One rate that was tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Messages a second.
    pub rate: f64,
    /// Deliveries a second that were due.
    pub offered: f64,
    /// Deliveries a second that came.
    pub delivered: f64,
    /// Half were faster.
    pub p50_ms: f64,
    /// One in a hundred was slower.
    pub p99_ms: f64,
    /// Whether it was served within the bound.
    pub is_good: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Share of its time that the busiest thread of the generator worked.
    pub generator_busy: f64,
    /// Cores that the gateway used, where that can be seen.
    pub gateway_cores: Option<f64>,
}

/// Who used how much of the machine, over the measured time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Resources {
    /// Share of its time that the busiest thread of the generator worked.
    pub generator_busy: f64,
    /// Cores that the generator used.
    pub generator_cores: f64,
    /// How late messages left, against their schedule.
    pub generator_lateness: Option<Spread>,
    /// Memory of the generator for each viewer.
    pub generator_kib_per_viewer: Option<f64>,
    /// Cores that the gateway used, where that can be seen.
    pub gateway_cores: Option<f64>,
    /// Microseconds of a core for each delivery.
    pub gateway_us_per_delivery: Option<f64>,
    /// Resident memory of the gateway when all viewers had come.
    pub gateway_mib: Option<f64>,
    /// How much it grew for each viewer that came.
    pub gateway_kib_per_viewer: Option<f64>,
    /// Share of the machine that was used, by everybody.
    pub machine_busy: Option<f64>,
    /// What was at its limit.
    pub limited_by: String,
}

/// One second.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tick {
    /// Seconds since the viewers began to come.
    pub at_seconds: f64,
    /// What was going on.
    pub phase: &'static str,
    /// Viewers that watched.
    pub watching: u64,
    /// Messages that left, a second.
    pub sent: f64,
    /// Deliveries a second.
    pub deliveries: f64,
    /// Bytes a second.
    pub bytes: f64,
    /// Half of what arrived was faster; nothing where nothing measured arrived.
    pub p50_ms: Option<f64>,
    /// One in a hundred was slower.
    pub p99_ms: Option<f64>,
    /// The slowest.
    pub max_ms: Option<f64>,
    /// Lost so far.
    pub lost: u64,
    /// Share of its time that the busiest thread of the generator worked.
    pub generator_busy: f64,
    /// Cores that the gateway used.
    pub gateway_cores: Option<f64>,
    /// Resident memory of the gateway.
    pub gateway_mib: Option<f64>,
    /// Share of the machine that was used, by everybody.
    pub machine_busy: Option<f64>,
}

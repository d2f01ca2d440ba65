//! The outcome of a run, for the table, `--json` and the report.

use serde::Serialize;

use crate::audit::Audit;
use crate::interval::{Bar, Counts, Point, Spread, WriteCounts};

/// The outcome of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The version of the JSON format.
    pub(crate) format: u32,
    /// The run's settings and environment.
    pub(crate) run: Run,
    /// The run's verdict.
    pub verdict: Verdict,
    /// From a message's due time until each viewer had it.
    pub(crate) latency: Option<Spread>,
    /// The latency as a curve of percentiles.
    pub(crate) latency_curve: Vec<Point>,
    /// The latency as a histogram.
    pub(crate) latency_bars: Vec<Bar>,
    /// From a message's due time until the gateway acknowledged it.
    pub(crate) ack: Option<Spread>,
    /// From a vote's due time until the gateway acknowledged it.
    pub(crate) vote_ack: Option<Spread>,
    /// From a message's due time until its INSERT was committed.
    pub(crate) insert: Option<Spread>,
    /// From a viewer's due time until its socket was open.
    pub(crate) connect: Option<Spread>,
    /// From `subscribe` to `subscribed`.
    pub(crate) join: Option<Spread>,
    /// The audit of the whole run, including warm-up and drain.
    pub(crate) audit: Audit,
    /// Events to receive, over all viewers.
    pub(crate) expected: u64,
    /// Deliveries per second in the measured time.
    pub(crate) deliveries_per_second: f64,
    /// Received bytes of the whole run.
    pub(crate) bytes: u64,
    /// Received WebSocket frames of the whole run.
    pub(crate) frames: u64,
    /// The messages of the whole run.
    pub(crate) messages: WriteCounts,
    /// The votes of the whole run.
    pub(crate) votes: WriteCounts,
    /// Sockets that ended before the end of the run, by close code or reason.
    pub(crate) closes: Counts,
    /// Failed attempts to connect, by reason.
    pub(crate) failures: Counts,
    /// Viewers that were not watching at the end.
    pub(crate) absent: u64,
    /// The storm, if there was one.
    pub(crate) storm: Option<StormOutcome>,
    /// The slow readers, if there were any.
    pub(crate) slow: Option<SlowOutcome>,
    /// The search for the limit, if there was one.
    pub(crate) search: Option<SearchOutcome>,
    /// The use of CPU and memory.
    pub(crate) resources: Resources,
    /// The figures of each second.
    pub(crate) timeline: Vec<Tick>,
}

/// A run's verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The class of the run.
    pub class: Class,
    /// The reasons why the run is void or broken.
    pub(crate) reasons: Vec<String>,
    /// Facts that a reader must know, such as refused messages.
    pub(crate) remarks: Vec<String>,
}

/// Classes of runs, the best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The gateway kept its promise, and the figures are the gateway's.
    #[default]
    Sound,
    /// The generator was at its own limit, so the figures are the generator's.
    Void,
    /// An event was lost, duplicated or out of order, or a viewer was missing.
    Broken,
}

impl Class {
    /// Returns the exit status of the process.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Sound => 0,
            Self::Void => 3,
            Self::Broken => 4,
        }
    }

    /// Returns the name for the report.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Void => "void",
            Self::Broken => "broken",
        }
    }
}

/// A run's settings and environment.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Run {
    /// The random mark in the run's messages.
    pub(crate) id: String,
    /// The command line, without secrets.
    pub(crate) command: String,
    /// The start, in seconds since 1970.
    pub(crate) started_at: u64,
    /// The load tester's version.
    pub(crate) version: String,
    /// The gateway's name and version.
    pub(crate) server: String,
    /// The gateway's URL.
    pub(crate) target: String,
    /// Cores of the generator's machine.
    pub(crate) cores: usize,
    /// The operating system of the generator's machine.
    pub(crate) system: String,
    pub(crate) sessions: usize,
    /// Viewers over all sessions.
    pub(crate) viewers: u32,
    /// Viewers that read nothing during the measurement.
    pub(crate) slow_readers: u32,
    /// Sockets that write messages.
    pub(crate) chatters: u32,
    /// Sockets that vote.
    pub(crate) voters: u32,
    /// Messages per second.
    pub(crate) rate: f64,
    /// Votes per second.
    pub(crate) vote_rate: f64,
    /// Characters per message.
    pub(crate) message_characters: usize,
    /// How messages were written.
    pub(crate) written_by: &'static str,
    /// Viewers that connected per second.
    pub(crate) ramp: f64,
    /// Seconds of the warm-up.
    pub(crate) warm_up_seconds: f64,
    /// Seconds of the measurement.
    pub(crate) measured_seconds: f64,
    /// Threads that hold the sockets.
    pub(crate) threads: usize,
    /// Source addresses of the sockets.
    pub(crate) addresses: usize,
}

/// Viewers that dropped together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct StormOutcome {
    /// The time of the drop, in seconds of the timeline.
    pub(crate) at_seconds: f64,
    /// The number of viewers.
    pub(crate) dropped: u64,
    /// Viewers that caught up: subscribed again, with the highest number that any viewer had seen.
    pub(crate) whole: u64,
    /// The time that each viewer took.
    pub(crate) recovery: Option<Spread>,
    /// The number of viewers that had caught up, over time.
    pub(crate) curve: Vec<Recovered>,
}

/// One point of a recovery curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Recovered {
    /// Milliseconds after the drop.
    pub(crate) ms: f64,
    /// Viewers that had caught up.
    pub(crate) whole: u64,
}

/// Viewers that read nothing during the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SlowOutcome {
    /// The number of viewers.
    pub(crate) stalled: u64,
    /// Sockets that the gateway closed because they were too slow.
    pub(crate) evicted: u64,
}

/// A search for the highest rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SearchOutcome {
    /// The bound on p99.
    pub(crate) bound_ms: f64,
    /// The steps in order.
    pub(crate) steps: Vec<SearchStep>,
    /// The highest rate with a p99 within the bound.
    pub(crate) knee_rate: Option<f64>,
    /// Deliveries per second at that rate.
    pub(crate) knee_deliveries: Option<f64>,
    /// The resource that was at its limit when the search ended.
    pub(crate) limited_by: String,
}

/// One measured rate of a search.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SearchStep {
    /// Messages per second.
    pub(crate) rate: f64,
    /// Deliveries per second that were due.
    pub(crate) offered: f64,
    /// Deliveries per second that arrived.
    pub(crate) delivered: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Whether the gateway served the rate within the bound.
    pub(crate) is_good: bool,
    /// The reason, if it did not.
    pub(crate) reason: Option<String>,
    /// Share of its time that the generator's busiest thread worked.
    pub(crate) generator_busy: f64,
    /// Cores that the gateway used, if known.
    pub(crate) gateway_cores: Option<f64>,
}

/// The use of CPU and memory in the measured time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Resources {
    /// Share of its time that the generator's busiest thread worked.
    pub(crate) generator_busy: f64,
    /// Cores that the generator used.
    pub(crate) generator_cores: f64,
    /// How late messages were sent.
    pub(crate) generator_lateness: Option<Spread>,
    /// The generator's memory per viewer.
    pub(crate) generator_kib_per_viewer: Option<f64>,
    /// Cores that the gateway used, if known.
    pub(crate) gateway_cores: Option<f64>,
    /// CPU time of the gateway per delivery, in microseconds.
    pub(crate) gateway_us_per_delivery: Option<f64>,
    /// Resident memory of the gateway once all viewers had joined.
    pub(crate) gateway_mib: Option<f64>,
    /// The growth of the gateway's memory per viewer.
    pub(crate) gateway_kib_per_viewer: Option<f64>,
    /// Share of the machine's CPU that was busy, over all processes.
    pub(crate) machine_busy: Option<f64>,
    /// The resource that was at its limit.
    pub(crate) limited_by: String,
}

/// The figures of one second.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Tick {
    /// Seconds since the start of the ramp.
    pub(crate) at_seconds: f64,
    pub(crate) phase: &'static str,
    /// Viewers that were watching.
    pub(crate) watching: u64,
    /// Messages sent per second.
    pub(crate) sent: f64,
    /// Deliveries per second.
    pub(crate) deliveries: f64,
    /// Bytes per second.
    pub(crate) bytes: f64,
    /// The median latency; `None` if no measured message arrived.
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) max_ms: Option<f64>,
    /// Events lost so far.
    pub(crate) lost: u64,
    /// Share of its time that the generator's busiest thread worked.
    pub(crate) generator_busy: f64,
    /// Cores that the gateway used.
    pub(crate) gateway_cores: Option<f64>,
    /// Resident memory of the gateway.
    pub(crate) gateway_mib: Option<f64>,
    /// Share of the machine's CPU that was busy, over all processes.
    pub(crate) machine_busy: Option<f64>,
}

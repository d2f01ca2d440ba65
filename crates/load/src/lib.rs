//! The load tester: drives any Usher over the network and measures what its clients see.
//!
//! It knows the protocol, but nothing about the gateway's internals. Its rules:
//!
//! * Open loop. Messages are due at fixed times, whatever the gateway does, and all latency counts from the due time.
//! * One clock. The same process writes and receives each message, so no other clock matters.
//! * Histograms are merged, never averaged. They exclude the warm-up.
//! * Every viewer checks every number. Each run reports loss, duplicates, gaps and order errors, even when
//!   they are zero.
//! * A generator that reaches its own limit voids the run, and the report says so.
//!
//! ```text
//!  pacer ──due──► writers ──send──► gateway ──events──► viewers ──► interval ─┐ every second
//!  (a thread)     or INSERTs        (not ours)          scan, audit           ▼
//!                                                                      runner ──► outcome ──► table, JSON, report
//! ```
//!
//! Read the pure modules first: `schedule`, `scan`, `audit`, [`interval`], [`verdict`], then [`outcome`] with
//! [`table`], `plot`, `charts` and [`page`]. The shells are `socket`, `viewer`, `writer` and [`database`] on a `worker`
//! with its `worker_state`, the `pacer`, and the `runner`. The runner leads them through the phases of a [`plan`] and
//! passes their counts to the `recorder`.

mod audit;
mod charts;
mod clock;
pub mod database;
#[cfg(test)]
mod fixtures;
pub(crate) mod interval;
pub mod limits;
mod machine;
pub mod outcome;
mod pacer;
pub mod page;
pub mod plan;
pub mod plot;
mod preflight;
#[cfg_attr(not(target_os = "linux"), path = "no_proc.rs")]
pub mod proc;
pub mod process_usage;
pub mod progress;
mod recorder;
mod runner;
mod scan;
mod schedule;
mod socket;
pub mod table;
pub(crate) mod verdict;
mod viewer;
mod worker;
mod worker_state;
mod writer;

use tokio_util::sync::CancellationToken;

use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::progress::Progress;

/// The reason why a run has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The gateway cannot be used for the run.
    #[error("{0}")]
    Gateway(String),
    /// Not all viewers joined in time.
    #[error("{came} of {wanted} viewers joined{}", why(.reasons))]
    Ramp {
        /// Viewers that joined.
        came: u64,
        /// Viewers of the plan.
        wanted: u32,
        /// The failures, by reason.
        reasons: interval::Counts,
    },
    /// The database cannot be used for the run.
    #[error("use the database")]
    Database(#[from] database::DatabaseError),
    /// The operating system refused a resource.
    #[error("start the generator")]
    Machine(#[from] std::io::Error),
    /// A thread of the generator ended unexpectedly.
    #[error("a thread of the generator has ended")]
    Worker,
    /// The run was stopped before anything was measured.
    #[error("stopped before anything was measured")]
    Stopped,
}

fn why(reasons: &interval::Counts) -> String {
    let reasons: Vec<String> = reasons
        .iter()
        .map(|(reason, count)| format!("\n  {count} × {reason}"))
        .collect();
    if reasons.is_empty() {
        return ": the others have no answer yet; the gateway admits fewer viewers per second than --ramp".to_owned();
    }
    format!(". Failures:{}", reasons.concat())
}

/// Carries out a plan and returns its outcome.
///
/// # Errors
///
/// If nothing could be measured.
pub async fn run(
    plan: Plan,
    progress: &mut Progress,
    stop: CancellationToken,
) -> Result<Outcome, LoadError> {
    runner::run(plan, progress, stop).await
}

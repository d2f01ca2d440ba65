//! The load tester: drives any Usher over the network, and says what it saw.
//!
//! It knows the protocol and nothing of the gateway's own parts: what it measures is what clients would see. Its rules:
//!
//! * Open loop. Messages are due at their times whatever the gateway does, and all latency counts from then.
//! * One clock. Whoever writes a message and whoever receives it are in this process; nothing depends on other clocks.
//! * Histograms are merged, never averaged, and the warm-up is not in them.
//! * Every viewer checks every number. Loss, doubles, gaps and order errors are told in each run, also when zero.
//! * A generator that is at its own limit voids the run, and says so.
//!
//! ```text
//!  pacer ──due──► writers ──send──► gateway ──events──► viewers ──► interval ─┐ every second
//!  (a thread)     or INSERTs        (not ours)          scan, audit           ▼
//!                                                                      conductor ──► outcome ──► table, JSON, report
//! ```
//!
//! Pure, and read first: `schedule`, `frame`, `scan`, `audit`, [`interval`], [`verdict`], then [`outcome`] with
//! [`table`], `plot`, `charts` and [`page`]. The shells: `socket`, `viewer`, `writer` and [`database`] on a `worker` with
//! its `worker_state`, the `pacer`, and the `runner`, which takes them through the phases of a [`plan`] and writes to the
//! `recorder`.

mod audit;
mod charts;
pub mod database;
#[cfg(test)]
mod fixtures;
pub mod frame;
pub(crate) mod interval;
mod machine;
pub mod outcome;
mod pacer;
pub mod page;
pub mod plan;
mod plot;
mod preflight;
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

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The gateway cannot be used for the run.
    #[error("{0}")]
    Gateway(String),
    /// Not all viewers came.
    #[error("{came} of {wanted} viewers came{}", why(.reasons))]
    Ramp {
        /// Viewers that watch.
        came: u64,
        /// Viewers that were to.
        wanted: u32,
        /// Why others did not.
        reasons: interval::Tally,
    },
    /// The database cannot be used for the run.
    #[error("use the database")]
    Database(#[from] database::DatabaseError),
    /// This machine does not give what is needed.
    #[error("start the generator")]
    Machine(#[from] std::io::Error),
    /// A thread of the generator has died.
    #[error("a thread of the generator has ended")]
    Worker,
    /// It was told to stop before anything was measured.
    #[error("stopped before anything was measured")]
    Stopped,
}

fn why(reasons: &interval::Tally) -> String {
    let reasons: Vec<String> = reasons
        .iter()
        .map(|(reason, count)| format!("\n  {count} × {reason}"))
        .collect();
    if reasons.is_empty() {
        return ": the others have had no answer yet; the gateway admits fewer a second than --ramp asks for".to_owned();
    }
    format!(". What went wrong on the way:{}", reasons.concat())
}

/// Does what the plan says.
///
/// # Errors
///
/// Where nothing could be measured.
pub async fn run(
    plan: Plan,
    progress: &mut Progress,
    stop: CancellationToken,
) -> Result<Outcome, LoadError> {
    runner::run(plan, progress, stop).await
}

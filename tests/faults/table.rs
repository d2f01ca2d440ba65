//! The results: as Markdown, as JSON, and as the summary line of `cargo test`.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fault_run::Outcome;

/// A fault and its result.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) result: Result,
}

pub(crate) enum Result {
    Ran(Outcome),
    /// The run itself failed.
    Failed(String),
    /// The machine lacks something that the fault needs.
    NotRun(String),
}

impl Entry {
    pub(crate) fn is_good(&self) -> bool {
        match &self.result {
            Result::Ran(outcome) => outcome.flaws.is_none() && outcome.complaints.is_empty(),
            Result::Failed(_) => false,
            Result::NotRun(_) => true,
        }
    }

    /// Returns the result on one line, plus its complaints.
    pub(crate) fn summary(&self) -> String {
        match &self.result {
            Result::Ran(outcome) => {
                let flaws = outcome.flaws;
                let mut line = format!(
                    "{} deliveries, {} lost, {} doubled, {} gaps, {} out of order, {} wrong tallies",
                    outcome.deliveries,
                    flaws.lost,
                    flaws.doubled,
                    flaws.gaps,
                    flaws.disorder,
                    flaws.tallies
                );
                for remark in &outcome.remarks {
                    let _ = write!(line, "; {remark}");
                }
                for complaint in outcome.complaints.iter().take(3) {
                    let _ = write!(line, "\n    FAILED: {complaint}");
                }
                line
            }
            Result::Failed(why) => format!("FAILED: {why}"),
            Result::NotRun(why) => format!("not run: {why}"),
        }
    }
}

/// Returns the matrix as Markdown, in the form of `docs/guarantees.md`.
pub(crate) fn render(entries: &[Entry]) -> String {
    let mut text = String::from(
        "| fault | silence p50 / max | caught up p50 / max | deliveries | resumes | lost | doubled | gaps | order | tallies |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for Entry {
        name,
        about,
        result,
    } in entries
    {
        let _ = match result {
            Result::Ran(outcome) => {
                let flaws = outcome.flaws;
                writeln!(
                    text,
                    "| `{name}`: {about} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                    pair(outcome.outage),
                    pair(outcome.whole),
                    outcome.deliveries,
                    outcome.resumes,
                    flaws.lost,
                    flaws.doubled,
                    flaws.gaps,
                    flaws.disorder,
                    flaws.tallies
                )
            }
            Result::Failed(why) => writeln!(text, "| `{name}`: {about} | FAILED: {why} |"),
            Result::NotRun(why) => writeln!(text, "| `{name}`: {about} | not run: {why} |"),
        };
    }
    text
}

pub(crate) fn json(entries: &[Entry]) -> Value {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let entry = |entry: &Entry| match &entry.result {
        Result::Ran(outcome) => json!({
            "fault": entry.name, "silence_ms": {"p50": ms(outcome.outage.0), "max": ms(outcome.outage.1)},
            "whole_ms": {"p50": ms(outcome.whole.0), "max": ms(outcome.whole.1)},
            "deliveries": outcome.deliveries, "resumes": outcome.resumes, "restarts": outcome.restarts,
            "lost": outcome.flaws.lost, "doubled": outcome.flaws.doubled, "gaps": outcome.flaws.gaps,
            "order": outcome.flaws.disorder, "tallies": outcome.flaws.tallies,
            "remarks": outcome.remarks, "complaints": outcome.complaints,
        }),
        Result::Failed(why) => json!({"fault": entry.name, "failed": why}),
        Result::NotRun(why) => json!({"fault": entry.name, "not_run": why}),
    };
    entries.iter().map(entry).collect()
}

/// Prints the totals in the format of `cargo test`, so that scripts can count them. Returns the exit status.
pub(crate) fn close(entries: &[Entry]) -> ExitCode {
    let good = entries.iter().filter(|entry| entry.is_good()).count();
    let not_run = entries
        .iter()
        .filter(|entry| matches!(entry.result, Result::NotRun(_)))
        .count();
    let bad = entries.len() - good;
    let verdict = if bad == 0 { "ok" } else { "FAILED" };
    println!(
        "test result: {verdict}. {} passed; {bad} failed; {not_run} ignored",
        good - not_run
    );
    if bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn pair((median, most): (Duration, Duration)) -> String {
    format!("{} / {}", human(median), human(most))
}

fn human(time: Duration) -> String {
    if time < Duration::from_millis(1_000) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

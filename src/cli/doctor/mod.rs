//! `usher doctor`: checks the settings and the database, and says how to fix each mistake.
//!
//! It uses the settings of `usher serve` and changes nothing. It shows hosts to the operator, but never secrets.

mod checks;
mod database;
mod finding;

use std::io::{IsTerminal as _, stdout};

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use crate::cli::doctor::finding::{Finding, Severity};
use crate::cli::process;
use crate::config::raw::Raw;

const EXAMPLE: &str = "\
Takes the settings of `usher serve`, from the environment and as flags. The exit code is 1 if a check failed.
  set -a; . /etc/usher/usher.env; usher doctor
  usher doctor --json | jq '.findings[] | select(.verdict != \"ok\")'";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    raw: Raw,

    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    findings: &'a [Finding],
}

/// Runs the checks and prints their findings.
///
/// # Errors
/// If a check failed.
pub(crate) async fn run(args: DoctorArgs) -> anyhow::Result<()> {
    let findings = checks::all(&args.raw).await;
    let failed = findings
        .iter()
        .filter(|finding| finding.verdict == Severity::Failed)
        .count();
    if args.json {
        let report = Report {
            ok: failed == 0,
            findings: &findings,
        };
        process::print(&serde_json::to_string_pretty(&report)?);
    } else {
        for finding in &findings {
            process::print(&line(finding, stdout().is_terminal()));
        }
    }
    if failed > 0 {
        bail!("{failed} of {} checks failed", findings.len());
    }
    Ok(())
}

/// Formats a finding for a person.
fn line(finding: &Finding, is_coloured: bool) -> String {
    let (word, colour) = match finding.verdict {
        Severity::Ok => ("ok     ", 32),
        Severity::Warning => ("warning", 33),
        Severity::Failed => ("failed ", 31),
    };
    let word = if is_coloured {
        format!("\x1b[{colour}m{word}\x1b[0m")
    } else {
        word.to_owned()
    };
    let mut line = format!("{word}  {}: {}", finding.check, finding.found);
    if let Some(advice) = &finding.advice {
        line.push_str("\n         to do: ");
        line.push_str(advice);
    }
    line
}

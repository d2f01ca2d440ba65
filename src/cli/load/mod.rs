//! `usher load`: tests a gateway with viewers and writers, and reports what they received.
//!
//! The crate `usher-load` does the work. This module has its arguments, its plan and its results.

pub(crate) mod args;
mod command_line;
mod plan;
mod target;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};

use crate::cli::load::args::LoadArgs;
use crate::cli::load::plan::plan;
use crate::cli::process;
use crate::limits::LOAD_FILES_RESERVED;
use usher_load::outcome::Outcome;
use usher_load::plan::Plan;
use usher_load::progress::Progress;
use usher_load::{page, table};

/// Runs the load and prints the results. The exit status is the verdict.
pub(crate) async fn run(args: LoadArgs) -> anyhow::Result<ExitCode> {
    let shutdown = process::shutdown_on_signal()?;
    let plan = plan(&args).await?;
    raise_file_limit(&plan)?;
    // An unwritable path is an error before the run, not after it.
    for path in args.json.iter().chain(&args.report) {
        if path != Path::new("-") {
            fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .with_context(|| format!("write {}", path.display()))?;
        }
    }
    let mut progress = Progress::new(args.quiet, plan.duration());
    let ran = usher_load::run(plan, &mut progress, shutdown).await;
    progress.finish();
    let outcome = ran?;
    write(&args, &outcome)?;
    Ok(ExitCode::from(outcome.verdict.class.exit_status()))
}

fn write(args: &LoadArgs, outcome: &Outcome) -> anyhow::Result<()> {
    let json = || serde_json::to_string_pretty(outcome).context("write the outcome as JSON");
    match args.json.as_deref() {
        Some(path) if path == Path::new("-") => process::print(&json()?),
        Some(path) => {
            fs::write(path, json()? + "\n").with_context(|| format!("write {}", path.display()))?;
            process::print(&table::render(outcome));
        }
        None => process::print(&table::render(outcome)),
    }
    if let Some(path) = &args.report {
        fs::write(path, page::render(outcome))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Raises the limit of open files: each viewer and each writer needs one.
fn raise_file_limit(plan: &Plan) -> anyhow::Result<()> {
    let wanted = u64::from(plan.viewers)
        + u64::from(plan.chatters)
        + u64::from(plan.voters)
        + LOAD_FILES_RESERVED;
    let limit = rlimit::increase_nofile_limit(u64::MAX).context("raise the file limit")?;
    ensure!(
        limit >= wanted,
        "{wanted} files are needed, a socket being one, and this process may have {limit}: \
         raise the hard limit (ulimit -Hn), or use fewer viewers and run several generators side by side"
    );
    Ok(())
}

//! The fault matrix: checks the gateway's guarantees while something breaks.
//!
//! Each fault hits real processes: a Postgres that flushes to its disk, and a gateway as users run it. Meanwhile
//! viewers watch, users send messages and vote through the gateway, and other writers use SQL. Viewers check every
//! number that they receive. At the end, everything is compared with the tables. Any count above zero is a broken
//! guarantee, and then the exit status is not 0.
//!
//! ```text
//! cargo test --test faults                     a few short faults, as in a run of all tests
//! cargo test --test faults -- --all            the whole matrix, about five minutes
//! cargo test --test faults -- --list           lists the faults
//! cargo test --test faults -- postgres disk    the faults whose names contain one of these words
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test binary with its own main; the lints recognise tests by the standard harness"
)]

mod fault;
mod fault_run;
mod ledger;
mod netfilter;
mod stage;
mod table;
mod viewer;
mod writer;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::fault::{Crowd, FAULTS, Fault, Need};
use crate::fault_run::{FaultRun, Outcome, Setting};
use crate::stage::Postgres;
use crate::table::{Entry, Result as Verdict};

const HERD: usize = 2_000;
/// Enough room for Postgres with a log that is never trimmed, but small enough to fill quickly.
const SMALL_DISK_MIB: u32 = 300;

#[derive(Parser)]
#[command(about = "Breaks things around a gateway and audits what its viewers received")]
struct Arguments {
    /// Run faults whose names contain one of these words.
    words: Vec<String>,
    /// Run every fault.
    #[arg(long)]
    all: bool,
    /// List the faults and run none.
    #[arg(long)]
    list: bool,
    /// Number of viewers per fault; the herd has its own number.
    #[arg(long, default_value_t = 40)]
    viewers: usize,
    /// Also write the results to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep the logs of the gateways in this directory.
    #[arg(long, value_name = "DIRECTORY")]
    logs: Option<PathBuf>,
    /// Set by the program when it starts itself again in a namespace.
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for fault in FAULTS {
            println!("{:<24}{}", fault.name, fault.about);
        }
        return ExitCode::SUCCESS;
    }
    let chosen = choose(&arguments);
    let wants_namespace = chosen
        .iter()
        .any(|fault| matches!(fault.need, Need::Namespace | Need::SmallDisk));
    let why_outside = (wants_namespace && !arguments.inside).then(netfilter::enter);
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(run(&arguments, &chosen, why_outside))
}

fn choose(arguments: &Arguments) -> Vec<Fault> {
    let is_chosen = |fault: &&Fault| {
        let mut words = arguments.words.iter();
        arguments.all
            || if arguments.words.is_empty() {
                fault.is_short
            } else {
                words.any(|word| fault.name.contains(word))
            }
    };
    FAULTS.iter().filter(is_chosen).copied().collect()
}

async fn run(arguments: &Arguments, chosen: &[Fault], why_outside: Option<String>) -> ExitCode {
    let temporary = tempfile::tempdir().unwrap();
    let logs = arguments.logs.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(logs).unwrap();
    let mut postgres = None;
    let mut entries = Vec::new();
    for (number, fault) in chosen.iter().enumerate() {
        announce(&format!(
            "{} of {}: {}, {}",
            number + 1,
            chosen.len(),
            fault.name,
            fault.about
        ));
        let log = logs.join(format!("{}.log", fault.name));
        let began = Instant::now();
        let result = match lacks(fault.need, why_outside.as_deref()) {
            Some(reason) => Verdict::NotRun(reason),
            None => match suffer(*fault, arguments.viewers, &log, &mut postgres).await {
                Ok(outcome) => Verdict::Ran(outcome),
                Err(error) => {
                    // The fault may have left the cluster in a bad state, so the next fault gets a new one.
                    postgres = None;
                    Verdict::Failed(format!("{error:#}"))
                }
            },
        };
        let entry = Entry {
            name: fault.name,
            about: fault.about,
            result,
        };
        announce("");
        println!(
            "{:<24}{:>4} s  {}",
            fault.name,
            began.elapsed().as_secs(),
            entry.summary()
        );
        if !entry.is_good()
            && let Ok(text) = std::fs::read_to_string(&log)
        {
            let lines: Vec<&str> = text.lines().collect();
            println!("{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
        entries.push(entry);
    }
    if let Some(postgres) = postgres {
        postgres.cluster.stop().await;
    }
    println!("\n{}", table::render(&entries));
    if let Some(path) = &arguments.json {
        std::fs::write(path, table::json(&entries).to_string()).unwrap();
    }
    table::close(&entries)
}

/// Runs one fault from start to audit.
async fn suffer(
    fault: Fault,
    viewers: usize,
    log: &Path,
    shared: &mut Option<Postgres>,
) -> anyhow::Result<Outcome> {
    let mut own = None;
    let postgres = if fault.need == Need::SmallDisk {
        let mount = |at: &Path| netfilter::mount_small_disk(at, SMALL_DISK_MIB);
        own.insert(Postgres::start(mount).await?)
    } else {
        if shared.is_none() {
            *shared = Some(Postgres::start(|_| Ok(())).await?);
        }
        shared.as_mut().unwrap()
    };
    let setting = Setting {
        viewers: if fault.crowd == Crowd::Herd {
            HERD
        } else {
            viewers
        },
        token_ttl: match fault.crowd {
            Crowd::ShortTokens => Duration::from_secs(4),
            Crowd::Usual | Crowd::Herd | Crowd::MayRestart | Crowd::Patient => {
                Duration::from_hours(1)
            }
        },
        environment: if fault.need == Need::FakeClock {
            fault_run::fake_clock(log)
        } else if fault.crowd == Crowd::Patient {
            vec![("USHER_HEARTBEAT_MS", "25000".to_owned())]
        } else {
            Vec::new()
        },
        may_restart: fault.crowd == Crowd::MayRestart,
        is_busy: fault.crowd != Crowd::Herd,
    };
    let mut fault_run = FaultRun::open(postgres, log, setting).await?;
    (fault.run)(&mut fault_run).await?;
    let outcome = fault_run.close().await?;
    if let Some(own) = own {
        own.cluster.stop().await;
    }
    Ok(outcome)
}

/// Returns why this machine cannot run a fault, or `None` if it can.
fn lacks(need: Need, why_outside: Option<&str>) -> Option<String> {
    match need {
        Need::Nothing => None,
        Need::Namespace | Need::SmallDisk => why_outside.map(str::to_owned),
        Need::FakeClock => fault_run::fake_clock_library()
            .is_none()
            .then(|| "libfaketime is missing: apt install faketime".to_owned()),
    }
}

/// Prints a progress line that the next one overwrites, if the output is a terminal.
fn announce(text: &str) {
    let mut out = std::io::stdout();
    if out.is_terminal() {
        let _ = write!(out, "\r\x1b[2K{text}").and_then(|()| out.flush());
    }
}

//! The fault matrix: what the promises are worth while something breaks.
//!
//! Each fault is done to real processes, a Postgres that flushes to its disk and a gateway as users run it, while
//! viewers watch, chatters and voters write through the gateway, and others write by SQL. Viewers check every number
//! that they receive, and in the end everything is compared with the tables. A number that is not zero is a broken
//! promise, and the exit status says so.
//!
//! ```text
//! cargo test --test faults                     a few faults, as a part of all tests
//! cargo test --test faults -- --all            the matrix, about five minutes
//! cargo test --test faults -- --list           what there is
//! cargo test --test faults -- postgres disk    those whose names contain a word
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test with a main of its own: the lints know tests by their harness"
)]

mod evening;
mod fault;
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

use crate::evening::{Evening, Outcome, Setting};
use crate::fault::{Crowd, FAULTS, Fault, Need};
use crate::stage::Postgres;
use crate::table::{Entry, Result as Verdict};

const HERD: usize = 2_000;
/// Room for Postgres with a log that is never trimmed, and small enough to be filled at once.
const SMALL_DISK_MIB: u32 = 300;

#[derive(Parser)]
#[command(about = "Breaks things around a gateway and audits what its viewers received")]
struct Arguments {
    /// Run faults whose names contain one of these words.
    words: Vec<String>,
    /// Run every fault.
    #[arg(long)]
    all: bool,
    /// Say what there is, and run nothing.
    #[arg(long)]
    list: bool,
    /// Viewers at an evening; the herd has its own number.
    #[arg(long, default_value_t = 40)]
    viewers: usize,
    /// Write the results to a file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep what the gateways log in this directory.
    #[arg(long, value_name = "DIRECTORY")]
    logs: Option<PathBuf>,
    /// Given by the program to itself.
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
                    // A cluster that a fault has left in a bad state is not the next one's.
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

/// Does a fault to an evening of its own.
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
            evening::fake_clock(log)
        } else if fault.crowd == Crowd::Patient {
            vec![("USHER_HEARTBEAT_MS", "25000".to_owned())]
        } else {
            Vec::new()
        },
        may_restart: fault.crowd == Crowd::MayRestart,
        is_busy: fault.crowd != Crowd::Herd,
    };
    let mut evening = Evening::open(postgres, log, setting).await?;
    (fault.run)(&mut evening).await?;
    let outcome = evening.close().await?;
    if let Some(own) = own {
        own.cluster.stop().await;
    }
    Ok(outcome)
}

/// Why a fault cannot be done on this machine.
fn lacks(need: Need, why_outside: Option<&str>) -> Option<String> {
    match need {
        Need::Nothing => None,
        Need::Namespace | Need::SmallDisk => why_outside.map(str::to_owned),
        Need::FakeClock => evening::fake_clock_library()
            .is_none()
            .then(|| "libfaketime is missing: apt install faketime".to_owned()),
    }
}

/// A line that the next one overwrites, where somebody is looking.
fn announce(text: &str) {
    let mut out = std::io::stdout();
    if out.is_terminal() {
        let _ = write!(out, "\r\x1b[2K{text}").and_then(|()| out.flush());
    }
}

//! `usher load`: drives an Usher with viewers and writers, and reports what they saw.
//!
//! Here is what is asked of the user; what is done with it is in `crate::load`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use secrecy::SecretString;
use uuid::Uuid;

use crate::cli::load_plan::plan;
use crate::cli::load_target::{Share, StormArg};
use crate::cli::process;
use crate::config::raw::secret;
use crate::load::outcome::Outcome;
use crate::load::plan::Plan;
use crate::load::progress::Progress;
use crate::load::{self, page, table};

const EXAMPLES: &str = "\
Examples:
  usher dev --json > ready.json &                   something to drive
  usher load --dev ready.json                       1,000 viewers, 20 messages/s, 30 s
  usher load --dev ready.json --viewers 5000 --report report.html
  usher load --dev ready.json --storm 2000@10       2,000 viewers drop at second 10 and come back
  usher load --dev ready.json --slow 10%            every tenth viewer reads nothing
  usher load --dev ready.json --voters 500          500 people vote as well
  usher load --dev ready.json --find-limit          how many messages/s until p99 is over 250 ms
  usher load --url wss://live.example.com --session <uuid> --tokens tokens.txt

Exit status: 0 sound; 1 nothing could be measured; 2 wrong usage; 3 void: the generator was at its own limit, so the
figures are its own; 4 broken: something was lost, doubled or out of order, or a viewer was not there at the end.";

/// What `usher load` takes.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct LoadArgs {
    /// Where the gateway is: ws://, wss://, http:// or https://; host:port, or a port of this machine, is ws://. The path
    /// is /v1/socket where none is given.
    #[arg(
        long,
        value_name = "URL",
        help_heading = "Target",
        required_unless_present = "dev"
    )]
    pub(super) url: Option<String>,

    /// A live session to watch and write to. May be repeated: viewers and messages are dealt to all of them.
    #[arg(
        long,
        value_name = "UUID",
        help_heading = "Target",
        required_unless_present = "dev"
    )]
    pub(super) session: Vec<Uuid>,

    /// File with the line that `usher dev --json` prints, or - for standard input: it says all of the above, and lets
    /// the run make users of its own.
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub(super) dev: Option<PathBuf>,

    /// File with the authority that signs the gateway's certificate (PEM). Default: the system's authorities.
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub(super) root_cert: Option<PathBuf>,

    /// Take any certificate.
    #[arg(long, help_heading = "Target", conflicts_with = "root_cert")]
    pub(super) insecure: bool,

    /// Process id of the gateway, to watch its CPU and memory. Default: whoever listens there, if it is this machine.
    #[arg(long, value_name = "PID", help_heading = "Target")]
    pub(super) server_pid: Option<u32>,

    /// Viewers, over all sessions, 1 to 1000000.
    #[arg(long, default_value_t = 1_000, value_name = "N", help_heading = "Who",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) viewers: u32,

    /// Viewers that read nothing while it is measured: a number, or a share as in 10%.
    #[arg(long, value_name = "N|%", help_heading = "Who")]
    pub(super) slow: Option<Share>,

    /// Viewers that are dropped at once, and when, in seconds of the measured time: 500, 50%, 500@10.
    #[arg(long, value_name = "N[@S]", help_heading = "Who")]
    pub(super) storm: Option<StormArg>,

    /// Sockets that write messages. Default: two for each message a second, which no gateway refuses.
    #[arg(long, value_name = "N", help_heading = "Who")]
    pub(super) chatters: Option<u32>,

    /// Sockets that vote in the session's open voting.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Who")]
    pub(super) voters: u32,

    /// File with the access tokens of users, one a line, for those who write.
    #[arg(long, value_name = "FILE", help_heading = "Who")]
    pub(super) tokens: Option<PathBuf>,

    /// Let viewers bear tokens too. Default: they watch as the role anon.
    #[arg(long, help_heading = "Who")]
    pub(super) signed_in: bool,

    /// The gateway's secret for access tokens: with it and --database-url, users are made as needed (load_000001 and
    /// so on; they stay, and the next run takes them again).
    #[arg(long, env = "SUPABASE_JWT_SECRET", hide_env_values = true, value_name = "SECRET",
          value_parser = secret(), help_heading = "Who")]
    pub(super) jwt_secret: Option<SecretString>,

    /// File that holds the secret.
    #[arg(
        long,
        env = "SUPABASE_JWT_SECRET_FILE",
        value_name = "FILE",
        help_heading = "Who"
    )]
    pub(super) jwt_secret_file: Option<PathBuf>,

    /// Messages a second, by everybody together.
    #[arg(long, default_value_t = 20.0, value_name = "N", help_heading = "Load", value_parser = positive)]
    pub(super) rate: f64,

    /// Votes a second, by everybody together. Default: each voter votes once.
    #[arg(long, value_name = "N", help_heading = "Load", value_parser = positive)]
    pub(super) vote_rate: Option<f64>,

    /// Characters of a message, 60 to 2000.
    #[arg(long, default_value_t = 120, value_name = "N", help_heading = "Load",
          value_parser = clap::value_parser!(u16).range(60..=2_000))]
    pub(super) size: u16,

    /// How messages get in: by chatters through the gateway, or as rows with SQL past its limits (needs a database).
    ///
    /// Default: through the gateway; with --find-limit, or without tokens, with SQL where there is a database.
    #[arg(long, value_name = "WAY", help_heading = "Load")]
    pub(super) write_by: Option<Way>,

    /// Database to insert into and to make users in, as a role that may.
    #[arg(long, env = "USHER_LOAD_DATABASE_URL", hide_env_values = true, value_name = "URL",
          value_parser = secret(), help_heading = "Load")]
    pub(super) database_url: Option<SecretString>,

    /// File that holds the URL of the database.
    #[arg(
        long,
        env = "USHER_LOAD_DATABASE_URL_FILE",
        value_name = "FILE",
        help_heading = "Load"
    )]
    pub(super) database_url_file: Option<PathBuf>,

    /// Viewers that come a second. A gateway admits so many; what it admits no faster shows as time to connect.
    #[arg(long, default_value_t = 500.0, value_name = "N", help_heading = "Load", value_parser = positive)]
    pub(super) ramp: f64,

    /// Seconds before it is measured.
    #[arg(long, default_value_t = 3.0, value_name = "S", help_heading = "Load", value_parser = not_negative)]
    pub(super) warm_up: f64,

    /// Seconds that are measured.
    #[arg(long, default_value_t = 30.0, value_name = "S", help_heading = "Load", value_parser = positive)]
    pub(super) duration: f64,

    /// Seconds that the last messages may take to reach everybody, before they count as lost.
    #[arg(long, default_value_t = 10.0, value_name = "S", help_heading = "Load", value_parser = not_negative)]
    pub(super) drain: f64,

    /// Raise the rate from --rate on until p99 is over the bound, and find where.
    #[arg(long, help_heading = "Load", conflicts_with_all = ["storm", "slow", "voters"])]
    pub(super) find_limit: bool,

    /// The bound on p99 for --find-limit, in milliseconds.
    #[arg(long, default_value_t = 250.0, value_name = "MS", help_heading = "Load", value_parser = positive)]
    pub(super) bound: f64,

    /// Seconds for which --find-limit measures each rate.
    #[arg(long, default_value_t = 5.0, value_name = "S", help_heading = "Load", value_parser = positive)]
    pub(super) step: f64,

    /// Threads that hold the sockets, 1 to 64. A thread that is too busy voids the run, and the output says so.
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Generator",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) threads: u16,

    /// Source addresses 127.0.0.1, 127.0.0.2, … for a gateway on loopback. Default: one for 10,000 viewers.
    #[arg(long, value_name = "N", help_heading = "Generator", value_parser = clap::value_parser!(u32).range(1..=65_000))]
    pub(super) addresses: Option<u32>,

    /// Let each socket say that it comes from an address of its own (X-Forwarded-For), as behind a proxy; a gateway
    /// believes it from its USHER_TRUSTED_PROXIES, by default loopback.
    #[arg(long, help_heading = "Generator")]
    pub(super) forwarded: bool,

    /// Write everything that was measured to this file, or to standard output (-), as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(super) json: Option<PathBuf>,

    /// Write a report with plots to this file: HTML, complete in itself.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(super) report: Option<PathBuf>,

    /// No progress.
    #[arg(long, short, help_heading = "Results")]
    pub(super) quiet: bool,
}

/// How messages get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Way {
    Gateway,
    Database,
}

/// Runs the load, prints what was seen, and says what it was worth by the exit status.
///
/// # Errors
///
/// Where nothing could be measured, or a result cannot be written.
pub async fn run(args: LoadArgs) -> anyhow::Result<ExitCode> {
    let shutdown = process::shutdown_on_signal()?;
    let plan = plan(&args).await?;
    raise_file_limit(&plan)?;
    // A path that cannot be written to is known before the run, not after it.
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
    let ran = load::run(plan, &mut progress, shutdown).await;
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

/// Each viewer and writer is a file.
fn raise_file_limit(plan: &Plan) -> anyhow::Result<()> {
    const OTHERS: u64 = 64;
    let wanted =
        u64::from(plan.viewers) + u64::from(plan.chatters) + u64::from(plan.voters) + OTHERS;
    let limit = rlimit::increase_nofile_limit(u64::MAX).context("raise the file limit")?;
    ensure!(
        limit >= wanted,
        "{wanted} files are needed, a socket being one, and this process may have {limit}: \
         raise the hard limit (ulimit -Hn), or use fewer viewers and run several generators side by side"
    );
    Ok(())
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text
        .parse::<f64>()
        .ok()
        .filter(|number| *number > 0.0 && *number <= 1e6);
    number.ok_or_else(|| "it must be a number above 0, up to 1000000".to_owned())
}

fn not_negative(text: &str) -> Result<f64, String> {
    let number = text
        .parse::<f64>()
        .ok()
        .filter(|number| (0.0..=1e6).contains(number));
    number.ok_or_else(|| "it must be a number from 0 to 1000000".to_owned())
}

//! The command-line arguments of `usher load`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use secrecy::SecretString;
use uuid::Uuid;

use crate::cli::load::target::{Share, StormArg};
use crate::config::secret::secret_parser;

const EXAMPLES: &str = "\
Examples:
  usher dev --json > ready.json &                   a gateway to test
  usher load --dev ready.json                       1,000 viewers, 20 messages/s, 30 s
  usher load --dev ready.json --viewers 5000 --report report.html
  usher load --dev ready.json --storm 2000@10       2,000 viewers drop at second 10 and reconnect
  usher load --dev ready.json --slow 10%            every tenth viewer reads nothing
  usher load --dev ready.json --voters 500          500 people vote as well
  usher load --dev ready.json --find-limit          the highest rate with p99 within 250 ms
  usher load --url wss://live.example.com --session <uuid> --tokens tokens.txt

Exit status: 0 sound; 1 nothing was measured; 2 wrong usage; 3 void: the load generator reached its own limit, so the
figures describe the generator; 4 broken: events were lost, duplicated or out of order, or a viewer was missing at the
end.";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LoadArgs {
    /// URL of the gateway: ws://, wss://, http:// or https://. host:port, or a port of this machine, means ws://. The
    /// default path is /v1/socket.
    #[arg(
        long,
        value_name = "URL",
        help_heading = "Target",
        required_unless_present = "dev"
    )]
    pub(crate) url: Option<String>,

    /// A live session to watch and write to. May be repeated: viewers and messages are spread over all sessions.
    #[arg(
        long,
        value_name = "UUID",
        help_heading = "Target",
        required_unless_present = "dev"
    )]
    pub(crate) session: Vec<Uuid>,

    /// File with the line that `usher dev --json` prints, or - for standard input. It replaces --url and --session, and
    /// lets the run create users.
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub(crate) dev: Option<PathBuf>,

    /// File with the certificate authority that signs the gateway's certificate (PEM). Default: those of the system.
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub(crate) root_cert: Option<PathBuf>,

    /// Accept any certificate.
    #[arg(long, help_heading = "Target", conflicts_with = "root_cert")]
    pub(crate) insecure: bool,

    /// Process id of the gateway, to measure its CPU and memory. Default: the process that listens on the address, if
    /// it runs on this machine.
    #[arg(long, value_name = "PID", help_heading = "Target")]
    pub(crate) server_pid: Option<u32>,

    /// Viewers over all sessions, 1 to 1000000.
    #[arg(long, default_value_t = 1_000, value_name = "N", help_heading = "Who",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) viewers: u32,

    /// Viewers that read nothing during the measurement: a number, or a share as in 10%.
    #[arg(long, value_name = "N|%", help_heading = "Who")]
    pub(crate) slow: Option<Share>,

    /// Viewers to drop together, and the second of the measurement to drop them at: 500, 50%, 500@10.
    #[arg(long, value_name = "N[@S]", help_heading = "Who")]
    pub(crate) storm: Option<StormArg>,

    /// Sockets that write messages. Default: two for each message a second, which stays within the gateway's limits.
    #[arg(long, value_name = "N", help_heading = "Who")]
    pub(crate) chatters: Option<u32>,

    /// Sockets that vote in the session's open poll.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Who")]
    pub(crate) voters: u32,

    /// File with the access tokens of the users who write, one per line.
    #[arg(long, value_name = "FILE", help_heading = "Who")]
    pub(crate) tokens: Option<PathBuf>,

    /// Sign viewers in with tokens too. Default: they watch as the role anon.
    #[arg(long, help_heading = "Who")]
    pub(crate) signed_in: bool,

    /// The gateway's secret for access tokens. With it and --database-url, the run creates the users that it needs
    /// (load_000001 and so on). They stay in the database, and the next run uses them again.
    #[arg(long, env = "SUPABASE_JWT_SECRET", hide_env_values = true, value_name = "SECRET",
          value_parser = secret_parser(), help_heading = "Who")]
    pub(crate) jwt_secret: Option<SecretString>,

    /// File that contains the secret.
    #[arg(
        long,
        env = "SUPABASE_JWT_SECRET_FILE",
        value_name = "FILE",
        help_heading = "Who"
    )]
    pub(crate) jwt_secret_file: Option<PathBuf>,

    /// Messages a second, all writers together.
    #[arg(long, default_value_t = 20.0, value_name = "N", help_heading = "Load", value_parser = positive)]
    pub(crate) rate: f64,

    /// Votes a second, all voters together. Default: each voter votes once.
    #[arg(long, value_name = "N", help_heading = "Load", value_parser = positive)]
    pub(crate) vote_rate: Option<f64>,

    /// Characters of a message, 60 to 2000.
    #[arg(long, default_value_t = 120, value_name = "N", help_heading = "Load",
          value_parser = clap::value_parser!(u16).range(60..=2_000))]
    pub(crate) size: u16,

    /// How messages are written: through the gateway, or as rows with SQL. SQL bypasses the gateway's limits and needs
    /// a database.
    ///
    /// Default: through the gateway. With --find-limit, or without tokens, with SQL if a database is given.
    #[arg(long, value_name = "WAY", help_heading = "Load")]
    pub(crate) write_by: Option<Way>,

    /// Database to insert messages and create users in. The role needs the rights to do so.
    #[arg(long, env = "USHER_LOAD_DATABASE_URL", hide_env_values = true, value_name = "URL",
          value_parser = secret_parser(), help_heading = "Load")]
    pub(crate) database_url: Option<SecretString>,

    /// File that contains the URL of the database.
    #[arg(
        long,
        env = "USHER_LOAD_DATABASE_URL_FILE",
        value_name = "FILE",
        help_heading = "Load"
    )]
    pub(crate) database_url_file: Option<PathBuf>,

    /// Viewers that connect per second. If the gateway admits fewer, the time to connect grows.
    #[arg(long, default_value_t = 500.0, value_name = "N", help_heading = "Load", value_parser = positive)]
    pub(crate) ramp: f64,

    /// Seconds of load before the measurement.
    #[arg(long, default_value_t = 3.0, value_name = "S", help_heading = "Load", value_parser = not_negative)]
    pub(crate) warm_up: f64,

    /// Seconds of the measurement.
    #[arg(long, default_value_t = 30.0, value_name = "S", help_heading = "Load", value_parser = positive)]
    pub(crate) duration: f64,

    /// Seconds that the last messages may take to reach all viewers, before they count as lost.
    #[arg(long, default_value_t = 10.0, value_name = "S", help_heading = "Load", value_parser = not_negative)]
    pub(crate) drain: f64,

    /// Raise the rate, starting at --rate, and find the highest one with p99 within the bound.
    #[arg(long, help_heading = "Load", conflicts_with_all = ["storm", "slow", "voters"])]
    pub(crate) find_limit: bool,

    /// The bound on p99 for --find-limit, in milliseconds.
    #[arg(long, default_value_t = 250.0, value_name = "MS", help_heading = "Load", value_parser = positive)]
    pub(crate) bound: f64,

    /// Seconds that --find-limit measures each rate.
    #[arg(long, default_value_t = 5.0, value_name = "S", help_heading = "Load", value_parser = positive)]
    pub(crate) step: f64,

    /// Threads that serve the sockets, 1 to 64. A thread that is too busy voids the run, and the output says so.
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Generator",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) threads: u16,

    /// Number of source addresses 127.0.0.1, 127.0.0.2, … for a gateway on loopback. Default: one per 10,000 viewers.
    #[arg(long, value_name = "N", help_heading = "Generator", value_parser = clap::value_parser!(u32).range(1..=65_000))]
    pub(crate) addresses: Option<u32>,

    /// Send a client address with each socket (X-Forwarded-For), as a proxy does. A gateway accepts it from
    /// its USHER_TRUSTED_PROXIES, by default loopback.
    #[arg(long, help_heading = "Generator")]
    pub(crate) forwarded: bool,

    /// Write all measurements to this file, or to standard output (-), as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(crate) json: Option<PathBuf>,

    /// Write a report with plots to this file: self-contained HTML.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(crate) report: Option<PathBuf>,

    /// Do not show progress.
    #[arg(long, short, help_heading = "Results")]
    pub(crate) quiet: bool,
}

/// The way messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    Gateway,
    Database,
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

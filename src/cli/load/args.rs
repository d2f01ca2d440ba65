//! What `usher load` asks of its user.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use secrecy::SecretString;
use uuid::Uuid;

use crate::cli::load::target::{Share, StormArg};
use crate::config::secret::secret_parser;

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
pub(crate) struct LoadArgs {
    /// Where the gateway is: ws://, wss://, http:// or https://; host:port, or a port of this machine, is ws://. The path
    /// is /v1/socket where none is given.
    #[arg(
        long,
        value_name = "URL",
        help_heading = "Target",
        required_unless_present = "dev"
    )]
    pub(crate) url: Option<String>,

    /// A live session to watch and write to. May be repeated: viewers and messages are dealt to all of them.
    #[arg(
        long,
        value_name = "UUID",
        help_heading = "Target",
        required_unless_present = "dev"
    )]
    pub(crate) session: Vec<Uuid>,

    /// File with the line that `usher dev --json` prints, or - for standard input: it says all of the above, and lets
    /// the run make users of its own.
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub(crate) dev: Option<PathBuf>,

    /// File with the authority that signs the gateway's certificate (PEM). Default: the system's authorities.
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub(crate) root_cert: Option<PathBuf>,

    /// Take any certificate.
    #[arg(long, help_heading = "Target", conflicts_with = "root_cert")]
    pub(crate) insecure: bool,

    /// Process id of the gateway, to watch its CPU and memory. Default: whoever listens there, if it is this machine.
    #[arg(long, value_name = "PID", help_heading = "Target")]
    pub(crate) server_pid: Option<u32>,

    /// Viewers, over all sessions, 1 to 1000000.
    #[arg(long, default_value_t = 1_000, value_name = "N", help_heading = "Who",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) viewers: u32,

    /// Viewers that read nothing while it is measured: a number, or a share as in 10%.
    #[arg(long, value_name = "N|%", help_heading = "Who")]
    pub(crate) slow: Option<Share>,

    /// Viewers that are dropped at once, and when, in seconds of the measured time: 500, 50%, 500@10.
    #[arg(long, value_name = "N[@S]", help_heading = "Who")]
    pub(crate) storm: Option<StormArg>,

    /// Sockets that write messages. Default: two for each message a second, which no gateway refuses.
    #[arg(long, value_name = "N", help_heading = "Who")]
    pub(crate) chatters: Option<u32>,

    /// Sockets that vote in the session's open voting.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Who")]
    pub(crate) voters: u32,

    /// File with the access tokens of users, one a line, for those who write.
    #[arg(long, value_name = "FILE", help_heading = "Who")]
    pub(crate) tokens: Option<PathBuf>,

    /// Let viewers bear tokens too. Default: they watch as the role anon.
    #[arg(long, help_heading = "Who")]
    pub(crate) signed_in: bool,

    /// The gateway's secret for access tokens: with it and --database-url, users are made as needed (load_000001 and
    /// so on; they stay, and the next run takes them again).
    #[arg(long, env = "SUPABASE_JWT_SECRET", hide_env_values = true, value_name = "SECRET",
          value_parser = secret_parser(), help_heading = "Who")]
    pub(crate) jwt_secret: Option<SecretString>,

    /// File that holds the secret.
    #[arg(
        long,
        env = "SUPABASE_JWT_SECRET_FILE",
        value_name = "FILE",
        help_heading = "Who"
    )]
    pub(crate) jwt_secret_file: Option<PathBuf>,

    /// Messages a second, by everybody together.
    #[arg(long, default_value_t = 20.0, value_name = "N", help_heading = "Load", value_parser = positive)]
    pub(crate) rate: f64,

    /// Votes a second, by everybody together. Default: each voter votes once.
    #[arg(long, value_name = "N", help_heading = "Load", value_parser = positive)]
    pub(crate) vote_rate: Option<f64>,

    /// Characters of a message, 60 to 2000.
    #[arg(long, default_value_t = 120, value_name = "N", help_heading = "Load",
          value_parser = clap::value_parser!(u16).range(60..=2_000))]
    pub(crate) size: u16,

    /// How messages get in: by chatters through the gateway, or as rows with SQL past its limits (needs a database).
    ///
    /// Default: through the gateway; with --find-limit, or without tokens, with SQL where there is a database.
    #[arg(long, value_name = "WAY", help_heading = "Load")]
    pub(crate) write_by: Option<Way>,

    /// Database to insert into and to make users in, as a role that may.
    #[arg(long, env = "USHER_LOAD_DATABASE_URL", hide_env_values = true, value_name = "URL",
          value_parser = secret_parser(), help_heading = "Load")]
    pub(crate) database_url: Option<SecretString>,

    /// File that holds the URL of the database.
    #[arg(
        long,
        env = "USHER_LOAD_DATABASE_URL_FILE",
        value_name = "FILE",
        help_heading = "Load"
    )]
    pub(crate) database_url_file: Option<PathBuf>,

    /// Viewers that come a second. A gateway admits so many; what it admits no faster shows as time to connect.
    #[arg(long, default_value_t = 500.0, value_name = "N", help_heading = "Load", value_parser = positive)]
    pub(crate) ramp: f64,

    /// Seconds before it is measured.
    #[arg(long, default_value_t = 3.0, value_name = "S", help_heading = "Load", value_parser = not_negative)]
    pub(crate) warm_up: f64,

    /// Seconds that are measured.
    #[arg(long, default_value_t = 30.0, value_name = "S", help_heading = "Load", value_parser = positive)]
    pub(crate) duration: f64,

    /// Seconds that the last messages may take to reach everybody, before they count as lost.
    #[arg(long, default_value_t = 10.0, value_name = "S", help_heading = "Load", value_parser = not_negative)]
    pub(crate) drain: f64,

    /// Raise the rate from --rate on until p99 is over the bound, and find where.
    #[arg(long, help_heading = "Load", conflicts_with_all = ["storm", "slow", "voters"])]
    pub(crate) find_limit: bool,

    /// The bound on p99 for --find-limit, in milliseconds.
    #[arg(long, default_value_t = 250.0, value_name = "MS", help_heading = "Load", value_parser = positive)]
    pub(crate) bound: f64,

    /// Seconds for which --find-limit measures each rate.
    #[arg(long, default_value_t = 5.0, value_name = "S", help_heading = "Load", value_parser = positive)]
    pub(crate) step: f64,

    /// Threads that hold the sockets, 1 to 64. A thread that is too busy voids the run, and the output says so.
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Generator",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) threads: u16,

    /// Source addresses 127.0.0.1, 127.0.0.2, … for a gateway on loopback. Default: one for 10,000 viewers.
    #[arg(long, value_name = "N", help_heading = "Generator", value_parser = clap::value_parser!(u32).range(1..=65_000))]
    pub(crate) addresses: Option<u32>,

    /// Let each socket say that it comes from an address of its own (X-Forwarded-For), as behind a proxy; a gateway
    /// believes it from its USHER_TRUSTED_PROXIES, by default loopback.
    #[arg(long, help_heading = "Generator")]
    pub(crate) forwarded: bool,

    /// Write everything that was measured to this file, or to standard output (-), as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(crate) json: Option<PathBuf>,

    /// Write a report with plots to this file: HTML, complete in itself.
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub(crate) report: Option<PathBuf>,

    /// No progress.
    #[arg(long, short, help_heading = "Results")]
    pub(crate) quiet: bool,
}

/// How messages get in.
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

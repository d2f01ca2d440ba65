//! The command line: one module per command, and what the commands share.
//!
//! `environment` finds misspelt settings. `process` handles signals, logs, the file limit and output. An error ends the
//! process; `main` prints it with its causes. `dev` and `load` are features.

#[cfg(feature = "dev")]
pub(crate) mod dev;
pub(crate) mod doctor;
mod environment;
#[cfg(feature = "load")]
pub(crate) mod load;
pub(crate) mod migrate;
mod process;
pub(crate) mod serve;
pub(crate) mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  usher dev                             run a demo on this machine, without any setup
  usher dev --listen 4001               run a second demo
  usher migrate up                      apply the schema to DATABASE_URL
  usher doctor                          find mistakes in the settings and the database
  usher serve                           run the gateway in front of your database
  usher token --sub <uuid> --ttl 1h     print an access token for a test
  usher load --url ws://… --session …   connect a thousand viewers and report what they received

Settings of `usher serve` are flags and environment variables. A secret can also come from a file (NAME_FILE).";

/// A lightweight realtime fan-out gateway in front of Supabase.
#[derive(Debug, Parser)]
#[command(name = "usher", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a demo on this machine: a temporary Postgres, the schema, demo data, the gateway and its pages.
    #[cfg(feature = "dev")]
    Dev(dev::DevArgs),
    /// Run the gateway in front of a database.
    Serve(Box<serve::ServeArgs>),
    /// Apply the schema, roll it back, or list what is applied.
    Migrate(migrate::MigrateArgs),
    /// Check a configuration end to end: settings, database, TLS, LISTEN, schema, roles, keys.
    Doctor(Box<doctor::DoctorArgs>),
    /// Mint an access token for development.
    Token(token::TokenArgs),
    /// Load a gateway with viewers and writers, and report what they received.
    #[cfg(feature = "load")]
    Load(Box<load::args::LoadArgs>),
}

/// Runs the command and returns the exit code.
///
/// # Errors
///
/// If the command fails.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // The other commands log or report the warnings themselves.
    let warns_here = match cli.command {
        Command::Migrate(_) | Command::Token(_) => true,
        #[cfg(feature = "load")]
        Command::Load(_) => true,
        #[cfg(feature = "dev")]
        Command::Dev(_) => false,
        Command::Serve(_) | Command::Doctor(_) => false,
    };
    if warns_here {
        for warning in environment::warnings() {
            process::warn(&warning);
        }
    }
    match cli.command {
        #[cfg(feature = "dev")]
        Command::Dev(args) => dev::run(args).await?,
        Command::Serve(args) => serve::run(*args).await?,
        Command::Migrate(args) => migrate::run(args).await?,
        Command::Doctor(args) => doctor::run(*args).await?,
        Command::Token(args) => token::run(&args)?,
        #[cfg(feature = "load")]
        Command::Load(args) => return load::run(*args).await,
    }
    Ok(ExitCode::SUCCESS)
}

//! The command line: what each command takes, and in which order it does things.
//!
//! Errors are `anyhow` here: they end the process, and `main` prints them with their causes. Read in this order:
//! [`serve`], `dev`, [`migrate`], [`doctor`] with `examine` and
//! `examine_database` (what it looks at) and `finding` (what it says), [`token`], `load`, `environment` (misspelt
//! settings), `process` (signals, logs, limits, clock). `dev` and `load` are features.

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
  usher dev                             everything on this machine, with nothing set up
  usher dev --listen 4001               a second one beside it
  usher migrate up                      the schema, on DATABASE_URL
  usher doctor                          what is wrong with the settings or the database
  usher serve                           the gateway in front of a real database
  usher token --sub <uuid> --ttl 1h     a token to try it with
  usher load --url ws://… --session …   a thousand viewers, and what they saw

Every flag has an environment variable; a secret can also come from a file (NAME_FILE).";

/// A lightweight realtime fan-out gateway in front of Supabase.
#[derive(Debug, Parser)]
#[command(name = "usher", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine: a throwaway Postgres, the schema, a demo, the gateway, the pages.
    #[cfg(feature = "dev")]
    Dev(dev::DevArgs),
    /// Run the gateway in front of a database.
    Serve(Box<serve::ServeArgs>),
    /// Apply the schema, take it back, or see what is applied.
    Migrate(migrate::MigrateArgs),
    /// Check a configuration end to end: settings, database, TLS, LISTEN, schema, roles, keys.
    Doctor(Box<doctor::DoctorArgs>),
    /// Mint an access token for development.
    Token(token::TokenArgs),
    /// Drive a gateway with viewers and writers, and report what they saw.
    #[cfg(feature = "load")]
    Load(Box<load::args::LoadArgs>),
}

/// Runs the command; says what the process ends with.
///
/// # Errors
///
/// Whatever ends it, with what was attempted.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // Those that log, or report, say it there.
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

//! `usher migrate`: applies the embedded schema to a database, or rolls it back.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use secrecy::SecretString;
use tokio_postgres::Client;

use crate::cli::process;
use crate::config::secret::{read_secret, secret_parser};
use crate::postgres::connect::Target;
use crate::postgres::migrations::{self, Down, Migration, MigrationState};

const EXAMPLES: &str = "\
Examples:
  usher migrate up --database-url 'postgres://postgres:…@db.<ref>.supabase.co:5432/postgres'
  usher migrate up --shim       for a Postgres without Supabase's roles and tables
  usher migrate down            rolls back the newest migration
  usher migrate down --to 0     rolls back everything

Applied migrations are recorded where the Supabase CLI records them (supabase_migrations.schema_migrations).";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MigrateArgs {
    #[command(subcommand)]
    action: Action,

    /// Database URL for a role that owns the schema (Supabase: postgres): a direct connection or a session pooler.
    #[arg(long, global = true, env = "DATABASE_URL", hide_env_values = true, value_name = "URL", value_parser = secret_parser())]
    database_url: Option<SecretString>,

    /// File that contains the database URL.
    #[arg(long, global = true, env = "DATABASE_URL_FILE", value_name = "FILE")]
    database_url_file: Option<PathBuf>,

    /// Certificate authority that signed the database's certificate: a PEM file, or the PEM text itself. Default: the
    /// system's authorities.
    #[arg(
        long,
        global = true,
        env = "USHER_PG_ROOT_CERT",
        hide_env_values = true,
        value_name = "FILE|PEM"
    )]
    pg_root_cert: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Apply the pending migrations.
    Up {
        /// First create Supabase's roles, auth and storage in a plain Postgres. Refused on a Supabase project.
        #[arg(long)]
        shim: bool,
    },
    /// Roll back the newest migration, or all after --to.
    Down {
        /// Version that remains the newest; 0 rolls back everything.
        #[arg(long, value_name = "VERSION")]
        to: Option<String>,
    },
    /// List the migrations and their state.
    Status,
}

/// Runs the action.
///
/// # Errors
///
/// If the database cannot be reached or a migration fails.
pub(crate) async fn run(args: MigrateArgs) -> anyhow::Result<()> {
    let mut client = connect(&args).await?;
    match args.action {
        Action::Up { shim } => {
            if shim {
                migrations::shim(&mut client).await?;
            }
            report("applied", &migrations::up(&mut client).await?);
        }
        Action::Down { to } => {
            let down = to.map_or(Down::OneStep, Down::To);
            report("took back", &migrations::down(&mut client, &down).await?);
        }
        Action::Status => {
            for (Migration { version, name }, state) in migrations::status(&client).await? {
                let state = match state {
                    MigrationState::Applied => "applied",
                    MigrationState::Pending => "pending",
                    MigrationState::Foreign => "not ours",
                };
                process::print(format!("{state:<8}  {version}  {name}").trim_end());
            }
        }
    }
    Ok(())
}

async fn connect(args: &MigrateArgs) -> anyhow::Result<Client> {
    let file = args.database_url_file.as_deref();
    let url =
        read_secret("DATABASE_URL", args.database_url.as_ref(), file).context("DATABASE_URL")?;
    let url = url.context("no database: give its URL with --database-url or DATABASE_URL")?;
    let target = Target::parse(&url, args.pg_root_cert.as_deref()).context("DATABASE_URL")?;
    if target.is_transaction_pooler() {
        bail!(
            "DATABASE_URL has port 6543, a transaction pooler, where the lock on migrations would not hold: \
             use the direct connection or the session pooler (port 5432)"
        );
    }
    let (client, link) = target.connect().await?;
    // The task ends with the client. A query that hits an error of the connection returns it.
    tokio::spawn(link.drive());
    Ok(client)
}

fn report(what: &str, migrations: &[Migration]) {
    for migration in migrations {
        process::print(&format!("{what} {}", migration.file()));
    }
    if migrations.is_empty() {
        process::print("nothing to do");
    }
}

//! `usher serve`: runs the gateway in front of a database.

use clap::Args;
use sd_notify::NotifyState;
use tracing::{debug, info};

use crate::app;
use crate::cli::environment;
use crate::cli::process;
use crate::config::Config;
use crate::config::raw::Raw;
use crate::net::accept::handshake::SOCKET_PATH;

const EXAMPLE: &str = "\
Example:
  DATABASE_URL='postgres://usher_gateway:…@db.<ref>.supabase.co:5432/postgres' \\
  SUPABASE_URL='https://<ref>.supabase.co' \\
  USHER_RESUME_SECRET_FILE=/run/secrets/resume USHER_LISTEN=0.0.0.0:4000 usher serve

Apply the schema first, as a role that may change it: `usher migrate up`. Then set a password:
  alter role usher_gateway password '…';";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    raw: Raw,
}

/// Serves until a signal stops it.
///
/// # Errors
///
/// If a setting is wrong or the gateway cannot start.
pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let mut config = Config::from_raw(&args.raw)?;
    config.warnings.extend(environment::warnings());
    process::init_logs(&config.log)?;
    let shutdown = process::shutdown_on_signal()?;
    process::raise_file_limit(&mut config);
    info!(version = env!("CARGO_PKG_VERSION"), database = %config.database, "starting");
    let is_secure = config.tls.is_some();
    let ready = |address| {
        let (http, socket) = if is_secure {
            ("https", "wss")
        } else {
            ("http", "ws")
        };
        info!(url = %format!("{http}://{address}/"), socket = %format!("{socket}://{address}{SOCKET_PATH}"), "ready");
        if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
            debug!(%error, "could not tell systemd");
        }
    };
    app::serve(config, ready, shutdown).await?;
    info!("stopped");
    Ok(())
}

//! The process: its signals, logs, file limit and output.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tracing_subscriber::{EnvFilter, util::SubscriberInitExt as _};

use crate::config::{Config, LogFormat, LogSettings};
use crate::limits::FILES_RESERVED;

/// Cancels the token at the first SIGINT or SIGTERM. A second signal ends the process immediately; the watchdog of a
/// temporary Postgres still cleans up.
pub(crate) fn shutdown_on_signal() -> anyhow::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        token.cancel();
        info!("told to stop");
        either(&mut interrupt, &mut terminate).await;
        exit_at_once();
    });
    Ok(shutdown)
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    // Both are cancel-safe: the next call receives a signal that this one did not.
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[expect(clippy::exit, reason = "the user asked twice")]
fn exit_at_once() -> ! {
    std::process::exit(130)
}

/// Sends logs to standard error; standard output is for results.
pub(crate) fn init_logs(settings: &LogSettings) -> anyhow::Result<()> {
    // The pool would warn about each connection. The listener logs once that the database is unreachable.
    let filter = format!("deadpool=error,{}", settings.filter);
    let filter = EnvFilter::try_new(filter).context("read the log filter")?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // If the pipe of the log is closed, the fallback would print to the same pipe and panic.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    let initialised = match settings.format {
        LogFormat::Human => builder
            .with_ansi(io::stderr().is_terminal())
            .finish()
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    };
    initialised.context("start the logs")
}

/// Raises the file limit as far as possible, and lowers `connections_max` to it if necessary.
pub(crate) fn raise_file_limit(config: &mut Config) {
    let limit = match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => limit,
        Err(error) => {
            warn!(%error, "could not raise the file limit");
            return;
        }
    };
    let sockets = usize::try_from(limit.saturating_sub(FILES_RESERVED)).unwrap_or(usize::MAX);
    if sockets < config.connections_max {
        warn!(
            file_limit = limit,
            wanted = config.connections_max,
            sockets,
            "the file limit allows fewer sockets than configured: raise it (ulimit -n, LimitNOFILE=)"
        );
        config.connections_max = sockets.max(1);
    }
}

/// Writes a result to standard output. A closed pipe is not an error.
pub(crate) fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Writes a warning to standard error, for commands without a log.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(io::stderr().lock(), "usher: warning: {text}");
}

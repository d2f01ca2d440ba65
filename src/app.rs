//! Builds the gateway's parts in order, and stops them in reverse.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Serves until `shutdown` is cancelled. `ready` is called once, with the address that is really served on.
///
/// # Errors
///
/// Where a part cannot be built, or one fails for good.
pub async fn serve(
    config: Config,
    ready: impl FnOnce(SocketAddr),
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listen on {}", config.listen))?;
    ready(listener.local_addr()?);
    shutdown.cancelled().await;
    Ok(())
}

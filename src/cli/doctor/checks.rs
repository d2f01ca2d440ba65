//! The checks of `usher doctor`, one function each.

use rustls::pki_types::CertificateDer;
use tokio_postgres::Client;

use crate::causes::with_causes;
use crate::cli::doctor::database;
use crate::cli::doctor::finding::{Finding, expires, failed, ok, warning};
use crate::cli::environment;
use crate::clock;
use crate::config::check::ConfigErrors;
use crate::config::raw::Raw;
use crate::config::{Config, certificate};
use crate::keyring;
use crate::limits::FILES_RESERVED;
use crate::postgres::connect::Target;
use crate::postgres::introspect;

/// Runs every check that the settings allow.
pub(crate) async fn all(raw: &Raw) -> Vec<Finding> {
    let mut findings = Vec::new();
    let config = Config::from_raw(raw);
    settings(&config, &mut findings);
    findings.extend(environment::warnings().into_iter().map(|text| {
        warning(
            "settings",
            text,
            "correct its name, or remove it; usher serve --help lists all",
        )
    }));
    if let Ok(config) = &config {
        files(config.connections_max, &mut findings);
        listener_certificate(config, &mut findings);
        keys(config, &mut findings).await;
    }
    if let Some((database, listen)) = Config::databases(raw) {
        if let Some(client) = reach("database", &database, &mut findings).await {
            let pool_size = config.as_ref().map_or(4, |config| config.pool_size);
            database::all(&client, pool_size, &mut findings).await;
        }
        listening(&listen, &database, &mut findings).await;
    }
    findings
}

fn settings(config: &Result<Config, ConfigErrors>, findings: &mut Vec<Finding>) {
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

/// The file limit of this process. A service may have another.
fn files(connections_max: usize, findings: &mut Vec<Finding>) {
    let Ok((_, limit)) = rlimit::Resource::NOFILE.get() else {
        return;
    };
    let sockets = usize::try_from(limit.saturating_sub(FILES_RESERVED)).unwrap_or(usize::MAX);
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
    let issuers = &config.token_keys.issuers;
    let accepted = if issuers.is_empty() {
        "any: neither SUPABASE_URL nor USHER_ISSUER names one".to_owned()
    } else {
        issuers.join(", ")
    };
    findings.push(ok(
        "issuers",
        format!("tokens of users may be issued by {accepted}"),
    ));
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

/// Connects, and reports whether TLS is in use.
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

/// Checks that a notification arrives where the gateway would listen.
async fn listening(listen: &Target, database: &Target, findings: &mut Vec<Finding>) {
    let (Ok((listener, link)), Ok((notifier, other))) =
        (listen.connect().await, listen.connect().await)
    else {
        if listen.to_string() != database.to_string() {
            let _ = reach("listen database", listen, findings).await;
        }
        return;
    };
    let mut heard = introspect::drive(link);
    tokio::spawn(other.drive());
    let pooled = introspect::is_pooled_by_transaction(&listener, &notifier).await;
    if matches!(pooled, Ok(true)) {
        findings.push(failed(
            "listen",
            format!("{listen} is a transaction pooler: it cannot LISTEN"),
            SESSION_ADVICE,
        ));
        return;
    }
    if listen.to_string() != database.to_string() {
        queries(database, findings).await;
    }
    let began = clock::moment().unix_ms;
    let outcome = introspect::echo(&listener, &mut heard, &notifier).await;
    findings.push(match outcome {
        Ok(true) => ok(
            "listen",
            format!(
                "{listen} hears a notification, after {} ms",
                clock::moment().unix_ms.saturating_sub(began)
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

/// Reports whether queries go through a transaction pooler. That works.
async fn queries(database: &Target, findings: &mut Vec<Finding>) {
    let (Ok((one, link)), Ok((other, other_link))) =
        (database.connect().await, database.connect().await)
    else {
        return;
    };
    tokio::spawn(link.drive());
    tokio::spawn(other_link.drive());
    if matches!(
        introspect::is_pooled_by_transaction(&one, &other).await,
        Ok(true)
    ) {
        let found = format!("{database} is a transaction pooler, which is fine for queries");
        findings.push(ok("pooler", found));
    }
}

const SESSION_ADVICE: &str = "set USHER_LISTEN_DATABASE_URL to the direct connection (db.<ref>.supabase.co:5432) or a \
                              session pooler (port 5432)";

//! Makes a [`Config`] of the settings, or reports every mistake in them.

use std::net::IpAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use ipnet::IpNet;
use secrecy::SecretString;
use tracing_subscriber::EnvFilter;

use crate::causes::with_causes;
use crate::config::address::LOCALHOST;
use crate::config::certificate::{Certificate, CertificateFiles};
use crate::config::check::{Check, ConfigErrors, OFF};
use crate::config::rates::Rates;
use crate::config::raw::Raw;
use crate::config::secret::random_secret;
use crate::config::settings::{self, Setting};
use crate::config::{AllowedOrigins, Config, LogFormat, LogSettings, TokenKeys};
use crate::postgres::connect::{Target, TargetError};
use crate::postgres::tls::SslMode;

/// What `localhost` means among the trusted proxies.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

impl Config {
    /// Returns the databases for queries and for LISTEN if their settings are right, even if others are wrong.
    #[must_use]
    pub(crate) fn databases(raw: &Raw) -> Option<(Target, Target)> {
        databases(&mut Check::new(raw))
    }

    /// Checks the settings, and reads the files that contain secrets.
    ///
    /// # Errors
    ///
    /// Every mistake, not only the first.
    pub fn from_raw(raw: &Raw) -> Result<Self, ConfigErrors> {
        let mut check = Check::new(raw);
        let databases = databases(&mut check);
        let token_keys = token_keys(&mut check);
        let resume_secret = resume_secret(&mut check);
        let listen = check.listen_address(&settings::LISTEN);
        let tls = certificate(&mut check);
        let resume_ttl = check.number(&settings::RESUME_TTL);
        let access_check = check.number(&settings::ACCESS_CHECK_SECONDS);
        let is_anonymous_allowed = check.one_of(&settings::ALLOW_ANONYMOUS, boolean);
        let allowed_origins = origins(&mut check);
        let tally_hz = check.number(&settings::TALLY_HZ);
        let heartbeat = check.number(&settings::HEARTBEAT_MS);
        let pool_size = check.number(&settings::POOL_SIZE);
        let connections_max = check.number(&settings::MAX_CONNECTIONS);
        let fanout_loops = fanout_loops(&mut check);
        let ring_events = check.number(&settings::RING_EVENTS);
        let drain = check.number(&settings::DRAIN_SECONDS);
        let log_retention = check.number(&settings::LOG_RETENTION_HOURS);
        let log_retention_events = check.number(&settings::LOG_RETENTION_EVENTS);
        let rates = rates(&mut check);
        let log = log(&mut check);

        if !check.mistakes.is_empty() {
            return Err(ConfigErrors(check.mistakes));
        }
        let complete = || {
            let (database, listen_database) = databases?;
            Some(Self {
                database,
                listen_database,
                token_keys: token_keys?,
                listen: listen?,
                tls: tls?,
                resume_secret: resume_secret?,
                resume_ttl: Duration::from_secs(resume_ttl?),
                access_check: Duration::from_secs(access_check?),
                is_anonymous_allowed: is_anonymous_allowed?,
                allowed_origins: allowed_origins?,
                tally_hz: tally_hz?,
                heartbeat: Duration::from_millis(heartbeat?),
                pool_size: pool_size?,
                connections_max: connections_max?,
                fanout_loops: fanout_loops?,
                ring_events: ring_events?,
                drain: Duration::from_secs(drain?),
                log_retention: Duration::from_hours(log_retention?),
                log_retention_events: log_retention_events?,
                rates: rates?,
                log: log?,
                warnings: check.warnings,
            })
        };
        Ok(complete().expect("a check without a value has recorded a mistake"))
    }
}

/// The database for queries, and the one for LISTEN.
fn databases(check: &mut Check<'_>) -> Option<(Target, Target)> {
    let given = check.secret(&settings::DATABASE_URL);
    if matches!(given, Some(None)) {
        check.mistake(
            &settings::DATABASE_URL,
            "it is missing; it must be a URL for the role usher_gateway, \
             postgres://usher_gateway:password@host:5432/postgres",
        );
    }
    let given = given.flatten();
    let database = given.and_then(|url| target(check, &settings::DATABASE_URL, &url));
    let (setting, listen_database) = match check.secret(&settings::LISTEN_DATABASE_URL)? {
        Some(url) => {
            let setting = &settings::LISTEN_DATABASE_URL;
            (setting, target(check, setting, &url))
        }
        None => (&settings::DATABASE_URL, database.clone()),
    };
    let listen = listen_database.as_ref();
    if listen.is_some_and(Target::is_transaction_pooler) {
        check.mistake(
            setting,
            "port 6543 is a transaction pooler, which cannot LISTEN; set USHER_LISTEN_DATABASE_URL \
             to the direct connection (db.<ref>.supabase.co:5432) or the session pooler (port 5432)",
        );
    }
    database.zip(listen_database)
}

fn target(check: &mut Check<'_>, setting: &'static Setting, url: &SecretString) -> Option<Target> {
    let root_cert = check.raw.text(&settings::PG_ROOT_CERT);
    let parsed = Target::parse(url, Some(root_cert)).map_err(|error| {
        let is_about_url = !matches!(error, TargetError::RootCert { .. });
        let wrong = if is_about_url {
            setting
        } else {
            &settings::PG_ROOT_CERT
        };
        check.mistake(wrong, with_causes(&error));
    });
    let target = parsed.ok()?;
    if matches!(target.ssl_mode(), SslMode::Prefer | SslMode::Require) {
        check.warnings.push(format!(
            "{} has an sslmode that does not verify the server: verify-full is safer",
            setting.name
        ));
    }
    Some(target)
}

fn token_keys(check: &mut Check<'_>) -> Option<TokenKeys> {
    let auth_server = auth_server(check);
    let issuers = check.list(
        &settings::ISSUER,
        |issuer| {
            let is_one = !issuer.contains(|c: char| c.is_whitespace() || c.is_control());
            is_one.then(|| issuer.to_owned())
        },
        "an issuer as its tokens name it (claim iss), with commas between several",
    );
    let secret = check.signing_secret(&settings::JWT_SECRET, "");
    let given_url = given_key_set(check);
    let (auth_server, mut issuers, secret) = (auth_server?, issuers?, secret?);
    let url = match given_url? {
        GivenKeySet::Url(url) => Some(url),
        GivenKeySet::Off => None,
        GivenKeySet::None => auth_server.as_ref().map(|auth_server| {
            let url = format!("{auth_server}/.well-known/jwks.json");
            url.parse()
                .expect("a checked URL with a path appended is a URL")
        }),
    };
    if secret.is_none() && url.is_none() {
        check.mistake(
            &settings::SUPABASE_URL,
            "it is missing, and so is SUPABASE_JWT_SECRET; one of them must say how tokens are verified: the project's \
             URL, whose auth server publishes its keys, or its legacy JWT secret (dashboard, JWT keys)",
        );
        return None;
    }
    if issuers.is_empty() {
        issuers.extend(auth_server);
    }
    Some(TokenKeys {
        secret,
        url,
        issuers,
    })
}

/// The project's auth server. The inner `Option` is `None` if the project is not given.
fn auth_server(check: &mut Check<'_>) -> Option<Option<String>> {
    let url = check
        .raw
        .text(&settings::SUPABASE_URL)
        .trim_end_matches('/');
    if url.is_empty() {
        return Some(None);
    }
    if url
        .split_once("://")
        .is_some_and(|(scheme, host)| is_safe_origin(scheme, host))
    {
        return Some(Some(format!("{url}/auth/v1")));
    }
    check.mistake(
        &settings::SUPABASE_URL,
        "it must be an https URL such as https://<ref>.supabase.co (http only for localhost)",
    );
    None
}

/// Where the operator says that keys are published.
enum GivenKeySet {
    None,
    Off,
    Url(Uri),
}

fn given_key_set(check: &mut Check<'_>) -> Option<GivenKeySet> {
    match check.raw.text(&settings::JWKS_URL) {
        "" => return Some(GivenKeySet::None),
        OFF => return Some(GivenKeySet::Off),
        url => {
            let is_safe = url.split_once("://").is_some_and(|(scheme, rest)| {
                is_safe_origin(scheme, rest.split(['/', '?']).next().unwrap_or(""))
            });
            if let Ok(url) = url.parse()
                && is_safe
            {
                return Some(GivenKeySet::Url(url));
            }
        }
    }
    check.mistake(
        &settings::JWKS_URL,
        "it must be an https URL such as https://<ref>.supabase.co/auth/v1/.well-known/jwks.json \
         (http only for localhost), or off",
    );
    None
}

/// The secret of resume tokens; makes one if none is given.
fn resume_secret(check: &mut Check<'_>) -> Option<SecretString> {
    let setting = &settings::RESUME_SECRET;
    let secret = check.signing_secret(setting, ", such as `openssl rand -base64 32` gives")?;
    if secret.is_none() {
        check.warnings.push(format!(
            "{} is not set: resume tokens end with this process, and other nodes do not know them",
            setting.name
        ));
    }
    Some(secret.unwrap_or_else(random_secret))
}

/// The certificate of the listener. The inner `Option` is `None` if none is given.
fn certificate(check: &mut Check<'_>) -> Option<Option<(CertificateFiles, Certificate)>> {
    let (cert, key) = (&settings::TLS_CERT, &settings::TLS_KEY);
    let files = CertificateFiles {
        chain: PathBuf::from(check.raw.text(cert)),
        key: PathBuf::from(check.raw.text(key)),
    };
    let is_empty = |path: &PathBuf| path.as_os_str().is_empty();
    match (is_empty(&files.chain), is_empty(&files.key)) {
        (true, true) => return Some(None),
        (true, false) => check.mistake(
            cert,
            "it is missing: TLS needs the certificate of USHER_TLS_KEY",
        ),
        (false, true) => check.mistake(key, "it is missing: TLS needs the key of USHER_TLS_CERT"),
        (false, false) => match files.load() {
            Ok(certificate) => return Some(Some((files, certificate))),
            Err(error) => {
                let setting = if error.is_about(&files.key) {
                    key
                } else {
                    cert
                };
                check.mistake(setting, with_causes(&error));
            }
        },
    }
    None
}

fn origins(check: &mut Check<'_>) -> Option<AllowedOrigins> {
    let setting = &settings::ALLOWED_ORIGINS;
    if check.raw.text(setting) == "*" {
        return Some(AllowedOrigins::Any);
    }
    let parse = |origin: &str| {
        let (scheme, host) = origin.split_once("://")?;
        (!scheme.is_empty() && is_host(host)).then(|| origin.to_owned())
    };
    let right = "scheme and host alone, such as https://app.example, or *";
    check.list(setting, parse, right).map(AllowedOrigins::Only)
}

/// One per core if not given.
fn fanout_loops(check: &mut Check<'_>) -> Option<usize> {
    if check.raw.text(&settings::FANOUT_LOOPS).is_empty() {
        return Some(std::thread::available_parallelism().map_or(1, NonZero::get));
    }
    check.number(&settings::FANOUT_LOOPS)
}

fn rates(check: &mut Check<'_>) -> Option<Rates> {
    let messages = check.rate(&settings::LIMIT_MESSAGES);
    let moderator_messages = check.rate(&settings::LIMIT_MODERATOR_MESSAGES);
    let votes = check.rate(&settings::LIMIT_VOTES);
    let moderation = check.rate(&settings::LIMIT_MODERATION);
    let session_writes = check.rate(&settings::LIMIT_SESSION_WRITES);
    let frames = check.rate(&settings::LIMIT_FRAMES);
    let bytes = check.rate(&settings::LIMIT_BYTES);
    let joins = check.rate(&settings::LIMIT_JOINS);
    let requests = check.rate(&settings::LIMIT_REQUESTS);
    let connections = check.number_or_off(&settings::LIMIT_ADDRESS_CONNECTIONS);
    let repeat_pause = check.number(&settings::REPEAT_SECONDS);
    let trusted_proxies = trusted_proxies(check);
    Some(Rates {
        messages: messages?,
        moderator_messages: moderator_messages?,
        votes: votes?,
        moderation: moderation?,
        session_writes: session_writes?,
        frames: frames?,
        bytes: bytes?,
        joins: joins?,
        requests: requests?,
        connections_per_address: connections?,
        repeat_pause: Duration::from_secs(repeat_pause?),
        trusted_proxies: trusted_proxies?,
    })
}

fn trusted_proxies(check: &mut Check<'_>) -> Option<Vec<IpNet>> {
    let parse = |text: &str| -> Option<Vec<IpNet>> {
        if text.eq_ignore_ascii_case(LOCALHOST) {
            return Some(LOOPBACK.map(|net| net.parse().expect("a network")).into());
        }
        let address = text.parse::<IpAddr>().map(IpNet::from);
        address.or_else(|_| text.parse()).ok().map(|net| vec![net])
    };
    let right = "an address such as 10.0.0.7, a range such as 10.0.0.0/8, or localhost";
    let proxies = check.list(&settings::TRUSTED_PROXIES, parse, right)?;
    Some(proxies.concat())
}

fn log(check: &mut Check<'_>) -> Option<LogSettings> {
    let filter = check.raw.text(&settings::LOG);
    let is_filter = EnvFilter::try_new(filter).is_ok();
    if !is_filter {
        check.wrong(
            &settings::LOG,
            filter,
            "a filter such as info or info,usher=debug",
        );
    }
    let format = check.one_of(&settings::LOG_FORMAT, |word| match word {
        "human" => Some(LogFormat::Human),
        "json" => Some(LogFormat::Json),
        _ => None,
    });
    is_filter.then_some(LogSettings {
        filter: filter.to_owned(),
        format: format?,
    })
}

fn boolean(word: &str) -> Option<bool> {
    match word {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// Returns whether the traffic with an origin is protected: https, or http to this machine.
fn is_safe_origin(scheme: &str, host: &str) -> bool {
    is_host(host) && (scheme == "https" || (scheme == "http" && is_loopback(host)))
}

/// Whether a text is a host with or without a port, and nothing after them.
fn is_host(text: &str) -> bool {
    !text.is_empty() && !text.contains(['/', '?', '#', '@', ' ', '*'])
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => host.split(':').next().unwrap_or(host),
    };
    name == LOCALHOST || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use clap::Parser as _;
    use expect_test::expect;

    use super::*;

    #[derive(clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        raw: Raw,
    }

    const DATABASE: [&str; 2] = [
        "--database-url",
        "postgres://usher_gateway:pw@127.0.0.1/postgres",
    ];
    const SECRET: [&str; 2] = ["--supabase-jwt-secret", "0123456789abcdef0123456789abcdef"];

    #[test]
    fn a_database_and_a_secret_are_enough() {
        let config = parse(&[&DATABASE[..], &SECRET].concat()).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:4000");
        assert_eq!(config.allowed_origins, AllowedOrigins::Any);
        assert_eq!(config.heartbeat, Duration::from_secs(25));
        assert!(config.is_anonymous_allowed && config.fanout_loops >= 1);
        assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    }

    #[test]
    fn all_mistakes_are_reported_together() {
        let errors = parse(&[
            "--database-url=mysql://h/d",
            "--supabase-url=http://abc.supabase.co",
            "--supabase-jwt-secret=short",
            "--jwks-url=http://keys.example",
            "--resume-secret=short",
            "--listen=example.com:4000",
            "--resume-ttl=1",
            "--allow-anonymous=maybe",
            "--allowed-origins=https://a.example/,b.example",
            "--tally-hz=0",
            "--heartbeat-ms=fast",
            "--pool-size=65",
            "--max-connections=0",
            "--fanout-loops=0",
            "--ring-events=15",
            "--drain-seconds=301",
            "--log-retention-hours=0",
            "--log-retention-events=99",
            "--limit-messages=20",
            "--limit-moderator-messages=0/30",
            "--limit-votes=1/0",
            "--limit-session-writes=many",
            "--limit-frames=-1/10",
            "--limit-bytes=100/1",
            "--limit-joins=1/86401",
            "--limit-requests=",
            "--limit-address-connections=0",
            "--repeat-seconds=3601",
            "--trusted-proxies=10.0.0.0/33,proxy",
            "--log=usher=loud",
            "--log-format=xml",
        ])
        .unwrap_err();
        expect![[r#"
            several settings are wrong or missing (see `usher serve --help`):
              DATABASE_URL: it must begin with postgres:// or postgresql://
              SUPABASE_URL: it must be an https URL such as https://<ref>.supabase.co (http only for localhost)
              SUPABASE_JWT_SECRET: it has 5 bytes; it must have 32 or more
              USHER_JWKS_URL: it must be an https URL such as https://<ref>.supabase.co/auth/v1/.well-known/jwks.json (http only for localhost), or off
              USHER_RESUME_SECRET: it has 5 bytes; it must have 32 or more, such as `openssl rand -base64 32` gives
              USHER_LISTEN: `example.com:4000` must be an address and a port, such as 127.0.0.1:4000 or localhost:4000, or a port alone
              USHER_RESUME_TTL: `1` must be a whole number from 10 to 86400
              USHER_ALLOW_ANONYMOUS: `maybe` must be true or false
              USHER_ALLOWED_ORIGINS: `https://a.example/` must be scheme and host alone, such as https://app.example, or *
              USHER_ALLOWED_ORIGINS: `b.example` must be scheme and host alone, such as https://app.example, or *
              USHER_TALLY_HZ: `0` must be a whole number from 1 to 20
              USHER_HEARTBEAT_MS: `fast` must be a whole number from 1000 to 120000
              USHER_POOL_SIZE: `65` must be a whole number from 1 to 64
              USHER_MAX_CONNECTIONS: `0` must be a whole number from 1 to 1000000
              USHER_FANOUT_LOOPS: `0` must be a whole number from 1 to 256
              USHER_RING_EVENTS: `15` must be a whole number from 16 to 65536
              USHER_DRAIN_SECONDS: `301` must be a whole number from 0 to 300
              USHER_LOG_RETENTION_HOURS: `0` must be a whole number from 1 to 8760
              USHER_LOG_RETENTION_EVENTS: `99` must be a whole number from 100 to 100000000
              USHER_LIMIT_MESSAGES: `20` must be a count of 1 or more and seconds, such as 20/30, or off
              USHER_LIMIT_MODERATOR_MESSAGES: `0/30` must be a count of 1 or more and seconds, such as 20/30, or off
              USHER_LIMIT_VOTES: `1/0` must be a count of 1 or more and seconds, such as 20/30, or off
              USHER_LIMIT_SESSION_WRITES: `many` must be a count of 1 or more and seconds, such as 20/30, or off
              USHER_LIMIT_FRAMES: `-1/10` must be a count of 1 or more and seconds, such as 20/30, or off
              USHER_LIMIT_BYTES: `100/1` must be a count of 40960 or more and seconds, such as 20/30, or off
              USHER_LIMIT_JOINS: `1/86401` must be a count of 1 or more and seconds, such as 20/30, or off
              USHER_LIMIT_REQUESTS: `` must be a count of 1 or more and seconds, such as 20/30, or off
              USHER_LIMIT_ADDRESS_CONNECTIONS: `0` must be a whole number from 1 to 1000000
              USHER_REPEAT_SECONDS: `3601` must be a whole number from 0 to 3600
              USHER_TRUSTED_PROXIES: `10.0.0.0/33` must be an address such as 10.0.0.7, a range such as 10.0.0.0/8, or localhost
              USHER_TRUSTED_PROXIES: `proxy` must be an address such as 10.0.0.7, a range such as 10.0.0.0/8, or localhost
              USHER_LOG: `usher=loud` must be a filter such as info or info,usher=debug
              USHER_LOG_FORMAT: `xml` must be human or json"#]]
        .assert_eq(&errors.to_string());
    }

    #[test]
    fn what_is_missing_is_named_with_the_way_to_get_it() {
        let errors = parse(&[]).unwrap_err();
        let [database, secret] = &errors.0[..] else {
            panic!("{errors}");
        };
        assert_eq!(database.setting, "DATABASE_URL");
        assert!(database.problem.contains("postgres://usher_gateway:"));
        assert_eq!(secret.setting, "SUPABASE_URL");
        assert!(
            secret.problem.contains("SUPABASE_JWT_SECRET") && secret.problem.contains("dashboard")
        );
    }

    #[test]
    fn listening_through_a_transaction_pooler_is_a_mistake() {
        let pooler = "postgres://u:pw@127.0.0.1:6543/postgres";
        let errors = parse(&[&["--database-url", pooler], &SECRET[..]].concat()).unwrap_err();
        assert_eq!(errors.0[0].setting, "DATABASE_URL");
        assert!(
            errors
                .to_string()
                .contains("set USHER_LISTEN_DATABASE_URL to the direct")
        );

        let direct = ["--listen-database-url", DATABASE[1]];
        let config = parse(&[&["--database-url", pooler], &direct[..], &SECRET].concat()).unwrap();
        assert!(!config.listen_database.is_transaction_pooler());

        let listen = ["--listen-database-url", pooler];
        let errors = parse(&[&DATABASE[..], &listen, &SECRET].concat()).unwrap_err();
        assert_eq!(errors.0[0].setting, "USHER_LISTEN_DATABASE_URL");
    }

    #[test]
    fn a_secret_may_come_from_a_file_but_not_from_both() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{}", SECRET[1]).unwrap();
        let path = file.path().to_str().unwrap();
        let from_file = ["--supabase-jwt-secret-file", path];
        assert!(parse(&[&DATABASE[..], &from_file].concat()).is_ok());

        let errors = parse(&[&DATABASE[..], &from_file, &SECRET].concat()).unwrap_err();
        assert!(errors.to_string().contains("give one of"), "{errors}");

        let missing = ["--supabase-jwt-secret-file", "/no/such/file"];
        let errors = parse(&[&DATABASE[..], &missing].concat()).unwrap_err();
        assert!(errors.to_string().contains("/no/such/file"), "{errors}");
    }

    #[test]
    fn the_issuer_is_the_projects_auth_server() {
        for (url, issuer) in [
            (
                "https://abc.supabase.co",
                Some("https://abc.supabase.co/auth/v1"),
            ),
            (
                "https://abc.supabase.co/",
                Some("https://abc.supabase.co/auth/v1"),
            ),
            (
                "http://127.0.0.1:54321",
                Some("http://127.0.0.1:54321/auth/v1"),
            ),
            ("", None),
        ] {
            let config = parse(&[&DATABASE[..], &SECRET, &["--supabase-url", url]].concat());
            let issuers = config.unwrap().token_keys.issuers;
            assert_eq!(issuers, Vec::from_iter(issuer));
        }
    }

    #[test]
    fn other_issuers_take_its_place() {
        let project = ["--supabase-url", "https://abc.supabase.co"];
        let with = |issuers| {
            let config =
                parse(&[&DATABASE[..], &SECRET, &project, &["--issuer", issuers]].concat());
            config.map(|config| config.token_keys.issuers)
        };
        let both = "https://auth.example.org/auth/v1/, https://abc.supabase.co/auth/v1";
        assert_eq!(
            with(both).unwrap(),
            [
                "https://auth.example.org/auth/v1/",
                "https://abc.supabase.co/auth/v1"
            ]
        );
        assert_eq!(with("supabase-demo").unwrap(), ["supabase-demo"]);
        assert_eq!(with(" ").unwrap(), ["https://abc.supabase.co/auth/v1"]);
        let mistakes = with("https://a.example b.example").unwrap_err().0;
        assert_eq!(mistakes[0].setting, "USHER_ISSUER");
    }

    #[test]
    fn keys_come_from_the_project_from_elsewhere_or_from_nowhere() {
        let project = ["--supabase-url", "https://abc.supabase.co/"];
        let keys =
            |arguments: &[&str]| parse(&[&DATABASE[..], arguments].concat()).map(|c| c.token_keys);
        let of_project = keys(&project).unwrap();
        assert!(of_project.secret.is_none());
        let url = of_project.url.unwrap().to_string();
        assert_eq!(url, "https://abc.supabase.co/auth/v1/.well-known/jwks.json");
        for given in [
            "https://keys.example/jwks?p=1",
            "http://localhost:9999/keys",
            "http://[::1]:1/",
        ] {
            let keys = keys(&[&project[..], &["--jwks-url", given]].concat()).unwrap();
            assert_eq!(keys.url.unwrap().to_string(), given);
        }
        let off = ["--jwks-url", "off"];
        assert!(
            keys(&[&project[..], &SECRET, &off].concat())
                .unwrap()
                .url
                .is_none()
        );
        assert!(keys(&SECRET).unwrap().url.is_none());
        let errors = keys(&[&project[..], &off].concat()).unwrap_err();
        assert_eq!(errors.0[0].setting, "SUPABASE_URL");

        for wrong in [
            "http://keys.example/",
            "https://",
            "https://u:p@h/",
            "ftp://h/",
            "keys",
            "http://localhost.evil.example/",
        ] {
            let errors = keys(&[&SECRET[..], &["--jwks-url", wrong]].concat()).unwrap_err();
            assert_eq!(errors.0[0].setting, "USHER_JWKS_URL", "{wrong}");
        }
    }

    #[test]
    fn origins_are_compared_whole() {
        let given = [
            "--allowed-origins",
            "https://a.example, http://localhost:5173",
        ];
        let config = parse(&[&DATABASE[..], &SECRET, &given].concat()).unwrap();
        let origins = config.allowed_origins;
        assert!(origins.is_allowed(Some("https://A.example")) && origins.is_allowed(None));
        assert!(!origins.is_allowed(Some("https://a.example.evil")));
        assert!(!origins.is_allowed(Some("null")));
    }

    #[test]
    fn no_secret_is_printed() {
        let config = parse(&[&DATABASE[..], &SECRET].concat()).unwrap();
        let printed = format!("{config:?}");
        assert!(
            !printed.contains(SECRET[1]) && !printed.contains(":pw@"),
            "{printed}"
        );
    }

    fn parse(arguments: &[&str]) -> Result<Config, ConfigErrors> {
        let command = CommandLine::try_parse_from([&["usher"], arguments].concat()).unwrap();
        Config::from_raw(&command.raw)
    }
}

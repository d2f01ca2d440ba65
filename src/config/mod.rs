//! The settings of `usher serve`, in two stages: [`raw::Raw`], the strings as given, and [`Config`], typed and checked.
//!
//! All mistakes are reported together, each with the name of its setting and what would be right. Secrets print as
//! `***`, and each can come from a file instead (`…_FILE`), as container platforms hand them out. Everything is read
//! once, at the start.

pub(crate) mod address;
pub mod certificate;
mod check;
pub mod rates;
pub mod raw;
pub(crate) mod secret;

use std::{fmt, net::SocketAddr, num::NonZero, time::Duration};

use hyper::Uri;
use secrecy::SecretString;

use crate::config::certificate::{Certificate, CertificateFiles};
use crate::config::check::Check;
use crate::config::rates::Rates;
use crate::config::raw::Raw;
use crate::postgres::connect::Target;

/// Everything `usher serve` needs to know. No invariant ties the fields together, so they are public.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where queries and writes go, as the role `usher_gateway`.
    pub database: Target,
    /// Where LISTEN goes: never through a transaction pooler. By default the same as `database`.
    pub listen_database: Target,
    /// How access tokens are verified.
    pub token_keys: TokenKeys,
    /// Where HTTP and WebSocket are served. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The certificate for TLS on the listener, and where a new one will be; `None` serves plain HTTP.
    pub tls: Option<(CertificateFiles, Certificate)>,
    /// Signs resume tokens, the same on every node, at least 32 bytes.
    pub(crate) resume_secret: SecretString,
    /// How long a resume token spares its bearer the admission query, 10 s to a day; after it the database is asked.
    pub resume_ttl: Duration,
    /// How old an admission may be before the database is asked again.
    pub access_check: Duration,
    /// Whether a socket without a token is served as `anon`; otherwise it is closed with 4501 after ten seconds.
    pub is_anonymous_allowed: bool,
    /// The origins that browsers may connect from; others get 403.
    pub allowed_origins: AllowedOrigins,
    /// Tally frames a second for one voting, 1 to 20; changes in between are folded into the next.
    pub tally_hz: u32,
    /// Time between pings, 1 to 120 s; a client that is silent for two of them is closed with 4009.
    pub heartbeat: Duration,
    /// Connections for queries, 1 to 64; a query that finds all of them busy for 5 s fails as `unavailable`.
    pub pool_size: usize,
    /// Sockets open at once; the next gets 503. The process's file limit may bound it further.
    pub connections_max: usize,
    /// Fan-out loops, 1 to 256; connections are dealt out among them.
    pub fanout_loops: usize,
    /// Events that a session keeps in memory, 16 to 65,536; who is further behind is caught up from the log.
    pub ring_events: usize,
    /// Time over which clients are told to leave when the gateway stops, 0 to 300 s.
    pub drain: Duration,
    /// Age beyond which events leave the log, an hour to a year; who comes back later starts afresh with `too_old`.
    pub(crate) log_retention: Duration,
    /// Events of a session beyond which the oldest leave the log, 100 or more.
    pub(crate) log_retention_events: u64,
    /// How often somebody may do something.
    pub rates: Rates,
    /// What is logged, and how.
    pub(crate) log: LogSettings,
    /// What is not wrong but should be known; logged once at the start.
    pub(crate) warnings: Vec<String>,
}

/// How access tokens are verified. With neither a secret nor a URL there is no configuration.
#[derive(Clone, Debug)]
pub struct TokenKeys {
    /// Signs tokens (HS256), at least 32 bytes.
    pub secret: Option<SecretString>,
    /// Where the keys are published that sign tokens (ES256, RS256, EdDSA).
    pub url: Option<Uri>,
    /// What `iss` of a user's token may be, with or without a slash at the end; none leaves it unchecked.
    pub issuers: Vec<String>,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub(crate) struct LogSettings {
    /// A filter in the words of `tracing`'s `EnvFilter`, such as `info,usher=debug`.
    pub(crate) filter: String,
    /// The form of a line.
    pub(crate) format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people, with colour at a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// The origins that browsers may connect from. Clients that are no browsers send none, and are always let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// All of them.
    Any,
    /// Exactly these, such as `https://app.example`.
    Only(Vec<String>),
}

impl AllowedOrigins {
    /// Whether a request with this `Origin` header may connect.
    #[must_use]
    pub(crate) fn is_allowed(&self, origin: Option<&str>) -> bool {
        match (self, origin) {
            (Self::Any, _) | (Self::Only(_), None) => true,
            (Self::Only(origins), Some(origin)) => origins
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(origin)),
        }
    }
}

/// One wrong setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Its environment variable, which also tells the flag: `USHER_TALLY_HZ` is `--tally-hz`.
    pub(crate) setting: &'static str,
    /// What is wrong and what would be right. Never repeats a secret.
    pub(crate) problem: String,
}

/// All that is wrong with the settings, at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub(crate) Vec<Mistake>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.len() {
            1 => "a setting is wrong or missing (see `usher serve --help`):",
            _ => "several settings are wrong or missing (see `usher serve --help`):",
        })?;
        for Mistake { setting, problem } in &self.0 {
            write!(f, "\n  {setting}: {problem}")?;
        }
        Ok(())
    }
}

impl Config {
    /// The databases alone, where their settings are right, whatever else is wrong.
    #[must_use]
    pub(crate) fn databases(raw: &Raw) -> Option<(Target, Target)> {
        Check::default().databases(raw)
    }

    /// Checks the settings, and reads the files that hold secrets.
    ///
    /// # Errors
    ///
    /// Every mistake, not only the first.
    pub fn from_raw(raw: &Raw) -> Result<Self, ConfigErrors> {
        let mut check = Check::default();
        let databases = check.databases(raw);
        let token_keys = check.token_keys(raw);
        let resume_secret = check.resume_secret(raw);
        let listen = check.listen_address("USHER_LISTEN", &raw.listen);
        let tls = check.certificate(raw);
        let resume_ttl = check.number("USHER_RESUME_TTL", &raw.resume_ttl, 10..=86_400);
        let seconds = &raw.access_check_seconds;
        let access_check = check.number("USHER_ACCESS_CHECK_SECONDS", seconds, 5..=86_400);
        let anonymous = check.boolean("USHER_ALLOW_ANONYMOUS", &raw.allow_anonymous);
        let allowed_origins = check.origins(&raw.allowed_origins);
        let tally_hz = check.number("USHER_TALLY_HZ", &raw.tally_hz, 1..=20);
        let heartbeat_ms = &raw.heartbeat_ms;
        let heartbeat_ms = check.number("USHER_HEARTBEAT_MS", heartbeat_ms, 1_000..=120_000);
        let pool_size = check.number("USHER_POOL_SIZE", &raw.pool_size, 1..=64);
        let connections = &raw.max_connections;
        let connections = check.number("USHER_MAX_CONNECTIONS", connections, 1..=1_000_000);
        let loops = raw.fanout_loops.clone().unwrap_or_else(cores);
        let loops = check.number("USHER_FANOUT_LOOPS", &loops, 1..=256);
        let ring_events = check.number("USHER_RING_EVENTS", &raw.ring_events, 16..=65_536);
        let drain = check.number("USHER_DRAIN_SECONDS", &raw.drain_seconds, 0..=300);
        let hours = &raw.log_retention_hours;
        let hours = check.number("USHER_LOG_RETENTION_HOURS", hours, 1..=8_760);
        let events = &raw.log_retention_events;
        let events = check.number("USHER_LOG_RETENTION_EVENTS", events, 100..=100_000_000);
        let rates = check.rates(&raw.rates);
        let log = check.log(raw);

        let Check { mistakes, warnings } = check;
        if !mistakes.is_empty() {
            return Err(ConfigErrors(mistakes));
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
                is_anonymous_allowed: anonymous?,
                allowed_origins: allowed_origins?,
                tally_hz: tally_hz?,
                heartbeat: Duration::from_millis(heartbeat_ms?),
                pool_size: pool_size?,
                connections_max: connections?,
                fanout_loops: loops?,
                ring_events: ring_events?,
                drain: Duration::from_secs(drain?),
                log_retention: Duration::from_hours(hours?),
                log_retention_events: events?,
                rates: rates?,
                log: log?,
                warnings,
            })
        };
        Ok(complete().expect("a check without a value has recorded a mistake"))
    }
}

fn cores() -> String {
    std::thread::available_parallelism()
        .map_or(1, NonZero::get)
        .to_string()
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

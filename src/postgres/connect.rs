//! Parses a database URL and connects to it.
//!
//! A [`Target`] is parsed once, including its TLS settings, and connects any number of times. Its password is in no
//! error and no `Debug` output. It prints as `user@host:port/database`.
//!
//! A half-open connection gives no error by itself. Each connection therefore has TCP keepalives and a limit on how
//! long sent data may stay unacknowledged, so the gateway notices a dead server within [`DEAD_PEER`].

use std::{
    fmt, fs, io,
    net::IpAddr,
    path::Path,
    sync::Arc,
    task::{Context, Poll},
};

use percent_encoding::percent_decode_str;
use rustls::client::danger::ServerCertVerifier;
use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, Socket, config::Host, tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::limits::{
    CONNECT_TIMEOUT, DEAD_PEER, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_RETRIES, POOL_WAIT,
};
use crate::postgres::connect_error::ConnectError;
use crate::postgres::tls::{self, SslMode, TlsError};

/// The settings of a whole connection. They keep an idle connection open, above all that of LISTEN, and make a
/// statement outside of our transactions run as one inside. Behind a transaction pooler they reach other clients of the
/// same server connection, which all have the gateway's role.
pub(crate) const SESSION_SETTINGS: &str = "set session characteristics as transaction isolation level read committed, \
     read write, not deferrable; set idle_session_timeout = 0; \
     set idle_in_transaction_session_timeout = 10000; set statement_timeout = 10000; set lock_timeout = 0; \
     set search_path = pg_catalog, pg_temp";

const DEFAULT_PORT: u16 = 5432;

/// The name of this process in `pg_stat_activity`, unless the URL has one.
const APPLICATION_NAME: &str = "usher";

/// The port of Supabase's poolers for transaction mode, in which a LISTEN is lost with its transaction.
const TRANSACTION_POOLER_PORT: u16 = 6543;

type Tls = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// What is wrong with a database URL. Never contains a part of the URL: a password with a stray `@` or `?` can be
/// anywhere in it.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The scheme is missing or another one.
    #[error("it must begin with postgres:// or postgresql://")]
    Scheme,
    /// Not a URL, or with parameters that Postgres does not know.
    #[error(
        "it must have the form postgres://user:password@host:5432/database?sslmode=…, \
         with characters such as @ : / # % in the password percent-encoded"
    )]
    Syntax,
    /// A known parameter has an unknown value.
    #[error("its {parameter} must be {expected}")]
    Parameter {
        /// The parameter's name.
        parameter: &'static str,
        /// The allowed values.
        expected: &'static str,
    },
    /// The file of `sslrootcert` or `USHER_PG_ROOT_CERT` cannot be read.
    #[error("read root certificates from {path}")]
    RootCert {
        /// The path of the file.
        path: String,
        /// The error of the file system.
        #[source]
        source: io::Error,
    },
    /// TLS cannot be prepared.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

const WEAK_MODE: TargetError = TargetError::Parameter {
    parameter: "sslmode",
    expected: "verify-full where sslrootcert is system",
};

/// A database to connect to: a parsed URL with its TLS client.
#[derive(Clone)]
pub struct Target {
    config: Config,
    tls: MakeRustlsConnect,
    mode: SslMode,
    verifier: Arc<dyn ServerCertVerifier>,
}

impl Target {
    /// Parses a `postgres://` URL. `root_cert` is a PEM text or the path of a PEM file (empty counts as none). An
    /// `sslrootcert` in the URL wins over it. The default `sslmode` is `verify-full`, for loopback and Unix sockets
    /// `disable`.
    ///
    /// # Errors
    ///
    /// If the URL is not valid, or TLS cannot be prepared.
    pub fn parse(url: &SecretString, root_cert: Option<&str>) -> Result<Self, TargetError> {
        Self::parse_with(url, None, root_cert)
    }

    /// Like [`Self::parse`], with an `sslmode` for a URL that has none.
    ///
    /// # Errors
    ///
    /// Those of [`Self::parse`].
    pub(crate) fn parse_with(
        url: &SecretString,
        ssl_mode: Option<SslMode>,
        root_cert: Option<&str>,
    ) -> Result<Self, TargetError> {
        let url = url.expose_secret().trim();
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(TargetError::Scheme);
        }
        let (base, parameters) = TlsParameters::strip(url)?;
        let mut config: Config = base.parse().map_err(|_| TargetError::Syntax)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(TargetError::Syntax);
        }
        let root_cert = root_cert.filter(|given| !given.trim().is_empty());
        let root_cert = parameters.root_cert.as_deref().or(root_cert);
        let is_system = root_cert == Some("system");
        let mode = match parameters.mode.or(ssl_mode) {
            // As libpq: the system's authorities certify any host, so the name must be checked.
            Some(mode) if is_system && mode != SslMode::VerifyFull => return Err(WEAK_MODE),
            // As libpq: an authority that is named is also checked.
            Some(SslMode::Require) if root_cert.is_some() => SslMode::VerifyCa,
            Some(mode) => mode,
            None if is_system => SslMode::VerifyFull,
            None => default_mode(&config),
        };
        let root_cert = match root_cert {
            None | Some("system") => None,
            Some(given) => Some(read_root_cert(given)?),
        };
        let verifier = tls::verifier(mode, root_cert.as_deref())?;
        let tls = MakeRustlsConnect::new(tls::client_config(Arc::clone(&verifier))?);
        config
            .ssl_mode(mode.for_driver())
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives(true)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(DEAD_PEER);
        if config.get_application_name().is_none() {
            config.application_name(APPLICATION_NAME);
        }
        Ok(Self {
            config,
            tls,
            mode,
            verifier,
        })
    }

    /// Connects. The connection does nothing until its [`Link`] is driven.
    ///
    /// # Errors
    ///
    /// If the server does not answer in time, its certificate is not trusted, or it refuses the login.
    pub async fn connect(&self) -> Result<(Client, Link), ConnectError> {
        self.connect_by(self.tls.clone()).await
    }

    /// Connects, and returns the certificate that the server showed, even if it is not trusted.
    ///
    /// # Panics
    ///
    /// Never: the same TLS settings were prepared before.
    pub async fn connect_watched(&self) -> (Result<(Client, Link), ConnectError>, Option<Vec<u8>>) {
        let (watched, seen) = tls::watched(Arc::clone(&self.verifier));
        let config = tls::client_config(watched).expect("the provider was good before");
        let connected = self.connect_by(MakeRustlsConnect::new(config)).await;
        (connected, seen.get().cloned())
    }

    async fn connect_by(&self, tls: MakeRustlsConnect) -> Result<(Client, Link), ConnectError> {
        let connecting = self.config.connect(tls);
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok((client, connection))) => Ok((client, Link(connection))),
            Ok(Err(source)) => Err(ConnectError::new(self.to_string(), source)),
            Err(_elapsed) => Err(ConnectError::Timeout {
                target: self.to_string(),
                seconds: CONNECT_TIMEOUT.as_secs(),
            }),
        }
    }

    /// Makes a pool of at most `size` connections, each opened when it is first needed.
    ///
    /// # Panics
    ///
    /// Never: a pool fails to build only when it has timeouts and no runtime to measure them.
    #[must_use]
    pub fn pool(&self, size: usize) -> deadpool_postgres::Pool {
        let manager = deadpool_postgres::Manager::from_config(
            self.config.clone(),
            self.tls.clone(),
            deadpool_postgres::ManagerConfig {
                // Keepalives notice a dead connection. A check before each query would cost a round trip.
                recycling_method: deadpool_postgres::RecyclingMethod::Fast,
            },
        );
        let set = deadpool_postgres::Hook::async_fn(
            |client: &mut deadpool_postgres::ClientWrapper, _| {
                Box::pin(async move {
                    let set = client.batch_execute(SESSION_SETTINGS).await;
                    set.map_err(deadpool_postgres::HookError::Backend)
                })
            },
        );
        deadpool_postgres::Pool::builder(manager)
            .post_create(set)
            .max_size(size)
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .wait_timeout(Some(POOL_WAIT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .expect("a runtime is given for the timeouts")
    }

    /// Returns whether a host has the port of Supabase's transaction pooler, where LISTEN cannot work.
    #[must_use]
    pub(crate) fn is_transaction_pooler(&self) -> bool {
        self.config.get_ports().contains(&TRANSACTION_POOLER_PORT)
    }

    /// Returns the `sslmode` of its connections.
    #[must_use]
    pub(crate) fn ssl_mode(&self) -> SslMode {
        self.mode
    }

    /// Returns the hosts that need a DNS lookup, with their ports.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, u16)> {
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate();
        hosts.filter_map(move |(n, host)| match host {
            Host::Tcp(name) if self.config.get_hostaddrs().is_empty() => {
                let port = ports.get(n).or(ports.first());
                Some((name.as_str(), *port.unwrap_or(&DEFAULT_PORT)))
            }
            Host::Tcp(_) | Host::Unix(_) => None,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.config.get_user().unwrap_or("?");
        let database = self.config.get_dbname().unwrap_or(user);
        let host = match (self.config.get_hosts().first(), self.config.get_hostaddrs()) {
            (Some(Host::Tcp(host)), _) => host.clone(),
            (Some(Host::Unix(path)), _) => path.display().to_string(),
            (None, [address, ..]) => address.to_string(),
            (None, []) => "?".to_owned(),
        };
        let port = self.config.get_ports().first().unwrap_or(&DEFAULT_PORT);
        write!(f, "{user}@{host}:{port}/{database}")
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self}, {:?})", self.mode)
    }
}

/// The other half of a [`Client`]. Its owner must drive it, or no statement makes progress.
pub struct Link(Connection<Socket, Tls>);

impl Link {
    /// Drives the connection. `Some` is a notice, a notification, or the error that ended it; `None` is its end.
    pub(crate) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<AsyncMessage, tokio_postgres::Error>>> {
        self.0.poll_message(cx)
    }

    /// Drives the connection to its end, for a client that listens to nothing.
    ///
    /// # Errors
    ///
    /// The error that ended the connection, unless its client ended it.
    pub async fn drive(self) -> Result<(), tokio_postgres::Error> {
        self.0.await
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

/// The two parameters of a URL that tokio-postgres does not understand.
struct TlsParameters {
    mode: Option<SslMode>,
    root_cert: Option<String>,
}

impl TlsParameters {
    /// Removes them from `url`, and returns the rest.
    fn strip(url: &str) -> Result<(String, Self), TargetError> {
        let mut parameters = Self {
            mode: None,
            root_cert: None,
        };
        // The last `?`: a password may hold others, as libpq allows.
        let Some((base, query)) = url.rsplit_once('?') else {
            return Ok((url.to_owned(), parameters));
        };
        let mut others = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", word)) => {
                    parameters.mode = Some(SslMode::parse(word).ok_or(TargetError::Parameter {
                        parameter: "sslmode",
                        expected: "disable, allow, prefer, require, verify-ca or verify-full",
                    })?);
                }
                Some(("sslrootcert", path)) => parameters.root_cert = Some(percent_decode(path)?),
                // Parameters of other tools, which do not concern the gateway.
                Some(("pgbouncer" | "connection_limit" | "pool_timeout" | "schema", _)) => {}
                _ => others.push(pair),
            }
        }
        if others.len() == query.split('&').count() {
            return Ok((url.to_owned(), parameters));
        }
        let base = if others.is_empty() {
            base.to_owned()
        } else {
            format!("{base}?{}", others.join("&"))
        };
        Ok((base, parameters))
    }
}

fn percent_decode(text: &str) -> Result<String, TargetError> {
    // The library keeps a `%` that starts no escape. In a URL that is a mistake.
    let is_escape = |after: &[u8]| matches!(after, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    if !text
        .split('%')
        .skip(1)
        .all(|after| is_escape(after.as_bytes()))
    {
        return Err(TargetError::Syntax);
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(|text| text.into_owned())
        .map_err(|_| TargetError::Syntax)
}

/// Returns no TLS for connections that stay on this machine, and the strictest mode for all others.
fn default_mode(config: &Config) -> SslMode {
    let is_local = if config.get_hostaddrs().is_empty() {
        config.get_hosts().iter().all(|host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => {
                name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
            }
        })
    } else {
        config.get_hostaddrs().iter().all(IpAddr::is_loopback)
    };
    if is_local {
        SslMode::Disable
    } else {
        SslMode::VerifyFull
    }
}

fn read_root_cert(given: &str) -> Result<String, TargetError> {
    if given.contains("-----BEGIN") {
        return Ok(given.to_owned());
    }
    fs::read_to_string(Path::new(given)).map_err(|source| TargetError::RootCert {
        path: given.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_prints_without_its_password() {
        let target = parse("postgres://usher_gateway:s3cret@db.abc.supabase.co/postgres").unwrap();
        assert_eq!(
            target.to_string(),
            "usher_gateway@db.abc.supabase.co:5432/postgres"
        );
        assert!(!format!("{target:?}").contains("s3cret"));
    }

    #[test]
    fn tls_is_verified_in_full_unless_nothing_leaves_the_machine() {
        for (url, expected) in [
            ("postgres://u@db.example/d", SslMode::VerifyFull),
            ("postgres://u@10.0.0.1/d", SslMode::VerifyFull),
            ("postgres://u@localhost,db.example/d", SslMode::VerifyFull),
            (
                "postgres://u@localhost/d?hostaddr=10.0.0.1",
                SslMode::VerifyFull,
            ),
            ("postgres://u@127.0.0.1:5433/d", SslMode::Disable),
            ("postgres://u@[::1]/d", SslMode::Disable),
            ("postgres://u@localhost/d", SslMode::Disable),
            ("postgres://u@%2Ftmp%2Fpg/d", SslMode::Disable),
            ("postgres:///d?host=/tmp/pg&user=u", SslMode::Disable),
            (
                "postgres://u@db.example/d?sslmode=require",
                SslMode::Require,
            ),
            (
                "postgres://u@db.example/d?sslmode=allow&connect_timeout=3",
                SslMode::Prefer,
            ),
            (
                "postgresql://u@127.0.0.1/d?sslmode=verify-ca",
                SslMode::VerifyCa,
            ),
        ] {
            assert_eq!(parse(url).unwrap().ssl_mode(), expected, "{url}");
        }
    }

    #[test]
    fn parameters_of_other_tools_are_passed_over() {
        let url =
            "postgres://u@127.0.0.1/d?pgbouncer=true&options=-c%20geqo%3Doff&connection_limit=1";
        assert_eq!(
            parse(url).unwrap().config.get_options(),
            Some("-c geqo=off")
        );
    }

    #[test]
    fn a_password_may_hold_a_question_mark() {
        let target = parse("postgres://u:a?&b=c@db.example/d?sslmode=require").unwrap();
        assert_eq!(target.config.get_password(), Some(&b"a?&b=c"[..]));
        assert_eq!(target.ssl_mode(), SslMode::Require);
    }

    #[test]
    fn what_is_wrong_is_said_without_a_part_of_the_url() {
        for (url, expected) in [
            ("mysql://u:s3cret@h/d", "postgres://"),
            ("s3cret", "postgres://"),
            ("postgres://u:s3cret@h:x/d", "percent-encoded"),
            ("postgres://u:x@h/d?s3cret=1", "percent-encoded"),
            ("postgres:///d", "percent-encoded"),
            ("postgres://u:s3cret@h/d?sslmode=full", "verify-full"),
            (
                "postgres://u:s3cret@h/d?sslrootcert=/no/such/file",
                "/no/such/file",
            ),
            ("postgres://u:s3cret@h/d?sslrootcert=%2", "percent-encoded"),
        ] {
            let error = parse(url).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(
                text.contains(expected) && !text.contains("s3cret"),
                "{url}: {text}"
            );
        }
    }

    #[test]
    fn the_port_of_the_transaction_pooler_is_known() {
        let url = "postgres://u@aws-0-eu.pooler.supabase.com:6543/postgres";
        assert!(parse(url).unwrap().is_transaction_pooler());
        assert!(
            !parse("postgres://u@127.0.0.1/d")
                .unwrap()
                .is_transaction_pooler()
        );
    }

    fn parse(url: &str) -> Result<Target, TargetError> {
        Target::parse(&url.to_owned().into(), None)
    }
}

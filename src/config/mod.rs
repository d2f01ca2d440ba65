//! The configuration of `usher serve`, read once at the start.
//!
//! [`settings`] declares the settings, [`raw`] has their values as given, `from_raw` makes a [`Config`] of them or
//! reports every mistake, each with the name of its setting and what would be right. Secrets are never printed.

pub(crate) mod address;
pub mod certificate;
pub(crate) mod check;
mod from_raw;
pub mod rates;
pub mod raw;
pub(crate) mod secret;
pub(crate) mod settings;

use std::{net::SocketAddr, time::Duration};

use hyper::Uri;
use secrecy::SecretString;

use crate::config::certificate::{Certificate, CertificateFiles};
use crate::config::rates::Rates;
use crate::postgres::connect::Target;

/// The checked settings of `usher serve`; [`settings`] explains each.
#[derive(Clone, Debug)]
pub struct Config {
    /// The database for queries and writes.
    pub database: Target,
    /// The database for LISTEN, by default `database`.
    pub listen_database: Target,
    /// The keys that verify access tokens.
    pub token_keys: TokenKeys,
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The certificate of the listener, and the files to reload it from. `None` serves plain HTTP.
    pub tls: Option<(CertificateFiles, Certificate)>,
    /// Signs resume tokens.
    pub(crate) resume_secret: SecretString,
    /// The lifetime of a resume token.
    pub resume_ttl: Duration,
    /// The age of an admission at which the gateway asks the database again.
    pub access_check: Duration,
    /// Whether viewers without a token are served.
    pub is_anonymous_allowed: bool,
    /// The origins that browsers may connect from.
    pub allowed_origins: AllowedOrigins,
    /// Tally frames per second and poll.
    pub tally_hz: u32,
    /// The time between pings.
    pub heartbeat: Duration,
    /// Connections for queries and writes.
    pub pool_size: usize,
    /// Open sockets. The file limit may lower this number.
    pub connections_max: usize,
    /// Loops that write to the sockets.
    pub fanout_loops: usize,
    /// Events of each session kept in memory.
    pub ring_events: usize,
    /// The time that a stopping gateway may take to close its clients.
    pub drain: Duration,
    pub(crate) log_retention: Duration,
    pub(crate) log_retention_events: u64,
    /// The rate limits.
    pub rates: Rates,
    pub(crate) log: LogSettings,
    /// Settings that are valid but deserve attention. The gateway logs them once at the start.
    pub(crate) warnings: Vec<String>,
}

/// The keys that verify access tokens. At least one of `secret` and `url` is given.
#[derive(Clone, Debug)]
pub struct TokenKeys {
    /// Signs tokens (HS256), at least 32 bytes.
    pub secret: Option<SecretString>,
    /// URL of the key set (ES256, RS256, EdDSA).
    pub url: Option<Uri>,
    /// Accepted issuers of user tokens (`iss`), with or without a trailing slash. Empty accepts any.
    pub issuers: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct LogSettings {
    /// In the syntax of `EnvFilter`, such as `info,usher=debug`.
    pub(crate) filter: String,
    pub(crate) format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people, coloured at a terminal.
    Human,
    /// One JSON object per line.
    Json,
}

/// The origins that browsers may connect from. Other clients send no origin and may always connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Any origin.
    Any,
    /// Exactly these, such as `https://app.example`.
    Only(Vec<String>),
}

impl AllowedOrigins {
    /// Returns whether a request with this `Origin` header may connect.
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

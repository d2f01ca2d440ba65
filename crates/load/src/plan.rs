//! A run's checked settings, and the state that all its threads share.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use secrecy::SecretString;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::clock::{Clock, unix_seconds};
use crate::scan::Scanner;

/// A run's settings.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The command line without secrets, for the report.
    pub command: String,
    /// The gateway's address.
    pub gateway: Gateway,
    /// The sessions to watch and to write to.
    pub sessions: Vec<Uuid>,
    /// The number of viewers over all sessions.
    pub viewers: u32,
    /// The number of viewers that read nothing during the measurement. They are part of `viewers`.
    pub slow_readers: u32,
    /// Users' tokens, for writers and, if `are_viewers_signed_in`, for viewers.
    pub tokens: Vec<SecretString>,
    /// Whether viewers use tokens, too.
    pub are_viewers_signed_in: bool,
    /// Sockets that write messages.
    pub chatters: u32,
    /// Sockets that vote.
    pub voters: u32,
    /// Messages per second, over all writers.
    pub rate: f64,
    /// Votes per second, over all voters.
    pub vote_rate: f64,
    /// Characters per message.
    pub message_characters: usize,
    /// How messages are written.
    pub route: Route,
    /// Viewers that connect per second.
    pub ramp: f64,
    /// The time before the measurement. Its messages are not measured.
    pub warm_up: Duration,
    /// The time of the measurement.
    pub measured: Duration,
    /// How long the last message may take to reach every viewer.
    pub drain: Duration,
    /// Viewers that drop together, if any.
    pub storm: Option<Storm>,
    /// A search for the highest rate, if any.
    pub search: Option<SearchPlan>,
    /// Threads that hold the sockets.
    pub threads: usize,
    /// Source addresses to use if the gateway is on loopback.
    pub addresses: u32,
    /// Whether each viewer sends its own address in `X-Forwarded-For`, as a proxy does.
    pub is_forwarded: bool,
    /// The gateway's process, whose CPU and memory are measured. Without it, the run looks for the process
    /// on this machine.
    pub gateway_pid: Option<u32>,
}

impl Plan {
    /// Returns the length of the run without the drain; `None` for a search, which ends when it has found its rate.
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        let ramp = Duration::from_secs_f64(f64::from(self.viewers) / self.ramp);
        self.search
            .is_none()
            .then(|| ramp + self.warm_up + self.measured)
    }

    /// Returns the session of a viewer or writer.
    pub(crate) fn session_of(&self, number: u32) -> usize {
        number as usize % self.sessions.len()
    }

    /// Returns the token of a writer, or of a viewer that is signed in.
    pub(crate) fn token_of(&self, number: u32) -> Option<&SecretString> {
        let place = (number as usize).checked_rem(self.tokens.len())?;
        self.tokens.get(place)
    }

    /// Returns the source address of a socket, if one must be chosen.
    pub(crate) fn source_of(&self, number: u32) -> Option<IpAddr> {
        if self.addresses <= 1 || !self.gateway.address.ip().is_loopback() {
            return None;
        }
        let place = number % self.addresses;
        let [_, high, middle, low] = (place + 1).to_be_bytes();
        Some(Ipv4Addr::new(127, high, middle, low).into())
    }

    /// Returns the address that a socket sends in `X-Forwarded-For`.
    pub(crate) fn forwarded_for(&self, number: u32) -> Option<Ipv4Addr> {
        // A private range of sixteen million addresses, which no gateway trusts as proxies by default.
        let [_, high, middle, low] = number.to_be_bytes();
        self.is_forwarded
            .then(|| Ipv4Addr::new(10, high, middle, low))
    }
}

/// Opens a connection to the database. The caller knows its URL and its trusted certificates.
pub type Connect = Arc<dyn Fn() -> BoxFuture<'static, Result<Client, BoxError>> + Send + Sync>;

/// The reason why a connection failed.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// The gateway's address.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// The URL as the user wrote it, without a query.
    pub url: String,
    /// The address to connect to.
    pub address: SocketAddr,
    /// The `Host` header.
    pub host: String,
    /// The path of the socket.
    pub path: String,
    /// The expected server name and the TLS settings, for wss.
    pub tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
}

/// How messages are written.
#[derive(Clone)]
pub enum Route {
    /// By chatters, through the gateway.
    Gateway,
    /// As rows that are inserted with SQL.
    Database(Connect),
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Route {
    /// Returns the name for the report.
    #[must_use]
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Database(_) => "database",
        }
    }
}

/// Viewers that drop together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Storm {
    /// The number of viewers.
    pub viewers: u32,
    /// The time after the start of the measurement.
    pub at: Duration,
}

/// A search for the highest rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchPlan {
    /// The bound on p99.
    pub bound: Duration,
    /// How long each rate is measured.
    pub step: Duration,
}

/// The state that all threads of a run share.
#[derive(Debug)]
pub(crate) struct RunContext {
    pub(crate) plan: Plan,
    /// The random mark in the run's messages.
    pub(crate) run: String,
    pub(crate) clock: Clock,
    /// The start of the run, in seconds since 1970.
    pub(crate) started_at: u64,
    pub(crate) window: Window,
    pub(crate) scanner: Scanner,
    /// The highest number that any viewer has seen, for each session.
    pub(crate) heads: Box<[AtomicU64]>,
    pub(crate) ballots: Vec<Ballot>,
}

impl RunContext {
    pub(crate) fn new(plan: Plan, run: String, clock: Clock, ballots: Vec<Ballot>) -> Self {
        Self {
            started_at: unix_seconds(),
            heads: plan.sessions.iter().map(|_| AtomicU64::new(0)).collect(),
            scanner: Scanner::new(&run),
            window: Window::default(),
            plan,
            run,
            clock,
            ballots,
        }
    }

    /// Records a number that a viewer has seen.
    pub(crate) fn note_head(&self, session: usize, seq: u64) {
        // Most numbers are not new. The check avoids contention on the cache line.
        if self.head(session) < seq {
            self.heads[session].fetch_max(seq, Ordering::Relaxed);
        }
    }

    pub(crate) fn head(&self, session: usize) -> u64 {
        self.heads[session].load(Ordering::Relaxed)
    }
}

/// An open poll and its movies.
#[derive(Clone, Debug)]
pub(crate) struct Ballot {
    pub(crate) voting: Uuid,
    pub(crate) movies: Vec<Uuid>,
}

/// The measured time. Only messages that are due within it count for latency.
#[derive(Debug, Default)]
pub(crate) struct Window {
    from_us: AtomicU64,
    until_us: AtomicU64,
}

impl Window {
    pub(crate) fn open(&self, from_us: u64, until_us: u64) {
        self.until_us.store(0, Ordering::Relaxed);
        self.from_us.store(from_us, Ordering::Relaxed);
        self.until_us.store(until_us, Ordering::Relaxed);
    }

    pub(crate) fn holds(&self, due_us: u64) -> bool {
        due_us >= self.from_us.load(Ordering::Relaxed)
            && due_us < self.until_us.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_are_spread_over_sessions_addresses_and_tokens() {
        let mut plan = plan();
        assert_eq!(
            [0, 1, 2, 3].map(|viewer| plan.session_of(viewer)),
            [0, 1, 0, 1]
        );
        assert!(plan.token_of(3).is_none());
        assert_eq!(plan.source_of(7), None);
        assert_eq!(plan.forwarded_for(7), None);

        (plan.addresses, plan.is_forwarded) = (300, true);
        let source = |viewer| plan.source_of(viewer).unwrap().to_string();
        assert_eq!(
            [source(0), source(1), source(299), source(300)],
            ["127.0.0.1", "127.0.0.2", "127.0.1.44", "127.0.0.1"]
        );
        assert_eq!(
            plan.forwarded_for(66_000).unwrap().to_string(),
            "10.1.1.208"
        );
    }

    #[test]
    fn a_window_holds_times_from_its_start_until_before_its_end() {
        let window = Window::default();
        assert!(!window.holds(0) && !window.holds(5));
        window.open(5, 10);
        assert_eq!(
            [4, 5, 9, 10].map(|us| window.holds(us)),
            [false, true, true, false]
        );
    }

    fn plan() -> Plan {
        Plan {
            command: "usher load".to_owned(),
            gateway: Gateway {
                url: "ws://127.0.0.1:1".to_owned(),
                address: ([127, 0, 0, 1], 1).into(),
                host: "127.0.0.1:1".to_owned(),
                path: "/v1/socket".to_owned(),
                tls: None,
            },
            sessions: vec![Uuid::from_u128(1), Uuid::from_u128(2)],
            viewers: 10,
            slow_readers: 0,
            tokens: vec![],
            are_viewers_signed_in: false,
            chatters: 0,
            voters: 0,
            rate: 1.0,
            vote_rate: 0.0,
            message_characters: 100,
            route: Route::Gateway,
            ramp: 100.0,
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(1),
            drain: Duration::from_secs(1),
            storm: None,
            search: None,
            threads: 1,
            addresses: 1,
            is_forwarded: false,
            gateway_pid: None,
        }
    }
}

//! The shells around the core: sockets, tasks and clocks.
//!
//! ```text
//! accept ─► handshake ─► connection (a task each) ⇄ fanout (a loop a core) ◄─ listener, tally
//! ```
//!
//! A connection's task reads its socket, drives its peer and asks the database. Only the fan-out loop writes to a socket;
//! the connection's task finishes what a full socket did not take. Nothing here writes SQL. A rule that can be tested
//! without a socket belongs to the core. Read in this order:
//!
//! * [`accept`]: the listener, connections that are not upgraded yet, TLS, the handshake and its checks.
//! * [`connection`]: the task around one socket.
//! * [`socket`]: reading, writing, compression, limits and the close of one socket.
//! * [`admission`]: rate limits, admission to sessions, repeated checks of access.
//! * [`fanout`]: the loops that write events, and the reader of counts.
//! * [`maintenance`] and [`readiness`].

pub mod accept;
pub(crate) mod admission;
pub(crate) mod connection;
pub(crate) mod fanout;
pub(crate) mod maintenance;
pub(crate) mod readiness;
pub mod socket;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::moment;
use crate::config::AllowedOrigins;
use crate::config::rates::Rates;
use crate::keyring::Keyring;
use crate::limits::{RETURN_SPREAD_MIN, RETURNS_PER_SECOND_MAX};
use crate::metrics::Metrics;
use crate::net::admission::access_checks::AccessChecks;
use crate::net::admission::rate_limits::{Passed, RateLimits};
use crate::net::admission::singleflight::AdmissionQueries;
use crate::net::fanout::FanoutCommand;
use crate::net::readiness::{Checks, DatabaseState, Pulse};
use crate::postgres::batcher::Writer;
use crate::postgres::store::{Store, StoreError};
use usher_core::auth::identity::Identity;
use usher_core::protocol::ms;
use usher_core::protocol::refusal::Refusal;
use usher_core::protocol::server::WriteOutcome;
use usher_core::relay::PeerId;
use usher_core::relay::message::Write;
use usher_core::relay::peer_context::Rules;

/// What every part of the server shares.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What holds for every peer.
    pub(crate) rules: Arc<Rules>,
    /// Who the bearer of a token is.
    pub(crate) keyring: Keyring,
    /// Where browsers may come from.
    pub(crate) allowed_origins: AllowedOrigins,
    /// How clients are spoken to, where that is TLS.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Room for sockets; each holds its seat from the handshake on.
    pub(crate) permits: Arc<Semaphore>,
    /// When clients leave and come back, once the gateway stops.
    pub(crate) drain: Drain,
    /// What each socket may say.
    pub(crate) rates: Rates,
    /// What users, sessions and addresses may ask for.
    pub(crate) rate_limits: Arc<RateLimits>,
    /// Questions to the database.
    pub(crate) store: Store,
    /// Those about who may watch.
    pub(crate) admissions: AdmissionQueries,
    /// Those about who may still watch.
    pub(crate) access_checks: AccessChecks,
    /// Writes to it.
    pub(crate) writer: Writer,
    /// Whether the LISTEN connection hears.
    pub(crate) is_listening: watch::Receiver<bool>,
    /// What the database was good for a moment ago.
    pub(crate) database: watch::Receiver<DatabaseState>,
    /// The fan-out loops' signs of life.
    pub(crate) pulses: Vec<Arc<Pulse>>,
    /// The fan-out loops; a connection belongs to one of them.
    pub(crate) loops: Vec<mpsc::Sender<FanoutCommand>>,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// Cancelled when the gateway begins to stop.
    pub(crate) stopping: CancellationToken,
    /// Every connection's task.
    pub(crate) tasks: TaskTracker,
    /// The number of the next connection.
    pub(crate) next_peer: AtomicU64,
}

/// When clients leave, and when they are told to come back, once the gateway stops.
#[derive(Debug)]
pub(crate) struct Drain {
    max: Duration,
    /// Over which clients leave, in milliseconds; known once the gateway stops.
    leave_ms: AtomicU64,
}

impl Drain {
    /// A drain that takes so long at most.
    #[must_use]
    pub(crate) fn new(max: Duration) -> Self {
        Self {
            max,
            leave_ms: AtomicU64::new(0),
        }
    }

    /// Sizes it to the herd; says how long it takes.
    pub(crate) fn begin(&self, connections: u64) -> Duration {
        let leave_ms = connections.saturating_mul(1_000) / RETURNS_PER_SECOND_MAX;
        let leave = Duration::from_millis(leave_ms).min(self.max);
        self.leave_ms.store(ms(leave), Ordering::Relaxed);
        leave
    }

    /// The time over which clients leave, in milliseconds.
    pub(crate) fn leave_ms(&self) -> u64 {
        self.leave_ms.load(Ordering::Relaxed)
    }

    /// The time over which a client that leaves is told to come back, in milliseconds.
    pub(crate) fn return_ms(&self) -> u64 {
        self.leave_ms().max(ms(RETURN_SPREAD_MIN)).min(ms(self.max))
    }
}

impl Shared {
    /// What a new viewer needs.
    #[must_use]
    pub(crate) fn checks(&self) -> Checks {
        let database = *self.database.borrow();
        Checks {
            database: database.answers,
            migrations: database.is_migrated,
            listen: *self.is_listening.borrow(),
            keys: self.keyring.has_keys(),
            loops: self.makes_progress(),
            room: self.has_room(),
            serving: !self.stopping.is_cancelled(),
        }
    }

    /// Whether every fan-out loop takes its turns.
    #[must_use]
    pub(crate) fn makes_progress(&self) -> bool {
        let now = moment();
        self.pulses.iter().all(|pulse| pulse.is_felt(now))
    }

    /// Whether another socket may be opened.
    #[must_use]
    pub(crate) fn has_room(&self) -> bool {
        self.permits.available_permits() > 0
    }

    /// Writes something for somebody who is within the limits; an answer means committed.
    ///
    /// # Errors
    /// What the database says against it, or that it cannot be asked.
    pub(crate) async fn write(
        &self,
        write: Write,
        identity: Arc<Identity>,
        passed: Passed,
    ) -> Result<WriteOutcome, Refusal> {
        let began = moment().at;
        let outcome = self.writer.write(write.clone(), identity).await;
        if outcome.is_err() {
            self.rate_limits.on_refused(passed, &write);
        }
        let took = (moment().at - began).as_secs_f64();
        self.metrics.writes.observe(took);
        outcome
    }

    /// A number for a new connection, and the loop that it belongs to.
    pub(crate) fn enrol(&self) -> (PeerId, mpsc::Sender<FanoutCommand>) {
        let number = self.next_peer.fetch_add(1, Ordering::Relaxed);
        let count = self.loops.len() as u64;
        let place =
            usize::try_from(number % count).expect("there are fewer loops than a usize can count");
        (PeerId(number), self.loops[place].clone())
    }
}

/// A number below a bound, so that a herd comes back spread out.
pub(crate) fn random_below(bound: u64) -> u64 {
    uuid::Uuid::new_v4()
        .as_u64_pair()
        .1
        .checked_rem(bound)
        .unwrap_or(0)
}

/// Takes an answer of the database. Counts a missing one, and logs it where asking again will not help: the listener logs
/// when the database is away.
pub(crate) fn answered<T>(
    answer: Result<T, StoreError>,
    asked: &'static str,
    store: &Store,
    metrics: &Metrics,
) -> Option<T> {
    let error = match answer {
        Ok(answer) => return Some(answer),
        Err(error) => error,
    };
    metrics.query_failures.inc();
    if !matches!(error, StoreError::Unavailable(_) | StoreError::Locked) {
        store.log().on_failure(asked, &error);
    }
    None
}

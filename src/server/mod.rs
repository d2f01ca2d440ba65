//! The shells around the core: sockets, tasks and clocks.
//!
//! ```text
//! accept ─► http ─► handshake ─► connection (a task each) ⇄ fanout (a loop a core) ◄─ listener, tally
//! ```
//!
//! A connection's task reads its socket, drives its peer and asks the database. Only the fan-out loop writes to a socket,
//! but for what a full socket did not take: that the connection's task finishes. Writes no SQL and contains no rule that
//! one would want to test without a socket. Read in this order: [`accept`], [`http`], [`handshake`], [`connection`],
//! `question`, [`wire`], [`fanout`], [`mod@line`], [`audience`], [`tally`], [`keeper`], [`pages`].

pub mod accept;
pub mod audience;
pub mod connection;
pub mod fanout;
pub mod handshake;
pub mod http;
pub mod keeper;
pub mod line;
pub mod pages;
mod question;
pub mod tally;
pub mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::config::AllowedOrigins;
use crate::metrics::Metrics;
use crate::postgres::batcher::Writer;
use crate::postgres::store::{Store, StoreError};
use crate::relay::PeerId;
use crate::relay::peer::{Moment, Rules};
use crate::server::fanout::Command;

/// What every part of the server shares.
#[derive(Debug)]
pub struct Shared {
    /// What holds for every peer.
    pub rules: Arc<Rules>,
    /// Where browsers may come from.
    pub allowed_origins: AllowedOrigins,
    /// Sockets open at once.
    pub connections_max: usize,
    /// The time over which clients come back when the gateway stops, in milliseconds.
    pub drain_ms: u64,
    /// Questions to the database.
    pub store: Store,
    /// Writes to it.
    pub writer: Writer,
    /// Whether the LISTEN connection hears.
    pub is_listening: watch::Receiver<bool>,
    /// The fan-out loops; a connection belongs to one of them.
    pub loops: Vec<mpsc::Sender<Command>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the gateway begins to stop.
    pub stopping: CancellationToken,
    /// Every connection's task.
    pub tasks: TaskTracker,
    /// The number of the next connection.
    pub next_peer: AtomicU64,
}

impl Shared {
    /// A number for a new connection, and the loop that it belongs to.
    pub fn enrol(&self) -> (PeerId, mpsc::Sender<Command>) {
        let number = self.next_peer.fetch_add(1, Ordering::Relaxed);
        let count = self.loops.len() as u64;
        let place =
            usize::try_from(number % count).expect("there are fewer loops than a usize can count");
        (PeerId(number), self.loops[place].clone())
    }
}

/// Takes an answer of the database. One that is missing is counted; that it is, is logged where asking again will not
/// mend it: the listener says when the database is away.
pub(crate) fn answered<T>(
    answer: Result<T, StoreError>,
    asked: &'static str,
    metrics: &Metrics,
) -> Option<T> {
    let error = match answer {
        Ok(answer) => return Some(answer),
        Err(error) => error,
    };
    metrics.query_failures.inc();
    if !matches!(error, StoreError::Unavailable(_)) {
        let error = &error as &dyn std::error::Error;
        error!(error, asked, "a question to the database failed");
    }
    None
}

/// Reads both clocks.
#[expect(
    clippy::disallowed_methods,
    reason = "the shells read the clock here and nowhere else"
)]
pub(crate) fn moment() -> Moment {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Moment {
        at: Instant::now(),
        unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
    }
}

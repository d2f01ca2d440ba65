//! The network shell around the core: sockets, tasks and clocks.
//!
//! ```text
//! accept ─► handshake ─► connection (one task each) ⇄ fanout (one loop per core) ◄─ listener, tally
//! ```
//!
//! A connection's task reads its socket, drives its peer and queries the database. The fan-out loop writes to the socket.
//! If the socket is full, the connection's task writes the rest of the chunk. Nothing here contains SQL. A rule that can be
//! tested without a socket belongs in the core. Read in this order:
//!
//! * [`accept`]: the listener, connections that are not upgraded yet, TLS, the handshake and its checks.
//! * [`connection`]: the task around one socket.
//! * [`socket`]: reading, writing, compression, limits and the close of one socket.
//! * [`admission`]: rate limits, admission to sessions, repeated checks of access.
//! * [`fanout`]: the loops that write events, and the reader of counts.
//! * [`queries`] and [`writes`]: what connections and HTTP calls ask of the database.
//! * [`maintenance`], [`readiness`] and [`shutdown`].

pub mod accept;
pub(crate) mod admission;
pub(crate) mod connection;
pub(crate) mod fanout;
pub(crate) mod maintenance;
pub(crate) mod queries;
pub(crate) mod readiness;
pub(crate) mod shutdown;
pub mod socket;
pub(crate) mod writes;

use futures::future::{BoxFuture, pending};

use crate::metrics::Metrics;
use crate::postgres::statement::StoreError;
use crate::postgres::store::Store;

/// Returns a random number below a bound, to spread clients over time.
pub(crate) fn random_below(bound: u64) -> u64 {
    uuid::Uuid::new_v4()
        .as_u64_pair()
        .1
        .checked_rem(bound)
        .unwrap_or(0)
}

/// Takes the answer of the database. Counts a failed query. Logs the failure unless the database is down or a lock is
/// held: the listener logs the former, and the latter passes.
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

/// Waits for a future, or forever if there is none. Cancel-safe: the future stays in place.
pub(crate) async fn finished<T>(under_way: &mut Option<BoxFuture<'static, T>>) -> T {
    match under_way {
        Some(under_way) => under_way.await,
        None => pending().await,
    }
}

//! Checks whether the gateway can accept a viewer.
//!
//! Queries the database once a second, however many health requests arrive: an open port must not be a way to load it.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::clock::ticks;
use crate::keyring::Keyring;
use crate::limits::{READINESS_INTERVAL, READINESS_TIMEOUT};
use crate::net::fanout::loops::FanoutLoops;
use crate::net::shutdown::Shutdown;
use crate::postgres::statement::StoreError;
use crate::postgres::store::Store;

/// The state of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DatabaseState {
    pub(crate) answers: bool,
    /// It has the functions that the gateway calls, and the gateway's role may execute them.
    pub(crate) is_migrated: bool,
}

/// The needs of a new viewer. The gateway accepts a viewer if all are true.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Checks {
    pub(crate) database: bool,
    /// The database has the functions that the gateway calls.
    pub(crate) migrations: bool,
    /// The LISTEN connection receives.
    pub(crate) listen: bool,
    /// The keyring can verify tokens.
    pub(crate) keys: bool,
    /// Every fan-out loop makes progress.
    pub(crate) loops: bool,
    /// There is room for another socket.
    pub(crate) room: bool,
    /// The gateway is not about to stop.
    pub(crate) serving: bool,
}

impl Checks {
    /// Whether all are true.
    #[must_use]
    pub(crate) fn are_good(&self) -> bool {
        self.database
            && self.migrations
            && self.listen
            && self.keys
            && self.loops
            && self.room
            && self.serving
    }
}

/// The sources of the [`Checks`].
#[derive(Debug)]
pub(crate) struct Readiness {
    /// The last look at the database.
    pub(crate) database: watch::Receiver<DatabaseState>,
    /// Whether the LISTEN connection receives.
    pub(crate) is_listening: watch::Receiver<bool>,
    /// The keys that verify tokens.
    pub(crate) keyring: Keyring,
    /// The fan-out loops.
    pub(crate) loops: Arc<FanoutLoops>,
    /// A permit per socket.
    pub(crate) permits: Arc<Semaphore>,
    /// Whether the gateway is about to stop.
    pub(crate) shutdown: Arc<Shutdown>,
}

impl Readiness {
    /// Checks everything that a new viewer needs.
    #[must_use]
    pub(crate) fn checks(&self) -> Checks {
        let database = *self.database.borrow();
        Checks {
            database: database.answers,
            migrations: database.is_migrated,
            listen: *self.is_listening.borrow(),
            keys: self.keyring.has_keys(),
            loops: self.loops.make_progress(),
            room: self.permits.available_permits() > 0,
            serving: !self.shutdown.has_begun(),
        }
    }
}

/// Checks the database every [`READINESS_INTERVAL`] until `stop`.
pub(crate) async fn watch_database(
    store: Store,
    state: watch::Sender<DatabaseState>,
    stop: CancellationToken,
) {
    let mut tick = ticks(READINESS_INTERVAL);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        // Cancel-safe: an abandoned query returns its connection to the pool, which tests it before use.
        let seen = match timeout(READINESS_TIMEOUT, store.is_migrated()).await {
            Ok(Ok(is_migrated)) => {
                store.log().on_schema(is_migrated);
                DatabaseState {
                    answers: true,
                    is_migrated,
                }
            }
            Ok(Err(error)) => {
                if !matches!(error, StoreError::Unavailable(_)) {
                    store.log().on_failure("readiness", &error);
                }
                DatabaseState::default()
            }
            Err(_) => DatabaseState::default(),
        };
        state.send_replace(seen);
    }
}

//! Stops the gateway without a rush: signals its tasks, spreads the clients that leave over time, and waits for both.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::{RETURN_SPREAD_MIN, RETURNS_PER_SECOND_MAX};
use usher_core::protocol::ms;

/// The shutdown signal, and the tasks that end on it.
#[derive(Debug)]
pub(crate) struct Shutdown {
    /// Cancelled when the gateway begins to stop.
    pub(crate) signal: CancellationToken,
    /// The task of every connection.
    pub(crate) tasks: TaskTracker,
    drain_max: Duration,
    /// The time over which clients leave, in milliseconds. 0 until the gateway stops.
    leave_ms: AtomicU64,
}

impl Shutdown {
    /// A shutdown that takes at most `drain_max`.
    #[must_use]
    pub(crate) fn new(drain_max: Duration) -> Self {
        Self {
            signal: CancellationToken::new(),
            tasks: TaskTracker::new(),
            drain_max,
            leave_ms: AtomicU64::new(0),
        }
    }

    /// Signals every task. Returns the time over which so many clients leave.
    pub(crate) fn begin(&self, connections: u64) -> Duration {
        let leave_ms = connections.saturating_mul(1_000) / RETURNS_PER_SECOND_MAX;
        let leave = Duration::from_millis(leave_ms).min(self.drain_max);
        self.leave_ms.store(ms(leave), Ordering::Relaxed);
        self.signal.cancel();
        self.tasks.close();
        leave
    }

    /// Whether the gateway is about to stop.
    #[must_use]
    pub(crate) fn has_begun(&self) -> bool {
        self.signal.is_cancelled()
    }

    /// The time over which clients leave, in milliseconds.
    pub(crate) fn leave_ms(&self) -> u64 {
        self.leave_ms.load(Ordering::Relaxed)
    }

    /// The time over which clients that leave reconnect, in milliseconds.
    pub(crate) fn return_ms(&self) -> u64 {
        self.leave_ms()
            .max(ms(RETURN_SPREAD_MIN))
            .min(ms(self.drain_max))
    }
}

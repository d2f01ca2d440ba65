//! Bounds the acts of moderation that run at the same time, and counts those that wait.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use crate::limits::MODERATIONS_IN_FLIGHT_MAX;

/// The acts of moderation that are under way.
#[derive(Debug)]
pub(crate) struct Moderations {
    pub(crate) permits: Semaphore,
    pub(crate) count: AtomicUsize,
}

impl Default for Moderations {
    fn default() -> Self {
        Self {
            permits: Semaphore::new(MODERATIONS_IN_FLIGHT_MAX),
            count: AtomicUsize::new(0),
        }
    }
}

/// Counts an act for as long as it lives.
pub(crate) struct Counted<'a>(&'a Moderations);

impl<'a> Counted<'a> {
    pub(crate) fn new(moderations: &'a Moderations) -> Self {
        moderations.count.fetch_add(1, Ordering::Relaxed);
        Self(moderations)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

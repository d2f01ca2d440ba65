//! Takes the place of `proc` on systems without `/proc`. Every value is absent.

use std::net::SocketAddr;

use crate::process_usage::ProcessUsage;

/// Returns nothing: only Linux has these values.
#[must_use]
pub fn process(_: u32) -> Option<ProcessUsage> {
    None
}

/// Lists nothing: only Linux has these values.
#[must_use]
pub fn children(_: u32) -> Vec<u32> {
    Vec::new()
}

/// Returns nothing: only Linux has these values.
#[must_use]
pub fn load_average() -> Option<f32> {
    None
}

pub(crate) fn machine() -> Option<(u64, u64)> {
    None
}

pub(crate) fn cores_of(_: u32) -> Option<usize> {
    None
}

pub(crate) fn listener(_: SocketAddr) -> Option<u32> {
    None
}

//! Rate limits, admission to sessions, and repeated access checks.

pub(crate) mod access_checks;
pub(crate) mod rate_limits;
pub(crate) mod singleflight;

use std::sync::Arc;

use usher_core::protocol::id::SessionId;

/// A session and the exact claims of a caller. Two callers with the same claims get the same answer.
type CallerKey = (SessionId, Arc<str>);

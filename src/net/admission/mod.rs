//! Who may come in and how often: rate limits, admission to sessions, repeated checks of access.

pub(crate) mod access_checks;
pub(crate) mod rate_limits;
pub(crate) mod singleflight;

//! Who may come in and how often: rate limits, admission to sessions, repeated checks of access.

pub mod access_checks;
pub mod rate_limits;
pub mod singleflight;

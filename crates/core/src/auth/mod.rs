//! Verifies tokens and identifies callers. The database decides what a caller may do.
//!
//! ```text
//! header, query or frame ─► Credential ─► Verifier::verify(token, now) ─► Identity
//!                           none, token   signature, then claims          role, subject, claims
//! ```
//!
//! Does not read the clock (`now` is an argument), does not fetch keys, and takes no algorithm from a token's header:
//! each key has its algorithm, and the header may only name one that some key has. Read the modules in this order:
//! [`identity`], [`algorithm`], [`jwk`], [`key_set`], [`verifier`], [`claims`]. [`signing`] and [`mint`] make tokens.

pub(crate) mod algorithm;
pub mod claims;
pub mod identity;
pub(crate) mod jwk;
pub mod key_set;
pub mod mint;
pub mod signing;
pub mod verifier;

#[cfg(test)]
#[allow(dead_code, reason = "the integration tests use all of it")]
#[path = "../../tests/support/keys.rs"]
mod test_keys;

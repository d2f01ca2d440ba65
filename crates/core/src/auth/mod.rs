//! Who a token says its bearer is, and nothing about what they may do: that is the database's to decide.
//!
//! ```text
//! header, query or frame ─► Credential ─► Verifier::verify(token, now) ─► Identity
//!                           none, token   signature, then claims          role, subject, claims
//! ```
//!
//! Refuses to read the clock (`now` is an argument), to fetch keys, and to take an algorithm from a token's header: a
//! key knows its algorithm, the header may only name one that some key has. Read in this order: [`identity`],
//! [`algorithm`], [`jwk`], [`key_set`], [`verifier`], [`claims`]; [`signing`] and [`mint`] make tokens.

pub(crate) mod algorithm;
pub mod claims;
pub mod identity;
pub(crate) mod jwk;
pub mod key_set;
pub mod mint;
pub mod signing;
pub mod verifier;

#[cfg(test)]
#[allow(dead_code, reason = "the tests from outside use all of it")]
#[path = "../../tests/support/keys.rs"]
mod test_keys;

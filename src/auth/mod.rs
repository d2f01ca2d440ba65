//! Who a token says its bearer is, and nothing about what they may do: that is the database's to decide.
//!
//! ```text
//! header, query or frame ─► Credential ─► Verifier::verify(token, now) ─► Identity
//!                           none, token   signature, then claims          role, subject, claims
//! ```
//!
//! Refuses to read the clock (`now` is an argument), to fetch keys, and to take an algorithm from a token's header: a
//! key knows its algorithm, the header may only name one that some key has. Read in this order: [`identity`],
//! [`verifier`], [`claims`], [`mint`].

pub mod claims;
pub mod identity;
pub mod mint;
pub mod verifier;

//! The core of Usher: its decisions as plain functions of (state, event, now).
//!
//! The crate contains the wire protocol, token verification and the delivery rules. It never waits, logs, reads a clock
//! or draws random numbers: the caller passes these in. Its tests and the simulation are therefore fast and repeatable.
//!
//! A module uses only the modules above it in this list.

// Unit tests share helpers with tests from outside, which name the crate.
#[cfg(test)]
extern crate self as usher_core;

pub mod limits;

pub mod protocol;

pub mod auth;

pub mod relay;

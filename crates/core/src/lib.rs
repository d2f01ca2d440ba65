//! The core of Usher: what should happen, as plain functions of (state, event, now).
//!
//! It contains the wire protocol, the checks of tokens, and the rules of delivery. It never waits, logs, reads a clock or
//! draws randomness: the caller passes those in. That keeps its scripts and the simulation fast and repeatable.
//!
//! A module uses only the modules above it in this list.

// Unit tests share helpers with tests from outside, which name the crate.
#[cfg(test)]
extern crate self as usher_core;

pub mod limits;

pub mod protocol;

pub mod auth;

pub mod relay;

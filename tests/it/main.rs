//! The integration tests: real processes, real sockets, a real Postgres that they start themselves.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails as the test does"
)]

mod cluster;
mod database;
mod dev;
mod migrations;

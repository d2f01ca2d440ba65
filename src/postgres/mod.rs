//! The database, as seen from outside: how to reach it, and how to have one of one's own.
//!
//! Knows SQL and connections; does not know that sockets exist. Read in this order: [`connect`] (URL to connection),
//! [`tls`] (whom to trust), [`listener`] (what changed), [`store`] (what is), [`batcher`] (what shall be), [`migrations`] (the schema, embedded), and for development and tests [`cluster`]
//! (a Postgres of our own) with [`binaries`] (where its programs come from) and [`watchdog`] (what ends it, whatever
//! happens to us).

pub mod batcher;
pub mod connect;
pub mod listener;
pub mod store;
pub mod tls;

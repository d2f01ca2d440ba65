//! The database, as seen from outside: how to reach it, and how to have one of one's own.
//!
//! Knows SQL and connections; does not know that sockets exist. Read in this order: [`connect`] (URL to connection),
//! [`tls`] (whom to trust), [`trouble`] (why not), [`listener`] (what changed), [`store`] (what is) with `settings` (under
//! what it asks) and [`log_limiter`] (how often its failures are logged), [`history`] (what was said), [`moderation`] (who
//! keeps order), [`batcher`] (what shall be) with `batch` (its words in SQL), [`migrations`] (the schema, embedded) with
//! `migration_advice` (what keeps a role or a database from it), [`expected`] (what it makes), [`checkup`] (what is there);
//! and for development and tests [`cluster`] (a Postgres of our own) with `server` (its process), [`binaries`] (where its
//! programs come from), [`account`] (whom it runs as) and `watchdog` (what ends it, whatever happens to us).

pub mod access;
pub mod account;
mod batch;
pub mod batcher;
pub mod binaries;
pub mod checkup;
pub mod cluster;
pub mod connect;
pub mod expected;
pub mod history;
pub mod listener;
pub mod log_limiter;
mod migration_advice;
pub mod migrations;
pub mod moderation;
mod server;
mod settings;
pub mod store;
pub mod tls;
pub mod trouble;
mod watchdog;

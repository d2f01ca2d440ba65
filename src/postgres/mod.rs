//! The database, as seen from outside: how to reach it.
//!
//! Knows SQL and connections, and nothing of sockets. Read in this order:
//!
//! * [`connect`]: from a URL to a connection, with [`tls`] and [`connect_error`].
//! * [`listener`]: LISTEN, with the probe that notices a dead connection.
//! * [`store`]: queries, with [`statement`] (one statement and its errors), `transaction` (the caller's rights),
//!   `settings` (what each transaction sets) and [`log_limiter`]; [`access`], [`chat_history`] and [`moderation`] hold the
//!   larger ones.
//! * [`batcher`]: writes, many in one transaction, with `batch` (its SQL).
//! * [`migrations`]: the embedded schema, with `migration_advice`; [`expected_schema`] and [`introspect`] compare it with
//!   what a database has.

pub(crate) mod access;
mod admission;
mod batch;
pub mod batcher;
pub(crate) mod chat_history;
pub mod connect;
pub mod connect_error;
pub(crate) mod expected_schema;
pub(crate) mod introspect;
pub(crate) mod listener;
pub(crate) mod log_limiter;
mod migration_advice;
pub mod migrations;
pub(crate) mod moderation;
mod moderation_permits;
mod settings;
pub mod statement;
pub mod store;
pub(crate) mod tls;
mod transaction;

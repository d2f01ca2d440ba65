//! The database, as seen from outside: how to reach it.
//!
//! Knows SQL and connections; does not know that sockets exist. Read in this order: [`connect`] (URL to connection),
//! [`tls`] (whom to trust), [`connect_error`] (why not), [`listener`] (what changed), [`store`] (what is) with `settings` (under
//! what it asks) and [`log_limiter`] (how often its failures are logged), [`chat_history`] (what was said), [`moderation`] (who
//! keeps order), [`batcher`] (what shall be) with `batch` (its words in SQL), [`migrations`] (the schema, embedded) with
//! `migration_advice` (what keeps a role or a database from it), [`expected_schema`] (what it makes), [`introspect`] (what is there).

pub mod access;
mod batch;
pub mod batcher;
pub mod chat_history;
pub mod connect;
pub mod connect_error;
pub mod expected_schema;
pub mod introspect;
pub mod listener;
pub mod log_limiter;
mod migration_advice;
pub mod migrations;
pub mod moderation;
mod settings;
pub mod store;
pub mod tls;

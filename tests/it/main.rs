//! The integration tests: real processes, real sockets, a real Postgres that they start themselves.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails as the test does"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests read the clock as a person with a watch does"
)]

mod access;
mod access_checks;
mod adopt;
mod api;
mod app_triggers;
mod blocked;
mod certificates;
mod channels;
mod client;
mod closing;
mod cluster;
mod compression;
mod conformance;
mod database;
mod dev;
#[path = "../../crates/core/tests/sim/dice.rs"]
mod dice;
mod doctor;
mod epoch;
mod erasure;
mod explain;
mod failures;
#[allow(
    dead_code,
    reason = "the fault matrix uses it; its own tests run here, since that binary has no harness"
)]
#[path = "../faults/ledger.rs"]
mod fault_ledger;
mod forged;
mod frames;
mod gateway;
mod handshake;
mod hostile;
mod http;
mod http_docs;
mod identity;
mod ids;
mod interleaved;
mod key_server;
#[path = "../../crates/core/tests/support/keys.rs"]
mod keys;
mod life;
mod limits;
mod load;
mod log;
mod main_job;
mod many_rows;
mod migrations;
mod moderation;
mod naive;
mod operator;
mod overheard;
mod overlay;
mod own_votes;
mod pgtap;
mod pooler;
mod postgres_tls;
mod preexisting;
mod proxy;
mod resume;
mod rfc6455;
mod rotation;
mod settings;
mod stage;
mod stream;
mod stress;
mod tap;
mod texts;
mod tls;
mod token;
mod volume;
mod vote_totals;
mod votings;
mod writes;

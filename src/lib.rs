//! Usher: a realtime fan-out gateway in front of Supabase.
//!
//! # The idea, in five sentences
//!
//! 1. **Postgres is the only truth.** An event is a committed row of a session's log; nothing is delivered that is not
//!    committed, not even to the client that wrote it.
//! 2. **NOTIFY is a hint with a number, the log is the answer.** Numbers are consecutive, so a missing one is seen.
//!    Whenever the gateway is unsure (a gap, a reconnect, an oversized payload, a slow client) it reads the log: one
//!    remedy for every loss.
//! 3. **Every piece of state has one owner.** A few fan-out loops, one a core, each own the write side of their connections
//!    and a view of the sessions those watch. Order comes from one FIFO, not from locks.
//! 4. **A pure core decides, thin shells act.** What should happen is plain functions of (state, event, now), tested by
//!    scripts and by simulation; sockets, SQL, clock and tasks live in the shells.
//! 5. **Encode once.** An event becomes its final bytes where it enters and is from then on a shared pointer; what waits is
//!    written together.
//!
//! # The way out
//!
//! ```text
//! Postgres ─► postgres::listener ─batch─► server::fanout (one a core) ─► sockets
//!             parse the small header       relay::Router: check seq,      one write of one shared
//!             of each NOTIFY once          append to the ring             chunk for each viewer
//! ```
//!
//! # The way in
//!
//! ```text
//! socket ─► server::connection ─► relay::Peer ─► postgres::store   (admission, pages of the log)
//!           decode the frame      decides        postgres::batcher (messages and votes, many in one transaction;
//!                                                relay::WriteQueue says whose turn it is)
//! ```
//!
//! # Layers
//!
//! A module uses only what is below it; `tests/tidy.rs` enforces it.
//!
//! ```text
//!  5  main  cli  app               commands; builds the parts in order, stops them in reverse
//!  4  http                         the calls over HTTP, Server-Sent Events, health, metrics, pages
//!     server                       accept, handshake, connection loop, fan-out loops, drain
//!     load                         the load tester, which knows the protocol and nothing of the server
//!  3  postgres  keyring            the database and the key server, as seen from outside
//! ------------------------------   below this line: no async, no clock, no randomness, no logging, no tokio
//!  2  relay                        router, history ring, subscription, peer, tally, resume, write queue
//!  1  protocol  auth               the words on the wire; who a token says you are
//!  0  limits                       every bound, with its reason, and how they relate
//!  -  causes  config  metrics      used by 3, 4, 5 (metrics with exposition and process_metrics)
//! ```
//!
//! What is absent matters as much: `relay` never waits, logs or counts; `postgres` does not know that sockets exist;
//! `server` writes no SQL; event data is never parsed on the way out, only bounded and spliced.
//!
//! # Words
//!
//! **session**: a live movie session; it has one **log** of **events**, each with a **seq**. **voting**: a question with
//! options put to a session; its live counts are a **tally**. **connection**: a task around a socket. **peer**: one client
//! as the pure core sees it. **refusal**: what a client is told when it may not.

pub(crate) mod causes;
pub mod config;
pub mod exposition;
pub(crate) mod keyring;
pub mod metrics;
pub mod net;
pub mod postgres;
pub(crate) mod process_metrics;

pub(crate) mod http;

pub mod app;
pub mod cli;

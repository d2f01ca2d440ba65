//! Usher: a realtime fan-out gateway in front of Supabase.
//!
//! `ARCHITECTURE.md` shows where each part is and follows one write, one subscription and one notification through the
//! code. This crate holds the shells; `usher_core` decides.

pub(crate) mod causes;
pub(crate) mod clock;
pub mod config;
pub mod exposition;
pub(crate) mod keyring;
pub mod limits;
pub mod metrics;
pub mod net;
pub mod postgres;
pub(crate) mod process_metrics;

pub(crate) mod http;

pub mod app;
pub mod cli;

//! The words on the wire: what clients say, what the gateway answers, and how both look as bytes.
//!
//! Knows nothing of sockets, sessions or clocks. Read in this order: [`id`], [`refusal`], [`text`], [`client`],
//! [`moderation`], [`server`], [`websocket`], [`framing`], [`deflate`], [`sse`], [`notify`].

pub mod client;
pub mod deflate;
pub mod framing;
pub mod id;
pub mod moderation;
pub mod notify;
pub mod refusal;
pub mod server;
pub mod sse;
pub mod text;
pub mod websocket;

use std::time::Duration;

/// A duration as the wire has it: in whole milliseconds.
#[must_use]
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

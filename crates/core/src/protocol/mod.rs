//! The wire protocol: the frames of clients and of the gateway, and their bytes.
//!
//! Knows nothing about sockets, sessions or clocks. Read the modules in this order: [`id`], [`refusal`], [`text`],
//! [`client`], [`moderation`], [`server`], [`websocket`], [`framing`], [`server_frames`], [`deflate`], [`sse`],
//! [`notify`].

pub mod client;
pub mod deflate;
pub mod framing;
pub mod id;
pub mod moderation;
pub mod notify;
pub mod refusal;
pub mod server;
pub mod server_frames;
pub mod sse;
pub mod text;
pub mod websocket;

use std::time::Duration;

/// Returns a duration in whole milliseconds, as the wire has it.
#[must_use]
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

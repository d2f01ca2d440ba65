//! The words on the wire: what clients say, what the gateway answers, and how both look as bytes.
//!
//! Knows nothing of sockets, sessions or time. Read in this order: [`id`], [`refusal`], [`client`], [`server`],
//! [`websocket`], [`framing`], [`notify`].

pub mod client;
pub mod framing;
pub mod id;
pub mod notify;
pub mod refusal;
pub mod server;
pub mod websocket;

//! The words on the wire: what clients say, what the gateway answers, and how both look as bytes.
//!
//! Knows nothing of sockets, sessions or time. Read in this order: [`id`].

pub mod id;

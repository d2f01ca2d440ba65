//! Rate limits, as the settings in the group "Limits" give them.

use std::num::NonZero;
use std::time::Duration;

use ipnet::IpNet;

/// Allows `count` in a burst, and refills evenly in `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The size of the burst.
    pub count: NonZero<u32>,
    /// The time in which it refills.
    pub period: Duration,
}

/// All rate limits; `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Messages of one user.
    pub messages: Option<Rate>,
    /// Messages of one user who moderates the session.
    pub moderator_messages: Option<Rate>,
    /// Votes of one user.
    pub votes: Option<Rate>,
    /// Moderation calls of one user.
    pub moderation: Option<Rate>,
    /// Messages to one session, and votes in one poll, from all users together.
    pub session_writes: Option<Rate>,
    /// Frames from one socket.
    pub frames: Option<Rate>,
    /// Bytes of frames from one socket.
    pub bytes: Option<Rate>,
    /// Subscribe frames from one socket.
    pub joins: Option<Rate>,
    /// Handshakes and other requests from one address.
    pub requests: Option<Rate>,
    /// Open sockets from one address.
    pub connections_per_address: Option<NonZero<u32>>,
    /// Time during which a user may not repeat a message in a session.
    pub repeat_pause: Duration,
    /// Proxies whose forwarding headers the gateway believes.
    pub trusted_proxies: Vec<IpNet>,
}

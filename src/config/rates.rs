//! How often somebody may do something.

use std::net::IpAddr;
use std::num::NonZero;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use crate::config::address::LOCALHOST;
use crate::config::check::Check;
use usher_core::limits::FRAME_BYTES_MAX;

/// What `localhost` means among proxies.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// So many in a time, all at once if need be: the allowance refills evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: NonZero<u32>,
    /// In what time they refill.
    pub period: Duration,
}

/// All rates; `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Messages of a user.
    pub messages: Option<Rate>,
    /// Messages of a user who may moderate the session.
    pub moderator_messages: Option<Rate>,
    /// Votes of a user.
    pub votes: Option<Rate>,
    /// Acts of moderation of a user, by calls over HTTP.
    pub moderation: Option<Rate>,
    /// Messages to a session, and votes in a voting, by everybody together.
    pub session_writes: Option<Rate>,
    /// Frames of a socket.
    pub frames: Option<Rate>,
    /// Bytes of frames of a socket.
    pub bytes: Option<Rate>,
    /// Subscribe frames of a socket.
    pub joins: Option<Rate>,
    /// Handshakes, and other requests, of an address.
    pub requests: Option<Rate>,
    /// Sockets of an address at a time.
    pub connections_per_address: Option<NonZero<u32>>,
    /// How long the same words by the same user are not said again in a session; zero, and they may be.
    pub repeat_pause: Duration,
    /// Whose word about the client's address is taken.
    pub trusted_proxies: Vec<IpNet>,
}

/// The rates as given: `20/30` is twenty in thirty seconds, `off` is no limit.
#[derive(Args, Clone, Debug)]
pub(crate) struct RawRates {
    /// Messages of one user, COUNT/SECONDS or off. Further messages get rate_limited.
    #[arg(
        long,
        env = "USHER_LIMIT_MESSAGES",
        default_value = "20/30",
        value_name = "RATE",
        help_heading = "Limits"
    )]
    pub(crate) limit_messages: String,

    /// Messages of one user who moderates the session, COUNT/SECONDS or off.
    #[arg(
        long,
        env = "USHER_LIMIT_MODERATOR_MESSAGES",
        default_value = "100/30",
        value_name = "RATE",
        help_heading = "Limits"
    )]
    pub(crate) limit_moderator_messages: String,

    /// Votes of one user, COUNT/SECONDS or off.
    #[arg(
        long,
        env = "USHER_LIMIT_VOTES",
        default_value = "30/30",
        value_name = "RATE",
        help_heading = "Limits"
    )]
    pub(crate) limit_votes: String,

    /// Moderation calls of one user (over HTTP), COUNT/SECONDS or off. Further calls get 429.
    #[arg(
        long,
        env = "USHER_LIMIT_MODERATION",
        default_value = "100/30",
        value_name = "RATE",
        help_heading = "Limits"
    )]
    pub(crate) limit_moderation: String,

    /// Messages to one session, and votes in one poll, from all users together, COUNT/SECONDS or off.
    #[arg(
        long,
        env = "USHER_LIMIT_SESSION_WRITES",
        default_value = "5000/5",
        value_name = "RATE",
        help_heading = "Limits"
    )]
    pub(crate) limit_session_writes: String,

    /// Frames from one socket, COUNT/SECONDS or off. A client that ignores the limit is closed with 4029.
    #[arg(
        long,
        env = "USHER_LIMIT_FRAMES",
        default_value = "300/10",
        value_name = "RATE",
        help_heading = "Limits"
    )]
    pub(crate) limit_frames: String,

    /// Bytes of frames from one socket, COUNT/SECONDS or off. COUNT is at least 40960, the largest frame.
    #[arg(
        long,
        env = "USHER_LIMIT_BYTES",
        default_value = "524288/10",
        value_name = "RATE",
        help_heading = "Limits"
    )]
    pub(crate) limit_bytes: String,

    /// Subscribe frames from one socket, COUNT/SECONDS or off.
    #[arg(
        long,
        env = "USHER_LIMIT_JOINS",
        default_value = "100/10",
        value_name = "RATE",
        help_heading = "Limits"
    )]
    pub(crate) limit_joins: String,

    /// Handshakes and other requests from one address, COUNT/SECONDS or off. Further requests get 429.
    #[arg(
        long,
        env = "USHER_LIMIT_REQUESTS",
        default_value = "600/60",
        value_name = "RATE",
        help_heading = "Limits"
    )]
    pub(crate) limit_requests: String,

    /// Open sockets from one address, 1 to 1000000 or off. Further handshakes get 429.
    #[arg(
        long,
        env = "USHER_LIMIT_ADDRESS_CONNECTIONS",
        default_value = "1000",
        value_name = "N",
        help_heading = "Limits"
    )]
    pub(crate) limit_address_connections: String,

    /// Seconds during which a user may not repeat a message in a session, 0 to 3600. Moderators may.
    #[arg(
        long,
        env = "USHER_REPEAT_SECONDS",
        default_value = "30",
        value_name = "SECONDS",
        help_heading = "Limits"
    )]
    pub(crate) repeat_seconds: String,

    /// Proxies whose X-Forwarded-For (or, without one, Forwarded) the gateway believes: addresses, ranges or localhost,
    /// separated by commas. The limits per address do not apply to them.
    #[arg(
        long,
        env = "USHER_TRUSTED_PROXIES",
        default_value = "127.0.0.0/8,::1",
        value_name = "ADDRESSES",
        help_heading = "Limits"
    )]
    pub(crate) trusted_proxies: String,
}

impl Check {
    /// Every rate, or `None` where one is wrong.
    pub(crate) fn rates(&mut self, raw: &RawRates) -> Option<Rates> {
        let messages = self.rate("USHER_LIMIT_MESSAGES", &raw.limit_messages, 1);
        let moderators = &raw.limit_moderator_messages;
        let moderators = self.rate("USHER_LIMIT_MODERATOR_MESSAGES", moderators, 1);
        let votes = self.rate("USHER_LIMIT_VOTES", &raw.limit_votes, 1);
        let moderation = self.rate("USHER_LIMIT_MODERATION", &raw.limit_moderation, 1);
        let writes = &raw.limit_session_writes;
        let writes = self.rate("USHER_LIMIT_SESSION_WRITES", writes, 1);
        let frames = self.rate("USHER_LIMIT_FRAMES", &raw.limit_frames, 1);
        let frame_bytes = u32::try_from(FRAME_BYTES_MAX).unwrap_or(u32::MAX);
        let bytes = self.rate("USHER_LIMIT_BYTES", &raw.limit_bytes, frame_bytes);
        let joins = self.rate("USHER_LIMIT_JOINS", &raw.limit_joins, 1);
        let requests = self.rate("USHER_LIMIT_REQUESTS", &raw.limit_requests, 1);
        let connections = &raw.limit_address_connections;
        let connections = if is_off(connections) {
            Some(None)
        } else {
            let number = self.number(
                "USHER_LIMIT_ADDRESS_CONNECTIONS",
                connections,
                1..=1_000_000,
            );
            number.map(NonZero::new)
        };
        let repeat = self.number("USHER_REPEAT_SECONDS", &raw.repeat_seconds, 0..=3_600);
        let proxies = self.proxies(&raw.trusted_proxies);
        Some(Rates {
            messages: messages?,
            moderator_messages: moderators?,
            votes: votes?,
            moderation: moderation?,
            session_writes: writes?,
            frames: frames?,
            bytes: bytes?,
            joins: joins?,
            requests: requests?,
            connections_per_address: connections?,
            repeat_pause: Duration::from_secs(repeat?),
            trusted_proxies: proxies?,
        })
    }

    /// The outer `Option` is whether the setting is right, the inner whether there is a limit.
    fn rate(&mut self, name: &'static str, text: &str, count_min: u32) -> Option<Option<Rate>> {
        const COUNT_MAX: u32 = 1_000_000_000;
        const SECONDS_MAX: u64 = 86_400;
        if is_off(text) {
            return Some(None);
        }
        let rate = text.trim().split_once('/').and_then(|(count, seconds)| {
            let count = count.trim().parse().ok();
            let count = count.filter(|count| (count_min..=COUNT_MAX).contains(count))?;
            let seconds = seconds.trim().parse().ok();
            let seconds = seconds.filter(|seconds| (1..=SECONDS_MAX).contains(seconds))?;
            Some(Rate {
                count: NonZero::new(count)?,
                period: Duration::from_secs(seconds),
            })
        });
        if rate.is_none() {
            self.wrong(
                name,
                text,
                format!("a count of {count_min} or more and seconds, such as 20/30, or off"),
            );
        }
        rate.map(Some)
    }

    fn proxies(&mut self, list: &str) -> Option<Vec<IpNet>> {
        let parse = |text: &str| {
            let address: Option<IpAddr> = text.parse().ok();
            address.map(IpNet::from).or_else(|| text.parse().ok())
        };
        let mut proxies = Vec::new();
        let mistakes_before = self.mistakes.len();
        for text in list.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            if text.eq_ignore_ascii_case(LOCALHOST) {
                let loopback = LOOPBACK.map(|net| net.parse::<IpNet>().expect("a network"));
                proxies.extend(loopback);
                continue;
            }
            match parse(text) {
                Some(proxy) => proxies.push(proxy),
                None => self.wrong(
                    "USHER_TRUSTED_PROXIES",
                    text,
                    "an address such as 10.0.0.7, a range such as 10.0.0.0/8, or localhost",
                ),
            }
        }
        (self.mistakes.len() == mistakes_before).then_some(proxies)
    }
}

fn is_off(text: &str) -> bool {
    text.trim() == "off"
}

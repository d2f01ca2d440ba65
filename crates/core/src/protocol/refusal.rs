//! What a client is told when it may not: refusals of one frame, and codes that close the socket.

use std::borrow::Cow;

use crate::limits::BUSY_RETRY_MS;

/// Why one frame of a client was refused. The names are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// A field is missing, of the wrong type or out of range; the message names it.
    BadRequest,
    /// The author is banned or timed out.
    Banned,
    /// An open transaction locks what this needs.
    Busy,
    /// What was asked contradicts what is: a vote changed where that is not allowed.
    Conflict,
    /// The caller may see it, but may not do this.
    Forbidden,
    /// Our fault; the log of the gateway says more.
    Internal,
    /// No such thing, or the caller may not know that there is.
    NotFound,
    /// Too many of them in too short a time.
    RateLimited,
    /// The session is over.
    SessionEnded,
    /// The session asks its writers to wait between messages.
    SlowMode,
    /// Larger than the limit.
    TooLarge,
    /// A token is needed, or the one given does not do.
    Unauthorized,
    /// The database cannot be asked at the moment.
    Unavailable,
    /// The voting is a draft or closed.
    VotingClosed,
}

impl RefusalCode {
    /// Every code, for metrics and tests.
    pub const ALL: [Self; 14] = [
        Self::BadRequest,
        Self::Banned,
        Self::Busy,
        Self::Conflict,
        Self::Forbidden,
        Self::Internal,
        Self::NotFound,
        Self::RateLimited,
        Self::SessionEnded,
        Self::SlowMode,
        Self::TooLarge,
        Self::Unauthorized,
        Self::Unavailable,
        Self::VotingClosed,
    ];

    /// The code with this name on the wire.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }

    /// Whether it says that the caller may not, and not that something failed.
    #[must_use]
    pub fn is_judgement(self) -> bool {
        matches!(self, Self::Banned | Self::Forbidden | Self::NotFound)
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Banned => "banned",
            Self::Busy => "busy",
            Self::Conflict => "conflict",
            Self::Forbidden => "forbidden",
            Self::Internal => "internal",
            Self::NotFound => "not_found",
            Self::RateLimited => "rate_limited",
            Self::SessionEnded => "session_ended",
            Self::SlowMode => "slow_mode",
            Self::TooLarge => "too_large",
            Self::Unauthorized => "unauthorized",
            Self::Unavailable => "unavailable",
            Self::VotingClosed => "voting_closed",
        }
    }
}

/// What is wrong with an access token. The names are part of the protocol, so that a client need not read the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenFlaw {
    /// No key of the project uses the algorithm that the header names.
    Algorithm,
    /// A claim is missing, wrong, or not to be stored; the message names it.
    Claim,
    /// The time of the token is over: a fresh one helps.
    Expired,
    /// The gateway does not accept tokens of this issuer.
    Issuer,
    /// The text is not a token.
    Malformed,
    /// A token is needed, and there is none.
    Missing,
    /// The time of the token has not come.
    NotYetValid,
    /// The gateway does not act as the role of the token.
    Role,
    /// The text is one of the project's secret keys.
    SecretKey,
    /// The signature is not that of a key of the project.
    Signature,
    /// The token is larger than the limit.
    TooLarge,
    /// The project has no key with the name that the header gives: a fresh token helps.
    UnknownKey,
}

impl TokenFlaw {
    /// Every flaw, for tests.
    pub(crate) const ALL: [Self; 12] = [
        Self::Algorithm,
        Self::Claim,
        Self::Expired,
        Self::Issuer,
        Self::Malformed,
        Self::Missing,
        Self::NotYetValid,
        Self::Role,
        Self::SecretKey,
        Self::Signature,
        Self::TooLarge,
        Self::UnknownKey,
    ];

    /// The flaw with this name on the wire.
    #[must_use]
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flaw| flaw.as_str() == name)
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Algorithm => "algorithm",
            Self::Claim => "claim",
            Self::Expired => "expired",
            Self::Issuer => "issuer",
            Self::Malformed => "malformed",
            Self::Missing => "missing",
            Self::NotYetValid => "not_yet_valid",
            Self::Role => "role",
            Self::SecretKey => "secret_key",
            Self::Signature => "signature",
            Self::TooLarge => "too_large",
            Self::UnknownKey => "unknown_key",
        }
    }
}

/// The answer to a frame that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which of the named reasons.
    pub code: RefusalCode,
    /// A sentence for the developer of the client; never SQL, a token or the name of a host.
    pub message: Cow<'static, str>,
    /// When to try again, where trying again can help.
    pub retry_after_ms: Option<u64>,
    /// What is wrong with the caller's token, where it is that.
    pub reason: Option<TokenFlaw>,
}

impl Refusal {
    /// A refusal that trying again does not change.
    pub fn new(code: RefusalCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_ms: None,
            reason: None,
        }
    }

    /// A token that is missing or not good.
    pub fn of_token(reason: TokenFlaw, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason: Some(reason),
            ..Self::new(RefusalCode::Unauthorized, message)
        }
    }

    /// A field that is not as it should be.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusalCode::BadRequest, message)
    }

    /// An open transaction locks what this needs.
    #[must_use]
    pub fn busy() -> Self {
        Self {
            retry_after_ms: Some(BUSY_RETRY_MS),
            ..Self::new(
                RefusalCode::Busy,
                "an open transaction in the database locks what this needs, try again",
            )
        }
    }

    /// The database cannot be asked; `retry_after_ms` says when it may be worth another try.
    #[must_use]
    pub fn unavailable(retry_after_ms: u64) -> Self {
        Self {
            retry_after_ms: Some(retry_after_ms),
            ..Self::new(
                RefusalCode::Unavailable,
                "the database cannot be reached at the moment, try again",
            )
        }
    }
}

/// Why the gateway closes a socket. 4000 to 4499 mean: come back with the resume position; from 4500 on: do not come
/// back without a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// A frame broke RFC 6455.
    ProtocolError,
    /// A text frame was not UTF-8.
    InvalidText,
    /// A frame larger than `max_frame_bytes`.
    TooBig,
    /// The gateway restarts; a `reconnect` frame came before.
    Restart,
    /// What the client needs cannot be had at the moment.
    TryAgainLater,
    /// The token expired: come back with a fresh one.
    TokenExpired,
    /// The client did not take what it was sent.
    TooSlow,
    /// Nothing was heard from the client for two heartbeats.
    HeartbeatMissed,
    /// The client kept exceeding limits.
    Flooding,
    /// Frames that are not JSON objects, repeatedly.
    NotThisProtocol,
    /// The token is not valid, or missing where one is required.
    Unauthorized,
    /// Banned, or access withdrawn.
    AccessWithdrawn,
    /// Another subject's token on an open socket.
    AnotherSubject,
}

impl CloseCode {
    /// Every code, for metrics and tests.
    pub const ALL: [Self; 13] = [
        Self::ProtocolError,
        Self::InvalidText,
        Self::TooBig,
        Self::Restart,
        Self::TryAgainLater,
        Self::TokenExpired,
        Self::TooSlow,
        Self::HeartbeatMissed,
        Self::Flooding,
        Self::NotThisProtocol,
        Self::Unauthorized,
        Self::AccessWithdrawn,
        Self::AnotherSubject,
    ];

    /// The number in the close frame (RFC 6455 §7.4).
    #[must_use]
    pub fn as_u16(self) -> u16 {
        match self {
            Self::ProtocolError => 1002,
            Self::InvalidText => 1007,
            Self::TooBig => 1009,
            Self::Restart => 1012,
            Self::TryAgainLater => 1013,
            Self::TokenExpired => 4001,
            Self::TooSlow => 4008,
            Self::HeartbeatMissed => 4009,
            Self::Flooding => 4029,
            Self::NotThisProtocol => 4500,
            Self::Unauthorized => 4501,
            Self::AccessWithdrawn => 4503,
            Self::AnotherSubject => 4509,
        }
    }

    /// The reason in the close frame, at most 123 bytes.
    #[must_use]
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::ProtocolError => "a frame broke rfc 6455",
            Self::InvalidText => "a text frame was not utf-8",
            Self::TooBig => "frame larger than max_frame_bytes",
            Self::Restart => "the gateway restarts",
            Self::TryAgainLater => "try again later",
            Self::TokenExpired => "token expired, come back with a fresh one",
            Self::TooSlow => "too slow to keep up, come back and resume",
            Self::HeartbeatMissed => "nothing heard for two heartbeats",
            Self::Flooding => "limits exceeded again and again, come back later",
            Self::NotThisProtocol => "frames must be json objects",
            Self::Unauthorized => "token invalid, or missing where one is required",
            Self::AccessWithdrawn => "access withdrawn",
            Self::AnotherSubject => "this socket belongs to another subject",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for code in RefusalCode::ALL {
            assert_eq!(RefusalCode::parse(code.as_str()), Some(code));
        }
        assert_eq!(RefusalCode::parse("nonsense"), None);
        for flaw in TokenFlaw::ALL {
            assert_eq!(TokenFlaw::parse(flaw.as_str()), Some(flaw));
        }
        assert_eq!(TokenFlaw::parse("nonsense"), None);
    }

    #[test]
    fn reasons_fit_a_control_frame() {
        for code in CloseCode::ALL {
            assert!(code.reason().len() <= 123, "{code:?}");
        }
    }
}

//! Refusals of client frames, and the codes with which the gateway closes a socket.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;

use crate::limits::RETRY_DATABASE;

/// The reason why a client's frame was refused. The names are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = ErrorCode))]
pub enum RefusalCode {
    /// A field is missing, of the wrong type or out of range; the message names it.
    BadRequest,
    /// The author is banned or timed out.
    Banned,
    /// An open transaction locks a row that the request needs.
    Busy,
    /// The request contradicts the current state, such as a changed vote where changes are not allowed.
    Conflict,
    /// The caller may see the object, but may not perform this action.
    Forbidden,
    /// The gateway failed. Its log has the cause.
    Internal,
    /// The object does not exist, or the caller may not know that it exists.
    NotFound,
    /// Too many requests in too short a time.
    RateLimited,
    /// The session has ended.
    SessionEnded,
    /// The session is in slow mode: wait before the next message.
    SlowMode,
    /// The value is larger than its limit.
    TooLarge,
    /// The token is missing or invalid.
    Unauthorized,
    /// The database cannot be reached at the moment.
    Unavailable,
    /// The poll is a draft or closed.
    VotingClosed,
}

impl RefusalCode {
    /// All codes, for metrics and tests.
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

    /// Returns the code with this name on the wire.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }

    /// Whether the code is a decision about the caller's access, rather than a failure.
    #[must_use]
    pub fn is_judgement(self) -> bool {
        matches!(self, Self::Banned | Self::Forbidden | Self::NotFound)
    }

    /// Returns the name on the wire.
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

/// The flaw of an access token. The names are part of the protocol, so that a client need not parse the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenFlaw {
    /// The header names an algorithm that no key of the project uses.
    Algorithm,
    /// A claim is missing or wrong, or cannot be stored. The message names it.
    Claim,
    /// The token has expired: a new one helps.
    Expired,
    /// The gateway does not accept tokens of this issuer.
    Issuer,
    /// The text is not a token.
    Malformed,
    /// A token is required, and none was sent.
    Missing,
    /// The token is not valid yet.
    NotYetValid,
    /// The gateway does not act as the token's role.
    Role,
    /// The client sent a secret key of the project in the place of a token.
    SecretKey,
    /// No key of the project made the signature.
    Signature,
    /// The token is larger than the limit.
    TooLarge,
    /// The project has no key with the header's `kid`: a new token helps.
    UnknownKey,
}

impl TokenFlaw {
    /// Returns the name on the wire.
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

/// The answer to a refused frame or call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = ErrorDetails))]
pub struct Refusal {
    /// The code, which clients act on.
    pub code: RefusalCode,
    /// A sentence for the developer of the client. It never contains SQL, a token or a host's name.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub message: Cow<'static, str>,
    /// When to try again, if another try can help. Only [`Refusal::retry_in`] sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    /// The flaw of the caller's token, such as `expired` or `issuer`, if that is the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub reason: Option<TokenFlaw>,
}

impl Refusal {
    /// Creates a refusal without a time to try again.
    pub fn new(code: RefusalCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_ms: None,
            reason: None,
        }
    }

    /// Creates an `unauthorized` refusal for a missing or invalid token.
    pub fn of_token(reason: TokenFlaw, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason: Some(reason),
            ..Self::new(RefusalCode::Unauthorized, message)
        }
    }

    /// Creates a refusal of an invalid field. The message names it.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusalCode::BadRequest, message)
    }

    /// Creates a refusal because an open transaction locks a row that the request needs.
    #[must_use]
    pub fn busy() -> Self {
        let message = "an open transaction in the database locks what this needs, try again";
        Self::new(RefusalCode::Busy, message).retry_in(RETRY_DATABASE)
    }

    /// Creates a refusal of a request beyond a rate limit. The client may send the next one after `wait`.
    pub fn rate_limited(message: impl Into<Cow<'static, str>>, wait: Duration) -> Self {
        Self::new(RefusalCode::RateLimited, message).retry_in(wait)
    }

    /// Creates a refusal because the database cannot be reached.
    #[must_use]
    pub fn unavailable() -> Self {
        let message = "the database cannot be reached at the moment, try again";
        Self::new(RefusalCode::Unavailable, message).retry_in(RETRY_DATABASE)
    }

    /// Adds the wait after which another try can succeed. Rounds it up to a millisecond, so that a client that waits
    /// exactly this long is not refused again.
    #[must_use]
    pub fn retry_in(self, wait: Duration) -> Self {
        let ms = wait.as_nanos().div_ceil(1_000_000);
        Self {
            retry_after_ms: Some(u64::try_from(ms).unwrap_or(u64::MAX)),
            ..self
        }
    }

    /// Returns the wait in whole seconds, rounded up, for the header `Retry-After`.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after_ms.map(|ms| ms.div_ceil(1_000))
    }
}

/// The reason why the gateway closes a socket. From 4000 to 4499 the client reconnects with its resume position. From
/// 4500 on it does not reconnect without a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// A frame broke RFC 6455.
    ProtocolError,
    /// A text frame was not UTF-8.
    InvalidText,
    /// A frame was larger than `max_frame_bytes`.
    TooBig,
    /// The gateway restarts. It sent a `reconnect` frame before.
    Restart,
    /// The gateway cannot serve the client at the moment.
    TryAgainLater,
    /// The token expired: the client reconnects with a new one.
    TokenExpired,
    /// The client was too slow to keep up.
    TooSlow,
    /// The client was silent for two heartbeat intervals.
    HeartbeatMissed,
    /// The client kept exceeding limits.
    Flooding,
    /// The client repeatedly sent frames that are not JSON objects.
    NotThisProtocol,
    /// The token is invalid, or missing where one is required.
    Unauthorized,
    /// The user is banned, or access was withdrawn.
    AccessWithdrawn,
    /// The client sent another subject's token on an open socket.
    AnotherSubject,
}

impl CloseCode {
    /// All codes, for metrics and tests.
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

    /// Returns the number in the close frame (RFC 6455 §7.4).
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

    /// Returns the reason in the close frame, at most 123 bytes.
    #[must_use]
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::ProtocolError => "a frame broke rfc 6455",
            Self::InvalidText => "a text frame was not utf-8",
            Self::TooBig => "frame larger than max_frame_bytes",
            Self::Restart => "the gateway restarts",
            Self::TryAgainLater => "try again later",
            Self::TokenExpired => "token expired, reconnect with a new one",
            Self::TooSlow => "too slow to keep up, reconnect and resume",
            Self::HeartbeatMissed => "no traffic for two heartbeat intervals",
            Self::Flooding => "limits exceeded repeatedly, reconnect later",
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
    fn names_are_parsed_back() {
        for code in RefusalCode::ALL {
            assert_eq!(RefusalCode::parse(code.as_str()), Some(code));
        }
        assert_eq!(RefusalCode::parse("nonsense"), None);
    }

    #[test]
    fn reasons_fit_a_control_frame() {
        for code in CloseCode::ALL {
            assert!(code.reason().len() <= 123, "{code:?}");
        }
    }
}

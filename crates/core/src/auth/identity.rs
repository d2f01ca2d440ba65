//! The identity behind a connection, as the database will see it.

use std::fmt;
use std::sync::{Arc, LazyLock};

use crate::protocol::id::UserId;

/// Claims of somebody without a token: what Supabase's own anon key says, without its dates.
const ANONYMOUS_CLAIMS: &str = r#"{"role":"anon"}"#;

/// What a client presents as its key. A publishable key names a project, not a person: it is no token.
const PUBLISHABLE_KEY_PREFIX: &str = "sb_publishable_";

/// A role that the gateway ever sets in the database; there is no way to make another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Anybody: no token, or the project's legacy anon key.
    Anon,
    /// A signed-in user.
    Authenticated,
}

impl Role {
    /// The role's name in Postgres and in a token.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anon => "anon",
            Self::Authenticated => "authenticated",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who a connection acts as. Invariant: a role of [`Role::Authenticated`] has a `subject`. With [`Role::Anon`] only an
/// overlay has one.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user, for a signed-in one; the id of its token, for an overlay.
    pub subject: Option<UserId>,
    /// The database role its statements run under.
    pub role: Role,
    /// The token's payload exactly as it was signed: what `request.jwt.claims` becomes.
    pub claims: Arc<str>,
    /// When the token ends, in seconds since 1970, at most the year 9999; never, for somebody without one.
    pub expires_at: Option<u64>,
}

impl Identity {
    /// Somebody without a token.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            subject: None,
            role: Role::Anon,
            claims: ANONYMOUS_CLAIMS.into(),
            expires_at: None,
        }
    }

    /// Somebody without a token, as all of them have it: there may be very many.
    #[must_use]
    pub fn nobody() -> Arc<Self> {
        static NOBODY: LazyLock<Arc<Identity>> = LazyLock::new(|| Arc::new(Identity::anonymous()));
        Arc::clone(&NOBODY)
    }
}

impl fmt::Debug for Identity {
    /// Leaves the claims out: they hold what users tell about themselves, such as an email address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("subject", &self.subject)
            .field("role", &self.role)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What a client presented where a token is expected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// Nothing, or a publishable key: the client is anonymous.
    Absent,
    /// Something to verify.
    Token(&'a str),
}

impl<'a> Credential<'a> {
    /// Reads the bare text of a query parameter or an `auth` frame.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let text = text.trim();
        if text.is_empty() || text.starts_with(PUBLISHABLE_KEY_PREFIX) {
            Self::Absent
        } else {
            Self::Token(text)
        }
    }

    /// Reads the value of an `Authorization` header. Another scheme than `Bearer` is not ours to judge: it is no token.
    #[must_use]
    pub fn from_authorization(value: &'a str) -> Self {
        match value.trim().split_once(' ') {
            Some((scheme, text)) if scheme.eq_ignore_ascii_case("bearer") => Self::parse(text),
            Some(_) | None => Self::Absent,
        }
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Token(_) => "Token(***)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publishable_key_counts_as_no_token() {
        assert_eq!(Credential::parse("sb_publishable_abc"), Credential::Absent);
        assert_eq!(Credential::parse("  "), Credential::Absent);
        assert_eq!(Credential::parse(" a.b.c "), Credential::Token("a.b.c"));
    }

    #[test]
    fn the_bearer_scheme_is_read_in_any_case() {
        assert_eq!(
            Credential::from_authorization("bearer  a.b.c"),
            Credential::Token("a.b.c")
        );
        assert_eq!(
            Credential::from_authorization("Bearer sb_publishable_x"),
            Credential::Absent
        );
        assert_eq!(
            Credential::from_authorization("Basic dXNlcjpwYXNz"),
            Credential::Absent
        );
        assert_eq!(Credential::from_authorization("Bearer"), Credential::Absent);
    }

    #[test]
    fn neither_a_token_nor_claims_are_printed() {
        let printed = format!(
            "{:?} {:?}",
            Credential::Token("secret"),
            Identity::anonymous()
        );
        assert!(
            !printed.contains("secret") && !printed.contains("{\"role\""),
            "{printed}"
        );
    }
}

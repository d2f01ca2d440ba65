//! The identity of a connection, as the database sees it.

use std::fmt;
use std::sync::{Arc, LazyLock};

use crate::protocol::id::UserId;

/// The claims of a client without a token: those of Supabase's anon key, without its dates.
const ANONYMOUS_CLAIMS: &str = r#"{"role":"anon"}"#;

/// The prefix of a publishable key, which clients send in the place of a token. It identifies a project, not a user.
const PUBLISHABLE_KEY_PREFIX: &str = "sb_publishable_";

/// A database role that the gateway acts as. The type has no value for any other role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// An anonymous caller: no token, the project's legacy anon key, or an overlay token.
    Anon,
    /// A signed-in user.
    Authenticated,
}

impl Role {
    /// Returns the role's name in Postgres and in a token.
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

/// The identity that a connection acts as. Invariant: a role of [`Role::Authenticated`] has a `subject`. With
/// [`Role::Anon`], only an overlay has one.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's id for a signed-in user, or the token's id for an overlay.
    pub subject: Option<UserId>,
    /// The database role that runs the connection's statements.
    pub role: Role,
    /// The token's payload exactly as it was signed. It becomes `request.jwt.claims`.
    pub claims: Arc<str>,
    /// The token's expiry in seconds since 1970, at most the year 9999; `None` without a token.
    pub expires_at: Option<u64>,
}

impl Identity {
    /// Creates the identity of a client without a token.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            subject: None,
            role: Role::Anon,
            claims: ANONYMOUS_CLAIMS.into(),
            expires_at: None,
        }
    }

    /// Returns a shared identity of a client without a token. There may be very many such clients.
    #[must_use]
    pub fn nobody() -> Arc<Self> {
        static NOBODY: LazyLock<Arc<Identity>> = LazyLock::new(|| Arc::new(Identity::anonymous()));
        Arc::clone(&NOBODY)
    }
}

impl fmt::Debug for Identity {
    /// Leaves out the claims: they hold personal data, such as an email address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("subject", &self.subject)
            .field("role", &self.role)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The credential that a client sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// None, or a publishable key: the client is anonymous.
    Absent,
    /// A token to verify.
    Token(&'a str),
}

impl<'a> Credential<'a> {
    /// Parses the text of a query parameter or an `auth` frame.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let text = text.trim();
        if text.is_empty() || text.starts_with(PUBLISHABLE_KEY_PREFIX) {
            Self::Absent
        } else {
            Self::Token(text)
        }
    }

    /// Parses the value of an `Authorization` header. A scheme other than `Bearer` counts as no token.
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

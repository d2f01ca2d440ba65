//! Makes tokens for development: for the demo users of `usher dev`, and for `usher token`.
//!
//! In production, Supabase Auth issues the tokens. The gateway itself never calls this module.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    auth::{algorithm::Algorithm, signing::message},
    protocol::id::{SessionId, UserId},
};

/// The claims of a minted token, apart from its dates.
#[derive(Clone, Debug, Serialize)]
pub struct NewClaims {
    /// Claim `iss`, if the verifier expects one.
    #[serde(rename = "iss", skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Claim `sub`: the user's id, or the id of an overlay token. Absent for any other caller with the role `anon`.
    #[serde(rename = "sub", skip_serializing_if = "Option::is_none")]
    pub subject: Option<UserId>,
    /// Claim `aud`, absent for the role `anon`.
    #[serde(rename = "aud", skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Claim `role`. Any text, because tests mint tokens that the verifier must refuse.
    pub role: String,
    /// Claim `usher_overlay`: the one session that an overlay may watch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usher_overlay: Option<SessionId>,
    /// Claim `user_metadata`, if the user has a name. Pages show it; no decision depends on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<UserMetadata>,
}

/// A user's own description.
#[derive(Clone, Debug, Serialize)]
pub struct UserMetadata {
    /// The account's name.
    pub username: String,
    /// The name that pages show.
    pub display_name: Option<String>,
}

impl NewClaims {
    /// Returns the claims of a signed-in user.
    #[must_use]
    pub fn user(subject: UserId) -> Self {
        Self {
            issuer: None,
            subject: Some(subject),
            audience: Some("authenticated".to_owned()),
            role: "authenticated".to_owned(),
            usher_overlay: None,
            user_metadata: None,
        }
    }

    /// Returns the claims of an overlay, which may watch one session and do nothing else.
    #[must_use]
    pub fn overlay(token: UserId, session: SessionId) -> Self {
        Self {
            subject: Some(token),
            usher_overlay: Some(session),
            ..Self::anon()
        }
    }

    /// Returns the claims of Supabase's legacy anon key.
    #[must_use]
    pub fn anon() -> Self {
        Self {
            issuer: None,
            subject: None,
            audience: None,
            role: "anon".to_owned(),
            usher_overlay: None,
            user_metadata: None,
        }
    }
}

/// Signs `claims` with HS256. The token is valid from `issued_at` (seconds since 1970) for `ttl`.
#[must_use]
pub fn mint(secret: &SecretString, claims: &NewClaims, issued_at: u64, ttl: Duration) -> String {
    let message = message(Algorithm::Hs256, None, &payload(claims, issued_at, ttl));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Returns the payload of a token that is valid from `issued_at` (seconds since 1970) for `ttl`.
#[must_use]
pub fn payload(claims: &NewClaims, issued_at: u64, ttl: Duration) -> Map<String, Value> {
    let Ok(Value::Object(mut payload)) = serde_json::to_value(claims) else {
        unreachable!("claims are an object of plain values");
    };
    payload.insert("iat".to_owned(), issued_at.into());
    let expires_at = issued_at.saturating_add(ttl.as_secs());
    payload.insert("exp".to_owned(), expires_at.into());
    payload
}

#[cfg(test)]
mod tests {
    use crate::auth::{
        claims::TokenError,
        identity::Role,
        verifier::{Verifier, VerifierKeys},
    };

    use super::*;

    const NOW: u64 = 1_790_000_000;
    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_minted_token_is_verified() {
        let secret: SecretString = "a secret of at least thirty-two bytes".to_owned().into();
        let verifier = Verifier::new(VerifierKeys::from_secret(&secret));
        let user: UserId = "6f1d2c3b-0a49-4b5e-8c7d-1e2f3a4b5c6d".parse().unwrap();

        let token = mint(&secret, &NewClaims::user(user), NOW, HOUR);
        let identity = verifier.verify(&token, NOW + 3599).unwrap();
        assert_eq!(
            (identity.role, identity.subject),
            (Role::Authenticated, Some(user))
        );
        assert_eq!(
            verifier.verify(&token, NOW + 3605),
            Err(TokenError::Expired)
        );

        let token = mint(&secret, &NewClaims::anon(), NOW, HOUR);
        assert_eq!(verifier.verify(&token, NOW).unwrap().role, Role::Anon);
    }
}

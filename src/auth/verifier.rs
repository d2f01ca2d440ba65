//! Tells whether a token is one of this project's, and then who its bearer is.
//!
//! The signature comes first, so that nothing is said about the claims of a token that is not ours.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    auth::{
        claims::{self, TokenError},
        identity::Identity,
    },
    limits::ACCESS_TOKEN_BYTES_MAX,
};

/// A key that must stay on servers; a client that sends it has leaked it.
const SECRET_KEY_PREFIX: &str = "sb_secret_";

/// The keys that sign this project's tokens, and who must have issued them.
pub struct VerifierKeys {
    keys: Vec<Key>,
    issuer: Option<String>,
}

/// One key with the one algorithm it is for.
struct Key {
    algorithm: Algorithm,
    decoding: DecodingKey,
}

impl VerifierKeys {
    /// The project's shared secret, which signs with HS256.
    #[must_use]
    pub fn from_secret(secret: &SecretString) -> Self {
        Self {
            keys: vec![Key {
                algorithm: Algorithm::HS256,
                decoding: DecodingKey::from_secret(secret.expose_secret().as_bytes()),
            }],
            issuer: None,
        }
    }

    /// Expects tokens of signed-in users to be issued by `issuer`, such as `https://<ref>.supabase.co/auth/v1`.
    #[must_use]
    pub fn with_issuer(mut self, issuer: Option<String>) -> Self {
        self.issuer = issuer;
        self
    }

    fn accepted(&self) -> String {
        let mut names: Vec<_> = self
            .keys
            .iter()
            .map(|key| format!("{:?}", key.algorithm))
            .collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    }
}

impl fmt::Debug for VerifierKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifierKeys")
            .field("algorithms", &self.accepted())
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// Verifies tokens against one set of keys.
#[derive(Debug)]
pub struct Verifier {
    keys: VerifierKeys,
}

impl Verifier {
    /// Makes a verifier of these keys.
    #[must_use]
    pub fn new(keys: VerifierKeys) -> Self {
        Self { keys }
    }

    /// Tells who the bearer of `token` is at `now`, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// The first thing found wrong, in words that the bearer may read.
    pub fn verify(&self, token: &str, now: u64) -> Result<Identity, TokenError> {
        if token.len() > ACCESS_TOKEN_BYTES_MAX {
            return Err(TokenError::TooLarge);
        }
        if token.starts_with(SECRET_KEY_PREFIX) {
            return Err(TokenError::SecretKey);
        }
        let payload = self.verified_payload(token)?;
        claims::identity(payload, self.keys.issuer.as_deref(), now)
    }

    /// The payload's text, once some key of ours has signed it.
    fn verified_payload(&self, token: &str) -> Result<String, TokenError> {
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let header: Header =
            serde_json::from_str(&decode_part(header)?).map_err(|_| TokenError::Malformed)?;
        if header.crit.is_some() {
            // RFC 7515 §4.1.11: an extension that is critical and not understood makes the token invalid.
            return Err(TokenError::Malformed);
        }
        let mut candidates = self
            .keys
            .keys
            .iter()
            .filter(|key| header.alg == format!("{:?}", key.algorithm))
            .peekable();
        if candidates.peek().is_none() {
            return Err(TokenError::WrongAlgorithm {
                accepted: self.keys.accepted(),
            });
        }
        let is_signed = candidates.any(|key| {
            let message = message.as_bytes();
            jsonwebtoken::crypto::verify(signature, message, &key.decoding, key.algorithm)
                .unwrap_or(false)
        });
        if !is_signed {
            return Err(TokenError::BadSignature);
        }
        decode_part(payload)
    }
}

fn decode_part(part: &str) -> Result<String, TokenError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::Malformed)?;
    String::from_utf8(bytes).map_err(|_| TokenError::Malformed)
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    crit: Option<Value>,
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::EncodingKey;
    use proptest::prelude::*;
    use serde_json::json;

    use crate::auth::identity::Role;

    use super::*;

    const NOW: u64 = 1_790_000_000;
    const USER: &str = "6f1d2c3b-0a49-4b5e-8c7d-1e2f3a4b5c6d";
    const ISSUER: &str = "https://abc.supabase.co/auth/v1";

    #[test]
    fn a_user_is_who_the_claims_say() {
        let payload = good().to_string();
        let identity = verify(&signed(&payload)).unwrap();
        assert_eq!(identity.role, Role::Authenticated);
        assert_eq!(identity.subject, Some(USER.parse().unwrap()));
        assert_eq!(identity.expires_at, Some(NOW + 3600));
        assert_eq!(&*identity.claims, payload);
    }

    #[test]
    fn the_issuer_is_not_checked_where_none_is_configured() {
        let mut claims = good();
        claims["iss"] = json!("https://other.example");
        let verifier = Verifier::new(VerifierKeys::from_secret(&secret()));
        assert!(verifier.verify(&signed(&claims.to_string()), NOW).is_ok());
    }

    #[test]
    fn the_header_cannot_choose_the_algorithm() {
        for alg in ["none", "None", "RS256", "ES256", "HS384", "HS512", "hs256"] {
            let token = signed_with_header(&json!({"alg": alg, "typ": "JWT"}), &good().to_string());
            let error = verify(&token).unwrap_err();
            assert_eq!(
                error,
                TokenError::WrongAlgorithm {
                    accepted: "HS256".into()
                },
                "{alg}"
            );
        }
    }

    #[test]
    fn an_unsigned_token_is_refused() {
        let token = signed(&good().to_string());
        let (message, _) = token.rsplit_once('.').unwrap();
        assert_eq!(
            verify(&format!("{message}.")),
            Err(TokenError::BadSignature)
        );
        assert_eq!(verify(message), Err(TokenError::Malformed));
    }

    #[test]
    fn an_altered_payload_is_refused_before_it_is_read() {
        let token = signed(&good().to_string());
        let parts: Vec<_> = token.split('.').collect();
        let forged = URL_SAFE_NO_PAD.encode(json!({"role": "service_role"}).to_string());
        let forged = format!("{}.{forged}.{}", parts[0], parts[2]);
        assert_eq!(verify(&forged), Err(TokenError::BadSignature));
    }

    #[test]
    fn critical_extensions_are_refused() {
        let header = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
        let token = signed_with_header(&header, &good().to_string());
        assert_eq!(verify(&token), Err(TokenError::Malformed));
    }

    #[test]
    fn what_is_not_a_token_is_refused() {
        let huge = "x".repeat(ACCESS_TOKEN_BYTES_MAX + 1);
        assert_eq!(verify(&huge), Err(TokenError::TooLarge));
        assert_eq!(verify("sb_secret_abc"), Err(TokenError::SecretKey));
        for garbage in [
            "", ".", "..", "...", "a.b.c", "eyJ.eyJ.", "\u{0}", "a.b.c.d", "é.é.é",
        ] {
            assert_eq!(verify(garbage), Err(TokenError::Malformed), "{garbage:?}");
        }
        assert_eq!(verify(&signed("[]")), Err(TokenError::Malformed));
        assert_eq!(verify(&signed("{")), Err(TokenError::Malformed));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_and_never_panics(text in "\\PC{0,200}", now: u64) {
            prop_assert!(verifier().verify(&text, now).is_err());
        }

        #[test]
        fn signed_garbage_is_refused_and_never_panics(payload in ".{0,200}", now: u64) {
            prop_assert!(verifier().verify(&signed(&payload), now).is_err());
        }
    }

    fn good() -> Value {
        json!({
            "iss": ISSUER, "sub": USER, "aud": "authenticated", "role": "authenticated",
            "iat": NOW - 10, "exp": NOW + 3600, "email": "a@example.org",
        })
    }

    fn secret() -> SecretString {
        "a secret of at least thirty-two bytes".to_owned().into()
    }

    fn verifier() -> Verifier {
        Verifier::new(VerifierKeys::from_secret(&secret()).with_issuer(Some(ISSUER.to_owned())))
    }

    fn verify(token: &str) -> Result<Identity, TokenError> {
        verifier().verify(token, NOW)
    }

    fn signed(payload: &str) -> String {
        signed_with_header(&json!({"alg": "HS256", "typ": "JWT"}), payload)
    }

    /// Always signs with HS256 and the secret, whatever the header says.
    fn signed_with_header(header: &Value, payload: &str) -> String {
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
        let key = EncodingKey::from_secret(secret().expose_secret().as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
        format!("{message}.{}", signature.unwrap())
    }
}

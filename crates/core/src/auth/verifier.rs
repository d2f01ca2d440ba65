//! Verifies a token's signature, then its claims, and returns the caller's identity.
//!
//! The signature is checked first, so that no error describes the claims of a foreign token. Each key has
//! its algorithm; the header may only name one that some key has. Keys, certificates and key URLs in the
//! header are ignored.

use std::{borrow::Cow, fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, crypto};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    auth::{
        algorithm::Algorithm,
        claims::{self, TokenError},
        identity::Identity,
        key_set::KeySet,
    },
    limits::{ACCESS_TOKEN_BYTES_MAX, KEY_ID_BYTES_MAX},
};

/// The prefix of Supabase's secret keys, which must stay on servers. A client that sends one has leaked it.
const SECRET_KEY_PREFIX: &str = "sb_secret_";

/// The keys that sign this project's tokens, and the accepted issuers.
#[derive(Clone, Default)]
pub struct VerifierKeys {
    secret: Option<DecodingKey>,
    published: Option<Arc<KeySet>>,
    issuers: Vec<String>,
}

impl VerifierKeys {
    /// Creates keys with the project's shared secret, which signs with HS256.
    #[must_use]
    pub fn from_secret(secret: &SecretString) -> Self {
        let secret = secret.expose_secret().as_bytes();
        Self {
            secret: Some(DecodingKey::from_secret(secret)),
            ..Self::default()
        }
    }

    /// Adds the keys that the project publishes.
    #[must_use]
    pub fn with_published(mut self, set: Arc<KeySet>) -> Self {
        self.published = Some(set);
        self
    }

    /// Accepts tokens of signed-in users only from these issuers, such as `https://<ref>.supabase.co/auth/v1`. Without
    /// issuers, any issuer is accepted.
    #[must_use]
    pub fn with_issuers(mut self, issuers: Vec<String>) -> Self {
        self.issuers = issuers;
        self
    }

    /// Whether there is a shared secret.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    fn accepted(&self) -> String {
        let secret = self.secret.as_ref().map(|_| "HS256");
        let published = self.published.as_ref().map(|_| "ES256, RS256 or EdDSA");
        let names: Vec<_> = published.into_iter().chain(secret).collect();
        names.join(" or ")
    }
}

impl fmt::Debug for VerifierKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifierKeys")
            .field("has_secret", &self.secret.is_some())
            .field("published", &self.published)
            .field("issuers", &self.issuers)
            .finish_non_exhaustive()
    }
}

/// Verifies tokens with one set of keys.
#[derive(Debug)]
pub struct Verifier {
    keys: VerifierKeys,
}

impl Verifier {
    /// Creates a verifier with these keys.
    #[must_use]
    pub fn new(keys: VerifierKeys) -> Self {
        Self { keys }
    }

    /// Returns the identity of the token's bearer at `now`, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// The first flaw found, in words that the bearer may read.
    pub fn verify(&self, token: &str, now: u64) -> Result<Identity, TokenError> {
        if token.len() > ACCESS_TOKEN_BYTES_MAX {
            return Err(TokenError::TooLarge);
        }
        if token.starts_with(SECRET_KEY_PREFIX) {
            return Err(TokenError::SecretKey);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        self.check_signature(&decode_text(header)?, message, signature)?;
        claims::identity(decode_text(payload)?, &self.keys.issuers, now)
    }

    /// Checks that one of the keys made the signature. If the header names a key, only that key counts.
    fn check_signature(
        &self,
        header: &str,
        message: &str,
        signature: &str,
    ) -> Result<(), TokenError> {
        let header = TokenHeader::parse(header)?;
        let name = header.kid.as_deref();
        let algorithm = Algorithm::parse(&header.alg).ok_or_else(|| self.wrong_algorithm())?;
        let published = self.keys.published.as_deref();
        let is_published = name.is_some_and(|name| published.is_some_and(|set| set.has(name)));
        let is_signed = match algorithm {
            // Supabase names its shared secret only in a token's header. A name that no published key has is
            // therefore the secret's.
            Algorithm::Hs256 if !is_published => {
                let secret = self.keys.secret.as_ref();
                secret.map(|key| {
                    let message = message.as_bytes();
                    crypto::verify(signature, message, key, algorithm.into()).unwrap_or(false)
                })
            }
            Algorithm::Hs256 => None,
            Algorithm::Es256 | Algorithm::EdDsa | Algorithm::Rs256 => {
                let set = published.ok_or_else(|| self.wrong_algorithm())?;
                let is_signed = set.has_signed(algorithm, name, message.as_bytes(), signature);
                if is_signed.is_none() && !is_published {
                    return Err(TokenError::UnknownKey);
                }
                is_signed
            }
        };
        match is_signed {
            Some(true) => Ok(()),
            Some(false) => Err(TokenError::BadSignature),
            None => Err(self.wrong_algorithm()),
        }
    }

    fn wrong_algorithm(&self) -> TokenError {
        TokenError::WrongAlgorithm {
            accepted: self.keys.accepted(),
        }
    }
}

fn decode_text(part: &str) -> Result<String, TokenError> {
    if part.is_empty() {
        return Err(TokenError::Malformed);
    }
    let bytes = URL_SAFE_NO_PAD.decode(part);
    let bytes = bytes.map_err(|_| TokenError::Malformed)?;
    String::from_utf8(bytes).map_err(|_| TokenError::Malformed)
}

/// The header's fields that are read. All others are ignored.
#[derive(Deserialize)]
struct TokenHeader<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    crit: Option<IgnoredAny>,
}

impl<'a> TokenHeader<'a> {
    fn parse(text: &'a str) -> Result<Self, TokenError> {
        let wrong = |problem| TokenError::Header { problem };
        // Serde would also accept a list of the fields in order.
        if !text.trim_start().starts_with('{') {
            return Err(wrong("is not a JSON object"));
        }
        let header: Self = serde_json::from_str(text).map_err(|_| {
            wrong(
                "must be a JSON object with an alg; the names of algorithm and key must be strings",
            )
        })?;
        if header.crit.is_some() {
            // RFC 7515 §4.1.11: an unsupported critical extension makes the token invalid.
            return Err(wrong("requires an extension (crit) that is not supported"));
        }
        let is_long = |kid: &Cow<'_, str>| kid.len() > KEY_ID_BYTES_MAX;
        if header.kid.as_ref().is_some_and(is_long) {
            return Err(wrong("names a key whose id is too long"));
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hmac;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use crate::auth::{
        identity::Role,
        test_keys::{TestKey, encode, key_set},
    };

    use super::*;

    const NOW: u64 = 1_790_000_000;
    const USER: &str = "6f1d2c3b-0a49-4b5e-8c7d-1e2f3a4b5c6d";
    const ISSUER: &str = "https://abc.supabase.co/auth/v1";

    #[test]
    fn a_users_identity_comes_from_the_claims() {
        let payload = good().to_string();
        let identity = verify(&signed(&payload)).unwrap();
        assert_eq!(identity.role, Role::Authenticated);
        assert_eq!(identity.subject, Some(USER.parse().unwrap()));
        assert_eq!(identity.expires_at, Some(NOW + 3600));
        assert_eq!(&*identity.claims, payload);
    }

    #[test]
    fn the_issuer_is_not_checked_if_none_is_configured() {
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
    fn a_published_key_verifies_what_it_signed() {
        for key in [
            TestKey::es256("a"),
            TestKey::ed25519("a"),
            TestKey::rs256("a"),
        ] {
            let token = key.sign(&good());
            let other = TestKey::es256("b");
            let verifier = published(&[&other, &key]);
            assert_eq!(
                verifier.verify(&token, NOW).unwrap().role,
                Role::Authenticated
            );
            // The shared secret continues to work beside it.
            verifier.verify(&signed(&good().to_string()), NOW).unwrap();
            let (message, _) = token.rsplit_once('.').unwrap();
            for signature in ["", "AAAA", &encode(&[0; 64]), &encode(&[0xff; 256])] {
                let forged = verifier.verify(&format!("{message}.{signature}"), NOW);
                assert_eq!(forged, Err(TokenError::BadSignature));
            }
        }
    }

    #[test]
    fn only_the_key_that_the_header_names_counts() {
        let (a, b) = (TestKey::es256("a"), TestKey::es256("b"));
        let verifier = published(&[&a, &b]);
        let verify = |header: Value| {
            let token = b.sign_with_header(&header.to_string(), &good());
            verifier.verify(&token, NOW).map(|_| ())
        };
        assert_eq!(verify(json!({"alg": "ES256", "kid": "b"})), Ok(()));
        assert_eq!(verify(json!({"alg": "ES256"})), Ok(()));
        let of_another = verify(json!({"alg": "ES256", "kid": "a"}));
        assert_eq!(of_another, Err(TokenError::BadSignature));
        for unknown in [
            "",
            "A",
            "a ",
            "../a",
            "a/../b",
            "a\u{0}",
            "' or 1=1 --",
            "https://evil.example/b",
        ] {
            let answer = verify(json!({"alg": "ES256", "kid": unknown}));
            assert_eq!(answer, Err(TokenError::UnknownKey), "{unknown}");
        }
        for wrong in [
            json!(7),
            json!(["b"]),
            json!({"kid": "b"}),
            json!("k".repeat(257)),
        ] {
            let answer = verify(json!({"alg": "ES256", "kid": wrong}));
            assert!(matches!(answer, Err(TokenError::Header { .. })), "{wrong}");
        }
        // The named key exists, but for another algorithm.
        for alg in ["RS256", "HS256", "EdDSA"] {
            let answer = verify(json!({"alg": alg, "kid": "b"}));
            assert!(
                matches!(answer, Err(TokenError::WrongAlgorithm { .. })),
                "{alg}: {answer:?}"
            );
        }
        let nothing_known = Verifier::new(VerifierKeys::from_secret(&secret()));
        let answer = nothing_known.verify(&b.sign(&good()), NOW);
        assert!(
            matches!(answer, Err(TokenError::WrongAlgorithm { .. })),
            "{answer:?}"
        );
    }

    #[test]
    fn the_secret_may_have_a_name_that_no_published_key_has() {
        let header = json!({"alg": "HS256", "typ": "JWT", "kid": "Zk3n+0aGUUiw"});
        let token = signed_with_header(&header, &good().to_string());
        verify(&token).unwrap();
        published(&[&TestKey::es256("a")])
            .verify(&token, NOW)
            .unwrap();
    }

    #[test]
    fn a_public_key_is_no_secret() {
        let key = TestKey::rs256("a");
        let text = key_set(&[&key]);
        let (jwk, n) = (
            key.public().to_string(),
            key.private["n"].as_str().unwrap().to_owned(),
        );
        for verifier in [
            published(&[&key]),
            Verifier::new(VerifierKeys::default().with_published(set(&[&key]))),
        ] {
            for guess in [
                text.as_bytes(),
                jwk.as_bytes(),
                n.as_bytes(),
                &URL_SAFE_NO_PAD.decode(&n).unwrap(),
                b"",
            ] {
                for header in [json!({"alg": "HS256", "kid": "a"}), json!({"alg": "HS256"})] {
                    let message = format!(
                        "{}.{}",
                        encode(header.to_string().as_bytes()),
                        encode(good().to_string().as_bytes())
                    );
                    let guess = hmac::Key::new(hmac::HMAC_SHA256, guess);
                    let signature = hmac::sign(&guess, message.as_bytes());
                    let token = format!("{message}.{}", encode(signature.as_ref()));
                    assert!(verifier.verify(&token, NOW).is_err(), "{header}");
                }
            }
        }
    }

    #[test]
    fn keys_in_a_token_are_ignored() {
        let (ours, theirs) = (TestKey::es256("a"), TestKey::es256("a"));
        let verifier = published(&[&ours]);
        for field in ["jwk", "jku", "x5u", "x5c", "x5t"] {
            let mut header = json!({"alg": "ES256", "kid": "a"});
            header[field] = match field {
                "jwk" => theirs.public(),
                _ => json!("https://evil.example/keys.json"),
            };
            let token = theirs.sign_with_header(&header.to_string(), &good());
            assert_eq!(
                verifier.verify(&token, NOW),
                Err(TokenError::BadSignature),
                "{field}"
            );
            let token = ours.sign_with_header(&header.to_string(), &good());
            verifier.verify(&token, NOW).unwrap();
        }
    }

    #[test]
    fn a_header_that_two_parsers_would_read_differently_is_refused() {
        let key = TestKey::es256("a");
        let verifier = published(&[&key]);
        for header in [
            r#"{"alg":"none","alg":"ES256","kid":"a"}"#,
            r#"{"alg":"ES256","\u0061lg":"none","kid":"a"}"#,
            r#"{"alg":"ES256","kid":"a","kid":"b"}"#,
            r#"["ES256","a",null]"#,
            r#"{"alg":["ES256"],"kid":"a"}"#,
            r#"{"alg":"ES256","kid":"a"} {}"#,
            r#"{"alg":"ES256","kid":"a","crit":[]}"#,
            r#"{"kid":"a"}"#,
            "null",
        ] {
            let token = key.sign_with_header(header, &good());
            let error = verifier.verify(&token, NOW).unwrap_err().to_string();
            assert!(error.starts_with("token header "), "{header}: {error}");
        }
    }

    #[test]
    fn critical_extensions_are_refused() {
        let header = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
        let token = signed_with_header(&header, &good().to_string());
        let problem = "requires an extension (crit) that is not supported";
        assert_eq!(verify(&token), Err(TokenError::Header { problem }));
    }

    #[test]
    fn a_text_that_is_not_a_token_is_refused() {
        let huge = "x".repeat(ACCESS_TOKEN_BYTES_MAX + 1);
        assert_eq!(verify(&huge), Err(TokenError::TooLarge));
        assert_eq!(verify("sb_secret_abc"), Err(TokenError::SecretKey));
        for garbage in ["", ".", "..", "...", "a.b.c", "\u{0}", "a.b.c.d", "é.é.é"] {
            assert_eq!(verify(garbage), Err(TokenError::Malformed), "{garbage:?}");
        }
        assert_eq!(verify(&signed("[]")), Err(TokenError::Payload));
        assert_eq!(verify(&signed("{")), Err(TokenError::Payload));
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
        Verifier::new(VerifierKeys::from_secret(&secret()).with_issuers(vec![ISSUER.to_owned()]))
    }

    /// Returns a verifier with the shared secret and these published keys.
    fn published(keys: &[&TestKey]) -> Verifier {
        Verifier::new(VerifierKeys::from_secret(&secret()).with_published(set(keys)))
    }

    fn set(keys: &[&TestKey]) -> Arc<KeySet> {
        Arc::new(KeySet::parse(&key_set(keys)).unwrap())
    }

    fn verify(token: &str) -> Result<Identity, TokenError> {
        verifier().verify(token, NOW)
    }

    fn signed(payload: &str) -> String {
        signed_with_header(&json!({"alg": "HS256", "typ": "JWT"}), payload)
    }

    /// Signs with HS256 and the secret, whatever the header says.
    fn signed_with_header(header: &Value, payload: &str) -> String {
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret().expose_secret().as_bytes());
        let signature = hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

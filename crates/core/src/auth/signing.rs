//! Signing keys, for development and tests like `auth::mint`.

use aws_lc_rs::{
    hmac,
    rand::SecureRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::{Value, json};

use crate::auth::{
    algorithm::Algorithm,
    jwk::{Jwk, UnusableKey, number},
};

/// A key that signs tokens.
pub struct SigningKey {
    name: Option<Box<str>>,
    pair: KeyPair,
}

enum KeyPair {
    Secret(Box<hmac::Key>),
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(RsaKeyPair),
}

impl SigningKey {
    /// Creates a key from the project's shared secret, which signs with HS256.
    #[must_use]
    pub fn from_secret(secret: &SecretString) -> Self {
        let secret = secret.expose_secret().as_bytes();
        Self {
            name: None,
            pair: KeyPair::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret))),
        }
    }

    /// Reads a private JSON Web Key, or the first one of a list or a key set. `supabase gen signing-key` prints one.
    ///
    /// # Errors
    ///
    /// The text is not a JSON Web Key, or the key cannot sign.
    pub fn from_jwk(text: &str) -> Result<Self, UnusableKey> {
        let mut jwk: Value = serde_json::from_str(text).map_err(|_| UnusableKey::NotAKey)?;
        if let Some(keys) = jwk.get_mut("keys") {
            jwk = keys.take();
        }
        if let Some(first) = jwk.get_mut(0) {
            jwk = first.take();
        }
        let jwk: Jwk = serde_json::from_value(jwk).map_err(|_| UnusableKey::NotAKey)?;
        let algorithm = jwk.algorithm("sign")?;
        if jwk.d.is_none() {
            return Err(UnusableKey::NotPrivate);
        }
        let d = number(jwk.d.as_deref())?;
        let pair = match algorithm {
            Algorithm::Hs256 => return Err(UnusableKey::Symmetric),
            Algorithm::Es256 => {
                let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
                EcdsaKeyPair::from_private_key_and_public_key(curve, &d, &jwk.point()?)
                    .map(KeyPair::Es256)
            }
            Algorithm::EdDsa => {
                Ed25519KeyPair::from_seed_and_public_key(&d, &number(jwk.x.as_deref())?)
                    .map(KeyPair::EdDsa)
            }
            Algorithm::Rs256 => {
                let (n, e) = (number(jwk.n.as_deref())?, number(jwk.e.as_deref())?);
                let components = rsa::KeyPairComponents {
                    public_key: rsa::PublicKeyComponents { n, e },
                    d,
                    p: number(jwk.p.as_deref())?,
                    q: number(jwk.q.as_deref())?,
                    dP: number(jwk.dp.as_deref())?,
                    dQ: number(jwk.dq.as_deref())?,
                    qInv: number(jwk.qi.as_deref())?,
                };
                RsaKeyPair::from_components(&components).map(KeyPair::Rs256)
            }
        };
        Ok(Self {
            pair: pair.map_err(|_| UnusableKey::Broken)?,
            name: jwk.kid,
        })
    }

    /// Signs a token with this payload. ECDSA and RSA need the randomness.
    #[must_use]
    pub fn sign(&self, payload: &impl Serialize, random: &dyn SecureRandom) -> String {
        let message = message(self.algorithm(), self.name.as_deref(), payload);
        let signature = self.signature(message.as_bytes(), random);
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Signs a message.
    #[must_use]
    pub fn signature(&self, message: &[u8], random: &dyn SecureRandom) -> Vec<u8> {
        match &self.pair {
            KeyPair::Secret(key) => hmac::sign(key, message).as_ref().to_vec(),
            KeyPair::Es256(pair) => {
                let signature = pair.sign(random, message);
                let signature = signature.expect("a parsed key can sign");
                signature.as_ref().to_vec()
            }
            KeyPair::EdDsa(pair) => pair.sign(message).as_ref().to_vec(),
            KeyPair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, random, message, &mut signature)
                    .expect("a parsed key can sign");
                signature
            }
        }
    }

    fn algorithm(&self) -> Algorithm {
        match &self.pair {
            KeyPair::Secret(_) => Algorithm::Hs256,
            KeyPair::Es256(_) => Algorithm::Es256,
            KeyPair::EdDsa(_) => Algorithm::EdDsa,
            KeyPair::Rs256(_) => Algorithm::Rs256,
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("name", &self.name)
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

/// Returns the header and payload of a token: the message that its signature covers.
pub(crate) fn message(
    algorithm: Algorithm,
    name: Option<&str>,
    payload: &impl Serialize,
) -> String {
    let mut header = json!({"alg": algorithm.as_str(), "typ": "JWT"});
    if let Some(name) = name {
        header["kid"] = name.into();
    }
    let payload = serde_json::to_vec(payload).expect("claims are plain values");
    format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(payload)
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aws_lc_rs::rand::SystemRandom;
    use jsonwebtoken::{DecodingKey, Validation, jwk};

    use crate::auth::{
        key_set::KeySet,
        test_keys::{TestKey, key_set},
        verifier::{Verifier, VerifierKeys},
    };

    use super::*;

    #[test]
    fn a_signed_token_is_verified_by_us_and_by_another_library() {
        for (key, algorithm) in [
            (TestKey::es256("a"), jsonwebtoken::Algorithm::ES256),
            (TestKey::ed25519("b"), jsonwebtoken::Algorithm::EdDSA),
            (TestKey::rs256("c"), jsonwebtoken::Algorithm::RS256),
        ] {
            let token = key.sign(&json!({"role": "anon", "exp": 4_000_000_000_u64}));
            let published = Arc::new(KeySet::parse(&key_set(&[&key])).unwrap());
            let verifier = Verifier::new(VerifierKeys::default().with_published(published));
            verifier.verify(&token, 1_790_000_000).unwrap();

            let jwk: jwk::Jwk = serde_json::from_value(key.public()).unwrap();
            let other = DecodingKey::from_jwk(&jwk).unwrap();
            let header = jsonwebtoken::decode_header(&token).unwrap();
            assert_eq!(header.kid.as_deref(), key.private["kid"].as_str());
            jsonwebtoken::decode::<Value>(&token, &other, &Validation::new(algorithm)).unwrap();
        }
    }

    #[test]
    fn a_list_or_a_set_gives_its_first_key() {
        let key = TestKey::ed25519("first").private;
        let other = TestKey::ed25519("second").private;
        for text in [
            key.to_string(),
            json!([key, other]).to_string(),
            json!({"keys": [key, other]}).to_string(),
        ] {
            let signing = SigningKey::from_jwk(&text).unwrap();
            assert_eq!(signing.name.as_deref(), Some("first"));
            let token = signing.sign(&json!({}), &SystemRandom::new());
            assert_eq!(token.split('.').count(), 3);
        }
    }

    #[test]
    fn an_unusable_key_is_refused_with_the_reason() {
        let key = TestKey::es256("a");
        let broken = |field: &str, value: Value| {
            let mut jwk = key.private.clone();
            jwk[field] = value;
            jwk
        };
        for (jwk, why) in [
            (json!("nonsense"), UnusableKey::NotAKey),
            (json!([]), UnusableKey::NotAKey),
            (key.public(), UnusableKey::OtherUse),
            (broken("d", Value::Null), UnusableKey::NotPrivate),
            (
                broken("d", TestKey::es256("b").private["d"].clone()),
                UnusableKey::Broken,
            ),
            (broken("use", json!("enc")), UnusableKey::OtherUse),
            (
                json!({"kty": "oct", "k": "c2VjcmV0"}),
                UnusableKey::Symmetric,
            ),
        ] {
            assert_eq!(
                SigningKey::from_jwk(&jwk.to_string()).unwrap_err(),
                why,
                "{jwk}"
            );
        }
    }
}

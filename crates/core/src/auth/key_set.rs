//! The public keys of a key server that the gateway can use.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
use jsonwebtoken::{DecodingKey, crypto};
use serde_json::{Map, Value};

use crate::{
    auth::{
        algorithm::Algorithm,
        jwk::{Jwk, UnusableKey, number},
    },
    limits::{KEY_ID_BYTES_MAX, RSA_BITS, SIGNING_KEYS_MAX},
};

/// A key server's response is not a key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a JSON Web Key Set, an object with a list `keys`")]
pub struct NotAKeySet;

/// Public keys. Each has one algorithm, and most have a name.
#[derive(Default)]
pub struct KeySet {
    keys: Vec<PublicKey>,
    skipped: Vec<SkippedKey>,
}

/// A published key that the gateway cannot use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedKey {
    /// The key's index in the list, from zero.
    pub place: usize,
    /// The key's `kid`, if it has one that is short enough to show.
    pub name: Option<String>,
    /// The reason why it cannot be used.
    pub why: UnusableKey,
}

struct PublicKey {
    name: Option<Box<str>>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl KeySet {
    /// Reads a key set (RFC 7517 §5). Skips keys that the gateway cannot use, as the RFC asks, so that one such key
    /// does not disable the others.
    ///
    /// # Errors
    ///
    /// The text is not a key set.
    pub fn parse(text: &str) -> Result<Self, NotAKeySet> {
        // Not parsed into a struct, because serde would also accept an array for it.
        let mut document: Map<String, Value> =
            serde_json::from_str(text).map_err(|_| NotAKeySet)?;
        let Some(Value::Array(keys)) = document.remove("keys") else {
            return Err(NotAKeySet);
        };
        let mut set = Self::default();
        for (place, jwk) in keys.into_iter().enumerate() {
            let name = jwk["kid"]
                .as_str()
                .filter(|name| name.len() <= KEY_ID_BYTES_MAX);
            let name = name.map(str::to_owned);
            let key = if set.keys.len() < SIGNING_KEYS_MAX {
                PublicKey::read(jwk)
            } else {
                Err(UnusableKey::TooMany)
            };
            match key {
                Ok(key) => set.keys.push(key),
                Err(why) => set.skipped.push(SkippedKey { place, name, why }),
            }
        }
        Ok(set)
    }

    /// Returns the number of usable keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key is usable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the published keys that the gateway cannot use.
    #[must_use]
    pub fn skipped(&self) -> &[SkippedKey] {
        &self.skipped
    }

    /// Whether a usable key has this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.keys
            .iter()
            .any(|key| key.name.as_deref() == Some(name))
    }

    /// Whether one of the keys for `algorithm` made the signature. With a name, only the key with this name counts.
    /// Returns `None` if there is no such key.
    pub(crate) fn has_signed(
        &self,
        algorithm: Algorithm,
        name: Option<&str>,
        message: &[u8],
        signature: &str,
    ) -> Option<bool> {
        let mut keys = self
            .keys
            .iter()
            .filter(|key| key.algorithm == algorithm)
            .filter(|key| name.is_none() || key.name.as_deref() == name)
            .peekable();
        keys.peek()?;
        let has_signed = |key: &PublicKey| {
            crypto::verify(signature, message, &key.key, algorithm.into()).unwrap_or(false)
        };
        Some(keys.any(has_signed))
    }
}

impl PublicKey {
    fn read(jwk: Value) -> Result<Self, UnusableKey> {
        if !jwk.is_object() {
            return Err(UnusableKey::NotAKey);
        }
        let jwk: Jwk = serde_json::from_value(jwk).map_err(|_| UnusableKey::NotAKey)?;
        let algorithm = jwk.algorithm("verify")?;
        if jwk.d.is_some() {
            return Err(UnusableKey::Leaked);
        }
        // Parsed once here to reject an invalid key early. The library parses it again for each token.
        let (parsed, key) = match algorithm {
            Algorithm::Hs256 => return Err(UnusableKey::Symmetric),
            Algorithm::Es256 => {
                let point = jwk.point()?;
                let key = DecodingKey::from_ec_der(&point);
                (ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point), key)
            }
            Algorithm::EdDsa => {
                let x = number(jwk.x.as_deref())?;
                let key = DecodingKey::from_ed_der(&x);
                (ParsedPublicKey::new(&ED25519, x), key)
            }
            Algorithm::Rs256 => {
                let (n, e) = (number(jwk.n.as_deref())?, number(jwk.e.as_deref())?);
                if !RSA_BITS.contains(&bits(&n)) {
                    return Err(UnusableKey::OtherSize);
                }
                let key = DecodingKey::from_rsa_raw_components(&n, &e);
                let components = RsaPublicKeyComponents { n, e };
                (
                    components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256),
                    key,
                )
            }
        };
        parsed.map_err(|_| UnusableKey::Broken)?;
        Ok(Self {
            key,
            name: jwk.kid,
            algorithm,
        })
    }
}

/// Returns the number of bits of a big-endian number.
fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let first = number
        .get(zeros)
        .map_or(0, |byte| byte.leading_zeros() as usize);
    8 * (number.len() - zeros) - first
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.iter().map(|key| (key.algorithm, &key.name));
        f.debug_list().entries(keys).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::auth::test_keys::{TestKey, encode, key_set};

    use super::*;

    #[test]
    fn usable_keys_are_read() {
        let keys = [
            TestKey::es256("a"),
            TestKey::ed25519("b"),
            TestKey::rs256("c"),
        ];
        let set = KeySet::parse(&key_set(&keys.each_ref())).unwrap();
        assert_eq!((set.len(), set.skipped().len()), (3, 0));
        assert!(set.has("a") && set.has("c") && !set.has("d"));
        // Most fields may be absent: the kind of key determines its algorithm.
        let mut bare = keys[0].public();
        for field in ["alg", "use", "key_ops", "kid"] {
            bare.as_object_mut().unwrap().remove(field);
        }
        assert_eq!(why(bare), None);
    }

    #[test]
    fn an_unusable_key_is_skipped_and_the_others_stay() {
        let [ec, ed, rsa] = [
            TestKey::es256("a"),
            TestKey::ed25519("b"),
            TestKey::rs256("c"),
        ];
        let with = |key: &TestKey, field: &str, value: Value| {
            let mut jwk = key.public();
            jwk[field] = value;
            jwk
        };
        let off_the_curve = encode(&[1; 32]);
        for (jwk, expected) in [
            (json!("nonsense"), UnusableKey::NotAKey),
            (json!({"kid": "a"}), UnusableKey::NotAKey),
            (with(&ec, "kid", json!(7)), UnusableKey::NotAKey),
            (
                json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}),
                UnusableKey::Symmetric,
            ),
            (
                json!({"kty": "oct", "k": "c2VjcmV0", "alg": "RS256"}),
                UnusableKey::Symmetric,
            ),
            (with(&ec, "kty", json!("EC2")), UnusableKey::OtherKind),
            (with(&ec, "crv", json!("P-384")), UnusableKey::OtherKind),
            (with(&ed, "crv", json!("X25519")), UnusableKey::OtherKind),
            (
                with(&ec, "alg", json!("HS256")),
                UnusableKey::OtherAlgorithm,
            ),
            (with(&ec, "alg", json!("none")), UnusableKey::OtherAlgorithm),
            (
                with(&rsa, "alg", json!("PS256")),
                UnusableKey::OtherAlgorithm,
            ),
            (with(&rsa, "use", json!("enc")), UnusableKey::OtherUse),
            (
                with(&rsa, "key_ops", json!(["encrypt"])),
                UnusableKey::OtherUse,
            ),
            (
                with(&ec, "kid", json!("k".repeat(257))),
                UnusableKey::LongName,
            ),
            (
                with(&rsa, "n", json!(encode(&[0xff; 255]))),
                UnusableKey::OtherSize,
            ),
            (
                with(&rsa, "n", json!(encode(&[0x7f; 256]))),
                UnusableKey::OtherSize,
            ),
            (
                with(&rsa, "n", json!(encode(&[0xff; 2_000]))),
                UnusableKey::OtherSize,
            ),
            (with(&rsa, "e", json!("AA")), UnusableKey::Broken),
            (with(&ec, "x", json!(off_the_curve)), UnusableKey::Broken),
            (with(&ec, "y", json!("AA")), UnusableKey::Broken),
            (with(&ed, "x", json!("AA")), UnusableKey::Broken),
            (with(&ed, "x", json!("?")), UnusableKey::Broken),
            (with(&ec, "d", ec.private["d"].clone()), UnusableKey::Leaked),
        ] {
            assert_eq!(why(jwk.clone()), Some(expected), "{jwk}");
            let set = json!({"keys": [jwk, ec.public()]}).to_string();
            let set = KeySet::parse(&set).unwrap();
            assert_eq!((set.len(), set.skipped()[0].place), (1, 0));
        }
    }

    #[test]
    fn the_keys_of_a_set_are_bounded() {
        let key = TestKey::ed25519("a").public();
        let keys = vec![key; SIGNING_KEYS_MAX + 2];
        let set = KeySet::parse(&json!({ "keys": keys }).to_string()).unwrap();
        assert_eq!((set.len(), set.skipped().len()), (SIGNING_KEYS_MAX, 2));
        assert_eq!(set.skipped()[0].why, UnusableKey::TooMany);
    }

    #[test]
    fn a_text_that_is_not_a_key_set_is_refused() {
        for text in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"keys":{}}"#,
            "<html>",
            r#"{"keys":[]"#,
        ] {
            assert!(KeySet::parse(text).is_err(), "{text}");
        }
        assert!(KeySet::parse(r#"{"keys":[]}"#).unwrap().is_empty());
    }

    fn why(jwk: Value) -> Option<UnusableKey> {
        let set = KeySet::parse(&json!({ "keys": [jwk] }).to_string()).unwrap();
        set.skipped().first().map(|skipped| skipped.why)
    }
}

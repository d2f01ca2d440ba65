//! Signing keys for tests. The unit tests of `auth` and the token benchmark use them, too.

use aws_lc_rs::encoding::{
    AsBigEndian as _, AsDer as _, Curve25519SeedBin, EcPrivateKeyBin, Pkcs8V1Der,
};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use usher_core::auth::signing::SigningKey;

/// A key pair for one algorithm.
pub(crate) struct TestKey {
    /// The private key as a JWK.
    pub(crate) private: Value,
}

impl TestKey {
    pub(crate) fn es256(name: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let d: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        Self::new(json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": name,
            "x": encode(x), "y": encode(y), "d": encode(d.as_ref()),
        }))
    }

    pub(crate) fn ed25519(name: &str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let d: Curve25519SeedBin<'_> = pair.seed().unwrap().as_be_bytes().unwrap();
        Self::new(json!({
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": name,
            "x": encode(pair.public_key().as_ref()), "d": encode(d.as_ref()),
        }))
    }

    pub(crate) fn rs256(name: &str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let mut numbers = Vec::new();
        read_numbers(der.as_ref(), &mut numbers);
        let field = |place: usize| encode(numbers[place]);
        // The first two numbers are the versions of PKCS #8 and of RFC 8017.
        Self::new(json!({
            "kty": "RSA", "alg": "RS256", "use": "sig", "kid": name, "n": field(2), "e": field(3), "d": field(4),
            "p": field(5), "q": field(6), "dp": field(7), "dq": field(8), "qi": field(9),
        }))
    }

    fn new(private: Value) -> Self {
        Self { private }
    }

    /// Returns the public key as a key server publishes it.
    pub(crate) fn public(&self) -> Value {
        let mut jwk = self.private.clone();
        for field in ["d", "p", "q", "dp", "dq", "qi"] {
            jwk.as_object_mut().unwrap().remove(field);
        }
        jwk["key_ops"] = json!(["verify"]);
        jwk
    }

    /// Signs a token with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.signing().sign(claims, &SystemRandom::new())
    }

    /// Signs a token with this header, which may be wrong.
    pub(crate) fn sign_with_header(&self, header: &str, claims: &Value) -> String {
        let message = format!(
            "{}.{}",
            encode(header.as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let signature = self
            .signing()
            .signature(message.as_bytes(), &SystemRandom::new());
        format!("{message}.{}", encode(&signature))
    }

    fn signing(&self) -> SigningKey {
        SigningKey::from_jwk(&self.private.to_string()).unwrap()
    }
}

/// Returns a key server's response with these keys.
pub(crate) fn key_set(keys: &[&TestKey]) -> String {
    let keys: Vec<Value> = keys.iter().map(|key| key.public()).collect();
    json!({ "keys": keys }).to_string()
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

pub(crate) fn decode(text: &str) -> Vec<u8> {
    BASE64.decode(text).unwrap()
}

/// Collects every INTEGER in DER, including nested ones.
fn read_numbers<'a>(der: &'a [u8], numbers: &mut Vec<&'a [u8]>) {
    let mut rest = der;
    while let [tag, length, after @ ..] = rest {
        let (length, after) = match *length {
            0x81 => (usize::from(after[0]), &after[1..]),
            0x82 => (
                usize::from(after[0]) << 8 | usize::from(after[1]),
                &after[2..],
            ),
            short => (usize::from(short), after),
        };
        let (content, next) = after.split_at(length);
        match *tag {
            0x02 => numbers.push(
                content
                    .strip_prefix(&[0])
                    .filter(|rest| !rest.is_empty())
                    .unwrap_or(content),
            ),
            // A sequence, or an octet string that contains a sequence.
            0x30 | 0x04 => read_numbers(content, numbers),
            _ => {}
        }
        rest = next;
    }
}

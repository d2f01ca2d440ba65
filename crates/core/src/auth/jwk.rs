//! One JSON Web Key (RFC 7517, 7518, 8037), from a key server or a file.
//!
//! Each key has one algorithm, which its own fields determine. A key that must not be used is refused with the reason.
//!
//! Does not use jsonwebtoken's `Jwk` type. That type drops the private numbers, which `signing` needs and which reveal
//! a leaked key. It does not know the algorithm name `Ed25519` (RFC 9864), and it reports a malformed key as a key of
//! an unknown kind. The checks here would have to read the JSON anyway. jsonwebtoken verifies the signatures.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use crate::{auth::algorithm::Algorithm, limits::KEY_ID_BYTES_MAX};

/// The reason why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableKey {
    /// Not an object with a `kty`, or a field has the wrong type.
    #[error("it is not a JSON Web Key")]
    NotAKey,
    /// A shared secret. A key server must not publish one: any reader could sign with it.
    #[error("it is symmetric: set a shared secret in the configuration, never in a key set")]
    Symmetric,
    /// A kind of key or a curve for none of the supported algorithms.
    #[error("its kty or crv fits none of ES256, RS256 and EdDSA")]
    OtherKind,
    /// The `alg` is not the algorithm of the key's kind.
    #[error("its alg does not match its kty: it must be ES256, RS256 or EdDSA")]
    OtherAlgorithm,
    /// A key for encryption (`use`), or for another operation (`key_ops`).
    #[error("its use or key_ops does not allow this operation")]
    OtherUse,
    /// A `kid` of more than [`KEY_ID_BYTES_MAX`] bytes, which no accepted token can name.
    #[error("its kid is longer than {KEY_ID_BYTES_MAX} bytes")]
    LongName,
    /// An RSA key that is too short to be safe, or too long to be fast.
    #[error("RSA needs 2,048 to 8,192 bits")]
    OtherSize,
    /// The key server publishes the private key too, so any reader could sign with it.
    #[error("its private key is published")]
    Leaked,
    /// The private key is required and missing.
    #[error("its private key is missing")]
    NotPrivate,
    /// Numbers that are not a valid key.
    #[error("its numbers are not a valid key")]
    Broken,
    /// More keys than the gateway uses from one key set.
    #[error("too many keys come before it")]
    TooMany,
}

/// The fields that the gateway reads. All numbers are base64url.
#[derive(Deserialize)]
pub(crate) struct Jwk {
    kty: Box<str>,
    pub(crate) kid: Option<Box<str>>,
    alg: Option<Box<str>>,
    #[serde(rename = "use")]
    usage: Option<Box<str>>,
    key_ops: Option<Vec<Box<str>>>,
    crv: Option<Box<str>>,
    pub(crate) x: Option<Box<str>>,
    pub(crate) y: Option<Box<str>>,
    pub(crate) n: Option<Box<str>>,
    pub(crate) e: Option<Box<str>>,
    pub(crate) d: Option<Box<str>>,
    pub(crate) p: Option<Box<str>>,
    pub(crate) q: Option<Box<str>>,
    pub(crate) dp: Option<Box<str>>,
    pub(crate) dq: Option<Box<str>>,
    pub(crate) qi: Option<Box<str>>,
}

impl Jwk {
    /// Returns the key's algorithm if the key may be used for `operation`, which is `sign` or `verify`.
    pub(crate) fn algorithm(&self, operation: &str) -> Result<Algorithm, UnusableKey> {
        let algorithm = match (&*self.kty, self.crv.as_deref()) {
            ("oct", _) => return Err(UnusableKey::Symmetric),
            ("EC", Some("P-256")) => Algorithm::Es256,
            ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
            ("RSA", _) => Algorithm::Rs256,
            _ => return Err(UnusableKey::OtherKind),
        };
        if self
            .alg
            .as_deref()
            .is_some_and(|alg| Algorithm::parse(alg) != Some(algorithm))
        {
            return Err(UnusableKey::OtherAlgorithm);
        }
        let is_for_signatures = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let is_for_this = |ops: &Vec<Box<str>>| ops.iter().any(|op| &**op == operation);
        if !is_for_signatures || !self.key_ops.as_ref().is_none_or(is_for_this) {
            return Err(UnusableKey::OtherUse);
        }
        if self
            .kid
            .as_deref()
            .is_some_and(|kid| kid.len() > KEY_ID_BYTES_MAX)
        {
            return Err(UnusableKey::LongName);
        }
        Ok(algorithm)
    }

    /// Returns the point on an elliptic curve, uncompressed (SEC 1 §2.3.3).
    pub(crate) fn point(&self) -> Result<Vec<u8>, UnusableKey> {
        let (x, y) = (number(self.x.as_deref())?, number(self.y.as_deref())?);
        if x.len() != 32 || y.len() != 32 {
            return Err(UnusableKey::Broken);
        }
        Ok([&[4], &*x, &*y].concat())
    }
}

/// Decodes a number into its bytes.
pub(crate) fn number(text: Option<&str>) -> Result<Vec<u8>, UnusableKey> {
    let text = text.ok_or(UnusableKey::Broken)?;
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| UnusableKey::Broken)
}

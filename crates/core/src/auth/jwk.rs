//! One JSON Web Key (RFC 7517, 7518, 8037), as a key server publishes it or a file holds it.
//!
//! A key is for one algorithm, which its own fields tell. What it may not be used for is refused here, by name.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use crate::{auth::algorithm::Algorithm, limits::KEY_ID_BYTES_MAX};

/// Why a key is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableKey {
    /// Not an object with a `kty`, or a field of another type.
    #[error("it is not a JSON Web Key")]
    NotAKey,
    /// A secret, which a key server must not publish and which anybody could sign with.
    #[error("it is symmetric: a shared secret is a setting, never in a key set")]
    Symmetric,
    /// A kind of key, or a curve, that signs none of our algorithms.
    #[error("its kty or crv signs none of ES256, RS256, EdDSA")]
    OtherKind,
    /// Its `alg` is another than its kind is taken for here.
    #[error("its alg is not the one that its kty is for: ES256, RS256 or EdDSA")]
    OtherAlgorithm,
    /// For encryption (`use`), or for something else than this (`key_ops`).
    #[error("its use or key_ops is for something else")]
    OtherUse,
    /// A `kid` that no token could bear.
    #[error("its kid is longer than {KEY_ID_BYTES_MAX} bytes")]
    LongName,
    /// An RSA key that could be broken, or would take long.
    #[error("RSA needs 2,048 to 8,192 bits")]
    OtherSize,
    /// The key server gives away what signs: the key is anybody's.
    #[error("its private half is published")]
    Leaked,
    /// The private half is needed and not there.
    #[error("its private half is missing")]
    NotPrivate,
    /// Numbers that make no key.
    #[error("its numbers make no key")]
    Broken,
    /// More than a project has.
    #[error("there are too many keys before it")]
    TooMany,
}

/// The fields that matter. All numbers are base64url.
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
    /// The algorithm that the key is for, once it may do `operation`, which is `sign` or `verify`.
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

    /// The point of an elliptic curve, uncompressed (SEC 1 §2.3.3).
    pub(crate) fn point(&self) -> Result<Vec<u8>, UnusableKey> {
        let (x, y) = (number(self.x.as_deref())?, number(self.y.as_deref())?);
        if x.len() != 32 || y.len() != 32 {
            return Err(UnusableKey::Broken);
        }
        Ok([&[4], &*x, &*y].concat())
    }
}

/// The bytes of a number.
pub(crate) fn number(text: Option<&str>) -> Result<Vec<u8>, UnusableKey> {
    let text = text.ok_or(UnusableKey::Broken)?;
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| UnusableKey::Broken)
}

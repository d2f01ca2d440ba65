//! The algorithms that sign tokens.

use std::fmt;

/// A signature algorithm (RFC 7518 §3.1, RFC 8037). The type has no value for the algorithm "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// ECDSA over P-256: Supabase's default.
    Es256,
    /// Ed25519, in headers `EdDSA` or `Ed25519`.
    EdDsa,
    /// RSA with PKCS #1 version 1.5.
    Rs256,
    /// HMAC with the project's legacy secret.
    Hs256,
}

impl Algorithm {
    /// Returns the algorithm with exactly this name, as a header or a key writes it.
    #[must_use]
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "ES256" => Some(Self::Es256),
            // `Ed25519` is the name since RFC 9864.
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            "RS256" => Some(Self::Rs256),
            "HS256" => Some(Self::Hs256),
            _ => None,
        }
    }

    /// Returns the name for a token's header.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Hs256 => "HS256",
        }
    }
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Es256 => Self::ES256,
            Algorithm::EdDsa => Self::EdDSA,
            Algorithm::Rs256 => Self::RS256,
            Algorithm::Hs256 => Self::HS256,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

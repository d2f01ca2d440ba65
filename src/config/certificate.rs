//! The certificate of the listener: reads its two files and checks that they belong together.

use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest;
use rustls::{
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use x509_cert::{Certificate as X509, der::Decode as _};

use crate::limits::PEM_BYTES_MAX;

/// The paths of the certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, PEM, the server's own certificate first.
    pub chain: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// A certificate with its key, ready to serve.
#[derive(Clone)]
pub struct Certificate {
    pub(crate) certified: Arc<CertifiedKey>,
    /// When the certificate expires, as the time since 1970.
    pub(crate) expires: Duration,
    pub(crate) fingerprint: Fingerprint,
}

/// A digest of both files, to notice a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

/// Why a certificate cannot be served. Contains no part of the key.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: String,
        #[source]
        source: io::Error,
    },
    /// The chain is not PEM, or empty.
    #[error("{path} must hold PEM: BEGIN CERTIFICATE blocks, the server's own first")]
    Chain { path: String },
    /// The key is not PEM.
    #[error("{path} must hold a PEM private key (PKCS#8, PKCS#1 or SEC1) that has no password")]
    Key { path: String },
    /// The key is not the certificate's.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// rustls does not support this kind of key.
    #[error("use the certificate and its key")]
    Unusable(#[source] rustls::Error),
}

impl CertificateError {
    /// Returns whether the error is about this file.
    #[must_use]
    pub(crate) fn is_about(&self, file: &Path) -> bool {
        match self {
            Self::Read { path, .. } | Self::Chain { path } | Self::Key { path } => {
                Path::new(path) == file
            }
            Self::Mismatch | Self::Unusable(_) => false,
        }
    }
}

impl CertificateFiles {
    /// Reads both files.
    ///
    /// # Errors
    /// If they are not a certificate and its key.
    pub fn load(&self) -> Result<Certificate, CertificateError> {
        let (chain_pem, key_pem) = (read(&self.chain)?, read(&self.key)?);
        let not_a_chain = || CertificateError::Chain {
            path: self.chain.display().to_string(),
        };
        let chain = CertificateDer::pem_slice_iter(&chain_pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| not_a_chain())?;
        let own = chain.first().ok_or_else(not_a_chain)?;
        let expires = expiry(own).ok_or_else(not_a_chain)?;
        let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| CertificateError::Key {
            path: self.key.display().to_string(),
        })?;
        let certified =
            CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| {
                if matches!(error, rustls::Error::InconsistentKeys(_)) {
                    CertificateError::Mismatch
                } else {
                    CertificateError::Unusable(error)
                }
            })?;
        Ok(Certificate {
            certified: Arc::new(certified),
            expires,
            fingerprint: Fingerprint::of(&chain_pem, &key_pem),
        })
    }

    /// Returns the digest of both files without parsing them; `None` if they cannot be read.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        Some(Fingerprint::of(
            &read(&self.chain).ok()?,
            &read(&self.key).ok()?,
        ))
    }
}

impl Fingerprint {
    fn of(chain: &[u8], key: &[u8]) -> Self {
        let mut both = digest::Context::new(&digest::SHA256);
        both.update(chain);
        both.update(key);
        Self(
            both.finish()
                .as_ref()
                .try_into()
                .expect("SHA-256 has 32 bytes"),
        )
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Returns when a certificate expires, as the time since 1970.
#[must_use]
pub(crate) fn expiry(certificate: &CertificateDer<'_>) -> Option<Duration> {
    let parsed = X509::from_der(certificate).ok()?;
    Some(parsed.tbs_certificate.validity.not_after.to_unix_duration())
}

/// Returns who signed a certificate (DER).
#[must_use]
pub(crate) fn issuer(certificate: &[u8]) -> Option<String> {
    let parsed = X509::from_der(certificate).ok()?;
    Some(parsed.tbs_certificate.issuer.to_string())
}

/// Reads a file. It may be a pipe that never ends, so at most [`PEM_BYTES_MAX`] are read.
fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(PEM_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|source| CertificateError::Read {
            path: path.display().to_string(),
            source,
        })?;
    Ok(bytes)
}

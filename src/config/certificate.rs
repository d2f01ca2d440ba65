//! The certificate that the gateway shows to its clients: two files, read and held to each other.

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

use usher_core::limits::PEM_BYTES_MAX;

/// Where the certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, PEM, the server's own certificate first.
    pub chain: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Certificate {
    /// What rustls serves.
    pub(crate) certified: Arc<CertifiedKey>,
    /// When it ends, since 1970.
    pub(crate) expires: Duration,
    /// Tells it from others: a digest of both files.
    pub(crate) fingerprint: Fingerprint,
}

/// A digest of both files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

/// Why a certificate cannot be served. Holds no part of the key.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The chain is not PEM, or empty.
    #[error("{path} must hold PEM: BEGIN CERTIFICATE blocks, the server's own first")]
    Chain {
        /// The file.
        path: String,
    },
    /// The key is not PEM.
    #[error("{path} must hold a PEM private key (PKCS#8, PKCS#1 or SEC1) that has no password")]
    Key {
        /// The file.
        path: String,
    },
    /// The key is not the certificate's.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// A kind of key that rustls does not know.
    #[error("use the certificate and its key")]
    Unusable(#[source] rustls::Error),
}

impl CertificateError {
    /// Whether it is this file that is wrong.
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
    /// Reads both files as they are now.
    ///
    /// # Errors
    /// Where they are not a certificate and its key.
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
        let mut both = digest::Context::new(&digest::SHA256);
        both.update(&chain_pem);
        both.update(&key_pem);
        let fingerprint = both.finish();
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
            fingerprint: Fingerprint(
                fingerprint
                    .as_ref()
                    .try_into()
                    .expect("sha-256 has 32 bytes"),
            ),
        })
    }

    /// Tells what is in the files without looking at it closely; `None` where they cannot be read.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        let mut both = digest::Context::new(&digest::SHA256);
        both.update(&read(&self.chain).ok()?);
        both.update(&read(&self.key).ok()?);
        both.finish().as_ref().try_into().ok().map(Fingerprint)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// When a certificate ends, since 1970.
#[must_use]
pub(crate) fn expiry(certificate: &CertificateDer<'_>) -> Option<Duration> {
    let parsed = X509::from_der(certificate).ok()?;
    Some(parsed.tbs_certificate.validity.not_after.to_unix_duration())
}

/// Who signed a certificate (DER).
#[must_use]
pub(crate) fn issuer(certificate: &[u8]) -> Option<String> {
    let parsed = X509::from_der(certificate).ok()?;
    Some(parsed.tbs_certificate.issuer.to_string())
}

/// A file may be a device or a pipe that never ends; no more is read than a certificate has.
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

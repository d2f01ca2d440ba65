//! TLS towards Postgres: what `sslmode` means, and which certificates are trusted.
//!
//! tokio-postgres knows no `verify-full`, and with rustls its `require` would always verify. This module gives the five
//! modes of libpq their meaning: it builds the TLS client with the verifier of the mode.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};

/// The `sslmode` of a connection to Postgres, with libpq's names. libpq's `allow` is read as `prefer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SslMode {
    /// Never uses TLS.
    Disable,
    /// Uses TLS if the server offers it, without verifying the certificate.
    Prefer,
    /// Requires TLS without verifying the certificate: safe from listeners, not from impostors.
    Require,
    /// Requires TLS and a certificate from a trusted authority, for any host.
    VerifyCa,
    /// Requires TLS and a certificate from a trusted authority for the host of the URL.
    VerifyFull,
}

impl SslMode {
    /// Parses libpq's name of the mode.
    #[must_use]
    pub(crate) fn parse(word: &str) -> Option<Self> {
        match word {
            "disable" => Some(Self::Disable),
            "allow" | "prefer" => Some(Self::Prefer),
            "require" => Some(Self::Require),
            "verify-ca" => Some(Self::VerifyCa),
            "verify-full" => Some(Self::VerifyFull),
            _ => None,
        }
    }

    /// Returns the mode for tokio-postgres, which only decides whether to use TLS.
    pub(crate) fn for_driver(self) -> tokio_postgres::config::SslMode {
        match self {
            Self::Disable => tokio_postgres::config::SslMode::Disable,
            Self::Prefer => tokio_postgres::config::SslMode::Prefer,
            Self::Require | Self::VerifyCa | Self::VerifyFull => {
                tokio_postgres::config::SslMode::Require
            }
        }
    }

    fn is_verifying(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

/// Why a TLS client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The operator's certificates are not PEM, or there are none.
    #[error(
        "root certificates are not PEM: the text must hold at least one BEGIN CERTIFICATE block"
    )]
    NotPem,
    /// A certificate cannot be an authority.
    #[error("use a root certificate")]
    Unusable(#[source] rustls::Error),
    /// There is no authority to trust.
    #[error(
        "no root certificates are installed on this system: install ca-certificates, or set USHER_PG_ROOT_CERT"
    )]
    NoRoots,
    /// rustls refused. Its text contains no secret.
    #[error("prepare TLS")]
    Library(#[source] rustls::Error),
}

/// Makes the verifier of the server's certificate for one `sslmode`. It trusts the authorities of `root_cert` (PEM) if
/// given, as libpq does, otherwise those of the system.
///
/// # Errors
///
/// If a verifying mode has no authority to verify against.
pub(crate) fn verifier(
    mode: SslMode,
    root_cert: Option<&str>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    if !mode.is_verifying() {
        return Ok(Arc::new(AnyCertificate(provider)));
    }
    let roots = Arc::new(match root_cert {
        Some(pem) => roots_from_pem(pem)?,
        None => roots_from_system()?,
    });
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
        .build()
        .map_err(|_| TlsError::NoRoots)?;
    Ok(if mode == SslMode::VerifyFull {
        verifier
    } else {
        Arc::new(AnyName(verifier))
    })
}

/// Makes the TLS client.
///
/// # Errors
///
/// If rustls refuses.
pub(crate) fn client_config(
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Library)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

/// Wraps a verifier, and records the certificate (DER) that it checked, accepted or not.
pub(crate) fn watched(
    verifier: Arc<dyn ServerCertVerifier>,
) -> (Arc<dyn ServerCertVerifier>, Arc<OnceLock<Vec<u8>>>) {
    let seen = Arc::new(OnceLock::new());
    let watched = Watched {
        verifier,
        seen: Arc::clone(&seen),
    };
    (Arc::new(watched), seen)
}

fn roots_from_pem(pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| TlsError::NotPem)?;
        roots.add(certificate).map_err(TlsError::Unusable)?;
    }
    if roots.is_empty() {
        return Err(TlsError::NotPem);
    }
    Ok(roots)
}

fn roots_from_system() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // Some systems have certificates that do not parse. The others are enough.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    Ok(roots)
}

/// `require`: accepts any certificate, but the server must hold its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `verify-ca`: checks the chain, not the host name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::{CertificateError, Error};
        let verified =
            self.0
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // webpki checks the name last: if only the name is wrong, the chain is good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// A verifier that records the certificate it checked.
#[derive(Debug)]
struct Watched {
    verifier: Arc<dyn ServerCertVerifier>,
    seen: Arc<OnceLock<Vec<u8>>>,
}

impl ServerCertVerifier for Watched {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.seen.get_or_init(|| end_entity.to_vec());
        self.verifier
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_libpq_are_known_and_no_others() {
        assert_eq!(SslMode::parse("allow"), Some(SslMode::Prefer));
        assert_eq!(SslMode::parse("verify-full"), Some(SslMode::VerifyFull));
        assert_eq!(SslMode::parse("Verify-Full"), None);
        assert_eq!(SslMode::parse(""), None);
    }

    #[test]
    fn a_root_certificate_that_is_none_is_refused() {
        for pem in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        ] {
            let error = verifier(SslMode::VerifyFull, Some(pem)).unwrap_err();
            assert!(matches!(error, TlsError::NotPem), "{pem:?}: {error}");
        }
    }

    #[test]
    fn without_verifying_no_root_certificate_is_needed() {
        for mode in [SslMode::Disable, SslMode::Prefer, SslMode::Require] {
            assert!(verifier(mode, None).is_ok());
        }
    }
}

//! Performs TLS handshakes, and reloads the certificate while the gateway runs.
//!
//! Checks the files every few seconds, and immediately on SIGHUP. If it cannot load the new pair, it keeps the old one and
//! logs one line: a renewal may have written only one of the two files so far.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::causes::with_causes;
use crate::clock::moment;
use crate::config::certificate::{Certificate, CertificateError, CertificateFiles, Fingerprint};
use crate::limits::{TLS_HANDSHAKE_TIMEOUT, TLS_RELOAD_INTERVAL};
use crate::metrics::{Metrics, TlsFailure};
use crate::net::socket::Socket;
use crate::net::socket::tls_stream::TlsStream;

/// The answer to a client that sends plain HTTP to a TLS port.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain\r\nContent-Length: 66\r\nConnection: close\r\n\r\n\
    this port speaks TLS: its address begins with https:// or wss://.\n";

/// The first byte of a TLS connection: a handshake record.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Reloads the certificate.
#[derive(Debug)]
pub struct Renewal {
    files: CertificateFiles,
    served: watch::Sender<Arc<CertifiedKey>>,
    /// The fingerprint of the files at the last load, successful or not.
    seen: Option<Fingerprint>,
    metrics: Arc<Metrics>,
}

impl Renewal {
    /// Returns the TLS configuration with a first certificate, and the task that renews it.
    ///
    /// # Panics
    /// The cryptographic library lacks its standard ciphers.
    #[must_use]
    pub fn new(
        files: CertificateFiles,
        first: &Certificate,
        metrics: Arc<Metrics>,
    ) -> (Self, Arc<ServerConfig>) {
        let (served, current) = watch::channel(Arc::clone(&first.certified));
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has ciphers for TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Current(current)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Tickets save the signature when many clients reconnect together. Their keys change every few hours.
        config.ticketer = Ticketer::new().expect("the system's random source is there");
        metrics
            .tls_expiry
            .set(i64::try_from(first.expires.as_secs()).unwrap_or(i64::MAX));
        let renewal = Self {
            files,
            served,
            seen: Some(first.fingerprint),
            metrics,
        };
        (renewal, Arc::new(config))
    }

    /// Runs until the gateway stops.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => Some(hangup),
            Err(error) => {
                warn!(%error, "cannot receive SIGHUP; the gateway checks the certificate by the clock alone");
                None
            }
        };
        loop {
            // Every arm is cancel-safe: the next turn takes a signal that this one missed.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(()) = async { hangup.as_mut()?.recv().await } => {}
                () = tokio::time::sleep(TLS_RELOAD_INTERVAL) => {}
            }
            let files = self.files.clone();
            let seen = self.seen;
            // On a blocking thread: the files may be on a network file system that hangs.
            let looked = tokio::task::spawn_blocking(move || {
                let found = files.fingerprint();
                (found != seen).then(|| (found, files.load()))
            });
            if let Ok(Some((found, loaded))) = looked.await {
                self.seen = found;
                self.on_changed(loaded);
            }
        }
    }

    fn on_changed(&mut self, loaded: Result<Certificate, CertificateError>) {
        let now_ms = u128::from(moment().unix_ms);
        match loaded {
            Ok(new) if new.expires.as_millis() <= now_ms => {
                warn!("the new certificate has expired; the one before is kept");
            }
            Ok(new) => {
                let expires = i64::try_from(new.expires.as_secs()).unwrap_or(i64::MAX);
                self.metrics.tls_expiry.set(expires);
                self.served.send_replace(new.certified);
                info!(expires_unix = expires, "serving a new certificate");
            }
            Err(error) => {
                warn!(
                    error = with_causes(&error),
                    "the new certificate cannot be served; the one before is kept"
                );
            }
        }
    }
}

/// Resolves to the current certificate.
#[derive(Debug)]
struct Current(watch::Receiver<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.borrow()))
    }
}

/// Performs the TLS handshake with a new client. Counts a failure and returns `None`.
pub(crate) async fn secured(
    tcp: TcpStream,
    config: &Arc<ServerConfig>,
    metrics: &Metrics,
) -> Option<Socket> {
    let error = match timeout(TLS_HANDSHAKE_TIMEOUT, shake_hands(tcp, config)).await {
        Ok(Ok(secure)) => {
            metrics.tls_handshakes.inc();
            return Some(Socket::TlsStream(Box::new(secure)));
        }
        Ok(Err(error)) => error,
        Err(_elapsed) => io::ErrorKind::TimedOut.into(),
    };
    let failure = failure(&error);
    metrics.tls_failures.get_or_create(&failure.into()).inc();
    debug!(error = with_causes(&error), "no TLS");
    None
}

async fn shake_hands(mut tcp: TcpStream, config: &Arc<ServerConfig>) -> io::Result<TlsStream> {
    let mut first = [0];
    if tcp.peek(&mut first).await? == 1 && first[0] != HANDSHAKE_RECORD {
        // Helps a person who typed http instead of https. Other programs do not read the answer.
        if first[0].is_ascii_uppercase() {
            // A close with unread input would reset the connection, and the client would not see the answer.
            let _ = tcp.read(&mut [0; 4_096]).await?;
            tcp.write_all(NOT_TLS).await?;
        }
        return Err(io::ErrorKind::InvalidInput.into());
    }
    TlsStream::accept(tcp, Arc::clone(config)).await
}

fn failure(error: &io::Error) -> TlsFailure {
    let tls = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match (tls, error.kind()) {
        (Some(rustls::Error::AlertReceived(_)), _) => TlsFailure::Refused,
        (Some(_), _) => TlsFailure::Protocol,
        (None, io::ErrorKind::InvalidInput) => TlsFailure::NotTls,
        (None, io::ErrorKind::TimedOut) => TlsFailure::Timeout,
        (None, _) => TlsFailure::Gone,
    }
}

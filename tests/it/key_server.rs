//! A key server for the tests: real HTTP, with any answer that a key server could give.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Response, StatusCode};
use futures::StreamExt as _;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::keys::{TestKey, key_set};

/// What it answers.
#[derive(Clone)]
pub(crate) enum Answer {
    /// This text.
    Text(String),
    /// A status without a body.
    Status(u16),
    /// The way to somewhere else.
    Redirect(String),
    /// Good keys, and then bytes without an end.
    Endless(String),
    /// The head of an answer, and then nothing.
    Stuck,
}

/// A key server; it ends when it is dropped.
pub(crate) struct KeyServer {
    pub(crate) at: SocketAddr,
    answer: watch::Sender<Answer>,
    asked: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl KeyServer {
    /// Starts one that publishes these keys.
    pub(crate) async fn publish(keys: &[&TestKey]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (answer, current) = watch::channel(Answer::Text(key_set(keys)));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let handler = move |headers: HeaderMap| {
            count.fetch_add(1, Ordering::Relaxed);
            assert_eq!(headers["accept"], "application/json");
            let answer = respond(&current.borrow());
            async move { answer }
        };
        let serving = tokio::spawn(async move {
            let routes = Router::new().fallback(handler);
            axum::serve(listener, routes).await.unwrap();
        });
        Self {
            at,
            answer,
            asked,
            serving,
        }
    }

    /// Where the keys are.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/auth/v1/.well-known/jwks.json", self.at)
    }

    /// Answers otherwise from now on.
    pub(crate) fn answer(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    /// Publishes other keys from now on.
    pub(crate) fn rotate(&self, keys: &[&TestKey]) {
        self.answer(Answer::Text(key_set(keys)));
    }

    /// The number of requests so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn respond(answer: &Answer) -> Response<Body> {
    let builder = Response::builder();
    match answer {
        Answer::Text(text) => builder.body(Body::from(text.clone())),
        Answer::Status(status) => builder.status(*status).body(Body::empty()),
        Answer::Redirect(url) => builder
            .status(StatusCode::FOUND)
            .header("location", url)
            .body(Body::empty()),
        Answer::Endless(text) => {
            let blanks = Bytes::from(" ".repeat(8_192));
            let blanks =
                futures::stream::repeat_with(move || Ok::<_, std::io::Error>(blanks.clone()));
            let text = Bytes::from(text.clone());
            let first = futures::stream::once(async move { Ok(text) });
            builder.body(Body::from_stream(first.chain(blanks)))
        }
        Answer::Stuck => {
            let never = futures::stream::once(async {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok::<_, std::io::Error>(Bytes::new())
            });
            builder.body(Body::from_stream(never))
        }
    }
    .unwrap()
}

/// A key server over TLS. Its own authority signs its certificate for `localhost`.
pub(crate) struct TlsKeyServer {
    /// The authority's certificate, PEM.
    pub(crate) authority: String,
    port: u16,
    serving: JoinHandle<()>,
}

impl TlsKeyServer {
    /// Starts one that publishes these keys.
    pub(crate) async fn publish(keys: &[&TestKey]) -> Self {
        let (authority, issuer) = make_authority();
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned()];
        let params = rcgen::CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().der().clone();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let text = key_set(keys);
        let serving = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                // A client that does not trust the certificate disconnects.
                if let Ok(mut stream) = acceptor.accept(socket).await {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.unwrap());
                    }
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                        text.len()
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    let _ = stream.shutdown().await;
                }
            }
        });
        Self {
            authority,
            port,
            serving,
        }
    }

    /// Where the keys are.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/keys", self.port)
    }

    /// An unrelated authority, as PEM.
    pub(crate) fn other_authority() -> String {
        make_authority().0
    }
}

impl Drop for TlsKeyServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn make_authority() -> (String, rcgen::Issuer<'static, rcgen::KeyPair>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), rcgen::Issuer::new(params, key))
}

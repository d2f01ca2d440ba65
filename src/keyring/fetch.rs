//! Fetches the key set with one HTTP request, bounded in time and bytes. Follows no redirect.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::header::{ACCEPT, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use tokio::time::timeout;

use crate::limits::{KEY_SET_BYTES_MAX, KEYS_TIMEOUT};

/// Why the request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The system has no root certificates.
    #[error("load the system's root certificates: install ca-certificates")]
    NoRoots(#[source] std::io::Error),
    /// The connection or its certificate failed.
    #[error("reach the key server")]
    Unreachable(#[source] hyper_util::client::legacy::Error),
    /// The status is not 200.
    #[error("the key server answered {0}")]
    Status(StatusCode),
    /// The answer broke off.
    #[error("read the key server's answer")]
    Interrupted(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is too long.
    #[error("the key server's answer is longer than {KEY_SET_BYTES_MAX} bytes")]
    TooLong,
    /// The answer is not UTF-8.
    #[error("the key server's answer is not UTF-8")]
    NotText,
    /// The answer did not come in time.
    #[error("the key server did not answer within {} s", KEYS_TIMEOUT.as_secs())]
    TooSlow,
}

/// Fetches the text of the key set.
pub(crate) async fn fetch(url: &Uri) -> Result<String, FetchError> {
    let answer = async {
        if url.scheme_str() == Some("http") {
            return get(HttpConnector::new(), url).await;
        }
        // Built for each request, so that it uses root certificates that were renewed on disk.
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(aws_lc_rs::default_provider())
            .map_err(FetchError::NoRoots)?
            .https_only()
            .enable_http1()
            .build();
        get(https, url).await
    };
    timeout(KEYS_TIMEOUT, answer)
        .await
        .unwrap_or(Err(FetchError::TooSlow))
}

async fn get<C>(connector: C, url: &Uri) -> Result<String, FetchError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    // The next request is minutes away: do not keep the connection.
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector);
    let request = Request::get(url)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("usher/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .expect("a URL and two constants make a request");
    let response = client
        .request(request)
        .await
        .map_err(FetchError::Unreachable)?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), KEY_SET_BYTES_MAX);
    let body = body.collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            FetchError::TooLong
        } else {
            FetchError::Interrupted(error)
        }
    })?;
    String::from_utf8(body.to_bytes().into()).map_err(|_| FetchError::NotText)
}

//! Cross-origin requests: which web pages may read the answers of the calls.
//!
//! The calls use no cookies, so that `*` gives nothing away. Other paths, such as the metrics, are for no other page.
//!
//! No library: tower-http answers every OPTIONS request as a preflight, and a refused origin with 200. Here a refused
//! preflight gets 403 with an error, and an OPTIONS request that is no preflight gets 405.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};

use crate::config::AllowedOrigins;
use crate::http::error_response;
use crate::net::accept::handshake_auth::HandshakeContext;
use usher_core::protocol::refusal::{Refusal, RefusalCode};

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
const HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, If-None-Match";
const EXPOSED: &str = "Retry-After, ETag, Allow";

/// How long a browser keeps the answer to a preflight, in seconds: as long as the most patient of them allows.
const PREFLIGHT_SECONDS: &str = "7200";

/// Answers preflights, and lets pages of allowed origins read the answers.
pub(crate) async fn cors(
    State(context): State<Arc<HandshakeContext>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if !path.starts_with("/v1/") && path != "/openapi.json" {
        return next.run(request).await;
    }
    let headers = request.headers();
    let origin = headers.get(header::ORIGIN).cloned();
    let is_preflight = request.method() == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let allowed = allowed(&context.allowed_origins, origin.as_ref());
    let mut response = match (is_preflight, &allowed) {
        (true, Some(_)) => preflight(),
        (true, None) => {
            let refusal = Refusal::new(RefusalCode::Forbidden, "this origin is not allowed");
            error_response::refused(&refusal)
        }
        (false, _) => next.run(request).await,
    };
    let headers = response.headers_mut();
    if matches!(context.allowed_origins, AllowedOrigins::Only(_)) {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    if let Some(allowed) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        let exposed = HeaderValue::from_static(EXPOSED);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    response
}

/// Returns the value of `Access-Control-Allow-Origin`; `None` for an origin that is not allowed, or without one.
fn allowed(origins: &AllowedOrigins, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
    match origins {
        AllowedOrigins::Any => Some(HeaderValue::from_static("*")),
        AllowedOrigins::Only(_) => origin
            .filter(|origin| origins.is_allowed(origin.to_str().ok().or(Some(""))))
            .cloned(),
    }
}

fn preflight() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers: &mut HeaderMap = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

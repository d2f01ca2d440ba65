//! Refusals over HTTP: the code and message of the socket, with a status.

use axum::body::Body;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use usher_core::protocol::refusal::{Refusal, RefusalCode};

/// The body of every refusal.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({"error": {"code": "slow_mode", "message": "wait 3 s before the next message",
    "retry_after_ms": 3000}})))]
pub(crate) struct Error {
    /// Why the call is refused.
    pub(crate) error: Refusal,
}

/// Returns the status of a refusal's code. Refusals of HTTP itself (a method, a media type) have their own status.
#[must_use]
pub(crate) fn status(code: RefusalCode) -> StatusCode {
    match code {
        RefusalCode::BadRequest => StatusCode::BAD_REQUEST,
        RefusalCode::Unauthorized => StatusCode::UNAUTHORIZED,
        RefusalCode::Banned | RefusalCode::Forbidden => StatusCode::FORBIDDEN,
        RefusalCode::NotFound => StatusCode::NOT_FOUND,
        RefusalCode::Conflict | RefusalCode::SessionEnded | RefusalCode::VotingClosed => {
            StatusCode::CONFLICT
        }
        RefusalCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        RefusalCode::RateLimited | RefusalCode::SlowMode => StatusCode::TOO_MANY_REQUESTS,
        RefusalCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        RefusalCode::Busy | RefusalCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Returns a refusal with the status of its code.
#[must_use]
pub(crate) fn refused(refusal: &Refusal) -> Response<Body> {
    refused_with(status(refusal.code), refusal)
}

/// Returns a refusal with another status than that of its code.
#[must_use]
pub(crate) fn refused_with(status: StatusCode, refusal: &Refusal) -> Response<Body> {
    let error = Error {
        error: refusal.clone(),
    };
    let mut response = json(status, &error);
    // For the metrics.
    response.extensions_mut().insert(refusal.code);
    let headers = response.headers_mut();
    if let Some(after) = refusal.retry_after_seconds() {
        headers.insert(header::RETRY_AFTER, after.into());
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Returns a value as one line of JSON.
#[must_use]
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_string(value).expect("answers have string keys and plain values");
    json_text(status, Body::from(text + "\n"))
}

/// Returns JSON that must not be cached: the next answer may differ.
#[must_use]
pub(crate) fn json_text(status: StatusCode, text: Body) -> Response<Body> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

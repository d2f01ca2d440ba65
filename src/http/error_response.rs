//! How a refusal looks over HTTP: the same code and words as on the socket, and the status that goes with them.

use axum::body::Body;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;

use usher_core::protocol::refusal::{Refusal, RefusalCode};

/// The status of a refusal by its code. What HTTP itself has to refuse (a method, a media type) has its own.
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

/// A refusal with the status of its code.
#[must_use]
pub(crate) fn refused(refusal: &Refusal) -> Response<Body> {
    refused_with(status(refusal.code), refusal)
}

/// A refusal with a status that says more than its code.
#[must_use]
pub(crate) fn refused_with(status: StatusCode, refusal: &Refusal) -> Response<Body> {
    let mut error = json!({ "code": refusal.code.as_str(), "message": refusal.message });
    if let Some(after) = refusal.retry_after_ms() {
        error["retry_after_ms"] = after.into();
    }
    if let Some(reason) = refusal.reason {
        error["reason"] = reason.as_str().into();
    }
    let mut response = json(status, &json!({ "error": error }));
    // For those who count.
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

/// A line of JSON.
#[must_use]
pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    json_text(status, Body::from(format!("{value}\n")))
}

/// JSON that nobody keeps: the next answer may be another.
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

//! The plain HTTP calls: health, metrics and the pages; and how a refusal looks over HTTP.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse as _;
use axum::routing::get;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::protocol::refusal::Refusal;
use crate::server::{Shared, pages};

/// Where the socket is.
pub const SOCKET_PATH: &str = "/v1/socket";

/// The routes of everything but the socket.
pub fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(get(pages::page))
        .with_state(shared)
}

/// A refusal as HTTP has it.
#[must_use]
pub fn refusal_response(status: StatusCode, refusal: &Refusal) -> Response<Body> {
    let mut error = json!({ "code": refusal.code.as_str(), "message": refusal.message });
    if let Some(after) = refusal.retry_after_ms {
        error["retry_after_ms"] = after.into();
    }
    let mut response = json_response(status, &json!({ "error": error }));
    if let Some(after) = refusal.retry_after_ms {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, after.div_ceil(1_000).into());
    }
    response
}

/// Alive means: the process makes progress. What it needs of others is not asked: to restart it would not mend them.
async fn healthz(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    if shared.makes_progress() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "a fan-out loop is stuck\n")
    }
}

/// Ready means: a new viewer would be served.
async fn readyz(State(shared): State<Arc<Shared>>) -> Response<Body> {
    let checks = shared.checks();
    let is_ready = checks.are_good();
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json_response(status, &json!({ "ready": is_ready, "checks": checks }))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl axum::response::IntoResponse {
    let metrics = &shared.metrics;
    let is_listening = i64::from(*shared.is_listening.borrow());
    metrics.is_listening.set(is_listening);
    metrics.keys_age.set(gauge(shared.keyring.age_seconds()));
    metrics.is_ready.set(i64::from(shared.checks().are_good()));
    let waiting = shared.loops.iter().map(|l| l.max_capacity() - l.capacity());
    metrics.command_queue.set(gauge(waiting.max().unwrap_or(0)));
    metrics.write_queue.set(gauge(shared.writer.waiting()));
    metrics.throttle_keys.set(gauge(shared.throttle.keys()));
    metrics.query_queue.set(gauge(shared.store.waiting()));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shared.metrics.encode()).into_response()
}

fn gauge(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

fn json_response(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{value}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

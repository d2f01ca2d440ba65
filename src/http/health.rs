//! Whether the process is well, whether it would serve a viewer, and what it counts.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use hyper::HeaderMap;
use hyper::StatusCode;
use hyper::header;
use serde_json::json;

use crate::exposition::Format;
use crate::http::error_response;
use crate::http::openapi::Readiness;
use crate::net::Shared;

/// Alive
///
/// Alive means: the process makes progress. What it needs of others is not asked: to restart it would not mend them.
#[utoipa::path(
    get, path = "/healthz", tag = "operation",
    responses(
        (status = 200, body = String, description = "It does."),
        (status = 503, body = String, description = "It does not: restart it.")
    ),
)]
pub(crate) async fn healthz(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    if shared.makes_progress() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "a fan-out loop is stuck\n")
    }
}

/// Ready
///
/// Ready means: a new viewer would be served.
#[utoipa::path(
    get, path = "/readyz", tag = "operation",
    responses(
        (status = 200, body = Readiness, description = "It would."),
        (status = 503, body = Readiness, description = "It would not: the checks say why.")
    ),
)]
pub(crate) async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let checks = shared.checks();
    let is_ready = checks.are_good();
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    error_response::json(status, &json!({ "ready": is_ready, "checks": checks }))
}

/// Metrics
///
/// For Prometheus: OpenMetrics 1.0.0 if `Accept` names it, otherwise text format 0.0.4.
#[utoipa::path(
    get, path = "/metrics", tag = "operation",
    responses((
        status = 200, description = "The metrics.",
        content(
            (String = "text/plain; version=0.0.4; charset=utf-8"),
            (String = "application/openmetrics-text; version=1.0.0; charset=utf-8")
        )
    )),
)]
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let metrics = &shared.metrics;
    let is_listening = i64::from(*shared.is_listening.borrow());
    metrics.is_listening.set(is_listening);
    metrics.keys_age.set(gauge(shared.keyring.age_seconds()));
    metrics.is_ready.set(i64::from(shared.checks().are_good()));
    let waiting = shared.loops.iter().map(|l| l.max_capacity() - l.capacity());
    metrics.command_queue.set(gauge(waiting.max().unwrap_or(0)));
    metrics.throttle_keys.set(gauge(shared.rate_limits.keys()));
    metrics.query_queue.set(gauge(shared.store.waiting()));
    let accept: Vec<&str> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let format = Format::of_accept(&accept.join(","));
    let head = [
        (header::CONTENT_TYPE, format.content_type()),
        (header::VARY, "accept"),
    ];
    (head, shared.metrics.encode(format)).into_response()
}

fn gauge(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

//! Liveness, readiness and metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use hyper::HeaderMap;
use hyper::StatusCode;
use hyper::header;

use crate::exposition::Format;
use crate::http::error_response;
use crate::http::openapi;
use crate::http::state::Api;
use crate::metrics::gauge;
use crate::net::readiness::Readiness;

/// Alive
///
/// Alive means: the process makes progress. It does not check other services, because a restart would not repair them.
#[utoipa::path(
    get, path = "/healthz", tag = "operation",
    responses(
        (status = 200, body = String, description = "The process makes progress."),
        (status = 503, body = String, description = "The process is stuck: restart it.")
    ),
)]
pub(crate) async fn healthz(State(readiness): State<Arc<Readiness>>) -> (StatusCode, &'static str) {
    if readiness.loops.make_progress() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "a fan-out loop is stuck\n")
    }
}

/// Ready
///
/// Ready means: the gateway can accept a viewer.
#[utoipa::path(
    get, path = "/readyz", tag = "operation",
    responses(
        (status = 200, body = openapi::ReadinessBody, description = "The gateway can accept a viewer."),
        (status = 503, body = openapi::ReadinessBody, description = "It cannot: the checks say why.")
    ),
)]
pub(crate) async fn readyz(State(readiness): State<Arc<Readiness>>) -> Response {
    let checks = readiness.checks();
    let ready = checks.are_good();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    error_response::json(status, &openapi::ReadinessBody { ready, checks })
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
pub(crate) async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Response {
    let Api {
        handshake,
        connections,
        readiness,
    } = api;
    let metrics = &connections.metrics;
    let is_listening = i64::from(*readiness.is_listening.borrow());
    metrics.is_listening.set(is_listening);
    metrics.keys_age.set(gauge(readiness.keyring.age_seconds()));
    metrics
        .is_ready
        .set(i64::from(readiness.checks().are_good()));
    metrics
        .command_queue
        .set(gauge(readiness.loops.queue_len()));
    metrics
        .throttle_keys
        .set(gauge(handshake.rate_limits.keys()));
    metrics
        .query_queue
        .set(gauge(connections.queries.store.waiting()));
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
    (head, metrics.encode(format)).into_response()
}

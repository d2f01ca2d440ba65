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
        .route("/healthz", get(async || "ok\n"))
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

/// Ready means: a new viewer would be served. That takes the database, its migrations, and a LISTEN that hears.
async fn readyz(State(shared): State<Arc<Shared>>) -> Response<Body> {
    let is_migrated = shared.store.is_migrated().await;
    let checks = json!({
        "database": is_migrated.is_ok(),
        "migrations": is_migrated.unwrap_or(false),
        "listen": *shared.is_listening.borrow(),
        "serving": !shared.stopping.is_cancelled(),
    });
    let is_ready = checks
        .as_object()
        .is_some_and(|checks| checks.values().all(|check| *check == json!(true)));
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json_response(status, &json!({ "ready": is_ready, "checks": checks }))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl axum::response::IntoResponse {
    let is_listening = i64::from(*shared.is_listening.borrow());
    shared.metrics.is_listening.set(is_listening);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shared.metrics.encode()).into_response()
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

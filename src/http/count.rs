//! Counts the calls by route and refusal.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use hyper::{Method, StatusCode};

use crate::metrics::{Call, Metrics};
use usher_core::protocol::refusal::RefusalCode;

/// The name of all other requests: pages, preflights, wrong methods. Clients cannot add names.
const OTHER: &str = "other";

/// Counts a call once its answer begins.
pub(crate) async fn count(
    State(metrics): State<Arc<Metrics>>,
    request: Request,
    next: Next,
) -> Response {
    let method = match request.method() {
        &Method::HEAD => Method::GET,
        method => method.clone(),
    };
    let path = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let is_call = response.status() != StatusCode::METHOD_NOT_ALLOWED && method != Method::OPTIONS;
    let name = match path.filter(|_| is_call) {
        Some(path) => format!("{method} {}", path.as_str()),
        None => OTHER.to_owned(),
    };
    let refusal = refusal(&response);
    metrics.calls.get_or_create(&Call { name, refusal }).inc();
    response
}

/// Returns the code of a refusal. An answer without one, such as that of a gateway that is not ready, is judged by its
/// status.
fn refusal(response: &Response) -> Option<RefusalCode> {
    let said = response.extensions().get::<RefusalCode>().copied();
    said.or_else(|| match response.status() {
        status if status.is_server_error() => Some(RefusalCode::Unavailable),
        status if status.is_client_error() => Some(RefusalCode::BadRequest),
        _ => None,
    })
}

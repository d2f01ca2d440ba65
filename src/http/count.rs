//! Counts the calls, by the route that answered and by how it ended.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use hyper::{Method, StatusCode};

use crate::metrics::{Call, Metrics};
use usher_core::protocol::refusal::RefusalCode;

/// Whatever is no call of ours: pages, preflights, wrong methods. A client cannot make up more names.
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

/// What an answer says of itself, or its status where it is none of our refusals, as that of a gateway that is not ready.
fn refusal(response: &Response) -> Option<RefusalCode> {
    let said = response.extensions().get::<RefusalCode>().copied();
    said.or_else(|| match response.status() {
        status if status.is_server_error() => Some(RefusalCode::Unavailable),
        status if status.is_client_error() => Some(RefusalCode::BadRequest),
        _ => None,
    })
}

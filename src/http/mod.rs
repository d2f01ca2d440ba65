//! Plain HTTP: the calls of the protocol, Server-Sent Events, health, metrics and the pages.
//!
//! ```text
//! net::accept ─► routes ─► authentication (address, origin, token) ─► log, messages, votings, stream ─► postgres
//! ```
//!
//! The words, rules and limits are those of the socket. The body of a success is `{"data":…}`. The body of a refusal is
//! `{"error":{"code","message","retry_after_ms"?}}`, with a status. JSON of the database is copied, not parsed. Read in
//! this order: [`request`], [`reply`], [`log`], [`messages`], [`votings`], [`moderation`],
//! [`stream`], [`openapi`], [`cors`], [`count`],
//! [`health`], [`pages`].

pub(crate) mod cors;
pub(crate) mod count;
pub(crate) mod error_response;
pub(crate) mod health;
pub(crate) mod log;
pub(crate) mod messages;
pub(crate) mod moderation;
pub(crate) mod openapi;
pub(crate) mod pages;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod state;
pub(crate) mod stream;
pub(crate) mod votings;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::response::Response;
use axum::routing::get;
use hyper::header::{self, HeaderValue};
use hyper::{Method, StatusCode, Uri};
use tower_http::compression::CompressionLayer;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::openapi::Document;
use crate::http::state::Api;
use usher_core::protocol::refusal::Refusal;

/// Returns the routes of everything except the socket.
pub(crate) fn routes(api: Api) -> Router {
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(log::events))
        .routes(routes!(messages::messages, messages::post_message))
        .routes(routes!(stream::stream))
        .routes(routes!(votings::tally))
        .routes(routes!(votings::vote, votings::withdraw_vote))
        .routes(routes!(moderation::movies))
        .routes(routes!(moderation::open_voting))
        .routes(routes!(moderation::change_voting))
        .routes(routes!(moderation::change_session))
        .routes(routes!(moderation::delete_message))
        .routes(routes!(moderation::bans))
        .routes(routes!(moderation::ban, moderation::lift_ban))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .split_for_parts();
    let document = openapi::text(&document);
    router
        .route("/openapi.json", get(async move || openapi::page(document)))
        .fallback(pages::page)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&api.handshake),
            cors::cors,
        ))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&api.connections.metrics),
            count::count,
        ))
        // Leaves out event streams and small answers.
        .layer(CompressionLayer::new())
        .layer(middleware::map_response(one_vary))
        .with_state(api)
}

/// Joins the `Vary` lines of all layers. A cache that reads only the first line would mix up answers.
async fn one_vary(mut response: Response) -> Response {
    let lines = response.headers().get_all(header::VARY).iter();
    let lines: Vec<&[u8]> = lines.map(HeaderValue::as_bytes).collect();
    if lines.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b", "[..]))
    {
        response.headers_mut().insert(header::VARY, joined);
    }
    response
}

/// Refuses a wrong method on a known path. axum lists the right ones in `Allow`.
async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!("{method} is not for {}: see the Allow header", uri.path());
    error_response::refused_with(
        StatusCode::METHOD_NOT_ALLOWED,
        &Refusal::bad_request(message),
    )
}

//! The calls for chat messages.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use serde_json::json;

use crate::clock::moment;
use crate::http::log::admit;
use crate::http::openapi::{self, Reading, Writing};
use crate::http::reply::{self, Data};
use crate::http::request::{
    Caller, Id, JsonText, QueryParams, Refused, SignedInCaller, parse_seq, told,
};
use crate::http::state::Api;
use crate::limits::{CALL_MESSAGES_DEFAULT, CALL_MESSAGES_MAX};
use crate::net::queries::Queries;
use crate::net::writes::Writes;
use crate::postgres::chat_history::{Before, ChatPage};
use usher_core::protocol::client::{self, NewMessage};
use usher_core::protocol::id::{Nonce, SessionId};
use usher_core::protocol::refusal::Refusal;
use usher_core::protocol::server::{Sent, WriteOutcome};
use usher_core::relay::message::Write;

/// The header with the client's id for a message.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The query of the call.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct MessagesQuery {
    /// Only messages before this number, or before the end of the last page (its `next`).
    #[param(
        value_type = Option<String>, example = "1301",
        pattern = "^[0-9]{1,18}(_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})?$"
    )]
    before: Before,
    /// The largest number of messages.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 100, default = 50)]
    limit: u16,
}

impl FromRequestParts<Api> for MessagesQuery {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Self::Rejection> {
        let query = QueryParams::of(parts);
        let before = query.text("before").map(|text| parse_before(&text));
        let refusal =
            || Refusal::bad_request("before must be the number of an event, or the next of a page");
        Ok(Self {
            before: before
                .map_or(Some(Before::Now), |before| before)
                .ok_or_else(refusal)?,
            limit: query.count("limit", 1..=CALL_MESSAGES_MAX, CALL_MESSAGES_DEFAULT)?,
        })
    }
}

/// Messages of a session
///
/// Returns messages, newest first, without deleted ones. Messages that have left the log have a null `seq`. `next` is
/// the `before` of the next page; null if there is none.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/messages", tag = "sessions",
    params(("id" = uuid::Uuid, Path, description = "The session."), MessagesQuery),
    responses((status = 200, body = Data<openapi::MessagesPage>, description = "The page."), Reading),
    security((), ("token" = [])),
)]
pub(crate) async fn messages(
    State(queries): State<Arc<Queries>>,
    caller: Caller,
    Id(session): Id<SessionId>,
    query: MessagesQuery,
) -> Result<Response, Refused> {
    admit(&queries, session, &caller.identity).await?;
    let page = queries
        .store
        .messages(session, &caller.identity, query.before, query.limit)
        .await;
    let ChatPage { messages, next } = told(page, "a page of messages", &queries)?;
    let messages: Vec<&[u8]> = messages.iter().map(String::as_bytes).collect();
    let rest = json!({ "next": next });
    Ok(reply::data_text(&reply::list_and(
        "messages", &messages, &rest,
    )))
}

/// Writes a message
///
/// The answer comes after the commit. With an `Idempotency-Key`, a repeated call returns the first answer with 200
/// instead of 201.
#[utoipa::path(
    post, path = "/v1/sessions/{id}/messages", tag = "sessions",
    params(
        ("id" = uuid::Uuid, Path, description = "The session."),
        ("Idempotency-Key" = Option<uuid::Uuid>, Header, description = "Your id for the message, a uuid.")
    ),
    request_body = NewMessage,
    responses(
        (status = 201, body = Data<Sent>, description = "The message is written."),
        (status = 200, body = Data<Sent>, description = "An earlier call wrote the message."),
        Writing
    ),
    security(("token" = [])),
)]
pub(crate) async fn post_message(
    State(writes): State<Arc<Writes>>,
    author: SignedInCaller,
    Id(session): Id<SessionId>,
    headers: HeaderMap,
    JsonText(text): JsonText,
) -> Result<Response, Refused> {
    let message = client::message(session, nonce(&headers)?, &text)?;
    let done = write(&writes, author, Write::Message(message)).await?;
    let is_new = matches!(&done, WriteOutcome::Sent(sent) if sent.is_new);
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(reply::data(status, &done))
}

/// Writes as the caller, within the caller's limits.
///
/// # Errors
/// The refusal of a limit or of the database.
pub(crate) async fn write(
    writes: &Writes,
    author: SignedInCaller,
    write: Write,
) -> Result<WriteOutcome, Refusal> {
    // Only a subscription knows who moderates, as on the socket.
    let passed = writes.admit(author.user, &write, false, moment().at)?;
    writes.write(write, author.identity, passed).await
}

fn nonce(headers: &HeaderMap) -> Result<Option<Nonce>, Refusal> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let nonce = key.to_str().ok().and_then(|key| key.trim().parse().ok());
    let refusal = || Refusal::bad_request("the header Idempotency-Key must be a uuid");
    nonce.map(Some).ok_or_else(refusal)
}

/// Parses the number of an event, or the time in microseconds and the id of a message that has left the log.
fn parse_before(text: &str) -> Option<Before> {
    match text.split_once('_') {
        None => parse_seq(text).map(Before::Event),
        Some((at, id)) => Some(Before::Message {
            at_us: i64::try_from(parse_seq(at)?.0).ok()?,
            id: id.parse().ok()?,
        }),
    }
}

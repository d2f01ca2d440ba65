//! `openapi.json`: the annotations of the calls, and the schemas of the JSON that the database writes.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::StatusCode;
use serde::Serialize;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{IntoResponses, Modify, ToSchema};
use uuid::Uuid;

use crate::http::error_response::{self, Error};
use crate::net::readiness::Checks;

/// The document without the routes, which add themselves.
#[derive(Debug, utoipa::OpenApi)]
#[openapi(
    info(
        title = "Usher",
        description = "Chat, polls and counts of live movie sessions: what the socket `/v1/socket` has, as single calls. \
            Row level security decides who may read, write and vote, under the caller's own role and claims."
    ),
    tags(
        (name = "sessions", description = "The log of a session, and its chat."),
        (name = "votings", description = "Polls and votes."),
        (name = "moderation", description = "The calls of streamers and moderators. Each call is a statement under the \
            caller's own role and claims, as over the Data API."),
        (name = "operation", description = "For those who run the gateway.")
    ),
    components(schemas(Error)),
    modifiers(&Token)
)]
pub(crate) struct Document;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.bearer_format = Some("JWT".to_owned());
        scheme.description = Some("The access token of a Supabase session.".to_owned());
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// Returns the text of the document.
///
/// # Panics
/// Never: it has string keys and plain values.
#[must_use]
pub(crate) fn text(document: &OpenApi) -> Bytes {
    serde_json::to_vec(document)
        .expect("the document has string keys and plain values")
        .into()
}

/// Returns an answer with the document.
#[must_use]
pub(crate) fn page(text: Bytes) -> Response {
    error_response::json_text(StatusCode::OK, Body::from(text))
}

/// The refusals of a call that reads.
#[derive(Debug, IntoResponses)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) enum Reading {
    /// A value is not valid. The message names it.
    #[response(status = 400)]
    BadRequest(Error),
    /// The token is not valid, or missing.
    #[response(status = 401, headers(("WWW-Authenticate" = String)))]
    Unauthorized(Error),
    /// Banned, or the origin is not allowed.
    #[response(status = 403)]
    Forbidden(Error),
    /// It does not exist, or the caller may not see it.
    #[response(status = 404)]
    NotFound(Error),
    /// Too many requests from this address.
    #[response(status = 429, headers(("Retry-After" = u64, description = "Seconds.")))]
    RateLimited(Error),
    /// A fault of the gateway. Its log says more.
    #[response(status = 500)]
    Internal(Error),
    /// The database cannot be asked.
    #[response(status = 503, headers(("Retry-After" = u64, description = "Seconds.")))]
    Unavailable(Error),
}

/// The refusals of a call that writes.
#[derive(Debug, IntoResponses)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) enum Writing {
    /// A value is not valid. The message names it.
    #[response(status = 400)]
    BadRequest(Error),
    /// The token is not valid, or missing.
    #[response(status = 401, headers(("WWW-Authenticate" = String)))]
    Unauthorized(Error),
    /// Banned or timed out, not a member, chat switched off, or the origin is not allowed.
    #[response(status = 403)]
    Forbidden(Error),
    /// It does not exist, or the caller may not see it.
    #[response(status = 404)]
    NotFound(Error),
    /// The body did not arrive in time.
    #[response(status = 408)]
    Late(Error),
    /// The session has ended, the poll is not open, or the vote is final.
    #[response(status = 409)]
    Conflict(Error),
    /// The text, or the body of the request, is too long.
    #[response(status = 413)]
    TooLarge(Error),
    /// The body is not `application/json`.
    #[response(status = 415)]
    UnsupportedMediaType(Error),
    /// Beyond a rate limit, or slow mode.
    #[response(status = 429, headers(("Retry-After" = u64, description = "Seconds.")))]
    RateLimited(Error),
    /// A fault of the gateway. Its log says more.
    #[response(status = 500)]
    Internal(Error),
    /// The database cannot be asked.
    #[response(status = 503, headers(("Retry-After" = u64, description = "Seconds.")))]
    Unavailable(Error),
}

/// A page of the log.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct EventsPage {
    /// Consecutive events, oldest first.
    pub(crate) events: Vec<EventSchema>,
    /// The newest number.
    pub(crate) head: u64,
    /// The number before the oldest event that is kept.
    pub(crate) floor: u64,
    /// The epoch of the numbers.
    pub(crate) epoch: String,
}

/// One event.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
#[schema(as = Event)]
pub(crate) struct EventSchema {
    /// The number of the event: 1, 2, 3, … without a gap.
    #[schema(minimum = 1)]
    pub seq: u64,
    /// `chat.created`, `chat.updated`, `chat.deleted`, `voting.opened`, `voting.updated`, `voting.closed`,
    /// `session.updated`, `member.banned`, `member.unbanned`, and the types of later versions.
    pub r#type: String,
    /// The time of the event.
    #[schema(format = DateTime)]
    pub(crate) at: String,
    /// The row of the event.
    #[schema(value_type = Object)]
    pub(crate) data: String,
}

/// A page of messages.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct MessagesPage {
    /// Newest first.
    #[schema(max_items = 100)]
    pub(crate) messages: Vec<ChatMessage>,
    /// The `before` of the next page; null if there is none.
    #[schema(required)]
    pub(crate) next: Option<String>,
}

/// A message, as the Data API returns it, with its number and its author.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct ChatMessage {
    pub(crate) id: Uuid,
    pub(crate) session_id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) body: String,
    #[schema(required)]
    pub(crate) reply_to: Option<Uuid>,
    #[schema(required)]
    pub(crate) nonce: Option<Uuid>,
    #[schema(format = DateTime)]
    pub(crate) created_at: String,
    #[schema(required, format = DateTime)]
    pub(crate) edited_at: Option<String>,
    /// The number of its event; null if the event has left the log.
    #[schema(required)]
    pub(crate) seq: Option<u64>,
    #[schema(required)]
    pub(crate) author: Option<Author>,
}

/// The author of a message.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct Author {
    pub(crate) username: String,
    #[schema(required)]
    pub(crate) display_name: Option<String>,
    #[schema(required)]
    pub(crate) avatar_path: Option<String>,
    pub(crate) role: String,
}

/// The counts of a poll at one moment.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
#[schema(as = Tally)]
pub(crate) struct TallySchema {
    /// `tally`.
    pub r#type: String,
    /// The session of the poll.
    pub session: Uuid,
    /// The poll.
    pub(crate) voting: Uuid,
    /// `open` or `closed`.
    pub(crate) status: String,
    /// Increases with each change of the counts.
    pub(crate) version: u64,
    /// The number of votes.
    pub(crate) total: u64,
    /// The votes of each movie; null while they are hidden from the caller.
    #[schema(required)]
    pub(crate) counts: Option<Vec<Count>>,
    /// When the poll closes automatically.
    #[schema(required, format = DateTime)]
    pub(crate) closes_at: Option<String>,
}

/// The votes for a movie.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct Count {
    pub(crate) movie: Uuid,
    pub(crate) votes: u64,
}

/// Whether the gateway can accept a viewer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Readiness)]
pub(crate) struct ReadinessBody {
    /// Whether all checks pass.
    pub(crate) ready: bool,
    /// The checks, one by one.
    pub(crate) checks: Checks,
}

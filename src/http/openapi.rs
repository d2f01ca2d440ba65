//! `openapi.json`: made of the calls' own annotations, and of the shapes that the database writes, which no type of ours
//! holds.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::StatusCode;
use serde::Serialize;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{IntoResponses, Modify, ToSchema};
use uuid::Uuid;

use crate::http::error_response;
use usher_core::protocol::refusal::Refusal;

/// The document, to which the routes add themselves.
#[derive(Debug, utoipa::OpenApi)]
#[openapi(
    info(
        title = "Usher",
        description = "What happens in live movie sessions: chat, votings, tallies. The same as the socket \
            `/v1/socket` has, for those who want one answer and not a stream. Who may read, write and vote is decided by \
            row level security under the caller's own role and claims."
    ),
    tags(
        (name = "sessions", description = "The log of a session, and its chat."),
        (name = "votings", description = "Votings and votes."),
        (name = "moderation", description = "What streamers and moderators do. Each call is a statement under the \
            caller's own role and claims, as it would be over the Data API."),
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

/// The document as it is served.
///
/// # Panics
/// Never: it has string keys and plain values.
#[must_use]
pub(crate) fn text(document: &OpenApi) -> Bytes {
    serde_json::to_vec(document)
        .expect("the document has string keys and plain values")
        .into()
}

/// The answer with the document.
#[must_use]
pub(crate) fn page(text: Bytes) -> Response {
    error_response::json_text(StatusCode::OK, Body::from(text))
}

/// The body of every refusal.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({"error": {"code": "slow_mode", "message": "wait 3 s before the next message",
    "retry_after_ms": 3000}})))]
pub(crate) struct Error {
    /// Why the call is refused.
    pub(crate) error: Refusal,
}

/// What a call that reads may answer instead.
#[derive(Debug, IntoResponses)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) enum Reading {
    /// The message names what is not as it should be.
    #[response(status = 400)]
    BadRequest(Error),
    /// The token does not hold, or one is needed.
    #[response(status = 401, headers(("WWW-Authenticate" = String)))]
    Unauthorized(Error),
    /// Banned, or the origin is not allowed.
    #[response(status = 403)]
    Forbidden(Error),
    /// No such thing, or not for this caller.
    #[response(status = 404)]
    NotFound(Error),
    /// Too many requests from this address.
    #[response(status = 429, headers(("Retry-After" = u64, description = "Seconds.")))]
    RateLimited(Error),
    /// Our fault: the gateway's log says more.
    #[response(status = 500)]
    Internal(Error),
    /// The database cannot be asked.
    #[response(status = 503, headers(("Retry-After" = u64, description = "Seconds.")))]
    Unavailable(Error),
}

/// What a call that writes may answer instead.
#[derive(Debug, IntoResponses)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) enum Writing {
    /// The message names what is not as it should be.
    #[response(status = 400)]
    BadRequest(Error),
    /// The token does not hold, or one is needed.
    #[response(status = 401, headers(("WWW-Authenticate" = String)))]
    Unauthorized(Error),
    /// Banned or timed out, not a member, chat switched off, or the origin is not allowed.
    #[response(status = 403)]
    Forbidden(Error),
    /// No such thing, or not for this caller.
    #[response(status = 404)]
    NotFound(Error),
    /// The body did not come in time.
    #[response(status = 408)]
    Late(Error),
    /// The session has ended, the voting is not open, or the vote is final.
    #[response(status = 409)]
    Conflict(Error),
    /// The text, or the body of the request, is too long.
    #[response(status = 413)]
    TooLarge(Error),
    /// The body is not `application/json`.
    #[response(status = 415)]
    UnsupportedMediaType(Error),
    /// Too many in too short a time, or slow mode.
    #[response(status = 429, headers(("Retry-After" = u64, description = "Seconds.")))]
    RateLimited(Error),
    /// Our fault: the gateway's log says more.
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
    /// Which life of the database the numbers belong to.
    pub(crate) epoch: String,
}

/// One event.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
#[schema(as = Event)]
pub(crate) struct EventSchema {
    /// Its number: 1, 2, 3, … without a gap.
    #[schema(minimum = 1)]
    pub seq: u64,
    /// `chat.created`, `chat.updated`, `chat.deleted`, `voting.opened`, `voting.updated`, `voting.closed`,
    /// `session.updated`, `member.banned`, `member.unbanned`, and what later versions add.
    pub r#type: String,
    /// When it was made.
    #[schema(format = DateTime)]
    pub(crate) at: String,
    /// The row that it is about.
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
    /// What to give as `before` for the next page; null where there is none.
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
    /// The number of its event; null where that has left the log.
    #[schema(required)]
    pub(crate) seq: Option<u64>,
    #[schema(required)]
    pub(crate) author: Option<Author>,
}

/// Who wrote it.
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

/// The counts of a voting at one moment.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
#[schema(as = Tally)]
pub(crate) struct TallySchema {
    /// `tally`.
    pub r#type: String,
    /// The session of the voting.
    pub session: Uuid,
    /// The voting.
    pub(crate) voting: Uuid,
    /// `open` or `closed`.
    pub(crate) status: String,
    /// Grows with every change of the counts.
    pub(crate) version: u64,
    /// All votes together.
    pub(crate) total: u64,
    /// Votes for each movie; null while they are hidden from the caller.
    #[schema(required)]
    pub(crate) counts: Option<Vec<Count>>,
    /// When it closes by itself.
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

/// A message that is written.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct Posted {
    /// The number of its event; null where that has left the log since.
    #[schema(required)]
    pub(crate) seq: Option<u64>,
    /// The message.
    pub(crate) message: Uuid,
}

/// A vote as it stands.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct Voted {
    /// The voting.
    pub(crate) voting: Uuid,
    /// The movie; null where the vote was withdrawn.
    #[schema(required)]
    pub(crate) movie: Option<Uuid>,
}

/// Whether a new viewer would be served.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
#[schema(as = Readiness)]
pub(crate) struct ReadinessSchema {
    /// Whether all checks are good.
    pub(crate) ready: bool,
    /// What a new viewer needs, one by one.
    #[schema(value_type = Object)]
    pub(crate) checks: String,
}

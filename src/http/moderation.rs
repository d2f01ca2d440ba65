//! The calls of streamers and moderators, for clients without the Data API: the pages, `usher dev`, a plain `curl`.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, State};
use axum::response::Response;
use hyper::StatusCode;
use hyper::http::request::Parts;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::openapi::{Reading, Writing};
use crate::http::reply::{self, Data};
use crate::http::request::{
    Caller, Id, JsonText, QueryParams, Refused, SignedInCaller, TokenBearer, told,
};
use crate::http::state::Api;
use crate::limits::{CALL_MESSAGES_DEFAULT, CALL_MOVIES_MAX, SEARCH_CHARS_MAX};
use crate::net::queries::Queries;
use usher_core::protocol::id::{MessageId, SessionId, UserId, VotingId};
use usher_core::protocol::moderation::{
    self, Act, NewBan, NewVoting, ResultsVisibility, SessionChange, VotingChange, VotingState,
};
use usher_core::protocol::refusal::Refusal;

/// The query of the movies call.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct MoviesQuery {
    /// A text that the titles contain, in upper or lower case.
    #[param(value_type = Option<String>, max_length = 100, pattern = r"^[^\u0000]*$")]
    search: String,
    /// The largest number of movies.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 100, default = 50)]
    limit: u16,
}

impl FromRequestParts<Api> for MoviesQuery {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Self::Rejection> {
        let query = QueryParams::of(parts);
        let search = query.text("search").unwrap_or_default();
        if search.chars().count() > SEARCH_CHARS_MAX || search.contains('\0') {
            let message = format!(
                "search must have at most {SEARCH_CHARS_MAX} characters, none of them U+0000"
            );
            return Err(Refusal::bad_request(message).into());
        }
        Ok(Self {
            search,
            limit: query.count("limit", 1..=CALL_MOVIES_MAX, CALL_MESSAGES_DEFAULT)?,
        })
    }
}

/// Movies.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct Movies {
    /// The movies, in the order of their titles.
    #[schema(max_items = 100)]
    pub(crate) movies: Vec<Movie>,
}

/// A movie of the catalogue.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct Movie {
    pub(crate) id: Uuid,
    pub(crate) title: String,
    #[schema(required)]
    pub(crate) release_year: Option<i32>,
    #[schema(required)]
    pub(crate) poster_path: Option<String>,
}

/// A poll that was opened.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct OpenedVoting {
    /// The id of the poll.
    pub(crate) voting: Uuid,
    /// When the poll closes automatically.
    #[schema(required, format = DateTime)]
    pub(crate) closes_at: Option<String>,
}

/// A poll after the change.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct ChangedVoting {
    pub(crate) voting: Uuid,
    pub(crate) state: VotingState,
    pub(crate) results_visibility: ResultsVisibility,
    #[schema(required, format = DateTime)]
    pub(crate) closes_at: Option<String>,
}

/// A session's chat settings after the change.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct ChangedSession {
    pub(crate) session: Uuid,
    pub(crate) slow_mode_seconds: u32,
    pub(crate) chat_enabled: bool,
}

/// A deleted message.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct DeletedMessage {
    /// The id of the message.
    pub(crate) message: Uuid,
}

/// The banned users of a session.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct Bans {
    /// The bans, newest first.
    #[schema(max_items = 100)]
    pub(crate) bans: Vec<Ban>,
}

/// A banned user.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct Ban {
    pub(crate) user: Uuid,
    pub(crate) username: String,
    #[schema(required)]
    pub(crate) display_name: Option<String>,
    #[schema(required, format = DateTime)]
    pub(crate) until: Option<String>,
    #[schema(required)]
    pub(crate) reason: Option<String>,
}

/// A user's ban in a session.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct Banned {
    /// The user.
    pub(crate) user: Uuid,
    /// When the ban ends; null for a permanent ban, and without a ban.
    #[schema(required, format = DateTime)]
    pub(crate) until: Option<String>,
}

/// Movies for a ballot
///
/// Returns the movies whose title contains a text, in the order of their titles.
#[utoipa::path(
    get, path = "/v1/movies", tag = "moderation",
    params(MoviesQuery),
    responses((status = 200, body = Data<Movies>, description = "The movies."), Reading),
    security((), ("token" = [])),
)]
pub(crate) async fn movies(
    State(queries): State<Arc<Queries>>,
    caller: Caller,
    query: MoviesQuery,
) -> Result<Response, Refused> {
    let MoviesQuery { search, limit } = query;
    let movies = queries.store.movies(&caller.identity, &search, limit).await;
    Ok(list("movies", &told(movies, "movies", &queries)?))
}

/// Opens a poll
///
/// Creates the question and its ballot and opens the poll in one transaction. A session has at most one open poll.
#[utoipa::path(
    post, path = "/v1/sessions/{id}/votings", tag = "moderation",
    params(("id" = uuid::Uuid, Path, description = "The session.")),
    request_body = NewVoting,
    responses((status = 201, body = Data<OpenedVoting>, description = "The poll is open."), Writing),
    security(("token" = [])),
)]
pub(crate) async fn open_voting(
    State(api): State<Api>,
    author: SignedInCaller,
    Id(session): Id<SessionId>,
    JsonText(text): JsonText,
) -> Result<Response, Refused> {
    let voting = moderation::new_voting(session, &text)?;
    moderate(&api, author, Act::OpenVoting(voting), StatusCode::CREATED).await
}

/// Closes a poll, or shows or hides its counts
///
/// A closed poll stays closed: the database counts once more, and everybody gets the result.
#[utoipa::path(
    patch, path = "/v1/votings/{id}", tag = "moderation",
    params(("id" = uuid::Uuid, Path, description = "The poll.")),
    request_body = VotingChange,
    responses((status = 200, body = Data<ChangedVoting>, description = "The new state."), Writing),
    security(("token" = [])),
)]
pub(crate) async fn change_voting(
    State(api): State<Api>,
    author: SignedInCaller,
    Id(voting): Id<VotingId>,
    JsonText(text): JsonText,
) -> Result<Response, Refused> {
    let change = moderation::voting_change(&text)?;
    moderate(
        &api,
        author,
        Act::ChangeVoting(voting, change),
        StatusCode::OK,
    )
    .await
}

/// Sets slow mode, or switches the chat on or off
#[utoipa::path(
    patch, path = "/v1/sessions/{id}", tag = "moderation",
    params(("id" = uuid::Uuid, Path, description = "The session.")),
    request_body = SessionChange,
    responses((status = 200, body = Data<ChangedSession>, description = "The new state."), Writing),
    security(("token" = [])),
)]
pub(crate) async fn change_session(
    State(api): State<Api>,
    author: SignedInCaller,
    Id(session): Id<SessionId>,
    JsonText(text): JsonText,
) -> Result<Response, Refused> {
    let change = moderation::session_change(&text)?;
    moderate(
        &api,
        author,
        Act::ChangeSession(session, change),
        StatusCode::OK,
    )
    .await
}

/// Deletes a message
///
/// The author and moderators may delete it. Its text leaves the log too. The row stays for moderators.
#[utoipa::path(
    delete, path = "/v1/messages/{id}", tag = "moderation",
    params(("id" = uuid::Uuid, Path, description = "The message.")),
    responses((status = 200, body = Data<DeletedMessage>, description = "The message is deleted."), Writing),
    security(("token" = [])),
)]
pub(crate) async fn delete_message(
    State(api): State<Api>,
    author: SignedInCaller,
    Id(message): Id<MessageId>,
) -> Result<Response, Refused> {
    moderate(&api, author, Act::DeleteMessage(message), StatusCode::OK).await
}

/// Banned users of a session
///
/// Returns the newest hundred users that are timed out or banned. A caller who does not moderate sees only their own
/// ban.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/bans", tag = "moderation",
    params(("id" = uuid::Uuid, Path, description = "The session.")),
    responses((status = 200, body = Data<Bans>, description = "The bans."), Reading),
    security(("token" = [])),
)]
pub(crate) async fn bans(
    State(queries): State<Arc<Queries>>,
    TokenBearer(caller): TokenBearer,
    Id(session): Id<SessionId>,
) -> Result<Response, Refused> {
    let bans = queries.store.bans(&caller.identity, session).await;
    Ok(list(
        "bans",
        &told(bans, "the bans of a session", &queries)?,
    ))
}

/// Times a user out, or bans them
///
/// With an end, the user can read but not write or vote until then. Without an end, the user loses access within a
/// second. A second call replaces the first. Nobody can ban the streamer or themselves, and only the streamer can ban
/// a moderator.
#[utoipa::path(
    put, path = "/v1/sessions/{id}/bans/{user}", tag = "moderation",
    params(
        ("id" = uuid::Uuid, Path, description = "The session."),
        ("user" = uuid::Uuid, Path, description = "The user.")
    ),
    request_body = NewBan,
    responses((status = 200, body = Data<Banned>, description = "The ban is in force."), Writing),
    security(("token" = [])),
)]
pub(crate) async fn ban(
    State(api): State<Api>,
    author: SignedInCaller,
    PathIds { session, user }: PathIds,
    JsonText(text): JsonText,
) -> Result<Response, Refused> {
    let new = moderation::new_ban(&text)?;
    moderate(&api, author, Act::Ban(session, user, new), StatusCode::OK).await
}

/// Ends a ban or time-out
///
/// It succeeds for a user without a ban too.
#[utoipa::path(
    delete, path = "/v1/sessions/{id}/bans/{user}", tag = "moderation",
    params(
        ("id" = uuid::Uuid, Path, description = "The session."),
        ("user" = uuid::Uuid, Path, description = "The user.")
    ),
    responses((status = 200, body = Data<Banned>, description = "There is no ban."), Writing),
    security(("token" = [])),
)]
pub(crate) async fn lift_ban(
    State(api): State<Api>,
    author: SignedInCaller,
    PathIds { session, user }: PathIds,
) -> Result<Response, Refused> {
    moderate(&api, author, Act::LiftBan(session, user), StatusCode::OK).await
}

/// The ids of a session and a user in a path.
#[derive(Debug)]
pub(crate) struct PathIds {
    session: SessionId,
    user: UserId,
}

impl FromRequestParts<Api> for PathIds {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Self::Rejection> {
        let ids = Path::<(String, String)>::from_request_parts(parts, api).await;
        let place = ids.ok().and_then(|Path((session, user))| {
            Some(Self {
                session: session.parse().ok()?,
                user: user.parse().ok()?,
            })
        });
        let refusal = || Refusal::bad_request("the ids in the path must be uuids");
        Ok(place.ok_or_else(refusal)?)
    }
}

async fn moderate(
    api: &Api,
    author: SignedInCaller,
    act: Act,
    status: StatusCode,
) -> Result<Response, Refused> {
    api.handshake.rate_limits.moderate(author.user)?;
    let queries = &api.connections.queries;
    let outcome = queries.store.moderate(&author.identity, &act).await;
    let done = told(outcome, "an act of moderation", queries)??;
    Ok(reply::data(status, &done))
}

fn list(name: &str, items: &[String]) -> Response {
    reply::data_text(format!(r#"{{"{name}":[{}]}}"#, items.join(",")).as_bytes())
}

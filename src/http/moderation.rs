//! What streamers and moderators do, for clients without the Data API: the pages, `usher dev`, a plain `curl`.

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

/// Which movies.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct MoviesQuery {
    /// What their titles have in them, in any case.
    #[param(value_type = Option<String>, max_length = 100, pattern = r"^[^\u0000]*$")]
    search: String,
    /// How many movies at most.
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
    /// By title.
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

/// A voting that is open.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct OpenedVoting {
    /// Its id.
    pub(crate) voting: Uuid,
    /// When it closes by itself.
    #[schema(required, format = DateTime)]
    pub(crate) closes_at: Option<String>,
}

/// A voting as it is now.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct ChangedVoting {
    pub(crate) voting: Uuid,
    pub(crate) state: VotingState,
    pub(crate) results_visibility: ResultsVisibility,
    #[schema(required, format = DateTime)]
    pub(crate) closes_at: Option<String>,
}

/// A session's chat as it is now.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct ChangedSession {
    pub(crate) session: Uuid,
    pub(crate) slow_mode_seconds: u32,
    pub(crate) chat_enabled: bool,
}

/// A message that is gone.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct DeletedMessage {
    /// Its id.
    pub(crate) message: Uuid,
}

/// Bans.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct Bans {
    /// The newest first.
    #[schema(max_items = 100)]
    pub(crate) bans: Vec<Ban>,
}

/// Who is kept out.
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

/// How a user stands in a session.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its shape is used, for openapi.json")]
pub(crate) struct Banned {
    /// Who.
    pub(crate) user: Uuid,
    /// When it ends; null for a ban for good, and where there is none.
    #[schema(required, format = DateTime)]
    pub(crate) until: Option<String>,
}

/// What to choose a ballot from
///
/// Movies whose title has a text in it, by title.
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

/// Opens a voting
///
/// The question with its ballot, at once, in one transaction. A session has one open voting at most.
#[utoipa::path(
    post, path = "/v1/sessions/{id}/votings", tag = "moderation",
    params(("id" = uuid::Uuid, Path, description = "The session.")),
    request_body = NewVoting,
    responses((status = 201, body = Data<OpenedVoting>, description = "It is open."), Writing),
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

/// Closes a voting, or shows or hides its counts
///
/// Closed is final: the database counts once more, and everybody gets the result.
#[utoipa::path(
    patch, path = "/v1/votings/{id}", tag = "moderation",
    params(("id" = uuid::Uuid, Path, description = "The voting.")),
    request_body = VotingChange,
    responses((status = 200, body = Data<ChangedVoting>, description = "As it is now."), Writing),
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
    responses((status = 200, body = Data<ChangedSession>, description = "As it is now."), Writing),
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
/// Its author and moderators may. Its text leaves the log with it; the row stays for moderators.
#[utoipa::path(
    delete, path = "/v1/messages/{id}", tag = "moderation",
    params(("id" = uuid::Uuid, Path, description = "The message.")),
    responses((status = 200, body = Data<DeletedMessage>, description = "It is gone."), Writing),
    security(("token" = [])),
)]
pub(crate) async fn delete_message(
    State(api): State<Api>,
    author: SignedInCaller,
    Id(message): Id<MessageId>,
) -> Result<Response, Refused> {
    moderate(&api, author, Act::DeleteMessage(message), StatusCode::OK).await
}

/// Who is kept out of a session
///
/// The newest hundred who are timed out or banned. Who does not moderate sees no more than their own.
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
/// With an end the user reads on and may not write or vote until then; without, the user is out within a second. Doing it
/// again sets it anew. Nobody bans the streamer, themselves, or, but for the streamer, a moderator.
#[utoipa::path(
    put, path = "/v1/sessions/{id}/bans/{user}", tag = "moderation",
    params(
        ("id" = uuid::Uuid, Path, description = "The session."),
        ("user" = uuid::Uuid, Path, description = "The user.")
    ),
    request_body = NewBan,
    responses((status = 200, body = Data<Banned>, description = "The ban holds."), Writing),
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

/// Lets a user in again
///
/// Having no ban is fine.
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

/// A user of a session, by the two ids of the path.
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

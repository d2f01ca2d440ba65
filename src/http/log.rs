//! The call for pages of a session's log.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::response::Response;
use hyper::http::request::Parts;
use serde_json::json;

use crate::http::openapi::{EventsPage, Reading};
use crate::http::reply::{self, Data};
use crate::http::request::{Caller, Id, QueryParams, Refused, told};
use crate::http::state::Api;
use crate::limits::{CALL_EVENTS_DEFAULT, CALL_EVENTS_MAX};
use crate::net::queries::Queries;
use usher_core::auth::identity::Identity;
use usher_core::protocol::id::{Seq, SessionId};
use usher_core::protocol::refusal::Refusal;
use usher_core::relay::snapshot::Admission;

/// The query of the call.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// The number of the last event that you have.
    #[param(value_type = Option<u64>, minimum = 0, maximum = 9_223_372_036_854_775_807_i64, default = 0)]
    after: Seq,
    /// The largest number of events. A page has at most about 256 KiB, so it may have fewer although more follow.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1_000, default = 100)]
    limit: u16,
}

impl FromRequestParts<Api> for EventsQuery {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Self::Rejection> {
        let query = QueryParams::of(parts);
        Ok(Self {
            after: query.seq("after")?.unwrap_or_default(),
            limit: query.count("limit", 1..=CALL_EVENTS_MAX, CALL_EVENTS_DEFAULT)?,
        })
    }
}

/// A page of the log
///
/// Returns the consecutive events after a number, oldest first. An empty page with a `head` larger than `after` means
/// that the events were trimmed (`floor` is larger than `after`): start again after `floor`. Another `epoch` than
/// before, or a `head` smaller than `after`, means that the database went back in time.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/events", tag = "sessions",
    params(("id" = uuid::Uuid, Path, description = "The session."), EventsQuery),
    responses((status = 200, body = Data<EventsPage>, description = "The page."), Reading),
    security((), ("token" = [])),
)]
pub(crate) async fn events(
    State(queries): State<Arc<Queries>>,
    caller: Caller,
    Id(session): Id<SessionId>,
    query: EventsQuery,
) -> Result<Response, Refused> {
    admit(&queries, session, &caller.identity).await?;
    let page = queries
        .store
        .page_of(session, query.after, query.limit)
        .await;
    let page = told(page, "a page of the log", &queries)?;
    let events: Vec<&[u8]> = page.events.iter().map(|event| &*event.json).collect();
    let rest = json!({ "head": page.head, "floor": page.floor, "epoch": page.epoch });
    Ok(reply::data_text(&reply::list_and("events", &events, &rest)))
}

/// Returns what the caller may do in a session.
///
/// # Errors
/// The caller may not see the session, or the database cannot be asked.
pub(crate) async fn admit(
    queries: &Queries,
    session: SessionId,
    identity: &Arc<Identity>,
) -> Result<Admission, Refusal> {
    let answer = queries.admissions.ask(session, identity).await;
    answer.unwrap_or_else(|| Err(Refusal::unavailable()))
}

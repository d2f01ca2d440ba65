//! The calls for counts and votes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;

use crate::http::log::admit;
use crate::http::messages::write;
use crate::http::openapi::{Reading, TallySchema, Writing};
use crate::http::reply::{self, Data};
use crate::http::request::{Caller, Id, JsonText, Refused, SignedInCaller, told};
use crate::net::queries::Queries;
use crate::net::writes::Writes;
use usher_core::protocol::client::{self, NewVote};
use usher_core::protocol::id::VotingId;
use usher_core::protocol::refusal::{Refusal, RefusalCode};
use usher_core::protocol::server::Voted;
use usher_core::protocol::websocket;
use usher_core::relay::message::Write;

/// The counts of a poll
///
/// Returns the `tally` frame of the socket. While a poll with `after_close` is open, `counts` is null except for the
/// streamer and the moderators.
#[utoipa::path(
    get, path = "/v1/votings/{id}/tally", tag = "votings",
    params(("id" = uuid::Uuid, Path, description = "The poll.")),
    responses((status = 200, body = Data<TallySchema>, description = "The counts."), Reading),
    security((), ("token" = [])),
)]
pub(crate) async fn tally(
    State(queries): State<Arc<Queries>>,
    caller: Caller,
    Id(voting): Id<VotingId>,
) -> Result<Response, Refused> {
    let tallies = queries.store.tallies(&[voting]).await;
    let tallies = told(tallies, "the counts of a voting", &queries)?;
    let none = || {
        Refusal::new(
            RefusalCode::NotFound,
            "no such voting, or not for this caller",
        )
    };
    let tally = tallies.first().ok_or_else(none)?;
    // A caller who may not see the session must not learn that the poll exists.
    let admission = admit(&queries, tally.session, &caller.identity).await;
    let admission = admission.map_err(|refusal| {
        let is_unseen = refusal.code == RefusalCode::NotFound;
        if is_unseen { none() } else { refusal }
    })?;
    let frame = tally.frame(admission.access.can.moderate);
    Ok(reply::data_text(websocket::payload(&frame.bytes)))
}

/// Casts or changes a vote
#[utoipa::path(
    put, path = "/v1/votings/{id}/vote", tag = "votings",
    params(("id" = uuid::Uuid, Path, description = "The poll.")),
    request_body = NewVote,
    responses((status = 200, body = Data<Voted>, description = "The vote is counted."), Writing),
    security(("token" = [])),
)]
pub(crate) async fn vote(
    State(writes): State<Arc<Writes>>,
    author: SignedInCaller,
    Id(voting): Id<VotingId>,
    JsonText(text): JsonText,
) -> Result<Response, Refused> {
    let vote = client::vote(voting, &text)?;
    cast(&writes, author, vote).await
}

/// Withdraws a vote
///
/// It succeeds without a vote too.
#[utoipa::path(
    delete, path = "/v1/votings/{id}/vote", tag = "votings",
    params(("id" = uuid::Uuid, Path, description = "The poll.")),
    responses((status = 200, body = Data<Voted>, description = "You have no vote."), Writing),
    security(("token" = [])),
)]
pub(crate) async fn withdraw_vote(
    State(writes): State<Arc<Writes>>,
    author: SignedInCaller,
    Id(voting): Id<VotingId>,
) -> Result<Response, Refused> {
    let movie = None;
    cast(&writes, author, NewVote { voting, movie }).await
}

async fn cast(writes: &Writes, author: SignedInCaller, vote: NewVote) -> Result<Response, Refused> {
    let done = write(writes, author, Write::Vote(vote)).await?;
    Ok(reply::data(StatusCode::OK, &done))
}

//! Server-Sent Events: a session's frames for clients that can only listen.
//!
//! ```text
//! fan-out loop ⇄ connection ─► StreamWriter ─► StreamBody ─► body of the answer
//! ```
//!
//! To the rest of the gateway a stream is a client like any other: a connection with its peer, fed by the fan-out loop,
//! caught up from the log, closed if it is too slow. Only the form of its frames differs, and where they go.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::response::Response;
use futures::StreamExt as _;
use hyper::Method;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::http::log::admit;
use crate::http::openapi::Reading;
use crate::http::request::{Caller, Id, QueryParams, Refused, parse_seq};
use crate::http::state::Api;
use crate::limits::{QUERY_TIMEOUT, STREAM_RETURN_MS};
use crate::net::accept::{Stay, handshake, handshake_auth};
use crate::net::connection::{Client, EventStream};
use crate::net::random_below;
use crate::net::socket::outbound_io;
use usher_core::limits::{HISTORY_DEFAULT, HISTORY_MAX};
use usher_core::protocol::client::{ResumePoint, Subscribe};
use usher_core::protocol::id::{Seq, SessionId};
use usher_core::protocol::refusal::{Refusal, RefusalCode};
use usher_core::protocol::sse::{self, Encoder, Ids, LastEventId};

/// The query of the call.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamQuery {
    /// The last number that you have, to continue from. `Last-Event-ID` overrides it.
    #[param(value_type = Option<u64>, minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    after: Option<Seq>,
    /// The epoch of that number, from `subscribed`. An epoch in `Last-Event-ID` overrides it. Without one, the gateway
    /// assumes the current epoch.
    #[param(value_type = Option<String>)]
    epoch: Option<String>,
    /// The content of an event's `id`: `seq`, or with `epoch` both (`1302@k3v9`). A browser sends the last `id` when it
    /// reconnects. With `epoch` it also notices a restored database.
    #[param(value_type = Option<String>, default = "seq")]
    ids: Ids,
    /// The number of newest events to start with, without a number to continue from.
    #[param(value_type = Option<u16>, maximum = 200, default = 50)]
    history: u16,
}

impl FromRequestParts<Api> for StreamQuery {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Self::Rejection> {
        let query = QueryParams::of(parts);
        let last = parts.headers.get("last-event-id");
        let last = last.filter(|last| !last.is_empty()).map(|last| {
            let place = last.to_str().ok().map(LastEventId::parse);
            let place = place.and_then(|place| Some((parse_seq(&place.seq)?, place.epoch)));
            let refusal = || {
                Refusal::bad_request(
                    "the header Last-Event-ID must be the number of an event, or the id of one",
                )
            };
            place.ok_or_else(refusal)
        });
        let last = last.transpose()?;
        let ids = match query.text("ids").as_deref() {
            None | Some("seq") => Ids::Seq,
            Some("epoch") => Ids::SeqAndEpoch,
            Some(_) => return Err(Refusal::bad_request("ids must be seq or epoch").into()),
        };
        let (after, epoch) = last.map_or((None, None), |(seq, epoch)| (Some(seq), epoch));
        Ok(Self {
            after: after.or(query.seq("after")?),
            epoch: epoch.or(query.text("epoch")),
            ids,
            history: query.count("history", 0..=HISTORY_MAX, HISTORY_DEFAULT)?,
        })
    }
}

/// Live events of a session
///
/// Server-Sent Events. The data of each event is a frame of the socket: first `subscribed`, then `events`, `tally`,
/// `viewers`, `access`, `reset` and others. The `id` of an event is the newest `seq` in it, and a browser reconnects
/// with it. The stream ends when the token expires, when you lose access, and when the gateway stops.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/stream", tag = "sessions",
    params(
        ("id" = uuid::Uuid, Path, description = "The session."),
        StreamQuery,
        ("access_token" = Option<String>, Query, description = "The token, for browsers: an EventSource sets no headers."),
        ("Last-Event-ID" = Option<String>, Header, description = "The last number that you have, or the last id.")
    ),
    responses(
        (status = 200, body = String, content_type = "text/event-stream", description = "The stream."),
        Reading
    ),
    security((), ("token" = [])),
)]
pub(crate) async fn stream(
    State(api): State<Api>,
    method: Method,
    caller: Caller,
    Id(session): Id<SessionId>,
    stay: Stay,
    query: StreamQuery,
) -> Result<Response, Refused> {
    if method == Method::HEAD {
        // Answers whether a stream would begin, and opens none.
        admit(&api.connections.queries, session, &caller.identity).await?;
        return Ok(answer(Body::empty()));
    }
    let permits = handshake_auth::permits(&api.handshake, &caller.client);
    let permits = permits.map_err(|(_, refusal)| refusal)?;
    let (writer, body) = outbound_io::stream(permits);
    let (begun, begins) = oneshot::channel();
    let client = Client::Stream(EventStream {
        writer,
        encoder: Encoder::new(query.ids),
        subscribe: query.subscribe(session),
        begun,
    });
    let over = CancellationToken::new();
    // Dropped when the connection ends, in every case.
    let ending = over.clone().drop_guard();
    let connections = Arc::clone(&api.connections);
    let serving = handshake::serve(connections, client, Some(caller.identity));
    api.connections.shutdown.tasks.spawn(async move {
        serving.await;
        drop(ending);
    });
    match timeout(QUERY_TIMEOUT, begins).await {
        Ok(Ok(begins)) => begins?,
        Ok(Err(_)) => {
            let message = "the stream could not begin, try again";
            return Err(Refusal::new(RefusalCode::Unavailable, message).into());
        }
        Err(_) => return Err(Refusal::unavailable().into()),
    }
    stay.until(over);
    let retry = sse::retry(
        STREAM_RETURN_MS.start + random_below(STREAM_RETURN_MS.end - STREAM_RETURN_MS.start),
    );
    let start = futures::stream::iter([Ok(retry)]);
    Ok(answer(Body::from_stream(start.chain(body))))
}

fn answer(body: Body) -> Response {
    let mut response = Response::new(body);
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // A later request would have no slot, because the stream gave it back.
        (header::CONNECTION, "close"),
        // nginx would buffer the stream.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

impl StreamQuery {
    fn subscribe(self, session: SessionId) -> Subscribe {
        let epoch = self.epoch;
        Subscribe {
            session,
            history: self.history,
            resume: self.after.map(|seq| ResumePoint {
                seq,
                epoch,
                token: None,
            }),
        }
    }
}

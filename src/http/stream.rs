//! Server-Sent Events: a session's frames for clients that can only listen.
//!
//! ```text
//! fan-out loop ⇄ connection ─► socket pair ─► EventStream ─► body of the answer
//! ```
//!
//! To the rest of the gateway a stream is a socket like any other: a connection with its peer, fed by the fan-out, caught
//! up from the log, closed when it is too slow. Its client is [`EventStream`], at the other end of a socket pair: it sends
//! the one `subscribe`, answers pings while the true client reads, and translates. A pair of the kernel's and not a channel
//! of ours, since it is bounded, and full, in just the way that a client's own socket is. It costs two more files, so a
//! stream takes three seats.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use hyper::Method;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use serde_json::json;
use socket2::SockRef;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::http::log::admit;
use crate::http::openapi::Reading;
use crate::http::request::{Caller, Id, QueryParams, Refused, parse_seq};
use crate::http::state::Api;
use crate::limits::{
    FILES_PER_STREAM, QUERY_TIMEOUT, STREAM_BUFFER_BYTES, STREAM_READ_BYTES, STREAM_RETURN_MS,
};
use crate::net::accept::handshake_auth::{self, ConnectionPermits};
use crate::net::accept::{Stay, handshake};
use crate::net::connection::Upgraded;
use crate::net::random_below;
use crate::net::socket::Socket;
use usher_core::limits::{HISTORY_DEFAULT, HISTORY_MAX};
use usher_core::protocol::id::{Seq, SessionId};
use usher_core::protocol::refusal::{Refusal, RefusalCode};
use usher_core::protocol::sse::{
    self, CLIENT_PONG, FrameReader, Ids, LastEventId, ReadFrame, StreamEvent, Translator,
};

/// Where to begin.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamQuery {
    /// The last number that you have, to go on from; `Last-Event-ID` wins over it.
    #[param(value_type = Option<u64>, minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    after: Option<Seq>,
    /// The epoch of that number, from `subscribed`; one in `Last-Event-ID` wins over it. Without any you are taken at your
    /// word.
    #[param(value_type = Option<String>)]
    epoch: Option<String>,
    /// What the `id` of an event is: `seq` alone, or with `epoch` both (`1302@k3v9`). A browser sends the last `id` when it
    /// reconnects, so with `epoch` it also notices a database that was taken back.
    #[param(value_type = Option<String>, default = "seq")]
    ids: Ids,
    /// How many of the newest events to begin with, where there is nothing to go on from.
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

/// What happens, as it happens
///
/// Server-Sent Events. Each event's data is a frame as the socket has it: first `subscribed`, then `events`, `tally`,
/// `viewers`, `access`, `reset` and others. The `id` of an event is the newest `seq` in it, so that a browser comes back
/// with it by itself. The stream ends when the token expires, when access is withdrawn, and when the gateway stops.
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
        // Whether there would be one; nothing is opened that nobody reads.
        admit(&api.connections.queries, session, &caller.identity).await?;
        return Ok(answer(Body::empty()));
    }
    let permits = handshake_auth::permits(&api.handshake, &caller.client, FILES_PER_STREAM);
    let permits = permits.map_err(|(_, refusal)| refusal)?;
    let pair = UnixStream::pair().and_then(|(ours, theirs)| {
        // The kernel doubles it, and takes what it needs itself from that.
        SockRef::from(&ours).set_send_buffer_size(STREAM_BUFFER_BYTES / 2)?;
        Ok((ours, theirs))
    });
    let (ours, theirs) = pair.map_err(|_| Refusal::unavailable())?;
    let subscribe = query.subscribe(session);
    let identity = Some(Arc::clone(&caller.identity));
    let over = CancellationToken::new();
    // Dropped with the connection, whatever happens to it.
    let ending = over.clone().drop_guard();
    let serving = {
        let connections = Arc::clone(&api.connections);
        async move {
            let socket = Upgraded {
                socket: Socket::Pair(ours),
                read: subscribe,
                is_compressed: false,
            };
            handshake::serve(connections, socket, identity).await;
            drop(ending);
        }
    };
    api.connections.shutdown.tasks.spawn(serving);
    let mut stream = EventStream::new(theirs, permits, Translator::new(query.ids));
    let first = match timeout(QUERY_TIMEOUT, stream.first()).await {
        Ok(first) => first?,
        Err(_) => return Err(Refusal::unavailable().into()),
    };
    stay.until(over);
    let retry = sse::retry(
        STREAM_RETURN_MS.start + random_below(STREAM_RETURN_MS.end - STREAM_RETURN_MS.start),
    );
    let start = futures::stream::iter([Ok(retry), Ok(first)]);
    Ok(answer(Body::from_stream(start.chain(stream))))
}

fn answer(body: Body) -> Response {
    let mut response = Response::new(body);
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // What comes after the stream would have no place: that was given back.
        (header::CONNECTION, "close"),
        // nginx would keep it until it has a page full.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

impl StreamQuery {
    /// The frame that asks for it, as bytes from a client.
    fn subscribe(&self, session: SessionId) -> Vec<u8> {
        let mut frame = json!({ "type": "subscribe", "session": session });
        match self.after {
            Some(seq) => frame["resume"] = json!({ "seq": seq, "epoch": self.epoch }),
            None => frame["history"] = self.history.into(),
        }
        sse::client_text(&frame.to_string())
    }
}

/// The client's end of the pair, as the body of an answer.
#[derive(Debug)]
struct EventStream {
    socket: UnixStream,
    frames: FrameReader,
    translator: Translator,
    is_over: bool,
    _seats: ConnectionPermits,
}

impl EventStream {
    fn new(socket: UnixStream, permits: ConnectionPermits, translator: Translator) -> Self {
        Self {
            socket,
            frames: FrameReader::default(),
            translator,
            is_over: false,
            _seats: permits,
        }
    }

    /// The first event, or why there is none.
    async fn first(&mut self) -> Result<Bytes, Refusal> {
        match futures::future::poll_fn(|cx| self.poll_event(cx)).await {
            Ok(Some(StreamEvent::Refused { refusal, .. })) => Err(refusal),
            Ok(Some(StreamEvent::Send(event))) => Ok(event),
            Ok(Some(StreamEvent::Nothing) | None) | Err(_) => Err(Refusal::new(
                RefusalCode::Unavailable,
                "the stream could not begin, try again",
            )),
        }
    }

    /// The next event that means something; `None` at the end.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<StreamEvent>>> {
        loop {
            while let Some(frame) = self.frames.next_frame() {
                match frame {
                    ReadFrame::Text(text) => {
                        let event = self.translator.event(&text);
                        if event != StreamEvent::Nothing {
                            return Poll::Ready(Ok(Some(event)));
                        }
                    }
                    ReadFrame::Ping => {
                        // Where the connection does not read, it takes the reading of this end for a sign of life.
                        let _ = self.socket.try_write(&CLIENT_PONG);
                        return Poll::Ready(Ok(Some(StreamEvent::Send(sse::comment()))));
                    }
                    ReadFrame::Close => self.is_over = true,
                    ReadFrame::Other => {}
                }
            }
            if self.is_over {
                return Poll::Ready(Ok(None));
            }
            ready!(self.socket.poll_read_ready(cx))?;
            let mut bytes = [0; STREAM_READ_BYTES];
            match self.socket.try_read(&mut bytes) {
                Ok(0) => self.is_over = true,
                Ok(count) => self.frames.extend(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Stream for EventStream {
    type Item = io::Result<Bytes>;

    /// Everything that waits, as one piece.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut piece = BytesMut::new();
        while piece.len() < STREAM_READ_BYTES {
            match self.poll_event(cx) {
                Poll::Ready(Ok(Some(
                    StreamEvent::Send(event) | StreamEvent::Refused { event, .. },
                ))) => {
                    piece.extend_from_slice(&event);
                }
                Poll::Ready(Ok(Some(StreamEvent::Nothing))) => {}
                Poll::Ready(Ok(None)) if piece.is_empty() => return Poll::Ready(None),
                Poll::Ready(Err(error)) if piece.is_empty() => {
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Pending if piece.is_empty() => return Poll::Pending,
                Poll::Ready(Ok(None) | Err(_)) | Poll::Pending => break,
            }
        }
        Poll::Ready(Some(Ok(piece.freeze())))
    }
}

//! From an HTTP request to a WebSocket: who may, and how it is said (RFC 6455 §4.2).
//!
//! Whoever may not is refused here, before the upgrade: a socket that opens and closes at once resets the back-off of
//! most clients.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::FutureExt as _;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::tungstenite::handshake::server::create_response;
use tracing::{debug, error};

use crate::auth::identity::{Credential, Identity};
use crate::metrics::HandshakeRefusal;
use crate::protocol::refusal::{Refusal, RefusalCode};
use crate::server::Shared;
use crate::server::connection::Connection;
use crate::server::fanout::Command;
use crate::server::http::refusal_response;
use crate::server::socket::Socket;
use crate::server::throttle::{AddressSeat, ms_rounded_up};

/// The subprotocol that good clients offer.
pub const SUBPROTOCOL: &str = "usher.v1";

const RETRY_AFTER_MS: u64 = 2_000;

/// When an address that has all its sockets may try again: one of them may have been closed by then.
const SOCKET_PAUSE: Duration = Duration::from_secs(10);

/// A socket's places, given back when it ends.
struct Seats {
    _at_node: OwnedSemaphorePermit,
    _at_address: AddressSeat,
}

/// Answers a handshake; where it is accepted a connection's task begins.
pub async fn respond<B>(
    shared: &Arc<Shared>,
    address: IpAddr,
    mut request: Request<B>,
) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, _) = request.into_parts();
    let (identity, seats) = match admit(shared, address, &parts).await {
        Ok(admitted) => admitted,
        Err((why, status, refusal)) => {
            shared
                .metrics
                .handshake_refusals
                .get_or_create(&why.into())
                .inc();
            return refusal_response(status, &refusal);
        }
    };
    let protocol = offered_subprotocol(&parts.headers);
    let Ok(response) = create_response(&Request::from_parts(parts, ())) else {
        shared
            .metrics
            .handshake_refusals
            .get_or_create(&HandshakeRefusal::Malformed.into())
            .inc();
        let refusal = Refusal::bad_request(
            "this is a websocket: send GET with Upgrade: websocket, version 13",
        );
        let mut response = refusal_response(StatusCode::UPGRADE_REQUIRED, &refusal);
        response
            .headers_mut()
            .insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(
            header::SEC_WEBSOCKET_VERSION,
            HeaderValue::from_static("13"),
        );
        return response;
    };
    shared
        .tasks
        .spawn(connect(Arc::clone(shared), upgrade, identity, seats));
    let mut response = response.map(|()| Body::empty());
    if let Some(protocol) = protocol {
        response
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

/// Says who the client is and gives it a seat, or says why it may not connect.
async fn admit(
    shared: &Shared,
    address: IpAddr,
    request: &Parts,
) -> Result<(Option<Identity>, Seats), (HandshakeRefusal, StatusCode, Refusal)> {
    let client = shared.throttle.client(address, &request.headers);
    if let Err(wait) = shared.throttle.request(client) {
        return Err(too_many("too many attempts from this address", wait));
    }
    if let Some(flaw) = flaw(request) {
        let refusal = Refusal::bad_request(flaw);
        return Err((
            HandshakeRefusal::Malformed,
            StatusCode::BAD_REQUEST,
            refusal,
        ));
    }
    let origin = request.headers.get(header::ORIGIN);
    // One that is not even text is on no list.
    let origin = origin.map(|origin| origin.to_str().unwrap_or_default());
    if !shared.allowed_origins.is_allowed(origin) {
        let refusal = Refusal::new(RefusalCode::Forbidden, "this origin is not allowed");
        return Err((HandshakeRefusal::Origin, StatusCode::FORBIDDEN, refusal));
    }
    let credential = credential(&request.headers, request.uri.query());
    let identity = match credential.as_deref().map(Credential::parse) {
        None | Some(Credential::Absent) => None,
        Some(Credential::Token(token)) => {
            Some(shared.keyring.prove(token).await.map_err(unproven)?)
        }
    };
    if shared.stopping.is_cancelled() {
        let refusal = Refusal::unavailable(RETRY_AFTER_MS);
        return Err((
            HandshakeRefusal::Draining,
            StatusCode::SERVICE_UNAVAILABLE,
            refusal,
        ));
    }
    let Some(at_address) = shared.throttle.socket(client) else {
        return Err(too_many("too many sockets from this address", SOCKET_PAUSE));
    };
    let Ok(at_node) = Arc::clone(&shared.seats).try_acquire_owned() else {
        let mut refusal = Refusal::new(RefusalCode::Unavailable, "this node is full, try again");
        refusal.retry_after_ms = Some(RETRY_AFTER_MS);
        return Err((
            HandshakeRefusal::Full,
            StatusCode::SERVICE_UNAVAILABLE,
            refusal,
        ));
    };
    let seats = Seats {
        _at_node: at_node,
        _at_address: at_address,
    };
    Ok((identity, seats))
}

/// What makes a request one that two readers, a proxy and this gateway, could read in two ways (RFC 9112 §11).
fn flaw(request: &Parts) -> Option<&'static str> {
    let count = |name: HeaderName| request.headers.get_all(name).iter().count();
    let length = request.headers.get(header::CONTENT_LENGTH);
    if request.version == Version::HTTP_11 && count(header::HOST) != 1 {
        // RFC 9112 §3.2.
        Some("the header Host must be given, and once")
    } else if count(header::SEC_WEBSOCKET_KEY) > 1 || count(header::SEC_WEBSOCKET_VERSION) > 1 {
        // RFC 6455 §11.3.
        Some("the headers Sec-WebSocket-Key and Sec-WebSocket-Version must be given once")
    } else if length.is_some_and(|length| length != "0") || count(header::TRANSFER_ENCODING) > 0 {
        Some("a handshake must have no body: leave Content-Length and Transfer-Encoding out")
    } else {
        None
    }
}

fn unproven(refusal: Refusal) -> (HandshakeRefusal, StatusCode, Refusal) {
    if refusal.code == RefusalCode::Unavailable {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return (HandshakeRefusal::Keys, status, refusal);
    }
    (HandshakeRefusal::Token, StatusCode::UNAUTHORIZED, refusal)
}

fn too_many(message: &'static str, wait: Duration) -> (HandshakeRefusal, StatusCode, Refusal) {
    let mut refusal = Refusal::new(RefusalCode::RateLimited, message);
    refusal.retry_after_ms = Some(ms_rounded_up(wait));
    (
        HandshakeRefusal::Address,
        StatusCode::TOO_MANY_REQUESTS,
        refusal,
    )
}

/// The text where a token is expected: the header first, then the query, for clients that can set no header.
#[must_use]
pub fn credential(headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    // What is not text is a token that is not valid, not one that is absent.
    let header = headers.get(header::AUTHORIZATION);
    let header = header.map(|value| String::from_utf8_lossy(value.as_bytes()));
    // A header that holds no token of ours, say a proxy's own password, does not hide the query's.
    if let Some(Credential::Token(token)) = header.as_deref().map(Credential::from_authorization) {
        return Some(token.to_owned());
    }
    // A JWT is made of letters that a query leaves as they are.
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .into_iter()
        .find(|(name, _)| *name == "access_token")
        .map(|(_, token)| token.to_owned())
}

/// The subprotocol to echo, where the client offers ours.
#[must_use]
pub fn offered_subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offers = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let is_offered = offers
        .flat_map(|value| value.split(','))
        .any(|offer| offer.trim() == SUBPROTOCOL);
    is_offered.then(|| HeaderValue::from_static(SUBPROTOCOL))
}

async fn connect(
    shared: Arc<Shared>,
    upgrade: OnUpgrade,
    identity: Option<Identity>,
    seats: Seats,
) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return debug!(error = &error as &dyn std::error::Error, "upgrade failed"),
    };
    let (socket, read) = unwrap(upgraded);
    let metrics = Arc::clone(&shared.metrics);
    let mut connection = Box::new(Connection::new(shared, socket, read, identity).await);
    let (peer, fanout) = connection.place();
    // Whatever happens to the task, its line must not stay behind with the socket.
    if AssertUnwindSafe(connection.run())
        .catch_unwind()
        .await
        .is_err()
    {
        error!(peer = peer.0, "a connection failed by a fault of ours");
        metrics.connections.dec();
        let _ = fanout.send(Command::Close { peer }).await;
    }
    drop(seats);
}

/// Takes hyper's wrapping off a socket, so that its buffers go.
fn unwrap(upgraded: Upgraded) -> (Socket, Vec<u8>) {
    let parts = upgraded
        .downcast::<TokioIo<Socket>>()
        .expect("every connection is served over a socket of ours");
    // Copied, since the buffer itself is eight KiB for the few bytes, mostly none, that came after the request.
    (parts.io.into_inner(), parts.read_buf.to_vec())
}

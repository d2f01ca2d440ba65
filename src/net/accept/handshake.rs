//! Answers WebSocket handshakes (RFC 6455 §4.2) and starts a connection for each accepted one.
//!
//! Refuses clients before the upgrade: a socket that opens and closes immediately resets the backoff of most clients.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use futures::FutureExt as _;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::server::create_response;
use tracing::{debug, error};

use crate::causes::with_causes;
use crate::http::error_response;
use crate::metrics::HandshakeRefusal;
use crate::net::accept::handshake_auth;
use crate::net::accept::handshake_auth::{ConnectionPermits, HandshakeContext, HandshakeRejection};
use crate::net::connection::{Client, Connection, ConnectionContext, Upgraded};
use crate::net::fanout::loops::FanoutCommand;
use crate::net::socket::Socket;
use usher_core::auth::identity::Identity;
use usher_core::protocol::deflate;
use usher_core::protocol::refusal::Refusal;

/// The path of the socket.
pub(crate) const SOCKET_PATH: &str = "/v1/socket";

/// The subprotocol that clients offer.
pub(crate) const SUBPROTOCOL: &str = "usher.v1";

/// Answers a handshake, and spawns the connection's task if it is accepted.
pub(crate) async fn respond<B>(
    context: &HandshakeContext,
    connections: &Arc<ConnectionContext>,
    address: IpAddr,
    mut request: Request<B>,
) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, _) = request.into_parts();
    let (identity, permits) = match admit(context, address, &parts).await {
        Ok(admitted) => admitted,
        Err((why, refusal)) => {
            context
                .metrics
                .handshake_refusals
                .get_or_create(&why.into())
                .inc();
            return error_response::refused(&refusal);
        }
    };
    let protocol = offered_subprotocol(&parts.headers);
    let extension = accepted_extension(&parts.headers);
    let Ok(response) = create_response(&Request::from_parts(parts, ())) else {
        context
            .metrics
            .handshake_refusals
            .get_or_create(&HandshakeRefusal::Malformed.into())
            .inc();
        let refusal = Refusal::bad_request(
            "this is a websocket: send GET with Upgrade: websocket, version 13",
        );
        let mut response = error_response::refused_with(StatusCode::UPGRADE_REQUIRED, &refusal);
        response
            .headers_mut()
            .insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(
            header::SEC_WEBSOCKET_VERSION,
            HeaderValue::from_static("13"),
        );
        return response;
    };
    connections.shutdown.tasks.spawn(connect(
        Arc::clone(connections),
        upgrade,
        extension.is_some(),
        identity,
        permits,
    ));
    let mut response = response.map(|()| Body::empty());
    if let Some(protocol) = protocol {
        response
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    if let Some(extension) = extension {
        response
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_EXTENSIONS, extension);
    }
    response
}

/// Authenticates the client and reserves its permits.
async fn admit(
    context: &HandshakeContext,
    address: IpAddr,
    request: &Parts,
) -> Result<(Option<Arc<Identity>>, ConnectionPermits), HandshakeRejection> {
    let client =
        handshake_auth::authenticate(context, address, &request.headers, request.uri.query())
            .await?;
    if let Some(flaw) = flaw(request) {
        return Err((HandshakeRefusal::Malformed, Refusal::bad_request(flaw)));
    }
    let permits = handshake_auth::permits(context, &client)?;
    Ok((client.identity, permits))
}

/// Finds an ambiguity in a request: a proxy and this gateway could read it differently (RFC 9112 §11).
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

/// Returns the subprotocol if the client offers it.
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

/// Returns the compression extension if the client offers one that the gateway supports.
fn accepted_extension(headers: &HeaderMap) -> Option<HeaderValue> {
    let offers = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS);
    let offers = offers.iter().filter_map(|value| value.to_str().ok());
    deflate::accept(offers).map(HeaderValue::from_static)
}

async fn connect(
    context: Arc<ConnectionContext>,
    upgrade: OnUpgrade,
    is_compressed: bool,
    identity: Option<Arc<Identity>>,
    permits: ConnectionPermits,
) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return debug!(error = with_causes(&error), "upgrade failed"),
    };
    let client = Client::Socket(unwrap(upgraded, is_compressed));
    serve(context, client, identity).await;
    drop(permits);
}

/// Serves a client until it or the gateway ends the connection.
pub(crate) fn serve(
    context: Arc<ConnectionContext>,
    client: Client,
    identity: Option<Arc<Identity>>,
) -> impl Future<Output = ()> + Send {
    let metrics = Arc::clone(&context.metrics);
    // Boxed here: a future reserves room for its arguments and its largest part for all its life.
    let connecting = Box::pin(Connection::new(context, client, identity));
    async move {
        let mut connection = Box::new(connecting.await);
        let (peer, fanout) = connection.place();
        // After a panic the fan-out loop must drop its side of the socket, too.
        if AssertUnwindSafe(connection.run())
            .catch_unwind()
            .await
            .is_err()
        {
            error!(peer = peer.0, "a connection failed because of a bug");
            metrics.connections.dec();
            let _ = fanout.send(FanoutCommand::Close { peer, held: None }).await;
        }
    }
}

/// Takes the socket out of hyper's types, which frees hyper's buffers.
fn unwrap(upgraded: hyper::upgrade::Upgraded, is_compressed: bool) -> Upgraded {
    let parts = upgraded
        .downcast::<TokioIo<Socket>>()
        .expect("hyper serves every connection over our socket type");
    // Copied: hyper's buffer takes 8 KiB for the few bytes, usually none, that followed the request.
    Upgraded {
        socket: parts.io.into_inner(),
        read: parts.read_buf.to_vec(),
        is_compressed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_of_an_idle_connection_is_small() {
        fn size<F: Future>(
            _: impl Fn(
                Arc<ConnectionContext>,
                OnUpgrade,
                bool,
                Option<Arc<Identity>>,
                ConnectionPermits,
            ) -> F,
        ) -> usize {
            size_of::<F>()
        }
        let bytes = size(connect);
        assert!(
            bytes <= 800,
            "{bytes} bytes for each of thousands of connections: box the rare parts"
        );
    }
}

//! Accepts connections and serves HTTP on them until they are upgraded or closed.

pub(crate) mod client_address;
pub mod handshake;
pub mod handshake_auth;
pub(crate) mod pending_connections;
pub mod tls;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::FromRequestParts;
use hyper::HeaderMap;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, SockRef, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;
use tracing::{debug, warn};

use crate::causes::with_causes;
use crate::limits::{
    ACCEPT_BACKLOG, CLOSE_TIMEOUT, EXHAUSTED_PAUSE, PLAIN_CONNECTION_MAX, REQUEST_HEAD_BYTES_MAX,
    REQUEST_HEAD_TIMEOUT,
};
use crate::net::accept::handshake::SOCKET_PATH;
use crate::net::accept::handshake_auth::HandshakeContext;
use crate::net::accept::pending_connections::{PendingConnections, Slot};
use crate::net::connection::ConnectionContext;
use crate::net::socket::Socket;

/// A failed listen, with advice.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}: {advice}")]
pub(crate) struct BindError {
    address: SocketAddr,
    advice: String,
    /// Set if the advice says less than the system's error.
    #[source]
    source: Option<io::Error>,
}

impl BindError {
    /// Finds the advice for the usual errors.
    #[must_use]
    pub(crate) fn new(address: SocketAddr, error: io::Error) -> Self {
        let port = address.port();
        let mut other = address;
        other.set_port(port.checked_add(1).unwrap_or(0));
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "for the other kinds the system's own words are the best there are"
        )]
        let (advice, source) = match error.kind() {
            io::ErrorKind::AddrInUse => (
                format!(
                    "port {port} is taken: stop what serves there, or serve on another, such as --listen {other} \
                     (USHER_LISTEN)"
                ),
                None,
            ),
            io::ErrorKind::AddrNotAvailable => (
                format!(
                    "this machine does not have the address {}: 0.0.0.0 or [::] serves on all that it has",
                    address.ip()
                ),
                None,
            ),
            io::ErrorKind::PermissionDenied => (
                format!(
                    "this user may not serve on port {port}: take one above 1023, or give the process the capability \
                     CAP_NET_BIND_SERVICE"
                ),
                None,
            ),
            _ => ("it cannot be had".to_owned(), Some(error)),
        };
        Self {
            address,
            advice,
            source,
        }
    }
}

/// Listens on an address.
///
/// # Errors
/// The port is taken, the address is not of this machine, or the user lacks the permission.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    listen(address).map_err(|error| BindError::new(address, error))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The address that a request came from. Every request has it as an extension.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddress(pub(crate) IpAddr);

/// Extends the life of a connection for an event stream. Every request has it as an extension.
#[derive(Clone, Debug)]
pub(crate) struct Stay(watch::Sender<Option<CancellationToken>>);

impl Stay {
    /// Keeps the connection until `over`. Its slot becomes free: the stream has its own permits.
    pub(crate) fn until(&self, over: CancellationToken) {
        self.0.send_replace(Some(over));
    }
}

impl<S: Sync> FromRequestParts<S> for Stay {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let stay = parts.extensions.get().cloned();
        Ok(stay.expect("every request has its stay"))
    }
}

/// What serves an accepted connection.
#[derive(Clone, Debug)]
pub(crate) struct Acceptor {
    /// The TLS configuration. `None` serves plain HTTP.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Admits clients to the socket.
    pub(crate) handshake: Arc<HandshakeContext>,
    /// Serves a socket after its handshake.
    pub(crate) connections: Arc<ConnectionContext>,
    /// Answers every other request.
    pub(crate) routes: Router,
}

/// Accepts connections until the gateway stops.
pub(crate) async fn run(listener: TcpListener, acceptor: Acceptor) {
    let context = Arc::clone(&acceptor.handshake);
    // Bounds the connections before their upgrade. The handshake bounds those after it.
    let mut pending = PendingConnections::default();
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = context.shutdown.signal.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, address)) => {
                is_failing = false;
                let client = context.rate_limits.client(address.ip(), &HeaderMap::new());
                let (slot, evicted) = pending.enter(client);
                context.metrics.evicted.inc_by(evicted.into());
                let serving = serve(socket, address.ip(), acceptor.clone(), slot);
                context.shutdown.tasks.spawn(serving);
            }
            Err(error) => {
                // Logged once per outage: twenty lines a second would bury the cause.
                if !std::mem::replace(&mut is_failing, true) {
                    warn!(
                        error = with_causes(&error),
                        "cannot accept connections, trying again"
                    );
                }
                sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

async fn serve(socket: TcpStream, address: IpAddr, acceptor: Acceptor, slot: Slot) {
    let _ = socket.set_nodelay(true);
    // The keepalive finds dead clients before the upgrade, and the heartbeat after it.
    let _ = SockRef::from(&socket).set_keepalive(true);
    let socket = match &acceptor.tls {
        None => Socket::Plain(socket),
        Some(tls) => match tls::secured(socket, tls, &acceptor.handshake.metrics).await {
            Some(socket) => socket,
            None => return,
        },
    };
    let stopping = acceptor.handshake.shutdown.signal.clone();
    let (stay, mut streams) = watch::channel(None::<CancellationToken>);
    let stay = Stay(stay);
    let service = service_fn(move |mut request| {
        let acceptor = acceptor.clone();
        request.extensions_mut().insert(PeerAddress(address));
        request.extensions_mut().insert(stay.clone());
        async move { Ok::<_, Infallible>(answer(acceptor, address, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_HEAD_TIMEOUT)
        .max_buf_size(REQUEST_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::pin!(connection);
    let (mut is_stopping, mut stream, mut slot) = (false, None, Some(slot));
    // A client that does not read its answers must not keep its slot forever. After `PLAIN_CONNECTION_MAX` the connection
    // shuts down gracefully, and after `CLOSE_TIMEOUT` more the gateway drops it. An upgrade ends this future earlier.
    let too_long = sleep(PLAIN_CONNECTION_MAX);
    let mut is_leaving = false;
    tokio::pin!(too_long);
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut connection => break outcome,
            () = &mut too_long, if stream.is_none() => {
                if is_leaving {
                    break Ok(());
                }
                is_leaving = true;
                connection.as_mut().graceful_shutdown();
                too_long.as_mut().reset(Instant::now() + CLOSE_TIMEOUT);
            }
            () = evicted(slot.as_ref()) => break Ok(()),
            Ok(()) = streams.changed() => {
                stream.clone_from(&streams.borrow_and_update());
                slot = None;
            }
            () = over(stream.as_ref()) => {
                // Drops a client that does not read the end of its stream.
                (stream, is_leaving) = (None, true);
                too_long.as_mut().reset(Instant::now() + CLOSE_TIMEOUT);
            }
            () = stopping.cancelled(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    drop(slot);
    if let Err(error) = outcome {
        debug!(error = with_causes(&error), "connection ended early");
    }
}

/// Waits until another connection needs the slot. Without a slot it waits forever. Cancel-safe.
async fn evicted(slot: Option<&Slot>) {
    match slot {
        Some(slot) => slot.evicted().await,
        None => std::future::pending().await,
    }
}

/// Waits until the stream is over. Without a stream it waits forever. Cancel-safe.
async fn over(stream: Option<&CancellationToken>) {
    match stream {
        Some(over) => over.cancelled().await,
        None => std::future::pending().await,
    }
}

async fn answer(
    mut acceptor: Acceptor,
    address: IpAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    if request.uri().path() == SOCKET_PATH {
        return handshake::respond(&acceptor.handshake, &acceptor.connections, address, request)
            .await;
    }
    match acceptor.routes.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

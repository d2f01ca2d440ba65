//! Authenticates every client of the socket and of the HTTP calls, and reserves permits for sockets.
//!
//! Checks the attempts of its address, the origin of its page, its token, and the number of open sockets.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{self, HeaderMap};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use crate::config::AllowedOrigins;
use crate::keyring::Keyring;
use crate::metrics::{HandshakeRefusal, Metrics};
use crate::net::accept::client_address::AddressKey;
use crate::net::admission::rate_limits::{AddressPermit, RateLimits};
use crate::net::shutdown::Shutdown;
use usher_core::auth::identity::{Credential, Identity};
use usher_core::limits::{RETRY_ADDRESS, RETRY_NODE};
use usher_core::protocol::refusal::{Refusal, RefusalCode};

/// The state that admits new sockets and HTTP calls.
#[derive(Debug)]
pub(crate) struct HandshakeContext {
    pub(crate) keyring: Keyring,
    /// The origins whose pages may connect.
    pub(crate) allowed_origins: AllowedOrigins,
    /// Counts attempts and sockets per address.
    pub(crate) rate_limits: Arc<RateLimits>,
    /// A permit per socket.
    pub(crate) permits: Arc<Semaphore>,
    /// Refuses new sockets once it has begun.
    pub(crate) shutdown: Arc<Shutdown>,
    pub(crate) metrics: Arc<Metrics>,
}

/// A client that passed [`authenticate`].
#[derive(Debug)]
pub(crate) struct AuthenticatedClient {
    /// The bearer of its token; `None` without a token.
    pub(crate) identity: Option<Arc<Identity>>,
    /// The key of its address; `None` for a trusted proxy.
    client: Option<AddressKey>,
}

/// The permits of one connection. Dropping them frees them.
#[derive(Debug)]
pub(crate) struct ConnectionPermits {
    _at_node: OwnedSemaphorePermit,
    _at_address: AddressPermit,
}

/// The reason of a rejection, for the metrics and for the client.
pub(crate) type HandshakeRejection = (HandshakeRefusal, Refusal);

/// Checks the address, the origin and the token of a request.
///
/// # Errors
/// Too many attempts from the address, an origin that is not allowed, or an invalid token.
pub(crate) async fn authenticate(
    context: &HandshakeContext,
    address: IpAddr,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<AuthenticatedClient, HandshakeRejection> {
    let client = context.rate_limits.client(address, headers);
    if client == Some(AddressKey::Unreadable) && context.metrics.unreadable_addresses.inc() == 0 {
        warn!(
            "a trusted proxy gives client addresses that cannot be read; all of them share the limits of one address. \
             Let it set X-Forwarded-For to the address that it sees"
        );
    }
    if let Err(wait) = context.rate_limits.request(client) {
        return Err(too_many("too many attempts from this address", wait));
    }
    let origin = headers.get(header::ORIGIN);
    // An origin that is not ASCII is on no list.
    let origin = origin.map(|origin| origin.to_str().unwrap_or_default());
    if !context.allowed_origins.is_allowed(origin) {
        let refusal = Refusal::new(RefusalCode::Forbidden, "this origin is not allowed");
        return Err((HandshakeRefusal::Origin, refusal));
    }
    let identity = match credential(headers, query).as_deref().map(Credential::parse) {
        None | Some(Credential::Absent) => None,
        Some(Credential::Token(token)) => {
            Some(context.keyring.prove(token).await.map_err(unproven)?)
        }
    };
    Ok(AuthenticatedClient {
        identity: identity.map(Arc::new),
        client,
    })
}

/// Reserves the permits of a socket or stream: one of the node and one of its address.
///
/// # Errors
/// The gateway is stopping or full, or the address has all its sockets.
pub(crate) fn permits(
    context: &HandshakeContext,
    client: &AuthenticatedClient,
) -> Result<ConnectionPermits, HandshakeRejection> {
    if context.shutdown.has_begun() {
        let refusal = Refusal::unavailable().retry_in(RETRY_NODE);
        return Err((HandshakeRefusal::Draining, refusal));
    }
    let Some(at_address) = context.rate_limits.socket(client.client) else {
        return Err(too_many(
            "too many sockets from this address",
            RETRY_ADDRESS,
        ));
    };
    let Ok(at_node) = Arc::clone(&context.permits).try_acquire_owned() else {
        let refusal = Refusal::new(RefusalCode::Unavailable, "this node is full, try again");
        return Err((HandshakeRefusal::Full, refusal.retry_in(RETRY_NODE)));
    };
    Ok(ConnectionPermits {
        _at_node: at_node,
        _at_address: at_address,
    })
}

fn unproven(refusal: Refusal) -> HandshakeRejection {
    if refusal.code == RefusalCode::Unavailable {
        (HandshakeRefusal::Keys, refusal)
    } else {
        (HandshakeRefusal::Token, refusal)
    }
}

fn too_many(message: &'static str, wait: Duration) -> HandshakeRejection {
    (
        HandshakeRefusal::Address,
        Refusal::rate_limited(message, wait),
    )
}

/// Returns the token of a request: from the header, or else from the query, for clients that cannot set headers.
#[must_use]
pub fn credential(headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    // A header that is not UTF-8 counts as an invalid token, not as a missing one.
    let header = headers.get(header::AUTHORIZATION);
    let header = header.map(|value| String::from_utf8_lossy(value.as_bytes()));
    // A header with another scheme, such as a proxy's own password, does not hide the token of the query.
    if let Some(Credential::Token(token)) = header.as_deref().map(Credential::from_authorization) {
        return Some(token.to_owned());
    }
    // A query does not encode the letters of a JWT.
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .into_iter()
        .find(|(name, _)| *name == "access_token")
        .map(|(_, token)| token.to_owned())
}

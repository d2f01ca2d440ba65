//! The parts of the gateway that the HTTP calls use.

use std::sync::Arc;

use axum::extract::FromRef;

use crate::net::accept::handshake_auth::HandshakeContext;
use crate::net::connection::ConnectionContext;
use crate::net::queries::Queries;
use crate::net::readiness::Readiness;
use crate::net::writes::Writes;

/// The state of the routes. A call that needs one part extracts that part.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    /// Admits callers.
    pub(crate) handshake: Arc<HandshakeContext>,
    /// Serves event streams.
    pub(crate) connections: Arc<ConnectionContext>,
    /// Checks whether the gateway can accept a viewer.
    pub(crate) readiness: Arc<Readiness>,
}

impl FromRef<Api> for Arc<Queries> {
    fn from_ref(api: &Api) -> Self {
        Self::clone(&api.connections.queries)
    }
}

impl FromRef<Api> for Arc<Writes> {
    fn from_ref(api: &Api) -> Self {
        Self::clone(&api.connections.writes)
    }
}

impl FromRef<Api> for Arc<Readiness> {
    fn from_ref(api: &Api) -> Self {
        Self::clone(&api.readiness)
    }
}

//! Transactions whose statements travel together, in one round trip, and the one place that takes on a caller's rights.
//!
//! The futures are polled together in order, so that all statements are sent before the first answer comes. If one
//! fails, the database turns the commit into a rollback.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient};

use crate::postgres::statement::{Parameter, StoreError, classify};
use usher_core::auth::identity::Identity;

/// Takes on a caller's role and claims for the rest of a transaction, as PostgREST does.
const ACT_AS: &str =
    "select set_config('role', $1, true), set_config('request.jwt.claims', $2, true)";

/// Runs statements as the gateway itself, in a transaction that `begin` begins.
pub(crate) async fn as_oneself<T>(
    client: &Client,
    begin: &str,
    statements: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let begun = async { client.batch_execute(begin).await.map_err(not_begun) };
    commit(client, begun, statements).await
}

/// Runs statements under the role and claims of a caller, in a transaction that `begin` begins.
pub(crate) async fn as_caller<T>(
    client: &Client,
    begin: &str,
    identity: &Identity,
    statements: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    commit(client, become_caller(client, begin, identity), statements).await
}

/// Runs `settings`, which may begin the transaction, and takes on the role and claims of a caller.
pub(crate) async fn become_caller(
    client: &impl GenericClient,
    settings: &str,
    identity: &Identity,
) -> Result<(), StoreError> {
    let (role, claims) = (identity.role.as_str(), &*identity.claims);
    let caller: [Parameter<'_>; 2] = [(&role, Type::TEXT), (&claims, Type::TEXT)];
    let (begun, acting) = futures::join!(
        client.batch_execute(settings),
        client.query_typed(ACT_AS, &caller),
    );
    begun.map_err(not_begun)?;
    acting.map(drop).map_err(classify)
}

async fn commit<T>(
    client: &Client,
    begun: impl Future<Output = Result<(), StoreError>>,
    statements: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let (begun, outcome, committed) =
        futures::join!(begun, statements, client.batch_execute("commit"));
    begun?;
    let outcome = outcome?;
    committed.map_err(classify)?;
    Ok(outcome)
}

/// Says why no transaction could begin. A standby answers `feature_not_supported` to one that may write.
pub(crate) fn not_begun(error: tokio_postgres::Error) -> StoreError {
    match error.code() {
        Some(state) if *state == SqlState::FEATURE_NOT_SUPPORTED => {
            StoreError::Unavailable("the database is a standby".to_owned())
        }
        _ => classify(error),
    }
}

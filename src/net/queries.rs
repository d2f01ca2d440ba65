//! The database queries of connections and HTTP calls.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::metrics::Metrics;
use crate::net::admission::access_checks::AccessChecks;
use crate::net::admission::singleflight::AdmissionQueries;
use crate::net::answered;
use crate::postgres::statement::StoreError;
use crate::postgres::store::Store;
use usher_core::auth::identity::Identity;
use usher_core::relay::message::{Query, QueryResult};

#[derive(Debug)]
pub(crate) struct Queries {
    /// Pages of logs, counts, bans.
    pub(crate) store: Store,
    /// Whether a caller may watch a session. Callers that ask the same share one query.
    pub(crate) admissions: AdmissionQueries,
    /// Whether a caller may still watch a session. Many callers share one query.
    pub(crate) access_checks: AccessChecks,
    /// Counts failed queries.
    pub(crate) metrics: Arc<Metrics>,
}

impl Queries {
    /// Runs a query of a peer.
    pub(crate) fn run(
        self: &Arc<Self>,
        query: Query,
        identity: &Arc<Identity>,
    ) -> BoxFuture<'static, QueryResult> {
        let (queries, identity) = (Arc::clone(self), Arc::clone(identity));
        let (session, attempt) = query.subscription();
        // One box per query, so that each takes only the memory that it needs.
        match query {
            Query::Admit { .. } => Box::pin(async move {
                let answer = queries.admissions.ask(session, &identity).await;
                QueryResult::Admitted {
                    session,
                    attempt,
                    answer,
                }
            }),
            Query::CheckAccess { is_urgent, .. } => Box::pin(async move {
                let checks = &queries.access_checks;
                let answer = checks.ask(session, identity, is_urgent).await;
                QueryResult::Checked {
                    session,
                    attempt,
                    answer,
                }
            }),
            Query::ReadPage { after, .. } => Box::pin(async move {
                let page = queries.store.page(session, after).await;
                let page = queries.answered(page, "a page of the log");
                QueryResult::Page {
                    session,
                    attempt,
                    page,
                }
            }),
        }
    }

    /// Takes the answer of the database. Counts and logs a failure like [`answered`].
    pub(crate) fn answered<T>(
        &self,
        answer: Result<T, StoreError>,
        asked: &'static str,
    ) -> Option<T> {
        answered(answer, asked, &self.store, &self.metrics)
    }
}

//! The database queries of connections and HTTP calls.

use std::sync::Arc;

use crate::metrics::Metrics;
use crate::net::admission::access_checks::AccessChecks;
use crate::net::admission::singleflight::AdmissionQueries;
use crate::net::answered;
use crate::postgres::statement::StoreError;
use crate::postgres::store::Store;

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
    /// Takes the answer of the database. Counts and logs a failure like [`answered`].
    pub(crate) fn answered<T>(
        &self,
        answer: Result<T, StoreError>,
        asked: &'static str,
    ) -> Option<T> {
        answered(answer, asked, &self.store, &self.metrics)
    }
}

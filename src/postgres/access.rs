//! What callers may do in a session, as `usher.admit` says it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::types::Type;

use crate::limits::LOCK_WAIT;
use crate::postgres::admission::access;
use crate::postgres::statement::{Parameter, StoreError, may_pass};
use crate::postgres::store::Store;
use usher_core::auth::identity::Identity;
use usher_core::protocol::id::SessionId;
use usher_core::protocol::refusal::Refusal;
use usher_core::relay::snapshot::Access;

/// What the database says of one caller; `None` where it could not be asked about this one.
pub(crate) type AccessAnswer = Option<Result<Access, Refusal>>;

impl Store {
    /// Asks what many callers may do, each in a session; the answers are in the order of the callers.
    ///
    /// # Errors
    /// Where the database cannot be asked. That it failed for one caller is an answer.
    ///
    /// # Panics
    /// Never: the claims of a verified token are JSON.
    pub(crate) async fn check_access(
        &self,
        callers: &[(SessionId, Arc<Identity>)],
    ) -> Result<Vec<AccessAnswer>, StoreError> {
        #[derive(Serialize)]
        struct AccessCaller<'a> {
            role: &'static str,
            claims: &'a RawValue,
            session: SessionId,
        }
        let batch: Vec<AccessCaller<'_>> = callers
            .iter()
            .map(|(session, identity)| AccessCaller {
                role: identity.role.as_str(),
                claims: serde_json::from_str(&identity.claims)
                    .expect("a verified token's payload is JSON"),
                session: *session,
            })
            .collect();
        let batch = serde_json::to_string(&batch).expect("ids, texts and JSON make JSON");
        let sql =
            "select b.item, b.admission::text, b.failure from usher.admit_many($1::jsonb) as b";
        let parameters: [Parameter<'_>; 1] = [(&batch, Type::TEXT)];
        let rows = self.rows_within(LOCK_WAIT, sql, &parameters).await?;
        let mut answers: Vec<AccessAnswer> = vec![None; callers.len()];
        for row in &rows {
            let place = usize::try_from(row.get::<_, i32>(0)).unwrap_or(usize::MAX);
            if let Some(failure) = row.get::<_, Option<&str>>(2) {
                if !may_pass(failure) {
                    self.log().on_failure(
                        "what a caller may do",
                        &StoreError::Unavailable(format!("SQLSTATE {failure}")),
                    );
                }
                continue;
            }
            if let Some(answer) = answers.get_mut(place) {
                *answer = Some(access(row.get(1))?);
            }
        }
        Ok(answers)
    }
}

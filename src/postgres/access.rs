//! What callers may do in a session, as `usher.admit` says it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_postgres::types::Type;

use crate::limits::LOCK_WAIT;
use crate::postgres::store::{Parameter, Store, StoreError, may_pass};
use usher_core::auth::identity::Identity;
use usher_core::protocol::id::{MovieId, SessionId, VotingId};
use usher_core::protocol::refusal::{Refusal, RefusalCode};
use usher_core::protocol::server::Can;
use usher_core::relay::snapshot::Access;

/// What the database says of one caller; `None` where it could not be asked about this one.
pub(crate) type AccessAnswer = Option<Result<Access, Refusal>>;

/// Reads the answer of `usher.admit`; none means that the caller may not see the session.
pub(crate) fn access(admit: Option<&str>) -> Result<Result<Access, Refusal>, StoreError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Admit {
        Refused {
            refused: String,
        },
        Admitted {
            #[serde(flatten)]
            can: Can,
            mine: HashMap<VotingId, MovieId>,
            #[serde(default)]
            ask_again_ms: Option<u64>,
        },
    }
    let Some(admit) = admit else {
        let message = "no such session, or not for this caller";
        return Ok(Err(Refusal::new(RefusalCode::NotFound, message)));
    };
    let admit = serde_json::from_str(admit).map_err(|source| StoreError::Shape {
        what: "an admission",
        source,
    })?;
    Ok(match admit {
        Admit::Admitted {
            can,
            mine,
            ask_again_ms,
        } => Ok(Access {
            can,
            mine,
            ask_again: ask_again_ms.map(Duration::from_millis),
        }),
        Admit::Refused { refused } => {
            let code = RefusalCode::parse(&refused).unwrap_or(RefusalCode::Forbidden);
            Err(Refusal::new(code, "this session is closed to the caller"))
        }
    })
}

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

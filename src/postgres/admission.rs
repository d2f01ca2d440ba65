//! Parses the answer of `usher.admit`.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;

use crate::postgres::statement::StoreError;
use usher_core::protocol::id::{MovieId, VotingId};
use usher_core::protocol::refusal::{Refusal, RefusalCode};
use usher_core::protocol::server::Can;
use usher_core::relay::snapshot::Access;

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

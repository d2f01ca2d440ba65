//! What a connection asks of the database and of the keyring, each question a future of its own beside the socket.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::net::admission::rate_limits::Passed;
use crate::net::admission::singleflight::AdmissionAnswer;
use crate::net::{Shared, answered};
use crate::postgres::access::AccessAnswer;
use usher_core::auth::identity::Identity;
use usher_core::protocol::client::FrameId;
use usher_core::protocol::id::{Seq, SessionId};
use usher_core::protocol::refusal::Refusal;
use usher_core::protocol::server::WriteOutcome;
use usher_core::relay::effect::Effect;
use usher_core::relay::peer::Write;
use usher_core::relay::router::LogPage;

/// A question to the database.
#[derive(Debug)]
pub(crate) enum Query {
    /// May the peer watch, and what else may it do?
    Admit { session: SessionId, attempt: u32 },
    /// May it still do what it may?
    CheckAccess {
        session: SessionId,
        attempt: u32,
        is_urgent: bool,
    },
    /// What follows a position?
    Page {
        session: SessionId,
        attempt: u32,
        after: Seq,
    },
}

/// What was said; `None` where the database could not be asked.
#[derive(Debug)]
pub(crate) enum QueryResult {
    /// To [`Query::Admit`].
    Admitted {
        session: SessionId,
        attempt: u32,
        answer: AdmissionAnswer,
    },
    /// To [`Query::CheckAccess`].
    Checked {
        session: SessionId,
        attempt: u32,
        answer: AccessAnswer,
    },
    /// To [`Query::Page`].
    Page {
        session: SessionId,
        attempt: u32,
        page: Option<LogPage>,
    },
    /// Who the bearer of a token is.
    Proven {
        id: Option<FrameId>,
        outcome: Result<Identity, Refusal>,
    },
    /// What became of a write.
    Written {
        ticket: u32,
        outcome: Result<WriteOutcome, Refusal>,
    },
}

impl Query {
    /// What an effect asks of the database, if it does.
    pub(crate) fn of(effect: &Effect) -> Option<Self> {
        if let Effect::Admit { session, attempt } = *effect {
            return Some(Self::Admit { session, attempt });
        }
        if let Effect::CheckAccess {
            session,
            attempt,
            is_urgent,
        } = *effect
        {
            return Some(Self::CheckAccess {
                session,
                attempt,
                is_urgent,
            });
        }
        if let Effect::ReadPage {
            session,
            attempt,
            after,
        } = *effect
        {
            return Some(Self::Page {
                session,
                attempt,
                after,
            });
        }
        None
    }

    /// For which try of which subscription it is asked.
    pub(crate) fn subscription(&self) -> (SessionId, u32) {
        match self {
            Self::Admit { session, attempt }
            | Self::CheckAccess {
                session, attempt, ..
            }
            | Self::Page {
                session, attempt, ..
            } => (*session, *attempt),
        }
    }

    /// Asks, as somebody.
    pub(crate) fn ask(
        self,
        shared: &Arc<Shared>,
        identity: &Arc<Identity>,
    ) -> BoxFuture<'static, QueryResult> {
        let (shared, identity) = (Arc::clone(shared), Arc::clone(identity));
        match self {
            Self::Admit { session, attempt } => Box::pin(async move {
                let answer = shared.admissions.ask(session, &identity).await;
                QueryResult::Admitted {
                    session,
                    attempt,
                    answer,
                }
            }),
            Self::CheckAccess {
                session,
                attempt,
                is_urgent,
            } => Box::pin(async move {
                let checks = &shared.access_checks;
                let answer = checks.ask(session, identity, is_urgent).await;
                QueryResult::Checked {
                    session,
                    attempt,
                    answer,
                }
            }),
            Self::Page {
                session,
                attempt,
                after,
            } => Box::pin(async move {
                let page = shared.store.page(session, after).await;
                let page = answered(page, "a page of the log", &shared.store, &shared.metrics);
                QueryResult::Page {
                    session,
                    attempt,
                    page,
                }
            }),
        }
    }
}

/// Asks who the bearer of a token is.
pub(crate) fn prove(
    shared: &Arc<Shared>,
    id: Option<FrameId>,
    token: Box<str>,
) -> BoxFuture<'static, QueryResult> {
    let shared = Arc::clone(shared);
    Box::pin(async move {
        let outcome = shared.keyring.prove(&token).await;
        QueryResult::Proven { id, outcome }
    })
}

/// Writes something for somebody; the answer names the ticket.
pub(crate) fn write(
    shared: &Arc<Shared>,
    ticket: u32,
    write: Write,
    identity: Arc<Identity>,
    passed: Passed,
) -> BoxFuture<'static, QueryResult> {
    let shared = Arc::clone(shared);
    Box::pin(async move {
        let outcome = shared.write(write, identity, passed).await;
        QueryResult::Written { ticket, outcome }
    })
}

//! Shares one admission query among identical callers.
//!
//! After a lost LISTEN connection, or when a session turns private, thousands of anonymous viewers ask whether they may
//! watch it. They share one query as long as it has not been sent. A caller never joins a query that was sent already: that
//! query may have read the state before the change. So of identical queries at most one is under way and one waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};

use crate::clock::moment;
use crate::metrics::Metrics;
use crate::net::admission::CallerKey;
use crate::net::answered;
use crate::postgres::statement::StoreError;
use crate::postgres::store::Store;
use usher_core::auth::identity::Identity;
use usher_core::protocol::id::SessionId;
use usher_core::protocol::refusal::{Refusal, RefusalCode};
use usher_core::relay::snapshot::Admission;

/// The admission or the refusal; `None` if the database gave no answer.
pub(crate) type AdmissionAnswer = Option<Result<Admission, Refusal>>;

type PendingAdmission = Shared<BoxFuture<'static, AdmissionAnswer>>;

/// A query that lives as long as a caller waits for its answer.
type WeakAdmission = WeakShared<BoxFuture<'static, AdmissionAnswer>>;

/// The admission queries under way. An entry lives as long as a caller waits for it, so the callers bound the map.
#[derive(Clone, Debug)]
pub(crate) struct AdmissionQueries {
    store: Store,
    metrics: Arc<Metrics>,
    slots: Arc<DashMap<CallerKey, QuerySlot>>,
    counter: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct QuerySlot {
    sent: Option<(u64, WeakAdmission)>,
    waiting: Option<(u64, WeakAdmission)>,
}

/// The map entry of a query. Dropped with the query: after the answer, or once no caller waits.
struct QueryTicket {
    slots: Arc<DashMap<CallerKey, QuerySlot>>,
    key: CallerKey,
    number: u64,
}

impl QueryTicket {
    fn on_sent(&self) {
        if let Some(mut slot) = self.slots.get_mut(&self.key) {
            slot.sent = slot.waiting.take();
        }
    }
}

impl Drop for QueryTicket {
    fn drop(&mut self) {
        // Drops no query while the map is locked, which would lock it again: the entry holds weak references only.
        self.slots.remove_if_mut(&self.key, |_, slot| {
            slot.sent.take_if(|(number, _)| *number == self.number);
            slot.waiting.take_if(|(number, _)| *number == self.number);
            slot.sent.is_none() && slot.waiting.is_none()
        });
    }
}

impl AdmissionQueries {
    #[must_use]
    pub(crate) fn new(store: Store, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            metrics,
            slots: Arc::default(),
            counter: Arc::default(),
        }
    }

    /// Asks whether a caller may watch a session, together with identical callers. The query starts after this call.
    pub(crate) async fn ask(
        &self,
        session: SessionId,
        identity: &Arc<Identity>,
    ) -> AdmissionAnswer {
        let question = self.question((session, Arc::clone(&identity.claims)), identity);
        question.await
    }

    fn question(&self, key: CallerKey, identity: &Arc<Identity>) -> PendingAdmission {
        let mut slot = self.slots.entry(key.clone()).or_default();
        let living = |asked: &Option<(u64, WeakAdmission)>| {
            asked.as_ref().and_then(|(_, asked)| asked.upgrade())
        };
        if let Some(waiting) = living(&slot.waiting) {
            self.metrics.shared_admissions.inc();
            return waiting;
        }
        let (admissions, identity) = (self.clone(), Arc::clone(identity));
        let earlier = living(&slot.sent);
        let place = QueryTicket {
            slots: Arc::clone(&self.slots),
            key,
            number: self.counter.fetch_add(1, Ordering::Relaxed),
        };
        let number = place.number;
        let question = async move {
            if let Some(earlier) = earlier {
                earlier.await;
            }
            place.on_sent();
            admissions.send(place.key.0, &identity).await
        };
        let question = question.boxed().shared();
        slot.waiting = question.downgrade().map(|asked| (number, asked));
        question
    }

    async fn send(&self, session: SessionId, identity: &Identity) -> AdmissionAnswer {
        let began = moment().at;
        let answer = self.store.admit(session, identity).await;
        let took = (moment().at - began).as_secs_f64();
        self.metrics.admissions.observe(took);
        match answer {
            Err(StoreError::Refused(_) | StoreError::Shape { .. }) => {
                answered(answer, "an admission", &self.store, &self.metrics);
                let refusal = Refusal::new(RefusalCode::Internal, "the admission failed");
                Some(Err(refusal))
            }
            Err(StoreError::Locked) => {
                answered(answer, "an admission", &self.store, &self.metrics);
                Some(Err(Refusal::busy()))
            }
            answer => answered(answer, "an admission", &self.store, &self.metrics),
        }
    }
}

//! Checks again whether callers may still watch: one query for many callers, and identical callers once.
//!
//! ```text
//! connections ─► requests ─► grouped by caller and session ─► one query at a time, for up to 50 callers
//! ```
//!
//! Urgent checks follow a known change of access and go first. Routine checks wait to be grouped, and pause as long as the
//! last query took. So routine checks use at most half of one connection, however many callers watch and however often
//! an app calls `usher.access_changed`. A caller never joins a query that was sent already: that query may have read the
//! state before the change.
//!
//! A query that times out covered too many callers with slow policies. The next query takes half as many, and each success
//! adds one. So slow policies of one session do not block the checks of others.
//!
//! A refusal also voids the caller's resume tokens on this node, even if the connection is gone. So a quick reconnect does
//! not restore access.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::limits::{
    ACCESS_CHECK_CALLERS_MAX, ACCESS_CHECK_GATHER, ACCESS_CHECK_QUEUE_LEN, QUERY_TIMEOUT,
};
use crate::metrics::Metrics;
use crate::net::admission::CallerKey;
use crate::net::fanout::loops::{FanoutCommand, FanoutLoops};
use crate::net::{answered, finished};
use crate::postgres::access::AccessAnswer;
use crate::postgres::statement::StoreError;
use crate::postgres::store::Store;
use usher_core::auth::identity::Identity;
use usher_core::protocol::id::SessionId;
use usher_core::protocol::notify::AccessChange;

/// Requests access checks. Cloned into every connection.
#[derive(Clone, Debug)]
pub(crate) struct AccessChecks(mpsc::Sender<CheckRequest>);

/// The request to check one caller of a session.
#[derive(Debug)]
struct CheckRequest {
    session: SessionId,
    identity: Arc<Identity>,
    is_urgent: bool,
    answer: oneshot::Sender<AccessAnswer>,
}

/// The task behind [`AccessChecks`].
#[derive(Debug)]
pub(crate) struct AccessChecker {
    requests: mpsc::Receiver<CheckRequest>,
    store: Store,
    /// Void resume tokens.
    loops: Arc<FanoutLoops>,
    metrics: Arc<Metrics>,
    waiting: HashMap<CallerKey, WaitingCheck>,
    urgent: VecDeque<CallerKey>,
    routine: VecDeque<CallerKey>,
    /// The earliest time of the next routine query.
    routine_at: Instant,
    batch_size: BatchSize,
}

/// The maximal number of callers in the next query. It shrinks while policies are slow.
#[derive(Debug)]
struct BatchSize(usize);

impl BatchSize {
    /// A query for `callers` failed. Halves the size, down to one.
    fn on_failure(&mut self, callers: usize) {
        self.0 = (callers / 2).max(1);
    }

    /// A query succeeded. Adds one, so that the size approaches the limit of slow policies slowly.
    fn on_success(&mut self) {
        self.0 = (self.0 + 1).min(ACCESS_CHECK_CALLERS_MAX);
    }
}

#[derive(Debug)]
struct WaitingCheck {
    identity: Arc<Identity>,
    is_urgent: bool,
    answers: Vec<oneshot::Sender<AccessAnswer>>,
}

/// The callers of a query with their waiters, the answers, and the time when it was sent.
type CheckedBatch = (
    Vec<(CallerKey, WaitingCheck)>,
    Result<Vec<AccessAnswer>, StoreError>,
    Instant,
);

/// Creates the handle and its task.
#[must_use]
pub(crate) fn access_checks(
    store: Store,
    loops: Arc<FanoutLoops>,
    metrics: Arc<Metrics>,
) -> (AccessChecks, AccessChecker) {
    let (sender, requests) = mpsc::channel(ACCESS_CHECK_QUEUE_LEN);
    let checker = AccessChecker {
        requests,
        store,
        loops,
        metrics,
        waiting: HashMap::new(),
        urgent: VecDeque::new(),
        routine: VecDeque::new(),
        routine_at: Instant::now(),
        batch_size: BatchSize(ACCESS_CHECK_CALLERS_MAX),
    };
    (AccessChecks(sender), checker)
}

impl AccessChecks {
    /// Checks a caller, together with identical callers. The query starts after this call. Returns `None` if the database
    /// gives no answer.
    pub(crate) async fn ask(
        &self,
        session: SessionId,
        identity: Arc<Identity>,
        is_urgent: bool,
    ) -> AccessAnswer {
        let (answer, answered) = oneshot::channel();
        let request = CheckRequest {
            session,
            identity,
            is_urgent,
            answer,
        };
        self.0.send(request).await.ok()?;
        answered.await.ok()?
    }
}

impl AccessChecker {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut arrived = Vec::new();
        let mut asking: Option<BoxFuture<'static, CheckedBatch>> = None;
        loop {
            let is_due = !self.routine.is_empty() && asking.is_none();
            // Every arm is cancel-safe: it takes only what it returns.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                asked = finished(&mut asking) => {
                    asking = None;
                    self.on_asked(asked).await;
                }
                count = self.requests.recv_many(&mut arrived, ACCESS_CHECK_QUEUE_LEN) => {
                    if count == 0 {
                        return;
                    }
                    for request in arrived.drain(..) {
                        self.take(request);
                    }
                }
                () = sleep_until(self.routine_at), if is_due => {}
            }
            let may_send = !self.urgent.is_empty() || Instant::now() >= self.routine_at;
            if asking.is_none() && may_send {
                asking = self.next_query();
            }
        }
    }

    fn take(&mut self, request: CheckRequest) {
        let key = (request.session, Arc::clone(&request.identity.claims));
        if let Some(waiting) = self.waiting.get_mut(&key) {
            self.metrics.access_checks_shared.inc();
            waiting.answers.push(request.answer);
            if request.is_urgent && !waiting.is_urgent {
                waiting.is_urgent = true;
                self.urgent.push_back(key);
            }
            return;
        }
        self.metrics.access_checks.inc();
        if request.is_urgent {
            self.urgent.push_back(key.clone());
        } else {
            if self.routine.is_empty() {
                self.routine_at = self.routine_at.max(Instant::now() + ACCESS_CHECK_GATHER);
            }
            self.routine.push_back(key.clone());
        }
        let waiting = WaitingCheck {
            identity: request.identity,
            is_urgent: request.is_urgent,
            answers: vec![request.answer],
        };
        self.waiting.insert(key, waiting);
    }

    /// Builds the next query, urgent callers first.
    fn next_query(&mut self) -> Option<BoxFuture<'static, CheckedBatch>> {
        let mut callers: Vec<(CallerKey, WaitingCheck)> = Vec::new();
        while callers.len() < self.batch_size.0
            && let Some(key) = self.urgent.pop_front().or_else(|| self.routine.pop_front())
        {
            // A caller that became urgent is in both queues.
            callers.extend(self.waiting.remove_entry(&key));
        }
        if callers.is_empty() {
            return None;
        }
        let asked: Vec<(SessionId, Arc<Identity>)> = callers
            .iter()
            .map(|((session, _), waiting)| (*session, Arc::clone(&waiting.identity)))
            .collect();
        let (store, began) = (self.store.clone(), Instant::now());
        let query = async move {
            let answers = store.check_access(&asked).await;
            (callers, answers, began)
        };
        Some(query.boxed())
    }

    async fn on_asked(&mut self, (callers, answers, began): CheckedBatch) {
        let took = began.elapsed();
        self.metrics
            .access_check_batches
            .observe(took.as_secs_f64());
        self.routine_at = Instant::now() + took;
        let answers = answered(answers, "access checks", &self.store, &self.metrics);
        let Some(answers) = answers else {
            self.batch_size.on_failure(callers.len());
            if 2 * took < QUERY_TIMEOUT {
                // The database is down: drops all requests, and every peer asks again later.
                self.waiting.clear();
                self.urgent.clear();
                self.routine.clear();
            }
            return;
        };
        self.batch_size.on_success();
        for (((session, _), waiting), answer) in callers.into_iter().zip(answers) {
            if let Some(Err(refusal)) = &answer
                && refusal.code.is_judgement()
            {
                self.void(session, &waiting.identity).await;
            }
            for waiting in waiting.answers {
                // Ignores a connection that is gone.
                let _ = waiting.send(answer.clone());
            }
        }
    }

    /// Voids the resume tokens of a caller in a session. For a caller without an account, voids all tokens of the session.
    async fn void(&self, session: SessionId, identity: &Identity) {
        let change = AccessChange {
            session: Some(session),
            user: identity.subject,
        };
        self.loops.broadcast(|| FanoutCommand::Void(change)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_callers_are_asked_about_together_while_their_policies_are_slow() {
        let mut size = BatchSize(ACCESS_CHECK_CALLERS_MAX);
        size.on_failure(50);
        assert_eq!(size.0, 25);
        // The failed query had fewer callers than allowed.
        size.on_failure(8);
        assert_eq!(size.0, 4);
        size.on_success();
        assert_eq!(size.0, 5);
        for _ in 0..3 {
            let callers = size.0;
            size.on_failure(callers);
        }
        assert_eq!(size.0, 1, "one is always asked about");
        for _ in 0..2 * ACCESS_CHECK_CALLERS_MAX {
            size.on_success();
        }
        assert_eq!(size.0, ACCESS_CHECK_CALLERS_MAX);
    }
}

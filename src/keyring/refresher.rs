//! Keeps the keys new: asks every few minutes, when somebody wishes, and again soon while there is no good answer.

use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::causes::with_causes;
use crate::keyring::KeysState;
use crate::keyring::fetch::{FetchError, fetch};
use crate::limits::{KEYS_INTERVAL, KEYS_PAUSE, KEYS_RETRY_MAX, KEYS_RETRY_MIN};
use crate::metrics::{KeyFetch, Metrics};
use usher_core::auth::key_set::{KeySet, NotAKeySet};
use usher_core::auth::verifier::{Verifier, VerifierKeys};

/// Fetches the keys until the gateway stops.
#[derive(Debug)]
pub(crate) struct Refresher {
    url: Uri,
    /// What is known beside the published keys.
    known: VerifierKeys,
    state: watch::Sender<KeysState>,
    wishes: mpsc::Receiver<()>,
    clock: fn() -> u64,
    /// The last good answer.
    text: String,
    /// How many keys it has.
    keys: usize,
    /// Questions without a good answer since.
    failures: u32,
}

/// Why an answer was not taken.
#[derive(Debug, thiserror::Error)]
enum Untaken {
    #[error("there is no answer")]
    Failed(#[from] FetchError),
    #[error("the answer cannot be read")]
    Broken(#[from] NotAKeySet),
    #[error("there is no key of use in the answer")]
    Empty,
}

impl Refresher {
    pub(crate) fn new(
        url: Uri,
        known: VerifierKeys,
        state: watch::Sender<KeysState>,
        wishes: mpsc::Receiver<()>,
        clock: fn() -> u64,
    ) -> Self {
        Self {
            url,
            known,
            state,
            wishes,
            clock,
            text: String::new(),
            keys: 0,
            failures: 0,
        }
    }

    /// Runs until the gateway stops.
    pub(crate) async fn run(mut self, metrics: Arc<Metrics>, stop: CancellationToken) {
        loop {
            // Whoever has wished is served by the question that begins here.
            while self.wishes.try_recv().is_ok() {}
            self.state.send_modify(|state| state.begun += 1);
            let pause = sleep(KEYS_PAUSE);
            // Cancel-safe: a question that is given up leaves nothing behind.
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                answer = fetch(&self.url) => answer,
            };
            let outcome = self.take(answer);
            metrics.key_fetches.get_or_create(&outcome.into()).inc();
            metrics
                .keys
                .set(i64::try_from(self.keys).unwrap_or(i64::MAX));
            let due = sleep(spread(self.wait()));
            tokio::pin!(due);
            // Cancel-safe: a wish that is taken is served by the question that follows.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = &mut due => {}
                Some(()) = self.wishes.recv() => tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = due => {}
                    () = pause => {}
                }
            }
        }
    }

    /// Takes an answer, if it is a good one, and tells everybody.
    fn take(&mut self, answer: Result<String, FetchError>) -> KeyFetch {
        let outcome = answer
            .map_err(Untaken::from)
            .and_then(|text| self.read(text));
        self.report(&outcome);
        self.state.send_modify(|state| {
            state.ended += 1;
            state.is_current = outcome.is_ok();
            if outcome.is_ok() {
                state.answered_at = Some((self.clock)());
            }
            if let Ok(Some(set)) = &outcome {
                let keys = self.known.clone().with_published(Arc::clone(set));
                state.has_keys = keys.has_secret() || !set.is_empty();
                state.verifier = Arc::new(Verifier::new(keys));
            }
        });
        match outcome {
            Ok(None) => KeyFetch::Same,
            Ok(Some(_)) => KeyFetch::Changed,
            Err(Untaken::Failed(_)) => KeyFetch::Failed,
            Err(Untaken::Broken(_)) => KeyFetch::Broken,
            Err(Untaken::Empty) => KeyFetch::Empty,
        }
    }

    /// The keys of an answer, where they are others than before.
    fn read(&mut self, text: String) -> Result<Option<Arc<KeySet>>, Untaken> {
        if text == self.text {
            return Ok(None);
        }
        let set = KeySet::parse(&text)?;
        // A project that has its secret alone publishes an empty set. One that had keys has made a mistake.
        if set.is_empty() && !(self.known.has_secret() && self.keys == 0) {
            return Err(Untaken::Empty);
        }
        for skipped in set.skipped() {
            let (place, name) = (skipped.place, skipped.name.as_deref());
            warn!(place, name, why = %skipped.why, "a published key is not used");
        }
        self.keys = set.len();
        self.text = text;
        info!(keys = self.keys, "signing keys are fetched");
        Ok(Some(Arc::new(set)))
    }

    /// One line for an incident, however long it lasts, and one for its end.
    fn report(&mut self, outcome: &Result<Option<Arc<KeySet>>, Untaken>) {
        match outcome {
            Ok(_) if self.failures > 0 => {
                info!(failures = self.failures, "the key server answers again");
                self.failures = 0;
            }
            Ok(_) => {}
            Err(error) => {
                if self.failures == 0 {
                    warn!(
                        error = with_causes(error),
                        kept = self.keys,
                        "signing keys cannot be fetched, the last good ones are kept"
                    );
                }
                self.failures = self.failures.saturating_add(1);
            }
        }
    }

    /// How long until the next question.
    fn wait(&self) -> Duration {
        match self.failures.checked_sub(1) {
            None => KEYS_INTERVAL,
            Some(doublings) => KEYS_RETRY_MIN
                .saturating_mul(2_u32.saturating_pow(doublings))
                .min(KEYS_RETRY_MAX),
        }
    }
}

/// A time of about this length, so that nodes that start together do not ask together for good.
fn spread(time: Duration) -> Duration {
    let percent = 80 + u32::from(Uuid::new_v4().as_bytes()[0]) * 40 / 255;
    time * percent / 100
}

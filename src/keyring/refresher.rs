//! Fetches the keys every few minutes, on request, and with backoff after a failure.

use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::causes::with_causes;
use crate::keyring::fetch::{FetchError, fetch};
use crate::limits::{KEYS_INTERVAL, KEYS_PAUSE, KEYS_RETRY_MAX, KEYS_RETRY_MIN};
use crate::metrics::{KeyFetch, Metrics};
use usher_core::auth::key_set::{KeySet, NotAKeySet};
use usher_core::auth::verifier::{Verifier, VerifierKeys};

/// The newest keys, and the progress of the requests for newer ones.
#[derive(Clone, Debug)]
pub(crate) struct KeysState {
    pub(crate) verifier: Arc<Verifier>,
    /// Whether the verifier has any key.
    pub(crate) has_keys: bool,
    /// Requests to the key server that have begun.
    pub(crate) begun: u64,
    /// Requests that have ended.
    pub(crate) ended: u64,
    /// Whether the last request succeeded.
    pub(crate) is_current: bool,
    /// The time of the last good answer, in seconds since 1970.
    pub(crate) answered_at: Option<u64>,
}

/// Fetches the keys until the gateway stops.
#[derive(Debug)]
pub(crate) struct Refresher {
    url: Uri,
    /// The configured secret and issuers.
    known: VerifierKeys,
    state: watch::Sender<KeysState>,
    requests: mpsc::Receiver<()>,
    clock: fn() -> u64,
    /// The last good answer.
    text: String,
    /// The number of its keys.
    keys: usize,
    /// Failures since the last good answer.
    failures: u32,
}

/// Why the refresher kept the old keys.
#[derive(Debug, thiserror::Error)]
enum RefreshError {
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
        requests: mpsc::Receiver<()>,
        clock: fn() -> u64,
    ) -> Self {
        Self {
            url,
            known,
            state,
            requests,
            clock,
            text: String::new(),
            keys: 0,
            failures: 0,
        }
    }

    /// Runs until the gateway stops.
    pub(crate) async fn run(mut self, metrics: Arc<Metrics>, stop: CancellationToken) {
        loop {
            // The request that begins here serves all requests so far.
            while self.requests.try_recv().is_ok() {}
            self.state.send_modify(|state| state.begun += 1);
            let pause = sleep(KEYS_PAUSE);
            // Cancel-safe: an abandoned request leaves nothing behind.
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
            // Cancel-safe: the next turn serves a request that this one has taken.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = &mut due => {}
                Some(()) = self.requests.recv() => tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = due => {}
                    () = pause => {}
                }
            }
        }
    }

    /// Publishes a good answer, and counts any other as a failure.
    fn take(&mut self, answer: Result<String, FetchError>) -> KeyFetch {
        let outcome = answer
            .map_err(RefreshError::from)
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
            Err(RefreshError::Failed(_)) => KeyFetch::Failed,
            Err(RefreshError::Broken(_)) => KeyFetch::Broken,
            Err(RefreshError::Empty) => KeyFetch::Empty,
        }
    }

    /// Parses an answer. Returns `None` if the keys are the same as before.
    fn read(&mut self, text: String) -> Result<Option<Arc<KeySet>>, RefreshError> {
        if text == self.text {
            return Ok(None);
        }
        let set = KeySet::parse(&text)?;
        // A project with a secret and no keys publishes an empty set. An empty set after keys is a mistake.
        if set.is_empty() && !(self.known.has_secret() && self.keys == 0) {
            return Err(RefreshError::Empty);
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

    /// Logs the first failure of an outage and its end.
    fn report(&mut self, outcome: &Result<Option<Arc<KeySet>>, RefreshError>) {
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

    /// The pause before the next request.
    fn wait(&self) -> Duration {
        match self.failures.checked_sub(1) {
            None => KEYS_INTERVAL,
            Some(doublings) => KEYS_RETRY_MIN
                .saturating_mul(2_u32.saturating_pow(doublings))
                .min(KEYS_RETRY_MAX),
        }
    }
}

/// Varies a pause by 20 %, so that nodes that start together do not send their requests together forever.
fn spread(time: Duration) -> Duration {
    let percent = 80 + u32::from(Uuid::new_v4().as_bytes()[0]) * 40 / 255;
    time * percent / 100
}

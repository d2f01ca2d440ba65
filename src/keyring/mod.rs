//! The key server, as seen from outside: the keys that sign this project's tokens, as they are at the moment.
//!
//! ```text
//! handshake, frame, call ─► Keyring::prove ─► the newest Verifier ─► who it is
//!                               │ unknown key        ▲
//!                               └─ asks ─► Refresher ┘ ─► the key server
//! ```
//!
//! Whoever has to know who the bearer of a token is asks [`Keyring::prove`]. A token of an unknown key may be of a new
//! one: it waits for the next answer of the key server and is judged again, so that no client notices a rotation. One
//! question is under way at a time, and the next comes [`crate::limits::KEYS_PAUSE`] after it at the soonest, whatever
//! tokens come. The last good keys are kept while there are no better ones. Knows nothing of sockets. Read in this
//! order: this, [`refresher`], `fetch`.

mod fetch;
pub(crate) mod refresher;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::Uri;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tracing::warn;

use crate::config::TokenKeys;
use crate::keyring::refresher::Refresher;
use crate::limits::{KEYS_PAUSE, KEYS_TIMEOUT, KEYS_WAITERS_MAX};
use usher_core::auth::claims::TokenError;
use usher_core::auth::identity::Identity;
use usher_core::auth::key_set::KeySet;
use usher_core::auth::verifier::{Verifier, VerifierKeys};
use usher_core::limits::RETRY_KEYS;
use usher_core::protocol::refusal::{Refusal, RefusalCode, TokenFlaw};

/// Tells who the bearer of a token is.
#[derive(Clone)]
pub(crate) struct Keyring {
    state: watch::Receiver<KeysState>,
    /// Asks for newer keys; absent where none are published.
    wishes: Option<mpsc::Sender<()>>,
    waiters: Arc<Semaphore>,
    /// The issuers that are accepted, for the log.
    issuers: Arc<[String]>,
    /// Whether the log has named another.
    has_named_issuer: Arc<AtomicBool>,
    clock: fn() -> u64,
}

/// What is known of the keys.
#[derive(Clone, Debug)]
pub(crate) struct KeysState {
    verifier: Arc<Verifier>,
    /// Whether any token could be verified.
    has_keys: bool,
    /// Questions to the key server that were begun.
    begun: u64,
    /// Those that have ended.
    ended: u64,
    /// Whether the last of them had a good answer.
    is_current: bool,
    /// When the last good answer came, in seconds since 1970.
    answered_at: Option<u64>,
}

/// Asks the key server once, for who examines a configuration.
///
/// # Errors
/// Where there is no answer, or one that is no set of keys.
pub(crate) async fn look(url: &Uri) -> Result<KeySet, Box<dyn std::error::Error + Send + Sync>> {
    Ok(KeySet::parse(&fetch::fetch(url).await?)?)
}

impl Keyring {
    /// A ring with the configured secret, and where keys are published, who fetches them. The clock gives seconds since
    /// 1970.
    #[must_use]
    pub(crate) fn new(keys: &TokenKeys, clock: fn() -> u64) -> (Self, Option<Refresher>) {
        let known = match &keys.secret {
            Some(secret) => VerifierKeys::from_secret(secret),
            None => VerifierKeys::default(),
        };
        let mut known = known.with_issuers(keys.issuers.clone());
        if keys.url.is_some() {
            known = known.with_published(Arc::default());
        }
        let (sender, state) = watch::channel(KeysState {
            verifier: Arc::new(Verifier::new(known.clone())),
            has_keys: keys.secret.is_some(),
            begun: 0,
            ended: 0,
            is_current: false,
            answered_at: None,
        });
        let mut ring = Self {
            state,
            wishes: None,
            waiters: Arc::new(Semaphore::new(KEYS_WAITERS_MAX)),
            issuers: keys.issuers.clone().into(),
            has_named_issuer: Arc::default(),
            clock,
        };
        let refresher = keys.url.clone().map(|url| {
            // One wish is as good as many: the refresher takes all that are there before it asks.
            let (wishes, wished) = mpsc::channel(1);
            ring.wishes = Some(wishes);
            Refresher::new(url, known, sender, wished, clock)
        });
        (ring, refresher)
    }

    /// Tells who the bearer of a token is.
    ///
    /// # Errors
    ///
    /// `unauthorized` for a token that is not good; `unavailable` where that cannot be told at the moment.
    pub(crate) async fn prove(&self, token: &str) -> Result<Identity, Refusal> {
        match self.verify(token) {
            Err(TokenError::UnknownKey) => {}
            outcome => return outcome.map_err(|error| self.refused(&error)),
        }
        let (Some(wishes), Ok(_seat)) = (&self.wishes, self.waiters.try_acquire()) else {
            return Err(untold());
        };
        // The answer to a question that was under way before the token came may be too old for it; the next is not.
        let mut state = self.state.clone();
        let enough = state.borrow().begun + 1;
        // Where there is a wish already, it is as good as this one.
        let _ = wishes.try_send(());
        let newer = async {
            loop {
                let (ended, is_current) = {
                    let state = state.borrow_and_update();
                    (state.ended, state.is_current)
                };
                match self.verify(token) {
                    Err(TokenError::UnknownKey) if ended < enough => {}
                    Err(TokenError::UnknownKey) if !is_current => return Err(untold()),
                    outcome => return outcome.map_err(|error| self.refused(&error)),
                }
                if state.changed().await.is_err() {
                    return Err(untold());
                }
            }
        };
        timeout(KEYS_PAUSE + 2 * KEYS_TIMEOUT, newer)
            .await
            .unwrap_or_else(|_| Err(untold()))
    }

    /// Whether there are keys to verify a token with.
    #[must_use]
    pub(crate) fn has_keys(&self) -> bool {
        self.state.borrow().has_keys
    }

    /// Waits until there are. Cancel-safe: it only looks.
    pub(crate) async fn wait_for_keys(&mut self) -> bool {
        self.state.wait_for(|state| state.has_keys).await.is_ok()
    }

    /// Seconds since the key server last gave a good answer; zero where there was none.
    #[must_use]
    pub(crate) fn age_seconds(&self) -> u64 {
        let answered_at = self.state.borrow().answered_at;
        answered_at.map_or(0, |at| (self.clock)().saturating_sub(at))
    }

    /// What the bearer is told. That a token whose signature is good is of another issuer is also for the operator, once:
    /// it is likelier a setting that is missing than an attack.
    fn refused(&self, error: &TokenError) -> Refusal {
        if let TokenError::UnknownIssuer { given } = error
            && !self.has_named_issuer.swap(true, Ordering::Relaxed)
        {
            let accepted = self.issuers.join(", ");
            warn!(
                given,
                accepted,
                "refused a token of another issuer: if it is yours, add it to USHER_ISSUER"
            );
        }
        Refusal::of_token(flaw(error), error.to_string())
    }

    fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        let verifier = Arc::clone(&self.state.borrow().verifier);
        verifier.verify(token, (self.clock)())
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring")
            .field(&*self.state.borrow())
            .finish()
    }
}

/// The name of what is wrong with a token, for clients.
fn flaw(error: &TokenError) -> TokenFlaw {
    match error {
        TokenError::Malformed | TokenError::Header { .. } | TokenError::Payload => {
            TokenFlaw::Malformed
        }
        TokenError::UnknownIssuer { .. }
        | TokenError::Missing { claim: "iss", .. }
        | TokenError::Wrong { claim: "iss", .. } => TokenFlaw::Issuer,
        TokenError::Unstorable { .. } | TokenError::Missing { .. } | TokenError::Wrong { .. } => {
            TokenFlaw::Claim
        }
        TokenError::TooLarge => TokenFlaw::TooLarge,
        TokenError::SecretKey => TokenFlaw::SecretKey,
        TokenError::WrongAlgorithm { .. } => TokenFlaw::Algorithm,
        TokenError::UnknownKey => TokenFlaw::UnknownKey,
        TokenError::BadSignature => TokenFlaw::Signature,
        TokenError::RefusedRole { .. } => TokenFlaw::Role,
        TokenError::Expired => TokenFlaw::Expired,
        TokenError::NotYetValid => TokenFlaw::NotYetValid,
    }
}

/// The token's key is not known, and whether it is a good one cannot be asked.
fn untold() -> Refusal {
    let message = "this token's key cannot be looked up at the moment, try again";
    Refusal::new(RefusalCode::Unavailable, message).retry_in(RETRY_KEYS)
}

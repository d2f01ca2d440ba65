//! Verifies tokens with the newest keys of the project's key server.
//!
//! ```text
//! handshake, frame, call ─► Keyring::prove ─► the newest Verifier ─► Identity
//!                               │ unknown key        ▲
//!                               └─ asks ─► Refresher ┘ ─► key server
//! ```
//!
//! A token with an unknown key may be signed with a new key. [`Keyring::prove`] then waits for the next answer of the key
//! server and verifies the token again, so no client notices a rotation. The refresher sends one request at a time, at most
//! one every [`crate::limits::KEYS_PAUSE`], however many unknown keys clients show. It keeps the last good keys until it
//! has better ones. This module knows nothing of sockets. Read it in this order: `mod`, [`refresher`], `fetch`.

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
use crate::keyring::refresher::{KeysState, Refresher};
use crate::limits::{KEYS_PAUSE, KEYS_TIMEOUT, KEYS_WAITERS_MAX};
use usher_core::auth::claims::TokenError;
use usher_core::auth::identity::Identity;
use usher_core::auth::key_set::KeySet;
use usher_core::auth::verifier::{Verifier, VerifierKeys};
use usher_core::limits::RETRY_KEYS;
use usher_core::protocol::refusal::{Refusal, RefusalCode, TokenFlaw};

/// Verifies tokens. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Keyring {
    state: watch::Receiver<KeysState>,
    /// Requests newer keys. `None` if the project publishes none.
    requests: Option<mpsc::Sender<()>>,
    waiters: Arc<Semaphore>,
    /// The accepted issuers, for the log.
    issuers: Arc<[String]>,
    /// Whether the log has named an issuer that is not accepted.
    has_named_issuer: Arc<AtomicBool>,
    clock: fn() -> u64,
}

/// Fetches the key set once, to check a configuration.
///
/// # Errors
/// The key server gives no answer, or the answer is not a key set.
pub(crate) async fn look(url: &Uri) -> Result<KeySet, Box<dyn std::error::Error + Send + Sync>> {
    Ok(KeySet::parse(&fetch::fetch(url).await?)?)
}

impl Keyring {
    /// Creates a keyring with the configured secret, and a refresher if the project publishes keys. The clock returns
    /// seconds since 1970.
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
        let (state_sender, state) = watch::channel(KeysState {
            verifier: Arc::new(Verifier::new(known.clone())),
            has_keys: keys.secret.is_some(),
            begun: 0,
            ended: 0,
            is_current: false,
            answered_at: None,
        });
        let mut keyring = Self {
            state,
            requests: None,
            waiters: Arc::new(Semaphore::new(KEYS_WAITERS_MAX)),
            issuers: keys.issuers.clone().into(),
            has_named_issuer: Arc::default(),
            clock,
        };
        let refresher = keys.url.clone().map(|url| {
            // One slot is enough: the refresher takes all pending requests before it asks the key server.
            let (sender, requests) = mpsc::channel(1);
            keyring.requests = Some(sender);
            Refresher::new(url, known, state_sender, requests, clock)
        });
        (keyring, refresher)
    }

    /// Returns the identity of a token's bearer.
    ///
    /// # Errors
    ///
    /// `unauthorized` for an invalid token; `unavailable` if the gateway cannot look up the key at the moment.
    pub(crate) async fn prove(&self, token: &str) -> Result<Identity, Refusal> {
        match self.verify(token) {
            Err(TokenError::UnknownKey) => {}
            outcome => return outcome.map_err(|error| self.refused(&error)),
        }
        let (Some(requests), Ok(_waiter)) = (&self.requests, self.waiters.try_acquire()) else {
            return Err(unavailable());
        };
        // An answer to a request that began before this call may be older than the token's key. The next one is not.
        let mut state = self.state.clone();
        let enough = state.borrow().begun + 1;
        // A full queue already holds such a request.
        let _ = requests.try_send(());
        let newer = async {
            loop {
                let (ended, is_current) = {
                    let state = state.borrow_and_update();
                    (state.ended, state.is_current)
                };
                match self.verify(token) {
                    Err(TokenError::UnknownKey) if ended < enough => {}
                    Err(TokenError::UnknownKey) if !is_current => return Err(unavailable()),
                    outcome => return outcome.map_err(|error| self.refused(&error)),
                }
                if state.changed().await.is_err() {
                    return Err(unavailable());
                }
            }
        };
        timeout(KEYS_PAUSE + 2 * KEYS_TIMEOUT, newer)
            .await
            .unwrap_or_else(|_| Err(unavailable()))
    }

    /// Whether the keyring can verify any token.
    #[must_use]
    pub(crate) fn has_keys(&self) -> bool {
        self.state.borrow().has_keys
    }

    /// Waits for the first key. Cancel-safe: it changes nothing.
    pub(crate) async fn wait_for_keys(&mut self) -> bool {
        self.state.wait_for(|state| state.has_keys).await.is_ok()
    }

    /// Seconds since the last good answer of the key server; 0 before the first.
    #[must_use]
    pub(crate) fn age_seconds(&self) -> u64 {
        let answered_at = self.state.borrow().answered_at;
        answered_at.map_or(0, |at| (self.clock)().saturating_sub(at))
    }

    /// Turns a token error into a refusal. Logs the first token that has a good signature and an issuer that is not
    /// accepted: a missing setting is likelier than an attack.
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

/// Names the flaw of a token for clients.
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

/// The refusal of a token whose key the gateway does not know and cannot look up.
fn unavailable() -> Refusal {
    let message = "this token's key cannot be looked up at the moment, try again";
    Refusal::new(RefusalCode::Unavailable, message).retry_in(RETRY_KEYS)
}

//! The keys that sign this project's tokens, as they are at the moment.
//!
//! Everybody who has to know who the bearer of a token is asks [`Keyring::prove`].

use std::fmt;
use std::sync::Arc;

use crate::auth::claims::TokenError;
use crate::auth::identity::Identity;
use crate::auth::verifier::Verifier;
use crate::protocol::refusal::{Refusal, RefusalCode};

/// Tells who the bearer of a token is.
#[derive(Clone)]
pub struct Keyring {
    verifier: Arc<Verifier>,
    clock: fn() -> u64,
}

impl Keyring {
    /// A ring whose keys stay as they are. The clock gives seconds since 1970.
    #[must_use]
    pub fn fixed(verifier: Verifier, clock: fn() -> u64) -> Self {
        Self {
            verifier: Arc::new(verifier),
            clock,
        }
    }

    /// Tells who the bearer of a token is.
    ///
    /// # Errors
    ///
    /// `unauthorized` for a token that is not good; `unavailable` where that cannot be told at the moment.
    #[expect(clippy::unused_async, reason = "keys that are fetched are waited for")]
    pub async fn prove(&self, token: &str) -> Result<Identity, Refusal> {
        self.verifier.verify(token, (self.clock)()).map_err(refused)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("verifier", &self.verifier)
            .finish_non_exhaustive()
    }
}

fn refused(error: TokenError) -> Refusal {
    Refusal::new(RefusalCode::Unauthorized, error.to_string())
}

//! Measures how many access tokens one core verifies per second, with the gateway's own verifier.
//!
//! ```sh
//! cargo bench --bench tokens
//! ```
//!
//! The tokens have the form of Supabase's, for a user who signed in with a password, with metadata. Each verification
//! is complete: header, signature and claims.

#![allow(clippy::unwrap_used, reason = "a failed bench panics with the place")]

use std::hint::black_box;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use criterion::{Criterion, Throughput};
use secrecy::SecretString;
use serde_json::{Value, json};
use usher_core::auth::key_set::KeySet;
use usher_core::auth::signing::SigningKey;
use usher_core::auth::verifier::{Verifier, VerifierKeys};

#[allow(dead_code, reason = "tests use all of it")]
#[path = "../crates/core/tests/support/keys.rs"]
mod keys;

use keys::{TestKey, key_set};

const NOW: u64 = 1_790_000_000;
const ISSUER: &str = "https://abcdefghijklmnopqrst.supabase.co/auth/v1";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let secret = SecretString::from("a secret of at least thirty-two bytes");
    let names = ["0b2c1a52", "5d1f8e70", "9c7e3d44"];
    let keys = [
        TestKey::es256(names[0]),
        TestKey::rs256(names[1]),
        TestKey::ed25519(names[2]),
    ];
    let published = Arc::new(KeySet::parse(&key_set(&keys.each_ref())).unwrap());
    let known = VerifierKeys::from_secret(&secret)
        .with_published(published)
        .with_issuers(vec![ISSUER.to_owned()]);
    let verifier = Verifier::new(known);
    let by_secret = SigningKey::from_secret(&secret).sign(&claims(), &SystemRandom::new());
    let [es256, rs256, eddsa] = keys.map(|key| key.sign(&claims()));

    let mut group = criterion.benchmark_group("verify");
    group.throughput(Throughput::Elements(1));
    for (name, token) in [
        ("HS256", by_secret),
        ("ES256", es256),
        ("RS256", rs256),
        ("EdDSA", eddsa),
    ] {
        verifier.verify(&token, NOW).unwrap();
        group.bench_function(name, |bench| {
            bench.iter(|| verifier.verify(black_box(&token), black_box(NOW)));
        });
    }
    group.finish();
    criterion.final_summary();
}

fn claims() -> Value {
    json!({
        "aal": "aal1",
        "amr": [{"method": "password", "timestamp": NOW - 10}],
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "aud": "authenticated",
        "email": "somebody@example.org",
        "exp": NOW + 3_600,
        "iat": NOW,
        "is_anonymous": false,
        "iss": ISSUER,
        "phone": "",
        "role": "authenticated",
        "session_id": "cc6c2d1e-0a3f-4b57-9c0f-2b7a6f1d9e10",
        "sub": "6f1d2c3b-0a49-4b5e-8c7d-1e2f3a4b5c6d",
        "user_metadata": {
            "avatar_url": "https://example.org/avatars/somebody.png",
            "email": "somebody@example.org",
            "email_verified": true,
            "phone_verified": false,
            "sub": "6f1d2c3b-0a49-4b5e-8c7d-1e2f3a4b5c6d",
            "username": "somebody",
        },
    })
}

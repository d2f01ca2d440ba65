//! Measures each step of the hot paths alone: no socket, no database, one core.
//!
//! ```sh
//! cargo bench --bench core
//! cargo bench --bench core -- publish        benches whose names contain the word
//! ```
//!
//! A time of `publish` divided by its receivers is the cost of a delivery before the kernel's work.

#![allow(clippy::unwrap_used, reason = "a failed bench panics with the place")]

use std::hint::black_box;

use aws_lc_rs::rand::SystemRandom;
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use secrecy::SecretString;
use serde_json::json;
use usher_core::auth::identity::Identity;
use usher_core::auth::signing::SigningKey;
use usher_core::auth::verifier::{Verifier, VerifierKeys};
use usher_core::protocol::id::{Seq, SessionId, VotingId};
use usher_core::protocol::notify::{Notice, parse_notice};
use usher_core::protocol::server::{Can, Frames};
use usher_core::protocol::{client, server};
use usher_core::relay::PeerId;
use usher_core::relay::delivery::{Attached, Position, Sink};
use usher_core::relay::resume::ResumeKey;
use usher_core::relay::router::Router;
use usher_core::relay::snapshot::Snapshot;
use usher_core::relay::tally::Tally;
use usher_core::relay::topic::Receiver;
use uuid::Uuid;

const EPOCH: &str = "k3v9";
const SESSION: SessionId = SessionId(Uuid::from_u128(0x5e55));
const VOTING: VotingId = VotingId(Uuid::from_u128(0xb011));
/// The default of USHER_RING_EVENTS.
const RING_EVENTS: usize = 512;
const NOW: u64 = 1_790_000_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    inbound(&mut criterion);
    encode(&mut criterion);
    publish(&mut criterion);
    decode(&mut criterion);
    tokens(&mut criterion);
    tallies(&mut criterion);
    criterion.final_summary();
}

/// Parses the text of a notification into an event for delivery.
fn inbound(criterion: &mut Criterion) {
    let payload = notification(1);
    criterion.bench_function("notice/parse", |bench| {
        bench.iter(|| parse_notice(black_box(&payload)));
    });
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for count in [1_u64, 16, 64] {
        let events: Vec<Bytes> = (1..=count)
            .map(|seq| notice(seq).event.unwrap().json)
            .collect();
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("{count} events"), |bench| {
            bench.iter(|| server::events(SESSION, Seq(0), black_box(&events).iter()));
        });
    }
    group.finish();
}

/// Publishes one event to several receivers: the router's work for each, up to the hand-over of the bytes.
fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    for receivers in [1_u64, 100, 5_000] {
        let mut router = Router::new(RING_EVENTS);
        let mut sink = Counted::default();
        router.resync(EPOCH);
        let start = Position {
            seq: Seq(0),
            epoch: EPOCH.into(),
            snapshot: None,
            sees_hidden: false,
        };
        for peer in (0..receivers).map(PeerId) {
            router.join(SESSION, Receiver::new(peer, 0, None));
            let attached = router.attach(SESSION, peer, &start, &mut sink);
            assert_eq!(attached, Attached::Live);
        }
        let mut seq = 0;
        group.throughput(Throughput::Elements(receivers));
        group.bench_function(format!("{receivers} receivers"), |bench| {
            bench.iter_batched(
                || {
                    seq += 1;
                    notice(seq)
                },
                |notice| router.publish([notice], &mut sink),
                BatchSize::PerIteration,
            );
        });
        assert_eq!(
            sink.offers,
            seq * receivers,
            "each receiver gets each event"
        );
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let session = SESSION.0;
    let frames = [
        ("ping", json!({"type": "ping"})),
        (
            "subscribe",
            json!({"type": "subscribe", "id": 1, "session": session, "history": 50}),
        ),
        (
            "send",
            json!({
                "type": "send", "id": 2, "session": session, "nonce": Uuid::from_u128(7),
                "body": "and so the reel turns, ".repeat(6),
            }),
        ),
        (
            "vote",
            json!({"type": "vote", "id": 3, "voting": VOTING.0, "movie": session}),
        ),
    ];
    let mut group = criterion.benchmark_group("decode");
    for (name, frame) in frames {
        let text = frame.to_string();
        assert!(client::decode(&text).is_ok(), "{text}");
        group.bench_function(name, |bench| {
            bench.iter(|| client::decode(black_box(&text)))
        });
    }
    group.finish();
}

/// Verifies and seals tokens: the cost of a join that needs no query.
fn tokens(criterion: &mut Criterion) {
    let secret = SecretString::from("a secret of at least thirty-two bytes");
    let verifier = Verifier::new(VerifierKeys::from_secret(&secret));
    let claims = json!({
        "aud": "authenticated", "exp": NOW + 3_600, "iat": NOW, "role": "authenticated",
        "sub": Uuid::from_u128(0x0ab5), "user_metadata": {"username": "somebody"},
    });
    let token = SigningKey::from_secret(&secret).sign(&claims, &SystemRandom::new());
    verifier.verify(&token, NOW).unwrap();
    criterion.bench_function("access token/verify HS256", |bench| {
        bench.iter(|| verifier.verify(black_box(&token), NOW));
    });

    let key = ResumeKey::new(b"a secret of at least thirty-two bytes");
    let identity = Identity::anonymous();
    let can = Can {
        send: false,
        vote: false,
        moderate: false,
    };
    let now_ms = NOW * 1_000;
    let seal = || key.seal(black_box(&identity), SESSION, can, now_ms, now_ms + 600_000);
    criterion.bench_function("resume token/seal", |bench| bench.iter(seal));
    let sealed = seal();
    assert!(key.open(&sealed, &identity, SESSION, now_ms).is_some());
    criterion.bench_function("resume token/open", |bench| {
        bench.iter(|| key.open(black_box(&sealed), &identity, SESSION, now_ms));
    });
}

/// Parses counts from the database into a frame, and merges them into the snapshot for new subscribers.
fn tallies(criterion: &mut Criterion) {
    let counts: Vec<_> = (0..8_u128)
        .map(|movie| json!({"movie": Uuid::from_u128(movie), "votes": 1_234}))
        .collect();
    let frame = json!({
        "type": "tally", "session": SESSION.0, "voting": VOTING.0, "status": "open", "version": 77,
        "total": 9_872, "counts": counts,
    });
    let frame = frame.to_string();
    criterion.bench_function("tally/parse", |bench| {
        bench.iter(|| Tally::parse(EPOCH, black_box(&frame), None));
    });
    let tally = Tally::parse(EPOCH, &frame, None).unwrap();
    let mut snapshot: Snapshot = serde_json::from_value(json!({
        "epoch": EPOCH, "head": 9, "floor": 0, "info": {}, "votings": [{
            "voting": VOTING.0, "status": "open", "version": 1, "total": 0, "counts": [], "question": "?",
            "results_visibility": "live", "allow_change": true, "options": [],
        }],
    }))
    .unwrap();
    criterion.bench_function("tally/merge", |bench| {
        bench.iter(|| snapshot.update(black_box(&tally)));
    });
    assert_eq!(snapshot.votings[0].version, 77);
}

/// A sink that accepts all bytes and only counts them.
#[derive(Default)]
struct Counted {
    offers: u64,
}

impl Sink for Counted {
    fn offer(&mut self, _peer: PeerId, frames: &Frames) -> bool {
        self.offers += 1;
        black_box(frames);
        true
    }
}

fn notice(seq: u64) -> Notice {
    parse_notice(&notification(seq)).unwrap()
}

/// Builds the trigger's notification for a chat message of about 140 characters.
fn notification(seq: u64) -> String {
    let event = json!({
        "seq": seq, "type": "chat.created", "at": "2026-11-22T20:00:00.123Z",
        "data": {
            "id": Uuid::from_u128(u128::from(seq)), "session_id": SESSION.0, "user_id": Uuid::from_u128(0x0ab5),
            "body": "and so the reel turns, ".repeat(6), "reply_to": null,
            "author": {"username": "somebody", "display_name": "Somebody", "avatar_path": null, "role": "viewer"},
        },
    });
    json!({"s": SESSION.0, "q": seq, "e": event}).to_string()
}

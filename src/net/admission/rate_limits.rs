//! Limits the rates of users, sessions and addresses, over all their sockets on this node.
//!
//! Each limit allows a burst and refills evenly (GCRA, by `governor`). A store holds at most [`THROTTLE_KEYS_MAX`] keys. If
//! it is full, a new key waits, and known keys are not affected.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::{DashMap, Entry};
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use hyper::header::HeaderMap;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::{moment, ticks};
use crate::config::rates::{Rate, Rates};
use crate::limits::{THROTTLE_KEYS_MAX, THROTTLE_SWEEP_INTERVAL};
use crate::net::accept::client_address::{self, AddressKey};
use usher_core::protocol::client::NewMessage;
use usher_core::protocol::id::{SessionId, UserId};
use usher_core::protocol::refusal::Refusal;
use usher_core::relay::message::Write;

/// The rate limiters of a node.
#[derive(Debug)]
pub(crate) struct RateLimits {
    messages: Keyed<UserId>,
    moderator_messages: Keyed<UserId>,
    votes: Keyed<UserId>,
    moderation: Keyed<UserId>,
    session_writes: Keyed<Uuid>,
    requests: Keyed<AddressKey>,
    sockets: Arc<DashMap<AddressKey, u32>>,
    sockets_max: Option<u32>,
    repeats: Repeats,
    trusted_proxies: Vec<IpNet>,
}

impl RateLimits {
    /// Starts with full allowances.
    #[must_use]
    pub(crate) fn new(rates: &Rates) -> Self {
        Self {
            messages: Keyed::new(rates.messages, MonotonicClock),
            moderator_messages: Keyed::new(rates.moderator_messages, MonotonicClock),
            votes: Keyed::new(rates.votes, MonotonicClock),
            moderation: Keyed::new(rates.moderation, MonotonicClock),
            session_writes: Keyed::new(rates.session_writes, MonotonicClock),
            requests: Keyed::new(rates.requests, MonotonicClock),
            sockets: Arc::default(),
            sockets_max: rates.connections_per_address.map(u32::from),
            repeats: Repeats::new(rates.repeat_pause),
            trusted_proxies: rates.trusted_proxies.clone(),
        }
    }

    /// Counts a write. If the write fails later, the caller passes the proof to [`Self::on_refused`].
    ///
    /// # Errors
    /// `rate_limited`, with the time to wait.
    pub(crate) fn admit(
        &self,
        author: UserId,
        write: &Write,
        is_moderator: bool,
        now: Instant,
    ) -> Result<Passed, Refusal> {
        let mut proof = Passed {
            author,
            noted_at: None,
        };
        let (personal, place, what) = match write {
            Write::Message(message) if is_moderator => {
                (&self.moderator_messages, message.session.0, "messages")
            }
            Write::Message(message) => {
                let noted_at = self.repeats.say(author, message, now);
                proof.noted_at = noted_at.map_err(|wait| {
                    Refusal::rate_limited(
                        "the same message was sent here a moment ago".to_owned(),
                        wait,
                    )
                })?;
                (&self.messages, message.session.0, "messages")
            }
            Write::Vote(vote) => (&self.votes, vote.voting.0, "votes"),
        };
        let passed = personal
            .check(&author)
            .map_err(|wait| Refusal::rate_limited(format!("too many {what}, slow down"), wait))
            .and_then(|()| {
                let everybody = self.session_writes.check(&place);
                everybody.map_err(|wait| {
                    Refusal::rate_limited(
                        format!("too many {what} from all users together, try again"),
                        wait,
                    )
                })
            });
        if let Err(refusal) = passed {
            self.on_refused(proof, write);
            return Err(refusal);
        }
        Ok(proof)
    }

    /// A counted write was refused. The same text may be sent again, if this write recorded it.
    pub(crate) fn on_refused(&self, proof: Passed, write: &Write) {
        if let (Write::Message(message), Some(noted_at)) = (write, proof.noted_at) {
            self.repeats.forget(proof.author, message, noted_at);
        }
    }

    /// Counts an act of moderation, whether or not the caller is a moderator.
    ///
    /// # Errors
    /// `rate_limited`, with the time to wait.
    pub(crate) fn moderate(&self, author: UserId) -> Result<(), Refusal> {
        let too_many =
            |wait| Refusal::rate_limited("too many acts of moderation, slow down".to_owned(), wait);
        self.moderation.check(&author).map_err(too_many)
    }

    /// Returns the key of a request's client; `None` for a trusted proxy itself, which has no limit.
    #[must_use]
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<AddressKey> {
        client_address::client(peer, headers, &self.trusted_proxies)
    }

    /// Counts a request.
    ///
    /// # Errors
    /// The time to wait.
    pub(crate) fn request(&self, client: Option<AddressKey>) -> Result<(), Duration> {
        client.map_or(Ok(()), |client| self.requests.check(&client))
    }

    /// Reserves a socket of an address. Returns `None` if the address has too many.
    #[must_use]
    pub(crate) fn socket(&self, client: Option<AddressKey>) -> Option<AddressPermit> {
        let (Some(client), Some(max)) = (client, self.sockets_max) else {
            return Some(AddressPermit { taken: None });
        };
        let mut count = self.sockets.entry(client).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(AddressPermit {
            taken: Some((client, Arc::clone(&self.sockets))),
        })
    }

    /// Removes keys with a full allowance, regularly until `stop`.
    pub(crate) async fn sweep(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = ticks(THROTTLE_SWEEP_INTERVAL);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = tick.tick() => {
                    for keyed in self.by_author() {
                        keyed.sweep();
                    }
                    self.session_writes.sweep();
                    self.requests.sweep();
                    self.repeats.sweep(moment().at);
                }
            }
        }
    }

    fn by_author(&self) -> [&Keyed<UserId>; 4] {
        [
            &self.messages,
            &self.moderator_messages,
            &self.votes,
            &self.moderation,
        ]
    }

    /// The number of keys over all limits.
    #[must_use]
    pub(crate) fn keys(&self) -> usize {
        self.by_author().map(Keyed::len).iter().sum::<usize>()
            + self.session_writes.len()
            + self.requests.len()
            + self.repeats.said.len()
            + self.sockets.len()
    }
}

/// The proof that a write was counted.
#[derive(Debug)]
pub(crate) struct Passed {
    author: UserId,
    /// The time when its text was recorded. `None` for a retry with the same nonce, which records nothing.
    noted_at: Option<Instant>,
}

/// One socket of an address. Dropping it frees it.
#[derive(Debug)]
pub(crate) struct AddressPermit {
    taken: Option<(AddressKey, Arc<DashMap<AddressKey, u32>>)>,
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        if let Some((client, sockets)) = &self.taken {
            sockets.remove_if_mut(client, |_, count| {
                *count -= 1;
                *count == 0
            });
        }
    }
}

/// Converts a rate to a quota with a burst of the same count.
pub(crate) fn quota(rate: Rate) -> Quota {
    Quota::with_period(rate.period / rate.count.get())
        .unwrap_or_else(|| Quota::per_second(rate.count))
        .allow_burst(rate.count)
}

/// A limit per key. Without a rate there is no limit.
#[derive(Debug)]
struct Keyed<K: Hash + Eq + Clone, C: Clock = MonotonicClock> {
    limit: Option<Limit<K, C>>,
}

#[derive(Debug)]
struct Limit<K: Hash + Eq + Clone, C: Clock> {
    limiter: RateLimiter<K, BoundedStore<K>, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    period: Duration,
}

impl<K: Hash + Eq + Clone, C: Clock + Clone> Keyed<K, C> {
    fn new(rate: Option<Rate>, clock: C) -> Self {
        Self {
            limit: rate.map(|rate| Limit {
                limiter: RateLimiter::new(quota(rate), BoundedStore::new(), clock.clone()),
                clock,
                period: rate.period,
            }),
        }
    }

    fn check(&self, key: &K) -> Result<(), Duration> {
        let Some(limit) = &self.limit else {
            return Ok(());
        };
        limit.limiter.check_key(key).map_err(|not_until| {
            // A new key that finds the store full waits at most one period: then other keys have expired.
            not_until
                .wait_time_from(limit.clock.now())
                .min(limit.period)
        })
    }

    fn sweep(&self) {
        if let Some(limit) = &self.limit {
            limit.limiter.retain_recent();
            limit.limiter.shrink_to_fit();
        }
    }

    fn len(&self) -> usize {
        self.limit.as_ref().map_or(0, |limit| limit.limiter.len())
    }
}

/// The state of at most [`THROTTLE_KEYS_MAX`] keys.
#[derive(Debug)]
struct BoundedStore<K: Hash + Eq> {
    states: DashMap<K, u64>,
}

impl<K: Hash + Eq> BoundedStore<K> {
    fn new() -> Self {
        Self {
            states: DashMap::new(),
        }
    }
}

impl<K: Hash + Eq + Clone> StateStore for BoundedStore<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(mut state) = self.states.get_mut(key) {
            let (outcome, next) = decide(Some(Nanos::from(*state)))?;
            *state = next.into();
            return Ok(outcome);
        }
        if self.states.len() >= THROTTLE_KEYS_MAX {
            // Decides as for a key that has used its allowance far into the future.
            const NEVER: u64 = u64::MAX / 2;
            return decide(Some(Nanos::from(NEVER))).map(|(outcome, _)| outcome);
        }
        let entry = self.states.entry(key.clone());
        let state = match &entry {
            Entry::Occupied(state) => Some(Nanos::from(*state.get())),
            Entry::Vacant(_) => None,
        };
        let (outcome, next) = decide(state)?;
        entry.insert(next.into());
        Ok(outcome)
    }
}

impl<K: Hash + Eq + Clone> governor::state::keyed::ShrinkableKeyedStateStore<K>
    for BoundedStore<K>
{
    fn retain_recent(&self, drop_below: Nanos) {
        let drop_below: u64 = drop_below.into();
        self.states.retain(|_, state| *state > drop_below);
    }

    fn shrink_to_fit(&self) {
        self.states.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.states.len()
    }

    fn is_empty(&self) -> bool {
        self.states.is_empty()
    }
}

/// The last message of each user in each session.
#[derive(Debug)]
struct Repeats {
    pause: Duration,
    hasher: RandomState,
    said: DashMap<(UserId, SessionId), LastMessage>,
}

#[derive(Debug)]
struct LastMessage {
    body: u64,
    nonce: Option<Uuid>,
    at: Instant,
}

impl Repeats {
    fn new(pause: Duration) -> Self {
        Self {
            pause,
            hasher: RandomState::new(),
            said: DashMap::new(),
        }
    }

    /// Records a message and returns the time. A repeated text within the pause returns the time to wait. A retry with the
    /// same nonce is the same message: it passes and records nothing. The check and the record are one step, so of two equal
    /// messages at the same time one passes.
    fn say(
        &self,
        user: UserId,
        message: &NewMessage,
        now: Instant,
    ) -> Result<Option<Instant>, Duration> {
        if self.pause.is_zero() {
            return Ok(None);
        }
        let said = LastMessage {
            body: self.hasher.hash_one(message.body.as_str()),
            nonce: message.nonce.map(|nonce| nonce.0),
            at: now,
        };
        // Counted before the entry is locked: `len` locks every shard of the map.
        let is_full = self.said.len() >= THROTTLE_KEYS_MAX;
        match self.said.entry((user, message.session)) {
            Entry::Occupied(mut last) => {
                if said.nonce.is_some() && said.nonce == last.get().nonce {
                    return Ok(None);
                }
                let wait = (last.get().at + self.pause).saturating_duration_since(now);
                if said.body == last.get().body && !wait.is_zero() {
                    // Another thread may have read the clock later and come first.
                    return Err(wait.min(self.pause));
                }
                last.insert(said);
            }
            // A full map does not record the message. The rate limits still apply.
            Entry::Vacant(_) if is_full => return Ok(None),
            Entry::Vacant(place) => drop(place.insert(said)),
        }
        Ok(Some(now))
    }

    fn forget(&self, user: UserId, message: &NewMessage, noted_at: Instant) {
        let body = self.hasher.hash_one(message.body.as_str());
        self.said.remove_if(&(user, message.session), |_, said| {
            said.body == body && said.at == noted_at
        });
    }

    fn sweep(&self, now: Instant) {
        self.said.retain(|_, said| now < said.at + self.pause);
        self.said.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use governor::clock::FakeRelativeClock;

    use super::*;
    use usher_core::protocol::client::{ClientFrame, decode};

    const RATE: Rate = Rate {
        count: NonZero::new(3).unwrap(),
        period: Duration::from_secs(30),
    };

    #[test]
    fn a_burst_passes_and_the_time_to_wait_is_exact() {
        let clock = FakeRelativeClock::default();
        let keyed: Keyed<u32, _> = Keyed::new(Some(RATE), clock.clone());
        for _ in 0..3 {
            assert_eq!(keyed.check(&1), Ok(()));
        }
        assert_eq!(keyed.check(&1), Err(Duration::from_secs(10)));
        assert_eq!(keyed.check(&2), Ok(()), "others have their own");
        clock.advance(Duration::from_millis(9_999));
        assert_eq!(keyed.check(&1), Err(Duration::from_millis(1)));
        clock.advance(Duration::from_millis(1));
        assert_eq!(keyed.check(&1), Ok(()));
        assert_eq!(keyed.check(&1), Err(Duration::from_secs(10)));
    }

    #[test]
    fn a_million_strangers_are_not_remembered_and_known_ones_are_served() {
        let clock = FakeRelativeClock::default();
        let keyed: Keyed<u32, _> = Keyed::new(Some(RATE), clock.clone());
        for key in 0..1_000_000 {
            let _ = keyed.check(&key);
        }
        assert_eq!(keyed.len(), THROTTLE_KEYS_MAX);
        assert_eq!(keyed.check(&0), Ok(()));
        assert_eq!(keyed.check(&999_999), Err(RATE.period));
        // Keys with a full allowance make room.
        clock.advance(RATE.period);
        keyed.sweep();
        assert_eq!((keyed.len(), keyed.check(&999_999)), (0, Ok(())));
    }

    #[test]
    fn no_rate_is_no_limit() {
        let keyed: Keyed<u32> = Keyed::new(None, MonotonicClock);
        assert!((0..1_000).all(|_| keyed.check(&1).is_ok()));
    }

    #[test]
    fn the_same_words_wait_and_a_retry_does_not() {
        let now = moment().at;
        let repeats = Repeats::new(Duration::from_secs(30));
        let (ann, ben) = (user(1), user(2));
        let later = |seconds| now + Duration::from_secs(seconds);
        let noted = |seconds| Ok(Some(later(seconds)));
        assert_eq!(repeats.say(ann, &message("hi", 1), now), noted(0));
        assert_eq!(repeats.say(ann, &message("hi", 1), later(1)), Ok(None));
        assert_eq!(
            repeats.say(ann, &message("hi", 2), later(1)),
            Err(Duration::from_secs(29))
        );
        assert_eq!(repeats.say(ben, &message("hi", 3), later(1)), noted(1));
        assert_eq!(repeats.say(ann, &message("ho", 4), later(2)), noted(2));
        assert_eq!(repeats.say(ann, &message("hi", 5), later(3)), noted(3));
        repeats.forget(ann, &message("hi", 5), later(3));
        assert_eq!(repeats.say(ann, &message("hi", 6), later(4)), noted(4));
        assert_eq!(repeats.say(ann, &message("hi", 7), later(34)), noted(34));
    }

    #[test]
    fn a_retry_that_fails_does_not_free_the_words_of_what_was_written() {
        let now = moment().at;
        let rate_limits = RateLimits::new(&Rates {
            repeat_pause: Duration::from_secs(30),
            ..rates()
        });
        let say = |nonce| {
            let write = Write::Message(message("hi", nonce));
            let passed = rate_limits.admit(user(1), &write, false, now);
            passed.map(|passed| (passed, write))
        };
        let _written = say(1).unwrap();
        let (again, write) = say(1).unwrap();
        rate_limits.on_refused(again, &write);
        assert!(say(2).is_err());
    }

    #[test]
    fn of_equal_messages_at_the_same_time_one_passes() {
        const THREADS: u128 = 4;
        let now = moment().at;
        let repeats = Repeats::new(Duration::from_secs(30));
        let start = std::sync::Barrier::new(THREADS.try_into().unwrap());
        // Each round has another text, in a map that is large enough for the threads to collide.
        let passed: Vec<u32> = std::thread::scope(|scope| {
            let say = |thread: u128| {
                let (repeats, start) = (&repeats, &start);
                move || {
                    let passes = |round: u128| {
                        start.wait();
                        let message = message(&round.to_string(), round * THREADS + thread);
                        repeats.say(user(1), &message, now).is_ok()
                    };
                    (0..5_000).map(passes).map(u32::from).sum()
                }
            };
            let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(say(n))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(passed.iter().sum::<u32>(), 5_000, "{passed:?}");
    }

    #[test]
    fn the_words_of_a_million_users_are_not_all_remembered() {
        let now = moment().at;
        let repeats = Repeats::new(Duration::from_secs(30));
        let same = message("hi", 1);
        for number in 0..1_000_000 {
            assert!(repeats.say(user(number), &same, now).is_ok());
        }
        assert_eq!(repeats.said.len(), THROTTLE_KEYS_MAX);
        assert!(repeats.say(user(0), &message("hi", 2), now).is_err());
        repeats.sweep(now + repeats.pause);
        assert_eq!(repeats.said.len(), 0);
    }

    #[test]
    fn an_address_has_so_many_sockets_and_gets_them_back() {
        let rate_limits = RateLimits {
            sockets_max: Some(2),
            ..RateLimits::new(&rates())
        };
        let client = Some(AddressKey::from(IpAddr::from([192, 0, 2, 1])));
        let first = rate_limits.socket(client).unwrap();
        let _second = rate_limits.socket(client).unwrap();
        assert!(rate_limits.socket(client).is_none());
        assert!(rate_limits.socket(None).is_some());
        drop(first);
        let third = rate_limits.socket(client);
        assert!(third.is_some());
        drop((third, _second));
        assert_eq!(rate_limits.keys(), 0);
    }

    fn rates() -> Rates {
        Rates {
            messages: None,
            moderator_messages: None,
            votes: None,
            moderation: None,
            session_writes: None,
            frames: None,
            bytes: None,
            joins: None,
            requests: None,
            connections_per_address: None,
            repeat_pause: Duration::ZERO,
            trusted_proxies: Vec::new(),
        }
    }

    fn user(number: u128) -> UserId {
        UserId(Uuid::from_u128(number))
    }

    fn message(body: &str, nonce: u128) -> NewMessage {
        let text = format!(
            r#"{{"type":"send","session":"{}","body":"{body}","nonce":"{}"}}"#,
            Uuid::from_u128(7),
            Uuid::from_u128(nonce)
        );
        let ClientFrame::Send(message) = decode(&text).unwrap().frame else {
            panic!("{text}");
        };
        message
    }
}

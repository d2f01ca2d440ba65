//! Decides which events go to which receivers, and when the log must be asked.
//!
//! Every remedy is the same: whatever was missed, the log is asked for what follows the newest number held. No buffer of
//! events out of order exists anywhere. Invariants: a receiver's cursor only grows, by exactly what it was offered; the
//! window of a session never lets go of an event that was not flushed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustc_hash::FxHashMap;

use crate::limits::{LINGERING_SESSIONS_MAX, RECHECK_SPREAD, SESSION_LINGER};
use crate::protocol::id::{MovieId, Seq, SessionId, UserId, VotingId};
use crate::protocol::ms;
use crate::protocol::notify::{AccessChange, Event, Notice};
use crate::protocol::server::StartReason;
use crate::relay::PeerId;
use crate::relay::personal::{self, OwnVote, Users};
use crate::relay::snapshot::Snapshot;
use crate::relay::tally::Tally;
use crate::relay::topic::{Broken, Level, Receiver, Topic};

/// Where bytes for a receiver go.
pub trait Sink {
    /// Offers bytes to a receiver. False: it cannot take anything at the moment and nothing was taken; it will say when
    /// it can, and [`Router::catch_up`] then goes on from its cursor.
    fn offer(&mut self, peer: PeerId, bytes: &Bytes) -> bool;
}

/// The view that one fan-out loop has of the sessions its connections watch.
#[derive(Debug)]
pub struct Router {
    ring_events_max: usize,
    epoch: Option<Arc<str>>,
    generation: u64,
    topics: FxHashMap<SessionId, Topic>,
    sessions_of: FxHashMap<PeerId, Vec<SessionId>>,
    users: Users,
    dirty: Vec<SessionId>,
    refills: VecDeque<Refill>,
    turns: VecDeque<Turn>,
    recounts: VecDeque<VotingId>,
    forgeries: u64,
}

/// A question to the log: what follows `after`?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refill {
    /// Of which session.
    pub session: SessionId,
    /// Goes back with the answer, so that one to a session that has gone since is told apart.
    pub(crate) generation: u64,
    /// The newest number held.
    pub after: Seq,
    /// Why it is asked, for the metrics.
    pub cause: RefillCause,
}

/// Why the log is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefillCause {
    /// A number came that does not follow.
    Gap,
    /// The last page was full, or more came while it was read.
    More,
    /// The next number came without its event.
    Oversized,
    /// The LISTEN connection was lost and is back.
    Resync,
    /// A hint's event differs from the one held under the same number.
    Conflict,
}

/// A page of a session's log.
#[derive(Clone, Debug)]
pub struct LogPage {
    /// Which life of the database it is from.
    pub epoch: String,
    /// The newest number at the time of the events.
    pub head: Seq,
    /// The number before the oldest event that the log still has.
    pub floor: Seq,
    /// Consecutive events from the position asked for.
    pub events: Vec<Event>,
}

/// Something that happened to a receiver's subscription and that it did not ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// To whom.
    pub peer: PeerId,
    /// In which session.
    pub session: SessionId,
    /// Which of its tries.
    pub attempt: u32,
    /// What.
    pub kind: TurnKind,
}

/// What can happen to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnKind {
    /// The window moved past its position: the log must be read from there.
    Behind(Seq),
    /// Its numbers lead nowhere any more: it must start afresh.
    Lost(StartReason),
    /// Who may do what has changed: it must be admitted again.
    Recheck,
    /// The same, after a while, so that a herd does not ask at once.
    RecheckLater(Duration),
    /// The user behind it voted, here or on another socket.
    OwnVote(VotingId, Option<MovieId>),
}

/// What is remembered of a session that is already watched here.
#[derive(Clone, Debug)]
pub struct CachedState {
    /// What a new subscriber is told.
    pub(crate) snapshot: Arc<Snapshot>,
    /// The lowest position that can be gone on from without the log.
    pub(crate) reach: Seq,
    /// The newest number held.
    pub(crate) head: Seq,
}

/// Where a receiver wants to go on.
#[derive(Clone, Debug)]
pub struct Position {
    /// The last number that it has.
    pub seq: Seq,
    /// The epoch of that number.
    pub epoch: Box<str>,
    /// What its admission read, if that is what it comes from.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Whether it is shown counts that are hidden from others.
    pub sees_hidden: bool,
}

/// The answer to a wish to go on from a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// Everything after the position was delivered or will be.
    Live,
    /// The window does not reach back so far: read a page of the log and try again.
    Behind,
    /// The position is of another epoch than the router's: be admitted again.
    Stale,
}

impl Router {
    /// A router whose windows hold at most so many events each, and [`crate::limits::RING_BYTES_MAX`] bytes.
    #[must_use]
    pub fn new(ring_events_max: usize) -> Self {
        Self {
            ring_events_max,
            epoch: None,
            generation: 0,
            topics: FxHashMap::default(),
            sessions_of: FxHashMap::default(),
            users: Users::default(),
            dirty: Vec::new(),
            refills: VecDeque::new(),
            turns: VecDeque::new(),
            recounts: VecDeque::new(),
            forgeries: 0,
        }
    }

    /// Takes hints, in the order in which they came, and flushes.
    pub fn publish(&mut self, notices: impl IntoIterator<Item = Notice>, sink: &mut impl Sink) {
        for notice in notices {
            let Some(topic) = self.topics.get_mut(&notice.session) else {
                continue;
            };
            if let Some(cause) = topic.on_notice(&notice) {
                topic.ask(notice.session, cause, &mut self.refills);
            }
            if topic.is_full() {
                topic.flush(notice.session, self.ring_events_max, sink);
            } else if topic.is_dirty() {
                self.dirty.push(notice.session);
            }
        }
        self.flush(sink);
    }

    /// Takes the answer to a [`Refill`].
    pub fn on_page(&mut self, refill: &Refill, page: &LogPage, sink: &mut impl Sink) {
        let Some(topic) = self
            .topics
            .get_mut(&refill.session)
            .filter(|t| t.generation == refill.generation)
        else {
            return;
        };
        let same_epoch = self.epoch.as_deref() == Some(page.epoch.as_str());
        match topic.on_page(page, same_epoch) {
            Ok(more) => {
                topic.flush(refill.session, self.ring_events_max, sink);
                // Whoever missed what a voting did may have missed the hints about its counts, too.
                let votings = page.events.iter().filter_map(|event| event.voting);
                self.recounts.extend(votings);
                if more {
                    topic.ask(refill.session, RefillCause::More, &mut self.refills);
                }
            }
            Err(broken) => {
                self.forgeries += u64::from(broken == Broken::Forged);
                self.restart(refill.session, broken);
            }
        }
    }

    /// The LISTEN connection is back, so anything may have been missed. Another epoch than before means that the numbers
    /// of every session lead nowhere.
    pub fn resync(&mut self, epoch: &str) {
        let changed = self.epoch.as_deref().is_some_and(|known| known != epoch);
        self.epoch = Some(epoch.into());
        let sessions: Vec<SessionId> = self.topics.keys().copied().collect();
        for session in sessions {
            if changed {
                self.restart(session, Broken::Ahead);
            }
            if let Some(topic) = self.topics.get_mut(&session) {
                topic.on_resync();
                topic.ask(session, RefillCause::Resync, &mut self.refills);
            }
        }
    }

    /// Notes the interest of a receiver. From now on the session's window remembers what arrives; nothing is delivered
    /// before [`Self::attach`].
    pub fn join(&mut self, session: SessionId, receiver: Receiver) -> Option<CachedState> {
        let generation = &mut self.generation;
        let topic = self.topics.entry(session).or_insert_with(|| {
            *generation += 1;
            Topic::new(*generation)
        });
        let sessions = self.sessions_of.entry(receiver.peer).or_default();
        if !sessions.contains(&session) {
            sessions.push(session);
        }
        self.users.add(receiver.user, receiver.peer);
        topic.join(receiver);
        topic.cached()
    }

    /// Lets a receiver go on from a position in an epoch.
    pub fn attach(
        &mut self,
        session: SessionId,
        peer: PeerId,
        from: &Position,
        sink: &mut impl Sink,
    ) -> Attached {
        // A peer that left while its wish was under way has no use for the answer.
        let Some(topic) = self.topics.get_mut(&session) else {
            return Attached::Stale;
        };
        if self.epoch.as_deref() != Some(&*from.epoch) {
            return Attached::Stale;
        }
        let attached = topic.attach(session, peer, from, &mut self.recounts, sink);
        if attached == Attached::Live {
            topic.ask_if_owed(session, &mut self.refills);
        }
        attached
    }

    /// A receiver that could not take anything can again.
    pub fn catch_up(&mut self, peer: PeerId, sink: &mut impl Sink) {
        for session in self.sessions_of.get(&peer).into_iter().flatten() {
            let topic = self
                .topics
                .get_mut(session)
                .expect("a receiver's sessions have topics");
            let level = topic.level(*session, peer, &mut self.recounts, sink);
            if let Level::Behind { attempt, position } = level {
                let kind = TurnKind::Behind(position);
                self.turns.push_back(Turn {
                    peer,
                    session: *session,
                    attempt,
                    kind,
                });
            }
        }
    }

    /// Somebody else, or somebody at last, is behind a connection. Changes of access that concern them may have passed
    /// before this was known, so they are admitted again.
    pub fn set_user(&mut self, peer: PeerId, user: Option<UserId>) {
        for session in self.sessions_of.get(&peer).into_iter().flatten() {
            let Some(receiver) = self
                .topics
                .get_mut(session)
                .and_then(|topic| topic.receiver(peer))
            else {
                continue;
            };
            let before = std::mem::replace(&mut receiver.user, user);
            if before != user {
                self.users.remove(before, peer);
                self.users.add(user, peer);
                let attempt = receiver.attempt;
                self.turns.push_back(Turn {
                    peer,
                    session: *session,
                    attempt,
                    kind: TurnKind::Recheck,
                });
            }
        }
    }

    /// Changes whether a receiver sees hidden counts.
    pub fn set_sees_hidden(&mut self, session: SessionId, peer: PeerId, sees_hidden: bool) {
        if let Some(receiver) = self
            .topics
            .get_mut(&session)
            .and_then(|topic| topic.receiver(peer))
        {
            receiver.sees_hidden = sees_hidden;
        }
    }

    /// Ends the interest of a receiver in a session.
    pub fn leave(&mut self, session: SessionId, peer: PeerId, now: Instant) {
        let user = self.user(session, peer);
        if let Some(sessions) = self.sessions_of.get_mut(&peer) {
            sessions.retain(|watched| *watched != session);
            if sessions.is_empty() {
                self.sessions_of.remove(&peer);
                self.users.remove(user, peer);
            }
        }
        if let Some(topic) = self.topics.get_mut(&session) {
            topic.leave(peer, now);
        }
    }

    /// Ends the interest of a receiver in everything; says which sessions that were.
    pub fn leave_all(&mut self, peer: PeerId, now: Instant) -> Vec<SessionId> {
        let sessions = self.sessions_of.remove(&peer).unwrap_or_default();
        for session in &sessions {
            let user = self.user(*session, peer);
            self.users.remove(user, peer);
            if let Some(topic) = self.topics.get_mut(session) {
                topic.leave(peer, now);
            }
        }
        sessions
    }

    /// Forgets sessions that nobody has watched for [`SESSION_LINGER`], and at once those of which nothing is known: asking
    /// for what does not exist must not push out what does. Until then their windows are kept up, so that a
    /// herd that was dropped finds them.
    pub fn sweep(&mut self, now: Instant) {
        self.topics
            .retain(|_, topic| topic.idle_since().is_none() || topic.has_window());
        let mut idle: Vec<(Instant, SessionId)> = self
            .topics
            .iter()
            .filter_map(|(session, topic)| Some((topic.idle_since()?, *session)))
            .collect();
        idle.sort_unstable();
        let surplus = idle.len().saturating_sub(LINGERING_SESSIONS_MAX);
        for (position, (since, session)) in idle.into_iter().enumerate() {
            if position < surplus || now >= since + SESSION_LINGER {
                self.topics.remove(&session);
            }
        }
    }

    /// Sends a tally to everybody live in its session. One of another epoch was on its way while the database went
    /// back in time, and what is true is read again.
    pub fn on_tally(&mut self, tally: &Tally, sink: &mut impl Sink) {
        if self.epoch.as_deref() != Some(&*tally.epoch) {
            return;
        }
        if let Some(topic) = self.topics.get_mut(&tally.session) {
            topic.on_tally(tally, sink);
        }
    }

    /// Sends a frame that is state, not an event, to everybody live in a session.
    pub fn broadcast(&mut self, session: SessionId, frame: &Bytes, sink: &mut impl Sink) {
        if let Some(topic) = self.topics.get_mut(&session) {
            topic.broadcast(frame, sink);
        }
    }

    /// Tells the sockets of a user that follow the session of a vote.
    pub fn on_own_vote(&mut self, vote: &OwnVote) {
        personal::tell_own_vote(vote, &self.users, &mut self.topics, &mut self.turns);
    }

    /// Has everybody who is concerned by a change of access asked about.
    pub fn on_access_change(&mut self, change: AccessChange) {
        match (change.session, change.user) {
            (_, Some(user)) => {
                let (topics, turns) = (&mut self.topics, &mut self.turns);
                for peer in self.users.of(user) {
                    let watched = self.sessions_of.get(&peer).into_iter().flatten();
                    let is_meant =
                        |session: &&SessionId| change.session.is_none_or(|one| one == **session);
                    for session in watched.filter(is_meant) {
                        if let Some(topic) = topics.get_mut(session) {
                            personal::ask_about(topic, *session, peer, turns);
                        }
                    }
                }
            }
            (Some(session), None) => {
                if let Some(topic) = self.topics.get_mut(&session) {
                    personal::ask_about_all(topic, session, |_| Duration::ZERO, &mut self.turns);
                }
            }
            (None, None) => {
                for (session, topic) in &mut self.topics {
                    personal::ask_about_all(topic, *session, spread, &mut self.turns);
                }
            }
        }
    }

    /// The next question to the log.
    pub fn poll_refill(&mut self) -> Option<Refill> {
        self.refills.pop_front()
    }

    /// The next thing that happened to a receiver.
    pub fn poll_turn(&mut self) -> Option<Turn> {
        self.turns.pop_front()
    }

    /// The next voting whose counts are to be read again although no hint said so.
    pub fn poll_recount(&mut self) -> Option<VotingId> {
        self.recounts.pop_front()
    }

    /// How many events of windows the log did not have since this was last asked.
    pub fn take_forgeries(&mut self) -> u64 {
        std::mem::take(&mut self.forgeries)
    }

    /// The votings whose counts somebody here may be looking at.
    pub fn votings(&self) -> impl Iterator<Item = VotingId> {
        self.topics.values().flat_map(Topic::votings)
    }

    /// The sessions that are watched here or were a moment ago.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.topics.keys().copied()
    }

    /// Whether a receiver has an interest in a session.
    #[must_use]
    pub fn is_watching(&self, session: SessionId, peer: PeerId) -> bool {
        self.sessions_of
            .get(&peer)
            .is_some_and(|sessions| sessions.contains(&session))
    }

    /// Bytes that the windows of all sessions hold.
    #[must_use]
    pub fn window_bytes(&self) -> usize {
        self.topics.values().map(Topic::window_bytes).sum()
    }

    fn user(&mut self, session: SessionId, peer: PeerId) -> Option<UserId> {
        self.topics.get_mut(&session)?.receiver(peer)?.user
    }

    fn restart(&mut self, session: SessionId, broken: Broken) {
        let Some(topic) = self.topics.get_mut(&session) else {
            return;
        };
        self.generation += 1;
        for (peer, attempt, kind) in topic.restart(self.generation, broken) {
            self.turns.push_back(Turn {
                peer,
                session,
                attempt,
                kind,
            });
        }
    }

    fn flush(&mut self, sink: &mut impl Sink) {
        for session in self.dirty.drain(..) {
            if let Some(topic) = self.topics.get_mut(&session) {
                topic.flush(session, self.ring_events_max, sink);
            }
        }
    }
}

/// When a peer's turn comes where all have one: spread evenly, and the same for a peer each time.
fn spread(peer: PeerId) -> Duration {
    // Consecutive numbers land far from each other (Fibonacci hashing).
    Duration::from_millis((peer.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % ms(RECHECK_SPREAD))
}

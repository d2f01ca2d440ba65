//! Decides which events go to which receivers, and when the gateway must read the log.
//!
//! One remedy covers every loss: the router asks the log for the events after its newest number. It buffers no events
//! out of order. Invariants: a receiver's cursor only grows, by exactly the events that the receiver took; a session's
//! ring never drops an event that was not flushed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::limits::{LINGERING_SESSIONS_MAX, RECHECK_SPREAD, SESSION_LINGER};
use crate::protocol::id::{SessionId, UserId, VotingId};
use crate::protocol::ms;
use crate::protocol::notify::{AccessChange, Notice};
use crate::protocol::server::Frames;
use crate::relay::PeerId;
use crate::relay::delivery::{
    Attached, CachedState, LogPage, Position, Refill, RefillCause, Sink, Turn, TurnKind,
};
use crate::relay::personal::{self, OwnVote, Users};
use crate::relay::tally::Tally;
use crate::relay::topic::{Broken, Level, Receiver, Topic};

/// The state of one fan-out loop: the sessions that its connections watch.
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

impl Router {
    /// Creates a router whose rings hold at most `ring_events_max` events and
    /// [`crate::limits::RING_BYTES_MAX`] bytes each.
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

    /// Handles notifications in the order of their arrival, then flushes.
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

    /// Handles the page that answers a [`Refill`].
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
                // A receiver that missed a poll's events may have missed notifications about its counts, too.
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

    /// Handles the restored LISTEN connection: asks the log about every session, because notifications may be lost. If the
    /// epoch has changed, every session starts over.
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

    /// Records the interest of a receiver. From now on the session's ring stores the events that arrive, but delivers
    /// none to the receiver before [`Self::attach`].
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

    /// Makes a receiver live from a position in an epoch, if the ring reaches back to it.
    pub fn attach(
        &mut self,
        session: SessionId,
        peer: PeerId,
        from: &Position,
        sink: &mut impl Sink,
    ) -> Attached {
        // The peer left while its request was under way, and ignores the answer.
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

    /// Continues with a receiver that can take bytes again.
    pub fn catch_up(&mut self, peer: PeerId, sink: &mut impl Sink) {
        for session in self.sessions_of.get(&peer).into_iter().flatten() {
            let topic = self
                .topics
                .get_mut(session)
                .expect("each session of a receiver has a topic");
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

    /// Records a connection's new user. Access changes of that user may have passed before, so the receiver's access
    /// is checked again.
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

    /// Sets whether a receiver sees hidden counts.
    pub fn set_sees_hidden(&mut self, session: SessionId, peer: PeerId, sees_hidden: bool) {
        if let Some(receiver) = self
            .topics
            .get_mut(&session)
            .and_then(|topic| topic.receiver(peer))
        {
            receiver.sees_hidden = sees_hidden;
        }
    }

    /// Removes the interest of a receiver in a session.
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

    /// Removes every interest of a receiver. Returns the sessions that it watched.
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

    /// Forgets sessions without receivers after [`SESSION_LINGER`]. Until then their rings stay up to date, so that
    /// clients that reconnect together find them. A session without a ring is forgotten immediately, so that requests
    /// for sessions that do not exist cannot push out sessions that do.
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

    /// Sends a tally to the live receivers of its session. A tally of another epoch is ignored: it was read before the
    /// database went back in time, and is read again.
    pub fn on_tally(&mut self, tally: &Tally, sink: &mut impl Sink) {
        if self.epoch.as_deref() != Some(&*tally.epoch) {
            return;
        }
        if let Some(topic) = self.topics.get_mut(&tally.session) {
            topic.on_tally(tally, sink);
        }
    }

    /// Sends a frame that is state, not an event, to the live receivers of a session.
    pub fn broadcast(&mut self, session: SessionId, frame: &Frames, sink: &mut impl Sink) {
        if let Some(topic) = self.topics.get_mut(&session) {
            topic.broadcast(frame, sink);
        }
    }

    /// Queues a vote for the voter's sockets that follow its session.
    pub fn on_own_vote(&mut self, vote: &OwnVote) {
        personal::tell_own_vote(vote, &self.users, &mut self.topics, &mut self.turns);
    }

    /// Queues an access check for every receiver that an access change concerns.
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

    /// Returns the next read of the log.
    pub fn poll_refill(&mut self) -> Option<Refill> {
        self.refills.pop_front()
    }

    /// Returns the next change of a receiver's subscription.
    pub fn poll_turn(&mut self) -> Option<Turn> {
        self.turns.pop_front()
    }

    /// Returns the next poll whose counts must be read again without a notification.
    pub fn poll_recount(&mut self) -> Option<VotingId> {
        self.recounts.pop_front()
    }

    /// Returns how many forged events were found in rings since the last call.
    pub fn take_forgeries(&mut self) -> u64 {
        std::mem::take(&mut self.forgeries)
    }

    /// Returns the polls whose counts receivers here may see.
    pub fn votings(&self) -> impl Iterator<Item = VotingId> {
        self.topics.values().flat_map(Topic::votings)
    }

    /// Returns the sessions that are watched here, or were until recently.
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

    /// Returns the bytes of the rings of all sessions.
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

/// Returns a peer's delay when all peers are checked: spread evenly, and always the same for a peer.
fn spread(peer: PeerId) -> Duration {
    // Consecutive numbers land far from each other (Fibonacci hashing).
    Duration::from_millis((peer.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % ms(RECHECK_SPREAD))
}

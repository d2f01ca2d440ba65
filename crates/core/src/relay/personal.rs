//! Passes votes and access changes on to the receivers that they concern.
//!
//! An index finds the connections of a user, so a vote does not visit every receiver of its session.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::protocol::id::{MovieId, SessionId, UserId, VotingId};
use crate::relay::PeerId;
use crate::relay::delivery::{Turn, TurnKind};
use crate::relay::topic::Topic;

/// A committed vote that was made through this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnVote {
    /// The user who voted.
    pub user: UserId,
    /// The poll's session.
    pub session: SessionId,
    /// The poll of the vote.
    pub voting: VotingId,
    /// The chosen movie; `None` for a withdrawn vote.
    pub movie: Option<MovieId>,
}

/// The connections of each user that watch at least one session.
#[derive(Debug, Default)]
pub(crate) struct Users(BTreeSet<(UserId, PeerId)>);

impl Users {
    /// Records the user of a connection.
    pub(crate) fn add(&mut self, user: Option<UserId>, peer: PeerId) {
        if let Some(user) = user {
            self.0.insert((user, peer));
        }
    }

    /// Removes the user of a connection.
    pub(crate) fn remove(&mut self, user: Option<UserId>, peer: PeerId) {
        if let Some(user) = user {
            self.0.remove(&(user, peer));
        }
    }

    /// Returns the connections of a user.
    pub(crate) fn of(&self, user: UserId) -> impl Iterator<Item = PeerId> {
        let range = (user, PeerId(0))..=(user, PeerId(u64::MAX));
        self.0.range(range).map(|(_, peer)| *peer)
    }
}

/// Queues the vote for each of the voter's connections that follow the session.
pub(crate) fn tell_own_vote(
    vote: &OwnVote,
    users: &Users,
    topics: &mut FxHashMap<SessionId, Topic>,
    turns: &mut VecDeque<Turn>,
) {
    let Some(topic) = topics.get_mut(&vote.session) else {
        return;
    };
    for peer in users.of(vote.user) {
        if let Some(receiver) = topic.receiver(peer) {
            turns.push_back(Turn {
                peer,
                session: vote.session,
                attempt: receiver.attempt,
                kind: TurnKind::OwnVote(vote.voting, vote.movie),
            });
        }
    }
}

/// Queues an access check for one receiver of a session.
pub(crate) fn ask_about(
    topic: &mut Topic,
    session: SessionId,
    peer: PeerId,
    turns: &mut VecDeque<Turn>,
) {
    if let Some(receiver) = topic.receiver(peer) {
        turns.push_back(Turn {
            peer,
            session,
            attempt: receiver.attempt,
            kind: TurnKind::Recheck,
        });
    }
}

/// Queues an access check for every receiver of a session, each after its own delay, and marks the session's snapshot
/// as outdated. A change for one user does not do that, because the snapshot names no one's permissions.
pub(crate) fn ask_about_all(
    topic: &mut Topic,
    session: SessionId,
    after: impl Fn(PeerId) -> Duration,
    turns: &mut VecDeque<Turn>,
) {
    topic.forget_snapshot();
    turns.extend(topic.receivers().iter().map(|receiver| Turn {
        peer: receiver.peer,
        session,
        attempt: receiver.attempt,
        kind: TurnKind::RecheckLater(after(receiver.peer)),
    }));
}

//! What concerns one user on this node: their own votes, and changes of their access.
//!
//! Finds the connections of a user by an index, so a vote does not look at everybody who watches.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::protocol::id::{MovieId, SessionId, UserId, VotingId};
use crate::relay::PeerId;
use crate::relay::router::{Turn, TurnKind};
use crate::relay::topic::Topic;

/// A vote that was made through this gateway and is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnVote {
    /// Whose.
    pub user: UserId,
    /// In which session.
    pub session: SessionId,
    /// In which voting.
    pub voting: VotingId,
    /// For what; `None` where it was withdrawn.
    pub movie: Option<MovieId>,
}

/// The connections of each user that watch something.
#[derive(Debug, Default)]
pub(crate) struct Users(BTreeSet<(UserId, PeerId)>);

impl Users {
    /// Notes who is behind a connection.
    pub(crate) fn add(&mut self, user: Option<UserId>, peer: PeerId) {
        if let Some(user) = user {
            self.0.insert((user, peer));
        }
    }

    /// Forgets who was behind a connection.
    pub(crate) fn remove(&mut self, user: Option<UserId>, peer: PeerId) {
        if let Some(user) = user {
            self.0.remove(&(user, peer));
        }
    }

    /// The connections of a user.
    pub(crate) fn of(&self, user: UserId) -> impl Iterator<Item = PeerId> {
        let range = (user, PeerId(0))..=(user, PeerId(u64::MAX));
        self.0.range(range).map(|(_, peer)| *peer)
    }
}

/// Tells the connections of the voter that follow the session.
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

/// Has one receiver of a session asked about.
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

/// Has all receivers of a session asked about, each after a while. What is told about a session names nobody's rights: only
/// a change for all can make it untrue.
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

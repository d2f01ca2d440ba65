//! Remembers the votes that a subscriber was sent, so that an older vote never overwrites a newer one.
//!
//! The gateway learns of a vote when it commits. An answer of the database may be older, if the vote came
//! after the question.

use std::collections::HashMap;

use crate::limits::TALLIES_PER_SESSION_MAX;
use crate::protocol::id::{MovieId, SessionId, VotingId};
use crate::protocol::server::ServerFrame;
use crate::relay::message::Effect;

/// The subscriber's own votes in one session.
#[derive(Debug, Default)]
pub(crate) struct OwnVotes {
    /// The last vote sent for each poll; `None` if the subscriber was sent none and may remember any vote.
    told: Vec<(VotingId, Option<Told>)>,
    /// Whether a vote arrived since the last question to the database.
    is_newer: bool,
}

/// A chosen movie; `None` for no vote.
type Told = Option<MovieId>;

impl OwnVotes {
    /// Records a question to the database. Its answer includes every vote that arrived before.
    pub(crate) fn on_asked(&mut self) {
        self.is_newer = false;
    }

    /// Whether a vote arrived since the last question to the database. Its answer may be older or newer than that vote.
    pub(crate) fn is_newer(&self) -> bool {
        self.is_newer
    }

    /// Records a vote that arrived.
    pub(crate) fn on_vote(&mut self, voting: VotingId, movie: Told) {
        self.is_newer = true;
        self.tell(voting, Some(movie));
    }

    /// Returns the vote to start with: the one that arrived after the question, otherwise the one that was read.
    pub(crate) fn at_start(&self, voting: VotingId, read: &HashMap<VotingId, MovieId>) -> Told {
        self.heard(voting)
            .unwrap_or_else(|| read.get(&voting).copied())
    }

    /// Returns the vote that arrived after the question, if any.
    pub(crate) fn heard(&self, voting: VotingId) -> Option<Told> {
        let told = self.told.iter().find(|(other, _)| *other == voting);
        told.filter(|_| self.is_newer).and_then(|(_, told)| *told)
    }

    /// Records the votes that `subscribed` or `reset` carried; `None` for a poll without one.
    pub(crate) fn begin(&mut self, votes: impl Iterator<Item = (VotingId, Option<Told>)>) {
        let votes: Vec<_> = votes.collect();
        self.told.clear();
        for (voting, told) in votes {
            self.tell(voting, told);
        }
    }

    /// Compares the database's answer with the votes sent, and returns the votes to send. Returns `None` if a vote
    /// arrived since the question: then the caller must ask the database again.
    pub(crate) fn check(
        &mut self,
        read: &HashMap<VotingId, MovieId>,
    ) -> Option<Vec<(VotingId, Told)>> {
        if self.is_newer {
            return None;
        }
        let mut changed: Vec<(VotingId, Told)> = Vec::new();
        for (voting, told) in &self.told {
            let now = read.get(voting).copied();
            if *told != Some(now) {
                changed.push((*voting, now));
            }
        }
        for (voting, now) in &changed {
            self.tell(*voting, Some(*now));
        }
        Some(changed)
    }

    fn tell(&mut self, voting: VotingId, told: Option<Told>) {
        self.told.retain(|(other, _)| *other != voting);
        if self.told.len() == TALLIES_PER_SESSION_MAX {
            self.told.remove(0);
        }
        self.told.push((voting, told));
    }
}

/// Returns the effect that sends a vote to its voter.
pub(crate) fn told(session: SessionId, voting: VotingId, movie: Told) -> Effect {
    let frame = ServerFrame::Mine {
        session,
        voting,
        movie,
    };
    Effect::Send(frame.encode())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const A: VotingId = VotingId(Uuid::from_u128(1));
    const B: VotingId = VotingId(Uuid::from_u128(2));
    const ONE: MovieId = MovieId(Uuid::from_u128(11));
    const TWO: MovieId = MovieId(Uuid::from_u128(12));

    #[test]
    fn an_answer_from_before_a_vote_does_not_overwrite_it() {
        let mut votes = OwnVotes::default();
        votes.on_vote(A, Some(ONE));
        votes.on_asked();
        assert_eq!(votes.at_start(A, &read(&[(A, TWO)])), Some(TWO));
        votes.on_vote(A, None);
        assert_eq!(votes.at_start(A, &read(&[(A, TWO)])), None);
        assert_eq!(votes.check(&read(&[(A, TWO)])), None);
        votes.on_asked();
        assert_eq!(votes.check(&read(&[])), Some(Vec::new()));
    }

    #[test]
    fn only_changed_votes_are_sent() {
        let mut votes = OwnVotes::default();
        votes.begin([(A, Some(Some(ONE))), (B, None)].into_iter());
        // The subscriber was sent no vote for B, so it may remember any.
        assert_eq!(votes.check(&read(&[(A, ONE)])), Some(vec![(B, None)]));
        assert_eq!(votes.check(&read(&[(A, ONE)])), Some(Vec::new()));
        assert_eq!(votes.check(&read(&[(A, TWO)])), Some(vec![(A, Some(TWO))]));
        assert_eq!(votes.check(&read(&[])), Some(vec![(A, None)]));
    }

    #[test]
    fn the_remembered_votes_are_bounded() {
        let mut votes = OwnVotes::default();
        for number in 0..100 {
            votes.on_vote(VotingId(Uuid::from_u128(number)), Some(ONE));
        }
        assert_eq!(votes.told.len(), TALLIES_PER_SESSION_MAX);
    }

    fn read(votes: &[(VotingId, MovieId)]) -> HashMap<VotingId, MovieId> {
        votes.iter().copied().collect()
    }
}

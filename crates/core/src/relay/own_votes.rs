//! What a subscriber knows of their own votes, so that a later vote is never overwritten by an earlier one.
//!
//! A vote is heard of as it is committed. What the database reads may be older, if the vote came after the question.

use std::collections::HashMap;

use crate::limits::TALLIES_PER_SESSION_MAX;
use crate::protocol::id::{MovieId, SessionId, VotingId};
use crate::protocol::server::ServerFrame;
use crate::relay::message::Effect;

/// The subscriber's own votes in one session.
#[derive(Debug, Default)]
pub(crate) struct OwnVotes {
    /// What was told last of each voting; `None` where the subscriber was told nothing and may remember anything.
    told: Vec<(VotingId, Option<Told>)>,
    /// Whether a vote was heard of since the database was asked.
    is_newer: bool,
}

/// A vote, or that there is none.
type Told = Option<MovieId>;

impl OwnVotes {
    /// The database is asked: what was heard of before is in its answer.
    pub(crate) fn on_asked(&mut self) {
        self.is_newer = false;
    }

    /// Whether a vote was heard of since the database was asked: what it reads may be older, or later.
    pub(crate) fn is_newer(&self) -> bool {
        self.is_newer
    }

    /// Notes a vote that was heard of.
    pub(crate) fn on_vote(&mut self, voting: VotingId, movie: Told) {
        self.is_newer = true;
        self.tell(voting, Some(movie));
    }

    /// The vote to begin with: the one that was heard of after the question, or the one that was read.
    pub(crate) fn at_start(&self, voting: VotingId, read: &HashMap<VotingId, MovieId>) -> Told {
        self.heard(voting)
            .unwrap_or_else(|| read.get(&voting).copied())
    }

    /// The vote that was heard of after the question, if one was.
    pub(crate) fn heard(&self, voting: VotingId) -> Option<Told> {
        let told = self.told.iter().find(|(other, _)| *other == voting);
        told.filter(|_| self.is_newer).and_then(|(_, told)| *told)
    }

    /// The subscriber was told where it begins, with these votes; `None` where it was not told of any.
    pub(crate) fn begin(&mut self, votes: impl Iterator<Item = (VotingId, Option<Told>)>) {
        let votes: Vec<_> = votes.collect();
        self.told.clear();
        for (voting, told) in votes {
            self.tell(voting, told);
        }
    }

    /// Takes what the database read, and gives the votes that are to be told. `None` where a vote came meanwhile: the
    /// database must be asked again before it can be believed.
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

/// Tells the subscriber how it voted.
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
    fn what_was_read_before_a_vote_does_not_overwrite_it() {
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
    fn only_what_changed_is_told() {
        let mut votes = OwnVotes::default();
        votes.begin([(A, Some(Some(ONE))), (B, None)].into_iter());
        // Of B the subscriber may remember anything.
        assert_eq!(votes.check(&read(&[(A, ONE)])), Some(vec![(B, None)]));
        assert_eq!(votes.check(&read(&[(A, ONE)])), Some(Vec::new()));
        assert_eq!(votes.check(&read(&[(A, TWO)])), Some(vec![(A, Some(TWO))]));
        assert_eq!(votes.check(&read(&[])), Some(vec![(A, None)]));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
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

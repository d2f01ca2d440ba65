//! Keeps the newest tally of each of a session's votings, for receivers that could take nothing when it came.
//!
//! Bounded: a tally that makes room for another is forgotten, and its voting is remembered as long as somebody missed it,
//! so that the counts can be read again for that receiver.

use std::collections::VecDeque;

use crate::limits::{FORGOTTEN_TALLIES_MAX, TALLIES_PER_SESSION_MAX};
use crate::protocol::id::VotingId;
use crate::relay::tally::Tally;

/// The newest tallies of a session, each voting once, the latest told last.
#[derive(Debug, Default)]
pub(crate) struct KeptTallies {
    kept: Vec<Tally>,
    forgotten: VecDeque<VotingId>,
}

impl KeptTallies {
    /// Keeps a tally in the place of its voting's last one.
    pub(crate) fn push(&mut self, tally: &Tally, has_somebody_missed_one: bool) {
        self.kept.retain(|kept| kept.voting != tally.voting);
        self.forgotten.retain(|voting| *voting != tally.voting);
        if self.kept.len() == TALLIES_PER_SESSION_MAX {
            let oldest = self.kept.remove(0);
            self.forgotten.push_back(oldest.voting);
        }
        if !has_somebody_missed_one {
            self.forgotten.clear();
        } else if self.forgotten.len() > FORGOTTEN_TALLIES_MAX {
            self.forgotten.pop_front();
        }
        self.kept.push(tally.clone());
    }

    /// Keeps those that something holds for.
    pub(crate) fn retain(&mut self, holds: impl FnMut(&Tally) -> bool) {
        self.kept.retain(holds);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tally> {
        self.kept.iter()
    }

    /// The votings whose last tally somebody may have missed and nobody keeps.
    pub(crate) fn forgotten(&self) -> impl Iterator<Item = VotingId> {
        self.forgotten.iter().copied()
    }
}

//! Keeps the newest tally of each poll of a session, for receivers that could not take it when it was sent.
//!
//! Bounded by [`TALLIES_PER_SESSION_MAX`]: a new poll's tally replaces the oldest one. The id of that poll is kept
//! while a receiver may have missed its tally, so that the gateway can read the counts again for that receiver.

use std::collections::VecDeque;

use crate::limits::{FORGOTTEN_TALLIES_MAX, TALLIES_PER_SESSION_MAX};
use crate::protocol::id::VotingId;
use crate::relay::tally::Tally;

/// The newest tally of each poll of a session, the latest last.
#[derive(Debug, Default)]
pub(crate) struct KeptTallies {
    kept: Vec<Tally>,
    forgotten: VecDeque<VotingId>,
}

impl KeptTallies {
    /// Keeps a tally and drops the poll's previous one.
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

    /// Keeps the tallies for which `holds` returns true.
    pub(crate) fn retain(&mut self, holds: impl FnMut(&Tally) -> bool) {
        self.kept.retain(holds);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tally> {
        self.kept.iter()
    }

    /// Returns the polls whose last tally a receiver may have missed and whose tally is no longer kept.
    pub(crate) fn forgotten(&self) -> impl Iterator<Item = VotingId> {
        self.forgotten.iter().copied()
    }
}

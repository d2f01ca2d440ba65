//! What a new subscriber is told about a session, beside its log.
//!
//! Read from the database with an admission and kept by the router, so that a herd that comes back is answered from
//! memory. The texts are the database's own and are spliced, not rebuilt.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::protocol::id::{MovieId, Seq, SessionId, VotingId};
use crate::protocol::server::{Can, VotingView};
use crate::relay::tally::Tally;

/// A session at one moment of its log.
#[derive(Clone, Debug, Deserialize)]
pub struct Snapshot {
    /// Which life of the database the numbers belong to.
    pub epoch: String,
    /// The newest number.
    pub head: Seq,
    /// The number before the oldest event that the log still has.
    pub floor: Seq,
    /// Title, status and the like, as a JSON object.
    pub(crate) info: Box<RawValue>,
    /// The open voting, then closed ones, newest first.
    pub votings: Vec<Voting>,
}

/// A voting as the database has it.
#[derive(Clone, Debug, Deserialize)]
pub struct Voting {
    /// Its id.
    pub voting: VotingId,
    /// `open` or `closed`.
    pub(crate) status: String,
    /// Grows with every change of the counts.
    pub version: u64,
    /// All votes together.
    pub(crate) total: u64,
    /// The real counts, as a JSON array.
    pub(crate) counts: Box<RawValue>,
    /// When it closes by itself.
    #[serde(default)]
    pub(crate) closes_at: Option<Box<RawValue>>,
    /// What is asked, as a JSON string.
    pub(crate) question: Box<RawValue>,
    /// `live` or `after_close`.
    pub(crate) results_visibility: String,
    /// Whether a vote can be changed.
    pub(crate) allow_change: bool,
    /// The ballot, as a JSON array.
    pub(crate) options: Box<RawValue>,
}

/// Whether a position can be gone on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// Everything after it can be had.
    Kept,
    /// The log no longer reaches back so far.
    TooOld,
    /// The log has not come so far: the database went back in time.
    Ahead,
}

impl Snapshot {
    /// Puts a newer tally in the place of the one that was read.
    pub fn update(&mut self, tally: &Tally) {
        for voting in &mut self.votings {
            if voting.voting == tally.voting && voting.version <= tally.version {
                voting.status.clone_from(&tally.status);
                voting.version = tally.version;
                voting.total = tally.total;
                voting.counts.clone_from(&tally.counts);
                voting.closes_at.clone_from(&tally.closes_at);
            }
        }
    }

    /// Whether another snapshot has newer counts of a voting.
    #[must_use]
    pub(crate) fn has_older_votings(&self, other: &Self) -> bool {
        let is_older = |voting: &Voting| {
            let newer =
                |other: &Voting| other.voting == voting.voting && other.version > voting.version;
            other.votings.iter().any(newer)
        };
        self.votings.iter().any(is_older)
    }

    /// Takes over the votings of which another snapshot has newer counts.
    pub(crate) fn take_newer_votings(&mut self, other: &Self) {
        for voting in &mut self.votings {
            let newer =
                |other: &&Voting| other.voting == voting.voting && other.version > voting.version;
            if let Some(other) = other.votings.iter().find(newer) {
                *voting = other.clone();
            }
        }
    }

    /// Whether its counts of a voting are newer than a tally's.
    #[must_use]
    pub(crate) fn is_ahead_of(&self, tally: &Tally) -> bool {
        self.votings
            .iter()
            .any(|voting| voting.voting == tally.voting && voting.version > tally.version)
    }

    /// Whether its counts of a voting are older than a tally's.
    #[must_use]
    pub fn is_behind(&self, tally: &Tally) -> bool {
        self.votings
            .iter()
            .any(|voting| voting.voting == tally.voting && voting.version < tally.version)
    }

    /// Says whether a client that stands at `position` in `epoch` can go on.
    #[must_use]
    pub fn continuity(&self, position: Seq, epoch: Option<&str>) -> Continuity {
        if epoch.is_some_and(|epoch| epoch != self.epoch) || position > self.head {
            Continuity::Ahead
        } else if position < self.floor {
            Continuity::TooOld
        } else {
            Continuity::Kept
        }
    }

    /// The position before the newest `count` events, as far as the log reaches.
    #[must_use]
    pub fn before_newest(&self, count: u16) -> Seq {
        self.floor
            .max(Seq(self.head.0.saturating_sub(count.into())))
    }

    /// Whether a voting is open.
    #[must_use]
    pub(crate) fn has_open_voting(&self) -> bool {
        self.votings.iter().any(|voting| voting.status == "open")
    }

    /// The votings as somebody with these rights may see them; `mine` gives the subscriber's own votes where known.
    pub(crate) fn views<'a>(
        &'a self,
        session: SessionId,
        can: Can,
        mine: impl Fn(VotingId) -> Option<Option<MovieId>>,
    ) -> Vec<VotingView<'a>> {
        let view = |voting: &'a Voting| VotingView {
            session,
            voting: voting.voting,
            status: &voting.status,
            version: voting.version,
            total: voting.total,
            counts: (can.moderate || !voting.is_masked()).then_some(&*voting.counts),
            closes_at: voting.closes_at.as_deref(),
            question: &voting.question,
            results_visibility: &voting.results_visibility,
            allow_change: voting.allow_change,
            options: &voting.options,
            mine: mine(voting.voting),
        };
        self.votings.iter().map(view).collect()
    }
}

impl Voting {
    /// Whether its counts are for the streamer and the moderators alone.
    #[must_use]
    pub(crate) fn is_masked(&self) -> bool {
        self.status == "open" && self.results_visibility == "after_close"
    }
}

/// What a caller may do in a session, and did there.
#[derive(Clone, Debug)]
pub struct Access {
    /// What the caller may do.
    pub can: Can,
    /// The caller's own votes, by voting. A voting that is missing has none.
    pub mine: std::collections::HashMap<VotingId, MovieId>,
    /// When the answer may have become another by itself: a time-out ends.
    pub ask_again: Option<std::time::Duration>,
}

/// What an admission found out: the session, and what the caller may do there.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The session.
    pub session: SessionId,
    /// What the caller may do.
    pub access: Access,
    /// The session as everybody is told.
    pub snapshot: std::sync::Arc<Snapshot>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId(uuid::Uuid::nil());

    #[test]
    fn positions_are_judged() {
        let snapshot = snapshot(5, 9);
        assert_eq!(snapshot.continuity(Seq(9), Some("e")), Continuity::Kept);
        assert_eq!(snapshot.continuity(Seq(5), None), Continuity::Kept);
        assert_eq!(snapshot.continuity(Seq(4), None), Continuity::TooOld);
        assert_eq!(snapshot.continuity(Seq(10), None), Continuity::Ahead);
        assert_eq!(
            snapshot.continuity(Seq(9), Some("other")),
            Continuity::Ahead
        );
        assert_eq!(snapshot.before_newest(2), Seq(7));
        assert_eq!(snapshot.before_newest(200), Seq(5));
    }

    #[test]
    fn hidden_counts_are_for_moderators() {
        let snapshot = snapshot(0, 0);
        let viewer = snapshot.views(SESSION, Can::default(), |_| None);
        assert!(viewer[0].counts.is_none());
        let moderator = snapshot.views(
            SESSION,
            Can {
                moderate: true,
                ..Can::default()
            },
            |_| None,
        );
        assert!(moderator[0].counts.is_some());
    }

    fn snapshot(floor: u64, head: u64) -> Snapshot {
        let json = format!(
            r#"{{"epoch":"e","head":{head},"floor":{floor},"info":{{}},"votings":[{{"voting":"00000000-0000-0000-0000-000000000000",
            "status":"open","version":1,"total":0,"counts":[],"closes_at":null,"question":"?","results_visibility":"after_close",
            "allow_change":true,"options":[]}}]}}"#
        );
        serde_json::from_str(&json).expect("a snapshot")
    }
}

//! A session's state apart from its log: its info, polls and counts, as `subscribed` and `reset` send them.
//!
//! An admission reads it from the database, and the router keeps it, so that many reconnecting clients are answered
//! from memory. The JSON texts come from the database and are copied into frames unchanged.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::protocol::id::{MovieId, Seq, SessionId, VotingId};
use crate::protocol::server::{Can, VotingView};
use crate::relay::tally::Tally;

/// A session's state at one position of its log.
#[derive(Clone, Debug, Deserialize)]
pub struct Snapshot {
    /// The epoch of the numbers.
    pub epoch: String,
    /// The newest number of the log.
    pub head: Seq,
    /// The number before the log's oldest event.
    pub floor: Seq,
    /// Title, status and other fields, as a JSON object.
    pub(crate) info: Box<RawValue>,
    /// The open poll, then closed ones, newest first.
    pub votings: Vec<Voting>,
}

/// A poll as the database stores it.
#[derive(Clone, Debug, Deserialize)]
pub struct Voting {
    /// The poll's id.
    pub voting: VotingId,
    /// `open` or `closed`.
    pub(crate) status: String,
    /// Grows with every change of the counts.
    pub version: u64,
    /// The number of all votes.
    pub(crate) total: u64,
    /// The unmasked counts, as a JSON array.
    pub(crate) counts: Box<RawValue>,
    /// When the poll closes automatically.
    #[serde(default)]
    pub(crate) closes_at: Option<Box<RawValue>>,
    /// The question, as a JSON string.
    pub(crate) question: Box<RawValue>,
    /// `live` or `after_close`.
    pub(crate) results_visibility: String,
    /// Whether a voter may change their vote.
    pub(crate) allow_change: bool,
    /// The ballot's options, as a JSON array.
    pub(crate) options: Box<RawValue>,
}

/// Whether a client can continue from a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// Every event after it is available.
    Kept,
    /// The log no longer reaches back to it.
    TooOld,
    /// The log has not reached it: the database went back in time.
    Ahead,
}

impl Snapshot {
    /// Copies the counts and status of a tally, unless the snapshot's are newer.
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

    /// Whether another snapshot has newer counts of any poll.
    #[must_use]
    pub(crate) fn has_older_votings(&self, other: &Self) -> bool {
        let is_older = |voting: &Voting| {
            let newer =
                |other: &Voting| other.voting == voting.voting && other.version > voting.version;
            other.votings.iter().any(newer)
        };
        self.votings.iter().any(is_older)
    }

    /// Copies each poll for which another snapshot has newer counts.
    pub(crate) fn take_newer_votings(&mut self, other: &Self) {
        for voting in &mut self.votings {
            let newer =
                |other: &&Voting| other.voting == voting.voting && other.version > voting.version;
            if let Some(other) = other.votings.iter().find(newer) {
                *voting = other.clone();
            }
        }
    }

    /// Whether the snapshot's counts of a poll are newer than a tally's.
    #[must_use]
    pub(crate) fn is_ahead_of(&self, tally: &Tally) -> bool {
        self.votings
            .iter()
            .any(|voting| voting.voting == tally.voting && voting.version > tally.version)
    }

    /// Whether the snapshot's counts of a poll are older than a tally's.
    #[must_use]
    pub fn is_behind(&self, tally: &Tally) -> bool {
        self.votings
            .iter()
            .any(|voting| voting.voting == tally.voting && voting.version < tally.version)
    }

    /// Decides whether a client at `position` in `epoch` can continue.
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

    /// Returns the position before the newest `count` events, or before the log's oldest event if there are fewer.
    #[must_use]
    pub fn before_newest(&self, count: u16) -> Seq {
        self.floor
            .max(Seq(self.head.0.saturating_sub(count.into())))
    }

    /// Whether a poll is open.
    #[must_use]
    pub(crate) fn has_open_voting(&self) -> bool {
        self.votings.iter().any(|voting| voting.status == "open")
    }

    /// Returns the polls as a caller with these permissions may see them. `mine` returns the subscriber's own vote
    /// where it is known.
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
    /// Whether only the streamer and the moderators may see the counts.
    #[must_use]
    pub(crate) fn is_masked(&self) -> bool {
        self.status == "open" && self.results_visibility == "after_close"
    }
}

/// A caller's permissions and own votes in a session.
#[derive(Clone, Debug)]
pub struct Access {
    /// The caller's permissions.
    pub can: Can,
    /// The caller's own votes, by poll. A poll without an entry has no vote.
    pub mine: std::collections::HashMap<VotingId, MovieId>,
    /// When the permissions may change without a notification, for example when a time-out ends.
    pub ask_again: Option<std::time::Duration>,
}

/// The result of an admission: the session's state and the caller's access.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The session of the admission.
    pub session: SessionId,
    /// The caller's access.
    pub access: Access,
    /// The session's state, the same for every caller.
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

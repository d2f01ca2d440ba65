//! Decides where a subscription starts, and builds the frame that tells the client.
//!
//! A client that sent a position continues from it if the log still reaches back to it. Every other client starts
//! before the newest events. Knows nothing about the steps before and after.

use crate::limits::HISTORY_DEFAULT;
use crate::protocol::client::{FrameId, Subscribe};
use crate::protocol::id::{Seq, SessionId};
use crate::protocol::refusal::{Refusal, RefusalCode};
use crate::protocol::server::{
    Can, Frames, Reset, ServerFrame, StartReason, Subscribed, VotingView,
};
use crate::relay::delivery::CachedState;
use crate::relay::peer_context::PeerContext;
use crate::relay::resume::Grant;
use crate::relay::snapshot::{Continuity, Snapshot};

/// A subscribe request, and its state so far.
#[derive(Debug)]
pub(crate) struct Start {
    /// The client's `subscribe` frame.
    pub(crate) wish: Subscribe,
    /// The frame's `id`.
    pub(crate) id: Option<FrameId>,
    /// The grant of a resume token: the proof of a recent admission.
    pub(crate) grant: Option<Grant>,
    /// Whether the subscriber proved an earlier admission. A refusal may then confirm that the session exists.
    pub(crate) was_inside: bool,
    /// Set if the subscriber was live before. It then receives `reset`, with this reason.
    pub(crate) lost: Option<StartReason>,
    /// The session's number of viewers.
    pub(crate) viewers: u64,
}

impl Start {
    /// Creates the start for a client's request, with the grant of its resume token if that is valid.
    #[must_use]
    pub(crate) fn new(
        wish: Subscribe,
        id: Option<FrameId>,
        was_withdrawn: bool,
        context: &PeerContext<'_>,
    ) -> Self {
        let (session, now_ms) = (wish.session, context.now.unix_ms);
        let resume = wish.resume.as_ref();
        let token = resume.and_then(|resume| resume.token.as_deref());
        let grant =
            token.and_then(|token| context.key.open(token, context.identity, session, now_ms));
        Self {
            wish,
            id,
            grant,
            was_inside: was_withdrawn || grant.is_some(),
            lost: None,
            viewers: 0,
        }
    }

    /// Creates the start for a live subscriber whose continuity is lost.
    #[must_use]
    pub(crate) fn afresh(session: SessionId, reason: StartReason) -> Self {
        let wish = Subscribe {
            session,
            history: HISTORY_DEFAULT,
            resume: None,
        };
        Self {
            wish,
            id: None,
            grant: None,
            was_inside: true,
            lost: Some(reason),
            viewers: 0,
        }
    }

    /// Returns the refusal that this subscriber may see. A caller that was never admitted gets `not_found`. A caller
    /// that was admitted before gets `forbidden` in its place.
    #[must_use]
    pub(crate) fn refusal(&self, refusal: &Refusal) -> Refusal {
        if self.was_inside && refusal.code == RefusalCode::NotFound {
            Refusal::new(
                RefusalCode::Forbidden,
                "you no longer have access to this session",
            )
        } else {
            refusal.clone()
        }
    }
}

/// How a subscription started or restarted, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartOutcome {
    /// At the client's position, without a database query.
    RecoveredFromMemory,
    /// At the client's position, after an admission.
    RecoveredFromLog,
    /// At another position, for a reason.
    Unrecovered(StartReason),
    /// Restarted while it was live, for a reason.
    Reset(StartReason),
}

/// The point where a subscription starts.
#[derive(Debug)]
pub(crate) struct StartPoint<'a> {
    /// The session's state.
    pub(crate) snapshot: &'a Snapshot,
    /// The number of the last event that the subscriber has.
    pub(crate) position: Seq,
    /// The newest known number. The events between `position` and `head` are history.
    pub(crate) head: Seq,
    /// Why the subscriber does not continue from its position; `None` if it does.
    pub(crate) reason: Option<StartReason>,
    /// Whether memory answered, without a database query.
    pub(crate) is_from_memory: bool,
}

impl<'a> StartPoint<'a> {
    /// Chooses the start point from the result of an admission.
    #[must_use]
    pub(crate) fn of_admission(start: &Start, snapshot: &'a Snapshot) -> Self {
        let resume = start.wish.resume.as_ref();
        let judged = resume.map(|resume| {
            let continuity = snapshot.continuity(resume.seq, resume.epoch.as_deref());
            (resume.seq, continuity)
        });
        let (position, reason) = match (start.lost, judged) {
            (None, Some((position, Continuity::Kept))) => (Some(position), None),
            (None, Some((_, Continuity::TooOld))) => (None, Some(StartReason::TooOld)),
            (None, Some((_, Continuity::Ahead))) => (None, Some(StartReason::Ahead)),
            (None, None) => (None, Some(StartReason::Fresh)),
            (Some(lost), _) => (None, Some(lost)),
        };
        Self {
            snapshot,
            position: position.unwrap_or_else(|| snapshot.before_newest(start.wish.history)),
            head: snapshot.head,
            reason,
            is_from_memory: false,
        }
    }

    /// Starts at the client's position if the router's ring reaches back to it; otherwise `None`.
    #[must_use]
    pub(crate) fn of_cached(start: &Start, cached: &'a CachedState) -> Option<Self> {
        let resume = start.wish.resume.as_ref()?;
        let same_epoch = resume
            .epoch
            .as_deref()
            .is_none_or(|epoch| epoch == cached.snapshot.epoch);
        let is_held = cached.reach <= resume.seq && resume.seq <= cached.head;
        (same_epoch && is_held).then_some(Self {
            snapshot: &cached.snapshot,
            position: resume.seq,
            head: cached.head,
            reason: None,
            is_from_memory: true,
        })
    }

    /// Returns the outcome to count.
    #[must_use]
    pub(crate) fn outcome(&self, start: &Start) -> StartOutcome {
        match (start.lost, self.reason) {
            (Some(lost), _) => StartOutcome::Reset(lost),
            (None, Some(reason)) => StartOutcome::Unrecovered(reason),
            (None, None) if self.is_from_memory => StartOutcome::RecoveredFromMemory,
            (None, None) => StartOutcome::RecoveredFromLog,
        }
    }

    /// Builds the frame for the client: `subscribed`, or `reset` if it was live before.
    #[must_use]
    pub(crate) fn frame(
        &self,
        start: &Start,
        session: SessionId,
        can: Can,
        votings: Vec<VotingView<'_>>,
        resume_token: &str,
    ) -> Frames {
        let (epoch, info) = (&self.snapshot.epoch, &self.snapshot.info);
        let (seq, head) = (self.position, self.head);
        let frame = match start.lost {
            Some(reason) => ServerFrame::Reset(Box::new(Reset {
                session,
                epoch,
                seq,
                head,
                reason,
                can,
                info,
                votings,
            })),
            None => ServerFrame::Subscribed(Box::new(Subscribed {
                id: start.id.as_ref(),
                session,
                epoch,
                seq,
                head,
                recovered: self.reason.is_none(),
                reason: self.reason,
                resume_token,
                can,
                viewers: start.viewers,
                info,
                votings,
            })),
        };
        frame.encode()
    }
}

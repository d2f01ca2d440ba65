//! Where a subscription begins, and how that is told.
//!
//! A client that gave a position goes on from it where the log still leads there; everybody else begins before the newest
//! events. Knows nothing of how a subscription gets there.

use bytes::Bytes;

use crate::limits::HISTORY_DEFAULT;
use crate::protocol::client::{FrameId, Subscribe};
use crate::protocol::id::{Seq, SessionId};
use crate::protocol::refusal::{Refusal, RefusalCode};
use crate::protocol::server::{Can, Reset, ServerFrame, StartReason, Subscribed, VotingView};
use crate::relay::peer_context::PeerContext;
use crate::relay::resume::Grant;
use crate::relay::router::CachedState;
use crate::relay::snapshot::{Continuity, Snapshot};

/// What a subscriber asked for, and what has happened since.
#[derive(Debug)]
pub(crate) struct Start {
    /// The frame that asked.
    pub(crate) wish: Subscribe,
    /// The name that the client gave it.
    pub(crate) id: Option<FrameId>,
    /// The proof that it was admitted a short while ago.
    pub(crate) grant: Option<Grant>,
    /// Whether the subscriber shows that it was inside before: then it may know that the session is there.
    pub(crate) was_inside: bool,
    /// Set where the subscriber was live before: it is then told by `reset`.
    pub(crate) lost: Option<StartReason>,
    /// How many watch.
    pub(crate) viewers: u64,
}

impl Start {
    /// What a client asked for, with the grant of its resume token if that is good.
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

    /// A start after which the subscriber is told that continuity is lost.
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

    /// A refusal as this subscriber may know it: a stranger is told that there is nothing; who was inside, by the name that
    /// ended it.
    #[must_use]
    pub(crate) fn refusal(&self, refusal: &Refusal) -> Refusal {
        if self.was_inside && refusal.code == RefusalCode::NotFound {
            Refusal::new(RefusalCode::Forbidden, "this session is closed to you")
        } else {
            refusal.clone()
        }
    }
}

/// How a subscription began, or began anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartOutcome {
    /// Where the client stood, without a question to the database.
    RecoveredFromMemory,
    /// Where the client stood, after an admission.
    RecoveredFromLog,
    /// Somewhere else, for a reason.
    Unrecovered(StartReason),
    /// Anew, while it was live, for a reason.
    Reset(StartReason),
}

/// Where a subscription begins.
#[derive(Debug)]
pub(crate) struct StartPoint<'a> {
    /// What everybody is told about the session.
    pub(crate) snapshot: &'a Snapshot,
    /// The last number that the subscriber has.
    pub(crate) position: Seq,
    /// The newest number known: what lies between the two is history.
    pub(crate) head: Seq,
    /// Why it does not go on where it stood; `None` where it does.
    pub(crate) reason: Option<StartReason>,
    /// Whether the database was spared.
    pub(crate) is_from_memory: bool,
}

impl<'a> StartPoint<'a> {
    /// Judges a position by what an admission read.
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

    /// Goes on from the position that was given, if what is remembered leads on from there.
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

    /// What it is counted as.
    #[must_use]
    pub(crate) fn outcome(&self, start: &Start) -> StartOutcome {
        match (start.lost, self.reason) {
            (Some(lost), _) => StartOutcome::Reset(lost),
            (None, Some(reason)) => StartOutcome::Unrecovered(reason),
            (None, None) if self.is_from_memory => StartOutcome::RecoveredFromMemory,
            (None, None) => StartOutcome::RecoveredFromLog,
        }
    }

    /// The frame that says so: `subscribed`, or `reset` to one who was live before.
    #[must_use]
    pub(crate) fn frame(
        &self,
        start: &Start,
        session: SessionId,
        can: Can,
        votings: Vec<VotingView<'_>>,
        resume_token: &str,
    ) -> Bytes {
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

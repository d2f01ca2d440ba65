//! One subscription of a peer: joins a session without a gap.
//!
//! ```text
//! Joining ─► Authorizing ─► CatchingUp ⇄ Attaching ─► Live
//!    └── from memory, with a grant ──────────┘
//! ```
//!
//! The router records the interest before the log is read, so no event is lost between the two. A later failure leads
//! back to an earlier state: a subscription that is behind returns to `CatchingUp`, a lost one to `Joining`. Invariant:
//! `position` is the last number that was sent, and only consecutive numbers are sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::limits::{ADMISSION_RETRY, RECHECK_SPREAD};
use crate::protocol::client::{FrameId, Subscribe};
use crate::protocol::id::{MovieId, SessionId, VotingId};
use crate::protocol::refusal::{Refusal, RefusalCode};
use crate::protocol::server::{self, ServerFrame, StartReason};
use crate::relay::delivery::{Attached, CachedState, LogPage, Position, TurnKind};
use crate::relay::message::{Effect, Query, RouterRequest};
use crate::relay::own_votes::{self, OwnVotes};
use crate::relay::peer_context::PeerContext;
use crate::relay::permissions::Permissions;
use crate::relay::progress::{CatchUp, Retry, Step, SubscriptionState};
use crate::relay::resume::GrantVerdict;
use crate::relay::snapshot::{Access, Admission};
use crate::relay::start_point::{Start, StartPoint};

/// One subscription of a peer.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) session: SessionId,
    /// Distinguishes this try from earlier ones, whose answers may arrive late.
    pub(crate) attempt: u32,
    pub(crate) state: SubscriptionState,
    permissions: Permissions,
    /// The epoch of the subscription's numbers.
    epoch: Box<str>,
    own_votes: OwnVotes,
}

impl Subscription {
    /// Starts a subscription: asks the router to record the interest.
    pub(crate) fn begin(
        wish: Subscribe,
        id: Option<FrameId>,
        attempt: u32,
        was_withdrawn: bool,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) -> Self {
        let start = Start::new(wish, id, was_withdrawn, context);
        let session = start.wish.session;
        effects.push(Effect::Router(RouterRequest::Join {
            session,
            attempt,
            user: context.identity.subject,
            grant: start.grant,
        }));
        Self {
            session,
            attempt,
            state: SubscriptionState::Joining(Box::new(start)),
            permissions: Permissions::default(),
            epoch: Box::default(),
            own_votes: OwnVotes::default(),
        }
    }

    /// Handles the router's answer to `Join`: its remembered state, and its verdict on the grant.
    pub(crate) fn on_joined(
        &mut self,
        cached: Option<&CachedState>,
        verdict: Option<GrantVerdict>,
        viewers: u64,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let SubscriptionState::Joining(mut start) =
            std::mem::replace(&mut self.state, SubscriptionState::Live)
        else {
            unreachable!("a peer passes on only the answer to the latest join");
        };
        start.viewers = viewers;
        if verdict != Some(GrantVerdict::Holds) {
            start.grant = None;
        }
        if let Some(grant) = &start.grant
            && let Some(cached) = cached
            && let Some(opening) = StartPoint::of_cached(&start, cached)
        {
            self.permissions.on_grant(grant, context);
            self.epoch = cached.snapshot.epoch.as_str().into();
            self.announce(&start, &opening, None, context, effects);
            if context.identity.subject.is_some() && cached.snapshot.has_open_voting() {
                // Memory does not hold the subscriber's own votes: read them soon.
                let delay = context.part_of(RECHECK_SPREAD);
                self.permissions.ask_within(delay, context.now);
            }
            let catch_up = CatchUp {
                position: opening.position,
                snapshot: Some(Arc::clone(&cached.snapshot)),
            };
            return self.attach(catch_up, effects);
        }
        self.state = SubscriptionState::Authorizing(start);
        self.ask_admission(context, effects);
    }

    /// Handles the database's answer to `Admit`; `None` if the database could not be reached.
    pub(crate) fn on_admitted(
        &mut self,
        answer: Option<Result<Admission, Refusal>>,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) -> Step {
        let is_of_another = self.permissions.take_of_another();
        let is_owed = self.permissions.on_answer(matches!(answer, Some(Ok(_))));
        if !matches!(self.state, SubscriptionState::Authorizing(_)) {
            return Step::Stay;
        }
        if is_of_another && matches!(answer, Some(Err(_))) {
            self.ask_admission(context, effects);
            return Step::Stay;
        }
        let step = self.on_authorized(answer, context, effects);
        if step == Step::Stay && is_owed {
            self.recheck(context, effects);
        }
        step
    }

    /// Handles the database's answer to `CheckAccess`; `None` if the database could not be reached.
    pub(crate) fn on_checked(
        &mut self,
        answer: Option<Result<Access, Refusal>>,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) -> Step {
        // A refusal of the previous identity does not count. The question that is owed below covers the new one.
        let is_of_another = self.permissions.take_of_another();
        let answer = answer.filter(|answer| answer.is_ok() || !is_of_another);
        let is_owed = self.permissions.on_answer(matches!(answer, Some(Ok(_))));
        let step = self.on_rechecked(answer, context, effects);
        if step == Step::Stay && is_owed {
            self.recheck(context, effects);
        }
        step
    }

    fn on_authorized(
        &mut self,
        answer: Option<Result<Admission, Refusal>>,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) -> Step {
        let SubscriptionState::Authorizing(start) =
            std::mem::replace(&mut self.state, SubscriptionState::Live)
        else {
            unreachable!("the caller checked the state");
        };
        match answer {
            Some(Ok(admission)) => self.admit(&start, &admission, context, effects),
            // A subscriber that was live is refused only by a decision about its access, not by a passing failure.
            Some(Err(refusal)) if start.lost.is_some() && !refusal.code.is_judgement() => {
                self.wait(Retry::Start(start), context);
            }
            Some(Err(refusal)) => return self.refuse(&start, &refusal, effects),
            None if start.lost.is_none() => {
                let refusal = Refusal::unavailable();
                return self.refuse(&start, &refusal, effects);
            }
            None => self.wait(Retry::Start(start), context),
        }
        Step::Stay
    }

    /// Handles a page of the log; `None` if the database could not be reached.
    pub(crate) fn on_page(
        &mut self,
        page: Option<LogPage>,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let SubscriptionState::CatchingUp(mut catch_up) =
            std::mem::replace(&mut self.state, SubscriptionState::Live)
        else {
            unreachable!("a peer passes on only the answer to the latest page request");
        };
        let Some(page) = page else {
            return self.wait(Retry::Page(catch_up), context);
        };
        if *page.epoch != *self.epoch || page.head < catch_up.position {
            return self.restart(StartReason::Ahead, context, effects);
        }
        let from = catch_up.position;
        let events = catch_up.take(&page.events);
        if !events.is_empty() {
            let frames = server::events(self.session, from, events.into_iter());
            effects.push(Effect::Send(frames));
        }
        match (catch_up.position < page.head, from < catch_up.position) {
            (true, true) => self.read_page(catch_up, effects),
            (true, false) => self.restart(StartReason::TooOld, context, effects),
            (false, _) => self.attach(*catch_up, effects),
        }
    }

    /// Handles the router's answer to `Attach`.
    pub(crate) fn on_attached(
        &mut self,
        attached: Attached,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let SubscriptionState::Attaching(catch_up) =
            std::mem::replace(&mut self.state, SubscriptionState::Live)
        else {
            unreachable!("a peer passes on only the answer to the latest attach");
        };
        match attached {
            Attached::Live => self.permissions.renew_tokens(context),
            Attached::Behind => self.read_page(catch_up, effects),
            // The admission's epoch differs from the router's, and one of the two is about to be updated. Until then
            // nothing is lost: the epoch of the next page shows whether the position is still valid.
            Attached::Stale => self.wait(Retry::Page(catch_up), context),
        }
    }

    /// Handles a change that the subscription did not request.
    pub(crate) fn on_turn(
        &mut self,
        turn: TurnKind,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) {
        match turn {
            TurnKind::Behind(position) => {
                self.read_page(
                    Box::new(CatchUp {
                        position,
                        snapshot: None,
                    }),
                    effects,
                );
            }
            TurnKind::Lost(reason) => self.restart(reason, context, effects),
            TurnKind::Recheck => self.recheck(context, effects),
            TurnKind::RecheckLater(delay) => self.permissions.ask_within(delay, context.now),
            TurnKind::OwnVote(voting, movie) => self.on_own_vote(voting, movie, effects),
        }
    }

    /// Handles a vote of the subscriber, on this socket or another.
    fn on_own_vote(&mut self, voting: VotingId, movie: Option<MovieId>, effects: &mut Vec<Effect>) {
        self.own_votes.on_vote(voting, movie);
        if !self.state.is_beginning() {
            effects.push(own_votes::told(self.session, voting, movie));
        }
    }

    /// Handles another token of the peer: asks the database for the permissions. If the identity changed, a refusal
    /// that is still under way does not count for the new one.
    pub(crate) fn on_token(
        &mut self,
        is_another: bool,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) {
        if is_another {
            self.permissions.on_other_identity();
        }
        self.recheck(context, effects);
    }

    /// Asks the database for the permissions again, unless the current step asks for them anyway.
    pub(crate) fn recheck(&mut self, context: &PeerContext<'_>, effects: &mut Vec<Effect>) {
        match &mut self.state {
            // The grant may belong to another identity or be outdated. The admission goes through the database instead.
            SubscriptionState::Joining(start) => start.grant = None,
            SubscriptionState::Waiting {
                next: Retry::Start(_),
                ..
            } => {}
            SubscriptionState::Authorizing(_)
            | SubscriptionState::CatchingUp(_)
            | SubscriptionState::Attaching(_)
            | SubscriptionState::Live
            | SubscriptionState::Waiting { .. } => {
                let is_asked = self.permissions.ask(context.now);
                self.check_access(is_asked, true, effects);
            }
        }
    }

    /// As [`Self::recheck`], at the regular interval: no access change is known.
    fn recheck_in_turn(&mut self, context: &PeerContext<'_>, effects: &mut Vec<Effect>) {
        if self.state.is_beginning() {
            return self.recheck(context, effects);
        }
        let is_asked = self.permissions.check(context.now);
        self.check_access(is_asked, false, effects);
    }

    /// Performs the actions that are due.
    pub(crate) fn on_deadline(&mut self, context: &PeerContext<'_>, effects: &mut Vec<Effect>) {
        let session = self.session;
        if let Some(token) = &self.permissions.poll_token(session, context) {
            let frame = ServerFrame::ResumeToken { session, token };
            effects.push(Effect::Send(frame.encode()));
        }
        if self.permissions.poll_question(context.now) {
            self.recheck_in_turn(context, effects);
        }
        if let SubscriptionState::Waiting { until, .. } = self.state
            && until <= context.now.at
            && let SubscriptionState::Waiting { next, .. } =
                std::mem::replace(&mut self.state, SubscriptionState::Live)
        {
            match next {
                Retry::Start(start) => self.join(start, context, effects),
                Retry::Page(catch_up) => self.read_page(catch_up, effects),
            }
        }
    }

    /// Handles a newer frame about the same session: refuses a subscribe that has no answer yet.
    pub(crate) fn on_overtaken(self, effects: &mut Vec<Effect>) {
        if let SubscriptionState::Joining(start)
        | SubscriptionState::Authorizing(start)
        | SubscriptionState::Waiting {
            next: Retry::Start(start),
            ..
        } = self.state
            && start.lost.is_none()
        {
            let message = "a later frame about the same session came before the answer";
            effects.push(Effect::Refuse {
                id: start.id,
                refusal: Refusal::new(RefusalCode::Conflict, message),
            });
        }
    }

    /// Returns when [`Self::on_deadline`] must be called next.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let waiting = if let SubscriptionState::Waiting { until, .. } = self.state {
            Some(until)
        } else {
            None
        };
        waiting.into_iter().chain(self.permissions.deadline()).min()
    }

    /// Whether the subscriber may moderate the session, as far as is known.
    #[must_use]
    pub(crate) fn moderates(&self) -> bool {
        self.permissions.can().moderate
    }

    fn admit(
        &mut self,
        start: &Start,
        admission: &Admission,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let snapshot = &admission.snapshot;
        self.permissions.admit(&admission.access, context);
        self.epoch = snapshot.epoch.as_str().into();
        let opening = StartPoint::of_admission(start, snapshot);
        if self.own_votes.is_newer() {
            // The admission and a newer vote may disagree. The next answer decides.
            self.permissions.ask_within(ADMISSION_RETRY, context.now);
        }
        self.announce(
            start,
            &opening,
            Some(&admission.access.mine),
            context,
            effects,
        );
        let catch_up = CatchUp {
            position: opening.position,
            snapshot: Some(Arc::clone(snapshot)),
        };
        if opening.position < snapshot.head {
            self.read_page(Box::new(catch_up), effects);
        } else {
            self.attach(catch_up, effects);
        }
    }

    /// Sends `subscribed` or `reset`, with the subscriber's own votes if they were read.
    fn announce(
        &mut self,
        start: &Start,
        opening: &StartPoint<'_>,
        read: Option<&HashMap<VotingId, MovieId>>,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let (session, can) = (self.session, self.permissions.can());
        let token = self.permissions.seal(session, context);
        let mine = |voting: VotingId| match read {
            Some(read) => Some(self.own_votes.at_start(voting, read)),
            None => self.own_votes.heard(voting),
        };
        let votings = opening.snapshot.views(session, can, mine);
        let told: Vec<_> = votings
            .iter()
            .map(|view| (view.voting, view.mine))
            .collect();
        let frame = opening.frame(start, session, can, votings, &token);
        effects.push(Effect::Began(opening.outcome(start)));
        effects.push(Effect::Send(frame));
        // A viewer without an account has no votes.
        if context.identity.subject.is_some() {
            self.own_votes.begin(told.into_iter());
        }
    }

    /// Handles the result of an access check on a running subscription.
    fn on_rechecked(
        &mut self,
        answer: Option<Result<Access, Refusal>>,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) -> Step {
        let session = self.session;
        match answer {
            Some(Ok(access)) => {
                if self.permissions.admit(&access, context) {
                    let can = access.can;
                    effects.push(Effect::Router(RouterRequest::SeesHidden {
                        session,
                        sees_hidden: can.moderate,
                    }));
                    let frame = ServerFrame::Access { session, can };
                    effects.push(Effect::Send(frame.encode()));
                }
                self.tell_votes(&access.mine, context, effects);
                Step::Stay
            }
            Some(Err(refusal)) if refusal.code.is_judgement() => self.withdraw(&refusal, effects),
            // The earlier permissions stand until the database can be reached, and the question is repeated
            // until it answers.
            Some(Err(_)) | None => {
                let delay = ADMISSION_RETRY + context.part_of(RECHECK_SPREAD);
                self.permissions.ask_within(delay, context.now);
                Step::Stay
            }
        }
    }

    /// Sends the votes that were made outside this gateway since the last check.
    fn tell_votes(
        &mut self,
        read: &HashMap<VotingId, MovieId>,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(changed) = self.own_votes.check(read) else {
            return self.permissions.ask_within(ADMISSION_RETRY, context.now);
        };
        let told = |(voting, movie)| own_votes::told(self.session, voting, movie);
        effects.extend(changed.into_iter().map(told));
    }

    fn refuse(&self, start: &Start, refusal: &Refusal, effects: &mut Vec<Effect>) -> Step {
        if start.lost.is_some() {
            return self.withdraw(refusal, effects);
        }
        effects.push(Effect::Router(RouterRequest::Leave {
            session: self.session,
        }));
        effects.push(Effect::Refuse {
            id: start.id.clone(),
            refusal: start.refusal(refusal),
        });
        Step::End
    }

    /// Ends a subscription that was live or admitted before.
    fn withdraw(&self, refusal: &Refusal, effects: &mut Vec<Effect>) -> Step {
        let session = self.session;
        effects.push(Effect::Router(RouterRequest::Leave { session }));
        effects.push(Effect::Send(server::withdrawn(session, refusal.code)));
        Step::Withdrawn
    }

    fn restart(
        &mut self,
        reason: StartReason,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) {
        self.join(
            Box::new(Start::afresh(self.session, reason)),
            context,
            effects,
        );
    }

    fn join(&mut self, start: Box<Start>, context: &PeerContext<'_>, effects: &mut Vec<Effect>) {
        self.attempt = self.attempt.wrapping_add(1);
        self.permissions.begin_anew();
        effects.push(Effect::Router(RouterRequest::Join {
            session: self.session,
            attempt: self.attempt,
            user: context.identity.subject,
            grant: None,
        }));
        self.state = SubscriptionState::Joining(start);
    }

    fn check_access(&mut self, is_asked: bool, is_urgent: bool, effects: &mut Vec<Effect>) {
        if is_asked {
            self.own_votes.on_asked();
            effects.push(Effect::Query(Query::CheckAccess {
                session: self.session,
                attempt: self.attempt,
                is_urgent,
            }));
        }
    }

    fn ask_admission(&mut self, context: &PeerContext<'_>, effects: &mut Vec<Effect>) {
        if self.permissions.ask(context.now) {
            self.own_votes.on_asked();
            effects.push(Effect::Query(Query::Admit {
                session: self.session,
                attempt: self.attempt,
            }));
        }
    }

    fn read_page(&mut self, catch_up: Box<CatchUp>, effects: &mut Vec<Effect>) {
        effects.push(Effect::Query(Query::ReadPage {
            session: self.session,
            attempt: self.attempt,
            after: catch_up.position,
        }));
        self.state = SubscriptionState::CatchingUp(catch_up);
    }

    fn attach(&mut self, catch_up: CatchUp, effects: &mut Vec<Effect>) {
        effects.push(Effect::Router(RouterRequest::Attach {
            session: self.session,
            attempt: self.attempt,
            from: Position {
                seq: catch_up.position,
                epoch: self.epoch.clone(),
                snapshot: catch_up.snapshot.clone(),
                sees_hidden: self.permissions.can().moderate,
            },
        }));
        self.state = SubscriptionState::Attaching(Box::new(catch_up));
    }

    fn wait(&mut self, next: Retry, context: &PeerContext<'_>) {
        self.state = SubscriptionState::Waiting {
            until: context.now.at + ADMISSION_RETRY,
            next,
        };
    }
}

//! One subscription of a peer: how it joins without a gap.
//!
//! ```text
//! Joining ─► Authorizing ─► CatchingUp ⇄ Attaching ─► Live
//!    └── from memory, with a grant ──────────┘
//! ```
//!
//! The router notes the interest before the log is read, so nothing falls between the two. Whatever goes wrong later leads
//! back to an earlier state: behind to `CatchingUp`, lost to `Joining`. Invariant: `position` is the last number that was
//! sent, and only consecutive numbers are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::limits::{ADMISSION_RETRY, RECHECK_SPREAD};
use crate::protocol::client::{FrameId, Subscribe};
use crate::protocol::id::{MovieId, SessionId, VotingId};
use crate::protocol::ms;
use crate::protocol::refusal::{Refusal, RefusalCode};
use crate::protocol::server::{self, ServerFrame, StartReason};
use crate::relay::message::{Effect, Query, RouterRequest};
use crate::relay::own_votes::{self, OwnVotes};
use crate::relay::peer_context::PeerContext;
use crate::relay::permissions::Permissions;
use crate::relay::progress::{CatchUp, Retry, State, Step};
use crate::relay::resume::GrantVerdict;
use crate::relay::router::{Attached, CachedState, LogPage, Position, TurnKind};
use crate::relay::snapshot::{Access, Admission};
use crate::relay::start_point::{Start, StartPoint};

/// One subscription of a peer.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// Which session.
    pub(crate) session: SessionId,
    /// Told apart from earlier tries by answers that come late.
    pub(crate) attempt: u32,
    pub(crate) state: State,
    permissions: Permissions,
    /// The epoch of its numbers.
    epoch: Box<str>,
    own_votes: OwnVotes,
}

impl Subscription {
    /// A subscription that begins by noting the interest.
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
            state: State::Joining(Box::new(start)),
            permissions: Permissions::default(),
            epoch: Box::default(),
            own_votes: OwnVotes::default(),
        }
    }

    /// The router noted the interest. It says what it remembers, and whether the grant still holds.
    pub(crate) fn on_joined(
        &mut self,
        cached: Option<&CachedState>,
        verdict: Option<GrantVerdict>,
        viewers: u64,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let State::Joining(mut start) = std::mem::replace(&mut self.state, State::Live) else {
            unreachable!("a peer passes on the answer to the latest join only");
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
                // Memory does not know how the subscriber voted.
                let delay = context.part_of(RECHECK_SPREAD);
                self.permissions.ask_within(delay, context.now);
            }
            let catch_up = CatchUp {
                position: opening.position,
                snapshot: Some(Arc::clone(&cached.snapshot)),
            };
            return self.attach(catch_up, effects);
        }
        self.state = State::Authorizing(start);
        self.ask_admission(context, effects);
    }

    /// The database says whether the peer is admitted; `None` where it could not be asked.
    pub(crate) fn on_admitted(
        &mut self,
        answer: Option<Result<Admission, Refusal>>,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) -> Step {
        let is_of_another = self.permissions.take_of_another();
        let is_owed = self.permissions.on_answer(matches!(answer, Some(Ok(_))));
        if !matches!(self.state, State::Authorizing(_)) {
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

    /// The database says whether the peer may go on; `None` where it could not be asked.
    pub(crate) fn on_checked(
        &mut self,
        answer: Option<Result<Access, Refusal>>,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) -> Step {
        // A refusal of another identity is none: what changed since is asked about below.
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
        let State::Authorizing(start) = std::mem::replace(&mut self.state, State::Live) else {
            unreachable!("matched above");
        };
        match answer {
            Some(Ok(admission)) => self.admit(&start, &admission, context, effects),
            // Whoever was live is told of a judgement alone.
            Some(Err(refusal)) if start.lost.is_some() && !refusal.code.is_judgement() => {
                self.wait(Retry::Start(start), context);
            }
            Some(Err(refusal)) => return self.refuse(&start, &refusal, effects),
            None if start.lost.is_none() => {
                let refusal = Refusal::unavailable(ms(ADMISSION_RETRY));
                return self.refuse(&start, &refusal, effects);
            }
            None => self.wait(Retry::Start(start), context),
        }
        Step::Stay
    }

    /// A page of the log came; `None` where the database could not be asked.
    pub(crate) fn on_page(
        &mut self,
        page: Option<LogPage>,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let State::CatchingUp(mut catch_up) = std::mem::replace(&mut self.state, State::Live)
        else {
            unreachable!("a peer passes on the answer to the latest page only");
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
            effects.push(Effect::Send(server::events(
                self.session,
                events.into_iter(),
            )));
        }
        match (catch_up.position < page.head, from < catch_up.position) {
            (true, true) => self.read_page(catch_up, effects),
            (true, false) => self.restart(StartReason::TooOld, context, effects),
            (false, _) => self.attach(*catch_up, effects),
        }
    }

    /// The router answers to a wish to go on.
    pub(crate) fn on_attached(
        &mut self,
        attached: Attached,
        context: &PeerContext<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let State::Attaching(catch_up) = std::mem::replace(&mut self.state, State::Live) else {
            unreachable!("a peer passes on the answer to the latest wish only");
        };
        match attached {
            Attached::Live => self.permissions.renew_tokens(context),
            Attached::Behind => self.read_page(catch_up, effects),
            // The epochs of the admission and of the router differ; one of them is about to learn of it.
            // Until then nothing is lost: the next page tells whether the position still leads somewhere.
            Attached::Stale => self.wait(Retry::Page(catch_up), context),
        }
    }

    /// Something happened that the subscription did not ask for.
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

    /// The subscriber voted, on this socket or another.
    fn on_own_vote(&mut self, voting: VotingId, movie: Option<MovieId>, effects: &mut Vec<Effect>) {
        self.own_votes.on_vote(voting, movie);
        if !self.state.is_beginning() {
            effects.push(own_votes::told(self.session, voting, movie));
        }
    }

    /// The peer has shown another token: the database is asked what its bearer may do. A refusal that is still under way is
    /// not about somebody who was nobody when it was asked for.
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

    /// Asks the database again what the peer may do, where it will not be asked anyway.
    pub(crate) fn recheck(&mut self, context: &PeerContext<'_>, effects: &mut Vec<Effect>) {
        match &mut self.state {
            // The proof may be another's, or of what was; the ordinary way is open.
            State::Joining(start) => start.grant = None,
            State::Waiting {
                next: Retry::Start(_),
                ..
            } => {}
            State::Authorizing(_)
            | State::CatchingUp(_)
            | State::Attaching(_)
            | State::Live
            | State::Waiting { .. } => {
                let is_asked = self.permissions.ask(context.now);
                self.check_access(is_asked, true, effects);
            }
        }
    }

    /// The same, in its turn: nothing says that the access has changed.
    fn recheck_in_turn(&mut self, context: &PeerContext<'_>, effects: &mut Vec<Effect>) {
        if self.state.is_beginning() {
            return self.recheck(context, effects);
        }
        let is_asked = self.permissions.check(context.now);
        self.check_access(is_asked, false, effects);
    }

    /// Does what is due at this time.
    pub(crate) fn on_deadline(&mut self, context: &PeerContext<'_>, effects: &mut Vec<Effect>) {
        let session = self.session;
        if let Some(token) = &self.permissions.poll_token(session, context) {
            let frame = ServerFrame::ResumeToken { session, token };
            effects.push(Effect::Send(frame.encode()));
        }
        if self.permissions.poll_question(context.now) {
            self.recheck_in_turn(context, effects);
        }
        if let State::Waiting { until, .. } = self.state
            && until <= context.now.at
            && let State::Waiting { next, .. } = std::mem::replace(&mut self.state, State::Live)
        {
            match next {
                Retry::Start(start) => self.join(start, context, effects),
                Retry::Page(catch_up) => self.read_page(catch_up, effects),
            }
        }
    }

    /// The client asked for something else about this session: a subscribe that is not answered yet is refused.
    pub(crate) fn on_overtaken(self, effects: &mut Vec<Effect>) {
        if let State::Joining(start)
        | State::Authorizing(start)
        | State::Waiting {
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

    /// When [`Self::on_deadline`] is next worth a call.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let waiting = if let State::Waiting { until, .. } = self.state {
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
            // Which of the two is the later the next answer tells.
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

    /// Tells the subscriber where it begins, with its votes as they were read, if they were.
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
        // Without an account there is no vote.
        if context.identity.subject.is_some() {
            self.own_votes.begin(told.into_iter());
        }
    }

    /// Access was checked while the subscription went on.
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
            // What was allowed stands until the database can be asked, and it is asked until it answers.
            Some(Err(_)) | None => {
                let delay = ADMISSION_RETRY + context.part_of(RECHECK_SPREAD);
                self.permissions.ask_within(delay, context.now);
                Step::Stay
            }
        }
    }

    /// Tells the votes that were made past this gateway since they were told last.
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

    /// Tells somebody who was watching that it is over.
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
        self.state = State::Joining(start);
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
        self.state = State::CatchingUp(catch_up);
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
        self.state = State::Attaching(Box::new(catch_up));
    }

    fn wait(&mut self, next: Retry, context: &PeerContext<'_>) {
        self.state = State::Waiting {
            until: context.now.at + ADMISSION_RETRY,
            next,
        };
    }
}

//! What a subscriber may do, and since when that is known.
//!
//! The database says it and is asked again where something may have changed. Resume tokens are dated by the question that
//! they rest on: a change of access that came after it voids them. Knows nothing of where the subscriber stands.

use std::time::{Duration, Instant};

use crate::protocol::id::SessionId;
use crate::protocol::ms;
use crate::protocol::server::Can;
use crate::relay::peer::Moment;
use crate::relay::peer_context::PeerContext;
use crate::relay::resume::Grant;
use crate::relay::snapshot::Access;

/// The rights of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Permissions {
    can: Can,
    /// When the admission that stands was asked for, or 0 while it is in doubt. What is voided later voids the tokens that
    /// rest on it; those that rest on 0 are void from the start.
    admitted_at_ms: u64,
    /// When the admission under way was asked for. One at a time: of two, the answer that comes last may be the older.
    asked_at_ms: Option<u64>,
    /// Something changed while it was under way: it must be asked for again.
    is_owed: bool,
    /// What is under way was asked as somebody else.
    is_of_another: bool,
    question_due: Option<Instant>,
    token_due: Option<Instant>,
}

impl Permissions {
    /// Takes the word of a grant. The database is asked when its admission is as old as one may be, so a token that is shown
    /// again and again hides nothing.
    pub(crate) fn on_grant(&mut self, grant: &Grant, context: &PeerContext<'_>) {
        self.can = grant.can;
        self.admitted_at_ms = grant.issued_at_ms;
        let age_ms = context.now.unix_ms.saturating_sub(grant.issued_at_ms);
        let left = context
            .access_check
            .saturating_sub(Duration::from_millis(age_ms));
        self.ask_within(left, context.now);
    }

    /// Puts what stood in doubt. Says whether the database is to be asked at once; if not, it is asked once more after the
    /// answer under way.
    pub(crate) fn ask(&mut self, now: Moment) -> bool {
        // It may be another identity's: a token made meanwhile rests on nothing.
        self.admitted_at_ms = 0;
        self.check(now)
    }

    /// Has what stands confirmed. Says as [`Self::ask`] whether to ask at once.
    pub(crate) fn check(&mut self, now: Moment) -> bool {
        self.is_owed = self.asked_at_ms.is_some();
        self.asked_at_ms.get_or_insert(now.unix_ms);
        !self.is_owed
    }

    /// The subscriber is somebody else from here on: what is under way says nothing about them.
    pub(crate) fn on_other_identity(&mut self) {
        self.is_of_another = self.asked_at_ms.is_some();
    }

    /// Whether the answer that came is about another identity, once.
    pub(crate) fn take_of_another(&mut self) -> bool {
        std::mem::take(&mut self.is_of_another)
    }

    /// Notes that an answer came. Says whether the database must be asked once more.
    pub(crate) fn on_answer(&mut self, is_allowed: bool) -> bool {
        let asked_at_ms = self.asked_at_ms.take();
        let is_owed = std::mem::take(&mut self.is_owed);
        if let (true, Some(asked_at_ms), false) = (is_allowed, asked_at_ms, is_owed) {
            self.admitted_at_ms = asked_at_ms;
        }
        is_owed
    }

    /// Takes what the database said. Says whether it is another thing than before.
    pub(crate) fn admit(&mut self, access: &Access, context: &PeerContext<'_>) -> bool {
        let now = context.now;
        // The token that was given says what was.
        self.token_due = self.token_due.map(|_| now.at);
        self.ask_within(context.next_check(), now);
        if let Some(delay) = access.ask_again {
            self.ask_within(delay, now);
        }
        std::mem::replace(&mut self.can, access.can) != access.can
    }

    /// Has the database asked in a while, or sooner if that is due already.
    pub(crate) fn ask_within(&mut self, delay: Duration, now: Moment) {
        let due = now.at + delay;
        self.question_due = Some(self.question_due.map_or(due, |known| known.min(due)));
    }

    /// Begins to renew the token, where that has not begun: who is behind again and again still gets it in time.
    pub(crate) fn renew_tokens(&mut self, context: &PeerContext<'_>) {
        self.token_due
            .get_or_insert(context.now.at + context.resume_ttl / 2);
    }

    /// Forgets what is under way: the subscription begins anew, and what it asked has another's number.
    pub(crate) fn begin_anew(&mut self) {
        self.asked_at_ms = None;
        self.is_owed = false;
        self.is_of_another = false;
        self.token_due = None;
    }

    /// Whether it is time to ask the database.
    pub(crate) fn poll_question(&mut self, now: Moment) -> bool {
        self.question_due.take_if(|due| *due <= now.at).is_some()
    }

    /// A fresh token, where it is time for one.
    pub(crate) fn poll_token(
        &mut self,
        session: SessionId,
        context: &PeerContext<'_>,
    ) -> Option<String> {
        self.token_due.take_if(|due| *due <= context.now.at)?;
        self.renew_tokens(context);
        Some(self.seal(session, context))
    }

    /// When something is next due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.question_due.into_iter().chain(self.token_due).min()
    }

    /// What the subscriber may do.
    pub(crate) fn can(&self) -> Can {
        self.can
    }

    /// A token that says so.
    pub(crate) fn seal(&self, session: SessionId, context: &PeerContext<'_>) -> String {
        let expires_at_ms = context.now.unix_ms.saturating_add(ms(context.resume_ttl));
        context.key.seal(
            context.identity,
            session,
            self.can,
            self.admitted_at_ms,
            expires_at_ms,
        )
    }
}

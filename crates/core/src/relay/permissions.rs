//! The permissions of one subscription, and the time at which the database confirmed them.
//!
//! The database decides them, and the subscription asks again when they may have changed. A resume token
//! carries the time of the question that it rests on, so a later access change voids it. Knows nothing about
//! the subscription's position.

use std::time::{Duration, Instant};

use crate::protocol::id::SessionId;
use crate::protocol::ms;
use crate::protocol::server::Can;
use crate::relay::peer_context::{Moment, PeerContext};
use crate::relay::resume::Grant;
use crate::relay::snapshot::Access;

/// The permissions of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Permissions {
    can: Can,
    /// The time of the question behind the current admission, or 0 while that is in doubt. A later revocation voids the
    /// resume tokens that rest on it. A token that rests on 0 is void from the start.
    admitted_at_ms: u64,
    /// The time of the question under way. Only one question is under way at a time: of two, the answer that arrives
    /// last may be the older one.
    asked_at_ms: Option<u64>,
    /// The permissions may have changed while the question was under way: ask again after its answer.
    is_owed: bool,
    /// The question under way is about the previous identity.
    is_of_another: bool,
    question_due: Option<Instant>,
    token_due: Option<Instant>,
}

impl Permissions {
    /// Adopts the permissions of a grant. Their age counts from the grant's issue, so a client cannot postpone the
    /// database check by resuming again and again.
    pub(crate) fn on_grant(&mut self, grant: &Grant, context: &PeerContext<'_>) {
        self.can = grant.can;
        self.admitted_at_ms = grant.issued_at_ms;
        let age_ms = context.now.unix_ms.saturating_sub(grant.issued_at_ms);
        let left = context
            .access_check
            .saturating_sub(Duration::from_millis(age_ms));
        self.ask_within(left, context.now);
    }

    /// Puts the permissions in doubt. Returns true if the caller must ask the database now. Otherwise a question is
    /// under way, and the next one follows its answer.
    pub(crate) fn ask(&mut self, now: Moment) -> bool {
        // The permissions may belong to another identity. A resume token made before the answer must therefore
        // rest on nothing.
        self.admitted_at_ms = 0;
        self.check(now)
    }

    /// Asks for confirmation of the permissions. Returns as [`Self::ask`] does.
    pub(crate) fn check(&mut self, now: Moment) -> bool {
        self.is_owed = self.asked_at_ms.is_some();
        self.asked_at_ms.get_or_insert(now.unix_ms);
        !self.is_owed
    }

    /// Records that the subscriber has another identity: the question under way says nothing about it.
    pub(crate) fn on_other_identity(&mut self) {
        self.is_of_another = self.asked_at_ms.is_some();
    }

    /// Returns true, once, if the answer that arrived is about the previous identity.
    pub(crate) fn take_of_another(&mut self) -> bool {
        std::mem::take(&mut self.is_of_another)
    }

    /// Records that an answer arrived. Returns true if the caller must ask the database once more.
    pub(crate) fn on_answer(&mut self, is_allowed: bool) -> bool {
        let asked_at_ms = self.asked_at_ms.take();
        let is_owed = std::mem::take(&mut self.is_owed);
        if let (true, Some(asked_at_ms), false) = (is_allowed, asked_at_ms, is_owed) {
            self.admitted_at_ms = asked_at_ms;
        }
        is_owed
    }

    /// Adopts the database's answer. Returns true if the permissions changed.
    pub(crate) fn admit(&mut self, access: &Access, context: &PeerContext<'_>) -> bool {
        let now = context.now;
        // The client's resume token carries the old permissions: renew it now.
        self.token_due = self.token_due.map(|_| now.at);
        self.ask_within(context.next_check(), now);
        if let Some(delay) = access.ask_again {
            self.ask_within(delay, now);
        }
        std::mem::replace(&mut self.can, access.can) != access.can
    }

    /// Schedules a question to the database after `delay`, unless one is due earlier.
    pub(crate) fn ask_within(&mut self, delay: Duration, now: Moment) {
        let due = now.at + delay;
        self.question_due = Some(self.question_due.map_or(due, |known| known.min(due)));
    }

    /// Schedules the renewal of the resume token, unless it is scheduled already. A client that falls behind again and
    /// again therefore still gets its new token in time.
    pub(crate) fn renew_tokens(&mut self, context: &PeerContext<'_>) {
        self.token_due
            .get_or_insert(context.now.at + context.resume_ttl / 2);
    }

    /// Forgets the question under way and the token's renewal: the subscription starts over, and the old answer
    /// carries another attempt.
    pub(crate) fn begin_anew(&mut self) {
        self.asked_at_ms = None;
        self.is_owed = false;
        self.is_of_another = false;
        self.token_due = None;
    }

    /// Returns true, once, when a question to the database is due.
    pub(crate) fn poll_question(&mut self, now: Moment) -> bool {
        self.question_due.take_if(|due| *due <= now.at).is_some()
    }

    /// Returns a new resume token when one is due.
    pub(crate) fn poll_token(
        &mut self,
        session: SessionId,
        context: &PeerContext<'_>,
    ) -> Option<String> {
        self.token_due.take_if(|due| *due <= context.now.at)?;
        self.renew_tokens(context);
        Some(self.seal(session, context))
    }

    /// Returns when the next question or token is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.question_due.into_iter().chain(self.token_due).min()
    }

    /// Returns the current permissions.
    pub(crate) fn can(&self) -> Can {
        self.can
    }

    /// Seals a resume token for the current permissions.
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

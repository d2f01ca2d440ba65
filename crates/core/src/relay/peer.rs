//! One client as the pure core sees it: its identity, its subscriptions, its pending writes and its deadlines.
//!
//! The shell calls an `on_…` method for each thing that happens, then drains the resulting actions with
//! [`Peer::take_effects`]. Knows nothing about sockets or SQL. Invariant: every frame that has an answer in the
//! protocol gets exactly one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::auth::identity::{Credential, Identity};
use crate::limits::{
    AUTH_TIMEOUT, FRAME_BYTES_MAX, MALFORMED_FRAMES_MAX, RETRY_DATABASE,
    SUBSCRIPTIONS_PER_PEER_MAX, TOKEN_WARNING, WRITES_IN_FLIGHT_PER_PEER_MAX,
};
use crate::protocol::client::{ClientFrame, DecodeError, FrameId, Request, Subscribe};
use crate::protocol::id::SessionId;
use crate::protocol::ms;
use crate::protocol::refusal::{CloseCode, Refusal, RefusalCode, TokenFlaw};
use crate::protocol::server::{Frames, ServerFrame, WriteOutcome};
use crate::relay::may_write::may_write;
use crate::relay::message::{Effect, QueryResult, RouterReply, RouterRequest, Write};
use crate::relay::peer_context::{Moment, PeerContext, Rules};
use crate::relay::progress::Step;
use crate::relay::subscription::Subscription;

/// The state of one client's connection.
#[derive(Debug)]
pub struct Peer {
    rules: Arc<Rules>,
    /// Differs from peer to peer.
    seed: u64,
    identity: Arc<Identity>,
    is_admitted: bool,
    is_proving: bool,
    unproven: CloseCode,
    subscriptions: Vec<Subscription>,
    /// Sessions whose access was withdrawn on this socket. At most [`SUBSCRIPTIONS_PER_PEER_MAX`].
    withdrawn: Vec<SessionId>,
    writes: Vec<(u32, Option<FrameId>)>,
    effects: Vec<Effect>,
    opened_at: Instant,
    heard_at: Instant,
    ping_due: Instant,
    is_warned: bool,
    malformed: u32,
    counter: u32,
}

impl Peer {
    /// Creates a peer for a socket that has just opened. Without an identity, the client must send a token
    /// or watch anonymously.
    #[must_use]
    pub fn new(
        rules: Arc<Rules>,
        identity: Option<Arc<Identity>>,
        connection: Uuid,
        now: Moment,
    ) -> Self {
        let welcome = ServerFrame::Welcome {
            connection,
            server: concat!("usher/", env!("CARGO_PKG_VERSION")),
            heartbeat_ms: ms(rules.heartbeat),
            max_frame_bytes: FRAME_BYTES_MAX,
        };
        Self {
            seed: connection.as_u64_pair().1,
            is_admitted: identity.is_some() || rules.allow_anonymous,
            identity: identity.unwrap_or_else(Identity::nobody),
            is_proving: false,
            unproven: CloseCode::Unauthorized,
            subscriptions: Vec::new(),
            withdrawn: Vec::new(),
            writes: Vec::new(),
            effects: vec![Effect::Send(welcome.encode())],
            opened_at: now.at,
            heard_at: now.at,
            ping_due: now.at + rules.heartbeat,
            is_warned: false,
            malformed: 0,
            counter: 0,
            rules,
        }
    }

    /// Handles any bytes from the client, which show that it is alive.
    pub fn on_heard(&mut self, now: Moment) {
        self.heard_at = now.at;
    }

    /// Handles a text frame from the client.
    pub fn on_frame(&mut self, frame: Result<Request, DecodeError>, now: Moment) {
        match frame {
            Ok(request) => self.on_request(request, now),
            Err(DecodeError::Refused { id, refusal }) => self.refuse(id, refusal),
            Err(DecodeError::NotAnObject) => self.on_malformed(),
        }
    }

    /// Handles a frame beyond the rate limit. The client may send the next one after `wait`.
    pub fn on_excess(&mut self, id: Option<FrameId>, wait: Duration) {
        self.refuse(
            id,
            Refusal::rate_limited("too many frames, slow down", wait),
        );
    }

    /// Handles a client that keeps sending after repeated `rate_limited` errors: closes it.
    pub fn on_flood(&mut self) {
        self.close(CloseCode::Flooding);
    }

    /// Handles a frame that is not a JSON object.
    pub fn on_malformed(&mut self) {
        self.malformed += 1;
        if self.malformed > MALFORMED_FRAMES_MAX {
            self.close(CloseCode::NotThisProtocol);
        } else {
            self.refuse(
                None,
                Refusal::bad_request("a frame must be one JSON object in a text frame"),
            );
        }
    }

    /// Handles an answer of the router, or its report about a subscription.
    pub fn on_router_reply(&mut self, reply: RouterReply, now: Moment) {
        match reply {
            RouterReply::Attached {
                session,
                attempt,
                attached,
            } => self.step(session, attempt, now, |subscription, context, effects| {
                if subscription.state.is_attaching() {
                    subscription.on_attached(attached, context, effects);
                }
                Step::Stay
            }),
            RouterReply::Joined {
                session,
                attempt,
                cached,
                grant,
                viewers,
            } => self.step(session, attempt, now, |subscription, context, effects| {
                if subscription.state.is_joining() {
                    subscription.on_joined(cached.as_deref(), grant, viewers, context, effects);
                }
                Step::Stay
            }),
            RouterReply::Turned {
                session,
                attempt,
                turn,
            } => self.step(session, attempt, now, |subscription, context, effects| {
                subscription.on_turn(turn, context, effects);
                Step::Stay
            }),
        }
    }

    /// Handles the result of a query, a token check or a write.
    pub fn on_query_result(&mut self, result: QueryResult, now: Moment) {
        match result {
            QueryResult::Admitted {
                session,
                attempt,
                answer,
            } => self.step(session, attempt, now, |subscription, context, effects| {
                subscription.on_admitted(answer, context, effects)
            }),
            QueryResult::Checked {
                session,
                attempt,
                answer,
            } => self.step(session, attempt, now, |subscription, context, effects| {
                subscription.on_checked(answer, context, effects)
            }),
            QueryResult::Page {
                session,
                attempt,
                page,
            } => self.step(session, attempt, now, |subscription, context, effects| {
                if subscription.state.is_catching_up() {
                    subscription.on_page(page, context, effects);
                }
                Step::Stay
            }),
            QueryResult::Proven { id, outcome } => self.on_proven(id, outcome, now),
            QueryResult::Written { ticket, outcome } => self.on_written(ticket, outcome),
        }
    }

    /// Handles the result of a write.
    fn on_written(&mut self, ticket: u32, outcome: Result<WriteOutcome, Refusal>) {
        let is_meant = |(waiting, _): &(u32, Option<FrameId>)| *waiting == ticket;
        let Some(place) = self.writes.iter().position(is_meant) else {
            return;
        };
        let (_, id) = self.writes.swap_remove(place);
        match outcome {
            Ok(done) => {
                let id = id.as_ref();
                let ack = ServerFrame::Ack { id, done };
                self.effects.push(Effect::Answer(ack.encode()));
            }
            Err(refusal) => self.refuse(id, refusal),
        }
    }

    /// Handles the result of the check of an `auth` frame's token.
    fn on_proven(&mut self, id: Option<FrameId>, outcome: Result<Identity, Refusal>, now: Moment) {
        self.is_proving = false;
        // The shell read nothing from the client during the check, so the client's silence means nothing.
        self.heard_at = now.at;
        let identity = match outcome {
            Ok(identity) => identity,
            Err(refusal) => {
                let may_be_good = refusal.code == RefusalCode::Unavailable;
                self.unproven = if may_be_good {
                    CloseCode::TryAgainLater
                } else {
                    CloseCode::Unauthorized
                };
                return self.refuse(id, refusal);
            }
        };
        if self.identity.subject.is_some() && identity.subject != self.identity.subject {
            return self.close(CloseCode::AnotherSubject);
        }
        self.is_admitted = true;
        self.is_warned = false;
        self.send(&ServerFrame::Authenticated {
            id: id.as_ref(),
            sub: identity.subject,
            role: identity.role.as_str(),
            expires_at: identity.expires_at,
        });
        self.effects.push(Effect::Router(RouterRequest::Identify {
            user: identity.subject,
        }));
        // A new token of the same user is not another identity. Otherwise a client could avoid every refusal by sending
        // one new token after the other.
        let is_another = identity.subject != self.identity.subject;
        self.identity = Arc::new(identity);
        let context = PeerContext::new(&self.identity, &self.rules, self.seed, now);
        for subscription in &mut self.subscriptions {
            subscription.on_token(is_another, &context, &mut self.effects);
        }
    }

    /// Handles the shutdown of the gateway: asks the client to reconnect after `after_ms`.
    pub fn on_drain(&mut self, after_ms: u64) {
        self.send(&ServerFrame::Reconnect {
            reason: "draining",
            after_ms,
        });
        self.close(CloseCode::Restart);
    }

    /// Performs the actions that are due.
    pub fn on_deadline(&mut self, now: Moment) {
        if self.auth_due().is_some_and(|due| now.at >= due) {
            return self.close(self.unproven);
        }
        if let Some((warning, expiry)) = self.expiry(now) {
            if now.at >= expiry {
                return self.close(CloseCode::TokenExpired);
            }
            if now.at >= warning && !self.is_warned {
                self.is_warned = true;
                let expires_at = self.identity.expires_at.unwrap_or_default();
                self.send(&ServerFrame::TokenExpiring { expires_at });
            }
        }
        if self.silent_at().is_some_and(|silent| now.at >= silent) {
            return self.close(CloseCode::HeartbeatMissed);
        }
        if now.at >= self.ping_due {
            self.ping_due = now.at + self.rules.heartbeat;
            self.effects.push(Effect::Send(Frames::ping()));
        }
        let context = PeerContext::new(&self.identity, &self.rules, self.seed, now);
        for subscription in &mut self.subscriptions {
            subscription.on_deadline(&context, &mut self.effects);
        }
    }

    /// Whether effects are waiting to be drained.
    #[must_use]
    pub fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// Takes the effects, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Returns when [`Self::on_deadline`] must be called next.
    #[must_use]
    pub fn deadline(&self, now: Moment) -> Instant {
        let token = self
            .expiry(now)
            .map(|(warning, expiry)| if self.is_warned { expiry } else { warning });
        let subscriptions = self.subscriptions.iter().filter_map(Subscription::deadline);
        subscriptions
            .chain(self.auth_due())
            .chain(self.silent_at())
            .chain(token)
            .fold(self.ping_due, Instant::min)
    }

    /// Whether a write of the client has no answer yet.
    #[must_use]
    pub fn awaits_writes(&self) -> bool {
        !self.writes.is_empty()
    }

    /// Returns the client's identity.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Whether a token of the client is being checked. The shell reads no frame until then, because the next frames
    /// belong to the new identity.
    #[must_use]
    pub fn is_proving(&self) -> bool {
        self.is_proving
    }

    fn on_request(&mut self, request: Request, now: Moment) {
        let Request { id, frame } = request;
        if !self.is_admitted && !matches!(frame, ClientFrame::Auth { .. } | ClientFrame::Ping) {
            let message = "send an auth frame with a token first";
            return self.refuse(id, Refusal::of_token(TokenFlaw::Missing, message));
        }
        match frame {
            ClientFrame::Auth { token } => self.on_auth(id, &token, now),
            ClientFrame::Ping => self.send(&ServerFrame::Pong { id: id.as_ref() }),
            ClientFrame::Send(message) => self.write(id, Write::Message(message)),
            ClientFrame::Subscribe(wish) => self.on_subscribe(id, wish, now),
            ClientFrame::Unsubscribe { session } => self.on_unsubscribe(id, session),
            ClientFrame::Vote(vote) => self.write(id, Write::Vote(vote)),
        }
    }

    fn on_auth(&mut self, id: Option<FrameId>, token: &str, now: Moment) {
        match Credential::parse(token) {
            Credential::Absent if self.rules.allow_anonymous => {
                self.on_proven(id, Ok(Identity::anonymous()), now);
            }
            Credential::Absent => {
                let message = "token must be a user's access token";
                self.refuse(id, Refusal::of_token(TokenFlaw::Missing, message));
            }
            Credential::Token(token) => {
                self.is_proving = true;
                self.effects.push(Effect::Prove {
                    id,
                    token: token.into(),
                });
            }
        }
    }

    fn on_subscribe(&mut self, id: Option<FrameId>, wish: Subscribe, now: Moment) {
        self.end_subscription(wish.session);
        if self.subscriptions.len() >= SUBSCRIPTIONS_PER_PEER_MAX {
            let message = format!(
                "a socket has at most {SUBSCRIPTIONS_PER_PEER_MAX} subscriptions: unsubscribe from a session first"
            );
            return self.refuse(id, Refusal::bad_request(message));
        }
        // Each subscribe starts at least 65,536 attempts after the previous one, so that the attempts of a session stay
        // distinct for the life of the socket, even across an unsubscribe.
        self.counter = self.counter.wrapping_add(1 << 16);
        let context = PeerContext::new(&self.identity, &self.rules, self.seed, now);
        let was_withdrawn = self.withdrawn.contains(&wish.session);
        let (attempt, effects) = (self.counter, &mut self.effects);
        let subscription = Subscription::begin(wish, id, attempt, was_withdrawn, &context, effects);
        // Most peers have one subscription. A vector's own growth would start with room for four.
        self.subscriptions.reserve_exact(1);
        self.subscriptions.push(subscription);
    }

    fn on_unsubscribe(&mut self, id: Option<FrameId>, session: SessionId) {
        self.end_subscription(session);
        self.effects
            .push(Effect::Router(RouterRequest::Leave { session }));
        self.send(&ServerFrame::Unsubscribed {
            id: id.as_ref(),
            session,
            reason: None,
        });
    }

    fn end_subscription(&mut self, session: SessionId) {
        let is_meant = |subscription: &Subscription| subscription.session == session;
        if let Some(place) = self.subscriptions.iter().position(is_meant) {
            let subscription = self.subscriptions.swap_remove(place);
            subscription.on_overtaken(&mut self.effects);
        }
    }

    fn write(&mut self, id: Option<FrameId>, write: Write) {
        let author = match may_write(&self.identity) {
            Ok(author) => author,
            Err(refusal) => return self.refuse(id, refusal),
        };
        if self.writes.len() >= WRITES_IN_FLIGHT_PER_PEER_MAX {
            let message = "too many writes without an answer yet";
            return self.refuse(id, Refusal::rate_limited(message, RETRY_DATABASE));
        }
        self.counter = self.counter.wrapping_add(1);
        self.writes.push((self.counter, id));
        let is_moderator = match &write {
            Write::Message(message) => self.moderates(message.session),
            Write::Vote(_) => false,
        };
        self.effects.push(Effect::Write {
            ticket: self.counter,
            author,
            write,
            is_moderator,
        });
    }

    /// Runs one step of a subscription, unless the answer belongs to an earlier attempt.
    fn step(
        &mut self,
        session: SessionId,
        attempt: u32,
        now: Moment,
        step: impl FnOnce(&mut Subscription, &PeerContext<'_>, &mut Vec<Effect>) -> Step,
    ) {
        let is_meant = |subscription: &Subscription| {
            subscription.session == session && subscription.attempt == attempt
        };
        let Some(place) = self.subscriptions.iter().position(is_meant) else {
            return;
        };
        let context = PeerContext::new(&self.identity, &self.rules, self.seed, now);
        match step(&mut self.subscriptions[place], &context, &mut self.effects) {
            Step::Stay => {}
            Step::End => {
                self.subscriptions.swap_remove(place);
            }
            Step::Withdrawn => {
                self.subscriptions.swap_remove(place);
                if !self.withdrawn.contains(&session)
                    && self.withdrawn.len() < SUBSCRIPTIONS_PER_PEER_MAX
                {
                    self.withdrawn.push(session);
                }
                if self.subscriptions.is_empty() {
                    self.close(CloseCode::AccessWithdrawn);
                }
            }
        }
    }

    /// Whether the client moderates a session, according to a subscription of this socket.
    fn moderates(&self, session: SessionId) -> bool {
        let mut subscriptions = self.subscriptions.iter();
        subscriptions.any(|one| one.session == session && one.moderates())
    }

    /// Returns when to warn the client about its token's expiry, and when the token expires.
    fn expiry(&self, now: Moment) -> Option<(Instant, Instant)> {
        let expires_at_ms = self.identity.expires_at?.saturating_mul(1_000);
        let left = Duration::from_millis(expires_at_ms.saturating_sub(now.unix_ms));
        let expiry = now.at.checked_add(left)?;
        Some((now.at + left.saturating_sub(TOKEN_WARNING), expiry))
    }

    /// Returns when a client that has sent no valid token is closed; `None` if it is admitted or its token
    /// is being checked.
    fn auth_due(&self) -> Option<Instant> {
        (!self.is_admitted && !self.is_proving).then(|| self.opened_at + AUTH_TIMEOUT)
    }

    /// Returns when a silent client is closed; `None` while the shell reads nothing from it.
    fn silent_at(&self) -> Option<Instant> {
        (!self.is_proving).then(|| self.heard_at + 2 * self.rules.heartbeat)
    }

    fn send(&mut self, frame: &ServerFrame<'_>) {
        self.effects.push(Effect::Send(frame.encode()));
    }

    fn refuse(&mut self, id: Option<FrameId>, refusal: Refusal) {
        self.effects.push(Effect::Refuse { id, refusal });
    }

    fn close(&mut self, code: CloseCode) {
        self.effects.push(Effect::Close(code));
    }
}

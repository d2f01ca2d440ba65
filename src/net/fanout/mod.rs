//! A fan-out loop: owns the write side of its connections and a router for the sessions that they watch.
//!
//! Each turn takes everything that is queued, passes it to the router, and writes. Events that arrive meanwhile form one
//! chunk of the next turn. So batches grow with the load, without a timer. The loops share only counters.

pub(crate) mod loops;
pub(crate) mod tally_reader;
pub(crate) mod viewer_counts;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::{mpsc, oneshot};

use crate::clock::moment;
use crate::limits::{COMMANDS_TAKEN_MAX, REFILL_PAUSE, VIEWER_COUNT_INTERVAL};
use crate::metrics::{Metrics, gauge};
use crate::net::answered;
use crate::net::fanout::loops::{FanoutCommand, Pulse};
use crate::net::fanout::viewer_counts::ViewerCounts;
use crate::net::socket::form_cache::FormCache;
use crate::net::socket::outbound::{ConnectionEvent, Outbound, Written};
use crate::postgres::listener::ListenEvent;
use crate::postgres::statement::StoreError;
use crate::postgres::store::Store;
use usher_core::limits::TALLIES_READ_MAX;
use usher_core::protocol::id::{SessionId, VotingId};
use usher_core::protocol::notify::{AccessChange, Notice};
use usher_core::protocol::server::{Frames, ServerFrame};
use usher_core::relay::PeerId;
use usher_core::relay::access_changes::AccessChanges;
use usher_core::relay::delivery::{LogPage, Refill, Sink, Turn};
use usher_core::relay::message::{RouterReply, RouterRequest};
use usher_core::relay::resume::{Grant, GrantVerdict, Revocations};
use usher_core::relay::router::Router;
use usher_core::relay::topic::Receiver;

/// One fan-out loop.
#[derive(Debug)]
pub(crate) struct Fanout {
    router: Router,
    outbounds: Outbounds,
    revocations: Revocations,
    access_changes: AccessChanges,
    viewer_counts: Arc<ViewerCounts>,
    told_viewers: FxHashMap<SessionId, u64>,
    store: Store,
    recounts: mpsc::Sender<Vec<VotingId>>,
    owed_recounts: FxHashSet<VotingId>,
    told_windows: i64,
    told_window_bytes: i64,
    metrics: Arc<Metrics>,
    pulse: Arc<Pulse>,
    refills: FuturesUnordered<BoxFuture<'static, (Refill, Result<LogPage, StoreError>)>>,
    has_heard: bool,
}

impl Fanout {
    /// Creates a loop whose ring per session holds `ring_events_max` events.
    #[must_use]
    pub(crate) fn new(
        ring_events_max: usize,
        viewer_counts: Arc<ViewerCounts>,
        store: Store,
        recounts: mpsc::Sender<Vec<VotingId>>,
        metrics: Arc<Metrics>,
        pulse: Arc<Pulse>,
    ) -> Self {
        Self {
            router: Router::new(ring_events_max),
            outbounds: Outbounds {
                outbounds: FxHashMap::default(),
                metrics: Arc::clone(&metrics),
                forms: FormCache::default(),
                written: Written::default(),
            },
            revocations: Revocations::default(),
            access_changes: AccessChanges::default(),
            viewer_counts,
            told_viewers: FxHashMap::default(),
            store,
            recounts,
            owed_recounts: FxHashSet::default(),
            told_windows: 0,
            told_window_bytes: 0,
            metrics,
            pulse,
            refills: FuturesUnordered::new(),
            has_heard: false,
        }
    }

    /// Runs until every command sender is gone.
    pub(crate) async fn run(
        mut self,
        mut heard: mpsc::Receiver<Arc<ListenEvent>>,
        mut commands: mpsc::Receiver<FanoutCommand>,
    ) {
        let mut tick = tokio::time::interval(VIEWER_COUNT_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut news = Vec::new();
        let mut asked = Vec::new();
        loop {
            // Every arm is cancel-safe: it takes only what it returns. Fair, not biased: if a turn takes longer than the
            // pause between events, a biased select would starve the other arms.
            tokio::select! {
                count = heard.recv_many(&mut news, usize::MAX), if !heard.is_closed() || !heard.is_empty() => {
                    if count > 0 {
                        self.on_heard(&news);
                        news.clear();
                    }
                }
                Some((refill, page)) = self.refills.next() => self.on_page(refill, page),
                count = commands.recv_many(&mut asked, COMMANDS_TAKEN_MAX) => {
                    if count == 0 {
                        return;
                    }
                    for command in asked.drain(..) {
                        self.on_command(command);
                    }
                }
                _ = tick.tick() => self.on_tick(),
            }
            self.drain();
            // Yields now and then, so that a busy loop does not block the connections on its core.
            tokio::task::consume_budget().await;
        }
    }

    fn on_heard(&mut self, news: &[Arc<ListenEvent>]) {
        let began = moment();
        let mut notices: Vec<Notice> = Vec::new();
        for heard in news {
            match &**heard {
                ListenEvent::Reconnected { epoch } => {
                    self.router.publish(notices.drain(..), &mut self.outbounds);
                    self.on_back(epoch);
                }
                ListenEvent::OwnVotes(votes) => {
                    for vote in votes {
                        self.router.on_own_vote(vote);
                    }
                }
                ListenEvent::Notices { events, access, .. } => {
                    notices.extend_from_slice(events);
                    for change in access {
                        self.revocations.on_access_change(*change, began.unix_ms);
                        if self.access_changes.is_first(*change) {
                            self.router.on_access_change(*change);
                        }
                    }
                }
            }
        }
        let newest = notices
            .iter()
            .rev()
            .find_map(|notice| notice.event.as_ref()?.at_ms);
        self.router.publish(notices, &mut self.outbounds);
        if let Some(at_ms) = newest {
            let lag = Duration::from_millis(began.unix_ms.saturating_sub(at_ms));
            self.metrics.lag.observe(lag.as_secs_f64());
        }
        self.metrics
            .fanout_rounds
            .observe((moment().at - began.at).as_secs_f64());
    }

    /// The LISTEN connection has reconnected: events, counts and changes of access may be missing.
    fn on_back(&mut self, epoch: &str) {
        // Collected first: the resync drops the snapshots that list the polls.
        let votings: Vec<VotingId> = self.router.votings().collect();
        self.router.resync(epoch);
        self.revocations.void_all(moment().unix_ms);
        if self.has_heard {
            self.router.on_access_change(AccessChange {
                session: None,
                user: None,
            });
            self.recount(votings);
        }
        self.has_heard = true;
    }

    fn on_page(&mut self, refill: Refill, page: Result<LogPage, StoreError>) {
        match answered(page, "missed events", &self.store, &self.metrics) {
            Some(page) => {
                self.router.on_page(&refill, &page, &mut self.outbounds);
                let forgeries = self.router.take_forgeries();
                if forgeries > 0 {
                    self.store.log().on_forged(refill.session, forgeries);
                    self.metrics.forged_events.inc_by(forgeries);
                }
            }
            None => self.ask(refill, REFILL_PAUSE),
        }
    }

    fn on_command(&mut self, command: FanoutCommand) {
        match command {
            FanoutCommand::Close { peer, held } => self.on_close(peer, held),
            FanoutCommand::Frame { peer, frames, kind } => {
                if let Some(outbound) = self.outbounds.outbounds.get_mut(&peer) {
                    outbound.send(frames, kind, &mut self.outbounds.written);
                }
            }
            FanoutCommand::Recount => {
                let votings: Vec<VotingId> = self.router.votings().collect();
                self.recount(votings);
            }
            FanoutCommand::Open {
                peer,
                io,
                encoding,
                connection_events,
            } => {
                let outbound = Outbound::new(io, encoding, connection_events);
                self.outbounds.outbounds.insert(peer, outbound);
            }
            FanoutCommand::Request { peer, request } => self.on_request(peer, request),
            FanoutCommand::Void(change) => {
                self.revocations.on_access_change(change, moment().unix_ms);
            }
            FanoutCommand::Tally(tally) => self.router.on_tally(&tally, &mut self.outbounds),
            FanoutCommand::Writable { peer } => self.on_writable(peer),
        }
    }

    fn on_request(&mut self, peer: PeerId, request: RouterRequest) {
        match request {
            RouterRequest::Attach {
                session,
                attempt,
                from,
            } => {
                let attached = self
                    .router
                    .attach(session, peer, &from, &mut self.outbounds);
                let reply = RouterReply::Attached {
                    session,
                    attempt,
                    attached,
                };
                self.outbounds.tell(peer, ConnectionEvent::Reply(reply));
            }
            RouterRequest::Identify { user } => self.router.set_user(peer, user),
            RouterRequest::Join {
                session,
                attempt,
                user,
                grant,
            } => {
                self.on_join(session, Receiver::new(peer, attempt, user), grant.as_ref());
            }
            RouterRequest::Leave { session } => self.on_leave(peer, session),
            RouterRequest::SeesHidden {
                session,
                sees_hidden,
            } => {
                self.router.set_sees_hidden(session, peer, sees_hidden);
            }
        }
    }

    fn on_writable(&mut self, peer: PeerId) {
        let flows = self
            .outbounds
            .outbounds
            .get_mut(&peer)
            .is_some_and(|outbound| outbound.on_writable(&mut self.outbounds.written));
        if flows {
            self.router.catch_up(peer, &mut self.outbounds);
        }
    }

    fn on_join(&mut self, session: SessionId, receiver: Receiver, grant: Option<&Grant>) {
        let (peer, attempt) = (receiver.peer, receiver.attempt);
        if !self.outbounds.outbounds.contains_key(&peer) {
            return;
        }
        if !self.router.is_watching(session, peer) {
            self.viewer_counts.enter(session);
            self.metrics.subscriptions.inc();
        }
        let cached = self.router.join(session, receiver);
        let grant = grant.map(|grant| self.revocations.judge(grant));
        // Only a peer with a valid grant uses the cached state.
        let cached = cached.filter(|_| grant == Some(GrantVerdict::Holds));
        let reply = RouterReply::Joined {
            session,
            attempt,
            cached: cached.map(Box::new),
            grant,
            viewers: self.viewer_counts.count(session),
        };
        self.outbounds.tell(peer, ConnectionEvent::Reply(reply));
    }

    fn on_leave(&mut self, peer: PeerId, session: SessionId) {
        if self.router.is_watching(session, peer) {
            self.router.leave(session, peer, moment().at);
            self.viewer_counts.leave(session);
            self.metrics.subscriptions.dec();
        }
    }

    fn on_close(&mut self, peer: PeerId, held: Option<oneshot::Sender<Vec<Bytes>>>) {
        for session in self.router.leave_all(peer, moment().at) {
            self.viewer_counts.leave(session);
            self.metrics.subscriptions.dec();
        }
        if let Some(outbound) = self.outbounds.outbounds.remove(&peer) {
            let frames = outbound.close();
            if let Some(held) = held {
                // Ignores a connection that is gone.
                let _ = held.send(frames);
            }
        }
    }

    fn on_tick(&mut self) {
        for change in self.access_changes.next_second() {
            self.router.on_access_change(change);
        }
        let Self {
            router,
            viewer_counts,
            told_viewers,
            ..
        } = self;
        let now = moment();
        self.pulse.beat(now);
        router.sweep(now.at);
        let sessions: Vec<SessionId> = router.sessions().collect();
        let (count, bytes) = (gauge(sessions.len()), gauge(router.window_bytes()));
        // The loops share these gauges: each adds its own change.
        self.metrics.windows.inc_by(count - self.told_windows);
        self.metrics
            .window_bytes
            .inc_by(bytes - self.told_window_bytes);
        (self.told_windows, self.told_window_bytes) = (count, bytes);
        // Counts a session once, even if several loops serve it.
        self.metrics.sessions.set(gauge(viewer_counts.sessions()));
        told_viewers.retain(|session, _| viewer_counts.count(*session) > 0);
        for session in &sessions {
            let count = self.viewer_counts.count(*session);
            if count > 0 && self.told_viewers.insert(*session, count) != Some(count) {
                let frame = ServerFrame::Viewers {
                    session: *session,
                    count,
                }
                .encode();
                self.router.broadcast(*session, &frame, &mut self.outbounds);
            }
        }
    }

    /// Requests new counts of polls. Never waits: the reader may be waiting for this loop. If the queue is full, it keeps each
    /// poll once for the next turn.
    fn recount(&mut self, votings: impl IntoIterator<Item = VotingId>) {
        self.owed_recounts.extend(votings);
        while !self.owed_recounts.is_empty()
            && let Ok(room) = self.recounts.try_reserve()
        {
            let owed = self.owed_recounts.iter().copied();
            let some: Vec<VotingId> = owed.take(TALLIES_READ_MAX).collect();
            for voting in &some {
                self.owed_recounts.remove(voting);
            }
            room.send(some);
        }
    }

    /// Carries out the router's effects.
    fn drain(&mut self) {
        let recounts: Vec<VotingId> = std::iter::from_fn(|| self.router.poll_recount()).collect();
        self.recount(recounts);
        self.outbounds.count();
        while let Some(refill) = self.router.poll_refill() {
            self.metrics
                .refills
                .get_or_create(&refill.cause.into())
                .inc();
            self.ask(refill, Duration::ZERO);
        }
        while let Some(Turn {
            peer,
            session,
            attempt,
            kind,
        }) = self.router.poll_turn()
        {
            let reply = RouterReply::Turned {
                session,
                attempt,
                turn: kind,
            };
            self.outbounds.tell(peer, ConnectionEvent::Reply(reply));
        }
    }

    /// Reads a page of the log after a pause. A session has at most one such read at a time.
    fn ask(&self, refill: Refill, pause: Duration) {
        let store = self.store.clone();
        self.refills.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            let page = store.page(refill.session, refill.after).await;
            (refill, page)
        }));
    }
}

/// The write sides of all connections of a loop.
#[derive(Debug)]
struct Outbounds {
    outbounds: FxHashMap<PeerId, Outbound>,
    metrics: Arc<Metrics>,
    forms: FormCache,
    written: Written,
}

impl Outbounds {
    /// Adds the turn's amounts to the metrics. Once a turn, because the cores share the metrics.
    fn count(&mut self) {
        let Written {
            bytes,
            chunks,
            stalls,
        } = std::mem::take(&mut self.written);
        self.metrics.bytes_sent.inc_by(bytes);
        self.metrics.deliveries.inc_by(chunks);
        self.metrics.stalls.inc_by(stalls);
    }

    fn tell(&mut self, peer: PeerId, event: ConnectionEvent) {
        if let Some(outbound) = self.outbounds.get_mut(&peer) {
            outbound.tell(event);
        }
    }
}

impl Sink for Outbounds {
    fn offer(&mut self, peer: PeerId, frames: &Frames) -> bool {
        self.outbounds
            .get_mut(&peer)
            .is_some_and(|outbound| outbound.offer(frames, &mut self.forms, &mut self.written))
    }
}

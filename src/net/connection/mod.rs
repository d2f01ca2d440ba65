//! The task of one client: reads its socket, drives its peer, and carries out the peer's effects.
//!
//! Writes to the client only the rest of a chunk that hit a full socket, and the last frames before a close. Reads nothing
//! from a client that does not read: after [`STALL_MAX`] it closes that client as too slow.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::channel::mpsc as channel;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;
use tracing::debug;
use uuid::Uuid;

use crate::clock::moment;
use crate::config::rates::Rates;
use crate::keyring::Keyring;
use crate::limits::{NOTE_QUEUE_LEN, QUERIES_IN_FLIGHT_PER_PEER_MAX, RECEIPT_BYTES_MIN, STALL_MAX};
use crate::metrics::Metrics;
use crate::net::fanout::loops::{FanoutCommand, FanoutLoops};
use crate::net::queries::Queries;
use crate::net::random_below;
use crate::net::shutdown::Shutdown;
use crate::net::socket::inbound::{Inbound, Incoming};
use crate::net::socket::outbound::{ConnectionEvent, Encoding, FrameKind};
use crate::net::socket::outbound_io::{OutboundIo, StreamWriter};
use crate::net::socket::socket_limits::SocketLimits;
use crate::net::socket::{Socket, close};
use crate::net::writes::Writes;
use usher_core::auth::identity::Identity;
use usher_core::protocol::client::{self, ClientFrame, DecodeError, FrameId, Request, Subscribe};
use usher_core::protocol::id::UserId;
use usher_core::protocol::refusal::{CloseCode, Refusal};
use usher_core::protocol::server::{self, Content, Frames};
use usher_core::protocol::sse::Encoder;
use usher_core::relay::PeerId;
use usher_core::relay::message::{Effect, Query, QueryResult, Write};
use usher_core::relay::peer::Peer;
use usher_core::relay::peer_context::{Moment, Rules};

/// The state that all connections share.
#[derive(Debug)]
pub(crate) struct ConnectionContext {
    /// The settings of every peer.
    pub(crate) rules: Arc<Rules>,
    /// The limits of one socket.
    pub(crate) rates: Rates,
    /// Verifies the tokens of `auth` frames.
    pub(crate) keyring: Keyring,
    /// Reads from the database.
    pub(crate) queries: Arc<Queries>,
    /// Writes to the database.
    pub(crate) writes: Arc<Writes>,
    /// Write to the sockets.
    pub(crate) loops: Arc<FanoutLoops>,
    /// Tells connections when to leave.
    pub(crate) shutdown: Arc<Shutdown>,
    /// Counts connections, frames and refusals.
    pub(crate) metrics: Arc<Metrics>,
}

pub(crate) struct Connection {
    context: Arc<ConnectionContext>,
    id: PeerId,
    peer: Peer,
    io: OutboundIo,
    inbound: Inbound,
    /// Receives once whether the event stream begins.
    begun: Option<oneshot::Sender<Result<(), Refusal>>>,
    fanout: mpsc::Sender<FanoutCommand>,
    events: channel::Receiver<ConnectionEvent>,
    answers: FuturesUnordered<BoxFuture<'static, QueryResult>>,
    queries: VecDeque<Query>,
    asked: usize,
    receipts: usize,
    unfinished: Option<Unfinished>,
    limits: SocketLimits,
}

pub(crate) enum Client {
    Socket(Upgraded),
    Stream(EventStream),
}

/// A new event stream.
pub(crate) struct EventStream {
    /// Takes its events.
    pub(crate) writer: StreamWriter,
    /// Encodes its events.
    pub(crate) encoder: Encoder,
    /// The subscription of the stream.
    pub(crate) subscribe: Subscribe,
    /// Receives whether it begins.
    pub(crate) begun: oneshot::Sender<Result<(), Refusal>>,
}

/// A socket after the WebSocket handshake.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) socket: Socket,
    /// The bytes that followed the handshake.
    pub(crate) read: Vec<u8>,
    /// Whether both sides agreed on compression.
    pub(crate) is_compressed: bool,
}

/// The rest of a chunk that hit a full socket.
struct Unfinished {
    bytes: Bytes,
    since: Instant,
}

/// The reason that the task ends.
enum End {
    /// The gateway closes the socket.
    Close(CloseCode),
    /// The client has closed the socket, or the socket is broken.
    Gone,
}

impl Connection {
    /// Creates the connection of a new client, and hands its write side to a fan-out loop.
    pub(crate) async fn new(
        context: Arc<ConnectionContext>,
        client: Client,
        identity: Option<Arc<Identity>>,
    ) -> Self {
        let (id, fanout) = context.loops.assign();
        let (event_sender, events) = channel::channel(NOTE_QUEUE_LEN);
        let now = moment();
        let mut peer = Peer::new(Arc::clone(&context.rules), identity, Uuid::new_v4(), now);
        let mut begun = None;
        let (io, inbound, encoding) = match client {
            Client::Socket(socket) => {
                let Upgraded {
                    socket,
                    read,
                    is_compressed,
                } = socket;
                let socket = Arc::new(socket);
                let inbound = Inbound::new(Arc::clone(&socket), read, is_compressed).await;
                let encoding = if is_compressed {
                    Encoding::Compressed
                } else {
                    Encoding::Plain
                };
                (OutboundIo::Socket(socket), inbound, encoding)
            }
            Client::Stream(stream) => {
                let frame = ClientFrame::Subscribe(stream.subscribe);
                peer.on_frame(Ok(Request { id: None, frame }), now);
                begun = Some(stream.begun);
                let inbound = Inbound::of_stream(stream.writer.clone());
                let encoding = Encoding::Events(stream.encoder);
                (OutboundIo::Stream(stream.writer), inbound, encoding)
            }
        };
        let open = FanoutCommand::Open {
            peer: id,
            io: io.clone(),
            encoding,
            connection_events: event_sender,
        };
        // If the loop is gone, the event channel closes, which ends this task.
        let _ = fanout.send(open).await;
        Self {
            limits: SocketLimits::new(&context.rates),
            context,
            id,
            peer,
            io,
            inbound,
            begun,
            fanout,
            events,
            answers: FuturesUnordered::new(),
            queries: VecDeque::new(),
            asked: 0,
            receipts: 0,
            unfinished: None,
        }
    }

    /// Its number, and the sender to its fan-out loop.
    pub(crate) fn place(&self) -> (PeerId, mpsc::Sender<FanoutCommand>) {
        (self.id, self.fanout.clone())
    }

    /// Serves the client until either side closes.
    pub(crate) async fn run(&mut self) {
        let metrics = Arc::clone(&self.context.metrics);
        metrics.connections.inc();
        metrics.connections_total.inc();
        match self.serve().await {
            End::Close(code) => {
                metrics.closes.get_or_create(&code.into()).inc();
                debug!(peer = self.id.0, code = code.as_u16(), "peer closed");
                // Boxed: a future is as large as its largest part for all its life.
                Box::pin(self.close(code)).await;
            }
            End::Gone => {
                let (peer, held) = (self.id, None);
                let _ = self.fanout.send(FanoutCommand::Close { peer, held }).await;
            }
        }
        metrics.connections.dec();
    }

    async fn serve(&mut self) -> End {
        let shutdown = Arc::clone(&self.context.shutdown);
        let mut leave_at = None;
        loop {
            // Checked on every turn: a client that always has a frame ready must not outrun its deadlines.
            let now = moment();
            if now.at >= self.deadline(now)
                && let Some(end) = self.on_deadline(now)
            {
                return end;
            }
            if leave_at.is_some_and(|leave_at| now.at >= leave_at) {
                self.peer.on_drain(random_below(shutdown.return_ms()));
            }
            // Boxed here and below for the same reason as the close: most connections are idle.
            if self.peer.has_effects()
                && let Some(end) = Box::pin(self.carry_out()).await
            {
                return end;
            }
            self.ask();
            let takes = self.unfinished.is_none() && self.receipts == 0;
            let deadline = self.deadline(now);
            let deadline = leave_at.map_or(deadline, |leave_at| deadline.min(leave_at));
            // Every arm is cancel-safe: it takes an event, an answer or a message only when it runs.
            let end = tokio::select! {
                biased;
                () = shutdown.signal.cancelled(), if leave_at.is_none() => {
                    let wait = Duration::from_millis(random_below(shutdown.leave_ms()));
                    leave_at = Some(now.at + wait);
                    None
                }
                event = self.events.next() => match event {
                    Some(event) => self.on_event(event),
                    None => Some(End::Close(CloseCode::TooSlow)),
                },
                finished = finish(&self.io, &mut self.unfinished), if self.unfinished.is_some() => {
                    Box::pin(self.on_finished(finished)).await
                }
                Some(answer) = self.answers.next(), if takes => {
                    self.asked -= usize::from(answer.is_to_query());
                    self.peer.on_query_result(answer, moment());
                    None
                }
                heard = self.inbound.next(), if takes && !self.peer.is_proving() => {
                    Box::pin(self.on_heard(heard)).await
                }
                () = sleep_until(deadline.into()) => None,
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    fn on_event(&mut self, event: ConnectionEvent) -> Option<End> {
        let now = moment();
        match event {
            ConnectionEvent::Finish(bytes) => {
                self.unfinished = Some(Unfinished {
                    bytes,
                    since: now.at,
                })
            }
            ConnectionEvent::Reply(reply) => self.peer.on_router_reply(reply, now),
            ConnectionEvent::Broken => return Some(End::Gone),
            ConnectionEvent::Written => self.receipts = self.receipts.saturating_sub(1),
        }
        None
    }

    /// The socket took some of the unfinished bytes.
    async fn on_finished(&mut self, finished: std::io::Result<usize>) -> Option<End> {
        let Ok(written) = finished else {
            return Some(End::Gone);
        };
        self.context.metrics.bytes_sent.inc_by(written as u64);
        let now = moment();
        // A client that reads is alive, although the gateway reads nothing from it meanwhile.
        self.peer.on_heard(now);
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.since = now.at;
            if unfinished.bytes.is_empty() {
                self.unfinished = None;
                let _ = self
                    .fanout
                    .send(FanoutCommand::Writable { peer: self.id })
                    .await;
            }
        }
        None
    }

    async fn on_heard(&mut self, heard: Incoming) -> Option<End> {
        let now = moment();
        self.peer.on_heard(now);
        let mut end = None;
        match heard {
            Incoming::Text(text) => {
                self.context.metrics.frames_received.inc();
                let frame = client::decode(&text);
                match self.limits.frame(text.len(), &frame) {
                    Ok(()) => self.peer.on_frame(frame, now),
                    Err(wait) => self.refuse_excess(id_of(frame), wait),
                }
            }
            Incoming::Binary(_) => {
                self.context.metrics.frames_received.inc();
                self.peer.on_malformed();
            }
            Incoming::Control => {
                self.context.metrics.control_frames_received.inc();
                if let Err(wait) = self.limits.control_frame() {
                    self.refuse_excess(None, wait);
                    // RFC 6455 §5.5.3 allows skipping the pong if another ping follows.
                    let _ = self.inbound.take_reply().await;
                }
            }
            Incoming::Goodbye => end = Some(End::Gone),
            Incoming::Breach(code) => return Some(End::Close(code)),
            Incoming::Gone => return Some(End::Gone),
        }
        if let Some(reply) = self.inbound.take_reply().await {
            let frames = Frames::socket_only(reply);
            self.send(frames, FrameKind::Plain).await;
        }
        end
    }

    fn refuse_excess(&mut self, id: Option<FrameId>, wait: Duration) {
        self.peer.on_excess(id, wait);
        self.note_excess();
    }

    fn on_deadline(&mut self, now: Moment) -> Option<End> {
        if self
            .unfinished
            .as_ref()
            .is_some_and(|unfinished| now.at >= unfinished.since + STALL_MAX)
        {
            return Some(End::Close(CloseCode::TooSlow));
        }
        if let OutboundIo::Stream(stream) = &self.io
            && stream.take_progress()
        {
            self.peer.on_heard(now);
        }
        self.peer.on_deadline(now);
        None
    }

    fn deadline(&self, now: Moment) -> Instant {
        let stall = self
            .unfinished
            .as_ref()
            .map(|unfinished| unfinished.since + STALL_MAX);
        let peer = self.peer.deadline(now);
        stall.map_or(peer, |stall| stall.min(peer))
    }

    /// Carries out the peer's effects in order.
    async fn carry_out(&mut self) -> Option<End> {
        for effect in self.peer.take_effects() {
            match effect {
                Effect::Query(query) => self.queue(query),
                Effect::Prove { id, token } => {
                    let keyring = self.context.keyring.clone();
                    self.answers.push(Box::pin(async move {
                        let outcome = keyring.prove(&token).await;
                        QueryResult::Proven { id, outcome }
                    }));
                }
                Effect::Router(request) => {
                    let peer = self.id;
                    // If the loop is gone, the event channel closes, which ends this task.
                    let _ = self
                        .fanout
                        .send(FanoutCommand::Request { peer, request })
                        .await;
                }
                Effect::Write {
                    ticket,
                    author,
                    write,
                    is_moderator,
                } => self.write(ticket, author, write, is_moderator),
                Effect::Began(beginning) => {
                    let starts = &self.context.metrics.starts;
                    starts.get_or_create(&beginning.into()).inc();
                }
                Effect::Refuse { id, refusal } => {
                    self.context
                        .metrics
                        .refusals
                        .get_or_create(&refusal.code.into())
                        .inc();
                    if let Some(begun) = self.begun.take() {
                        // An event stream has one subscription. Without it there is nothing to send.
                        let _ = begun.send(Err(refusal));
                        return Some(End::Gone);
                    }
                    let frames = server::error(id.as_ref(), &refusal);
                    self.send(frames, FrameKind::Answer).await;
                }
                Effect::Answer(frames) => self.send(frames, FrameKind::Answer).await,
                Effect::Send(frames) => {
                    let begins = frames.content != Content::SocketOnly;
                    if let Some(begun) = self.begun.take_if(|_| begins) {
                        let _ = begun.send(Ok(()));
                    }
                    let kind = if frames.bytes.len() >= RECEIPT_BYTES_MIN {
                        self.receipts += 1;
                        FrameKind::Receipted
                    } else {
                        FrameKind::Plain
                    };
                    self.send(frames, kind).await;
                }
                // A client with a full socket is slow, not dead.
                Effect::Close(CloseCode::HeartbeatMissed) if self.unfinished.is_some() => {
                    return Some(End::Close(CloseCode::TooSlow));
                }
                Effect::Close(code) => return Some(End::Close(code)),
            }
        }
        None
    }

    /// Starts a write if the rate limits allow it.
    fn write(&mut self, ticket: u32, author: UserId, write: Write, is_moderator: bool) {
        let (writes, identity) = (
            Arc::clone(&self.context.writes),
            Arc::clone(self.peer.identity()),
        );
        let admitted = writes.admit(author, &write, is_moderator, moment().at);
        let is_excess = admitted.is_err();
        self.answers.push(Box::pin(async move {
            let outcome = match admitted {
                Ok(passed) => writes.write(write, identity, passed).await,
                Err(refusal) => Err(refusal),
            };
            QueryResult::Written { ticket, outcome }
        }));
        if is_excess {
            self.note_excess();
        }
    }

    /// Counts a refusal for a rate. Closes a client that continues in spite of many.
    fn note_excess(&mut self) {
        if !self.limits.forgives() {
            self.peer.on_flood();
        }
    }

    /// Queues a query. Drops queries of earlier attempts of the same subscription: the peer ignores their results.
    fn queue(&mut self, query: Query) {
        let (session, attempt) = query.subscription();
        self.queries.retain(|waiting| {
            let (asked, earlier) = waiting.subscription();
            asked != session || earlier == attempt
        });
        self.queries.push_back(query);
    }

    /// Sends queued queries to the database, a few at a time. Sends none while the client has not read earlier results.
    fn ask(&mut self) {
        while self.asked < QUERIES_IN_FLIGHT_PER_PEER_MAX
            && self.receipts == 0
            && let Some(query) = self.queries.pop_front()
        {
            self.asked += 1;
            self.answers
                .push(self.context.queries.run(query, self.peer.identity()));
        }
        if self.queries.is_empty() {
            // Frees the memory: most connections never send another query.
            self.queries = VecDeque::new();
        }
    }

    async fn send(&mut self, frames: Frames, kind: FrameKind) {
        let peer = self.id;
        let command = FanoutCommand::Frame { peer, frames, kind };
        let _ = self.fanout.send(command).await;
    }

    /// Takes the socket back from the fan-out loop, sends the remaining frames, answers the pending writes, and closes.
    async fn close(&mut self, code: CloseCode) {
        let (sender, held) = oneshot::channel();
        let close = FanoutCommand::Close {
            peer: self.id,
            held: Some(sender),
        };
        let _ = self.fanout.send(close).await;
        let unfinished = self.unfinished.take();
        let mut rest: VecDeque<Bytes> = unfinished
            .map(|unfinished| unfinished.bytes)
            .into_iter()
            .collect();
        // The loop drops the event channel when it drops the socket or gives it up.
        while let Some(event) = self.events.next().await {
            if let ConnectionEvent::Finish(bytes) = event {
                rest.push_back(bytes);
            }
        }
        // If the loop is gone, nothing is held.
        rest.extend(held.await.unwrap_or_default());
        let OutboundIo::Socket(socket) = &self.io else {
            // A stream has no pending writes and no close frame.
            close::write_all(&self.io, rest).await;
            return;
        };
        let (peer, answers) = (&mut self.peer, &mut self.answers);
        let metrics = &self.context.metrics;
        if close::answer_pending(peer, answers, &mut rest, &self.io, metrics)
            .await
            .is_ok()
        {
            close::close(code, rest, socket, &mut self.inbound).await;
        }
    }
}

/// The id of a frame, if it could be decoded.
fn id_of(frame: Result<Request, DecodeError>) -> Option<FrameId> {
    match frame {
        Ok(request) => request.id,
        Err(DecodeError::Refused { id, .. }) => id,
        Err(DecodeError::NotAnObject) => None,
    }
}

/// Writes some of the unfinished bytes, and returns their number. Cancel-safe, like [`close::write_some`].
async fn finish(io: &OutboundIo, unfinished: &mut Option<Unfinished>) -> std::io::Result<usize> {
    match unfinished {
        Some(unfinished) => close::write_some(io, &mut unfinished.bytes).await,
        None => Ok(0),
    }
}

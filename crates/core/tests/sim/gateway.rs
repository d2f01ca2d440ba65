//! Models the shells around the core: sockets, tasks and queries, with every queue visible.
//!
//! A gateway has one LISTEN connection and a few fan-out loops. Each loop has a router, and takes notifications and
//! commands from two queues in any order. A connection has a peer, and a socket that may stall.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use usher_core::protocol::id::VotingId;
use usher_core::protocol::notify::{AccessChange, Notice};
use usher_core::protocol::server::Frames;
use usher_core::relay::PeerId;
use usher_core::relay::delivery::{Refill, Sink, Turn};
use usher_core::relay::message::{RouterReply, RouterRequest};
use usher_core::relay::peer::Peer;
use usher_core::relay::peer_context::Moment;
use usher_core::relay::resume::Revocations;
use usher_core::relay::router::Router;
use usher_core::relay::tally::Tally;
use usher_core::relay::topic::Receiver;

use crate::dice::Dice;

/// One gateway process.
#[derive(Debug)]
pub(crate) struct SimGateway {
    /// Messages of the database that the network has not delivered yet; `None` while the LISTEN connection is down.
    pub(crate) network: Option<VecDeque<Heard>>,
    pub(crate) loops: Vec<Loop>,
}

/// A message that the listener receives.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    Back { epoch: String },
    Notices(Vec<Notice>),
    Access(AccessChange),
    Votes(VotingId),
}

/// One fan-out loop.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) router: Router,
    pub(crate) revocations: Revocations,
    pub(crate) heard: VecDeque<Heard>,
    pub(crate) commands: VecDeque<(PeerId, LoopCommand)>,
    pub(crate) has_heard: bool,
}

/// A request of a connection to its loop.
#[derive(Debug)]
pub(crate) enum LoopCommand {
    Close,
    Frame(Bytes),
    Request(RouterRequest),
    Writable,
}

/// One connection and its peer.
#[derive(Debug)]
pub(crate) struct SimConnection {
    pub(crate) client: usize,
    pub(crate) gateway: usize,
    pub(crate) lane: usize,
    pub(crate) peer: Peer,
    pub(crate) notes: VecDeque<RouterReply>,
    pub(crate) line: SocketBuffer,
}

/// The write side of a socket.
#[derive(Debug, Default)]
pub(crate) struct SocketBuffer {
    /// Bytes on their way to the client.
    pub(crate) wire: Vec<u8>,
    pub(crate) is_stalled: bool,
    /// Direct answers that wait for a stalled socket.
    pub(crate) held: VecDeque<Bytes>,
}

/// All sockets of the world, as a loop uses them.
pub(crate) struct SocketBuffers<'a> {
    pub(crate) connections: &'a mut BTreeMap<PeerId, SimConnection>,
    pub(crate) dice: &'a mut Dice,
    /// The percentage of writes after which a socket stalls.
    pub(crate) stalls: u64,
}

/// A loop's question to the database.
#[derive(Debug)]
pub(crate) enum LoopQuery {
    Refill(Refill),
    Tally(VotingId),
}

impl SimGateway {
    pub(crate) fn new(loops: usize, ring_events_max: usize) -> Self {
        let idle = || Loop {
            router: Router::new(ring_events_max),
            revocations: Revocations::default(),
            heard: VecDeque::new(),
            commands: VecDeque::new(),
            has_heard: false,
        };
        Self {
            network: None,
            loops: (0..loops).map(|_| idle()).collect(),
        }
    }
}

impl Loop {
    /// Handles at most `count` of the waiting messages.
    pub(crate) fn on_heard(
        &mut self,
        count: usize,
        now: Moment,
        lines: &mut SocketBuffers<'_>,
    ) -> Vec<LoopQuery> {
        let mut questions = Vec::new();
        let mut notices = Vec::new();
        for heard in self.heard.drain(..count.min(self.heard.len())) {
            match heard {
                Heard::Back { epoch } => {
                    self.router.publish(std::mem::take(&mut notices), lines);
                    self.router.resync(&epoch);
                    self.revocations.void_all(now.unix_ms);
                    if self.has_heard {
                        self.router.on_access_change(AccessChange {
                            session: None,
                            user: None,
                        });
                        questions.extend(self.router.votings().map(LoopQuery::Tally));
                    }
                    self.has_heard = true;
                }
                Heard::Notices(news) => notices.extend(news),
                Heard::Access(change) => {
                    self.revocations.on_access_change(change, now.unix_ms);
                    self.router.on_access_change(change);
                }
                Heard::Votes(voting) => questions.push(LoopQuery::Tally(voting)),
            }
        }
        self.router.publish(notices, lines);
        questions.extend(self.drain(lines));
        questions
    }

    pub(crate) fn on_command(
        &mut self,
        peer: PeerId,
        command: LoopCommand,
        now: Moment,
        lines: &mut SocketBuffers<'_>,
    ) -> Vec<LoopQuery> {
        match command {
            LoopCommand::Request(RouterRequest::Attach {
                session,
                attempt,
                from,
            }) => {
                let attached = self.router.attach(session, peer, &from, lines);
                lines.tell(
                    peer,
                    RouterReply::Attached {
                        session,
                        attempt,
                        attached,
                    },
                );
            }
            LoopCommand::Close => drop(self.router.leave_all(peer, now.at)),
            LoopCommand::Frame(frame) => lines.send(peer, frame),
            LoopCommand::Request(RouterRequest::Identify { user }) => {
                self.router.set_user(peer, user)
            }
            LoopCommand::Request(RouterRequest::Join {
                session,
                attempt,
                user,
                grant,
            }) => {
                if lines.connections.contains_key(&peer) {
                    let cached = self
                        .router
                        .join(session, Receiver::new(peer, attempt, user));
                    let grant = grant.map(|grant| self.revocations.judge(&grant));
                    lines.tell(
                        peer,
                        RouterReply::Joined {
                            session,
                            attempt,
                            cached: cached.map(Box::new),
                            grant,
                            viewers: 0,
                        },
                    );
                }
            }
            LoopCommand::Request(RouterRequest::Leave { session }) => {
                self.router.leave(session, peer, now.at)
            }
            LoopCommand::Request(RouterRequest::SeesHidden {
                session,
                sees_hidden,
            }) => self.router.set_sees_hidden(session, peer, sees_hidden),
            LoopCommand::Writable => {
                if lines.flow(peer) {
                    self.router.catch_up(peer, lines);
                }
            }
        }
        self.drain(lines)
    }

    pub(crate) fn on_page(
        &mut self,
        refill: &Refill,
        page: &usher_core::relay::delivery::LogPage,
        lines: &mut SocketBuffers<'_>,
    ) -> Vec<LoopQuery> {
        self.router.on_page(refill, page, lines);
        self.drain(lines)
    }

    pub(crate) fn on_tally(&mut self, tally: &Tally, lines: &mut SocketBuffers<'_>) {
        self.router.on_tally(tally, lines);
    }

    fn drain(&mut self, lines: &mut SocketBuffers<'_>) -> Vec<LoopQuery> {
        while let Some(Turn {
            peer,
            session,
            attempt,
            kind,
        }) = self.router.poll_turn()
        {
            lines.tell(
                peer,
                RouterReply::Turned {
                    session,
                    attempt,
                    turn: kind,
                },
            );
        }
        let recounts: Vec<_> = std::iter::from_fn(|| self.router.poll_recount()).collect();
        let refills = std::iter::from_fn(|| self.router.poll_refill());
        refills
            .map(LoopQuery::Refill)
            .chain(recounts.into_iter().map(LoopQuery::Tally))
            .collect()
    }
}

impl SocketBuffers<'_> {
    fn send(&mut self, peer: PeerId, frame: Bytes) {
        let Some(connection) = self.connections.get_mut(&peer) else {
            return;
        };
        if connection.line.is_stalled {
            connection.line.held.push_back(frame);
        } else {
            connection.line.wire.extend_from_slice(&frame);
            connection.line.is_stalled = self.dice.chance(self.stalls);
        }
    }

    /// Resumes a stalled socket. Returns true if no answer waits any more.
    fn flow(&mut self, peer: PeerId) -> bool {
        let Some(connection) = self.connections.get_mut(&peer) else {
            return false;
        };
        connection.line.is_stalled = false;
        for frame in std::mem::take(&mut connection.line.held) {
            self.send(peer, frame);
        }
        self.connections
            .get(&peer)
            .is_some_and(|connection| !connection.line.is_stalled)
    }

    fn tell(&mut self, peer: PeerId, note: RouterReply) {
        if let Some(connection) = self.connections.get_mut(&peer) {
            connection.notes.push_back(note);
        }
    }
}

impl Sink for SocketBuffers<'_> {
    fn offer(&mut self, peer: PeerId, frames: &Frames) -> bool {
        let Some(connection) = self.connections.get_mut(&peer) else {
            return false;
        };
        if connection.line.is_stalled {
            return false;
        }
        connection.line.wire.extend_from_slice(&frames.bytes);
        connection.line.is_stalled = self.dice.chance(self.stalls);
        true
    }
}

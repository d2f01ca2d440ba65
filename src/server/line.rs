//! The write side of one connection, as its fan-out loop holds it.
//!
//! A line is either flowing, then bytes go straight to the socket, or stalled, then the connection's task is finishing what
//! the socket did not take. While it is stalled direct answers wait, up to a bound, and events are refused: the router
//! remembers the position. Invariant: at any time one of the two writes to the socket, never both.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::channel::mpsc as channel;

use crate::limits::HELD_BYTES_MAX;
use crate::protocol::id::SessionId;
use crate::relay::router::{Attached, Recall, TurnKind};
use crate::server::shrink::Shrink;
use crate::server::socket::Socket;

/// What a fan-out loop tells a connection. The channel is the futures crate's: an idle one costs a quarter of tokio's,
/// and every connection has one.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after what they are")]
pub enum Note {
    /// The answer to a wish to go on from a position.
    Attached {
        session: SessionId,
        attempt: u32,
        attached: Attached,
    },
    /// The socket is broken.
    Broken,
    /// The socket did not take these bytes: finish them, then say so.
    Finish(Bytes),
    /// What waited behind the bytes that the socket did not take, handed over as the line is closed.
    Held(Vec<Bytes>),
    /// The interest is noted.
    Joined {
        session: SessionId,
        attempt: u32,
        recall: Option<Box<Recall>>,
        viewers: u64,
    },
    /// Something happened to a subscription.
    Turned {
        session: SessionId,
        attempt: u32,
        turn: TurnKind,
    },
    /// Everything sent up to the frame that asked for this receipt was taken.
    Written,
}

/// What the lines of a loop did in a turn.
#[derive(Debug, Default)]
pub struct Written {
    /// Bytes that sockets took.
    pub bytes: u64,
    /// Chunks of events that receivers took.
    pub chunks: u64,
    /// Times that a socket took no more.
    pub stalls: u64,
}

/// The write side of one connection.
#[derive(Debug)]
pub struct Line {
    socket: Arc<Socket>,
    /// Whether it is given shared frames in their compressed form.
    is_packed: bool,
    /// `None` once the connection is given up: its task sees the other end close.
    notes: Option<channel::Sender<Note>>,
    stalled: Option<Held>,
}

/// What waits behind the bytes that a socket did not take.
#[derive(Debug, Default)]
struct Held {
    frames: VecDeque<(Bytes, bool)>,
    bytes: usize,
}

impl Line {
    /// The write side of a socket whose connection hears by `notes`.
    #[must_use]
    pub fn new(socket: Arc<Socket>, is_packed: bool, notes: channel::Sender<Note>) -> Self {
        Self {
            socket,
            is_packed,
            notes: Some(notes),
            stalled: None,
        }
    }

    /// Sends a frame that is for this connection alone, with a receipt if one is wanted.
    pub fn send(&mut self, frame: Bytes, wants_receipt: bool, written: &mut Written) {
        if self.notes.is_none() {
            return;
        }
        if let Some(held) = &mut self.stalled {
            held.bytes += frame.len();
            held.frames.push_back((frame, wants_receipt));
            if held.bytes > HELD_BYTES_MAX {
                self.give_up();
            }
            return;
        }
        self.write(&frame, written);
        if wants_receipt {
            match &mut self.stalled {
                Some(held) => held.frames.push_back((Bytes::new(), true)),
                None => self.tell(Note::Written),
            }
        }
    }

    /// Offers what many are sent. False where the line is stalled.
    pub fn offer(&mut self, chunk: &Bytes, shrink: &mut Shrink, written: &mut Written) -> bool {
        if self.stalled.is_some() || self.notes.is_none() {
            return false;
        }
        if self.is_packed {
            self.write(&shrink.form(chunk), written);
        } else {
            self.write(chunk, written);
        }
        written.chunks += 1;
        true
    }

    /// The connection finished what the socket had not taken. True where the line flows again.
    pub fn on_writable(&mut self, written: &mut Written) -> bool {
        if self.notes.is_none() {
            return false;
        }
        let Some(held) = self.stalled.take() else {
            return true;
        };
        for (frame, wants_receipt) in held.frames {
            self.send(frame, wants_receipt, written);
        }
        self.stalled.is_none()
    }

    /// Ends the line: the connection's task has the socket to itself, and what waited for it.
    pub fn close(mut self) {
        let held = self.stalled.take().unwrap_or_default();
        if !held.frames.is_empty() {
            let frames = held.frames.into_iter().map(|(frame, _)| frame);
            self.tell(Note::Held(frames.collect()));
        }
    }

    /// Tells the connection something. One that does not listen is given up.
    pub fn tell(&mut self, note: Note) {
        if let Some(notes) = &mut self.notes
            && notes.try_send(note).is_err()
        {
            self.give_up();
        }
    }

    /// Writes as much as the socket takes; the rest is the connection's to finish.
    fn write(&mut self, bytes: &Bytes, written: &mut Written) {
        if bytes.is_empty() {
            return;
        }
        let count = match self.socket.try_write(bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.tell(Note::Broken);
                return self.give_up();
            }
        };
        written.bytes += count as u64;
        if count < bytes.len() {
            written.stalls += 1;
            self.stalled = Some(Held::default());
            self.tell(Note::Finish(bytes.slice(count..)));
        }
    }

    /// Writes nothing any more. The connection's task sees the other end of the notes close.
    fn give_up(&mut self) {
        self.notes = None;
        self.stalled = None;
    }
}

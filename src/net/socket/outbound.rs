//! The write side of one connection, owned by its fan-out loop.
//!
//! It is in one of three states:
//!
//! - *Flowing*: the loop writes straight to the socket.
//! - *Stalled*: the socket is full, and the connection's task writes the rest of the last chunk. Frames for this connection
//!   wait, at most [`HELD_BYTES_MAX`] bytes. Events are refused, and the router remembers the position.
//! - *Given up*: too many bytes wait, or the connection takes no events from its channel. The loop writes nothing more. It
//!   keeps the waiting frames and later answers to writes until the connection takes the socket back and closes it.
//!
//! Invariant: at any time either the loop or the connection's task writes to the socket, never both.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use futures::channel::mpsc as channel;

use crate::limits::{HELD_BYTES_MAX, LATE_ANSWERS_MAX};
use crate::net::socket::form_cache::FormCache;
use crate::net::socket::outbound_io::OutboundIo;
use usher_core::protocol::server::Frames;
use usher_core::protocol::sse::Encoder;
use usher_core::relay::message::RouterReply;

/// An event for a connection from its fan-out loop. Every connection has a channel for them. It is the futures crate's: an
/// idle one takes a quarter of the memory of tokio's.
#[derive(Debug)]
pub(crate) enum ConnectionEvent {
    /// The socket is broken.
    Broken,
    /// The socket did not take these bytes. The connection writes them and then sends `Writable`.
    Finish(Bytes),
    /// A reply of the router to the peer.
    Reply(RouterReply),
    /// The socket has taken everything up to the frame that asked for this receipt.
    Written,
}

/// The kind of a frame for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// The answer to a write. The client receives it even if the gateway closes the socket.
    Answer,
    /// Any other frame.
    Plain,
    /// A frame whose sender waits until the socket has taken it.
    Receipted,
}

/// The amounts that a loop wrote in one turn.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Bytes taken by sockets.
    pub(crate) bytes: u64,
    /// Chunks of events taken by receivers.
    pub(crate) chunks: u64,
    /// Writes that hit a full socket buffer.
    pub(crate) stalls: u64,
}

/// The form of a client's frames.
#[derive(Debug)]
pub(crate) enum Encoding {
    /// WebSocket frames.
    Plain,
    /// WebSocket frames. Those that many receivers share are compressed.
    Compressed,
    /// Events of a stream.
    Events(Encoder),
}

/// The write side of one connection.
#[derive(Debug)]
pub(crate) struct Outbound {
    io: OutboundIo,
    encoding: Encoding,
    /// `None` once it is given up. The connection's task sees the channel close.
    events: Option<channel::Sender<ConnectionEvent>>,
    stalled: Option<HeldFrames>,
}

/// The frames that wait behind the bytes that the connection's task is writing.
#[derive(Debug, Default)]
struct HeldFrames {
    frames: VecDeque<(Bytes, FrameKind)>,
    bytes: usize,
    /// The number of answers queued after it was given up.
    late: usize,
}

impl HeldFrames {
    fn push(&mut self, frame: Bytes, kind: FrameKind) {
        self.bytes += frame.len();
        self.frames.push_back((frame, kind));
    }
}

impl Outbound {
    /// The write side of a client. `events` reaches the connection's task.
    #[must_use]
    pub(crate) fn new(
        io: OutboundIo,
        encoding: Encoding,
        events: channel::Sender<ConnectionEvent>,
    ) -> Self {
        Self {
            io,
            encoding,
            events: Some(events),
            stalled: None,
        }
    }

    /// Sends frames for this connection alone, with a receipt for [`FrameKind::Receipted`].
    pub(crate) fn send(&mut self, frames: Frames, kind: FrameKind, written: &mut Written) {
        let bytes = match &mut self.encoding {
            Encoding::Plain | Encoding::Compressed => frames.bytes,
            Encoding::Events(encoder) => encoder.encode(&frames),
        };
        self.send_bytes(bytes, kind, written);
    }

    fn send_bytes(&mut self, frame: Bytes, kind: FrameKind, written: &mut Written) {
        let is_given_up = self.events.is_none();
        if let Some(held) = &mut self.stalled {
            if !is_given_up {
                held.push(frame, kind);
                if held.bytes > HELD_BYTES_MAX {
                    self.give_up();
                }
            } else if kind == FrameKind::Answer && held.late < LATE_ANSWERS_MAX {
                // Answers only: other frames after a dropped frame would leave a gap.
                held.late += 1;
                held.push(frame, kind);
            }
            return;
        }
        if is_given_up {
            return;
        }
        self.write(&frame, written);
        if kind == FrameKind::Receipted {
            match &mut self.stalled {
                Some(held) => held.push(Bytes::new(), kind),
                None => self.tell(ConnectionEvent::Written),
            }
        }
    }

    /// Writes a chunk of events that many receivers share. Returns false if it is stalled.
    pub(crate) fn offer(
        &mut self,
        frames: &Frames,
        forms: &mut FormCache,
        written: &mut Written,
    ) -> bool {
        if self.stalled.is_some() || self.events.is_none() {
            return false;
        }
        match &self.encoding {
            Encoding::Plain => self.write(&frames.bytes, written),
            Encoding::Compressed => self.write(&forms.compressed(&frames.bytes), written),
            Encoding::Events(encoder) => self.write(&forms.events(frames, encoder), written),
        }
        written.chunks += 1;
        true
    }

    /// The connection's task has written everything. Sends the waiting frames, and returns true if it flows again.
    pub(crate) fn on_writable(&mut self, written: &mut Written) -> bool {
        if self.events.is_none() {
            return false;
        }
        let Some(held) = self.stalled.take() else {
            return true;
        };
        for (frame, kind) in held.frames {
            match &mut self.stalled {
                Some(behind) => behind.push(frame, kind),
                None => self.send_bytes(frame, kind, written),
            }
        }
        self.stalled.is_none() && self.events.is_some()
    }

    /// Leaves the socket to the connection's task, and returns the waiting frames.
    #[must_use]
    pub(crate) fn close(self) -> Vec<Bytes> {
        let held = self.stalled.unwrap_or_default();
        held.frames.into_iter().map(|(frame, _)| frame).collect()
    }

    /// Sends an event to the connection. Gives it up if its channel is full or closed.
    pub(crate) fn tell(&mut self, event: ConnectionEvent) {
        let Some(events) = &mut self.events else {
            return;
        };
        if let Err(untold) = events.try_send(event) {
            self.give_up();
            if let (ConnectionEvent::Finish(bytes), Some(held)) =
                (untold.into_inner(), &mut self.stalled)
            {
                // The rest of a frame that is half sent: `close` sends it first.
                held.push(bytes, FrameKind::Plain);
            }
        }
    }

    /// Writes as much as the socket takes. The connection's task writes the rest.
    fn write(&mut self, bytes: &Bytes, written: &mut Written) {
        if bytes.is_empty() {
            return;
        }
        let count = match self.io.try_write(bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.tell(ConnectionEvent::Broken);
                self.give_up();
                self.stalled = None;
                return;
            }
        };
        written.bytes += count as u64;
        if count < bytes.len() {
            written.stalls += 1;
            self.stalled = Some(HeldFrames::default());
            self.tell(ConnectionEvent::Finish(bytes.slice(count..)));
        }
    }

    /// Stops writing. The connection's task sees its channel close, and closes the socket.
    fn give_up(&mut self) {
        self.events = None;
        self.stalled.get_or_insert_default();
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net;
    use std::sync::Arc;

    use futures::StreamExt as _;
    use tokio::net::{TcpStream, UnixStream};

    use super::*;
    use crate::net::socket::Socket;

    #[tokio::test]
    async fn a_line_that_holds_too_much_keeps_the_answers_for_the_close() {
        let (mut outbound, mut events, _theirs) = outbound(8);
        fill(&mut outbound, &mut events).await;
        let (large, small) = (frame(b'l', HELD_BYTES_MAX), frame(b's', 100));
        let (first, late) = (frame(b'1', 50), frame(b'2', 60));
        let mut written = Written::default();
        outbound.send(first.clone(), FrameKind::Answer, &mut written);
        outbound.send(large.clone(), FrameKind::Plain, &mut written);
        assert_eq!(events.next().await.map(|_| ()), None, "it is given up");
        outbound.send(small, FrameKind::Plain, &mut written);
        outbound.send(late.clone(), FrameKind::Answer, &mut written);
        for _ in 0..2 * LATE_ANSWERS_MAX {
            outbound.send(late.clone(), FrameKind::Answer, &mut written);
        }
        assert!(!outbound.on_writable(&mut written));
        let held = outbound.close();
        assert_eq!(held[..3], [first, large, late].map(|frame| frame.bytes));
        assert_eq!(held.len(), 2 + LATE_ANSWERS_MAX);
    }

    #[tokio::test]
    async fn a_frame_that_is_cut_is_kept_where_the_connection_does_not_listen() {
        let (mut outbound, mut events, theirs) = outbound(0);
        // Fills the channel, which has room for one event.
        outbound.tell(ConnectionEvent::Written);
        let (large, answer) = (frame(b'l', 4 << 20), frame(b'a', 50));
        let mut written = Written::default();
        outbound.send(large.clone(), FrameKind::Plain, &mut written);
        outbound.send(answer.clone(), FrameKind::Answer, &mut written);
        assert!(matches!(
            events.next().await,
            Some(ConnectionEvent::Written)
        ));
        assert!(events.next().await.is_none(), "it is given up");
        let mut sent = read(&theirs, written.bytes).await;
        sent.extend(outbound.close().concat());
        assert_eq!(sent, [&large.bytes[..], &answer.bytes[..]].concat());
    }

    #[tokio::test]
    async fn what_was_held_goes_out_in_order_once_the_socket_takes_it() {
        let (mut outbound, mut events, theirs) = outbound(8);
        let taken = fill(&mut outbound, &mut events).await;
        let mut written = Written::default();
        outbound.send(frame(b'1', 10), FrameKind::Answer, &mut written);
        outbound.send(frame(b'2', 10), FrameKind::Receipted, &mut written);
        assert_eq!(written.bytes, 0);
        read(&theirs, taken).await;
        outbound.io.writable().await.expect("writable");
        assert!(outbound.on_writable(&mut written));
        assert!(matches!(
            events.next().await,
            Some(ConnectionEvent::Written)
        ));
        assert_eq!(read(&theirs, 20).await, b"11111111112222222222");
        assert!(outbound.close().is_empty());
    }

    fn outbound(events: usize) -> (Outbound, channel::Receiver<ConnectionEvent>, UnixStream) {
        let (ours, theirs) = net::UnixStream::pair().expect("a pair");
        for end in [&ours, &theirs] {
            end.set_nonblocking(true).expect("a socket");
        }
        // A pair writes as TCP does, and needs no port.
        let ours = TcpStream::from_std(OwnedFd::from(ours).into()).expect("a socket");
        let theirs = UnixStream::from_std(theirs).expect("a socket");
        let (sender, events) = channel::channel(events);
        let io = OutboundIo::Socket(Arc::new(Socket::Plain(ours)));
        (Outbound::new(io, Encoding::Plain, sender), events, theirs)
    }

    /// Fills the socket, and returns the number of bytes taken.
    async fn fill(outbound: &mut Outbound, events: &mut channel::Receiver<ConnectionEvent>) -> u64 {
        let mut written = Written::default();
        while outbound.stalled.is_none() {
            outbound.send(frame(b'x', 100_000), FrameKind::Plain, &mut written);
        }
        assert!(matches!(
            events.next().await,
            Some(ConnectionEvent::Finish(_))
        ));
        written.bytes
    }

    async fn read(socket: &UnixStream, bytes: u64) -> Vec<u8> {
        let mut sent = vec![0; usize::try_from(bytes).expect("a length")];
        let mut count = 0;
        while count < sent.len() {
            socket.readable().await.expect("readable");
            count += socket.try_read(&mut sent[count..]).unwrap_or(0);
        }
        sent
    }

    fn frame(letter: u8, length: usize) -> Frames {
        Frames::socket_only(vec![letter; length].into())
    }
}

//! The write side of one connection, as its fan-out loop holds it.
//!
//! A line is either flowing, then bytes go straight to the socket, or stalled, then the connection's task is finishing what
//! the socket did not take. While it is stalled direct answers wait, up to a bound, and events are refused: the router
//! remembers the position. Invariant: at any time one of the two writes to the socket, never both.
//!
//! A line that is given up, because too much waits or its connection does not listen, writes nothing more. It keeps what
//! waited, and the answers to writes that still come, until its connection takes the socket back and closes it.

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

/// What a fan-out loop tells a connection. The channel is the futures crate's: an idle one costs a quarter of tokio's,
/// and every connection has one.
#[derive(Debug)]
pub(crate) enum ConnectionEvent {
    /// The socket is broken.
    Broken,
    /// The socket did not take these bytes: finish them, then say so.
    Finish(Bytes),
    /// The router tells the peer something.
    Reply(RouterReply),
    /// Everything sent up to the frame that asked for this receipt was taken.
    Written,
}

/// What a frame that is for one connection is to its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// The answer to a write, which comes before every close.
    Answer,
    /// Any other.
    Plain,
    /// One whose sender waits until the socket took it.
    Receipted,
}

/// What the lines of a loop did in a turn.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Bytes that sockets took.
    pub(crate) bytes: u64,
    /// Chunks of events that receivers took.
    pub(crate) chunks: u64,
    /// Times that a socket took no more.
    pub(crate) stalls: u64,
}

/// The form in which a client gets frames.
#[derive(Debug)]
pub(crate) enum Encoding {
    /// WebSocket frames.
    Plain,
    /// WebSocket frames, compressed if other clients get them too.
    Compressed,
    /// Events of a stream.
    Events(Encoder),
}

/// The write side of one connection.
#[derive(Debug)]
pub(crate) struct Outbound {
    io: OutboundIo,
    encoding: Encoding,
    /// `None` once the connection is given up: its task sees the other end close.
    events: Option<channel::Sender<ConnectionEvent>>,
    stalled: Option<HeldFrames>,
}

/// What waits behind the bytes that a socket did not take.
#[derive(Debug, Default)]
struct HeldFrames {
    frames: VecDeque<(Bytes, FrameKind)>,
    bytes: usize,
    /// Answers that came after the line was given up.
    late: usize,
}

impl HeldFrames {
    fn push(&mut self, frame: Bytes, kind: FrameKind) {
        self.bytes += frame.len();
        self.frames.push_back((frame, kind));
    }
}

impl Outbound {
    /// The write side of a client whose connection hears by `events`.
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

    /// Sends frames that are for this connection alone, with a receipt if one is wanted.
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
                // Nothing else: events after a frame that is left out would make a gap.
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

    /// Offers what many are sent. False where the line is stalled.
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

    /// The connection finished what the socket had not taken. True where the line flows again.
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

    /// Ends the line: the connection's task has the socket to itself, and gets what waited for it.
    #[must_use]
    pub(crate) fn close(self) -> Vec<Bytes> {
        let held = self.stalled.unwrap_or_default();
        held.frames.into_iter().map(|(frame, _)| frame).collect()
    }

    /// Tells the connection something. One that does not listen is given up.
    pub(crate) fn tell(&mut self, event: ConnectionEvent) {
        let Some(events) = &mut self.events else {
            return;
        };
        if let Err(untold) = events.try_send(event) {
            self.give_up();
            if let (ConnectionEvent::Finish(bytes), Some(held)) =
                (untold.into_inner(), &mut self.stalled)
            {
                // The rest of a frame that is cut: whoever closes the socket finishes it first.
                held.push(bytes, FrameKind::Plain);
            }
        }
    }

    /// Writes as much as the socket takes; the rest is the connection's to finish.
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

    /// Writes nothing any more. The connection's task sees the other end of the notes close, and closes the socket.
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
        // There is room for one.
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

    /// Sends until the socket takes no more; says how much it took.
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

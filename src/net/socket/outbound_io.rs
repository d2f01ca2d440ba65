//! The destination of one client's frames: its socket, or the body of a response that is an event stream.
//!
//! An event stream is a queue of pieces between the fan-out loop and hyper, which writes the body. It behaves like a socket
//! with a buffer of [`STREAM_BUFFER_BYTES`]: it is full until the client reads, and it breaks when hyper drops the body.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use tokio::sync::{Semaphore, mpsc};

use crate::limits::{STREAM_BUFFER_BYTES, STREAM_PIECE_BYTES};
use crate::net::accept::handshake_auth::ConnectionPermits;
use crate::net::socket::Socket;

/// The write side of one client. One task writes at a time.
#[derive(Clone, Debug)]
pub(crate) enum OutboundIo {
    /// A socket with WebSocket frames.
    Socket(Arc<Socket>),
    /// An event stream.
    Stream(StreamWriter),
}

impl OutboundIo {
    /// Writes without waiting, and returns the number of bytes taken.
    ///
    /// # Errors
    /// `WouldBlock` if the client is full. Any other error ends the client.
    pub(crate) fn try_write(&self, bytes: &Bytes) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.try_write(bytes),
            Self::Stream(stream) => stream.try_write(bytes),
        }
    }

    /// Waits until another write may succeed. Cancel-safe.
    ///
    /// # Errors
    /// The client is gone.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.writable().await,
            // Boxed: most connections are sockets, and each reserves room for this future.
            Self::Stream(stream) => Box::pin(stream.writable()).await,
        }
    }
}

/// The gateway's end of an event stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamWriter {
    /// Each piece with its permits. The permits bound the channel.
    pieces: mpsc::UnboundedSender<(Bytes, usize)>,
    queue: Arc<Queue>,
}

/// hyper's end of an event stream: the body of the answer.
#[derive(Debug)]
pub(crate) struct StreamBody {
    pieces: mpsc::UnboundedReceiver<(Bytes, usize)>,
    queue: Arc<Queue>,
    _permits: ConnectionPermits,
}

#[derive(Debug)]
struct Queue {
    /// Bytes that the queue has room for. Closed with the body.
    room: Semaphore,
    /// Whether hyper took a piece since [`StreamWriter::take_progress`].
    has_progress: AtomicBool,
}

/// Creates both ends. The body holds the permits of its client.
pub(crate) fn stream(permits: ConnectionPermits) -> (StreamWriter, StreamBody) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let queue = Arc::new(Queue {
        room: Semaphore::new(STREAM_BUFFER_BYTES),
        has_progress: AtomicBool::new(false),
    });
    let body = StreamBody {
        pieces: receiver,
        queue: Arc::clone(&queue),
        _permits: permits,
    };
    let pieces = sender;
    (StreamWriter { pieces, queue }, body)
}

impl StreamWriter {
    /// Takes a piece whole if there is any room, so that the queue exceeds its bound by one piece at most.
    fn try_write(&self, bytes: &Bytes) -> io::Result<usize> {
        let cost = (bytes.len() + STREAM_PIECE_BYTES).min(self.queue.room.available_permits());
        if self.pieces.is_closed() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if cost == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let cost = self.queue.room.forget_permits(cost);
        let sent = self.pieces.send((bytes.clone(), cost));
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    async fn writable(&self) -> io::Result<()> {
        let room = self.queue.room.acquire().await;
        room.map(drop).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Waits until hyper drops the body. Cancel-safe.
    pub(crate) async fn closed(&self) {
        self.pieces.closed().await;
    }

    /// Whether the client took a piece since the last call. Shows that a client that sends nothing is alive.
    pub(crate) fn take_progress(&self) -> bool {
        self.queue.has_progress.swap(false, Ordering::Relaxed)
    }
}

impl Stream for StreamBody {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.poll_recv(cx).map(|piece| {
            let (bytes, permits) = piece?;
            self.queue.room.add_permits(permits);
            self.queue.has_progress.store(true, Ordering::Relaxed);
            Some(Ok(bytes))
        })
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        self.queue.room.close();
    }
}

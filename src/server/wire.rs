//! The read side of a socket, dressed as a stream that tungstenite can speak over.
//!
//! What tungstenite wants to write by itself, pongs and the answer to a close, lands in a buffer: the fan-out loop sends
//! it in its turn, so that no frame is ever cut in two by another writer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::protocol::framing::Framing;
use crate::protocol::refusal::CloseCode;
use crate::server::socket::Socket;

/// One socket, for reading.
#[derive(Debug)]
pub struct Wire {
    socket: Arc<Socket>,
    read: Bytes,
    framing: Framing,
    out: Vec<u8>,
}

impl Wire {
    /// Reads from a socket that somebody else writes to, after `read`, which was read already.
    #[must_use]
    pub fn new(socket: Arc<Socket>, read: Vec<u8>) -> Self {
        Self {
            socket,
            read: read.into(),
            framing: Framing::default(),
            out: Vec::new(),
        }
    }

    /// With which code the client must be closed for the frames that it sends; reading fails from then on.
    #[must_use]
    pub fn breach(&self) -> Option<CloseCode> {
        self.framing.breach()
    }

    /// Takes what tungstenite wants to say. Bounded: it keeps one answer at a time.
    pub fn take_out(&mut self) -> Option<Bytes> {
        (!self.out.is_empty()).then(|| std::mem::take(&mut self.out).into())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What was good before a breach is handed on first; what comes after it is not even waited for.
        if self.framing.breach().is_some() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buffer.filled().len();
        if self.read.is_empty() {
            ready!(self.socket.poll_read(cx, buffer))?;
        } else {
            let count = self.read.len().min(buffer.remaining());
            buffer.put_slice(&self.read.split_to(count));
        }
        let passed = self.framing.pass(&buffer.filled()[before..]);
        // None at all would be taken for the end of the socket.
        if passed == 0 && buffer.filled().len() > before {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        buffer.set_filled(before + passed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

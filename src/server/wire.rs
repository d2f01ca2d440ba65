//! The read side of a socket, dressed as a stream that tungstenite can speak over.
//!
//! What tungstenite wants to write by itself, pongs and the answer to a close, lands in a buffer: the fan-out loop sends
//! it in its turn, so that no frame is ever cut in two by another writer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::server::socket::Socket;

/// One socket, for reading.
#[derive(Debug)]
pub struct Wire {
    socket: Arc<Socket>,
    out: Vec<u8>,
}

impl Wire {
    /// Reads from a socket that somebody else writes to.
    #[must_use]
    pub fn new(socket: Arc<Socket>) -> Self {
        Self {
            socket,
            out: Vec::new(),
        }
    }

    /// Takes what tungstenite wants to say. Bounded: it keeps one answer at a time.
    pub fn take_out(&mut self) -> Option<Bytes> {
        (!self.out.is_empty()).then(|| std::mem::take(&mut self.out).into())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.socket.poll_read(cx, buffer)
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

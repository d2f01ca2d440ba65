//! Adapts the read side of a socket to the stream that tungstenite needs.
//!
//! Buffers the pongs and close frames that tungstenite writes. The fan-out loop sends them, so only one task writes frames
//! to the socket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::READ_BUFFER_BYTES;
use crate::net::socket::Socket;
use usher_core::protocol::deflate::Decompressor;
use usher_core::protocol::framing::Framing;
use usher_core::protocol::refusal::CloseCode;

/// The read side of one socket.
#[derive(Debug)]
pub(crate) struct InboundIo {
    socket: Arc<Socket>,
    /// Bytes that tungstenite has not taken yet.
    read: Bytes,
    outlines: Outlines,
    out: Vec<u8>,
}

/// The check of incoming frames.
#[derive(Debug)]
enum Outlines {
    /// Checks frames and passes them on unchanged.
    Plain(Framing),
    /// Checks frames and decompresses messages. Boxed because it is larger.
    Packed(Box<Decompressor>),
}

impl InboundIo {
    /// Reads `read` first, then from the socket.
    #[must_use]
    pub(crate) fn new(socket: Arc<Socket>, read: Vec<u8>, is_compressed: bool) -> Self {
        let mut io = Self {
            socket,
            read: read.into(),
            outlines: Outlines::Plain(Framing::default()),
            out: Vec::new(),
        };
        if is_compressed {
            let mut decompressor = Box::<Decompressor>::default();
            io.read = decompressed(&mut decompressor, &io.read);
            io.outlines = Outlines::Packed(decompressor);
        }
        io
    }

    /// The close code for a client that broke the protocol. Every later read fails.
    #[must_use]
    pub(crate) fn breach(&self) -> Option<CloseCode> {
        match &self.outlines {
            Outlines::Plain(framing) => framing.breach(),
            Outlines::Packed(decompressor) => decompressor.breach(),
        }
    }

    /// Takes the bytes that tungstenite wrote: at most one reply.
    pub(crate) fn take_out(&mut self) -> Option<Bytes> {
        (!self.out.is_empty()).then(|| std::mem::take(&mut self.out).into())
    }
}

fn hand_on(read: &mut Bytes, buffer: &mut ReadBuf<'_>) {
    let count = read.len().min(buffer.remaining());
    buffer.put_slice(&read.split_to(count));
}

fn decompressed(decompressor: &mut Decompressor, bytes: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    decompressor.pass(bytes, &mut out);
    out.freeze()
}

impl AsyncRead for InboundIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let io = &mut *self;
        match &mut io.outlines {
            Outlines::Plain(framing) => {
                // The last read passed on the valid bytes before the breach. Do not wait for more.
                if framing.breach().is_some() {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                let before = buffer.filled().len();
                if io.read.is_empty() {
                    ready!(io.socket.poll_read(cx, buffer))?;
                } else {
                    hand_on(&mut io.read, buffer);
                }
                let passed = framing.pass(&buffer.filled()[before..]);
                // An empty read would look like the end of the socket.
                if passed == 0 && buffer.filled().len() > before {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                buffer.set_filled(before + passed);
            }
            Outlines::Packed(decompressor) => {
                while io.read.is_empty() {
                    if decompressor.breach().is_some() {
                        return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                    }
                    let mut raw = [0; READ_BUFFER_BYTES];
                    let mut raw = ReadBuf::new(&mut raw);
                    ready!(io.socket.poll_read(cx, &mut raw))?;
                    if raw.filled().is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    io.read = decompressed(decompressor, raw.filled());
                }
                hand_on(&mut io.read, buffer);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for InboundIo {
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

//! One client's socket, over TCP or TLS.
//!
//! The fan-out loop writes while the connection's task reads, so every method takes a shared reference. Every variant
//! behaves like a TCP socket:
//!
//! - [`Socket::try_write`] never waits. It returns the number of bytes that it took from the front. A smaller number than
//!   given, or [`io::ErrorKind::WouldBlock`], means that the socket is full.
//! - [`Socket::writable`] waits until another write may succeed. It may return early, so callers try again.
//! - The next write must begin with the first byte that was not taken: TLS may have encrypted it already.
//! - One task writes and one task reads at any time. [`outbound`](mod@crate::net::socket::outbound) defines the writer.

pub mod close;
pub(crate) mod form_cache;
pub mod inbound;
pub(crate) mod inbound_io;
pub(crate) mod outbound;
pub(crate) mod outbound_io;
pub(crate) mod socket_limits;
pub mod tls_stream;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::net::socket::tls_stream::TlsStream;

/// A client's socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP without TLS.
    Plain(TcpStream),
    /// TLS over TCP. Boxed because it is larger.
    TlsStream(Box<TlsStream>),
}

impl Socket {
    /// Writes without waiting, and returns the number of bytes taken.
    ///
    /// # Errors
    /// `WouldBlock` if the socket is full. Any other error ends the socket.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_write(bytes),
            Self::TlsStream(secure) => secure.try_write(bytes),
        }
    }

    /// Waits until another write may succeed. Cancel-safe.
    ///
    /// # Errors
    /// The socket is broken.
    pub async fn writable(&self) -> io::Result<()> {
        // `poll_fn` keeps the task small: the futures of tokio are several times larger, and every connection stores one.
        poll_fn(|cx| match self {
            Self::Plain(tcp) => tcp.poll_write_ready(cx),
            Self::TlsStream(secure) => secure.poll_writable(cx),
        })
        .await
    }

    /// Reads some bytes. An empty read is the end of the socket, as for every [`AsyncRead`].
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => loop {
                ready!(tcp.poll_read_ready(cx))?;
                match tcp.try_read(buffer.initialize_unfilled()) {
                    Ok(count) => {
                        buffer.advance(count);
                        return Poll::Ready(Ok(()));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            },
            Self::TlsStream(secure) => secure.poll_read(cx, buffer),
        }
    }

    /// Sends the close alert of TLS.
    pub(crate) fn close(&self) {
        match self {
            Self::Plain(_) => {}
            Self::TlsStream(secure) => secure.close(),
        }
    }
}

/// For hyper, the only user of the socket before the upgrade.
impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Self::poll_read(&self, cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::TlsStream(secure) => secure.poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, buffers),
            Self::TlsStream(secure) => {
                let first = buffers.iter().find(|buffer| !buffer.is_empty());
                secure.poll_write(cx, first.map_or(&[], |buffer| buffer))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::TlsStream(_) => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::TlsStream(secure) => secure.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::TlsStream(secure) => secure.poll_shutdown(cx),
        }
    }
}

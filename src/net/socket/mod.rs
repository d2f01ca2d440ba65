//! One client's socket, whatever carries it.
//!
//! The fan-out loop writes while the connection's task reads, so all of it works through a shared reference. The contract
//! of every kind is that of a TCP socket:
//!
//! - [`Socket::try_write`] never waits. It takes bytes from the front and says how many; those are on their way. A short
//!   count, or [`io::ErrorKind::WouldBlock`] for none at all, means that the socket is full.
//! - [`Socket::writable`] ends when a write is worth another try. It may end too early, so whoever waits tries again.
//! - The next write begins with the first byte that was not taken: a part of what follows may be under way already.
//! - One writes at a time, and one reads; [`line`](mod@crate::net::socket::outbound) says who.

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

/// One client's socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP alone.
    Plain(TcpStream),
    /// TLS over it. Boxed: it is the rarer and the larger.
    TlsStream(Box<TlsStream>),
}

impl Socket {
    /// Writes as many of the bytes as the socket takes at once.
    ///
    /// # Errors
    /// `WouldBlock` where it takes none; anything else is the end of the socket.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_write(bytes),
            Self::TlsStream(secure) => secure.try_write(bytes),
        }
    }

    /// Waits until a write is worth another try. Cancel-safe.
    ///
    /// # Errors
    /// Where the socket is no longer one.
    pub async fn writable(&self) -> io::Result<()> {
        // Polled, since the futures of tokio are several times as large, and every connection has room for one.
        poll_fn(|cx| match self {
            Self::Plain(tcp) => tcp.poll_write_ready(cx),
            Self::TlsStream(secure) => secure.poll_writable(cx),
        })
        .await
    }

    /// Reads what has come. Nothing read is the end, as with every [`AsyncRead`].
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

    /// Says that nothing follows, where the carrier has a word for it.
    pub(crate) fn close(&self) {
        match self {
            Self::Plain(_) => {}
            Self::TlsStream(secure) => secure.close(),
        }
    }
}

/// For hyper, which has the socket to itself until it is upgraded.
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

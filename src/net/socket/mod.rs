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
pub(crate) mod compression_cache;
pub mod inbound;
pub(crate) mod inbound_io;
pub(crate) mod outbound;
pub(crate) mod socket_limits;
pub mod tls_stream;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::net::socket::tls_stream::TlsStream;

/// One client's socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP alone.
    Plain(TcpStream),
    /// TLS over it. Boxed: it is the rarer and the larger.
    TlsStream(Box<TlsStream>),
    /// One end of a pair, whose other end translates for a client of another kind.
    Pair(UnixStream),
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
            Self::Pair(pair) => pair.try_write(bytes),
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
            Self::Pair(pair) => pair.poll_write_ready(cx),
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
            Self::Plain(tcp) => poll_read_ready(
                cx,
                buffer,
                |cx| tcp.poll_read_ready(cx),
                |into| tcp.try_read(into),
            ),
            Self::TlsStream(secure) => secure.poll_read(cx, buffer),
            Self::Pair(pair) => poll_read_ready(
                cx,
                buffer,
                |cx| pair.poll_read_ready(cx),
                |into| pair.try_read(into),
            ),
        }
    }

    /// Says that nothing follows, where the carrier has a word for it.
    pub(crate) fn close(&self) {
        match self {
            Self::Plain(_) | Self::Pair(_) => {}
            Self::TlsStream(secure) => secure.close(),
        }
    }
}

fn poll_read_ready(
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
    poll_ready: impl Fn(&mut Context<'_>) -> Poll<io::Result<()>>,
    try_read: impl Fn(&mut [u8]) -> io::Result<usize>,
) -> Poll<io::Result<()>> {
    loop {
        ready!(poll_ready(cx))?;
        match try_read(buffer.initialize_unfilled()) {
            Ok(count) => {
                buffer.advance(count);
                return Poll::Ready(Ok(()));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
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
            Self::Pair(pair) => Pin::new(pair).poll_write(cx, bytes),
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
            Self::Pair(pair) => Pin::new(pair).poll_write_vectored(cx, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::TlsStream(_) => false,
            Self::Pair(pair) => pair.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::TlsStream(secure) => secure.poll_flush(cx),
            Self::Pair(pair) => Pin::new(pair).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::TlsStream(secure) => secure.poll_shutdown(cx),
            Self::Pair(pair) => Pin::new(pair).poll_shutdown(cx),
        }
    }
}

//! A TLS socket that one task reads while another writes.
//!
//! rustls holds the cipher state, and this module holds the bytes on both sides of it. It uses the unbuffered API of
//! rustls, which leaves the buffers to the caller: an idle viewer has none, where the buffered API keeps 4 KiB for the next
//! record.
//!
//! Bytes count as written once the kernel has them, as for a plain socket. An encrypted record cannot be taken back. If the
//! socket takes a part of one, the stream keeps the rest and the number of plain bytes in it. Those bytes are not counted
//! yet, and the next write must begin with them. So a client that reads nothing holds one record more than on a plain
//! socket.
//!
//! Why not tokio-rustls: an idle socket takes 8.3 KiB above TCP there and 4.5 KiB here. The rest of an idle viewer takes
//! less than 4 KiB. `cargo bench --bench tls` repeats the measurement (resident memory, 2,000 sockets, rustls 0.23).
//! tokio-rustls also counts bytes as written that its own buffer still holds.

#[expect(
    clippy::disallowed_types,
    reason = "the state of a cipher has two users by nature, the one that reads and the one that writes; \
              the lock is held for a record and a system call that does not wait, and guards no rule of ours"
)]
use std::sync::{Mutex, MutexGuard};

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use tokio::io::{AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use crate::limits::{TLS_INCOMING_BYTES_MAX, TLS_READ_BYTES, TLS_RECORD_BYTES};

pub struct TlsStream {
    tcp: TcpStream,
    #[expect(clippy::disallowed_types, reason = "as above")]
    channel: Mutex<Channel>,
}

impl TlsStream {
    /// Performs the TLS handshake with a new client.
    ///
    /// # Errors
    /// The client leaves, or the handshake fails with a [`rustls::Error`] as the cause.
    pub async fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let secure = Self {
            tcp,
            channel: Channel::new(config)?.into(),
        };
        std::future::poll_fn(|cx| secure.poll_handshake(cx)).await?;
        Ok(secure)
    }

    /// As [`Socket::try_write`](crate::net::socket::Socket::try_write).
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut channel = self.channel()?;
        channel.send(&self.tcp)?;
        let mut count = std::mem::take(&mut channel.owed);
        if count > bytes.len() {
            // The caller dropped bytes that are encrypted already: the stream is broken.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        while count < bytes.len() {
            let rest = &bytes[count..];
            let record = &rest[..rest.len().min(TLS_RECORD_BYTES)];
            channel.seal(record)?;
            match channel.send(&self.tcp) {
                Ok(()) => count += record.len(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    channel.owed = record.len();
                    if count == 0 {
                        return Err(error);
                    }
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// As [`Socket::writable`](crate::net::socket::Socket::writable).
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_write_ready(cx)
    }

    /// As [`Socket::poll_read`](crate::net::socket::Socket::poll_read).
    pub fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut channel = self.channel()?;
            if channel.give(buffer) || channel.is_ended {
                return Poll::Ready(Ok(()));
            }
            ready!(self.tcp.poll_read_ready(cx))?;
            channel.receive(&self.tcp)?;
        }
    }

    /// Writes some bytes, or waits for room.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_write_ready(cx))?;
                }
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    /// Sends the encrypted bytes.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut channel = self.channel()?;
            match channel.send(&self.tcp) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_write_ready(cx))?;
                }
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    /// Ends the TLS stream, then the TCP stream.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.channel()?.close();
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    /// Sends the close alert if the socket has room. The alert tells the client that the stream was not truncated.
    pub fn close(&self) {
        if let Ok(mut channel) = self.channel() {
            channel.close();
            // Ignores a full socket, which the caller is about to drop.
            let _ = channel.send(&self.tcp);
        }
    }

    fn poll_handshake(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(cx))?;
            let mut channel = self.channel()?;
            if channel.is_open() {
                return Poll::Ready(Ok(()));
            }
            if channel.is_ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            ready!(self.tcp.poll_read_ready(cx))?;
            channel.receive(&self.tcp)?;
        }
    }

    /// Locks the cipher state. After a panic with the lock held, this socket is broken; others are not.
    fn channel(&self) -> io::Result<MutexGuard<'_, Channel>> {
        let channel = self.channel.lock();
        channel.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secure").field(&self.tcp).finish()
    }
}

/// The cipher state, and the bytes on both sides of it.
struct Channel {
    tls: UnbufferedServerConnection,
    /// Encrypted bytes from the client: a part of a record, usually none.
    incoming: Vec<u8>,
    /// Decrypted bytes, and how many of them were read.
    opened: Vec<u8>,
    read: usize,
    /// Encrypted bytes that the kernel has not taken: at most one record, or a message of TLS itself.
    outgoing: Vec<u8>,
    /// The number of bytes of the next write that `outgoing` already contains.
    owed: usize,
    /// Whether the client has ended its side.
    is_ended: bool,
}

impl Channel {
    fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
        Ok(Self {
            tls: UnbufferedServerConnection::new(config).map_err(io::Error::other)?,
            incoming: Vec::new(),
            opened: Vec::new(),
            read: 0,
            outgoing: Vec::new(),
            owed: 0,
            is_ended: false,
        })
    }

    /// Reads once from the socket and decrypts.
    fn receive(&mut self, tcp: &TcpStream) -> io::Result<()> {
        let filled = self.incoming.len();
        let room = TLS_READ_BYTES.min(TLS_INCOMING_BYTES_MAX - filled);
        self.incoming.resize(filled + room, 0);
        let read = tcp.try_read(&mut self.incoming[filled..]);
        self.incoming
            .truncate(filled + read.as_ref().map_or(0, |count| *count));
        let taken = match read {
            Ok(0) => {
                self.is_ended = true;
                Ok(())
            }
            Ok(_) => self.take_in(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        };
        if self.incoming.is_empty() {
            self.incoming = Vec::new();
        }
        // Sends alerts and key updates of TLS itself. The next write sends what the socket does not take.
        match self.send(tcp) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => taken.and(Err(error)),
            Ok(()) | Err(_) => taken,
        }
    }

    /// Decrypts the incoming bytes with rustls.
    ///
    /// Passes the same bytes to rustls until it has processed them, because rustls remembers its place in them.
    fn take_in(&mut self) -> io::Result<()> {
        let mut incoming = std::mem::take(&mut self.incoming);
        let mut begin = 0;
        let mut failure = None;
        loop {
            let (discard, next) = self.step(&mut incoming[begin..]);
            begin += discard;
            match next {
                Ok(Next::More) => {}
                Ok(Next::Nothing) => break,
                // One more step produces the alert with the reason.
                Err(error) if failure.is_none() => failure = Some(error),
                Err(_) => break,
            }
        }
        incoming.drain(..begin);
        self.incoming = incoming;
        match failure {
            Some(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            None if self.incoming.len() >= TLS_INCOMING_BYTES_MAX => {
                Err(io::ErrorKind::InvalidData.into())
            }
            None => Ok(()),
        }
    }

    /// Runs one step of rustls. Returns the number of processed bytes, and whether another step is due.
    fn step(&mut self, incoming: &mut [u8]) -> (usize, Result<Next, rustls::Error>) {
        let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(incoming);
        let state = match state {
            Ok(state) => state,
            Err(error) => return (discard, Err(error)),
        };
        let next = match state {
            ConnectionState::ReadTraffic(mut records) => {
                let mut next = Ok(Next::More);
                while let Some(record) = records.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            self.opened.extend_from_slice(record.payload);
                        }
                        Err(error) => next = Err(error),
                    }
                }
                next
            }
            ConnectionState::EncodeTlsData(mut record) => {
                let encode = |room: &mut [u8]| {
                    record.encode(room).map_err(|error| match error {
                        EncodeError::InsufficientSize(size) => Some(size),
                        EncodeError::AlreadyEncoded => None,
                    })
                };
                append(&mut self.outgoing, 0, encode).map(|()| Next::More)
            }
            // The bytes are in `outgoing`, in order, so they count as sent.
            ConnectionState::TransmitTlsData(sent) => {
                sent.done();
                Ok(Next::More)
            }
            ConnectionState::PeerClosed | ConnectionState::Closed => {
                self.is_ended = true;
                Ok(Next::Nothing)
            }
            // rustls waits for the client or for the caller. The server never offers early data.
            ConnectionState::BlockedHandshake
            | ConnectionState::WriteTraffic(_)
            | ConnectionState::ReadEarlyData(_)
            | _ => Ok(Next::Nothing),
        };
        (discard, next)
    }

    /// Encrypts a record.
    fn seal(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Messages of TLS itself go first.
        self.take_in()?;
        let UnbufferedStatus { state, .. } = self.tls.process_tls_records(&mut self.incoming);
        let Ok(ConnectionState::WriteTraffic(mut writer)) = state else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let room = bytes.len() + RECORD_OVERHEAD;
        append(&mut self.outgoing, room, |room| {
            writer.encrypt(bytes, room).map_err(size_wanted)
        })
        .map_err(io::Error::other)
    }

    /// Encrypts the close alert, if the handshake is complete.
    fn close(&mut self) {
        if !self.is_open() || self.take_in().is_err() {
            return;
        }
        let UnbufferedStatus { state, .. } = self.tls.process_tls_records(&mut self.incoming);
        if let Ok(ConnectionState::WriteTraffic(mut writer)) = state {
            // Exhausted ciphers cannot encrypt the alert.
            let _ = append(&mut self.outgoing, RECORD_OVERHEAD, |room| {
                writer.queue_close_notify(room).map_err(size_wanted)
            });
        }
    }

    /// Sends the encrypted bytes until the socket is full.
    fn send(&mut self, tcp: &TcpStream) -> io::Result<()> {
        let mut sent = 0;
        let outcome = loop {
            if sent == self.outgoing.len() {
                // Frees the memory: most viewers are idle.
                self.outgoing = Vec::new();
                return Ok(());
            }
            match tcp.try_write(&self.outgoing[sent..]) {
                Ok(count) => sent += count,
                Err(error) => break Err(error),
            }
        };
        self.outgoing.drain(..sent);
        outcome
    }

    /// Copies decrypted bytes to the reader. Returns false if there are none.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let rest = &self.opened[self.read..];
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.read += count;
        if self.read == self.opened.len() {
            self.opened = Vec::new();
            self.read = 0;
        }
        count > 0
    }

    fn is_open(&self) -> bool {
        !self.tls.is_handshaking()
    }
}

/// Whether rustls needs another step.
enum Next {
    More,
    Nothing,
}

/// The bytes of a record beside its content: header, nonce, type and tag, and a key update before it.
const RECORD_OVERHEAD: usize = 64;

/// Appends to a buffer with a function that may ask for more room.
fn append(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<InsufficientSizeError>>,
) -> Result<(), rustls::Error> {
    let begin = out.len();
    loop {
        out.resize(begin + room, 0);
        match write(&mut out[begin..]) {
            Ok(count) => {
                out.truncate(begin + count);
                return Ok(());
            }
            Err(Some(size)) if size.required_size > room => room = size.required_size,
            Err(_) => {
                out.truncate(begin);
                return Err(rustls::Error::EncryptError);
            }
        }
    }
}

fn size_wanted(error: EncryptError) -> Option<InsufficientSizeError> {
    match error {
        EncryptError::InsufficientSize(size) => Some(size),
        EncryptError::EncryptExhausted => None,
    }
}

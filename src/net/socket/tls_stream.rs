//! A socket under TLS that one task reads while another writes.
//!
//! rustls keeps the state of the ciphers, this module the bytes on both sides of it. The unbuffered API is used, since its
//! buffers are ours: an idle viewer has none, where the other API keeps four KiB for the next record.
//!
//! What is counted as written is with the kernel, as for a plain socket. A record cannot be taken back once it is
//! encrypted, so one that the socket took in part is remembered with the number of bytes in it: those are not counted yet,
//! and the next write begins with them. A client that takes nothing pins one record more than a plain one.
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

/// A socket under TLS.
pub struct TlsStream {
    tcp: TcpStream,
    #[expect(clippy::disallowed_types, reason = "as above")]
    channel: Mutex<Channel>,
}

impl TlsStream {
    /// Shakes hands with a client that has just connected.
    ///
    /// # Errors
    /// Where the client leaves, or the two do not agree; the cause is then a [`rustls::Error`].
    pub async fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let secure = Self {
            tcp,
            channel: Channel::new(config)?.into(),
        };
        std::future::poll_fn(|cx| secure.poll_handshake(cx)).await?;
        Ok(secure)
    }

    /// As [`Socket::try_write`](crate::net::socket::Socket::try_write).
    ///
    /// # Errors
    /// As there.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut channel = self.channel()?;
        channel.send(&self.tcp)?;
        let mut count = std::mem::take(&mut channel.owed);
        if count > bytes.len() {
            // Whoever gave up the bytes under way has torn the stream.
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
    ///
    /// # Errors
    /// As there.
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

    /// Writes, or waits until it can.
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

    /// Sends what is encrypted.
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

    /// Ends the stream of bytes, and then TCP's.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.channel()?.close();
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    /// Says that nothing follows, if the socket takes it: without it a client could not tell an end from a cut.
    pub fn close(&self) {
        if let Ok(mut channel) = self.channel() {
            channel.close();
            // A socket that is full has its client's reasons; it is about to be dropped.
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

    /// The state of the ciphers. After a panic with it in hand the socket is a broken one, and nothing else is.
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

/// The ciphers, and the bytes on both sides of them.
struct Channel {
    tls: UnbufferedServerConnection,
    /// What came from the client: a part of a record, mostly nothing.
    incoming: Vec<u8>,
    /// What it says, and how much of that was read.
    opened: Vec<u8>,
    read: usize,
    /// What is encrypted and not with the kernel yet: one record at most, or an answer of TLS itself.
    outgoing: Vec<u8>,
    /// How many bytes of the next write are in it already.
    owed: usize,
    /// Nothing comes any more.
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

    /// Reads once, and takes in what came.
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
        // An alert, an answer to a change of keys: what the socket does not take goes before the next write.
        match self.send(tcp) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => taken.and(Err(error)),
            Ok(()) | Err(_) => taken,
        }
    }

    /// Has rustls take in what came, and keeps what it makes of it.
    ///
    /// It is shown the same bytes until it has done with them: it remembers where in them it stands.
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
                // Once more, for the alert that says why.
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

    /// One step of rustls: how many bytes it has done with, and whether there is more to do.
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
            // It is in `outgoing`, in its order: that is as good as sent.
            ConnectionState::TransmitTlsData(sent) => {
                sent.done();
                Ok(Next::More)
            }
            ConnectionState::PeerClosed | ConnectionState::Closed => {
                self.is_ended = true;
                Ok(Next::Nothing)
            }
            // It waits for either side. Early data is never offered.
            ConnectionState::BlockedHandshake
            | ConnectionState::WriteTraffic(_)
            | ConnectionState::ReadEarlyData(_)
            | _ => Ok(Next::Nothing),
        };
        (discard, next)
    }

    /// Encrypts a record.
    fn seal(&mut self, bytes: &[u8]) -> io::Result<()> {
        // What TLS has to say by itself goes first.
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

    /// Encrypts the end, where there is a stream to end.
    fn close(&mut self) {
        if !self.is_open() || self.take_in().is_err() {
            return;
        }
        let UnbufferedStatus { state, .. } = self.tls.process_tls_records(&mut self.incoming);
        if let Ok(ConnectionState::WriteTraffic(mut writer)) = state {
            // Where the ciphers are exhausted there is no end to send.
            let _ = append(&mut self.outgoing, RECORD_OVERHEAD, |room| {
                writer.queue_close_notify(room).map_err(size_wanted)
            });
        }
    }

    /// Sends what is encrypted, all of it or until the socket is full.
    fn send(&mut self, tcp: &TcpStream) -> io::Result<()> {
        let mut sent = 0;
        let outcome = loop {
            if sent == self.outgoing.len() {
                // Kept by nobody: of idle viewers there are many.
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

    /// Gives what was read to the reader; whether there was something.
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

/// Whether rustls has more to do with what it was shown.
enum Next {
    More,
    Nothing,
}

/// Bytes that a record has around what it carries: header, nonce, type and tag; and a change of keys before it.
const RECORD_OVERHEAD: usize = 64;

/// Has something written behind what is there, with as much room as it turns out to want.
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

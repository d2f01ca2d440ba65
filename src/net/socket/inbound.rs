//! Reads the messages of a client, and chooses the close code for a client that breaks the protocol.
//!
//! Writes nothing. [`Inbound::take_reply`] returns the automatic replies of the protocol (pongs and the answer to a close
//! frame), and the fan-out loop sends them. So only one task writes frames to the socket.

use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use crate::limits::READ_BUFFER_BYTES;
use crate::net::socket::Socket;
use crate::net::socket::inbound_io::InboundIo;
use crate::net::socket::outbound_io::StreamWriter;
use usher_core::limits::FRAME_BYTES_MAX;
use usher_core::protocol::refusal::CloseCode;

/// The read side of one client.
#[derive(Debug)]
pub struct Inbound(Source);

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most connections are sockets")]
enum Source {
    Socket(WebSocketStream<InboundIo>),
    /// An event stream. Its client sends nothing.
    Stream(StreamWriter),
}

/// The result of a read.
#[derive(Debug)]
pub enum Incoming {
    /// A whole text message.
    Text(Utf8Bytes),
    /// A whole binary message.
    Binary(Bytes),
    /// A ping or a pong.
    Control,
    /// A close frame. The reply is a close frame, too.
    Goodbye,
    /// A breach of the protocol. No message follows.
    Breach(CloseCode),
    /// The end of the socket.
    Gone,
}

impl Inbound {
    /// Reads from a socket. `read` holds the bytes that followed the handshake. `is_compressed` tells whether both sides
    /// agreed on compression.
    pub async fn new(socket: Arc<Socket>, read: Vec<u8>, is_compressed: bool) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX));
        let io = InboundIo::new(socket, read, is_compressed);
        let stream = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        Self(Source::Socket(stream))
    }

    /// Waits for the end of an event stream.
    pub(crate) fn of_stream(stream: StreamWriter) -> Self {
        Self(Source::Stream(stream))
    }

    /// Waits for the next message. Cancel-safe: keeps the part of a message that has arrived.
    pub async fn next(&mut self) -> Incoming {
        let stream = match &mut self.0 {
            Source::Socket(stream) => stream,
            Source::Stream(stream) => {
                // Boxed: most connections are sockets, and each reserves room for this future.
                Box::pin(stream.closed()).await;
                return Incoming::Gone;
            }
        };
        match stream.next().await {
            Some(Ok(Message::Text(text))) => Incoming::Text(text),
            Some(Ok(Message::Binary(bytes))) => Incoming::Binary(bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Incoming::Control,
            Some(Ok(Message::Close(_))) => Incoming::Goodbye,
            Some(Err(error)) => on_error(stream.get_ref(), &error),
            None => Incoming::Gone,
        }
    }

    /// Takes the automatic reply to the last message.
    pub async fn take_reply(&mut self) -> Option<Bytes> {
        let Source::Socket(stream) = &mut self.0 else {
            return None;
        };
        // The flush writes the reply to the buffer of `InboundIo` and never waits.
        let _ = stream.flush().await;
        stream.get_mut().take_out()
    }
}

fn on_error(io: &InboundIo, error: &Error) -> Incoming {
    if let Some(code) = io.breach() {
        return Incoming::Breach(code);
    }
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            Incoming::Breach(CloseCode::TooBig)
        }
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Incoming::Gone,
        Error::Protocol(_) | Error::AttackAttempt => Incoming::Breach(CloseCode::ProtocolError),
        Error::Utf8(_) => Incoming::Breach(CloseCode::InvalidText),
        Error::AlreadyClosed
        | Error::Capacity(CapacityError::TooManyHeaders)
        | Error::ConnectionClosed
        | Error::Http(_)
        | Error::HttpFormat(_)
        | Error::Io(_)
        | Error::Tls(_)
        | Error::Url(_)
        | Error::WriteBufferFull(_) => Incoming::Gone,
    }
}

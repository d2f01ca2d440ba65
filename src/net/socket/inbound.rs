//! What a client says over its socket, message by message, and the code with which it is closed for what it may not say.
//!
//! Writes nothing: what the protocol answers by itself, pongs and the return of a close, is taken by
//! [`Inbound::take_reply`] and goes out in its turn, so that no frame is ever cut in two by another writer.

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
    /// The client of an event stream says nothing.
    Stream(StreamWriter),
}

/// What came.
#[derive(Debug)]
pub enum Incoming {
    /// A text message, whole.
    Text(Utf8Bytes),
    /// A binary message, whole.
    Binary(Bytes),
    /// A ping or a pong.
    Control,
    /// The client closes; the reply returns its close frame.
    Goodbye,
    /// The client broke a rule. There are no messages to tell apart any more.
    Breach(CloseCode),
    /// The socket has ended.
    Gone,
}

impl Inbound {
    /// Reads from a socket that somebody else writes to; `read` is what came after the handshake already, and messages may
    /// be compressed where that was agreed on.
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

    /// Waits for the next message. Cancel-safe: what has come of it is kept.
    pub async fn next(&mut self) -> Incoming {
        let stream = match &mut self.0 {
            Source::Socket(stream) => stream,
            Source::Stream(stream) => {
                // Boxed, because most connections are sockets and each has room for this future.
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

    /// What the protocol answers by itself to what was heard last.
    pub async fn take_reply(&mut self) -> Option<Bytes> {
        let Source::Socket(stream) = &mut self.0 else {
            return None;
        };
        // It is in the wire after a flush, which never waits.
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

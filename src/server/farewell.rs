//! The end of a socket that the gateway closes: the frame under way, the close frame, and the client's answer to it
//! (RFC 6455 §7.1).

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::limits::CLOSE_TIMEOUT;
use crate::protocol::refusal::CloseCode;
use crate::protocol::websocket;
use crate::server::socket::Socket;
use crate::server::wire::Wire;

/// Says goodbye over a socket that nobody else writes to any more; `rest` is what it had not taken.
pub(super) async fn say(
    code: CloseCode,
    rest: Option<Bytes>,
    socket: &Arc<Socket>,
    stream: &mut WebSocketStream<Wire>,
) {
    let goodbye = async {
        for mut bytes in rest.into_iter().chain([websocket::close(code)]) {
            while !bytes.is_empty() {
                write_some(socket, &mut bytes).await?;
            }
        }
        io::Result::Ok(())
    };
    // To close while the client still sends would reset the connection and take the code with it.
    if matches!(timeout(CLOSE_TIMEOUT, goodbye).await, Ok(Ok(()))) {
        let _ = timeout(CLOSE_TIMEOUT, answered(socket, stream)).await;
    }
}

async fn answered(socket: &Arc<Socket>, stream: &mut WebSocketStream<Wire>) {
    // What the client was saying comes before its answer, which may be in the same packet.
    loop {
        match stream.next().await {
            Some(Ok(Message::Close(_))) | None => return,
            Some(Ok(_)) => {}
            Some(Err(_)) => break,
        }
    }
    // Past an error there are no frames to tell apart any more.
    let mut wire = Wire::new(Arc::clone(socket));
    let mut scrap = [0; 512];
    while let Ok(count) = wire.read(&mut scrap).await
        && count > 0
        && scrap[0] & 0x0f != 0x8
    {}
}

/// Writes some of what a full socket did not take; says how much. Cancel-safe: what was written is counted at once.
pub(super) async fn write_some(socket: &Socket, bytes: &mut Bytes) -> io::Result<usize> {
    loop {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Ok(written) => {
                let _ = bytes.split_to(written);
                return Ok(written);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

//! The end of a socket that the gateway closes: the frame under way, the close frame, and the client's answer to it
//! (RFC 6455 §7.1).

use std::io;

use bytes::Bytes;
use futures::future::poll_fn;
use tokio::io::ReadBuf;
use tokio::time::timeout;

use crate::limits::CLOSE_TIMEOUT;
use crate::protocol::refusal::CloseCode;
use crate::protocol::websocket;
use crate::server::inbound::{Heard, Inbound};
use crate::server::socket::Socket;

/// Says goodbye over a socket that nobody else writes to any more; `rest` is what it had not taken.
pub async fn say(code: CloseCode, rest: Option<Bytes>, socket: &Socket, inbound: &mut Inbound) {
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
        let _ = timeout(CLOSE_TIMEOUT, answered(socket, inbound)).await;
    }
    socket.close();
}

async fn answered(socket: &Socket, inbound: &mut Inbound) {
    // What the client was saying comes before its answer, which may be in the same packet.
    loop {
        match inbound.next().await {
            Heard::Goodbye | Heard::Gone => return,
            Heard::Breach(_) => break,
            Heard::Text(_) | Heard::Binary(_) | Heard::Control => {}
        }
    }
    // Past a breach there are no frames to tell apart any more.
    let mut scrap = [0; 512];
    loop {
        let mut read = ReadBuf::new(&mut scrap);
        let outcome = poll_fn(|cx| socket.poll_read(cx, &mut read)).await;
        match (outcome, read.filled().first()) {
            (Ok(()), Some(first)) if first & 0x0f != 0x8 => {}
            _ => return,
        }
    }
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

//! Closes a socket: sends the remaining frames, the answers to pending writes and the close frame, then waits for the
//! client's close frame (RFC 6455 §7.1).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::{BoxFuture, poll_fn};
use futures::stream::FuturesUnordered;
use tokio::io::ReadBuf;
use tokio::time::{sleep_until, timeout};

use crate::clock::moment;
use crate::limits::{ANSWERS_TIMEOUT, CLOSE_TIMEOUT};
use crate::metrics::Metrics;
use crate::net::socket::Socket;
use crate::net::socket::inbound::{Inbound, Incoming};
use crate::net::socket::outbound_io::OutboundIo;
use usher_core::protocol::refusal::CloseCode;
use usher_core::protocol::{server, websocket};
use usher_core::relay::message::{Effect, QueryResult};
use usher_core::relay::peer::Peer;

/// Waits at most [`ANSWERS_TIMEOUT`] for the answers to a peer's pending writes, and adds them to `rest`. Meanwhile it
/// sends `rest`.
///
/// # Errors
/// The socket is broken.
pub(crate) async fn answer_pending(
    peer: &mut Peer,
    answers: &mut FuturesUnordered<BoxFuture<'static, QueryResult>>,
    rest: &mut VecDeque<Bytes>,
    io: &OutboundIo,
    metrics: &Metrics,
) -> io::Result<()> {
    rest.extend(frames(peer, metrics));
    let due = moment().at + ANSWERS_TIMEOUT;
    while peer.awaits_writes() {
        // Every arm is cancel-safe: `next` takes an answer only when its arm runs, and `write_first` removes bytes as soon as
        // the socket has taken them.
        tokio::select! {
            biased;
            written = write_first(io, rest), if !rest.is_empty() => written?,
            Some(answer) = answers.next() => if matches!(answer, QueryResult::Written { .. }) {
                peer.on_query_result(answer, moment());
                rest.extend(frames(peer, metrics));
            },
            () = sleep_until(due.into()) => break,
        }
    }
    Ok(())
}

/// Takes the frames from a peer's effects, and drops every other effect.
fn frames(peer: &mut Peer, metrics: &Metrics) -> Vec<Bytes> {
    let frame = |effect| match effect {
        Effect::Answer(frames) | Effect::Send(frames) => Some(frames.bytes),
        Effect::Refuse { id, refusal } => {
            metrics.refusals.get_or_create(&refusal.code.into()).inc();
            Some(server::error(id.as_ref(), &refusal).bytes)
        }
        Effect::Began(_)
        | Effect::Close(_)
        | Effect::Prove { .. }
        | Effect::Query(_)
        | Effect::Router(_)
        | Effect::Write { .. } => None,
    };
    peer.take_effects().into_iter().filter_map(frame).collect()
}

/// Sends `rest` and the close frame. The caller is the only writer of the socket.
pub async fn close(
    code: CloseCode,
    mut rest: VecDeque<Bytes>,
    socket: &Arc<Socket>,
    inbound: &mut Inbound,
) {
    rest.push_back(websocket::close(code));
    // A close with unread input would reset the connection, and the client would not see the code.
    if write_all(&OutboundIo::Socket(Arc::clone(socket)), rest).await {
        let _ = timeout(CLOSE_TIMEOUT, read_to_close(socket, inbound)).await;
    }
    socket.close();
}

/// Writes the last frames of a client within [`CLOSE_TIMEOUT`]. Returns false if they did not fit.
pub(crate) async fn write_all(io: &OutboundIo, mut rest: VecDeque<Bytes>) -> bool {
    let written = async {
        while !rest.is_empty() {
            write_first(io, &mut rest).await?;
        }
        io::Result::Ok(())
    };
    matches!(timeout(CLOSE_TIMEOUT, written).await, Ok(Ok(())))
}

/// Reads until the client's close frame or the end of the socket.
async fn read_to_close(socket: &Socket, inbound: &mut Inbound) {
    // The client's earlier messages come first, perhaps in the same packet as its close frame.
    loop {
        match inbound.next().await {
            Incoming::Goodbye | Incoming::Gone => return,
            Incoming::Breach(_) => break,
            Incoming::Text(_) | Incoming::Binary(_) | Incoming::Control => {}
        }
    }
    // After a protocol error the rest of the input has no frames. Guess the close frame by its first byte.
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

/// Writes a part of the first frame. Cancel-safe, like [`write_some`].
pub(crate) async fn write_first(io: &OutboundIo, frames: &mut VecDeque<Bytes>) -> io::Result<()> {
    let Some(first) = frames.front_mut() else {
        return Ok(());
    };
    if !first.is_empty() {
        write_some(io, first).await?;
    }
    if first.is_empty() {
        frames.pop_front();
    }
    Ok(())
}

/// Waits until the client takes some of the bytes, and returns their number. Cancel-safe: removes bytes as soon as the
/// client has taken them.
pub(crate) async fn write_some(io: &OutboundIo, bytes: &mut Bytes) -> io::Result<usize> {
    loop {
        io.writable().await?;
        match io.try_write(bytes) {
            Ok(written) => {
                let _ = bytes.split_to(written);
                return Ok(written);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

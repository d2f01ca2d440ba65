//! The end of a socket that the gateway closes: the frames under way, the answers to pending writes, the close frame, and
//! the client's answer to it (RFC 6455 §7.1).

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

/// Waits for the answers to the pending writes of a peer, at most [`ANSWERS_TIMEOUT`], and adds them to what is to be sent.
/// Meanwhile it sends what the socket takes.
///
/// # Errors
/// Where the socket is broken.
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
        // Every arm is cancel-safe: an answer is taken only when its arm is, and what was written is counted at once.
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

/// The frames that a peer wants sent; nothing else that it wants is done any more.
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

/// Says goodbye over a socket that nobody else writes to any more; `rest` is what it had not taken.
pub async fn close(
    code: CloseCode,
    mut rest: VecDeque<Bytes>,
    socket: &Arc<Socket>,
    inbound: &mut Inbound,
) {
    rest.push_back(websocket::close(code));
    // To close while the client still sends would reset the connection and take the code with it.
    if write_all(&OutboundIo::Socket(Arc::clone(socket)), rest).await {
        let _ = timeout(CLOSE_TIMEOUT, answered(socket, inbound)).await;
    }
    socket.close();
}

/// Writes the rest of what a client is sent, within [`CLOSE_TIMEOUT`]. Returns false if it did not fit.
pub(crate) async fn write_all(io: &OutboundIo, mut rest: VecDeque<Bytes>) -> bool {
    let written = async {
        while !rest.is_empty() {
            write_first(io, &mut rest).await?;
        }
        io::Result::Ok(())
    };
    matches!(timeout(CLOSE_TIMEOUT, written).await, Ok(Ok(())))
}

async fn answered(socket: &Socket, inbound: &mut Inbound) {
    // What the client was saying comes before its answer, which may be in the same packet.
    loop {
        match inbound.next().await {
            Incoming::Goodbye | Incoming::Gone => return,
            Incoming::Breach(_) => break,
            Incoming::Text(_) | Incoming::Binary(_) | Incoming::Control => {}
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

/// Writes some of the first of the frames. Cancel-safe, as [`write_some`].
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

/// Writes some of what a full socket did not take; says how much. Cancel-safe: what was written is counted at once.
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

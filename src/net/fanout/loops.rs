//! The handles of the fan-out loops: how other tasks reach them, and whether they make progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc as channel;
use tokio::sync::{mpsc, oneshot};

use crate::clock::moment;
use crate::limits::LOOP_SILENCE_MAX;
use crate::net::socket::outbound::{ConnectionEvent, Encoding, FrameKind};
use crate::net::socket::outbound_io::OutboundIo;
use usher_core::protocol::notify::AccessChange;
use usher_core::protocol::server::Frames;
use usher_core::relay::PeerId;
use usher_core::relay::message::RouterRequest;
use usher_core::relay::peer_context::Moment;
use usher_core::relay::tally::Tally;

/// A command to a fan-out loop.
#[derive(Debug)]
pub(crate) enum FanoutCommand {
    /// Forgets a connection and returns the frames that wait for its socket.
    Close {
        peer: PeerId,
        held: Option<oneshot::Sender<Vec<Bytes>>>,
    },
    /// Sends a frame to one connection.
    Frame {
        peer: PeerId,
        frames: Frames,
        kind: FrameKind,
    },
    /// Requests new counts of every watched poll.
    Recount,
    /// Takes over the write side of a connection.
    Open {
        peer: PeerId,
        io: OutboundIo,
        encoding: Encoding,
        connection_events: channel::Sender<ConnectionEvent>,
    },
    /// Passes a peer's request to the router.
    Request {
        peer: PeerId,
        request: RouterRequest,
    },
    /// Sends the counts of a poll to its viewers.
    Tally(Arc<Tally>),
    /// Voids the resume tokens of callers that have lost their access.
    Void(AccessChange),
    /// Resumes writing to a connection whose socket has taken everything.
    Writable { peer: PeerId },
}

/// The handles of all fan-out loops. A connection belongs to one of them for life.
#[derive(Debug)]
pub(crate) struct FanoutLoops {
    senders: Vec<mpsc::Sender<FanoutCommand>>,
    pulses: Vec<Arc<Pulse>>,
    next_peer: AtomicU64,
}

impl FanoutLoops {
    /// Groups the handles of loops, one sender and one pulse each.
    #[must_use]
    pub(crate) fn new(senders: Vec<mpsc::Sender<FanoutCommand>>, pulses: Vec<Arc<Pulse>>) -> Self {
        Self {
            senders,
            pulses,
            next_peer: AtomicU64::new(1),
        }
    }

    /// Numbers a new connection and returns the loop that it belongs to.
    pub(crate) fn assign(&self) -> (PeerId, mpsc::Sender<FanoutCommand>) {
        let number = self.next_peer.fetch_add(1, Ordering::Relaxed);
        let count = self.senders.len() as u64;
        let place =
            usize::try_from(number % count).expect("there are fewer loops than a usize can count");
        (PeerId(number), self.senders[place].clone())
    }

    /// Sends a command to every loop. Waits while the queue of one is full.
    pub(crate) async fn broadcast(&self, command: impl Fn() -> FanoutCommand) {
        for sender in &self.senders {
            let _ = sender.send(command()).await;
        }
    }

    /// Whether every loop has taken a turn within [`LOOP_SILENCE_MAX`].
    #[must_use]
    pub(crate) fn make_progress(&self) -> bool {
        let now = moment();
        self.pulses.iter().all(|pulse| pulse.is_felt(now))
    }

    /// The length of the longest command queue.
    #[must_use]
    pub(crate) fn queue_len(&self) -> usize {
        let queued = self
            .senders
            .iter()
            .map(|sender| sender.max_capacity() - sender.capacity());
        queued.max().unwrap_or(0)
    }
}

/// The time of a fan-out loop's last turn.
#[derive(Debug)]
pub(crate) struct Pulse {
    beat_ms: AtomicU64,
}

impl Pulse {
    /// Starts with a turn now.
    #[must_use]
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            beat_ms: AtomicU64::new(now.unix_ms),
        }
    }

    /// Records a turn.
    pub(crate) fn beat(&self, now: Moment) {
        self.beat_ms.store(now.unix_ms, Ordering::Relaxed);
    }

    /// Whether the last turn is at most [`LOOP_SILENCE_MAX`] ago.
    #[must_use]
    pub(crate) fn is_felt(&self, now: Moment) -> bool {
        let silence = now
            .unix_ms
            .saturating_sub(self.beat_ms.load(Ordering::Relaxed));
        Duration::from_millis(silence) <= LOOP_SILENCE_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_takes_no_turn_is_not_felt() {
        let now = moment();
        let pulse = Pulse::new(now);
        let later = |delay: Duration| Moment {
            unix_ms: now.unix_ms + u64::try_from(delay.as_millis()).unwrap(),
            ..now
        };
        let after = later(LOOP_SILENCE_MAX + Duration::from_millis(1));
        assert!(pulse.is_felt(later(LOOP_SILENCE_MAX)) && !pulse.is_felt(after));
        pulse.beat(after);
        assert!(pulse.is_felt(after));
    }
}

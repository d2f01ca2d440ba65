//! What the tasks of one worker share. They run on one thread, so nothing is locked.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use futures::task::AtomicWaker;
use uuid::Uuid;

use crate::audit::Ledger;
use crate::interval::{Interval, count};
use crate::plan::Shared;

/// Bytes that are read at a time, into a buffer that all sockets of a worker take in turn.
const READ_BYTES: usize = 256 * 1024;

/// One worker's own.
pub(crate) struct WorkerState {
    pub(crate) shared: Arc<Shared>,
    /// What was counted since somebody asked.
    pub(crate) interval: RefCell<Interval>,
    pub(crate) scratch: RefCell<Box<[u8]>>,
    pub(crate) seats: RefCell<Vec<Rc<ViewerState>>>,
}

impl WorkerState {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            interval: RefCell::default(),
            scratch: RefCell::new(vec![0; READ_BYTES].into_boxed_slice()),
            seats: RefCell::default(),
        }
    }

    /// Counts an attempt to connect that failed.
    pub(crate) fn on_failure(&self, reason: &str) {
        count(&mut self.interval.borrow_mut().failures, reason);
    }

    /// Counts a socket that ended before the run did.
    pub(crate) fn on_close(&self, reason: &str) {
        count(&mut self.interval.borrow_mut().closes, reason);
    }

    /// A mask for the frames of one socket. It keeps proxies from being fooled, which a load tester does not try.
    pub(crate) fn mask() -> [u8; 4] {
        let [a, b, c, d, ..] = *Uuid::new_v4().as_bytes();
        [a, b, c, d]
    }
}

/// What a viewer is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Reads what comes.
    Watch,
    /// Reads nothing.
    Stall,
    /// Drops its socket and comes back.
    Drop,
}

/// One viewer, as its worker sees it.
pub(crate) struct ViewerState {
    pub(crate) number: u32,
    pub(crate) session: usize,
    pub(crate) is_slow: bool,
    pub(crate) ledger: RefCell<Ledger>,
    pub(crate) is_watching: Cell<bool>,
    /// Latency counts for messages that were due from here on: what was written while we kept it away does not.
    pub(crate) counts_from_us: Cell<u64>,
    /// When we dropped it, until it is whole again.
    pub(crate) dropped_at_us: Cell<Option<u64>>,
    order: Cell<Order>,
    waker: AtomicWaker,
}

impl ViewerState {
    pub(crate) fn new(shared: &Shared, number: u32) -> Self {
        let is_slow = number >= shared.plan.viewers - shared.plan.slow_readers;
        Self {
            number,
            session: shared.plan.session_of(number),
            is_slow,
            ledger: RefCell::default(),
            is_watching: Cell::new(false),
            counts_from_us: Cell::new(if is_slow { u64::MAX } else { 0 }),
            dropped_at_us: Cell::new(None),
            order: Cell::new(Order::Watch),
            waker: AtomicWaker::new(),
        }
    }

    pub(crate) fn tell(&self, order: Order, now_us: u64) {
        if order == Order::Drop {
            self.dropped_at_us.set(Some(now_us));
            self.counts_from_us.set(u64::MAX);
        }
        self.order.set(order);
        self.waker.wake();
    }

    /// What it is to do. A drop is done once.
    pub(crate) fn take_order(&self, context: &std::task::Context<'_>) -> Order {
        self.waker.register(context.waker());
        let order = self.order.get();
        if order == Order::Drop {
            self.order.set(Order::Watch);
        }
        order
    }

    /// Notes that it is back after a drop, once it stands where everybody else does.
    pub(crate) fn note_whole(&self, shared: &Shared, interval: &mut Interval, now_us: u64) {
        let Some(dropped_at_us) = self.dropped_at_us.get() else {
            return;
        };
        if self.ledger.borrow().last() >= Some(shared.head(self.session)) {
            interval
                .recovery
                .record(now_us.saturating_sub(dropped_at_us));
            self.dropped_at_us.set(None);
            self.counts_from_us
                .set(if self.is_slow { u64::MAX } else { now_us });
        }
    }
}

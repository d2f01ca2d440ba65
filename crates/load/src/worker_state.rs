//! The state that the tasks of one worker share. They run on one thread, so it needs no locks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use futures::task::AtomicWaker;
use uuid::Uuid;

use crate::audit::Ledger;
use crate::interval::{Interval, count};
use crate::limits::WORKER_READ_BYTES;
use crate::plan::RunContext;

/// The state of one worker.
pub(crate) struct WorkerState {
    pub(crate) shared: Arc<RunContext>,
    /// The counts since the last report.
    pub(crate) interval: RefCell<Interval>,
    pub(crate) scratch: RefCell<Box<[u8]>>,
    pub(crate) seats: RefCell<Vec<Rc<ViewerState>>>,
}

impl WorkerState {
    pub(crate) fn new(shared: Arc<RunContext>) -> Self {
        Self {
            shared,
            interval: RefCell::default(),
            scratch: RefCell::new(vec![0; WORKER_READ_BYTES].into_boxed_slice()),
            seats: RefCell::default(),
        }
    }

    /// Counts a failed attempt to connect.
    pub(crate) fn on_failure(&self, reason: &str) {
        count(&mut self.interval.borrow_mut().failures, reason);
    }

    /// Counts a socket that ended before the end of the run.
    pub(crate) fn on_close(&self, reason: &str) {
        count(&mut self.interval.borrow_mut().closes, reason);
    }

    /// Returns the mask for the frames of one socket. Masks protect proxies from attacks, which a load tester does not
    /// make, so one mask per socket is enough.
    pub(crate) fn mask() -> [u8; 4] {
        let [a, b, c, d, ..] = *Uuid::new_v4().as_bytes();
        [a, b, c, d]
    }
}

/// An order to a viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Read the frames that arrive.
    Watch,
    /// Read nothing until the next order.
    Stall,
    /// Drop the socket and reconnect.
    Drop,
}

/// One viewer, as its worker sees it.
pub(crate) struct ViewerState {
    pub(crate) number: u32,
    pub(crate) session: usize,
    pub(crate) is_slow: bool,
    pub(crate) ledger: RefCell<Ledger>,
    pub(crate) is_watching: Cell<bool>,
    /// Latency is measured for messages that are due from here on. That excludes messages that were written while the
    /// run kept the viewer away.
    pub(crate) counts_from_us: Cell<u64>,
    /// When the run dropped the viewer; `None` once it has caught up again.
    pub(crate) dropped_at_us: Cell<Option<u64>>,
    order: Cell<Order>,
    waker: AtomicWaker,
}

impl ViewerState {
    pub(crate) fn new(shared: &RunContext, number: u32) -> Self {
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

    /// Returns the current order. A drop is returned only once.
    pub(crate) fn take_order(&self, context: &std::task::Context<'_>) -> Order {
        self.waker.register(context.waker());
        let order = self.order.get();
        if order == Order::Drop {
            self.order.set(Order::Watch);
        }
        order
    }

    /// Records that a dropped viewer has caught up: it has the newest number that any viewer has seen.
    pub(crate) fn note_whole(&self, shared: &RunContext, interval: &mut Interval, now_us: u64) {
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

//! A thread with its own runtime, which holds its share of the sockets and reports its counts on request.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};
use uuid::Uuid;

use crate::database::{self};
use crate::interval::Interval;
use crate::limits::COMMANDS_LEN;
use crate::pacer::Due;
use crate::plan::{Connect, RunContext};
use crate::viewer;
use crate::worker_state::{Order, ViewerState, WorkerState};
use crate::writer::LoadWriter;

/// A command to a worker.
pub(crate) enum WorkerCommand {
    /// Starts a viewer.
    Join { viewer: u32, due_us: u64 },
    /// Starts a writer.
    Open(LoadWriter),
    /// Starts a connection to the database.
    Insert {
        connect: Connect,
        authors: Vec<Uuid>,
        dues: mpsc::Receiver<Due>,
    },
    /// Gives an order to the worker's viewers with these numbers.
    Order {
        viewers: std::ops::Range<u32>,
        order: Order,
    },
    /// Returns the counts since the last report.
    Collect(oneshot::Sender<Collected>),
    /// Returns how many viewers have not received every event.
    Behind(oneshot::Sender<u64>),
    /// Ends the audits, returns the last counts, and stops.
    End(oneshot::Sender<Collected>),
}

/// A worker's counts since its last report.
pub(crate) struct Collected {
    pub(crate) interval: Interval,
    /// The thread's CPU time since its start, in microseconds.
    pub(crate) worked_us: u64,
}

/// The runner's handle of a worker.
pub(crate) struct Worker {
    pub(crate) commands: mpsc::Sender<WorkerCommand>,
    pub(crate) thread: JoinHandle<()>,
}

/// Starts a worker.
pub(crate) fn start(number: usize, shared: Arc<RunContext>) -> io::Result<Worker> {
    let (commands, inbox) = mpsc::channel(COMMANDS_LEN);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = thread::Builder::new()
        .name(format!("load-{number}"))
        .spawn(move || {
            let tasks = LocalSet::new();
            runtime.block_on(tasks.run_until(serve(shared, inbox)));
            // The remaining tasks are dropped with their sockets.
        })?;
    Ok(Worker { commands, thread })
}

async fn serve(shared: Arc<RunContext>, mut inbox: mpsc::Receiver<WorkerCommand>) {
    let state = Rc::new(WorkerState::new(shared));
    let mut tasks = JoinSet::new();
    while let Some(command) = inbox.recv().await {
        match command {
            WorkerCommand::Join { viewer, due_us } => {
                let viewer_state = Rc::new(ViewerState::new(&state.shared, viewer));
                state.seats.borrow_mut().push(Rc::clone(&viewer_state));
                tasks.spawn_local(viewer::run(Rc::clone(&state), viewer_state, due_us));
            }
            WorkerCommand::Open(writer) => {
                tasks.spawn_local(writer.run(Rc::clone(&state)));
            }
            WorkerCommand::Insert {
                connect,
                authors,
                dues,
            } => {
                tasks.spawn_local(database::insert(
                    Rc::clone(&state),
                    connect,
                    authors.into(),
                    dues,
                ));
            }
            WorkerCommand::Order { viewers, order } => {
                let now_us = state.shared.clock.now_us();
                let seats = state.seats.borrow();
                for viewer_state in seats
                    .iter()
                    .filter(|viewer_state| viewers.contains(&viewer_state.number))
                {
                    viewer_state.tell(order, now_us);
                }
            }
            WorkerCommand::Collect(reply) => {
                let _ = reply.send(collect(&state));
            }
            WorkerCommand::Behind(reply) => {
                let _ = reply.send(behind(&state));
            }
            WorkerCommand::End(reply) => {
                tasks.shutdown().await;
                close_books(&state);
                let _ = reply.send(collect(&state));
                return;
            }
        }
    }
}

fn collect(state: &WorkerState) -> Collected {
    let mut interval = state.interval.take();
    let seats = state.seats.borrow();
    interval.watching = seats
        .iter()
        .filter(|viewer_state| viewer_state.is_watching.get())
        .count() as u64;
    let worked = clock_gettime(ClockId::ThreadCPUTime);
    Collected {
        interval,
        worked_us: u64::try_from(worked.tv_sec * 1_000_000 + worked.tv_nsec / 1_000)
            .unwrap_or_default(),
    }
}

fn behind(state: &WorkerState) -> u64 {
    let is_behind = |viewer_state: &&Rc<ViewerState>| {
        let last = viewer_state.ledger.borrow().last();
        last < Some(state.shared.head(viewer_state.session))
    };
    state.seats.borrow().iter().filter(is_behind).count() as u64
}

/// Ends the audits: events that have not arrived count as lost.
fn close_books(state: &WorkerState) {
    let mut interval = state.interval.borrow_mut();
    for viewer_state in state.seats.borrow().iter() {
        viewer_state
            .ledger
            .borrow()
            .on_end(state.shared.head(viewer_state.session), &mut interval.audit);
    }
}

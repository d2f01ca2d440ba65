//! Every bound of the load tester. `tests/tidy.rs` refuses bounds in other files of this crate.

use std::time::Duration;

// ---- sockets ----

/// Time for a handshake, from the first packet on. Beyond it the connection counts as failed.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of the head of a response. A longer one fails the connection.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Bytes that the kernel may buffer for a viewer that never reads. So few that the gateway notices within the run.
pub(crate) const SLOW_RECEIVE_BYTES: u32 = 4 * 1024;

/// Bytes that a worker reads at a time, into one buffer for all its sockets.
pub(crate) const WORKER_READ_BYTES: usize = 256 * 1024;

/// Bytes that a writer reads at a time. It subscribes to nothing, so little arrives.
pub(crate) const WRITER_READ_BYTES: usize = 2 * 1024;

/// Milliseconds before a disconnected viewer connects again, at most.
pub(crate) const PAUSE_MS_MAX: u64 = 4_000;

/// Time before a disconnected writer connects again.
pub(crate) const WRITER_PAUSE: Duration = Duration::from_millis(500);

// ---- queues ----

/// Commands that wait for a worker. When the queue is full the runner waits.
pub(crate) const COMMANDS_LEN: usize = 4_096;

/// Messages that wait for one writer. When the queue is full a message is not sent, and counts as due and unsent.
pub(crate) const DUES_LEN: usize = 16 * 1024;

/// Messages that a late writer sends in one write.
pub(crate) const TAKEN_MAX: usize = 32;

/// Ranges of missing numbers that a viewer remembers. Beyond it the oldest count as lost.
pub(crate) const MISSING_RANGES_MAX: usize = 256;

// ---- the database ----

/// Connections that insert. More gain nothing: the inserts of one session wait for its row.
pub(crate) const CONNECTIONS: u32 = 4;

/// Rows of one INSERT. The database sends no notification for each row of a larger statement.
pub(crate) const ROWS_MAX: usize = 20;

/// Time before a lost connection to the database is opened again.
pub(crate) const DATABASE_PAUSE: Duration = Duration::from_millis(500);

// ---- the course of a run ----

/// Time for the gateway to answer each of the preflight's questions. Beyond it the run does not start.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest sleep of a pacer, so that it notices the end of the run.
pub(crate) const SLEEP_MAX: Duration = Duration::from_millis(50);

/// Shortest sleep of a pacer. Messages that are due closer together leave together, each measured from its own due time.
pub(crate) const SLEEP_MIN: Duration = Duration::from_micros(200);

/// Time that viewers may take to connect beyond their schedule. Beyond it the run fails, with the reasons.
pub(crate) const RAMP_GRACE: Duration = Duration::from_secs(30);

/// Time between two steps of connecting viewers.
pub(crate) const RAMP_POLL: Duration = Duration::from_millis(10);

/// Time between two checks whether every viewer has received everything.
pub(crate) const DRAIN_POLL: Duration = Duration::from_millis(100);

/// Time that a step of a search runs before it is measured.
pub(crate) const STEP_WARM_UP: Duration = Duration::from_secs(1);

/// Time for the deliveries of a step to arrive after its last message.
pub(crate) const STEP_DRAIN: Duration = Duration::from_secs(3);

/// Steps of a search, each 1.5 times the last. 1.5 to the 24th is more than sixteen thousand.
pub(crate) const STEPS_MAX: u32 = 24;

/// Times that a search halves the distance between the best and the worst rate. The result is then exact to about 5 %.
pub(crate) const HALVINGS: u32 = 3;

/// Time between two frames of the progress bar.
pub(crate) const PROGRESS_TICK: Duration = Duration::from_millis(120);

// ---- verdicts ----

/// Share of the due messages that left and arrived, from which on a rate counts as served.
pub(crate) const SERVED_MIN: f64 = 0.98;

/// Share of its time that the generator's busiest thread may work. Above it, the figures contain its own delays.
pub(crate) const GENERATOR_BUSY_MAX: f64 = 0.85;

/// Share of its time from which on the report mentions the generator's busiest thread.
pub(crate) const GENERATOR_BUSY_HIGH: f64 = 0.7;

/// Milliseconds behind schedule that one message in a hundred may leave.
pub(crate) const LATENESS_MS_MAX: f64 = 25.0;

/// Share from which on the machine's cores count as used up. A scheduler leaves some idle.
pub(crate) const MACHINE_BUSY_MAX: f64 = 0.93;

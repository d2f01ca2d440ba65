//! Every bound of the temporary Postgres. `tests/tidy.rs` refuses bounds in other files of this crate.

use std::ops::Range;
use std::time::Duration;

/// Time for a server to accept connections, with the recovery after a crash. Beyond it the start fails.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Time between two looks at a starting server.
pub(crate) const START_POLL: Duration = Duration::from_millis(20);

/// Time for a server to shut down. Beyond it the server gets a stronger signal.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two looks at a child process. A signal handler would bind the child to one runtime, and tests share a
/// cluster between runtimes.
pub(crate) const CHILD_POLL: Duration = Duration::from_millis(10);

/// Looks after which a child that should have ended is killed: longer than the three deadlines of the watchdog's script.
pub(crate) const END_POLLS: u32 = 1_000;

/// Ports to choose from. They are below the range that systems give to outgoing connections, so that no other process
/// takes the port by chance while the server is down, and no client that retries connects to itself.
pub(crate) const PORTS: Range<u16> = 15_433..32_000;

/// Ports to try. Another process may take a port between the check and the start of the server.
pub(crate) const PORT_ATTEMPTS: u32 = 20;

/// Bytes of the path of a Unix socket: what every system accepts. With a longer one the server listens on TCP alone.
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 100;

/// Lines of the server's log that an error contains.
pub(crate) const LOG_LINES: usize = 6;

/// Connections of the server (`max_connections`): for a gateway, a load test and a psql, beside the tests that share it.
pub(crate) const CONNECTIONS_MAX: u32 = 200;

//! Every bound of the gateway's shells and commands, with its reason and the behaviour beyond it.
//!
//! [`usher_core::limits`] has the bounds of the core. Values that operators need to choose are settings. `tests/tidy.rs`
//! refuses bounds elsewhere in this crate.

use std::num::NonZero;
use std::ops::Range;
use std::time::Duration;

use usher_core::limits::{
    ACCESS_TOKEN_BYTES_MAX, BUSY_AFTER, HISTORY_MAX, LOCK_WAIT_APART, LOCK_WAIT_MIN,
    PAGE_BYTES_MAX, SUBSCRIPTIONS_PER_PEER_MAX, WRITES_IN_FLIGHT_PER_PEER_MAX,
};

// ---- Connections before the upgrade ----

/// Connections that wait to be accepted. The kernel caps it at `somaxconn`.
pub(crate) const ACCEPT_BACKLOG: i32 = 4_096;

/// The pause in accepting while the process has no free file descriptor. Connections wait in the backlog meanwhile.
pub(crate) const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// File descriptors that are not client sockets: the database, the listener, logs, the runtime. The file limit less
/// these bounds the sockets.
pub(crate) const FILES_RESERVED: u64 = 128;

/// Connections that are not, or not yet, WebSockets. For any further connection the oldest one is closed
/// and counted in `usher_evicted_connections_total`.
pub const PLAIN_CONNECTIONS_MAX: usize = 1_024;

/// Connections that are not, or not yet, WebSockets from one address that is not a trusted proxy. Many people behind
/// one address connect together when a stream begins, and a handshake takes little time.
pub const PLAIN_CONNECTIONS_PER_ADDRESS_MAX: usize = 128;

const _: () = assert!(
    PLAIN_CONNECTIONS_PER_ADDRESS_MAX * 4 <= PLAIN_CONNECTIONS_MAX,
    "a few addresses must not fill the pending connections"
);

/// How long a connection that is not a WebSocket may live. Beyond it the connection is closed after its response.
pub const PLAIN_CONNECTION_MAX: Duration = Duration::from_secs(60);

/// How long a client may take to send a request's head. Beyond it the connection is closed.
pub(crate) const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request's head: the largest token, and 16 KiB for cookies and headers of proxies. A larger head gets 431.
pub(crate) const REQUEST_HEAD_BYTES_MAX: usize = ACCESS_TOKEN_BYTES_MAX + 16 * 1024;

/// How long a client may take to send a request's body. Beyond it the request gets 408.
pub(crate) const REQUEST_BODY_TIMEOUT: Duration = Duration::from_secs(10);

// ---- TLS ----

/// How long a client may take for the TLS handshake. Beyond it the connection is closed and counted in
/// `usher_tls_handshake_failures_total`.
pub(crate) const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of plain text in one TLS record: the largest that TLS allows. Each record costs a header and a pass of the
/// cipher. A record that the socket does not accept stays in memory until it does.
pub(crate) const TLS_RECORD_BYTES: usize = 16 * 1024;

/// Bytes that a TLS connection reads at a time. They are kept only while a record is incomplete.
pub(crate) const TLS_READ_BYTES: usize = 4 * 1024;

/// Bytes of an incomplete TLS record. The largest record has 18,437. The bound also applies to a client that splits a
/// handshake message into records.
pub(crate) const TLS_INCOMING_BYTES_MAX: usize = 24 * 1024;

const _: () = assert!(
    TLS_INCOMING_BYTES_MAX >= TLS_RECORD_BYTES + 2 * 1024 + 5 + TLS_READ_BYTES,
    "the largest record must fit"
);

/// The interval at which the certificate's files are read again. The gateway serves a renewed certificate well before the
/// old one expires.
pub(crate) const TLS_RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes of a certificate chain or a key. A chain of ten long certificates has 30 KiB.
pub(crate) const PEM_BYTES_MAX: u64 = 256 * 1024;

// ---- Sockets ----

/// Bytes that a connection reads at a time. Tungstenite allocates this buffer for each connection. Its default of 128
/// KiB would be most of an idle viewer's memory.
pub(crate) const READ_BUFFER_BYTES: usize = 256;

/// Queries that one socket may have under way together. Further ones wait for their turn.
pub(crate) const QUERIES_IN_FLIGHT_PER_PEER_MAX: usize = 8;

const _: () = assert!(SUBSCRIPTIONS_PER_PEER_MAX >= QUERIES_IN_FLIGHT_PER_PEER_MAX);

/// Events that wait for one connection. A connection whose queue is full is closed: each subscription has at most a few
/// events under way.
pub(crate) const NOTE_QUEUE_LEN: usize = 4 * SUBSCRIPTIONS_PER_PEER_MAX;

/// Bytes of direct answers that wait for a stalled socket. Beyond that the client is closed with 4008
/// (`usher_closes_total`).
pub(crate) const HELD_BYTES_MAX: usize = 512 * 1024;

const _: () = assert!(
    HELD_BYTES_MAX > PAGE_BYTES_MAX,
    "a page must fit behind a stalled socket"
);

/// Answers to writes that are kept for a socket that is closing: one for each write in flight, and as many refusals of
/// other frames. Each answer has less than 2 KiB.
pub(crate) const LATE_ANSWERS_MAX: usize = 2 * WRITES_IN_FLIGHT_PER_PEER_MAX;

/// A socket must accept a frame of at least this many bytes before its connection asks the database for more.
pub(crate) const RECEIPT_BYTES_MIN: usize = 16 * 1024;

/// How long a socket may accept no bytes before its client is closed with 4008.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(30);

/// How long a client may take to answer a close frame. Beyond it the gateway drops the socket.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a closing socket waits for the answers to its pending writes, so that they are sent before the close frame.
/// A batch commits within milliseconds. A client that gets no answer sends the write again with its nonce.
pub(crate) const ANSWERS_TIMEOUT: Duration = Duration::from_secs(2);

/// Frames and writes of one socket that are refused for their rate within [`FLOOD_WINDOW`]. A client that continues
/// beyond that is closed with 4029.
pub(crate) const FLOOD_REFUSALS_MAX: NonZero<u32> = NonZero::new(60).expect("sixty is not zero");

/// The time after which refusals for the rate are forgotten.
pub(crate) const FLOOD_WINDOW: Duration = Duration::from_secs(60);

// ---- Rates ----

/// The largest count of a rate in the settings. The gateway does not start with a larger one.
pub(crate) const RATE_COUNT_MAX: u64 = 1_000_000_000;

/// The largest number of seconds of a rate in the settings: a day.
pub(crate) const RATE_SECONDS_MAX: u64 = 86_400;

/// Users, sessions or addresses that each rate limit remembers. A new one that finds the limit full has to wait. A
/// million of them would take a node about 10 MiB. `usher_throttle_keys` shows the number.
pub(crate) const THROTTLE_KEYS_MAX: usize = 200_000;

/// The interval at which entries with a full allowance are removed.
pub(crate) const THROTTLE_SWEEP_INTERVAL: Duration = Duration::from_secs(30);

// ---- HTTP calls and event streams ----

/// Events in the response to one call. Clients that copy a log want large pages; [`PAGE_BYTES_MAX`] bounds them, too.
pub(crate) const CALL_EVENTS_MAX: u16 = 1_000;

/// Events in the response to a call without a limit.
pub(crate) const CALL_EVENTS_DEFAULT: u16 = 100;

/// Messages in the response to one call. The longest messages, all escaped, take 1.2 MB.
pub(crate) const CALL_MESSAGES_MAX: u16 = 100;

/// Messages in the response to a call without a limit: as many as a chat shows at first.
pub(crate) const CALL_MESSAGES_DEFAULT: u16 = 50;

/// Movies in the response to one call. A streamer chooses a ballot from them by typing the beginning of a title.
pub(crate) const CALL_MOVIES_MAX: u16 = 100;

/// Characters of a search for a movie's title. A longer text finds nothing.
pub(crate) const SEARCH_CHARS_MAX: usize = 100;

/// Bans in the response to one call, the newest first: as many as a moderator reads.
pub(crate) const CALL_BANS_MAX: i32 = 100;

/// Bytes of an event stream that wait until its client reads: a page of chat, and what a slow reader's full socket may
/// hold.
pub(crate) const STREAM_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes that a waiting piece of an event stream counts for beside its own. This bounds the number of pieces to 1,024.
pub(crate) const STREAM_PIECE_BYTES: usize = 64;

/// When a client reconnects after its event stream ended without a reason, in milliseconds. Each client gets another
/// value, so that they do not reconnect together.
pub(crate) const STREAM_RETURN_MS: Range<u64> = 1_000..4_000;

// ---- Keys and secrets ----

/// Bytes of a secret that signs, at least. RFC 7518 §3.2 requires as many for HS256. The gateway does not start with a
/// shorter one.
pub(crate) const SECRET_BYTES_MIN: usize = 32;

/// Bytes of a key server's response. Sixteen RSA keys of 4,096 bits, with their certificates, fit.
pub(crate) const KEY_SET_BYTES_MAX: usize = 64 * 1024;

/// The interval between requests to the key server, varied by up to a fifth. Supabase lets its response be cached for
/// ten minutes, and publishes a key before it signs with it.
pub(crate) const KEYS_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The timeout of a request to the key server.
pub(crate) const KEYS_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest interval between two requests to the key server, whatever tokens arrive.
pub(crate) const KEYS_PAUSE: Duration = Duration::from_secs(5);

/// The pause after the first failed request to the key server. It doubles up to [`KEYS_RETRY_MAX`].
pub(crate) const KEYS_RETRY_MIN: Duration = Duration::from_secs(1);

/// The longest pause between two tries to reach a key server that fails.
pub(crate) const KEYS_RETRY_MAX: Duration = Duration::from_secs(60);

/// Tokens that wait for the key server together. Any further token is refused as `unavailable`.
pub(crate) const KEYS_WAITERS_MAX: usize = 256;

const _: () = assert!(
    KEYS_WAITERS_MAX <= PLAIN_CONNECTIONS_MAX / 4,
    "tokens of unknown keys must not keep others from the handshake"
);

// ---- Admission and access checks ----

/// Callers whose access is checked in one query. At about 0.1 ms each, the query takes a few milliseconds.
pub(crate) const ACCESS_CHECK_CALLERS_MAX: usize = 50;

/// How long a regular access check waits for others to share its query. With 18,000 viewers and an interval of one
/// minute, about thirty checks share a query.
pub(crate) const ACCESS_CHECK_GATHER: Duration = Duration::from_millis(100);

/// Access checks on their way to the task that gathers them. That task takes them without delay; a connection
/// waits for room.
pub(crate) const ACCESS_CHECK_QUEUE_LEN: usize = 4_096;

// ---- Fan-out ----

/// Compressed frames and events of streams that a fan-out loop keeps for reuse: the events, a tally with and without
/// hidden counts, and a backlog for reconnecting clients.
pub(crate) const PACKED_FORMS_MAX: usize = 4;

/// Events in one page of the log for a subscriber that is behind. The database needs about 3 µs per event, so a page
/// takes well under a millisecond. Many clients that catch up together therefore hold no connection for long.
pub(crate) const PAGE_EVENTS_MAX: usize = 200;

const _: () = assert!(
    HISTORY_MAX as usize <= PAGE_EVENTS_MAX,
    "a history must fit one page"
);

/// The pause before a fan-out loop reads a page of the log again, after the database did not answer.
pub(crate) const REFILL_PAUSE: Duration = Duration::from_millis(200);

/// The interval at which a fan-out loop compares viewer counts and sends those that changed.
pub(crate) const VIEWER_COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// The longest sleep of the tally reader if no poll is due. A change of a poll wakes it.
pub(crate) const TALLY_IDLE: Duration = Duration::from_hours(1);

/// Notifications that the listener passes on together.
pub(crate) const HEARD_MAX: usize = 1_024;

/// Groups of notifications that wait for a fan-out loop. If the queue is full, the listener waits, and Postgres
/// keeps the rest.
pub(crate) const HEARD_QUEUE_LEN: usize = 64;

/// Commands that a fan-out loop takes together before it looks for notifications again.
pub(crate) const COMMANDS_TAKEN_MAX: usize = 256;

/// Commands that wait for a fan-out loop. If the queue is full, a connection waits, and so does its client.
/// `usher_command_queue` shows the length.
pub(crate) const COMMAND_QUEUE_LEN: usize = 4_096;

// ---- Database connections ----

/// The timeout of one attempt to connect to the database, including authentication. Supabase's pooler wakes a paused
/// project in about five seconds.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a query waits for a free connection of the pool. Beyond that it fails as `unavailable`, because the database
/// is overloaded.
pub(crate) const POOL_WAIT: Duration = Duration::from_secs(5);

/// The timeout of a database query, including the wait for a connection. `usher_query_failures_total` counts queries
/// that fail.
pub(crate) const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// The time without a sign of life after which a database server counts as dead.
pub(crate) const DEAD_PEER: Duration = Duration::from_secs(15);

/// The time without traffic before the first TCP keepalive to the database.
pub(crate) const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);

/// The interval between further keepalives.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);

/// Keepalives without an answer after which the connection is closed.
pub(crate) const KEEPALIVE_RETRIES: u32 = 3;

const _: () = assert!(
    KEEPALIVE_IDLE.as_secs() + KEEPALIVE_RETRIES as u64 * KEEPALIVE_INTERVAL.as_secs()
        <= DEAD_PEER.as_secs(),
    "keepalives must notice a dead server in time"
);

/// The interval at which the gateway sends itself a probe through the database.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// The time within which a probe must return. After that the LISTEN connection is replaced, and
/// `usher_listen_losses_total` counts it.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The first pause between two tries to reach the database. It doubles up to [`RECONNECT_PAUSE_MAX`].
pub(crate) const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest pause between two tries to reach the database.
pub(crate) const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long a repeated database failure is not logged again. A night of failures then takes about a page of the log,
/// and a reader who looks late still finds it.
pub(crate) const LOG_REPEAT_INTERVAL: Duration = Duration::from_mins(10);

/// Kinds of failures that the log limiter distinguishes. There are a dozen queries, each with a handful of SQLSTATEs.
/// Further kinds share one entry.
pub(crate) const LOG_KINDS_MAX: usize = 256;

// ---- Writes ----

/// Writes on their way to the batcher. The batcher takes them without delay; a connection waits for room.
pub(crate) const WRITE_INBOX_LEN: usize = 256;

/// Bytes of a queued write besides what its author sent: ids, field names, entries of maps.
pub(crate) const WRITE_OVERHEAD_BYTES: usize = 512;

/// How long a batch is tried again while the database is unreachable. Nonces make repeated tries harmless.
pub(crate) const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Transactions of one kind of write that are under way together, in different sessions: the next batch runs while the
/// last one commits. One more transaction tries the sessions that could not get their locks.
pub(crate) const BATCHES_IN_FLIGHT_MAX: usize = 2;

/// The pause before a batch is tried again that the database did not take.
pub(crate) const BATCH_PAUSE: Duration = Duration::from_millis(100);

/// How long a transaction waits for one lock. After that it is rolled back, counted in `usher_batches_blocked_total`, and
/// its sessions are tried one by one.
/// Several commits of other nodes fit into this time, and writes that share a transaction with a blocked session
/// wait no longer.
pub(crate) const LOCK_WAIT: Duration = Duration::from_millis(200);

const _: () = assert!(
    LOCK_WAIT_MIN.as_millis() < LOCK_WAIT.as_millis()
        && LOCK_WAIT.as_millis() < LOCK_WAIT_APART.as_millis()
        && LOCK_WAIT.as_millis() + LOCK_WAIT_APART.as_millis() < BUSY_AFTER.as_millis()
        && BUSY_AFTER.as_millis() + LOCK_WAIT.as_millis() < 2_000,
    "a write that waits for a lock is answered within two seconds"
);

/// Connections that may wait for locks. With fewer connections, none waits longer than [`LOCK_WAIT`].
pub(crate) const LOCK_CONNECTIONS_MIN: usize = 3;

/// How long a read as the caller waits for a lock. Reads wait only for table locks, for example while the app's
/// own migration runs.
pub(crate) const READ_LOCK_WAIT: Duration = Duration::from_secs(1);

/// Moderation calls that are in the database together. Further calls wait for at most [`BUSY_AFTER`]. They need the
/// same locks as batches, so they must not take the connections of the batches.
pub(crate) const MODERATIONS_IN_FLIGHT_MAX: usize = 2;

// ---- Maintenance ----

/// The interval at which polls are closed whose time is over. A poll closes at most this late.
pub(crate) const CLOSE_INTERVAL: Duration = Duration::from_secs(1);

/// Polls that one round of closing handles, more than end in one second. The next round handles the rest.
pub(crate) const DUE_VOTINGS_MAX: i32 = 1_000;

/// The interval at which `movies.vote_total` is updated. It is at most this far behind the votes.
pub(crate) const TOTALS_INTERVAL: Duration = Duration::from_secs(1);

/// Vote changes that `usher.update_vote_totals` handles per call, so that it does not lock a movie for long. The
/// function has the same number.
pub(crate) const TOTAL_CHANGES_MAX: u64 = 1_000;

/// The interval at which old events are removed from the log.
pub(crate) const TRIM_INTERVAL: Duration = Duration::from_secs(60);

/// Events that one statement removes from the log.
pub(crate) const TRIM_EVENTS_MAX: u64 = 10_000;

/// How long `usher migrate` waits for migrations of another process. Beyond that it fails.
pub(crate) const MIGRATION_LOCK_TIMEOUT: Duration = Duration::from_secs(60);

// ---- Readiness and stop ----

/// The interval between readiness checks of the database.
pub(crate) const READINESS_INTERVAL: Duration = Duration::from_secs(1);

/// How long the database may take to answer a readiness check. After that the gateway is not ready, because it could
/// not serve a new viewer.
pub(crate) const READINESS_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a fan-out loop may be silent before the process counts as stuck. A loop reports at least once per second.
pub(crate) const LOOP_SILENCE_MAX: Duration = Duration::from_secs(10);

/// How long the gateway waits for its connections, and then for its tasks, when it stops.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(7);

const _: () = assert!(
    STOP_TIMEOUT.as_secs() > ANSWERS_TIMEOUT.as_secs() + 2 * CLOSE_TIMEOUT.as_secs(),
    "the close of a connection must fit the stop"
);

/// Clients per second that a stopping gateway sends to other nodes. Another node with two cores can admit that many
/// with room to spare.
pub(crate) const RETURNS_PER_SECOND_MAX: u64 = 1_000;

/// The shortest time over which clients reconnect after a stop, so that a dozen clients do not reconnect together.
pub(crate) const RETURN_SPREAD_MIN: Duration = Duration::from_secs(1);

// ---- usher doctor ----

/// How long `usher doctor` waits for its own notification. It arrives within milliseconds, or never.
pub(crate) const ECHO_MAX: Duration = Duration::from_secs(5);

/// Notifications that wait while `usher doctor` listens for its own. Further ones are dropped.
pub(crate) const ECHO_QUEUE_LEN: usize = 16;

/// Tries of `usher doctor` to see a pooler give a server connection to another client.
pub(crate) const POOLER_TRIES: usize = 3;

/// Milliseconds between the clocks of the database and the gateway. With more, tokens are voided too late or too early,
/// and `usher doctor` warns.
pub(crate) const SKEW_MAX_MS: u64 = 1_000;

/// The remaining lifetime of a certificate below which `usher doctor` warns. Renewal normally happens earlier.
pub(crate) const EXPIRY_WARNING: Duration = Duration::from_hours(14 * 24);

// ---- usher dev and usher load ----

/// The lifetime of the demo users' tokens.
#[cfg(feature = "dev")]
pub(crate) const USER_TOKEN_TTL: Duration = Duration::from_hours(24);

/// The lifetime of the demo's anon key. Supabase issues its own for ten years.
#[cfg(feature = "dev")]
pub(crate) const ANON_KEY_TTL: Duration = Duration::from_hours(24 * 365);

/// File descriptors of the load tester that are not sockets of viewers and writers.
#[cfg(feature = "load")]
pub(crate) const LOAD_FILES_RESERVED: u64 = 64;

/// The lifetime of the tokens that a run of the load tester mints.
#[cfg(feature = "load")]
pub(crate) const LOAD_TOKEN_TTL: Duration = Duration::from_hours(24);

/// How long one of several addresses of the gateway under test may take to accept a connection. Beyond that the next
/// one is tried.
#[cfg(feature = "load")]
pub(crate) const LOAD_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Viewers per source address on loopback. An address has about 28,000 ports. Linux finds every other port quickly and
/// searches long for the rest, which would look like a slow gateway.
#[cfg(feature = "load")]
pub(crate) const VIEWERS_PER_ADDRESS: u32 = 10_000;

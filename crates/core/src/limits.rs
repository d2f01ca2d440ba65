//! Every bound of the gateway, with its reason, and the relations between bounds.
//!
//! The code that uses a bound documents and tests the behaviour at the limit. An operator cannot set a bound. Values
//! that operators need to choose are settings in `config`.

use std::num::NonZero;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

/// Bytes of one client frame. An `auth` frame with the largest token fits, and so does a `send` frame with 2,000
/// four-byte characters, each escaped.
pub const FRAME_BYTES_MAX: usize = 40 * 1024;

/// Payloads of at least this many bytes are compressed for clients that support it. Shorter ones hardly shrink.
pub const PACKED_BYTES_MIN: usize = 256;

/// Compressed frames that a fan-out loop keeps for reuse: the events, a tally with and without hidden counts, and a
/// backlog for reconnecting clients.
pub const PACKED_FORMS_MAX: usize = 4;

/// Fragments of a message before the last one. The largest message fits in fragments of 256 bytes. A client that sends
/// empty fragments without end is closed.
pub const FRAGMENTS_MAX: u32 = 160;

/// Subscriptions on one socket. An app shows a handful of sessions at a time; the protocol promises 100.
pub(crate) const SUBSCRIPTIONS_PER_PEER_MAX: usize = 100;

/// Characters of one chat message; the table has the same bound.
pub const BODY_CHARS_MAX: usize = 2_000;

/// Characters of a client frame's `id`. The gateway echoes it, so it must be small.
pub(crate) const FRAME_ID_CHARS_MAX: usize = 64;

/// The largest value of a numeric `id`, and the smallest without its sign: 2^53. Up to there, a client that computes in
/// floating point, such as JavaScript, gets back exactly the number that it sent.
pub(crate) const FRAME_ID_NUMBER_MAX: i64 = 1 << 53;

/// Events that a new subscription may ask for.
pub const HISTORY_MAX: u16 = 200;

/// Events that a new subscription gets by default.
pub const HISTORY_DEFAULT: u16 = 50;

/// Bytes of a resume token, within the bound that the protocol promises.
pub const RESUME_TOKEN_BYTES_MAX: usize = 512;

/// Bytes of a JWT. Supabase's tokens have about 1 KiB. Claims from hooks and identity providers, such as groups, make
/// some as large as tens of KiB. A connection keeps the claims, three quarters of the token: 18,000 viewers take 430
/// MiB with the largest tokens, and 14 MiB with usual ones.
pub const ACCESS_TOKEN_BYTES_MAX: usize = 32 * 1024;

/// Bytes of a key's id (`kid`). Supabase's ids are UUIDs, others are hashes.
pub const KEY_ID_BYTES_MAX: usize = 256;

/// Keys that are used from a key server. A project that rotates its keys has three. A token without a `kid` may be
/// tried with all of them.
pub const SIGNING_KEYS_MAX: usize = 16;

/// Bytes of a key server's response. Sixteen RSA keys of 4,096 bits, with their certificates, fit.
pub const KEY_SET_BYTES_MAX: usize = 64 * 1024;

/// The interval between requests to the key server, varied by up to a fifth. Supabase lets its response be cached for
/// ten minutes, and publishes a key before it signs with it.
pub const KEYS_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The timeout of a request to the key server.
pub const KEYS_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest interval between two requests to the key server, whatever tokens arrive.
pub const KEYS_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause between two tries to reach a key server that fails.
pub const KEYS_RETRY_MAX: Duration = Duration::from_secs(60);

/// Tokens that wait for the key server together. Any further token is refused as `unavailable`.
pub const KEYS_WAITERS_MAX: usize = 256;

/// The time within which a client must send a token where anonymous viewers are not allowed.
pub(crate) const AUTH_TIMEOUT: Duration = Duration::from_secs(10);

/// The time before a token's expiry at which the client is warned.
pub(crate) const TOKEN_WARNING: Duration = Duration::from_secs(60);

/// Bytes of events in one `events` frame; further events go into another frame. Small enough for any client's parser,
/// large enough that the frame's own overhead does not matter.
pub(crate) const EVENTS_FRAME_BYTES_MAX: usize = 32 * 1024;

/// Events in one page of the log for a subscriber that is behind. The database needs about 3 µs per event, so a page
/// takes well under a millisecond. Many clients that catch up together therefore hold no connection for long.
pub const PAGE_EVENTS_MAX: usize = 200;

/// Bytes of one page of the log. At least one event is read, however large it is.
pub const PAGE_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a session's ring. 256 KiB hold about 800 chat messages. A thousand live sessions take at most 256 MiB.
pub const RING_BYTES_MAX: usize = 256 * 1024;

/// Bytes by which a session's ring may exceed its bound within one round. Beyond that the ring is flushed before it
/// takes further events, so a burst cannot grow it without end.
pub(crate) const FLUSH_BYTES_MAX: usize = 256 * 1024;

/// Messages and votes of one socket that have no answer yet.
pub(crate) const WRITES_IN_FLIGHT_PER_PEER_MAX: usize = 32;

/// Queries that one socket may have under way together. Further ones wait for their turn.
pub const QUERIES_IN_FLIGHT_PER_PEER_MAX: usize = 8;

/// Frames that are not JSON objects before a socket is closed: the client speaks another protocol.
pub const MALFORMED_FRAMES_MAX: u32 = 5;

/// The pause before a subscription asks again, if the database did not answer or the epochs differ.
pub(crate) const ADMISSION_RETRY: Duration = Duration::from_millis(1_000);

/// Callers whose access is checked in one query. At about 0.1 ms each, the query takes a few milliseconds.
pub const ACCESS_CHECK_CALLERS_MAX: usize = 50;

/// How long a regular access check waits for others to share its query. With 18,000 viewers and an interval of one
/// minute, about thirty checks share a query.
pub const ACCESS_CHECK_GATHER: Duration = Duration::from_millis(100);

/// Access checks on their way to the task that gathers them. That task takes them without delay; a connection
/// waits for room.
pub const ACCESS_CHECK_QUEUE_LEN: usize = 4_096;

/// Users and sessions whose resume tokens are voided individually. Beyond that, all tokens issued so far are void.
pub(crate) const REVOCATIONS_MAX: usize = 10_000;

/// Polls of one session whose latest tally is kept for receivers that join or were stalled.
pub(crate) const TALLIES_PER_SESSION_MAX: usize = 16;

/// Polls that wait for their counts to be read, about 10 MB in total. If more polls change, the counts of every watched
/// poll are read once half of these are done, so no last tally is lost.
pub const DIRTY_VOTINGS_MAX: usize = 100_000;

/// Polls whose counts one query reads. A query then ends well within [`QUERY_TIMEOUT`], however many polls changed.
pub const TALLIES_READ_MAX: usize = 1_000;

/// Polls of one session whose tally no longer fits into [`TALLIES_PER_SESSION_MAX`] while a receiver is stalled. Their
/// counts are read again for that receiver. A session has one open poll at a time.
pub(crate) const FORGOTTEN_TALLIES_MAX: usize = 1_024;

const _: () = assert!(FRAGMENTS_MAX as usize * 256 >= FRAME_BYTES_MAX);
const _: () = assert!(
    FRAME_BYTES_MAX >= ACCESS_TOKEN_BYTES_MAX + 12 * FRAME_ID_CHARS_MAX + 1_024,
    "an auth frame with the largest token, and an id that is all escapes, must fit"
);
const _: () = assert!(
    PAGE_BYTES_MAX <= RING_BYTES_MAX,
    "a refilled page must fit the ring"
);
const _: () = assert!(
    EVENTS_FRAME_BYTES_MAX >= 4 * BODY_CHARS_MAX,
    "one message must fit a frame"
);
const _: () = assert!(
    HISTORY_MAX as usize <= PAGE_EVENTS_MAX,
    "a history must fit one page"
);
const _: () = assert!(SUBSCRIPTIONS_PER_PEER_MAX >= QUERIES_IN_FLIGHT_PER_PEER_MAX);

/// How long a session's ring is kept up to date after its last viewer left, so that clients that reconnect
/// together find it.
pub(crate) const SESSION_LINGER: Duration = Duration::from_secs(60);

/// Sessions without viewers whose rings are kept up to date. Beyond that, the one that is idle for
/// longest is forgotten.
pub(crate) const LINGERING_SESSIONS_MAX: usize = 256;

/// The timeout of a database query, including the wait for a connection.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages or votes in one transaction. Enough to share one commit; few enough that the last write does not wait long,
/// and that Postgres keeps the subtransactions in memory (it caches 64).
pub(crate) const BATCH_ITEMS_MAX: usize = 50;

/// Bytes of the writes in one transaction. Fifty messages of usual length are far below it; the largest fit a few dozen
/// times. At least one write is always taken.
pub(crate) const BATCH_BYTES_MAX: usize = 512 * 1024;

/// Transactions of one kind of write that are under way together, in different sessions: the next batch runs while the
/// last one commits. One more transaction tries the sessions that could not get their locks.
pub const BATCHES_IN_FLIGHT_MAX: usize = 2;

/// How long a transaction waits for one lock. After that it is rolled back and its sessions are tried one by one.
/// Several commits of other nodes fit into this time, and writes that share a transaction with a blocked session
/// wait no longer.
pub const LOCK_WAIT: Duration = Duration::from_millis(200);

/// The shortest wait for a lock: longer than the end of a commit.
pub const LOCK_WAIT_MIN: Duration = Duration::from_millis(10);

/// How long a session that is tried alone waits for its lock. Postgres grants locks in order of request, so even a
/// session with many SQL writers gets its lock within this time. Only one connection waits.
pub const LOCK_WAIT_APART: Duration = Duration::from_secs(1);

/// The time of one round of tries over all blocked sessions, if [`LOCK_WAIT_MIN`] for each of them allows it. With a
/// hundred blocked sessions, one that becomes free is found within about a second.
pub(crate) const LOCK_ROUND: Duration = Duration::from_secs(1);

/// Connections that may wait for locks. With fewer connections, none waits longer than [`LOCK_WAIT`].
pub const LOCK_CONNECTIONS_MIN: usize = 3;

/// The first pause between two tries of a blocked session. It doubles with each try, up to [`LOCK_PAUSE_MAX`].
pub const LOCK_PAUSE_MIN: Duration = Duration::from_millis(50);

/// The longest pause between two tries of a blocked session. Its writers wait at most that long once it is free.
pub(crate) const LOCK_PAUSE_MAX: Duration = Duration::from_millis(500);

/// How long a write waits for a lock, tries and pauses included, before it is refused as `busy`. No try that would take
/// longer is started, so the answer comes within two seconds.
pub const BUSY_AFTER: Duration = Duration::from_millis(1_750);

/// How long a read as the caller waits for a lock. Reads wait only for table locks, for example while the app's
/// own migration runs.
pub const READ_LOCK_WAIT: Duration = Duration::from_secs(1);

/// The wait in a refusal while the database cannot answer: it cannot be reached, an open transaction holds a lock, or
/// writes arrive faster than the database commits them.
pub const RETRY_DATABASE: Duration = Duration::from_secs(1);

/// The wait in a refusal while the node is full or stopping.
pub const RETRY_NODE: Duration = Duration::from_secs(2);

/// The wait in a refusal while the key of a token cannot be looked up.
pub const RETRY_KEYS: Duration = Duration::from_secs(5);

/// The wait in a refusal to an address that has all its sockets. One of them may have closed by then.
pub const RETRY_ADDRESS: Duration = Duration::from_secs(10);

/// Blocked sessions without pending writes that are remembered, so that their next write is tried alone. Beyond
/// that, the one without a write for longest is forgotten. The bound equals the number of blocked sessions that can
/// have pending writes.
pub(crate) const HELD_PLACES_MAX: usize = WRITE_QUEUE_LEN;

/// Sessions and polls whose last write is remembered, so that among many suspects the most recently written one is
/// tried first. Beyond that, the one without a write for longest is forgotten. Each takes about 100 bytes.
pub(crate) const RECENT_PLACES_MAX: usize = 4_096;

/// Moderation calls that are in the database together. Further calls wait for at most [`BUSY_AFTER`]. They need the
/// same locks as batches, so they must not take the connections of the batches.
pub const MODERATIONS_IN_FLIGHT_MAX: usize = 2;

/// Polls that one round of closing handles, more than end in one second. The next round handles the rest.
pub const DUE_VOTINGS_MAX: i32 = 1_000;

const _: () = assert!(
    LOCK_WAIT_MIN.as_millis() < LOCK_WAIT.as_millis()
        && LOCK_WAIT.as_millis() < LOCK_WAIT_APART.as_millis()
        && LOCK_WAIT.as_millis() + LOCK_WAIT_APART.as_millis() < BUSY_AFTER.as_millis()
        && BUSY_AFTER.as_millis() + LOCK_WAIT.as_millis() < 2_000,
    "a write that waits for a lock is answered within two seconds"
);

/// Pending writes of one kind. Any further write is refused as `unavailable`. Two cores write that many in a second, so
/// accepted writes are done in time.
pub(crate) const WRITE_QUEUE_LEN: usize = 4_096;

/// Bytes of the pending writes of one kind, including the claims of their authors' tokens.
pub(crate) const WRITE_QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Pending writes of one kind by one author, over all sockets and sessions: as many as two sockets may have in flight.
pub(crate) const WRITES_PER_AUTHOR_MAX: usize = 2 * WRITES_IN_FLIGHT_PER_PEER_MAX;

/// How long a write waits for its transaction to start. After that it is refused as `unavailable`, before its
/// author gives up.
pub(crate) const WRITE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Writes on their way to the batcher. The batcher takes them without delay; a connection waits for room.
pub const WRITE_INBOX_LEN: usize = 256;

/// How long a batch is tried again while the database is unreachable. Nonces make repeated tries harmless.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(10);

const _: () = assert!(
    BATCH_BYTES_MAX <= WRITE_QUEUE_BYTES_MAX && BATCH_ITEMS_MAX <= WRITE_QUEUE_LEN,
    "a batch must fit the queue"
);
const _: () = assert!(
    BATCH_BYTES_MAX > FRAME_BYTES_MAX + ACCESS_TOKEN_BYTES_MAX,
    "any write must fit a batch"
);
const _: () = assert!(
    WRITES_PER_AUTHOR_MAX * 8 <= WRITE_QUEUE_LEN,
    "a few authors must not fill the queue"
);

/// The interval at which the gateway sends itself a probe through the database.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// The time within which a probe must return. After that the LISTEN connection is replaced.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest pause between two tries to reach the database.
pub const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Notifications that the listener passes on together.
pub const HEARD_MAX: usize = 1_024;

/// Groups of notifications that wait for a fan-out loop. If the queue is full, the listener waits, and Postgres
/// keeps the rest.
pub const HEARD_QUEUE_LEN: usize = 64;

const _: () = assert!(
    BATCH_ITEMS_MAX <= 64,
    "subtransactions beyond 64 leave the shared cache of Postgres"
);

/// Bytes of direct answers that wait for a stalled socket. Beyond that the client is closed with 4008.
pub const HELD_BYTES_MAX: usize = 512 * 1024;

/// Answers to writes that are kept for a socket that is closing: one for each write in flight, and as many refusals of
/// other frames. Each answer has less than 2 KiB.
pub const LATE_ANSWERS_MAX: usize = 2 * WRITES_IN_FLIGHT_PER_PEER_MAX;

/// Commands that a fan-out loop takes together before it looks for notifications again.
pub const COMMANDS_TAKEN_MAX: usize = 256;

/// Commands that wait for a fan-out loop. If the queue is full, a connection waits, and so does its client.
pub const COMMAND_QUEUE_LEN: usize = 4_096;

/// Events that wait for one connection. A connection whose queue is full is closed: each subscription has at most a few
/// events under way.
pub const NOTE_QUEUE_LEN: usize = 4 * SUBSCRIPTIONS_PER_PEER_MAX;

/// How long a socket may accept no bytes before its client is closed with 4008.
pub const STALL_MAX: Duration = Duration::from_secs(30);

/// How long a client may take to answer a close frame.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a closing socket waits for the answers to its pending writes, so that they are sent before the close frame.
/// A batch commits within milliseconds. A client that gets no answer sends the write again with its nonce.
pub const ANSWERS_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a client may take to send a request's head.
pub const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to send a request's body.
pub const REQUEST_BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Events in the response to one call. Clients that copy a log want large pages; [`PAGE_BYTES_MAX`] bounds them, too.
pub const CALL_EVENTS_MAX: u16 = 1_000;

/// Events in the response to a call without a limit.
pub const CALL_EVENTS_DEFAULT: u16 = 100;

/// Messages in the response to one call. The longest messages, all escaped, take 1.2 MB.
pub const CALL_MESSAGES_MAX: u16 = 100;

/// Messages in the response to a call without a limit: as many as a chat shows at first.
pub const CALL_MESSAGES_DEFAULT: u16 = 50;

/// Movies in the response to one call. A streamer chooses a ballot from them by typing the beginning of a title.
pub const CALL_MOVIES_MAX: u16 = 100;

/// Characters of a search for a movie's title. A longer text finds nothing.
pub const SEARCH_CHARS_MAX: usize = 100;

/// Bans in the response to one call, the newest first: as many as a moderator reads.
pub const CALL_BANS_MAX: i32 = 100;

/// Movies on a ballot that a call opens. One movie is no choice, and no viewer reads more than twenty in time.
pub(crate) const BALLOT_MOVIES: RangeInclusive<usize> = 2..=20;

/// Characters of a poll's question; the table has the same bound.
pub(crate) const QUESTION_CHARS_MAX: usize = 300;

/// Seconds after which a poll closes automatically: long enough for viewers to see it, and at most a week.
pub(crate) const VOTING_SECONDS: RangeInclusive<u32> = 5..=604_800;

/// Seconds between two messages of a viewer in slow mode: at most six hours; the table has the same bound.
pub(crate) const SLOW_MODE_SECONDS_MAX: u32 = 21_600;

/// Seconds of a time-out: at most a year. A longer one is a ban without an end.
pub(crate) const BAN_SECONDS_MAX: u32 = 31_536_000;

/// Characters of a ban's reason; the table has the same bound.
pub(crate) const BAN_REASON_CHARS_MAX: usize = 500;

/// File descriptors of an event stream: the client's socket, and both ends of the pair between the stream and its
/// connection. A connection permit stands for one file descriptor.
pub const FILES_PER_STREAM: u32 = 3;

/// Bytes that wait between a connection and its event stream, as the kernel counts them: a page of chat, and what a
/// slow reader's full socket may hold.
pub const STREAM_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes that an event stream reads at a time.
pub const STREAM_READ_BYTES: usize = 8 * 1024;

/// When a client reconnects after its event stream ended without a reason, in milliseconds. Each client gets another
/// value, so that they do not reconnect together.
pub const STREAM_RETURN_MS: Range<u64> = 1_000..4_000;

/// Bytes of a request's head: the largest token, and 16 KiB for cookies and headers of proxies.
pub const REQUEST_HEAD_BYTES_MAX: usize = ACCESS_TOKEN_BYTES_MAX + 16 * 1024;

/// Bytes that a connection reads at a time. Tungstenite allocates this buffer for each connection. Its default of 128
/// KiB would be most of an idle viewer's memory.
pub const READ_BUFFER_BYTES: usize = 256;

/// Bytes of plain text in one TLS record: the largest that TLS allows. Each record costs a header and a pass of the
/// cipher. A record that the socket does not accept stays in memory until it does.
pub const TLS_RECORD_BYTES: usize = 16 * 1024;

/// Bytes that a TLS connection reads at a time. They are kept only while a record is incomplete.
pub const TLS_READ_BYTES: usize = 4 * 1024;

/// Bytes of an incomplete TLS record. The largest record has 18,437. The bound also applies to a client that splits a
/// handshake message into records.
pub const TLS_INCOMING_BYTES_MAX: usize = 24 * 1024;

const _: () = assert!(
    TLS_INCOMING_BYTES_MAX >= TLS_RECORD_BYTES + 2 * 1024 + 5 + TLS_READ_BYTES,
    "the largest record must fit"
);

/// How long a client may take for the TLS handshake.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The interval at which the certificate's files are read again. The gateway serves a renewed certificate well before the
/// old one expires.
pub const TLS_RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes of a certificate chain or a key. A chain of ten long certificates has 30 KiB.
pub const PEM_BYTES_MAX: u64 = 256 * 1024;

/// Connections that wait to be accepted. The kernel caps it at `somaxconn`.
pub const ACCEPT_BACKLOG: i32 = 4_096;

const _: () = assert!(
    HELD_BYTES_MAX > PAGE_BYTES_MAX,
    "a page must fit behind a stalled socket"
);

/// A socket must accept a frame of at least this many bytes before its connection asks the database for more.
pub const RECEIPT_BYTES_MIN: usize = 16 * 1024;

/// Connections that are not, or not yet, WebSockets. For any further connection the oldest one is closed.
pub const PLAIN_CONNECTIONS_MAX: usize = 1_024;

/// Connections that are not, or not yet, WebSockets from one address that is not a trusted proxy. Many people behind
/// one address connect together when a stream begins, and a handshake takes little time.
pub const PLAIN_CONNECTIONS_PER_ADDRESS_MAX: usize = 128;

const _: () = assert!(
    PLAIN_CONNECTIONS_PER_ADDRESS_MAX * 4 <= PLAIN_CONNECTIONS_MAX,
    "a few addresses must not fill the pending connections"
);

const _: () = assert!(
    KEYS_WAITERS_MAX <= PLAIN_CONNECTIONS_MAX / 4,
    "tokens of unknown keys must not keep others from the handshake"
);

/// How long the gateway waits for its connections, and then for its tasks, when it stops.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(7);

const _: () = assert!(
    STOP_TIMEOUT.as_secs() > ANSWERS_TIMEOUT.as_secs() + 2 * CLOSE_TIMEOUT.as_secs(),
    "the close of a connection must fit the stop"
);

/// The interval between readiness checks of the database.
pub const READINESS_INTERVAL: Duration = Duration::from_secs(1);

/// How long the database may take to answer a readiness check. After that the gateway is not ready, because it could
/// not serve a new viewer.
pub const READINESS_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a fan-out loop may be silent before the process counts as stuck. A loop reports at least once per second.
pub const LOOP_SILENCE_MAX: Duration = Duration::from_secs(10);

/// Clients per second that a stopping gateway sends to other nodes. Another node with two cores can admit that many
/// with room to spare.
pub const RETURNS_PER_SECOND_MAX: u64 = 1_000;

/// The shortest time over which clients reconnect after a stop, so that a dozen clients do not reconnect together.
pub const RETURN_SPREAD_MIN: Duration = Duration::from_secs(1);

/// Users, sessions or addresses that each rate limit remembers. A new one that finds the limit full has to wait. A
/// million of them would take a node about 10 MiB.
pub const THROTTLE_KEYS_MAX: usize = 200_000;

/// The interval at which entries with a full allowance are removed.
pub const THROTTLE_SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Frames and writes of one socket that are refused for their rate within [`FLOOD_WINDOW`]. A client that continues
/// beyond that is closed.
pub const FLOOD_REFUSALS_MAX: NonZero<u32> = NonZero::new(60).expect("sixty is not zero");

/// The time after which refusals for the rate are forgotten.
pub const FLOOD_WINDOW: Duration = Duration::from_secs(60);

/// Events that one statement removes from the log.
pub const TRIM_EVENTS_MAX: u64 = 10_000;

/// Vote changes that `usher.update_vote_totals` handles per call, so that it does not lock a movie for long. The
/// function has the same number.
pub const TOTAL_CHANGES_MAX: u64 = 1_000;

/// Bytes of events that a receiver that is behind gets at a time. A stalled socket keeps at most that many in memory.
pub(crate) const RUN_BYTES_MAX: usize = 64 * 1024;

/// The time over which all receivers check their access after a lost LISTEN connection.
pub(crate) const RECHECK_SPREAD: Duration = Duration::from_secs(5);

/// The largest difference between the clocks of two nodes at which a revoked resume token is reliably void.
pub(crate) const CLOCK_SKEW_MS: u64 = 1_000;

/// How long a connection that is not a WebSocket may live.
pub const PLAIN_CONNECTION_MAX: Duration = Duration::from_secs(60);

/// How long a repeated database failure is not logged again. A night of failures then takes about a page of the log,
/// and a reader who looks late still finds it.
pub const LOG_REPEAT_INTERVAL: Duration = Duration::from_mins(10);

/// Kinds of failures that the log limiter distinguishes. There are a dozen queries, each with a handful of SQLSTATEs.
/// Further kinds share one entry.
pub const LOG_KINDS_MAX: usize = 256;

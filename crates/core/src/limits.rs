//! Every bound of the gateway, with its reason, and how the bounds relate.
//!
//! What happens at each limit is written where it is used and tested there. Nothing here can be set by an operator; what
//! two operators would set differently is a setting in `config`.

use std::num::NonZero;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

/// Bytes of one frame from a client. An `auth` frame with the largest token fits, and so does a `send` frame with 2,000
/// four-byte characters, each escaped.
pub const FRAME_BYTES_MAX: usize = 40 * 1024;

/// Bytes of a payload from which on it is compressed for those who understand it. Shorter ones hardly shrink.
pub const PACKED_BYTES_MIN: usize = 256;

/// Compressed forms that a fan-out loop keeps: of the events, of a tally as some and as others see it, of a run for those
/// who come back.
pub const PACKED_FORMS_MAX: usize = 4;

/// Pieces in which a client may send a message before the last. The largest message in pieces of 256 bytes fits; who sends
/// empty ones without an end is stopped.
pub const FRAGMENTS_MAX: u32 = 160;

/// Subscriptions on one socket. An app shows a handful of sessions at once; the protocol promises 100.
pub(crate) const SUBSCRIPTIONS_PER_PEER_MAX: usize = 100;

/// Characters of one chat message, as the database's constraint has it.
pub const BODY_CHARS_MAX: usize = 2_000;

/// Characters of the `id` that a client puts on a frame: it is echoed, so it must be small.
pub(crate) const FRAME_ID_CHARS_MAX: usize = 64;

/// The largest number that an `id` may be, and less zero the smallest: 2^53. Within these a client that computes in
/// floating point, as JavaScript does, gets back exactly the number that it sent.
pub(crate) const FRAME_ID_NUMBER_MAX: i64 = 1 << 53;

/// Events that a fresh subscription may ask for.
pub const HISTORY_MAX: u16 = 200;

/// Events that a fresh subscription gets when it does not say.
pub const HISTORY_DEFAULT: u16 = 50;

/// Bytes of a resume token, as the protocol promises.
pub const RESUME_TOKEN_BYTES_MAX: usize = 512;

/// Bytes of a JWT. Supabase's have around one KiB; what hooks and identity providers put into the claims, such as groups,
/// makes them tens. A connection keeps the claims, three quarters of the token: with the largest, 18,000 viewers take
/// 430 MiB; with the usual, 14 MiB.
pub const ACCESS_TOKEN_BYTES_MAX: usize = 32 * 1024;

/// Bytes of the name (`kid`) of a key. Supabase's are uuids, others' are hashes.
pub const KEY_ID_BYTES_MAX: usize = 256;

/// Keys that are taken from a key server. A project that rotates has three; a token without a name may be tried with all
/// of them.
pub const SIGNING_KEYS_MAX: usize = 16;

/// Bytes of a key server's answer. Sixteen RSA keys of 4,096 bits, with their certificates, fit.
pub const KEY_SET_BYTES_MAX: usize = 64 * 1024;

/// How often the key server is asked, give or take a fifth. Supabase lets its answer be kept for ten minutes, and publishes
/// a key before it signs with it.
pub const KEYS_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// How long the key server may take for an answer.
pub const KEYS_TIMEOUT: Duration = Duration::from_secs(5);

/// The least time between two questions to the key server, whatever tokens come.
pub const KEYS_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause between two tries to reach a key server that fails.
pub const KEYS_RETRY_MAX: Duration = Duration::from_secs(60);

/// Tokens that wait for the key server at a time; a token beyond is refused as `unavailable`.
pub const KEYS_WAITERS_MAX: usize = 256;

/// How long a socket may stay without a token where anonymous viewers are not allowed.
pub(crate) const AUTH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long before its token expires a client is warned.
pub(crate) const TOKEN_WARNING: Duration = Duration::from_secs(60);

/// Bytes of events in one `events` frame, beyond which a further frame is begun: small enough for any client's parser,
/// large enough that the frame's own overhead vanishes.
pub(crate) const EVENTS_FRAME_BYTES_MAX: usize = 32 * 1024;

/// Events in one page of the log that somebody is caught up with. At some 3 µs an event the database is done with it in
/// well under a millisecond, so that a herd that is behind keeps no connection for long.
pub const PAGE_EVENTS_MAX: usize = 200;

/// Bytes of one page of the log; one event is always read, however large.
pub const PAGE_BYTES_MAX: usize = 256 * 1024;

/// Bytes that a session's in-memory window holds. 256 KiB are about 800 chat messages; a thousand live sessions are
/// then 256 MiB at the very most.
pub const RING_BYTES_MAX: usize = 256 * 1024;

/// Bytes by which a session's window may outgrow its bound within a round; then it is written out before more is taken,
/// so that a burst cannot grow it without end.
pub(crate) const FLUSH_BYTES_MAX: usize = 256 * 1024;

/// Messages and votes of one socket whose answer is not there yet.
pub(crate) const WRITES_IN_FLIGHT_PER_PEER_MAX: usize = 32;

/// Admissions and pages that one socket may have asked for at once; further ones wait their turn.
pub const QUERIES_IN_FLIGHT_PER_PEER_MAX: usize = 8;

/// Frames that are no JSON objects, after which a socket is taken to speak another protocol.
pub const MALFORMED_FRAMES_MAX: u32 = 5;

/// How long a subscription waits before it asks again, when the database had no answer or the epochs disagree.
pub(crate) const ADMISSION_RETRY: Duration = Duration::from_millis(1_000);

/// Callers whose access is checked in one query: at some 0.1 ms each it keeps its connection for a few milliseconds.
pub const ACCESS_CHECK_CALLERS_MAX: usize = 50;

/// How long a check of access that is only due waits for company. With 18,000 viewers and an interval of a minute some
/// thirty come together.
pub const ACCESS_CHECK_GATHER: Duration = Duration::from_millis(100);

/// Checks of access on their way to the task that gathers them, which always takes them at once; a connection waits for
/// room.
pub const ACCESS_CHECK_QUEUE_LEN: usize = 4_096;

/// Users and sessions whose resume tokens are voided one by one; beyond it all tokens issued so far are void.
pub(crate) const REVOCATIONS_MAX: usize = 10_000;

/// Votings of one session whose latest tally is remembered for those who join or were stalled.
pub(crate) const TALLIES_PER_SESSION_MAX: usize = 16;

/// Polls that wait for their counts to be read, some 10 MB of them. When more change, the counts of every poll that
/// somebody watches are read once half of these are done: no last tally is lost.
pub const DIRTY_VOTINGS_MAX: usize = 100_000;

/// Polls whose counts one query reads, so that a query ends well within [`QUERY_TIMEOUT`] however many polls changed.
pub const TALLIES_READ_MAX: usize = 1_000;

/// Polls of one session whose tally was pushed out of [`TALLIES_PER_SESSION_MAX`] while somebody was stalled: their counts
/// are read again for that receiver. A session has one open poll at a time.
pub(crate) const FORGOTTEN_TALLIES_MAX: usize = 1_024;

const _: () = assert!(FRAGMENTS_MAX as usize * 256 >= FRAME_BYTES_MAX);
const _: () = assert!(
    FRAME_BYTES_MAX >= ACCESS_TOKEN_BYTES_MAX + 12 * FRAME_ID_CHARS_MAX + 1_024,
    "an auth frame with the largest token, and an id that is all escapes, must fit"
);
const _: () = assert!(
    PAGE_BYTES_MAX <= RING_BYTES_MAX,
    "a refilled page must fit the window"
);
const _: () = assert!(
    EVENTS_FRAME_BYTES_MAX >= 4 * BODY_CHARS_MAX,
    "one message must fit a frame"
);
const _: () = assert!(
    HISTORY_MAX as usize <= PAGE_EVENTS_MAX,
    "a history is one page at most"
);
const _: () = assert!(SUBSCRIPTIONS_PER_PEER_MAX >= QUERIES_IN_FLIGHT_PER_PEER_MAX);

/// How long the window of a session is kept up after its last viewer left, so that a herd that was dropped finds it.
pub(crate) const SESSION_LINGER: Duration = Duration::from_secs(60);

/// Sessions without a viewer whose windows are kept up; beyond it the longest idle goes first.
pub(crate) const LINGERING_SESSIONS_MAX: usize = 256;

/// How long a question to the database may take, waiting for a connection included.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages, or votes, in one transaction: enough to share one commit, few enough that the last does not wait for long
/// and that Postgres keeps the subtransactions in memory (it caches 64).
pub(crate) const BATCH_ITEMS_MAX: usize = 50;

/// Bytes in one transaction, as far as its writes carry them: beside fifty messages of the usual length nothing, and the
/// largest fit a few dozen times. One write is always taken.
pub(crate) const BATCH_BYTES_MAX: usize = 512 * 1024;

/// Transactions of a kind that are under way at a time, in different sessions: the next batch is under way while the last
/// one commits. One more tries the sessions whose locks are not to be had.
pub const BATCHES_IN_FLIGHT_MAX: usize = 2;

/// How long a transaction waits for one lock before it is rolled back and its sessions are tried one by one. Several
/// commits of other nodes fit; the writes that share the transaction with a blocked session wait no longer than that.
pub const LOCK_WAIT: Duration = Duration::from_millis(200);

/// The shortest wait for a lock: longer than a commit that is just ending.
pub const LOCK_WAIT_MIN: Duration = Duration::from_millis(10);

/// How long a lock is waited for apart from everything else. Locks are given in turn, so where many write to one session by
/// SQL it is had within this time; only one connection waits.
pub const LOCK_WAIT_APART: Duration = Duration::from_secs(1);

/// How long one round of tries over everything that is blocked takes, as far as [`LOCK_WAIT_MIN`] for each allows: with a
/// hundred blocked sessions, one that is free again is found within a second or little more.
pub(crate) const LOCK_ROUND: Duration = Duration::from_secs(1);

/// Connections that may wait for locks, below which one of them never waits longer than [`LOCK_WAIT`].
pub const LOCK_CONNECTIONS_MIN: usize = 3;

/// The first pause between two tries of a blocked session; it doubles with each, up to [`LOCK_PAUSE_MAX`].
pub const LOCK_PAUSE_MIN: Duration = Duration::from_millis(50);

/// The longest pause between two tries of a blocked session: its writers wait no longer than that once it is free.
pub(crate) const LOCK_PAUSE_MAX: Duration = Duration::from_millis(500);

/// How long a write waits for a lock, tries and pauses together, before it is refused as `busy`. No try begins that would
/// take longer, so the answer comes within two seconds.
pub const BUSY_AFTER: Duration = Duration::from_millis(1_750);

/// How long a read as a caller waits for a lock. Reads wait for a table alone, as while a migration of the app holds it.
pub const READ_LOCK_WAIT: Duration = Duration::from_secs(1);

/// When a write that was refused as `busy` is worth another try, in milliseconds.
pub(crate) const BUSY_RETRY_MS: u64 = 1_000;

/// Blocked sessions without a waiting write that are remembered, so that their next write is tried by itself; beyond it
/// the one without a write for longest is forgotten. As many as can be blocked with writes that wait.
pub(crate) const HELD_PLACES_MAX: usize = WRITE_QUEUE_LEN;

/// Sessions and polls whose last write is remembered, so that of many under suspicion the one that was written to most
/// recently is tried first. Beyond it the one without a write for longest is forgotten; about 100 bytes each.
pub(crate) const RECENT_PLACES_MAX: usize = 4_096;

/// Calls of moderation that are in the database at a time; further ones wait for [`BUSY_AFTER`] at most. They lock what
/// batches lock, so they must not take the connections of the batches.
pub const MODERATIONS_IN_FLIGHT_MAX: usize = 2;

/// Votings that one round of closing looks at. More than end in one second; the rest follows in the next.
pub const DUE_VOTINGS_MAX: i32 = 1_000;

const _: () = assert!(
    LOCK_WAIT_MIN.as_millis() < LOCK_WAIT.as_millis()
        && LOCK_WAIT.as_millis() < LOCK_WAIT_APART.as_millis()
        && LOCK_WAIT.as_millis() + LOCK_WAIT_APART.as_millis() < BUSY_AFTER.as_millis()
        && BUSY_AFTER.as_millis() + LOCK_WAIT.as_millis() < 2_000,
    "whoever waits for a lock is answered within two seconds"
);

/// Writes of a kind that wait; one beyond is refused as `unavailable`. A second's worth on two cores, so that what is
/// accepted is done in time.
pub(crate) const WRITE_QUEUE_LEN: usize = 4_096;

/// Bytes of writes of a kind that wait, with what their authors' tokens claim.
pub(crate) const WRITE_QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Writes of a kind that one author has waiting, over all sockets and sessions: what two sockets may have under way.
pub(crate) const WRITES_PER_AUTHOR_MAX: usize = 2 * WRITES_IN_FLIGHT_PER_PEER_MAX;

/// How long a write waits for its transaction to begin; then it is refused as `unavailable`, before its author has given
/// up on it.
pub(crate) const WRITE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Writes on their way to the batcher, which always takes them at once; a connection waits for room.
pub const WRITE_INBOX_LEN: usize = 256;

/// How long a batch is tried again while the database is away; its nonces make trying again harmless.
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
    "no handful of authors fills the queue"
);

/// How often the gateway hears from itself through the database.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// How long the echo of a probe may take before the LISTEN connection is given up.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest pause between two tries to reach the database.
pub const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Notifications that are handed on together at most.
pub const HEARD_MAX: usize = 1_024;

/// Groups of notifications that wait for a fan-out loop. When it is full the listener waits, and Postgres keeps the rest.
pub const HEARD_QUEUE_LEN: usize = 64;

const _: () = assert!(
    BATCH_ITEMS_MAX <= 64,
    "subtransactions beyond 64 leave the shared cache of Postgres"
);

/// Bytes of direct answers that wait for a stalled socket; beyond it the client is closed as too slow.
pub const HELD_BYTES_MAX: usize = 512 * 1024;

/// Answers to writes that come for a socket that is given up already, and are kept for its close: those of all writes that
/// it may have under way, and as many refusals of other frames. Each has less than two KiB.
pub const LATE_ANSWERS_MAX: usize = 2 * WRITES_IN_FLIGHT_PER_PEER_MAX;

/// Commands that a fan-out loop takes at a time, before it looks for news again.
pub const COMMANDS_TAKEN_MAX: usize = 256;

/// Commands that wait for a fan-out loop. When it is full a connection waits, and with it its client.
pub const COMMAND_QUEUE_LEN: usize = 4_096;

/// Notes that wait for one connection. A connection that leaves so many unread is given up: each subscription has at most
/// a few under way.
pub const NOTE_QUEUE_LEN: usize = 4 * SUBSCRIPTIONS_PER_PEER_MAX;

/// How long a socket may take nothing before its client is closed as too slow.
pub const STALL_MAX: Duration = Duration::from_secs(30);

/// How long a client has to answer a close frame.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a socket that the gateway closes waits for the answers to its pending writes, so that they come before the
/// close. A batch commits within milliseconds; a client that gets no answer sends the write again with its nonce.
pub const ANSWERS_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a client may take to send the head of a request.
pub const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to send the body of a request.
pub const REQUEST_BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Events in the answer to one call. Whoever copies a log wants large pages; [`PAGE_BYTES_MAX`] bounds them as well.
pub const CALL_EVENTS_MAX: u16 = 1_000;

/// Events in the answer to a call that does not say.
pub const CALL_EVENTS_DEFAULT: u16 = 100;

/// Messages in the answer to one call: the longest, all escaped, are then 1.2 MB.
pub const CALL_MESSAGES_MAX: u16 = 100;

/// Messages in the answer to a call that does not say: what a chat shows at first.
pub const CALL_MESSAGES_DEFAULT: u16 = 50;

/// Movies in the answer to one call: a catalogue to choose a ballot from, of which one types the beginning of a title.
pub const CALL_MOVIES_MAX: u16 = 100;

/// Characters of what a movie's title is searched for; a longer text finds nothing.
pub const SEARCH_CHARS_MAX: usize = 100;

/// Bans in the answer to one call, the newest: what a moderator looks through.
pub const CALL_BANS_MAX: i32 = 100;

/// Movies on a ballot that is opened by a call: one is no choice, and more than twenty nobody reads in time.
pub(crate) const BALLOT_MOVIES: RangeInclusive<usize> = 2..=20;

/// Characters of a voting's question; the table has the same bound.
pub(crate) const QUESTION_CHARS_MAX: usize = 300;

/// Seconds that a voting is open which closes by itself: long enough to be seen, and at most a week.
pub(crate) const VOTING_SECONDS: RangeInclusive<u32> = 5..=604_800;

/// Seconds between two messages of a viewer in slow mode, six hours; the table has the same bound.
pub(crate) const SLOW_MODE_SECONDS_MAX: u32 = 21_600;

/// Seconds of a time-out, a year: whoever is to stay away for longer is banned for good.
pub(crate) const BAN_SECONDS_MAX: u32 = 31_536_000;

/// Characters of a ban's reason; the table has the same bound.
pub(crate) const BAN_REASON_CHARS_MAX: usize = 500;

/// When a call is worth another try that found the database away, in milliseconds.
pub const CALL_RETRY_MS: u64 = 1_000;

/// Files of an event stream: the client's socket and both ends of the pair between it and its connection. A seat stands
/// for a file.
pub const FILES_PER_STREAM: u32 = 3;

/// Bytes that wait between a connection and the event stream that is its client, as the kernel counts them: a page of
/// chat, and what a full socket's worth of a slow reader may hold.
pub const STREAM_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes that an event stream reads at a time.
pub const STREAM_READ_BYTES: usize = 8 * 1024;

/// When the client of an event stream comes back that ends without a word, in milliseconds: each is told another time, so
/// that a herd does not come as one.
pub const STREAM_RETURN_MS: Range<u64> = 1_000..4_000;

/// Bytes of the head of a request: the largest token, and 16 KiB of cookies and whatever proxies add.
pub const REQUEST_HEAD_BYTES_MAX: usize = ACCESS_TOKEN_BYTES_MAX + 16 * 1024;

/// Bytes that a connection reads at a time. Tungstenite allocates them for each; its default of 128 KiB would be most of
/// an idle viewer's memory.
pub const READ_BUFFER_BYTES: usize = 256;

/// Bytes of plain text in one TLS record, the most that there can be: each costs a header and a pass of the cipher, and
/// one that a socket does not take stays in memory until it does.
pub const TLS_RECORD_BYTES: usize = 16 * 1024;

/// Bytes that are read at a time under TLS. They are kept only while a record is not complete.
pub const TLS_READ_BYTES: usize = 4 * 1024;

/// Bytes of a record that is not complete: the largest there is has 18,437. A client that splits a handshake message
/// into records is bounded by it too.
pub const TLS_INCOMING_BYTES_MAX: usize = 24 * 1024;

const _: () = assert!(
    TLS_INCOMING_BYTES_MAX >= TLS_RECORD_BYTES + 2 * 1024 + 5 + TLS_READ_BYTES,
    "the largest record must fit"
);

/// How long a client may take to shake hands for TLS.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the files of the certificate are looked at: a renewed one is served well before the old one ends.
pub const TLS_RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes of a certificate chain or a key. A chain of ten long certificates has 30 KiB.
pub const PEM_BYTES_MAX: u64 = 256 * 1024;

/// Connections that wait to be accepted; the kernel caps it at `somaxconn`.
pub const ACCEPT_BACKLOG: i32 = 4_096;

const _: () = assert!(
    HELD_BYTES_MAX > PAGE_BYTES_MAX,
    "a page must fit behind a stalled socket"
);

/// Bytes of a frame from which on its sender waits until the socket took it, before it asks the database for more.
pub const RECEIPT_BYTES_MIN: usize = 16 * 1024;

/// Connections that are not, or not yet, WebSockets; for one more the oldest is turned out.
pub const PLAIN_CONNECTIONS_MAX: usize = 1_024;

/// Those of one address that is no trusted proxy. Many people behind one address connect at once when a stream begins; a
/// handshake is over in a blink.
pub const PLAIN_CONNECTIONS_PER_ADDRESS_MAX: usize = 128;

const _: () = assert!(
    PLAIN_CONNECTIONS_PER_ADDRESS_MAX * 4 <= PLAIN_CONNECTIONS_MAX,
    "a few addresses must not fill the lobby"
);

const _: () = assert!(
    KEYS_WAITERS_MAX <= PLAIN_CONNECTIONS_MAX / 4,
    "tokens of unknown keys must not keep others from the handshake"
);

/// How long the gateway waits for its connections, and then for its parts, when it stops.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(7);

const _: () = assert!(
    STOP_TIMEOUT.as_secs() > ANSWERS_TIMEOUT.as_secs() + 2 * CLOSE_TIMEOUT.as_secs(),
    "a farewell must fit the stop"
);

/// How often the database is looked at for readiness.
pub const READINESS_INTERVAL: Duration = Duration::from_secs(1);

/// How long the database may take to answer that, before a new viewer could not be said to be served.
pub const READINESS_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a fan-out loop, which has a turn each second at least, may take none before the process is taken for stuck.
pub const LOOP_SILENCE_MAX: Duration = Duration::from_secs(10);

/// Clients that are sent away a second when the gateway stops: what another node of two cores admits with room to spare.
pub const RETURNS_PER_SECOND_MAX: u64 = 1_000;

/// The least time over which those who were sent away come back, so that a dozen does not come as one.
pub const RETURN_SPREAD_MIN: Duration = Duration::from_secs(1);

/// Users, sessions or addresses that each rate remembers; a stranger who finds it full waits. A million strangers cost
/// a node some ten MiB.
pub const THROTTLE_KEYS_MAX: usize = 200_000;

/// How often those are forgotten who have their whole allowance back.
pub const THROTTLE_SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Frames and writes of one socket that are refused for their rate within [`FLOOD_WINDOW`]; a client that goes on
/// regardless is closed.
pub const FLOOD_REFUSALS_MAX: NonZero<u32> = NonZero::new(60).expect("sixty is not zero");

/// The time in which refusals for the rate are forgiven.
pub const FLOOD_WINDOW: Duration = Duration::from_secs(60);

/// Events that leave the log in one statement.
pub const TRIM_EVENTS_MAX: u64 = 10_000;

/// Changes of votes that `usher.update_vote_totals` takes in at a time, so that it holds no movie for long. The function
/// has the same number.
pub const TOTAL_CHANGES_MAX: u64 = 1_000;

/// Bytes of events that one receiver that is behind is given at a time: a socket that takes nothing pins no more.
pub(crate) const RUN_BYTES_MAX: usize = 64 * 1024;

/// Time over which all receivers are admitted again after a lost LISTEN connection.
pub(crate) const RECHECK_SPREAD: Duration = Duration::from_secs(5);

/// How far the clocks of two nodes may be apart before a voided resume token could live on.
pub(crate) const CLOCK_SKEW_MS: u64 = 1_000;

/// How long a connection that is no WebSocket may live.
pub const PLAIN_CONNECTION_MAX: Duration = Duration::from_secs(60);

/// How long the same failure of the database is not logged again: a night of it is a page, and a reader who comes late
/// still finds it.
pub const LOG_REPEAT_INTERVAL: Duration = Duration::from_mins(10);

/// Kinds of failures that are told apart in the log. There are a dozen questions, each with a handful of SQLSTATEs; what
/// is beyond shares a line.
pub const LOG_KINDS_MAX: usize = 256;

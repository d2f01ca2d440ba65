//! Every bound of the core, with its reason, and the relations between bounds.
//!
//! The code that uses a bound documents and tests the behaviour at the limit. An operator cannot set a bound. Values
//! that operators need to choose are settings in `config`.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Bytes of one client frame. An `auth` frame with the largest token fits, and so does a `send` frame with 2,000
/// four-byte characters, each escaped.
pub const FRAME_BYTES_MAX: usize = 40 * 1024;

/// Payloads of at least this many bytes are compressed for clients that support it. Shorter ones hardly shrink.
pub const PACKED_BYTES_MIN: usize = 256;

/// Fragments of a message before the last one. The largest message fits in fragments of 256 bytes. A client that sends
/// empty fragments without end is closed.
pub const FRAGMENTS_MAX: u32 = 160;

/// Subscriptions on one socket. An app shows a handful of sessions at a time; the protocol promises 100.
pub const SUBSCRIPTIONS_PER_PEER_MAX: usize = 100;

/// Characters of one chat message; the table has the same bound.
pub const BODY_CHARS_MAX: usize = 2_000;

/// Characters of a client frame's `id`. The gateway echoes it, so it must be small.
pub(crate) const FRAME_ID_CHARS_MAX: usize = 64;

/// The largest value of a numeric `id`, and the smallest without its sign: 2^53. Up to there, a client that computes in
/// floating point, such as JavaScript, gets back exactly the number that it sent.
pub(crate) const FRAME_ID_NUMBER_MAX: i64 = 1 << 53;

/// The largest frame of the gateway that a client accepts, in bytes. The gateway's largest frames have a few hundred KiB.
pub(crate) const SERVER_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A larger buffer for an incomplete frame is freed once it is empty.
pub(crate) const KEPT_BYTES_MAX: usize = 4 * 1024;

/// Bytes of the longest header of an unmasked frame.
pub const HEADER_BYTES_MAX: usize = 10;

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

/// Seconds by which the clocks of the issuer and of this machine may differ. Machines with NTP differ by less than one.
pub(crate) const TOKEN_LEEWAY_SECONDS: u64 = 5;

/// The last second of the year 9999. A later expiry is reduced to it, so that sums with it cannot overflow.
pub(crate) const EXPIRES_AT_MAX: u64 = 253_402_300_799;

/// Characters of a refused role, or of a refused claim's name, that the error repeats.
pub(crate) const REPEATED_CHARS_MAX: usize = 40;

/// Characters of a refused issuer that the operator sees.
pub(crate) const REFUSED_ISSUER_CHARS_MAX: usize = 200;

/// Bits of an RSA key. Shorter keys are not safe (RFC 7518 §3.3); longer ones are too slow.
pub(crate) const RSA_BITS: RangeInclusive<usize> = 2_048..=8_192;

/// Keys that are used from a key server. A project that rotates its keys has three. A token without a `kid` may be
/// tried with all of them.
pub const SIGNING_KEYS_MAX: usize = 16;

/// The time within which a client must send a token where anonymous viewers are not allowed.
pub(crate) const AUTH_TIMEOUT: Duration = Duration::from_secs(10);

/// The time before a token's expiry at which the client is warned.
pub(crate) const TOKEN_WARNING: Duration = Duration::from_secs(60);

/// Bytes of events in one `events` frame; further events go into another frame. Small enough for any client's parser,
/// large enough that the frame's own overhead does not matter.
pub(crate) const EVENTS_FRAME_BYTES_MAX: usize = 32 * 1024;

/// Bytes of one page of the log. At least one event is read, however large it is.
pub const PAGE_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a session's ring. 256 KiB hold about 800 chat messages. A thousand live sessions take at most 256 MiB.
pub const RING_BYTES_MAX: usize = 256 * 1024;

/// Bytes by which a session's ring may exceed its bound within one round. Beyond that the ring is flushed before it
/// takes further events, so a burst cannot grow it without end.
pub(crate) const FLUSH_BYTES_MAX: usize = 256 * 1024;

/// Messages and votes of one socket that have no answer yet.
pub const WRITES_IN_FLIGHT_PER_PEER_MAX: usize = 32;

/// Frames that are not JSON objects before a socket is closed: the client speaks another protocol.
pub const MALFORMED_FRAMES_MAX: u32 = 5;

/// The pause before a subscription asks again, if the database did not answer or the epochs differ.
pub(crate) const ADMISSION_RETRY: Duration = Duration::from_millis(1_000);

/// Users and sessions whose resume tokens are voided individually. Beyond that, all tokens issued so far are void.
pub(crate) const REVOCATIONS_MAX: usize = 10_000;

/// Polls of one session whose latest tally is kept for receivers that join or were stalled.
pub(crate) const TALLIES_PER_SESSION_MAX: usize = 16;

/// Polls that wait for their counts to be read, about 10 MB in total. If more polls change, the counts of every watched
/// poll are read once half of these are done, so no last tally is lost.
pub const DIRTY_VOTINGS_MAX: usize = 100_000;

/// Polls whose counts one query reads. A query then ends well within the timeout of a query, however many polls changed.
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

/// How long a session's ring is kept up to date after its last viewer left, so that clients that reconnect
/// together find it.
pub(crate) const SESSION_LINGER: Duration = Duration::from_secs(60);

/// Sessions without viewers whose rings are kept up to date. Beyond that, the one that is idle for
/// longest is forgotten.
pub(crate) const LINGERING_SESSIONS_MAX: usize = 256;

/// Messages or votes in one transaction. Enough to share one commit; few enough that the last write does not wait long,
/// and that Postgres keeps the subtransactions in memory (it caches 64).
pub(crate) const BATCH_ITEMS_MAX: usize = 50;

/// Bytes of the writes in one transaction. Fifty messages of usual length are far below it; the largest fit a few dozen
/// times. At least one write is always taken.
pub(crate) const BATCH_BYTES_MAX: usize = 512 * 1024;

/// The shortest wait for a lock: longer than the end of a commit.
pub const LOCK_WAIT_MIN: Duration = Duration::from_millis(10);

/// How long a session that is tried alone waits for its lock. Postgres grants locks in order of request, so even a
/// session with many SQL writers gets its lock within this time. Only one connection waits.
pub const LOCK_WAIT_APART: Duration = Duration::from_secs(1);

/// The time of one round of tries over all blocked sessions, if [`LOCK_WAIT_MIN`] for each of them allows it. With a
/// hundred blocked sessions, one that becomes free is found within about a second.
pub(crate) const LOCK_ROUND: Duration = Duration::from_secs(1);

/// The first pause between two tries of a blocked session. It doubles with each try, up to [`LOCK_PAUSE_MAX`].
pub const LOCK_PAUSE_MIN: Duration = Duration::from_millis(50);

/// The longest pause between two tries of a blocked session. Its writers wait at most that long once it is free.
pub(crate) const LOCK_PAUSE_MAX: Duration = Duration::from_millis(500);

/// How long a write waits for a lock, tries and pauses included, before it is refused as `busy`. No try that would take
/// longer is started, so the answer comes within two seconds.
pub const BUSY_AFTER: Duration = Duration::from_millis(1_750);

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

const _: () = assert!(
    BATCH_ITEMS_MAX <= 64,
    "subtransactions beyond 64 leave the shared cache of Postgres"
);

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

/// Bytes of events that a receiver that is behind gets at a time. A stalled socket keeps at most that many in memory.
pub(crate) const RUN_BYTES_MAX: usize = 64 * 1024;

/// The time over which all receivers check their access after a lost LISTEN connection.
pub(crate) const RECHECK_SPREAD: Duration = Duration::from_secs(5);

/// The largest difference between the clocks of two nodes at which a revoked resume token is reliably void.
pub(crate) const CLOCK_SKEW_MS: u64 = 1_000;

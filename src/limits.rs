//! Every bound of the gateway, with its reason, and how the bounds relate.
//!
//! What happens at each limit is written where it is used and tested there. Nothing here can be set by an operator; what
//! two operators would set differently is a setting in `config`.

use std::time::Duration;

/// Bytes of one frame from a client. A send frame with 2,000 four-byte characters, each escaped, fits.
pub const FRAME_BYTES_MAX: usize = 32 * 1024;

/// Subscriptions on one socket. An app shows a handful of sessions at once; the protocol promises 100.
pub const SUBSCRIPTIONS_PER_PEER_MAX: usize = 100;

/// Characters of one chat message, as the database's constraint has it.
pub const BODY_CHARS_MAX: usize = 2_000;

/// Characters of the `id` that a client puts on a frame: it is echoed, so it must be small.
pub const FRAME_ID_CHARS_MAX: usize = 64;

/// Events that a fresh subscription may ask for.
pub const HISTORY_MAX: u16 = 200;

/// Events that a fresh subscription gets when it does not say.
pub const HISTORY_DEFAULT: u16 = 50;

/// Bytes of a resume token, as the protocol promises.
pub const RESUME_TOKEN_BYTES_MAX: usize = 512;

/// Bytes of a JWT. Supabase's are around one KiB; custom claims make them a few.
pub const ACCESS_TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Bytes of a NOTIFY payload beyond which the database sends the number alone. Postgres refuses 8,000.
pub const NOTIFY_BYTES_MAX: usize = 8_000;

/// How long a socket may stay without a token where anonymous viewers are not allowed.
pub const AUTH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long before its token expires a client is warned.
pub const TOKEN_WARNING: Duration = Duration::from_secs(60);

/// Bytes of events in one `events` frame, beyond which a further frame is begun: small enough for any client's parser,
/// large enough that the frame's own overhead vanishes.
pub const EVENTS_FRAME_BYTES_MAX: usize = 32 * 1024;

/// Events in one page of the log.
pub const PAGE_EVENTS_MAX: usize = 500;

/// Bytes of one page of the log; one event is always read, however large.
pub const PAGE_BYTES_MAX: usize = 256 * 1024;

/// Bytes that a session's in-memory window holds. 256 KiB are about 800 chat messages; a thousand live sessions are
/// then 256 MiB at the very most.
pub const RING_BYTES_MAX: usize = 256 * 1024;

/// Bytes by which a session's window may outgrow its bound within a round; then it is written out before more is taken,
/// so that a burst cannot grow it without end.
pub const FLUSH_BYTES_MAX: usize = 256 * 1024;

/// Messages and votes of one socket whose answer is not there yet.
pub const WRITES_IN_FLIGHT_PER_PEER_MAX: usize = 32;

/// Admissions and pages that one socket may have asked for at once; further ones wait their turn.
pub const QUERIES_IN_FLIGHT_PER_PEER_MAX: usize = 8;

/// Frames that are no JSON objects, after which a socket is taken to speak another protocol.
pub const MALFORMED_FRAMES_MAX: u32 = 5;

/// How long a subscription waits before it asks again, when the database had no answer or the epochs disagree.
pub const ADMISSION_RETRY: Duration = Duration::from_millis(1_000);

/// Users and sessions whose resume tokens are voided one by one; beyond it all tokens issued so far are void.
pub const REVOCATIONS_MAX: usize = 10_000;

/// Votings of one session whose latest tally is remembered for those who join or were stalled.
pub const TALLIES_PER_SESSION_MAX: usize = 16;

/// Votings that wait for their counts to be read; beyond it the oldest promise is kept by reading more often.
pub const DIRTY_VOTINGS_MAX: usize = 100_000;

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
pub const SESSION_LINGER: Duration = Duration::from_secs(60);

/// Sessions without a viewer whose windows are kept up; beyond it the longest idle goes first.
pub const LINGERING_SESSIONS_MAX: usize = 256;

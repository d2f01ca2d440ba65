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

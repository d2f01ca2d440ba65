//! Decides, before the database is asked, whether a caller may write at all: over a socket or over HTTP.

use crate::auth::identity::{Identity, Role};
use crate::protocol::id::UserId;
use crate::protocol::refusal::{Refusal, RefusalCode};

/// Returns the author of a caller's writes. Every write needs one, since limits count by author: a message, a vote, an
/// act of moderation. Whether the author may do it is for the database to say.
///
/// # Errors
/// `forbidden` for an anonymous caller: one without a token, with the project's anon key, or with an overlay token.
pub fn may_write(identity: &Identity) -> Result<UserId, Refusal> {
    match (identity.role, identity.subject) {
        (Role::Authenticated, Some(user)) => Ok(user),
        (Role::Anon, _) | (Role::Authenticated, None) => Err(Refusal::new(
            RefusalCode::Forbidden,
            "sign in to write: this caller is anonymous",
        )),
    }
}

//! Decides whether a caller may write at all, over a socket or over HTTP, before the gateway asks the database.

use crate::auth::identity::{Identity, Role};
use crate::protocol::id::UserId;
use crate::protocol::refusal::{Refusal, RefusalCode};

/// Returns the author of a caller's writes. Every message, vote and moderation call needs an author, because limits
/// count by author. The database then decides whether that author may make the write.
///
/// # Errors
/// `forbidden` for an anonymous caller: no token, the project's anon key, or an overlay token.
pub fn may_write(identity: &Identity) -> Result<UserId, Refusal> {
    match (identity.role, identity.subject) {
        (Role::Authenticated, Some(user)) => Ok(user),
        (Role::Anon, _) | (Role::Authenticated, None) => Err(Refusal::new(
            RefusalCode::Forbidden,
            "sign in to write: this caller is anonymous",
        )),
    }
}

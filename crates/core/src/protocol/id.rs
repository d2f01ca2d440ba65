//! Ids: one newtype per role, so that the compiler rejects a mixed-up pair.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_newtype! {
    /// A live movie session: a row of `movie_sessions`.
    SessionId
}
uuid_newtype! {
    /// A poll: a row of `voting_sessions`.
    VotingId
}
uuid_newtype! {
    /// A user: the `sub` of a token and a row of `profiles`.
    UserId
}
uuid_newtype! {
    /// A movie on a ballot.
    MovieId
}
uuid_newtype! {
    /// A chat message: a row of `chat_messages`.
    MessageId
}
uuid_newtype! {
    /// A client's id for a message. It makes repeated sends of the message harmless.
    Nonce
}

/// The number of an event in its session's log: 1, 2, 3, … without a gap. 0 is the position before the first event.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Returns the next number.
    #[must_use]
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

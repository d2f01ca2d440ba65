//! The chat messages of a session, newest first, including those that have left the log.

use tokio_postgres::types::Type;

use crate::limits::READ_LOCK_WAIT;
use crate::postgres::settings::begin_read_only;
use crate::postgres::statement::{Parameter, StoreError, query};
use crate::postgres::store::Store;
use crate::postgres::transaction::as_caller;
use usher_core::auth::identity::Identity;
use usher_core::protocol::id::{MessageId, Seq, SessionId};

/// The end of a page of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// The newest messages.
    Now,
    /// Before an event of the log.
    Event(Seq),
    /// Before a message that has left the log.
    Message {
        /// The time of the message, in microseconds since 1970.
        at_us: i64,
        /// The id, which tells messages of the same time apart.
        id: MessageId,
    },
}

/// A page of messages.
#[derive(Debug)]
pub(crate) struct ChatPage {
    /// The messages, each as a JSON object.
    pub(crate) messages: Vec<String>,
    /// The text of [`Before`] for the next page; `None` if there is none.
    pub(crate) next: Option<String>,
}

impl Store {
    /// Reads messages of a session as the caller, under the caller's own policies.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub(crate) async fn messages(
        &self,
        session: SessionId,
        identity: &Identity,
        before: Before,
        count: u16,
    ) -> Result<ChatPage, StoreError> {
        let (seq, at_us, id) = match before {
            Before::Now => (None, None, None),
            Before::Event(seq) => (Some(i64::try_from(seq.0).unwrap_or(i64::MAX)), None, None),
            Before::Message { at_us, id } => (None, Some(at_us), Some(id.0)),
        };
        let count = i32::from(count);
        let begin = begin_read_only(READ_LOCK_WAIT);
        let page: [Parameter<'_>; 5] = [
            (&session.0, Type::UUID),
            (&seq, Type::INT8),
            (&at_us, Type::INT8),
            (&id, Type::UUID),
            (&count, Type::INT4),
        ];
        let read = async {
            let client = self.client().await?;
            let sql = "select messages, next from usher.messages_before($1, $2, $3, $4, $5)";
            let rows = query(&client, sql, &page);
            let rows = as_caller(&client, &begin, identity, rows).await?;
            let row = rows.first();
            Ok(ChatPage {
                messages: row.map(|row| row.get(0)).unwrap_or_default(),
                next: row.and_then(|row| row.get(1)),
            })
        };
        self.deadline(read).await
    }
}

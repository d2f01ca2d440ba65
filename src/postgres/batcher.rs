//! Writes of many users in one transaction.
//!
//! Gathers what comes while the last batch is committing and posts it as one statement, each item under its author's own
//! role and claims, each failure its own. An answer means: committed. A batch whose outcome is unknown is posted again;
//! nonces make that harmless.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_postgres::Row;
use tracing::{error, warn};
use uuid::Uuid;

use crate::auth::identity::Identity;
use crate::limits::{BATCH_ITEMS_MAX, WRITE_DEADLINE, WRITE_QUEUE_LEN};
use crate::metrics::Metrics;
use crate::postgres::store::{Store, StoreError, may_pass};
use crate::protocol::id::{MessageId, MovieId, Seq, VotingId};
use crate::protocol::refusal::{Refusal, RefusalCode};
use crate::protocol::server::Done;
use crate::relay::peer::Write;

const PAUSE: Duration = Duration::from_millis(100);
const RETRY_AFTER_MS: u64 = 1_000;

/// Where writes go. Cloned into every connection.
#[derive(Clone, Debug)]
pub struct Writer {
    messages: mpsc::Sender<Item>,
    votes: mpsc::Sender<Item>,
}

/// The tasks behind a [`Writer`]; each runs until every writer is gone.
#[derive(Debug)]
pub struct Batchers {
    messages: Batcher,
    votes: Batcher,
}

#[derive(Debug)]
struct Batcher {
    kind: Kind,
    queue: mpsc::Receiver<Item>,
    store: Store,
    metrics: Arc<Metrics>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Messages,
    Votes,
}

#[derive(Debug)]
struct Item {
    /// Items are posted in this order, so that two gateways lock sessions in the same one.
    place: Uuid,
    json: Value,
    answer: oneshot::Sender<Result<Done, Refusal>>,
}

/// Makes a writer and the tasks behind it.
#[must_use]
pub fn batchers(store: &Store, metrics: &Arc<Metrics>) -> (Writer, Batchers) {
    let (messages, message_queue) = mpsc::channel(WRITE_QUEUE_LEN);
    let (votes, vote_queue) = mpsc::channel(WRITE_QUEUE_LEN);
    let batcher = |kind, queue| Batcher {
        kind,
        queue,
        store: store.clone(),
        metrics: Arc::clone(metrics),
    };
    let batchers = Batchers {
        messages: batcher(Kind::Messages, message_queue),
        votes: batcher(Kind::Votes, vote_queue),
    };
    (Writer { messages, votes }, batchers)
}

impl Writer {
    /// Writes that wait for the batch under way.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let depth = |queue: &mpsc::Sender<Item>| queue.max_capacity() - queue.capacity();
        depth(&self.messages) + depth(&self.votes)
    }

    /// Writes something for somebody. The answer comes after the commit; a full queue answers at once.
    pub async fn write(&self, write: Write, identity: Arc<Identity>) -> Result<Done, Refusal> {
        let (answer, answered) = oneshot::channel();
        let (queue, place, json) = match write {
            Write::Message(message) => {
                let nonce = message.nonce.map_or_else(Uuid::new_v4, |nonce| nonce.0);
                let json = json!({
                    "role": identity.role.as_str(), "claims": claims(&identity),
                    "session": message.session, "body": message.body.as_str(),
                    "nonce": nonce, "reply_to": message.reply_to,
                });
                (&self.messages, message.session.0, json)
            }
            Write::Vote(vote) => {
                let json = json!({
                    "role": identity.role.as_str(), "claims": claims(&identity),
                    "voting": vote.voting, "movie": vote.movie,
                });
                (&self.votes, vote.voting.0, json)
            }
        };
        let unavailable = || Refusal::unavailable(RETRY_AFTER_MS);
        queue
            .try_send(Item {
                place,
                json,
                answer,
            })
            .map_err(|_| unavailable())?;
        answered.await.map_err(|_| unavailable())?
    }
}

impl Batchers {
    /// Posts until every writer is gone and everything is answered.
    pub async fn run(self) {
        tokio::join!(self.messages.run(), self.votes.run());
    }
}

impl Batcher {
    async fn run(mut self) {
        let mut items = Vec::new();
        while self.queue.recv_many(&mut items, BATCH_ITEMS_MAX).await > 0 {
            // Stable: the messages of one session keep the order in which they came.
            items.sort_by_key(|item| item.place);
            self.metrics
                .batch_items
                .observe(f64::from(u32::try_from(items.len()).unwrap_or(u32::MAX)));
            self.post(std::mem::take(&mut items)).await;
        }
    }

    /// Posts a batch. One that the database refuses as a whole is taken apart, so that an item can only harm itself.
    async fn post(&self, items: Vec<Item>) {
        let batch = Value::Array(items.iter().map(|item| item.json.clone()).collect());
        match self.persist(&batch).await {
            Ok(rows) => self.answer(items, &rows),
            Err(StoreError::Unavailable(reason)) => {
                warn!(
                    reason,
                    items = items.len(),
                    "writes given up, the database is away"
                );
                refuse_all(items, &Refusal::unavailable(RETRY_AFTER_MS));
            }
            Err(error) if items.len() == 1 => {
                error!(error = &error as &dyn std::error::Error, "a write failed");
                refuse_all(
                    items,
                    &Refusal::new(RefusalCode::Internal, "the write failed"),
                );
            }
            Err(_) => {
                for item in items {
                    Box::pin(self.post(vec![item])).await;
                }
            }
        }
    }

    /// Posts until there is an answer or the deadline passes.
    async fn persist(&self, batch: &Value) -> Result<Vec<Row>, StoreError> {
        let deadline = Instant::now() + WRITE_DEADLINE;
        loop {
            match self.store.batch(self.kind.sql(), batch).await {
                Err(StoreError::Unavailable(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await
                }
                outcome => return outcome,
            }
        }
    }

    fn answer(&self, items: Vec<Item>, rows: &[Row]) {
        let mut items: Vec<Option<Item>> = items.into_iter().map(Some).collect();
        for row in rows {
            let place = usize::try_from(row.get::<_, i32>("item")).unwrap_or(usize::MAX);
            let Some(item) = items.get_mut(place).and_then(Option::take) else {
                error!(place, "the database answered an item that was not asked");
                continue;
            };
            let outcome = match refusal(row) {
                Some(refusal) => Err(refusal),
                None => Ok(self.kind.done(row)),
            };
            // A connection that is gone needs no answer; what it wrote is in the log.
            let _ = item.answer.send(outcome);
        }
        let unanswered: Vec<Item> = items.into_iter().flatten().collect();
        if !unanswered.is_empty() {
            error!(
                items = unanswered.len(),
                "the database left items unanswered"
            );
            refuse_all(
                unanswered,
                &Refusal::new(RefusalCode::Internal, "the write failed"),
            );
        }
    }
}

impl Kind {
    fn sql(self) -> &'static str {
        match self {
            Self::Messages => {
                "select item, seq, message, created, refusal, retry_after_ms, detail from usher.post_messages($1)"
            }
            Self::Votes => {
                "select item, voting, movie, refusal, retry_after_ms, detail from usher.cast_votes($1)"
            }
        }
    }

    fn done(self, row: &Row) -> Done {
        match self {
            Self::Messages => Done::Sent {
                seq: row
                    .get::<_, Option<i64>>("seq")
                    .and_then(|seq| u64::try_from(seq).ok())
                    .map(Seq),
                message: MessageId(row.get("message")),
                is_new: row.get("created"),
            },
            Self::Votes => Done::Voted {
                voting: VotingId(row.get("voting")),
                movie: row.get::<_, Option<Uuid>>("movie").map(MovieId),
            },
        }
    }
}

fn refusal(row: &Row) -> Option<Refusal> {
    let name: &str = row.get::<_, Option<&str>>("refusal")?;
    let detail = row.get::<_, Option<&str>>("detail");
    let retry_after_ms = row
        .get::<_, Option<i32>>("retry_after_ms")
        .and_then(|after| u64::try_from(after).ok());
    if name == RefusalCode::Internal.as_str() && detail.is_some_and(may_pass) {
        return Some(Refusal::unavailable(RETRY_AFTER_MS));
    }
    let Some(code) = RefusalCode::parse(name).filter(|code| *code != RefusalCode::Internal) else {
        error!(name, detail, "a write was refused for a reason of our own");
        return Some(Refusal::new(RefusalCode::Internal, "the write failed"));
    };
    let message = match (code, detail, retry_after_ms) {
        (RefusalCode::BadRequest, Some("movie"), _) => {
            "movie must be on the ballot of the voting".to_owned()
        }
        (RefusalCode::BadRequest, Some(field), _) => format!("{field} is not valid here"),
        (RefusalCode::SlowMode, None, Some(after)) => {
            format!("wait {} s before the next message", after.div_ceil(1_000))
        }
        (_, _, _) => default_message(code).to_owned(),
    };
    Some(Refusal {
        code,
        message: message.into(),
        retry_after_ms,
    })
}

fn default_message(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::BadRequest => "a field is not as it should be",
        RefusalCode::Banned => "the author may not take part in this session",
        RefusalCode::Conflict => "this voting does not allow a vote to be changed",
        RefusalCode::Forbidden => "not allowed here",
        RefusalCode::Internal => "the write failed",
        RefusalCode::NotFound => "no such session or voting, or not for this caller",
        RefusalCode::RateLimited => "too many, slow down",
        RefusalCode::SessionEnded => "the session has ended",
        RefusalCode::SlowMode => "wait before the next message",
        RefusalCode::TooLarge => "larger than the limit",
        RefusalCode::Unauthorized => "a token is needed",
        RefusalCode::Unavailable => "try again",
        RefusalCode::VotingClosed => "the voting is not open",
    }
}

/// What the token says, for the database to see. The signature was checked on this very text.
fn claims(identity: &Identity) -> Value {
    serde_json::from_str(&identity.claims).expect("a verified token's payload is JSON")
}

fn refuse_all(items: Vec<Item>, refusal: &Refusal) {
    for item in items {
        let _ = item.answer.send(Err(refusal.clone()));
    }
}

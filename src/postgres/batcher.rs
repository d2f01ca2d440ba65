//! Writes of many users in one transaction.
//!
//! ```text
//! Writer ─► inbox ─► WriteQueue: whose turn is it? ─► up to two batches under way, each one statement
//! ```
//!
//! Gathers what comes while the last batches are committing, each item under its author's own role and claims, each
//! failure its own. An answer means: committed.
//!
//! A batch whose outcome is unknown, the connection having broken, is posted again as it is. A message's nonce then
//! finds what the first try committed, waits for what it is still committing, or writes what it did not; to look first
//! would answer the same in the first case and guess in the second. A vote sets what is set.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_postgres::Row;
use tracing::error;
use uuid::Uuid;

use crate::auth::identity::Identity;
use crate::limits::{BATCHES_IN_FLIGHT_MAX, WRITE_DEADLINE, WRITE_INBOX_LEN};
use crate::metrics::{Metrics, WriteRefusal};
use crate::postgres::batch::{self, Kind, RETRY_AFTER_MS};
use crate::postgres::store::{Store, StoreError};
use crate::protocol::client::{NewMessage, NewVote};
use crate::protocol::refusal::{Refusal, RefusalCode};
use crate::protocol::server::Done;
use crate::relay::peer::Write;
use crate::relay::write_queue::{Bounds, Full, Place, Waiting, WriteQueue};

const PAUSE: Duration = Duration::from_millis(100);

/// What an item takes beside what its author gave: ids, names of fields, places in maps.
const ITEM_BYTES: usize = 512;

/// Where writes go. Cloned into every connection.
#[derive(Clone, Debug)]
pub struct Writer {
    messages: mpsc::Sender<Waiting<Item>>,
    votes: mpsc::Sender<Waiting<Item>>,
}

/// The tasks behind a [`Writer`]; each runs until every writer is gone.
#[derive(Debug)]
pub struct Batchers {
    messages: Batcher,
    votes: Batcher,
}

/// What is written, and who waits for the answer.
#[derive(Debug)]
struct Item {
    write: Write,
    /// Of a message: its own or, where the client gave none, one of ours.
    nonce: Uuid,
    identity: Arc<Identity>,
    answer: oneshot::Sender<Result<Done, Refusal>>,
}

/// One kind of write: what waits, and what is under way.
#[derive(Debug)]
struct Batcher {
    inbox: mpsc::Receiver<Waiting<Item>>,
    queue: WriteQueue<Item>,
    /// Shared by the kinds: what writes do not take of the pool is left for questions.
    connections: Arc<Semaphore>,
    poster: Arc<Poster>,
    /// Items and bytes as the gauges have them, which are shared by the kinds.
    noted: [i64; 2],
}

#[derive(Debug)]
struct Poster {
    kind: Kind,
    store: Store,
    metrics: Arc<Metrics>,
}

/// Makes a writer and the tasks behind it.
#[must_use]
pub fn batchers(store: &Store, bounds: Bounds, metrics: &Arc<Metrics>) -> (Writer, Batchers) {
    let connections = Arc::new(Semaphore::new((store.connections_max() - 1).max(1)));
    let batcher = |kind| {
        let (sender, inbox) = mpsc::channel(WRITE_INBOX_LEN);
        let poster = Poster {
            kind,
            store: store.clone(),
            metrics: Arc::clone(metrics),
        };
        let batcher = Batcher {
            inbox,
            queue: WriteQueue::new(bounds),
            connections: Arc::clone(&connections),
            poster: Arc::new(poster),
            noted: [0, 0],
        };
        (sender, batcher)
    };
    let (messages, message_batcher) = batcher(Kind::Messages);
    let (votes, vote_batcher) = batcher(Kind::Votes);
    let batchers = Batchers {
        messages: message_batcher,
        votes: vote_batcher,
    };
    (Writer { messages, votes }, batchers)
}

impl Writer {
    /// Writes something for somebody. The answer comes after the commit, or as soon as it is known that there will be
    /// none.
    pub async fn write(&self, write: Write, identity: Arc<Identity>) -> Result<Done, Refusal> {
        let (inbox, place, nonce, text_bytes) = match &write {
            Write::Message(NewMessage {
                session,
                body,
                nonce,
                ..
            }) => {
                let nonce = nonce.map_or_else(Uuid::new_v4, |nonce| nonce.0);
                (&self.messages, session.0, nonce, body.as_str().len())
            }
            Write::Vote(NewVote { voting, .. }) => (&self.votes, voting.0, Uuid::nil(), 0),
        };
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            place: Place(place),
            author: identity.subject,
            bytes: ITEM_BYTES + text_bytes + identity.claims.len(),
            since: Instant::now().into_std(),
            item: Item {
                write,
                nonce,
                identity,
                answer,
            },
        };
        let unavailable = || Refusal::unavailable(RETRY_AFTER_MS);
        inbox.send(waiting).await.map_err(|_| unavailable())?;
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
        let mut arrived = Vec::new();
        let mut is_open = true;
        let mut under_way: FuturesUnordered<BoxFuture<'static, BTreeSet<Place>>> =
            FuturesUnordered::new();
        while is_open || !self.queue.is_empty() || !under_way.is_empty() {
            let wants_to_post = self.queue.is_ready() && under_way.len() < BATCHES_IN_FLIGHT_MAX;
            let deadline = self.queue.deadline();
            let overdue = deadline.unwrap_or_else(|| Instant::now().into_std());
            // Every arm is cancel-safe: nothing is taken before its arm is.
            tokio::select! {
                biased;
                Some(places) = under_way.next() => self.queue.on_done(places),
                count = self.inbox.recv_many(&mut arrived, WRITE_INBOX_LEN), if is_open => {
                    is_open = count > 0;
                    self.enqueue(&mut arrived);
                }
                Ok(permit) = Arc::clone(&self.connections).acquire_owned(), if wants_to_post => {
                    under_way.push(self.post_next(permit));
                }
                () = sleep_until(overdue.into()), if deadline.is_some() => self.refuse_overdue(),
            }
        }
    }

    fn enqueue(&mut self, arrived: &mut Vec<Waiting<Item>>) {
        for write in arrived.drain(..) {
            if let Err((full, write)) = self.queue.push(write) {
                self.poster.refuse(write.item, full.into());
            }
        }
        self.note_waiting();
    }

    fn refuse_overdue(&mut self) {
        for write in self.queue.take_overdue(Instant::now().into_std()) {
            self.poster.refuse(write.item, WriteRefusal::Waited);
        }
        self.note_waiting();
    }

    /// The future posts what goes together next, and says whose turn is over.
    fn post_next(&mut self, permit: OwnedSemaphorePermit) -> BoxFuture<'static, BTreeSet<Place>> {
        let now = Instant::now().into_std();
        let mut batch = self.queue.take();
        for write in &batch {
            let waited = now.saturating_duration_since(write.since);
            self.poster
                .metrics
                .write_waits
                .observe(waited.as_secs_f64());
        }
        self.note_waiting();
        // Posted in this order, so that two gateways lock sessions in the same one. Stable: what was said in one session
        // keeps its order.
        batch.sort_by_key(|write| write.place);
        let places = batch.iter().map(|write| write.place).collect();
        let items = batch.into_iter().map(|write| write.item).collect();
        let poster = Arc::clone(&self.poster);
        Box::pin(async move {
            poster.post(items).await;
            drop(permit);
            places
        })
    }

    fn note_waiting(&mut self) {
        let gauge = |number| i64::try_from(number).unwrap_or(i64::MAX);
        let [items, bytes] = [gauge(self.queue.len()), gauge(self.queue.bytes())];
        let metrics = &self.poster.metrics;
        metrics.write_queue.inc_by(items - self.noted[0]);
        metrics.write_queue_bytes.inc_by(bytes - self.noted[1]);
        self.noted = [items, bytes];
    }
}

impl Poster {
    /// Posts a batch. One that the database refuses for something that is in it is halved until what it was stands
    /// alone: an item can only harm itself, and a few questions find it.
    async fn post(&self, mut items: Vec<Item>) {
        let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
        self.metrics.batch_items.observe(f64::from(count));
        let began = Instant::now();
        let outcome = self.persist(&items).await;
        self.metrics.batches.observe(began.elapsed().as_secs_f64());
        match outcome {
            Ok(rows) => self.answer(items, &rows),
            Err(StoreError::Unavailable(reason)) => {
                let log = self.store.log();
                log.on_unwritten(
                    "writes given up, the database is away",
                    &reason,
                    items.len(),
                );
                self.refuse_all(items, WriteRefusal::Away);
            }
            Err(StoreError::Refused(error))
                if items.len() > 1 && batch::is_about_an_item(&error) =>
            {
                let rest = items.split_off(items.len() / 2);
                Box::pin(self.post(items)).await;
                Box::pin(self.post(rest)).await;
            }
            Err(StoreError::Refused(error)) if batch::is_unreadable(&error) => {
                self.refuse_all(items, WriteRefusal::Unreadable);
            }
            Err(error) => {
                self.store.log().on_failure("a batch of writes", &error);
                self.refuse_all(items, WriteRefusal::Failed);
            }
        }
    }

    /// Posts until there is an answer or the deadline passes.
    async fn persist(&self, items: &[Item]) -> Result<Vec<Row>, StoreError> {
        let deadline = Instant::now() + WRITE_DEADLINE;
        let mut is_again = false;
        loop {
            let parts = items
                .iter()
                .map(|item| (&item.write, &*item.identity, item.nonce));
            let batch = batch::json(parts, is_again);
            match self.store.batch(self.kind.sql(), &batch).await {
                Err(StoreError::Unavailable(_)) if Instant::now() < deadline => {
                    self.metrics.batch_retries.inc();
                    is_again = true;
                    tokio::time::sleep(PAUSE).await;
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
            let outcome = match batch::refusal(row, self.store.log()) {
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
            self.refuse_all(unanswered, WriteRefusal::Failed);
        }
    }

    fn refuse_all(&self, items: Vec<Item>, cause: WriteRefusal) {
        for item in items {
            self.refuse(item, cause);
        }
    }

    fn refuse(&self, item: Item, cause: WriteRefusal) {
        self.metrics
            .write_refusals
            .get_or_create(&cause.into())
            .inc();
        let _ = item.answer.send(Err(not_posted(cause)));
    }
}

impl From<Full> for WriteRefusal {
    fn from(full: Full) -> Self {
        match full {
            Full::Author => Self::Author,
            Full::Place => Self::Place,
            Full::Queue => Self::Queue,
        }
    }
}

/// What the author of a write is told that the database did not answer.
fn not_posted(cause: WriteRefusal) -> Refusal {
    let (code, message) = match cause {
        WriteRefusal::Author => (
            RefusalCode::RateLimited,
            "too many of your writes wait already, slow down",
        ),
        WriteRefusal::Place => (
            RefusalCode::RateLimited,
            "too many writes by everybody together, try again",
        ),
        WriteRefusal::Queue | WriteRefusal::Waited => (
            RefusalCode::Unavailable,
            "more is written than the database takes, try again",
        ),
        WriteRefusal::Away => return Refusal::unavailable(RETRY_AFTER_MS),
        WriteRefusal::Unreadable => {
            return Refusal::bad_request("the token's claims hold what the database cannot read");
        }
        WriteRefusal::Failed => return Refusal::new(RefusalCode::Internal, "the write failed"),
    };
    Refusal {
        retry_after_ms: Some(RETRY_AFTER_MS),
        ..Refusal::new(code, message)
    }
}

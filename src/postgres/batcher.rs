//! Writes of many users in one transaction.
//!
//! ```text
//! Writer ─► inbox ─► WriteQueue: whose turn is it? ─► up to two running batches, each one statement,
//!                        ▲                              and one try of held sessions
//!                        └──── writes that did not get their lock
//! ```
//!
//! Gathers the writes that arrive while the last batches commit. Each item runs under its author's own role and claims,
//! and a failure affects only its own item. An answer means: committed.
//!
//! If the connection breaks, the outcome of a batch is unknown, and the same batch is posted again. The nonce of a
//! message then finds the committed row, waits for a commit that still runs, or lets the message be written. A read
//! before the second try would have to guess while the commit still runs. A repeated vote changes nothing.
//!
//! A transaction waits for a lock for [`LOCK_WAIT`] at most. Without the lock of a session, the whole batch is rolled
//! back. Without the lock of an author's row, only this author's writes fail. Both go back to the queue, which tries
//! them again alone and refuses them as `busy` after [`BUSY_AFTER`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_postgres::Row;
use tracing::error;
use uuid::Uuid;

use crate::limits::{
    BATCH_PAUSE, BATCHES_IN_FLIGHT_MAX, LOCK_WAIT, WRITE_DEADLINE, WRITE_INBOX_LEN,
    WRITE_OVERHEAD_BYTES,
};
use crate::metrics::{Metrics, WriteRefusal};
use crate::postgres::batch::{self, BatchKind};
use crate::postgres::listener::ListenEvent;
use crate::postgres::statement::StoreError;
use crate::postgres::store::Store;
use usher_core::auth::identity::Identity;
#[cfg(doc)]
use usher_core::limits::BUSY_AFTER;
use usher_core::limits::RETRY_DATABASE;
use usher_core::protocol::client::{NewMessage, NewVote};
use usher_core::protocol::refusal::{Refusal, RefusalCode};
use usher_core::protocol::server::WriteOutcome;
use usher_core::relay::holds::WriteTarget;
use usher_core::relay::message::Write;
use usher_core::relay::personal::OwnVote;
use usher_core::relay::write_queue::{Bounds, Full, Overdue, Waiting, WriteQueue};

/// Accepts writes. Each connection has a clone.
#[derive(Clone, Debug)]
pub struct Writer {
    messages: mpsc::Sender<Waiting<Item>>,
    votes: mpsc::Sender<Waiting<Item>>,
}

/// The tasks behind a [`Writer`]. Each runs until all writers are dropped.
#[derive(Debug)]
pub struct Batchers {
    messages: Batcher,
    votes: Batcher,
}

/// A write and the channel for its answer.
#[derive(Debug)]
struct Item {
    write: Write,
    /// The nonce of a message: the client's, or a new one without it.
    nonce: Uuid,
    identity: Arc<Identity>,
    /// Whether an earlier try, whose answer was lost, may have succeeded.
    is_again: bool,
    answer: oneshot::Sender<Result<WriteOutcome, Refusal>>,
}

/// The writes of one transaction.
struct Batch {
    writes: Vec<Waiting<Item>>,
    /// The longest wait for a lock.
    lock_wait: Duration,
    /// Whether it is a try of held sessions.
    is_try: bool,
}

/// The result of a batch.
struct Ended {
    /// The number of its writes for each place.
    posted: BTreeMap<WriteTarget, usize>,
    /// The writes that did not get a lock.
    blocked: Vec<Waiting<Item>>,
    is_try: bool,
}

/// The waiting and running writes of one kind.
#[derive(Debug)]
struct Batcher {
    inbox: mpsc::Receiver<Waiting<Item>>,
    queue: WriteQueue<Item>,
    poster: Arc<Poster>,
    /// This kind's share of the gauges: items, bytes and held places.
    noted: [i64; 3],
}

#[derive(Debug)]
struct Poster {
    kind: BatchKind,
    store: Store,
    /// The receivers of votes. They never wait for a batch.
    subscribers: Vec<mpsc::Sender<Arc<ListenEvent>>>,
    metrics: Arc<Metrics>,
}

/// Creates a writer and the tasks behind it. `subscribers` get every vote, in the order of the commits.
#[must_use]
pub fn batchers(
    store: &Store,
    bounds: Bounds,
    subscribers: &[mpsc::Sender<Arc<ListenEvent>>],
    metrics: &Arc<Metrics>,
) -> (Writer, Batchers) {
    let batcher = |kind| {
        let (sender, inbox) = mpsc::channel(WRITE_INBOX_LEN);
        let poster = Poster {
            kind,
            store: store.clone(),
            subscribers: subscribers.to_vec(),
            metrics: Arc::clone(metrics),
        };
        let batcher = Batcher {
            inbox,
            queue: WriteQueue::new(Bounds {
                lock_wait_max: bounds.lock_wait_max.min(store.lock_wait_max()),
                ..bounds
            }),
            poster: Arc::new(poster),
            noted: [0, 0, 0],
        };
        (sender, batcher)
    };
    let (messages, message_batcher) = batcher(BatchKind::Messages);
    let (votes, vote_batcher) = batcher(BatchKind::Votes);
    let batchers = Batchers {
        messages: message_batcher,
        votes: vote_batcher,
    };
    (Writer { messages, votes }, batchers)
}

impl Writer {
    /// Writes for an author. Returns after the commit, or as soon as it is certain that there will be none.
    pub async fn write(
        &self,
        write: Write,
        identity: Arc<Identity>,
    ) -> Result<WriteOutcome, Refusal> {
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
        let author = identity.subject;
        let bytes = WRITE_OVERHEAD_BYTES + text_bytes + identity.claims.len();
        let item = Item {
            write,
            nonce,
            identity,
            is_again: false,
            answer,
        };
        let now = Instant::now().into_std();
        let waiting = Waiting::new(WriteTarget(place), author, bytes, now, item);
        let sent = inbox.send(waiting).await;
        sent.map_err(|_| Refusal::unavailable())?;
        answered.await.map_err(|_| Refusal::unavailable())?
    }
}

impl Batchers {
    /// Runs until all writers are dropped and all writes are answered.
    pub async fn run(self) {
        tokio::join!(self.messages.run(), self.votes.run());
    }
}

impl Batcher {
    async fn run(mut self) {
        let mut arrived = Vec::new();
        let mut is_open = true;
        let mut is_trying = false;
        let mut under_way: FuturesUnordered<BoxFuture<'static, Ended>> = FuturesUnordered::new();
        while is_open || !self.queue.is_empty() || !under_way.is_empty() {
            let now = Instant::now().into_std();
            let batches = under_way.len() - usize::from(is_trying);
            let wants_to_post = self.queue.is_ready() && batches < BATCHES_IN_FLIGHT_MAX;
            let next_try = self.queue.next_try().filter(|_| !is_trying);
            let wants_to_try = next_try.is_some_and(|due| due <= now);
            let next_try = next_try.filter(|_| !wants_to_try);
            let deadline = self.queue.deadline().into_iter().chain(next_try).min();
            let wake_at = deadline.unwrap_or(now);
            // Every arm is cancel-safe: it takes nothing before it is chosen.
            tokio::select! {
                biased;
                Some(ended) = under_way.next() => {
                    is_trying &= !ended.is_try;
                    self.on_ended(ended);
                }
                count = self.inbox.recv_many(&mut arrived, WRITE_INBOX_LEN), if is_open => {
                    is_open = count > 0;
                    self.enqueue(&mut arrived);
                }
                permit = self.poster.store.write_permit(), if wants_to_post || wants_to_try => {
                    let batch = self.next_batch(wants_to_try);
                    is_trying |= batch.is_try;
                    under_way.push(self.post(batch, permit));
                }
                () = sleep_until(wake_at.into()), if deadline.is_some() => self.refuse_overdue(),
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
        for (why, write) in self.queue.take_overdue(Instant::now().into_std()) {
            self.poster.refuse(write.item, why.into());
        }
        self.note_waiting();
    }

    /// Returns the next batch. A try comes first: there is one at a time, and writes that shared a batch with a blocked
    /// session wait for it.
    fn next_batch(&mut self, is_try: bool) -> Batch {
        let now = Instant::now().into_std();
        let (mut writes, lock_wait) = if is_try {
            self.queue.take_held(now)
        } else {
            (self.queue.take(), LOCK_WAIT)
        };
        for write in &writes {
            let waited = now.saturating_duration_since(write.since);
            self.poster
                .metrics
                .write_waits
                .observe(waited.as_secs_f64());
        }
        self.note_waiting();
        // All gateways lock sessions in this order. The sort is stable, so that the messages of a session keep theirs.
        writes.sort_by_key(|write| write.place);
        Batch {
            writes,
            lock_wait,
            is_try,
        }
    }

    /// Returns a future that posts a batch.
    fn post(&self, batch: Batch, permit: OwnedSemaphorePermit) -> BoxFuture<'static, Ended> {
        let poster = Arc::clone(&self.poster);
        Box::pin(async move {
            let mut posted = BTreeMap::new();
            for write in &batch.writes {
                *posted.entry(write.place).or_default() += 1;
            }
            let blocked = poster.post(batch.writes, batch.lock_wait).await;
            drop(permit);
            Ended {
                posted,
                blocked,
                is_try: batch.is_try,
            }
        })
    }

    fn on_ended(&mut self, ended: Ended) {
        let now = Instant::now().into_std();
        self.queue.on_done(&ended.posted, ended.blocked, now);
        self.note_waiting();
    }

    fn note_waiting(&mut self) {
        let numbers = [
            self.queue.len(),
            self.queue.bytes(),
            self.queue.held_places(),
        ];
        let numbers = numbers.map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        let metrics = &self.poster.metrics;
        metrics.write_queue.inc_by(numbers[0] - self.noted[0]);
        metrics.write_queue_bytes.inc_by(numbers[1] - self.noted[1]);
        metrics.held_places.inc_by(numbers[2] - self.noted[2]);
        self.noted = numbers;
    }
}

impl Poster {
    /// Posts a batch, and returns the writes that did not get a lock. If an item makes the database refuse the batch,
    /// the batch is halved until this item stands alone. So an item can only harm itself, and a few queries find it.
    async fn post(
        &self,
        mut writes: Vec<Waiting<Item>>,
        lock_wait: Duration,
    ) -> Vec<Waiting<Item>> {
        let count = u32::try_from(writes.len()).unwrap_or(u32::MAX);
        self.metrics.batch_items.observe(f64::from(count));
        let began = Instant::now();
        let outcome = self.persist(&mut writes, lock_wait).await;
        self.metrics.batches.observe(began.elapsed().as_secs_f64());
        match outcome {
            Ok(rows) => {
                self.tell_votes(&writes, &rows).await;
                self.answer(writes, &rows)
            }
            Err(StoreError::Locked) => {
                self.metrics.batches_blocked.inc();
                writes
            }
            Err(StoreError::Unavailable(reason)) => {
                let log = self.store.log();
                log.on_unwritten(
                    "writes given up, the database is away",
                    &reason,
                    writes.len(),
                );
                self.refuse_all(writes, WriteRefusal::Away)
            }
            Err(StoreError::Refused(error))
                if writes.len() > 1 && batch::is_about_an_item(&error) =>
            {
                let rest = writes.split_off(writes.len() / 2);
                let mut blocked = Box::pin(self.post(writes, lock_wait)).await;
                blocked.extend(Box::pin(self.post(rest, lock_wait)).await);
                blocked
            }
            Err(StoreError::Refused(error)) if batch::is_unreadable(&error) => {
                self.refuse_all(writes, WriteRefusal::Unreadable)
            }
            Err(error) => {
                self.store.log().on_failure("a batch of writes", &error);
                self.refuse_all(writes, WriteRefusal::Failed)
            }
        }
    }

    /// Posts again and again until there is an answer or the deadline passes.
    async fn persist(
        &self,
        writes: &mut [Waiting<Item>],
        lock_wait: Duration,
    ) -> Result<Vec<Row>, StoreError> {
        let deadline = Instant::now() + WRITE_DEADLINE;
        loop {
            let parts = writes.iter().map(|write| batch::BatchItem {
                write: &write.item.write,
                identity: &write.item.identity,
                nonce: write.item.nonce,
                is_again: write.item.is_again,
            });
            let batch = batch::json(parts);
            match self.store.batch(self.kind.sql(), &batch, lock_wait).await {
                Err(StoreError::Unavailable(_)) if Instant::now() < deadline => {
                    self.metrics.batch_retries.inc();
                    for write in &mut *writes {
                        write.item.is_again = true;
                    }
                    tokio::time::sleep(BATCH_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Sends the votes of a batch to the subscribers, before the next batch of the same polls begins. So they get two
    /// votes of a user in order.
    async fn tell_votes(&self, writes: &[Waiting<Item>], rows: &[Row]) {
        let vote = |row: &Row| {
            let place = usize::try_from(row.get::<_, i32>("item")).ok()?;
            let user = writes.get(place)?.item.identity.subject?;
            self.kind.own_vote(row, user)
        };
        let votes: Vec<OwnVote> = rows.iter().filter_map(vote).collect();
        if votes.is_empty() {
            return;
        }
        let heard = Arc::new(ListenEvent::OwnVotes(votes));
        for subscriber in &self.subscribers {
            // A subscriber that is gone has stopped, and this task stops soon too.
            let _ = subscriber.send(Arc::clone(&heard)).await;
        }
    }

    /// Answers the finished and refused writes, and returns the ones that did not get a lock.
    fn answer(&self, writes: Vec<Waiting<Item>>, rows: &[Row]) -> Vec<Waiting<Item>> {
        let mut writes: Vec<Option<Waiting<Item>>> = writes.into_iter().map(Some).collect();
        let mut blocked = Vec::new();
        for row in rows {
            let place = usize::try_from(row.get::<_, i32>("item")).unwrap_or(usize::MAX);
            let Some(write) = writes.get_mut(place).and_then(Option::take) else {
                error!(place, "the database answered an item that was not asked");
                continue;
            };
            let outcome = match batch::refusal(row, self.store.log()) {
                Some(refusal) if refusal.code == RefusalCode::Busy => {
                    blocked.push(write);
                    continue;
                }
                Some(refusal) => Err(refusal),
                None => Ok(self.kind.done(row)),
            };
            // A connection that is gone needs no answer. Its write is in the log.
            let _ = write.item.answer.send(outcome);
        }
        let unanswered: Vec<Waiting<Item>> = writes.into_iter().flatten().collect();
        if !unanswered.is_empty() {
            error!(
                items = unanswered.len(),
                "the database left items unanswered"
            );
            self.refuse_all(unanswered, WriteRefusal::Failed);
        }
        blocked
    }

    /// Refuses all writes. Returns none.
    fn refuse_all(&self, writes: Vec<Waiting<Item>>, cause: WriteRefusal) -> Vec<Waiting<Item>> {
        for write in writes {
            self.refuse(write.item, cause);
        }
        Vec::new()
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

impl From<Overdue> for WriteRefusal {
    fn from(overdue: Overdue) -> Self {
        match overdue {
            Overdue::Waited => Self::Waited,
            Overdue::Busy => Self::Busy,
        }
    }
}

/// Returns the refusal of a write that the database did not answer.
fn not_posted(cause: WriteRefusal) -> Refusal {
    let (code, message) = match cause {
        WriteRefusal::Author => (
            RefusalCode::RateLimited,
            "too many of your writes wait already, slow down",
        ),
        WriteRefusal::Place => (
            RefusalCode::RateLimited,
            "too many writes by all users together, try again",
        ),
        WriteRefusal::Queue | WriteRefusal::Waited => (
            RefusalCode::Unavailable,
            "more is written than the database takes, try again",
        ),
        WriteRefusal::Away => return Refusal::unavailable(),
        WriteRefusal::Busy => return Refusal::busy(),
        WriteRefusal::Unreadable => {
            return Refusal::bad_request("the token's claims hold what the database cannot read");
        }
        WriteRefusal::Failed => return Refusal::new(RefusalCode::Internal, "the write failed"),
    };
    Refusal::new(code, message).retry_in(RETRY_DATABASE)
}

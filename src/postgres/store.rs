//! Queries: admissions, pages of the log, counts, maintenance.
//!
//! A query about a caller runs under the caller's own role and claims, as with PostgREST. All others run under the
//! gateway's own role, through functions of schema `usher`. Each query takes one round trip, because the statements of
//! a transaction are sent together.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::limits::{
    DUE_VOTINGS_MAX, LOCK_CONNECTIONS_MIN, LOCK_WAIT, PAGE_EVENTS_MAX, QUERY_TIMEOUT,
    READ_LOCK_WAIT, TRIM_EVENTS_MAX,
};
use crate::postgres::admission::access;
use crate::postgres::log_limiter::LogLimiter;
use crate::postgres::moderation_permits::Moderations;
use crate::postgres::settings::begin;
use crate::postgres::statement::{Parameter, StoreError, classify, query};
use crate::postgres::transaction::{as_caller, as_oneself};
use usher_core::auth::identity::Identity;
use usher_core::limits::{LOCK_WAIT_APART, PAGE_BYTES_MAX};
use usher_core::protocol::id::{Seq, SessionId, VotingId};
use usher_core::protocol::notify::{Channels, Event};
use usher_core::protocol::refusal::Refusal;
use usher_core::relay::delivery::LogPage;
use usher_core::relay::holds::lock_wait;
use usher_core::relay::snapshot::{Admission, Snapshot};
use usher_core::relay::tally::Tally;

/// The functions of schema `usher` that the gateway calls as itself.
pub(crate) const OWN_FUNCTIONS: [&str; 16] = [
    "admit_many",
    "cast_votes",
    "channel_names",
    "close_due_voting",
    "close_due_votings",
    "due_votings",
    "epoch",
    "events_after",
    "heads",
    "post_messages",
    "refusal_of",
    "session_of",
    "session_snapshot",
    "tallies",
    "trim_events",
    "update_vote_totals",
];

/// The functions of schema `usher` that the gateway calls as the caller.
pub(crate) const CALLERS_FUNCTIONS: [&str; 2] = ["admit", "messages_before"];

/// The columns of a [`Standing`], for a select list.
pub(crate) const STANDING_COLUMNS: &str = "usher.epoch(), (usher.channel_names()).*";

/// The state that a listener relies on. It changes when the schema is applied again or restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The epoch of the log.
    pub(crate) epoch: String,
    /// The names of the channels.
    pub(crate) channels: Channels,
}

impl Standing {
    /// Reads a row of [`STANDING_COLUMNS`].
    pub(crate) fn of(row: &Row) -> Self {
        let text = |column| row.get::<_, Option<String>>(column).unwrap_or_default();
        Self {
            epoch: text(0),
            channels: Channels {
                events: text(1),
                votes: text(2),
                control: text(3),
            },
        }
    }
}

/// The database, for queries.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Pool,
    log: Arc<LogLimiter>,
    write_permits: Arc<Semaphore>,
    pub(crate) moderations: Arc<Moderations>,
}

impl Store {
    /// Creates a store over a pool of connections.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        let write_permits = Semaphore::new(write_permits_max(&pool));
        Self {
            pool,
            log: Arc::default(),
            write_permits: Arc::new(write_permits),
            moderations: Arc::default(),
        }
    }

    /// Returns the log of failures, which limits each kind of failure.
    #[must_use]
    pub(crate) fn log(&self) -> &LogLimiter {
        &self.log
    }

    /// Reads whether a caller may watch a session, the caller's other permissions, and the state for a new subscriber.
    ///
    /// # Errors
    /// The database cannot be asked. A refusal of the caller is no error.
    pub(crate) async fn admit(
        &self,
        session: SessionId,
        identity: &Identity,
    ) -> Result<Result<Admission, Refusal>, StoreError> {
        let (admit, snapshot) = self.deadline(self.ask_admission(session, identity)).await?;
        let access = match access(admit.as_deref().filter(|_| snapshot.is_some()))? {
            Ok(access) => access,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let snapshot = snapshot.unwrap_or_default();
        let snapshot: Snapshot =
            serde_json::from_str(&snapshot).map_err(|source| StoreError::Shape {
                what: "a session",
                source,
            })?;
        Ok(Ok(Admission {
            session,
            access,
            snapshot: Arc::new(snapshot),
        }))
    }

    /// Reads the events after a position of a session's log: at most [`PAGE_EVENTS_MAX`] events and about
    /// [`PAGE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn page(&self, session: SessionId, after: Seq) -> Result<LogPage, StoreError> {
        let count = u16::try_from(PAGE_EVENTS_MAX).unwrap_or(u16::MAX);
        self.page_of(session, after, count).await
    }

    /// Reads the events after a position of a session's log: at most `count` events and about [`PAGE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub(crate) async fn page_of(
        &self,
        session: SessionId,
        after: Seq,
        count: u16,
    ) -> Result<LogPage, StoreError> {
        let after_number = i64::try_from(after.0).unwrap_or(i64::MAX);
        let count = i32::from(count);
        let bytes = i32::try_from(PAGE_BYTES_MAX).unwrap_or(i32::MAX);
        // One statement, so that the epoch, the head and the events are of one moment.
        let sql = "select (select usher.epoch()), coalesce(h.head, 0), coalesce(h.floor, 0), e.seq, e.event
            from (values (1)) as one (row)
            left join usher.heads(array[$1]) h on true
            left join usher.events_after($1, $2, $3, $4) e on true
            order by e.seq";
        let parameters: [Parameter<'_>; 4] = [
            (&session.0, Type::UUID),
            (&after_number, Type::INT8),
            (&count, Type::INT4),
            (&bytes, Type::INT4),
        ];
        let rows = self.rows(sql, &parameters).await?;
        let event = |row: &Row| {
            let text: Option<&str> = row.get(4);
            text.map(|text| Event::new(seq(row, 3), text))
        };
        let first = rows.first();
        Ok(LogPage {
            epoch: first.map(|row| row.get(0)).unwrap_or_default(),
            head: first.map(|row| seq(row, 1)).unwrap_or_default(),
            floor: first.map(|row| seq(row, 2)).unwrap_or_default(),
            events: rows.iter().filter_map(event).collect(),
        })
    }

    /// Reads the counts of polls. Leaves out drafts and deleted polls.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn tallies(&self, votings: &[VotingId]) -> Result<Vec<Tally>, StoreError> {
        let ids: Vec<Uuid> = votings.iter().map(|voting| voting.0).collect();
        let sql = "select masked, tally, masked_tally, usher.epoch() from usher.tallies($1)";
        let rows = self.rows(sql, &[(&ids, Type::UUID_ARRAY)]).await?;
        let tally = |row: &Row| {
            let masked: Option<&str> = if row.get(0) { row.get(2) } else { None };
            Tally::parse(row.get(3), row.get(1), masked).map_err(|source| StoreError::Shape {
                what: "a tally",
                source,
            })
        };
        rows.iter().map(tally).collect()
    }

    /// Notifies a channel, and reads the database's standing.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub(crate) async fn probe(&self, channel: &str) -> Result<Standing, StoreError> {
        let sql =
            format!("select {STANDING_COLUMNS} from (select pg_notify($1, '') offset 0) as probe");
        let rows = self.rows(&sql, &[(&channel, Type::TEXT)]).await?;
        Ok(rows.first().map(Standing::of).unwrap_or_default())
    }

    /// Closes all due polls in one transaction. Waits for each lock for [`LOCK_WAIT`] at most.
    ///
    /// # Errors
    /// The database cannot be asked, or one of the polls is locked. Then no poll is closed.
    pub(crate) async fn close_due_votings(&self) -> Result<(), StoreError> {
        let _permit = self.write_permit().await;
        let sql = "select usher.close_due_votings()";
        self.rows_within(LOCK_WAIT, sql, &[]).await.map(drop)
    }

    /// Reads the due polls, at most [`DUE_VOTINGS_MAX`], the longest due first.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub(crate) async fn due_votings(&self) -> Result<Vec<VotingId>, StoreError> {
        let sql = "select usher.due_votings($1)";
        let rows = self.rows(sql, &[(&DUE_VOTINGS_MAX, Type::INT4)]).await?;
        Ok(rows.iter().map(|row| VotingId(row.get(0))).collect())
    }

    /// Closes one due poll. Waits for each lock for `lock_wait` at most.
    ///
    /// # Errors
    /// The database cannot be asked, or the poll is locked.
    pub(crate) async fn close_due_voting(
        &self,
        voting: VotingId,
        lock_wait: Duration,
    ) -> Result<(), StoreError> {
        let _permit = self.write_permit().await;
        let sql = "select usher.close_due_voting($1)";
        let parameters: [Parameter<'_>; 1] = [(&voting.0, Type::UUID)];
        self.rows_within(lock_wait, sql, &parameters)
            .await
            .map(drop)
    }

    /// Updates the movies' totals from the tallies. Returns the number of applied changes, at most
    /// [`crate::limits::TOTAL_CHANGES_MAX`].
    ///
    /// # Errors
    /// The database cannot be asked.
    pub(crate) async fn update_vote_totals(&self) -> Result<u64, StoreError> {
        let rows = self.rows("select usher.update_vote_totals()", &[]).await?;
        Ok(rows
            .first()
            .map_or(0, |row| u64::try_from(row.get::<_, i32>(0)).unwrap_or(0)))
    }

    /// Removes events that are older than `age` or beyond the newest `count` of their session, at most
    /// [`TRIM_EVENTS_MAX`]. Returns the number of removed events.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub(crate) async fn trim(&self, age: Duration, count: u64) -> Result<u64, StoreError> {
        let seconds = age.as_secs_f64();
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        let batch = i32::try_from(TRIM_EVENTS_MAX).unwrap_or(i32::MAX);
        let sql = "select usher.trim_events(make_interval(secs => $1), $2, $3)";
        let parameters: [Parameter<'_>; 3] = [
            (&seconds, Type::FLOAT8),
            (&count, Type::INT4),
            (&batch, Type::INT4),
        ];
        let rows = self.rows(sql, &parameters).await?;
        let trimmed = rows.first().map_or(0, |row| row.get::<_, i64>(0));
        Ok(u64::try_from(trimmed).unwrap_or(0))
    }

    /// Runs a batch function on a JSON array. It waits for each lock for `lock_wait` at most.
    pub(crate) async fn batch(
        &self,
        sql: &str,
        batch: &str,
        lock_wait: Duration,
    ) -> Result<Vec<Row>, StoreError> {
        let parameters: [Parameter<'_>; 1] = [(&batch, Type::TEXT)];
        self.rows_within(lock_wait, sql, &parameters).await
    }

    /// Waits for a permit to lock rows over a connection. There is one permit less than connections, so that a read,
    /// which waits for no row, always finds a connection.
    pub(crate) async fn write_permit(&self) -> OwnedSemaphorePermit {
        let permits = Arc::clone(&self.write_permits);
        permits
            .acquire_owned()
            .await
            .expect("the semaphore is never closed")
    }

    /// Returns the longest wait for a lock over these connections. It is shorter with few connections.
    #[must_use]
    pub(crate) fn lock_wait_max(&self) -> Duration {
        if write_permits_max(&self.pool) < LOCK_CONNECTIONS_MIN {
            LOCK_WAIT
        } else {
            LOCK_WAIT_APART
        }
    }

    /// Returns the wait for a lock of each of `waiting` statements that run one after the other.
    #[must_use]
    pub(crate) fn lock_wait(&self, waiting: usize) -> Duration {
        lock_wait(waiting, self.lock_wait_max())
    }

    /// Returns whether the database has the functions that the gateway needs, and the gateway may call them.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub(crate) async fn is_migrated(&self) -> Result<bool, StoreError> {
        // This reads the catalog, because without usage on the schema even naming a function is an error. The gateway
        // itself may not call the functions of callers.
        let sql = "select count(distinct p.proname) = cardinality($1) + cardinality($2) \
                   from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace \
                   where n.nspname = 'usher' and pg_catalog.has_schema_privilege(n.oid, 'usage') \
                   and (p.proname = any ($2) or p.proname = any ($1) \
                   and pg_catalog.has_function_privilege(p.oid, 'execute'))";
        let parameters: [Parameter<'_>; 2] = [
            (&OWN_FUNCTIONS.as_slice(), Type::TEXT_ARRAY),
            (&CALLERS_FUNCTIONS.as_slice(), Type::TEXT_ARRAY),
        ];
        let rows = self.rows(sql, &parameters).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    /// Returns the number of queries that wait for a connection.
    #[must_use]
    pub(crate) fn waiting(&self) -> usize {
        self.pool.status().waiting
    }

    async fn ask_admission(
        &self,
        session: SessionId,
        identity: &Identity,
    ) -> Result<(Option<String>, Option<String>), StoreError> {
        let client = self.client().await?;
        let begin = begin(READ_LOCK_WAIT);
        let subject: [Parameter<'_>; 1] = [(&session.0, Type::UUID)];
        let statements = async {
            let (admit, oneself, snapshot) = futures::join!(
                query(&client, "select usher.admit($1)::text", &subject),
                client.batch_execute("set local role none"),
                query(&client, "select usher.session_snapshot($1)::text", &subject),
            );
            let admit = admit?;
            oneself.map_err(classify)?;
            Ok((admit, snapshot?))
        };
        let (admit, snapshot) = as_caller(&client, &begin, identity, statements).await?;
        let text = |rows: &[Row]| rows.first().and_then(|row| row.get(0));
        Ok((text(&admit), text(&snapshot)))
    }

    /// Runs a statement that waits for no row, and for a table for [`READ_LOCK_WAIT`] at most.
    pub(crate) async fn rows(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        self.rows_within(READ_LOCK_WAIT, sql, parameters).await
    }

    /// Runs a statement that waits for each lock for `lock_wait` at most.
    pub(crate) async fn rows_within(
        &self,
        lock_wait: Duration,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let begin = begin(lock_wait);
        let rows = async {
            let client = self.client().await?;
            as_oneself(&client, &begin, query(&client, sql, parameters)).await
        };
        self.deadline(rows).await
    }

    pub(crate) async fn client(&self) -> Result<Object, StoreError> {
        self.pool
            .get()
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    pub(crate) async fn deadline<T>(
        &self,
        question: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(QUERY_TIMEOUT, question).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Unavailable("no answer in time".to_owned())),
        }
    }
}

/// Leaves one connection to reads, if there are several.
fn write_permits_max(pool: &Pool) -> usize {
    (pool.status().max_size - 1).max(1)
}

fn seq(row: &Row, column: usize) -> Seq {
    Seq(u64::try_from(row.get::<_, i64>(column)).unwrap_or(0))
}

//! The load tester's statements: insert messages, read the newest numbers, create users.

use std::rc::Rc;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::interval::count;
use crate::limits::{DATABASE_PAUSE, ROWS_MAX};
use crate::pacer::Due;
use crate::plan::{BoxError, Connect};
use crate::scan;
use crate::worker_state::WorkerState;

const INSERT: &str = "insert into public.chat_messages (session_id, user_id, body)
    select * from unnest($1::uuid[], $2::uuid[], $3::text[])";

/// The reason why the database cannot be used for the run.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The database cannot be reached.
    #[error("{0}")]
    Connect(#[source] BoxError),
    /// The database refused a statement.
    #[error("{attempt}")]
    Query {
        /// The action that the database refused.
        attempt: &'static str,
        /// The database's error.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The database has no such session.
    #[error("the database has no session {0}: is it the database of that gateway?")]
    NoSession(Uuid),
}

/// Inserts messages when they are due, until its task is dropped.
pub(crate) async fn insert(
    state: Rc<WorkerState>,
    connect: Connect,
    authors: Rc<[Uuid]>,
    mut dues: mpsc::Receiver<Due>,
) {
    let mut batch = Vec::new();
    loop {
        match connect().await {
            Ok(client) => {
                if let Err(error) =
                    insert_with(&client, &state, &authors, &mut dues, &mut batch).await
                {
                    let code = error.code().map_or("connection lost", |code| code.code());
                    let refused = &mut state.interval.borrow_mut().messages.refused;
                    for _ in batch.drain(..) {
                        count(refused, code);
                    }
                } else {
                    return;
                }
            }
            Err(error) => state.on_failure(&format!("the database: {error}")),
        }
        sleep(DATABASE_PAUSE).await;
    }
}

async fn insert_with(
    client: &Client,
    state: &WorkerState,
    authors: &[Uuid],
    dues: &mut mpsc::Receiver<Due>,
    batch: &mut Vec<Due>,
) -> Result<(), tokio_postgres::Error> {
    let statement = client.prepare(INSERT).await?;
    let shared = &state.shared;
    let sessions = &shared.plan.sessions;
    while dues.recv_many(batch, ROWS_MAX).await > 0 {
        let place = |due: &Due| usize::try_from(due.number).unwrap_or_default() % sessions.len();
        let row_sessions: Vec<Uuid> = batch.iter().map(|due| sessions[place(due)]).collect();
        let row_authors: Vec<Uuid> = batch.iter().map(|due| authors[place(due)]).collect();
        let size = shared.plan.message_characters;
        let bodies: Vec<String> = batch
            .iter()
            .map(|due| scan::body(&shared.run, due.number, due.at_us, size))
            .collect();
        state.interval.borrow_mut().messages.sent += batch.len() as u64;
        client
            .execute(&statement, &[&row_sessions, &row_authors, &bodies])
            .await?;
        let now_us = shared.clock.now_us();
        let mut interval = state.interval.borrow_mut();
        interval.messages.acknowledged += batch.len() as u64;
        for due in batch.drain(..) {
            if shared.window.holds(due.at_us) {
                interval.insert.record(now_us.saturating_sub(due.at_us));
            }
        }
    }
    Ok(())
}

/// Returns the streamer of each session. The streamer may always write there.
pub(crate) async fn authors(
    connect: &Connect,
    sessions: &[Uuid],
) -> Result<Vec<Uuid>, DatabaseError> {
    let attempt = "read public.movie_sessions";
    let client = connect().await.map_err(DatabaseError::Connect)?;
    let sql = "select streamer_id from public.movie_sessions where id = $1";
    let mut authors = Vec::new();
    for session in sessions {
        let row = client.query_opt(sql, &[session]).await;
        let row = row.map_err(|source| DatabaseError::Query { attempt, source })?;
        authors.push(row.ok_or(DatabaseError::NoSession(*session))?.get(0));
    }
    Ok(authors)
}

/// Returns the newest number of each session's log.
pub(crate) async fn heads(connect: &Connect, sessions: &[Uuid]) -> Result<Vec<u64>, DatabaseError> {
    let attempt = "read usher.session_heads";
    let client = connect().await.map_err(DatabaseError::Connect)?;
    let sql = "select seq from usher.session_heads where session_id = $1";
    let mut heads = Vec::new();
    for session in sessions {
        let row = client.query_opt(sql, &[session]).await;
        let row = row.map_err(|source| DatabaseError::Query { attempt, source })?;
        let seq: i64 = row.map_or(0, |row| row.get(0));
        heads.push(u64::try_from(seq).unwrap_or_default());
    }
    Ok(heads)
}

/// Creates users `load_000001` and so on, or finds those of an earlier run.
///
/// # Errors
///
/// If the database cannot be reached, or its role may not write to `auth.users`.
pub async fn make_users(connect: &Connect, count: u32) -> Result<Vec<Uuid>, DatabaseError> {
    let attempt =
        "create users for the run; the database's role must be allowed to write to auth.users";
    let client = connect().await.map_err(DatabaseError::Connect)?;
    let make = "insert into auth.users (id, aud, role, raw_user_meta_data)
        select gen_random_uuid(), 'authenticated', 'authenticated', jsonb_build_object('username', name)
        from (select 'load_' || lpad(n::text, 6, '0') from generate_series(1, $1::int4) n) as wanted (name)
        where not exists (select from public.profiles p where p.username = wanted.name)";
    let read = "select id from public.profiles where username like 'load\\_______' order by username limit $1";
    let error = |source| DatabaseError::Query { attempt, source };
    let users = i32::try_from(count).unwrap_or(i32::MAX);
    client.execute(make, &[&users]).await.map_err(error)?;
    let rows = client
        .query(read, &[&i64::from(count)])
        .await
        .map_err(error)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

//! Acts of moderation: row writes under the caller's own role and claims, as over the Data API.
//!
//! They are few, so they are not batched. Policies and guards decide. This module translates their errors into
//! refusals.
//!
//! An act waits only briefly for a lock, then returns its connection and tries again. Acts in locked sessions therefore
//! do not block connections.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::types::Type;
use tokio_postgres::{IsolationLevel, Row, Transaction};
use uuid::Uuid;

use crate::limits::{CALL_BANS_MAX, READ_LOCK_WAIT};
use crate::postgres::moderation_permits::Counted;
use crate::postgres::settings::{begin_of_callers, of_callers};
use crate::postgres::statement::{Parameter, StoreError, classify, query};
use crate::postgres::store::Store;
use crate::postgres::transaction::{as_caller, become_caller, not_begun};
use usher_core::auth::identity::Identity;
use usher_core::limits::{BUSY_AFTER, LOCK_PAUSE_MIN, LOCK_WAIT_MIN};
use usher_core::protocol::id::{SessionId, UserId, VotingId};
use usher_core::protocol::moderation::{Act, NewBan, NewVoting, SessionChange, VotingChange};
use usher_core::protocol::refusal::{Refusal, RefusalCode};

/// The outcome of an act: a JSON object or a refusal.
type ActResult = Result<Value, Refusal>;

impl Store {
    /// Performs an act as the caller.
    ///
    /// # Errors
    /// The database cannot be asked, or a lock stays taken for [`BUSY_AFTER`]. A refusal of the caller is no error.
    pub(crate) async fn moderate(
        &self,
        identity: &Identity,
        act: &Act,
    ) -> Result<ActResult, StoreError> {
        let _counted = Counted::new(&self.moderations);
        let deadline = Instant::now() + BUSY_AFTER;
        let mut pause = LOCK_PAUSE_MIN;
        loop {
            let turn = timeout_at(deadline, self.moderations.permits.acquire()).await;
            let Ok(turn) = turn else {
                return Err(StoreError::Locked);
            };
            let permit = self.write_permit().await;
            let waiting = self.moderations.count.load(Ordering::Relaxed);
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = self.lock_wait(waiting).min(left).max(LOCK_WAIT_MIN);
            let outcome = self.try_to_moderate(identity, act, wait).await;
            drop((turn, permit));
            let is_locked = matches!(outcome, Err(StoreError::Locked));
            if !is_locked || Instant::now() + pause >= deadline {
                return outcome;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn try_to_moderate(
        &self,
        identity: &Identity,
        act: &Act,
        lock_wait: Duration,
    ) -> Result<ActResult, StoreError> {
        match self.deadline(self.commit(identity, act, lock_wait)).await {
            Err(StoreError::Refused(error)) => self.refusal(error).await.map(Err),
            outcome => outcome,
        }
    }

    async fn commit(
        &self,
        identity: &Identity,
        act: &Act,
        lock_wait: Duration,
    ) -> Result<ActResult, StoreError> {
        let mut client = self.client().await?;
        // Dropping the transaction before the commit rolls it back.
        let transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::ReadCommitted)
            .read_only(false)
            .deferrable(false)
            .start()
            .await
            .map_err(not_begun)?;
        become_caller(&*transaction, &of_callers(lock_wait), identity).await?;
        let outcome = perform(&transaction, act).await.map_err(classify)?;
        if outcome.is_ok() {
            transaction.commit().await.map_err(classify)?;
        }
        Ok(outcome)
    }

    /// Names the refusal behind an error of a statement, as `usher.refusal_of` names it for the batches.
    ///
    /// # Errors
    /// The same error if it is not about the caller.
    async fn refusal(&self, error: tokio_postgres::Error) -> Result<Refusal, StoreError> {
        let Some(db_error) = error.as_db_error() else {
            return Err(StoreError::Refused(error));
        };
        let (state, constraint) = (db_error.code().code(), db_error.constraint());
        if let Some(refusal) = constraint.and_then(by_constraint) {
            return Ok(refusal);
        }
        let sql = "select r.refusal from usher.refusal_of($1, $2) as r";
        let parameters: [Parameter<'_>; 2] = [(&state, Type::TEXT), (&constraint, Type::TEXT)];
        let rows = self.rows(sql, &parameters).await?;
        let code = rows.first().and_then(|row| RefusalCode::parse(row.get(0)));
        match code.filter(|code| *code != RefusalCode::Internal) {
            // The messages of the schema's own states are written for clients.
            Some(code) if state.starts_with("US") => {
                Ok(Refusal::new(code, db_error.message().to_owned()))
            }
            Some(RefusalCode::Forbidden) => Ok(Refusal::new(
                RefusalCode::Forbidden,
                "only the streamer and the moderators of the session may do this, and only to users with fewer rights than their own",
            )),
            Some(_) | None => Err(StoreError::Refused(error)),
        }
    }

    /// Reads the catalogue as the caller: the movies whose title contains `search`, by title, each as a JSON object.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub(crate) async fn movies(
        &self,
        identity: &Identity,
        search: &str,
        count: u16,
    ) -> Result<Vec<String>, StoreError> {
        let sql = "select json_build_object('id', m.id, 'title', m.title, 'release_year', m.release_year, \
                   'poster_path', m.poster_path)::text \
                   from public.movies m \
                   where position(lower($1) in lower(m.title)) > 0 \
                   order by m.title, m.id \
                   limit $2";
        let count = i32::from(count);
        self.read(
            identity,
            sql,
            &[(&search, Type::TEXT), (&count, Type::INT4)],
        )
        .await
    }

    /// Reads the bans of a session as the caller: the newest that are in force, each as a JSON object.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub(crate) async fn bans(
        &self,
        identity: &Identity,
        session: SessionId,
    ) -> Result<Vec<String>, StoreError> {
        let sql = "select json_build_object('user', b.user_id, 'username', p.username, \
                   'display_name', p.display_name, 'until', b.until, 'reason', b.reason)::text \
                   from public.session_bans b \
                   join public.profiles p on p.id = b.user_id \
                   where b.session_id = $1 and (b.until is null or b.until > now()) \
                   order by b.updated_at desc, b.user_id \
                   limit $2";
        self.read(
            identity,
            sql,
            &[(&session.0, Type::UUID), (&CALL_BANS_MAX, Type::INT4)],
        )
        .await
    }

    async fn read(
        &self,
        identity: &Identity,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<String>, StoreError> {
        let begin = begin_of_callers(READ_LOCK_WAIT);
        let read = async {
            let client = self.client().await?;
            let rows = query(&client, sql, parameters);
            as_caller(&client, &begin, identity, rows).await
        };
        let rows = self.deadline(read).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

async fn perform(
    transaction: &Transaction<'_>,
    act: &Act,
) -> Result<ActResult, tokio_postgres::Error> {
    // A row that the caller cannot see is `not_found`. A row that it sees and cannot change is `forbidden`.
    if !is_seen(transaction, act).await? {
        let message = "no such thing, or not for this caller";
        return Ok(Err(Refusal::new(RefusalCode::NotFound, message)));
    }
    let done = match act {
        Act::OpenVoting(voting) => open_voting(transaction, voting).await?,
        Act::ChangeVoting(voting, change) => change_voting(transaction, *voting, change).await?,
        Act::ChangeSession(session, change) => {
            change_session(transaction, *session, change).await?
        }
        Act::DeleteMessage(message) => {
            let sql = "update public.chat_messages set deleted_at = now() where id = $1 \
                       returning json_build_object('message', id)";
            one(transaction, sql, &[(&message.0, Type::UUID)]).await?
        }
        Act::Ban(session, user, new) => ban(transaction, *session, *user, new).await?,
        Act::LiftBan(session, user) => lift_ban(transaction, *session, *user).await?,
    };
    Ok(done.ok_or_else(|| {
        let message = "only the streamer and the moderators of the session may do this";
        Refusal::new(RefusalCode::Forbidden, message)
    }))
}

async fn is_seen(transaction: &Transaction<'_>, act: &Act) -> Result<bool, tokio_postgres::Error> {
    let (sql, id) = match act {
        Act::OpenVoting(NewVoting { session, .. })
        | Act::ChangeSession(session, _)
        | Act::Ban(session, _, _)
        | Act::LiftBan(session, _) => (
            "select 1 from public.movie_sessions where id = $1",
            session.0,
        ),
        Act::ChangeVoting(voting, _) => (
            "select 1 from public.voting_sessions where id = $1",
            voting.0,
        ),
        Act::DeleteMessage(message) => (
            "select 1 from public.chat_messages where id = $1",
            message.0,
        ),
    };
    let rows = transaction.query_typed(sql, &[(&id, Type::UUID)]).await?;
    Ok(!rows.is_empty())
}

/// Inserts a draft first, because voters must not find a poll without its ballot.
async fn open_voting(
    transaction: &Transaction<'_>,
    voting: &NewVoting,
) -> Result<Option<Value>, tokio_postgres::Error> {
    let visibility = voting.visibility.as_str();
    let draft = "insert into public.voting_sessions (session_id, question, results_visibility, allow_change) \
                 values ($1, $2, $3, $4) returning id";
    let parameters: [Parameter<'_>; 4] = [
        (&voting.session.0, Type::UUID),
        (&voting.question, Type::TEXT),
        (&visibility, Type::TEXT),
        (&voting.allow_change, Type::BOOL),
    ];
    let rows = transaction.query_typed(draft, &parameters).await?;
    let Some(id) = rows.first().map(|row| row.get::<_, Uuid>(0)) else {
        return Ok(None);
    };
    let movies: Vec<Uuid> = voting.movies.iter().map(|movie| movie.0).collect();
    let options = "insert into public.voting_options (voting_session_id, movie_id, position) \
                   select $1, o.movie, o.n from unnest($2) with ordinality as o (movie, n)";
    let parameters: [Parameter<'_>; 2] = [(&id, Type::UUID), (&movies, Type::UUID_ARRAY)];
    transaction.query_typed(options, &parameters).await?;
    let closes_in = voting.closes_in_seconds.map(f64::from);
    let open = "update public.voting_sessions \
                set state = 'open', closes_at = now() + make_interval(secs => $2) \
                where id = $1 \
                returning json_build_object('voting', id, 'closes_at', closes_at)";
    one(
        transaction,
        open,
        &[(&id, Type::UUID), (&closes_in, Type::FLOAT8)],
    )
    .await
}

async fn change_voting(
    transaction: &Transaction<'_>,
    voting: VotingId,
    change: &VotingChange,
) -> Result<Option<Value>, tokio_postgres::Error> {
    let state = change.state.map(|state| state.as_str());
    let visibility = change.visibility.map(|visibility| visibility.as_str());
    let sql = "update public.voting_sessions \
               set state = coalesce($2, state), results_visibility = coalesce($3, results_visibility) \
               where id = $1 \
               returning json_build_object('voting', id, 'state', state, \
               'results_visibility', results_visibility, 'closes_at', closes_at)";
    let parameters: [Parameter<'_>; 3] = [
        (&voting.0, Type::UUID),
        (&state, Type::TEXT),
        (&visibility, Type::TEXT),
    ];
    one(transaction, sql, &parameters).await
}

async fn change_session(
    transaction: &Transaction<'_>,
    session: SessionId,
    change: &SessionChange,
) -> Result<Option<Value>, tokio_postgres::Error> {
    let seconds = change.slow_mode_seconds.map(i64::from);
    let sql = "update public.movie_sessions \
               set slow_mode_seconds = coalesce($2, slow_mode_seconds), chat_enabled = coalesce($3, chat_enabled) \
               where id = $1 \
               returning json_build_object('session', id, 'slow_mode_seconds', slow_mode_seconds, \
               'chat_enabled', chat_enabled)";
    let parameters: [Parameter<'_>; 3] = [
        (&session.0, Type::UUID),
        (&seconds, Type::INT8),
        (&change.chat_enabled, Type::BOOL),
    ];
    one(transaction, sql, &parameters).await
}

async fn ban(
    transaction: &Transaction<'_>,
    session: SessionId,
    user: UserId,
    new: &NewBan,
) -> Result<Option<Value>, tokio_postgres::Error> {
    let seconds = new.seconds.map(f64::from);
    let sql = "insert into public.session_bans (session_id, user_id, until, reason, banned_by) \
               values ($1, $2, now() + make_interval(secs => $3), $4, auth.uid()) \
               on conflict (session_id, user_id) do update \
               set until = excluded.until, reason = excluded.reason, banned_by = excluded.banned_by \
               returning json_build_object('user', user_id, 'until', until)";
    let parameters: [Parameter<'_>; 4] = [
        (&session.0, Type::UUID),
        (&user.0, Type::UUID),
        (&seconds, Type::FLOAT8),
        (&new.reason, Type::TEXT),
    ];
    one(transaction, sql, &parameters).await
}

/// Succeeds without a ban too, for callers who would see one.
async fn lift_ban(
    transaction: &Transaction<'_>,
    session: SessionId,
    user: UserId,
) -> Result<Option<Value>, tokio_postgres::Error> {
    let sql = "with lifted as ( \
                 delete from public.session_bans where session_id = $1 and user_id = $2 returning user_id \
               ) \
               select json_build_object('user', $2, 'until', null) \
               where exists (select from lifted) \
               or ((select moderator from usher.standing($1)) \
                 and not exists (select from public.session_bans where session_id = $1 and user_id = $2))";
    let parameters: [Parameter<'_>; 2] = [(&session.0, Type::UUID), (&user.0, Type::UUID)];
    one(transaction, sql, &parameters).await
}

/// Returns the one row of a statement; `None` if a policy hid all rows.
async fn one(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: &[Parameter<'_>],
) -> Result<Option<Value>, tokio_postgres::Error> {
    let rows = transaction.query_typed(sql, parameters).await?;
    Ok(rows.first().map(|row: &Row| row.get(0)))
}

/// Returns the refusal of a constraint that only an act of moderation can violate.
fn by_constraint(constraint: &str) -> Option<Refusal> {
    let (code, message) = match constraint {
        "voting_sessions_one_open_key" => (
            RefusalCode::Conflict,
            "another poll is open in this session: close it first",
        ),
        "voting_options_movie_id_fkey" => (
            RefusalCode::BadRequest,
            "movies must be movies of the catalogue",
        ),
        "session_bans_user_id_fkey" => (RefusalCode::NotFound, "no such user"),
        _ => return None,
    };
    Some(Refusal::new(code, message))
}

//! Runs the embedded migrations up and down, and the shim for a Postgres without Supabase.
//!
//! Migrations are recorded in the Supabase CLI's own table, in its form, so that either tool can continue where the
//! other stopped. Each migration and its record are one transaction. One advisory lock covers them all: if several
//! gateways start together, one migrates and the others find nothing to do. The application's own migrations stay
//! untouched.
//!
//! No library: refinery and sqlx keep a table of their own, which the Supabase CLI does not read.

use std::{borrow::Cow, collections::BTreeSet};

use rust_embed::RustEmbed;
use tokio_postgres::{
    Client,
    error::{ErrorPosition, SqlState},
};
use tracing::info;

use crate::limits::MIGRATION_LOCK_TIMEOUT;
use crate::postgres::migration_advice::{self, missing_platform};

/// The file that gives a plain Postgres the roles and schemas of a Supabase project.
const SHIM: &str = "shim.sql";

/// The advisory lock of all migrations: the letters "usher" as a number.
const LOCK_KEY: i64 = 0x0075_7368_6572;

#[derive(RustEmbed)]
#[folder = "sql/"]
#[include = "migrations/*.sql"]
#[include = "rollbacks/*.sql"]
#[include = "shim.sql"]
#[include = "seed.sql"]
struct SqlFiles;

/// One embedded migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Fourteen digits, which set the order.
    pub version: String,
    /// The subject.
    pub name: String,
}

impl Migration {
    /// Returns the name of its file, which is also that of its rollback.
    #[must_use]
    pub fn file(&self) -> String {
        format!("{}_{}.sql", self.version, self.name)
    }
}

/// Whether a migration has been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationState {
    /// It has been applied.
    Applied,
    /// It has not been applied.
    Pending,
    /// It has been applied, and belongs to the application.
    Foreign,
}

/// How far to roll back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down {
    /// Only the newest migration.
    OneStep,
    /// Everything after this version, which stays. `0` rolls back everything.
    To(String),
}

/// Why the schema could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// A file's SQL failed. Postgres rolled the file back.
    #[error("run {file}: {problem}")]
    Sql {
        /// The name of the file.
        file: String,
        /// The error of Postgres, with the line.
        problem: String,
    },
    /// The list of migrations could not be read or locked.
    #[error("{attempt}: {problem}")]
    Record {
        /// The action that failed.
        attempt: &'static str,
        /// The error of Postgres.
        problem: String,
    },
    /// The role lacks a right.
    #[error("{attempt}: {problem}\n  to do: {advice}")]
    Denied {
        /// The action that failed.
        attempt: String,
        /// The error of Postgres.
        problem: String,
        /// The grants that help, or the roles that have the right.
        advice: String,
    },
    /// The database lacks objects that every Supabase project has.
    #[error(
        "this database lacks what the migrations build on: {}\n  to do: on a bare Postgres, run `usher migrate up \
         --shim` as a superuser, which makes it; a Supabase project has it in its database postgres",
        missing.join(", ")
    )]
    NotSupabase {
        /// The missing objects.
        missing: Vec<String>,
    },
    /// Another process migrates and does not finish.
    #[error(
        "another process has been migrating this database for {} s: wait for it, or end its session",
        MIGRATION_LOCK_TIMEOUT.as_secs()
    )]
    Locked,
    /// A rollback is not embedded.
    #[error("rollbacks/{file} does not exist: nothing has been taken back")]
    NoRollback {
        /// The name of the file.
        file: String,
    },
    /// `--to` names a version that is not applied.
    #[error(
        "version {version} is not an applied migration of ours: `usher migrate status` lists them, 0 is before all"
    )]
    UnknownVersion {
        /// The version of `--to`.
        version: String,
    },
    /// The shim would overwrite objects of the platform.
    #[error(
        "this is a Supabase project, or has an auth.users of somebody else: the shim is for a bare Postgres alone"
    )]
    NotBare,
}

/// Returns all embedded migrations, in order.
///
/// # Panics
///
/// If a file's name has another form. `tests/it` checks them.
#[must_use]
pub fn all() -> Vec<Migration> {
    let mut migrations: Vec<_> = SqlFiles::iter()
        .filter_map(|path| {
            let stem = path.strip_prefix("migrations/")?.strip_suffix(".sql")?;
            let (version, name) = stem.split_once('_').expect("a version and a name");
            Some(Migration {
                version: version.to_owned(),
                name: name.to_owned(),
            })
        })
        .collect();
    migrations.sort_by(|a, b| a.version.cmp(&b.version));
    migrations
}

/// Returns the SQL of an embedded migration.
///
/// # Panics
///
/// If the migration is not embedded.
#[must_use]
pub(crate) fn sql(migration: &Migration) -> Cow<'static, str> {
    text(&format!("migrations/{}", migration.file())).expect("an embedded migration has a text")
}

/// Returns the embedded migrations that are not applied. The client's role must be allowed to read the list.
///
/// # Errors
///
/// If the list cannot be read.
pub async fn pending(client: &Client) -> Result<Vec<Migration>, MigrationError> {
    let applied = applied(client).await?;
    let mut migrations = all();
    migrations.retain(|migration| !applied.contains(&migration.version));
    Ok(migrations)
}

/// Returns every migration that is embedded or applied, in order.
///
/// # Errors
///
/// If the list cannot be read.
pub async fn status(client: &Client) -> Result<Vec<(Migration, MigrationState)>, MigrationError> {
    let mut applied = applied(client).await?;
    let mut states: Vec<_> = all()
        .into_iter()
        .map(|migration| {
            let state = if applied.remove(&migration.version) {
                MigrationState::Applied
            } else {
                MigrationState::Pending
            };
            (migration, state)
        })
        .collect();
    states.extend(applied.into_iter().map(|version| {
        let name = String::new();
        (Migration { version, name }, MigrationState::Foreign)
    }));
    states.sort_by(|(a, _), (b, _)| a.version.cmp(&b.version));
    Ok(states)
}

/// Applies the pending migrations, and returns them.
///
/// # Errors
///
/// If one fails. Those before it stay applied.
pub async fn up(client: &mut Client) -> Result<Vec<Migration>, MigrationError> {
    lock(client).await?;
    let result = up_locked(client).await;
    unlock(client).await;
    result
}

/// Rolls migrations back, and returns them, newest first.
///
/// # Errors
///
/// If a rollback is missing (then nothing changes), or if one fails (then those before it stay rolled back).
pub async fn down(client: &mut Client, down: &Down) -> Result<Vec<Migration>, MigrationError> {
    lock(client).await?;
    let result = down_locked(client, down).await;
    unlock(client).await;
    result
}

/// Gives a plain Postgres the parts of a Supabase project: roles, `auth`, `storage`. May be repeated.
///
/// # Errors
///
/// If this is a Supabase project, or the SQL fails.
pub async fn shim(client: &mut Client) -> Result<(), MigrationError> {
    lock(client).await?;
    let result = shim_locked(client).await;
    unlock(client).await;
    result
}

/// Adds the demo's users, session and poll.
///
/// # Errors
///
/// If the SQL fails, such as on a database that has them already.
#[cfg(feature = "dev")]
pub(crate) async fn seed(client: &mut Client) -> Result<(), MigrationError> {
    run(client, "seed.sql", None).await
}

async fn up_locked(client: &mut Client) -> Result<Vec<Migration>, MigrationError> {
    // In three steps, like the CLI: an old CLI created only the first column.
    let table = "create schema if not exists supabase_migrations;
        create table if not exists supabase_migrations.schema_migrations (version text not null primary key);
        alter table supabase_migrations.schema_migrations add column if not exists statements text[];
        alter table supabase_migrations.schema_migrations add column if not exists name text;";
    let made = client
        .batch_execute(&format!(
            "set client_min_messages = warning; {table} reset client_min_messages;"
        ))
        .await;
    if let Err(error) = made {
        return Err(record(client, "make the list of migrations", &error).await);
    }
    let pending = pending(client).await?;
    if !pending.is_empty() {
        let missing = missing_platform(client).await;
        match missing.as_deref() {
            Ok([]) => {}
            Ok(missing) => {
                let missing = missing.to_vec();
                return Err(MigrationError::NotSupabase { missing });
            }
            Err(error) => return Err(record(client, "look for a Supabase project", error).await),
        }
    }
    for migration in &pending {
        let path = format!("migrations/{}", migration.file());
        let sql = text(&path).expect("it was listed");
        let note = Note::Add(migration, &sql);
        run(client, &path, Some(note)).await?;
        info!(file = migration.file(), "applied a migration");
    }
    Ok(pending)
}

async fn down_locked(client: &mut Client, down: &Down) -> Result<Vec<Migration>, MigrationError> {
    let applied = applied(client).await?;
    let mut ours = all();
    ours.retain(|migration| applied.contains(&migration.version));
    let kept = match down {
        Down::OneStep => ours.len().saturating_sub(1),
        Down::To(version) if version == "0" => 0,
        Down::To(version) => {
            let found = ours
                .iter()
                .position(|migration| migration.version == *version);
            1 + found.ok_or_else(|| MigrationError::UnknownVersion {
                version: version.clone(),
            })?
        }
    };
    let mut back = ours.split_off(kept);
    back.reverse();
    let missing = back
        .iter()
        .find(|m| text(&format!("rollbacks/{}", m.file())).is_none());
    if let Some(migration) = missing {
        return Err(MigrationError::NoRollback {
            file: migration.file(),
        });
    }
    for migration in &back {
        let path = format!("rollbacks/{}", migration.file());
        run(client, &path, Some(Note::Remove(migration))).await?;
        info!(file = migration.file(), "took back a migration");
    }
    Ok(back)
}

async fn shim_locked(client: &mut Client) -> Result<(), MigrationError> {
    // On the platform these tables belong to a platform role. The shim gives them to the database's owner.
    let foreign = "select exists (select from pg_roles where rolname = 'supabase_admin')
        or exists (
            select from pg_class c, pg_database d
            where c.oid = to_regclass('auth.users')
                and d.datname = current_database()
                and c.relowner <> d.datdba
        )";
    match client.query_one(foreign, &[]).await {
        Ok(row) if row.get(0) => Err(MigrationError::NotBare),
        Ok(_) => run(client, SHIM, None).await,
        Err(error) => Err(record(client, "look for a Supabase project", &error).await),
    }
}

/// The record that a file's transaction writes to the list.
enum Note<'a> {
    Add(&'a Migration, &'a str),
    Remove(&'a Migration),
}

/// Runs one file and its record in a transaction.
async fn run(
    client: &mut Client,
    path: &str,
    note: Option<Note<'_>>,
) -> Result<(), MigrationError> {
    let sql = text(path).unwrap_or_default();
    let Err(error) = transact(client, &sql, note).await else {
        return Ok(());
    };
    let problem = describe(&error, &sql);
    if !is_denial(&error) {
        let file = path.to_owned();
        return Err(MigrationError::Sql { file, problem });
    }
    Err(MigrationError::Denied {
        attempt: format!("run {path}"),
        problem,
        advice: match path {
            SHIM => "the shim makes roles and schemas: run it as a superuser".to_owned(),
            _ => migration_advice::rights(client).await,
        },
    })
}

async fn transact(
    client: &mut Client,
    sql: &str,
    note: Option<Note<'_>>,
) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(sql).await?;
    // Settings of the file, such as a search path or a role, must not reach the record or the next file.
    transaction.batch_execute("reset all; reset role").await?;
    match note {
        Some(Note::Add(Migration { version, name }, sql)) => {
            let insert = "insert into supabase_migrations.schema_migrations (version, statements, name) \
                values ($1, array[$2], $3)";
            transaction.execute(insert, &[version, &sql, name]).await?;
        }
        Some(Note::Remove(migration)) => {
            let delete = "delete from supabase_migrations.schema_migrations where version = $1";
            transaction.execute(delete, &[&migration.version]).await?;
        }
        None => {}
    }
    transaction.commit().await
}

async fn applied(client: &Client) -> Result<BTreeSet<String>, MigrationError> {
    let asked = async {
        let exists = "select to_regclass('supabase_migrations.schema_migrations') is not null";
        if !client.query_one(exists, &[]).await?.get::<_, bool>(0) {
            return Ok(BTreeSet::new());
        }
        let list = "select version from supabase_migrations.schema_migrations";
        let rows = client.query(list, &[]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    };
    match asked.await {
        Ok(applied) => Ok(applied),
        Err(error) if is_denial(&error) => Err(MigrationError::Denied {
            attempt: "read the list of migrations".to_owned(),
            problem: describe(&error, ""),
            advice: "connect as the role that applies them (on Supabase: postgres). As the gateway's role, `usher \
                     doctor` says whether the schema is as it should be"
                .to_owned(),
        }),
        Err(error) => Err(record(client, "read the list of migrations", &error).await),
    }
}

/// Takes the lock for the whole connection, so that it lasts from one migration's transaction to the next.
async fn lock(client: &Client) -> Result<(), MigrationError> {
    let ms = MIGRATION_LOCK_TIMEOUT.as_millis();
    let wait =
        format!("set lock_timeout = {ms}; select pg_advisory_lock({LOCK_KEY}); reset lock_timeout");
    match client.batch_execute(&wait).await {
        Ok(()) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            Err(MigrationError::Locked)
        }
        Err(error) => Err(record(client, "lock the list of migrations", &error).await),
    }
}

/// Releases the lock. If that fails, the lock ends with the connection.
async fn unlock(client: &Client) {
    let _ = client
        .batch_execute(&format!("select pg_advisory_unlock({LOCK_KEY})"))
        .await;
}

fn text(path: &str) -> Option<Cow<'static, str>> {
    let file = SqlFiles::get(path)?;
    Some(match file.data {
        Cow::Borrowed(bytes) => str::from_utf8(bytes).expect("SQL is text").into(),
        Cow::Owned(bytes) => String::from_utf8(bytes).expect("SQL is text").into(),
    })
}

/// Returns the error of reading the list of migrations, with advice if a right is missing.
async fn record(
    client: &Client,
    attempt: &'static str,
    error: &tokio_postgres::Error,
) -> MigrationError {
    let problem = describe(error, "");
    if !is_denial(error) {
        return MigrationError::Record { attempt, problem };
    }
    MigrationError::Denied {
        attempt: attempt.to_owned(),
        problem,
        advice: migration_advice::rights(client).await,
    }
}

fn is_denial(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
}

/// Returns the error of Postgres, with the line of `sql` if Postgres gave a position.
fn describe(error: &tokio_postgres::Error, sql: &str) -> String {
    let Some(said) = error.as_db_error() else {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
        return format!("{error}{}", cause.unwrap_or_default());
    };
    let mut text = format!("{} ({})", said.message(), said.code().code());
    if let Some(ErrorPosition::Original(position)) = said.position() {
        let before = sql
            .chars()
            .take(*position as usize)
            .filter(|c| *c == '\n')
            .count();
        text.push_str(&format!(" at line {}", before + 1));
    }
    for more in [said.detail(), said.hint(), said.where_()]
        .into_iter()
        .flatten()
    {
        text.push_str(&format!("; {}", more.replace('\n', ", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_has_a_rollback_of_the_same_name() {
        let migrations = all();
        assert!(!migrations.is_empty());
        for migration in migrations {
            let Migration { version, .. } = &migration;
            assert!(
                version.len() == 14 && version.bytes().all(|b| b.is_ascii_digit()),
                "{version}"
            );
            assert!(
                text(&format!("rollbacks/{}", migration.file())).is_some(),
                "{migration:?}"
            );
        }
        for rollback in SqlFiles::iter().filter(|path| path.starts_with("rollbacks/")) {
            let migration = rollback.replace("rollbacks/", "migrations/");
            assert!(
                SqlFiles::get(&migration).is_some(),
                "{rollback} takes back nothing"
            );
        }
    }

    #[test]
    fn versions_are_unique_and_in_order() {
        let migrations = all();
        assert!(migrations.is_sorted_by(|a, b| a.version < b.version));
    }
}

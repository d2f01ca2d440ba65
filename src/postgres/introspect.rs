//! Reads facts about a database for `usher doctor`, which judges them. Queries only the catalog, which every role may
//! read.

use std::{collections::BTreeMap, future::poll_fn};

use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, Error};
use uuid::Uuid;

use crate::limits::{ECHO_MAX, ECHO_QUEUE_LEN, POOLER_TRIES};
use crate::postgres::connect::Link;

/// Facts about the Postgres server.
#[derive(Debug)]
pub(crate) struct ServerSettings {
    /// `server_version_num`, such as 150019.
    pub(crate) version_number: i32,
    /// `server_version`, for people.
    pub(crate) version: String,
    /// Connection limits of the server, this role and this database. A part without a limit is left out.
    pub(crate) rooms: Vec<Room>,
    /// The server's clock, in milliseconds since 1970.
    pub(crate) unix_ms: i64,
}

/// A connection limit.
#[derive(Debug)]
pub(crate) struct Room {
    /// The limited part: the server, the role or the database.
    pub(crate) of: String,
    /// The most connections.
    pub(crate) max: i64,
    /// The connections now.
    pub(crate) taken: i64,
}

/// The role of the gateway's connections.
#[derive(Debug)]
pub(crate) struct DatabaseRole {
    pub(crate) name: String,
    /// Whether the role is a superuser, for whom Postgres checks no rights.
    pub(crate) is_superuser: bool,
    /// Whether row level security does not apply to the role.
    pub(crate) bypasses_rls: bool,
    /// Whether the role has the rights of its groups without `set role`.
    pub(crate) inherits: bool,
    /// The roles that it may take with `set role`.
    pub(crate) member_of: Vec<String>,
    /// Whether it has `usage` on the schema `usher`.
    pub(crate) may_use_schema: bool,
}

/// A function of the schema `usher`.
#[derive(Debug)]
pub(crate) struct Function {
    /// The source text.
    pub(crate) body: String,
    /// Whether the gateway may call it.
    pub(crate) is_executable: bool,
    /// Whether `anon` and `authenticated` may call it.
    pub(crate) is_executable_by_callers: bool,
}

/// The objects of our migrations that the database has, by name.
#[derive(Debug)]
pub(crate) struct Objects {
    pub(crate) functions: BTreeMap<String, Function>,
    /// Whether each table has row level security on.
    pub(crate) tables: BTreeMap<String, bool>,
    /// Whether each trigger, by table and name, is enabled.
    pub(crate) triggers: BTreeMap<(String, String), bool>,
}

/// Reads the facts about the server.
///
/// # Errors
/// If the server does not answer.
pub(crate) async fn server(client: &Client) -> Result<ServerSettings, Error> {
    let sql = "select current_setting('server_version_num')::int, current_setting('server_version'), \
               (extract(epoch from clock_timestamp()) * 1000)::bigint";
    let rows = client.query_typed(sql, &[]).await?;
    let row = &rows[0];
    Ok(ServerSettings {
        version_number: row.get(0),
        version: row.get(1),
        unix_ms: row.get(2),
        rooms: rooms(client).await?,
    })
}

async fn rooms(client: &Client) -> Result<Vec<Room>, Error> {
    // Uses only the columns of pg_stat_activity that every role sees of other roles' sessions.
    let sql = "select 'the server', current_setting('max_connections')::bigint \
                      - current_setting('superuser_reserved_connections')::bigint \
                      - coalesce(current_setting('reserved_connections', true)::bigint, 0), \
                      (select sum(numbackends)::bigint from pg_catalog.pg_stat_database) \
               union all \
               select 'the role ' || rolname, rolconnlimit, \
                      (select count(*) from pg_catalog.pg_stat_activity where usesysid = r.oid) \
               from pg_catalog.pg_roles r where rolname = session_user and rolconnlimit >= 0 \
               union all \
               select 'the database ' || datname, datconnlimit, \
                      (select count(*) from pg_catalog.pg_stat_activity where datid = d.oid) \
               from pg_catalog.pg_database d where datname = current_database() and datconnlimit >= 0";
    let rows = client.query_typed(sql, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| Room {
            of: row.get(0),
            max: row.get(1),
            taken: row.get(2),
        })
        .collect())
}

/// Reads the facts about the role.
///
/// # Errors
/// If the server does not answer.
pub(crate) async fn role(client: &Client) -> Result<DatabaseRole, Error> {
    let sql = "select r.rolname::text, r.rolsuper, r.rolbypassrls, r.rolinherit, \
               array(select g.rolname::text from pg_catalog.pg_auth_members m \
                     join pg_catalog.pg_roles g on g.oid = m.roleid where m.member = r.oid order by 1), \
               coalesce((select pg_catalog.has_schema_privilege(n.oid, 'usage') \
                         from pg_catalog.pg_namespace n where n.nspname = 'usher'), false) \
               from pg_catalog.pg_roles r where r.rolname = current_user";
    let rows = client.query_typed(sql, &[]).await?;
    let row = &rows[0];
    Ok(DatabaseRole {
        name: row.get(0),
        is_superuser: row.get(1),
        bypasses_rls: row.get(2),
        inherits: row.get(3),
        member_of: row.get(4),
        may_use_schema: row.get(5),
    })
}

/// A storage bucket for pictures.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// The bucket's id.
    pub(crate) name: String,
    /// Whether a file's path is enough to read the file.
    pub(crate) is_public: bool,
    /// The most bytes of a file; `None` without a limit.
    pub(crate) bytes_max: Option<i64>,
    /// The allowed MIME types; `None` if all are allowed.
    pub(crate) mime_types: Option<Vec<String>>,
    /// Whether the policies of our migration exist for it.
    pub(crate) has_policies: bool,
}

/// Reads the buckets of our migration.
///
/// # Errors
/// If the server does not answer, or the function is missing.
pub(crate) async fn buckets(client: &Client) -> Result<Vec<Bucket>, Error> {
    let sql = "select b.name, b.is_public, b.bytes_max, b.mime_types, \
               exists (select from pg_catalog.pg_policies p \
                       where p.schemaname = 'storage' and p.tablename = 'objects' \
                       and p.policyname = 'usher_' || b.name || '_select') \
               from usher.bucket_settings() b order by b.name";
    let rows = client.query_typed(sql, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| Bucket {
            name: row.get(0),
            is_public: row.get(1),
            bytes_max: row.get(2),
            mime_types: row.get(3),
            has_policies: row.get(4),
        })
        .collect())
}

/// Returns the isolation level that is set for the role, the database or the server, if any. The gateway's own
/// connections set theirs.
///
/// # Errors
/// If the server does not answer.
pub(crate) async fn isolation(client: &Client) -> Result<Option<String>, Error> {
    let sql = "select value from ( \
                 select 1 + (s.setdatabase = 0)::integer + 2 * (s.setrole = 0)::integer as place, \
                        substring(c.setting from '=(.*)$') as value \
                 from pg_catalog.pg_db_role_setting s, unnest(s.setconfig) as c (setting) \
                 where s.setdatabase in (0, (select oid from pg_catalog.pg_database where datname = current_database())) \
                 and s.setrole in (0, (select oid from pg_catalog.pg_roles where rolname = session_user)) \
                 and c.setting like 'default_transaction_isolation=%' \
                 union all \
                 select 9, g.reset_val from pg_catalog.pg_settings g \
                 where g.name = 'default_transaction_isolation' and g.source in ('configuration file', 'command line') \
               ) as found order by place limit 1";
    let rows = client.query_typed(sql, &[]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// Reads functions, tables and triggers.
///
/// # Errors
/// If the server does not answer.
pub(crate) async fn objects(client: &Client) -> Result<Objects, Error> {
    let functions = "select n.nspname || '.' || p.proname, p.prosrc, \
                     pg_catalog.has_function_privilege(p.oid, 'execute'), \
                     (select count(*) = 2 and bool_and(pg_catalog.has_function_privilege(r.oid, p.oid, 'execute')) \
                      from pg_catalog.pg_roles r where r.rolname in ('anon', 'authenticated')) \
                     from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace \
                     where n.nspname in ('public', 'usher') and p.prokind = 'f'";
    let tables = "select n.nspname || '.' || c.relname, c.relrowsecurity \
                  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
                  where n.nspname in ('public', 'usher') and c.relkind in ('r', 'p')";
    let triggers = "select n.nspname || '.' || c.relname, t.tgname::text, t.tgenabled in ('O', 'A') \
                    from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid \
                    join pg_catalog.pg_namespace n on n.oid = c.relnamespace where not t.tgisinternal";
    let functions = client.query_typed(functions, &[]).await?;
    let tables = client.query_typed(tables, &[]).await?;
    let triggers = client.query_typed(triggers, &[]).await?;
    Ok(Objects {
        functions: functions
            .iter()
            .map(|row| {
                let function = Function {
                    body: row.get(1),
                    is_executable: row.get(2),
                    is_executable_by_callers: row.get(3),
                };
                (row.get(0), function)
            })
            .collect(),
        tables: tables.iter().map(|row| (row.get(0), row.get(1))).collect(),
        triggers: triggers
            .iter()
            .map(|row| ((row.get(0), row.get(1)), row.get(2)))
            .collect(),
    })
}

/// Returns whether two clients share a server connection between transactions, as behind a transaction pooler.
///
/// # Errors
/// If the server does not answer.
pub(crate) async fn is_pooled_by_transaction(one: &Client, other: &Client) -> Result<bool, Error> {
    for _ in 0..POOLER_TRIES {
        let before = backend(one).await?;
        other.batch_execute("begin").await?;
        let taken = backend(other).await?;
        let after = backend(one).await?;
        other.batch_execute("rollback").await?;
        if taken == before || after != before {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Listens on one connection, notifies on another, and returns whether the notification arrived.
///
/// # Errors
/// If the server does not answer.
pub(crate) async fn echo(
    listener: &Client,
    heard: &mut mpsc::Receiver<String>,
    notifier: &Client,
) -> Result<bool, Error> {
    let channel = format!("usher_doctor_{}", Uuid::new_v4().simple());
    listener.batch_execute(&format!("listen {channel}")).await?;
    notifier.batch_execute(&format!("notify {channel}")).await?;
    let waiting = async {
        while let Some(name) = heard.recv().await {
            if name == channel {
                return true;
            }
        }
        false
    };
    Ok(tokio::time::timeout(ECHO_MAX, waiting).await == Ok(true))
}

/// Drives a connection in a new task, which ends with the connection's client. Returns each notification's channel.
pub(crate) fn drive(mut link: Link) -> mpsc::Receiver<String> {
    // Full only if another role floods a channel whose name is random.
    let (sender, receiver) = mpsc::channel(ECHO_QUEUE_LEN);
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| link.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message {
                let _ = sender.try_send(notification.channel().to_owned());
            }
        }
    });
    receiver
}

async fn backend(client: &Client) -> Result<i32, Error> {
    let sql = "select pg_catalog.pg_backend_pid()";
    Ok(client.query_typed(sql, &[]).await?[0].get(0))
}

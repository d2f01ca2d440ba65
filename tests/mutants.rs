//! Mutation tests of the SQL: removes each rule of the schema, one at a time, and runs the pgTAP files.
//!
//! A rule is a policy, a condition of one, a trigger, a constraint, row level security of a table, a grant, or
//! `security definer` of a function. At least one file must fail without the rule. A rule that no test misses has no
//! test, or no purpose. Each mutant lives in a transaction that is rolled back, so one database serves for many.
//!
//! ```text
//! cargo test --test mutants                 all mutants; prints the survivors
//! cargo test --test mutants -- POLICY       mutants whose names contain the word, each with the file that noticed it
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test binary with its own main; the lints recognise tests by the standard harness"
)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio_postgres::{Client, NoTls};
use usher::postgres::migrations;
use usher_devdb::cluster::{Cluster, ClusterOptions};

#[path = "it/tap.rs"]
mod tap;

/// Databases, and so mutants that run in parallel.
const WORKERS: usize = 2;

/// Mutants that may survive, with the reason.
const EXPLAINED: &[(&str, &[&str])] = &[
    (
        "no column that the condition reads can be updated: an update cannot change the result of the condition",
        &[
            "chat_messages_update on chat_messages: with check (true)",
            "movie_sessions_update on movie_sessions: with check (true)",
            "movies_update on movies: with check (true)",
            "overlay_tokens_update on overlay_tokens: with check (true)",
            "profiles_update on profiles: with check (true)",
            "session_members_update on session_members: with check (true)",
            "voting_options_update on voting_options: with check (true)",
            "voting_sessions_update on voting_sessions: with check (true)",
        ],
    ),
    (
        "the guard of the table keeps the columns that the condition reads unchanged",
        &[
            "session_bans_update on session_bans: with check (true)",
            "votes_update on votes: with check (true)",
        ],
    ),
    (
        "its callers already run as the owner; it is security definer so as not to depend on that",
        &[
            "usher.append_event(uuid,text,json): as its caller",
            "usher.append_to_log(uuid,text,uuid,json): as its caller",
            "usher.append_to_logs(uuid[],text[],uuid[],json[],integer): as its caller",
            "usher.apply_votes(uuid[],uuid[],bigint[]): as its caller",
            "usher.close_votings(uuid[]): as its caller",
            "usher.count_votes(uuid): as its caller",
            "usher.forget_people(uuid[]): as its caller",
            "usher.lock_for_deletion(uuid[],uuid): as its caller",
            "usher.logs_naming(uuid[]): as its caller",
            "usher.redact_messages(uuid[],jsonb): as its caller",
            "usher.trim_logs(interval,integer,integer): as its caller",
        ],
    ),
    (
        "its caller may read the same rows; as the owner it skips the policies, which would call it again",
        &[
            "usher.banned_sessions(): as its caller",
            "usher.joined_sessions(): as its caller",
            "usher.moderates_voting(uuid,text[]): as its caller",
            "usher.outranks(uuid,uuid): as its caller",
            "usher.owns_session(uuid): as its caller",
            "usher.profile_role(): as its caller",
            "usher.require_writer(uuid): as its caller",
            "usher.session_of(uuid): as its caller",
        ],
    ),
    (
        "it only ends a statement of too many rows earlier: usher.limit_writes refuses the same statement at its end",
        &["chat_messages_a_row_removed on chat_messages: dropped"],
    ),
    (
        "its pgTAP file has an earlier plan, of the owner, with it inlined; tests/it/texts.rs uses a new connection",
        &["usher.holds_address(text): not for authenticated"],
    ),
];

/// Selects the kind, the name and the statement of each mutant. Objects in other schemas are included if their names
/// show that they are Usher's.
const MUTANTS: &str = r#"
with tables as (
  select c.oid, c.oid::regclass::text as name
  from pg_class c
  where c.relkind = 'r' and c.relnamespace in ('public'::regnamespace, 'usher'::regnamespace)
),
functions as (
  select p.oid, p.oid::regprocedure::text as name, p.prosecdef, p.proname
  from pg_proc p
  where p.prokind = 'f' and not exists (select 1 from pg_depend d where d.objid = p.oid and d.deptype = 'e')
    and (p.pronamespace = 'usher'::regnamespace or p.pronamespace = 'public'::regnamespace)
),
roles as (
  select r.oid, r.rolname::text as name
  from pg_roles r
  where r.rolname in ('anon', 'authenticated', 'service_role', 'usher_gateway')
)
select 'policy' as kind, format('%s on %s: dropped', p.policyname, p.tablename) as name,
  format('drop policy %I on %I.%I', p.policyname, p.schemaname, p.tablename) as statement
from pg_policies p
union all
select 'condition', format('%s on %s: using (true)', p.policyname, p.tablename),
  format('alter policy %I on %I.%I using (true)', p.policyname, p.schemaname, p.tablename)
from pg_policies p
where p.qual <> 'true'
union all
select 'condition', format('%s on %s: with check (true)', p.policyname, p.tablename),
  format('alter policy %I on %I.%I with check (true)', p.policyname, p.schemaname, p.tablename)
from pg_policies p
where p.with_check <> 'true'
union all
select 'trigger', format('%s on %s: dropped', t.tgname, t.tgrelid::regclass),
  format('drop trigger %I on %s', t.tgname, t.tgrelid::regclass)
from pg_trigger t
where not t.tgisinternal and (t.tgrelid in (select oid from tables) or t.tgname like 'usher%')
union all
select 'constraint', format('%s: dropped', c.conname),
  format('alter table %s drop constraint %I cascade', c.conrelid::regclass, c.conname)
from pg_constraint c
where c.conrelid in (select oid from tables) and c.contype not in ('n', 't')
union all
select 'constraint', format('%s: dropped', i.indexrelid::regclass), format('drop index %s', i.indexrelid::regclass)
from pg_index i
where i.indisunique and i.indrelid in (select oid from tables)
  and not exists (select 1 from pg_constraint c where c.conindid = i.indexrelid)
union all
select 'security', format('row level security of %s: off', t.name),
  format('alter table %s disable row level security', t.name)
from tables t
union all
select 'grant', format('all on %s: to %s', t.name, r.name), format('grant all on %s to %I', t.name, r.name)
from tables t
cross join roles r
where not has_table_privilege(r.oid, t.oid, 'truncate')
union all
select 'grant', format('%s on %s: not to %s', lower(g.privilege_type), t.name, g.grantee),
  format('revoke %s on %s from %I', g.privilege_type, t.name, g.grantee)
from information_schema.role_table_grants g
join tables t on t.oid = format('%I.%I', g.table_schema, g.table_name)::regclass
where g.grantee in ('anon', 'authenticated')
union all
select 'grant', format('%s (%s) on %s: not to %s', lower(g.privilege_type), g.column_name, t.name, g.grantee),
  format('revoke %s (%I) on %s from %I', g.privilege_type, g.column_name, t.name, g.grantee)
from information_schema.role_column_grants g
join tables t on t.oid = format('%I.%I', g.table_schema, g.table_name)::regclass
where g.grantee in ('anon', 'authenticated')
  and not has_table_privilege(g.grantee::name, t.oid, g.privilege_type)
union all
select 'function', format('%s: for everybody', f.name), format('grant execute on function %s to public', f.name)
from functions f
where not has_function_privilege('anon', f.oid, 'execute')
union all
select 'function', format('%s: not for %s', f.name, r.name), format('revoke execute on function %s from %I', f.name, r.name)
from functions f
cross join roles r
where r.name <> 'service_role' and has_function_privilege(r.oid, f.oid, 'execute')
union all
select 'function', format('%s: as its caller', f.name), format('alter function %s security invoker', f.name)
from functions f
where f.prosecdef
order by 1, 2
"#;

struct Mutant {
    kind: String,
    name: String,
    statement: String,
}

fn main() -> ExitCode {
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(check(wanted.as_deref()))
}

async fn check(wanted: Option<&str>) -> ExitCode {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let cluster = cluster.expect("a Postgres starts");
    let url = cluster.superuser_url();
    make_template(&url).await;
    let scripts: Arc<Vec<(String, String)>> = Arc::new(
        tap::files()
            .into_iter()
            .map(|file| {
                let name = file.file_name().unwrap().display().to_string();
                (name, std::fs::read_to_string(&file).unwrap())
            })
            .collect(),
    );

    let mut workers = Vec::new();
    for number in 0..WORKERS {
        workers.push(worker_database(&url, number).await);
    }
    for (name, script) in scripts.iter() {
        if let Err(why) = tap::run(&workers[0], script).await {
            println!("{name} fails without a mutant:\n{why}");
            return ExitCode::FAILURE;
        }
    }

    let mutants: Vec<Mutant> = workers[0]
        .query(MUTANTS, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| Mutant {
            kind: row.get(0),
            name: row.get(1),
            statement: row.get(2),
        })
        .filter(|mutant| wanted.is_none_or(|word| mutant.name.contains(word)))
        .collect();
    println!("{} mutants", mutants.len());

    let mutants = Arc::new(mutants);
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut tasks = Vec::new();
    for client in workers {
        let (mutants, scripts, next) = (mutants.clone(), scripts.clone(), next.clone());
        tasks.push(tokio::spawn(async move {
            let mut noticed = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(mutant) = mutants.get(number) else {
                    return noticed;
                };
                let mut how = notice(&client, mutant, &scripts).await;
                // On a busy machine a file can fail by a timeout. A mutant that should survive gets a second try.
                if how.is_some() && explanation(mutant).is_some() {
                    how = notice(&client, mutant, &scripts).await;
                }
                noticed.push((number, how));
                if number % 50 == 49 {
                    let seconds = started.elapsed().as_secs();
                    println!("{} of {} after {seconds} s", number + 1, mutants.len());
                }
            }
        }));
    }
    let mut noticed: BTreeMap<usize, Option<String>> = BTreeMap::new();
    for task in tasks {
        noticed.extend(task.await.unwrap());
    }
    report(&mutants, &noticed, wanted.is_some())
}

/// Returns the first file that fails with the mutant and its failure, or `None` if all pass.
async fn notice(client: &Client, mutant: &Mutant, scripts: &[(String, String)]) -> Option<String> {
    // Runs the file about this kind of rule first, because most mutants need only that one.
    let likely = match mutant.kind.as_str() {
        "policy" | "condition" | "grant" => "matrix",
        "constraint" => "constraints",
        "trigger" => "triggers",
        _ => "access",
    };
    let (first, rest): (Vec<_>, Vec<_>) =
        scripts.iter().partition(|(name, _)| name.contains(likely));
    for (name, script) in first.into_iter().chain(rest) {
        let begun = format!("begin; {};", mutant.statement);
        client.batch_execute(&begun).await.unwrap_or_else(|error| {
            panic!("{}: {error:?}", mutant.statement);
        });
        let outcome = tap::run(client, script).await;
        client.batch_execute("rollback").await.unwrap();
        if let Err(why) = outcome {
            let line = why.lines().next().unwrap_or_default();
            return Some(format!("{name}: {line}"));
        }
    }
    None
}

/// Returns the reason why a mutant may survive, if it may.
fn explanation(mutant: &Mutant) -> Option<&'static str> {
    let is_it = |(_, names): &&(&str, &[&str])| names.contains(&mutant.name.as_str());
    EXPLAINED.iter().find(is_it).map(|(reason, _)| *reason)
}

fn report(
    mutants: &[Mutant],
    noticed: &BTreeMap<usize, Option<String>>,
    is_long: bool,
) -> ExitCode {
    let mut by_kind: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut wrong = 0;
    for (number, mutant) in mutants.iter().enumerate() {
        let reason = explanation(mutant);
        let counts = by_kind.entry(&mutant.kind).or_default();
        counts.0 += 1;
        match (&noticed[&number], reason) {
            (Some(how), Some(_)) => {
                wrong += 1;
                println!(
                    "NOTICED    {} by {how}: remove it from EXPLAINED",
                    mutant.name
                );
            }
            (Some(how), None) => {
                counts.1 += 1;
                if is_long {
                    println!("noticed    {} by {how}", mutant.name);
                }
            }
            (None, Some(reason)) => println!("explained  {}: {reason}", mutant.name),
            (None, None) => {
                wrong += 1;
                println!("SURVIVED   {}", mutant.name);
            }
        }
    }
    for name in EXPLAINED.iter().flat_map(|(_, names)| *names) {
        if !is_long && !mutants.iter().any(|mutant| mutant.name == *name) {
            wrong += 1;
            println!("NO MUTANT  {name}: remove it from EXPLAINED");
        }
    }
    println!("{:<12}{:>8}{:>9}", "kind", "mutants", "noticed");
    for (kind, (all, killed)) in &by_kind {
        println!("{kind:<12}{all:>8}{killed:>9}");
    }
    // In the format of `cargo test`, so that scripts can count it.
    let verdict = if wrong == 0 {
        ("ok", 1, 0)
    } else {
        ("FAILED", 0, 1)
    };
    println!(
        "test result: {}. {} passed; {} failed",
        verdict.0, verdict.1, verdict.2
    );
    if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn make_template(url: &str) {
    let client = connect(url).await;
    let create = "create database mutants_template";
    client.batch_execute(create).await.unwrap();
    let mut client = connect(&in_database(url, "mutants_template")).await;
    migrations::shim(&mut client).await.unwrap();
    migrations::up(&mut client).await.unwrap();
    let pgtap = "create extension pgtap";
    let made = client.batch_execute(pgtap).await;
    made.expect("pgTAP is installed: on Debian, postgresql-15-pgtap");
}

async fn worker_database(url: &str, number: usize) -> Client {
    let client = connect(url).await;
    let name = format!("mutants_{number}");
    let create = format!("create database {name} template mutants_template");
    client.batch_execute(&create).await.unwrap();
    connect(&in_database(url, &name)).await
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn in_database(url: &str, name: &str) -> String {
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

//! Measures triggers, policies and batches, and the gateway's reads on a full database.
//!
//! Starts its own Postgres with `fsync` on. Writers write for some seconds in each of several ways. Then the bench
//! fills the database with a million messages and a hundred thousand votes, and runs the gateway's queries one after
//! another. Compare rows only within one run.
//!
//! ```text
//! cargo bench --bench database                           3 s each, 1,000,000 messages: about 4 minutes
//! cargo bench --bench database -- --seconds 1 --messages 100000
//! ```

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};
use usher::postgres::migrations;
use usher_devdb::cluster::{Cluster, ClusterOptions};
use uuid::Uuid;

#[derive(Parser)]
struct Arguments {
    /// Seconds to measure each way of writing, after half a second of warm-up.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Connections that write in parallel.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    writers: Vec<usize>,
    /// Messages in the full database. It has a tenth as many votes.
    #[arg(long, default_value_t = 1_000_000)]
    messages: i64,
    /// Repetitions of each read.
    #[arg(long, default_value_t = 2_000)]
    reads: usize,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

const SESSIONS: usize = 100;
const USERS: usize = 1_000;
const BATCH: usize = 50;
const PASSWORD: &str = "for this bench alone";
const WARM_UP: Duration = Duration::from_millis(500);

/// A way to write rows.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Inserts into a copy of the table that has only its indexes.
    Plain,
    /// Inserts as the owner, with Usher's triggers.
    Insert {
        sessions: usize,
    },
    /// Writes as PostgREST does for a signed-in user: four round trips.
    Rest,
    /// Writes a batch for many users, as the gateway does.
    Batch,
    Vote,
    VoteRest,
    VoteBatch,
}

impl Manner {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain table, one insert each",
            Self::Insert { sessions: 1 } => "messages, one session",
            Self::Insert { .. } => "messages, 100 sessions",
            Self::Rest => "messages as PostgREST writes them",
            Self::Batch => "messages through post_messages, 50 each",
            Self::Vote => "votes",
            Self::VoteRest => "votes as PostgREST writes them",
            Self::VoteBatch => "votes through cast_votes, 50 each",
        }
    }

    fn statement(self) -> &'static str {
        match self {
            Self::Plain => "insert into bench_plain (session_id, user_id, body) values ($1, $2, $3)",
            Self::Insert { .. } | Self::Rest => {
                "insert into public.chat_messages (session_id, user_id, body) values ($1, $2, $3)"
            }
            Self::Vote | Self::VoteRest => {
                "insert into public.votes (voting_session_id, user_id, movie_id) values ($1, $2, $3)
                 on conflict (voting_session_id, user_id) do update set movie_id = excluded.movie_id"
            }
            Self::Batch => "select refusal from usher.post_messages($1)",
            Self::VoteBatch => "select refusal from usher.cast_votes($1)",
        }
    }

    /// Returns the numbers of connections. The gateway writes over one connection per kind.
    fn writers(self, asked: &[usize]) -> Vec<usize> {
        match self {
            Self::Batch | Self::VoteBatch => vec![1],
            Self::Plain | Self::Insert { .. } | Self::Rest | Self::Vote | Self::VoteRest => {
                asked.to_vec()
            }
        }
    }
}

struct Stage {
    url: String,
    gateway_url: String,
    sessions: Vec<Uuid>,
    users: Vec<Uuid>,
    voting: Uuid,
    movies: Vec<Uuid>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tokio::runtime::Runtime::new()?.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    // The server runs under its own account, which must be able to enter the folder.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open)?;
    let options = ClusterOptions {
        data: Some(folder.path().join("data")),
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(options).await?;
    let outcome = measure(&arguments, &cluster).await;
    cluster.stop().await;
    outcome
}

async fn measure(arguments: &Arguments, cluster: &Cluster) -> anyhow::Result<()> {
    let stage = Arc::new(prepare(cluster).await?);
    let admin = connect(&stage.url).await?;
    let version: String = admin.query_one("show server_version", &[]).await?.get(0);
    let load = usher_load::proc::load_average().unwrap_or_default();
    println!("Postgres {version}, fsync on, load average before {load:.2}\n");
    println!(
        "{:<42}{:>8}{:>10}{:>10}{:>10}{:>12}",
        "writing", "writers", "rows/s", "p50 ms", "p99 ms", "of plain"
    );
    let manners = [
        Manner::Plain,
        Manner::Insert { sessions: SESSIONS },
        Manner::Insert { sessions: 1 },
        Manner::Rest,
        Manner::Batch,
        Manner::Vote,
        Manner::VoteRest,
        Manner::VoteBatch,
    ];
    let mut plain = std::collections::BTreeMap::new();
    for manner in manners {
        for writers in manner.writers(&arguments.writers) {
            let (rows, latency) = write(arguments, &stage, manner, writers).await?;
            if manner == Manner::Plain {
                plain.insert(writers, rows);
            }
            let ratio = plain.get(&writers).map_or(0.0, |plain| rows / plain);
            println!(
                "{:<42}{writers:>8}{rows:>10.0}{:>10.2}{:>10.2}{:>11.0}%",
                manner.name(),
                millis(&latency, 0.5),
                millis(&latency, 0.99),
                100.0 * ratio,
            );
        }
    }
    check(&admin).await?;
    fill(&admin, &stage, arguments.messages).await?;
    read(arguments, &stage).await
}

// ---- writing ----

async fn write(
    arguments: &Arguments,
    stage: &Arc<Stage>,
    manner: Manner,
    writers: usize,
) -> anyhow::Result<(f64, Histogram<u64>)> {
    let mut tasks = JoinSet::new();
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs(arguments.seconds);
    for writer in 0..writers {
        tasks.spawn(writer_loop(stage.clone(), manner, writer, begin, end));
    }
    let mut total = 0;
    let mut latency = histogram();
    while let Some(done) = tasks.join_next().await {
        let (rows, own) = done??;
        total += rows;
        latency.add(own)?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of rows in seconds")]
    let rate = total as f64 / Duration::from_secs(arguments.seconds).as_secs_f64();
    Ok((rate, latency))
}

async fn writer_loop(
    stage: Arc<Stage>,
    manner: Manner,
    writer: usize,
    begin: Instant,
    end: Instant,
) -> anyhow::Result<(u64, Histogram<u64>)> {
    let is_batch = matches!(manner, Manner::Batch | Manner::VoteBatch);
    let url = if is_batch {
        &stage.gateway_url
    } else {
        &stage.url
    };
    let client = connect(url).await?;
    let statement = client.prepare(manner.statement()).await?;
    let mut rows = 0;
    let mut latency = histogram();
    let mut turn = writer * 7919;
    loop {
        turn += 1;
        let started = Instant::now();
        if started >= end {
            return Ok((rows, latency));
        }
        let written = write_once(&client, &statement, &stage, manner, turn)
            .await
            .with_context(|| manner.name())?;
        if started >= begin {
            rows += written;
            latency.record(micros(started.elapsed()))?;
        }
    }
}

async fn write_once(
    client: &Client,
    statement: &Statement,
    stage: &Stage,
    manner: Manner,
    turn: usize,
) -> anyhow::Result<u64> {
    let user = stage.users[turn % USERS];
    let movie = stage.movies[turn / USERS % stage.movies.len()];
    let body = "A message of the usual length, with a few words to say about the film.";
    match manner {
        Manner::Plain => {
            let session = stage.sessions[turn % SESSIONS];
            Ok(client.execute(statement, &[&session, &user, &body]).await?)
        }
        Manner::Insert { sessions } => {
            let session = stage.sessions[turn % sessions];
            Ok(client.execute(statement, &[&session, &user, &body]).await?)
        }
        Manner::Rest => {
            become_user(client, user).await?;
            let session = stage.sessions[turn % SESSIONS];
            let rows = client.execute(statement, &[&session, &user, &body]).await?;
            client.batch_execute("commit").await?;
            Ok(rows)
        }
        Manner::Vote => Ok(client
            .execute(statement, &[&stage.voting, &user, &movie])
            .await?),
        Manner::VoteRest => {
            become_user(client, user).await?;
            let rows = client
                .execute(statement, &[&stage.voting, &user, &movie])
                .await?;
            client.batch_execute("commit").await?;
            Ok(rows)
        }
        Manner::Batch | Manner::VoteBatch => {
            let items: Vec<_> = (0..BATCH)
                .map(|n| {
                    let user = stage.users[(turn * BATCH + n) % USERS];
                    let claims = json!({"sub": user, "role": "authenticated"});
                    if manner == Manner::Batch {
                        let session = stage.sessions[n % SESSIONS];
                        json!({"role": "authenticated", "claims": claims, "session": session,
                               "nonce": Uuid::new_v4(), "body": body})
                    } else {
                        json!({"role": "authenticated", "claims": claims, "voting": stage.voting,
                               "movie": stage.movies[(turn + n) % stage.movies.len()]})
                    }
                })
                .collect();
            let answers = client.query(statement, &[&json!(items)]).await?;
            let refused = answers
                .iter()
                .find_map(|row| row.get::<_, Option<String>>(0));
            anyhow::ensure!(refused.is_none(), "refused: {refused:?}");
            Ok(u64::try_from(answers.len())?)
        }
    }
}

async fn become_user(client: &Client, user: Uuid) -> anyhow::Result<()> {
    client.batch_execute("begin").await?;
    let claims = json!({"sub": user, "role": "authenticated"}).to_string();
    client
        .execute(
            "select set_config('role', 'authenticated', true), set_config('request.jwt.claims', $1, true)",
            &[&claims],
        )
        .await?;
    Ok(())
}

/// Checks that the writes are also correct.
async fn check(admin: &Client) -> anyhow::Result<()> {
    let sql = "select
        (select count(*) from public.chat_messages) = (select count(*) from usher.session_events where type = 'chat.created'),
        not exists (
          select 1 from usher.session_heads h
          where h.seq <> (select count(*) from usher.session_events e where e.session_id = h.session_id)
        ),
        (select count(*) from public.votes) = (select coalesce(sum(votes), 0) from usher.vote_tallies)";
    let row = admin.query_one(sql, &[]).await?;
    let (logged, numbered, counted): (bool, bool, bool) = (row.get(0), row.get(1), row.get(2));
    anyhow::ensure!(
        logged && numbered && counted,
        "logged {logged}, numbered {numbered}, counted {counted}"
    );
    println!("\nevery message is in the log once, numbers have no gap, tallies equal the votes");
    Ok(())
}

// ---- reading ----

async fn fill(admin: &Client, stage: &Stage, messages: i64) -> anyhow::Result<()> {
    let started = Instant::now();
    let portion = 50_000;
    for done in (0..messages).step_by(usize::try_from(portion)?) {
        let count = portion.min(messages - done);
        let sql = "insert into public.chat_messages (session_id, user_id, body)
            select ($1::uuid[])[1 + n % $3], ($2::uuid[])[1 + n % $4], 'message ' || n
            from generate_series(1, $5::bigint) as n";
        let (sessions, users) = (i64::try_from(SESSIONS)?, i64::try_from(USERS)?);
        admin
            .execute(
                sql,
                &[&stage.sessions, &stage.users, &sessions, &users, &count],
            )
            .await?;
        eprint!("\rfilling: {} of {messages} messages", done + count);
    }
    let voters = messages / 10;
    let sql = format!(
        "insert into auth.users (id, aud, role)
         select gen_random_uuid(), 'authenticated', 'authenticated' from generate_series(1, {voters});
         insert into public.votes (voting_session_id, user_id, movie_id)
         select '{}', p.id, '{}' from public.profiles p limit {voters}
         on conflict do nothing;
         analyze;",
        stage.voting, stage.movies[0]
    );
    admin.batch_execute(&sql).await?;
    eprintln!(
        "\rfilled in {:.0} s{:40}",
        started.elapsed().as_secs_f64(),
        ""
    );
    Ok(())
}

async fn read(arguments: &Arguments, stage: &Stage) -> anyhow::Result<()> {
    let client = connect(&stage.gateway_url).await?;
    println!(
        "\n{:<58}{:>8}{:>10}{:>10}",
        format!("reading, {} messages", arguments.messages),
        "rows",
        "p50 ms",
        "p99 ms"
    );
    let admission = admit(&client, arguments, stage).await?;
    print_read(
        "admission of a user (RLS, snapshot, one round trip)",
        1,
        &admission,
    );

    let checks = check_access(&client, arguments, stage).await?;
    print_read("a check of access, 50 users in one query", BATCH, &checks);
    // The gateway asks about each viewer in the last quarter of the interval.
    let queries = 18_000.0 / (60.0 * 0.875) / BATCH as f64;
    println!(
        "18,000 signed-in viewers, each asked about within 60 s: {queries:.1} queries/s, {:.1} % of one connection",
        queries * millis(&checks, 0.5) / 10.0
    );

    let questions: [(&str, &str); 4] = [
        (
            "a page of 50 events",
            "select * from usher.events_after($1, $2, 50, 262144)",
        ),
        (
            "a page as a client is caught up with: 200 events",
            "select * from usher.events_after($1, $2, 200, 262144)",
        ),
        ("the heads of 100 sessions", "select * from usher.heads($1)"),
        ("a tally", "select * from usher.tallies($1)"),
    ];
    for (name, sql) in questions {
        let statement = client.prepare(sql).await?;
        let mut latency = histogram();
        let mut rows = 0;
        for turn in 0..arguments.reads {
            let session = stage.sessions[turn % SESSIONS];
            let after = i64::try_from(turn * 7 % 9_000)?;
            let started = Instant::now();
            let answer = match name {
                "a tally" => client.query(&statement, &[&vec![stage.voting]]).await?,
                "the heads of 100 sessions" => client.query(&statement, &[&stage.sessions]).await?,
                _ => client.query(&statement, &[&session, &after]).await?,
            };
            latency.record(micros(started.elapsed()))?;
            rows = answer.len();
        }
        print_read(name, rows, &latency);
    }
    Ok(())
}

async fn admit(
    client: &Client,
    arguments: &Arguments,
    stage: &Stage,
) -> anyhow::Result<Histogram<u64>> {
    let acting = client
        .prepare("select set_config('role', $1, true), set_config('request.jwt.claims', $2, true)")
        .await?;
    let admit = client.prepare("select usher.admit($1)::text").await?;
    let snapshot = client
        .prepare("select usher.session_snapshot($1)::text")
        .await?;
    let mut latency = histogram();
    for turn in 0..arguments.reads {
        let claims = json!({"sub": stage.users[turn % USERS], "role": "authenticated"}).to_string();
        let session = stage.sessions[turn % SESSIONS];
        let caller: [&(dyn ToSql + Sync); 2] = [&"authenticated", &claims];
        let subject: [&(dyn ToSql + Sync); 1] = [&session];
        let started = Instant::now();
        let (begun, acted, admitted, oneself, snapshot, committed) = futures::join!(
            client.batch_execute("begin"),
            client.query(&acting, &caller),
            client.query_one(&admit, &subject),
            client.batch_execute("set local role none"),
            client.query_one(&snapshot, &subject),
            client.batch_execute("commit"),
        );
        latency.record(micros(started.elapsed()))?;
        begun?;
        acted?;
        oneself?;
        committed?;
        let (admitted, snapshot): (Option<String>, Option<String>) =
            (admitted?.get(0), snapshot?.get(0));
        anyhow::ensure!(admitted.is_some() && snapshot.is_some(), "not admitted");
    }
    Ok(latency)
}

async fn check_access(
    client: &Client,
    arguments: &Arguments,
    stage: &Stage,
) -> anyhow::Result<Histogram<u64>> {
    let sql = "select count(admission), count(failure) from usher.admit_many($1)";
    let statement = client.prepare(sql).await?;
    let mut latency = histogram();
    for turn in 0..arguments.reads.div_ceil(10) {
        let caller = |n: usize| {
            let user = stage.users[(turn * BATCH + n) % USERS];
            let claims = json!({"sub": user, "role": "authenticated"});
            let session = stage.sessions[(turn + n) % SESSIONS];
            json!({"role": "authenticated", "claims": claims, "session": session})
        };
        let batch: Value = (0..BATCH).map(caller).collect();
        let started = Instant::now();
        let row = client.query_one(&statement, &[&batch]).await?;
        latency.record(micros(started.elapsed()))?;
        let (admitted, failed): (i64, i64) = (row.get(0), row.get(1));
        anyhow::ensure!((admitted, failed) == (50, 0), "{admitted} of 50 admitted");
    }
    Ok(latency)
}

fn print_read(name: &str, rows: usize, latency: &Histogram<u64>) {
    println!(
        "{name:<58}{rows:>8}{:>10.2}{:>10.2}",
        millis(latency, 0.5),
        millis(latency, 0.99)
    );
}

// ---- the stage ----

async fn prepare(cluster: &Cluster) -> anyhow::Result<Stage> {
    let url = cluster.superuser_url();
    let mut client = connect(&url).await?;
    migrations::shim(&mut client).await?;
    migrations::up(&mut client).await?;
    // Removes the limits for writers that bypass the gateway: the bench measures the fastest possible writes.
    client
        .batch_execute("delete from usher.write_limits where true")
        .await?;
    let mut sql = format!("alter role usher_gateway password '{PASSWORD}';\n");
    let ids = |count: usize| (0..count).map(|_| Uuid::new_v4()).collect::<Vec<_>>();
    let (sessions, users, movies) = (ids(SESSIONS), ids(USERS), ids(4));
    let voting = Uuid::new_v4();
    for user in &users {
        writeln!(
            sql,
            "insert into auth.users (id, aud, role) values ('{user}', 'authenticated', 'authenticated');"
        )?;
    }
    for session in &sessions {
        writeln!(
            sql,
            "insert into public.movie_sessions (id, streamer_id, title, status) values ('{session}', '{}', 'x', 'live');",
            users[0]
        )?;
    }
    writeln!(
        sql,
        "insert into public.voting_sessions (id, session_id, question) values ('{voting}', '{}', 'x');",
        sessions[0]
    )?;
    for movie in &movies {
        writeln!(
            sql,
            "insert into public.movies (id, title) values ('{movie}', 'x');
             insert into public.voting_options (voting_session_id, movie_id) values ('{voting}', '{movie}');"
        )?;
    }
    writeln!(
        sql,
        "update public.voting_sessions set state = 'open';
         create table bench_plain (like public.chat_messages including defaults including indexes);"
    )?;
    client.batch_execute(&sql).await?;
    let name = url.rsplit('/').next().context("a database's name")?;
    Ok(Stage {
        gateway_url: cluster.url_for("usher_gateway", PASSWORD, name),
        url,
        sessions,
        users,
        voting,
        movies,
    })
}

async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are allowed")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a bench")]
fn millis(latency: &Histogram<u64>, quantile: f64) -> f64 {
    latency.value_at_quantile(quantile) as f64 / 1_000.0
}

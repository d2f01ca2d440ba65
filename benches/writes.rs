//! Compares writes through the gateway's batcher with single writes in PostgREST's manner.
//!
//! Starts its own Postgres with `fsync` on. For each case, the manners take turns in one run on one database. Each is a
//! closed loop: a client writes, waits for the answer, and writes again. Compare rows only within one run.
//!
//! * *PostgREST*: the statements of PostgREST 12 for an insert with `Prefer: return=minimal`: `begin`, one `select` of
//!   seven `set_config`, the insert from a JSON body within a `with`, `commit`. Four prepared statements, four round trips.
//! * *pipelined*: the same four statements in one round trip. PostgREST does not do that; the column separates the effect
//!   of batching from the effect of fewer round trips.
//! * *batcher*: the gateway's own `Writer` over a pool of four connections.
//!
//! With 1,000 clients, the first two have 20 connections, and clients wait for one, as with PostgREST's pool.
//!
//! ```text
//! cargo bench --bench writes                      3 s each: about 4 minutes
//! cargo bench --bench writes -- --seconds 1 --clients 20,1000 --json
//! ```

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};
use usher::metrics::Metrics;
use usher::postgres::batcher::{Batchers, Writer, batchers};
use usher::postgres::connect::Target;
use usher::postgres::migrations;
use usher::postgres::store::Store;
use usher_core::auth::identity::{Identity, Role};
use usher_core::protocol::client::{Body, NewMessage, NewVote};
use usher_core::protocol::id::{MovieId, SessionId, UserId, VotingId};
use usher_core::relay::message::Write;
use usher_core::relay::write_queue::Bounds;
use usher_devdb::cluster::{Cluster, ClusterOptions};
use uuid::Uuid;

#[derive(Parser)]
struct Arguments {
    /// Seconds to measure each manner per round, after a third of a second of warm-up.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Rounds in which the manners take turns.
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Clients that write in parallel.
    #[arg(long, value_delimiter = ',', default_value = "1,10,20,1000")]
    clients: Vec<usize>,
    /// Prints one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

const SESSIONS: usize = 100;
const USERS: usize = 2_000;
const CONNECTIONS_MAX: usize = 20;
const POOL_SIZE: usize = 4;
const PASSWORD: &str = "for this bench alone";
const WARM_UP: Duration = Duration::from_millis(333);
const BODY: &str = "A message of the usual length, with a few words to say about the film.";

const HEAD: &str = "\
writes/s, ms                        │ PostgREST     p50     p99 │ pipelined     p50     p99 │   batcher     p50     p99 │ batcher is ×
                           clients │                          │                          │                          │ PgREST  pipel.";
const SETTINGS: &str = "select set_config('search_path', $1, true), set_config('role', $2, true), \
    set_config('request.jwt.claims', $3, true), set_config('request.method', $4, true), \
    set_config('request.path', $5, true), set_config('request.headers', $6, true), \
    set_config('request.cookies', $7, true)";
const ANSWER: &str = "select '' as total_result_set, pg_catalog.count(_postgrest_t) as page_total, \
    array[]::text[] as header, ''::text as body, nullif(current_setting('response.headers', true), '') as response_headers, \
    nullif(current_setting('response.status', true), '') as response_status \
    from (select * from pgrst_source) _postgrest_t";
const MESSAGE: &str = "insert into public.chat_messages (session_id, user_id, body, nonce) \
    select b.session_id, b.user_id, b.body, b.nonce from (select $1::json as json_data) p, \
    lateral (select * from json_to_record(p.json_data) as _ (session_id uuid, user_id uuid, body text, nonce uuid)) b \
    returning 1";
const VOTE: &str = "insert into public.votes (voting_session_id, user_id, movie_id) \
    select b.voting_session_id, b.user_id, b.movie_id from (select $1::json as json_data) p, \
    lateral (select * from json_to_record(p.json_data) as _ (voting_session_id uuid, user_id uuid, movie_id uuid)) b \
    on conflict (voting_session_id, user_id) do update set movie_id = excluded.movie_id returning 1";

#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Rest,
    Pipelined,
    Batcher,
}

/// The rows that a case writes.
#[derive(Clone, Copy, PartialEq)]
enum Case {
    Messages { sessions: usize },
    Votes,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::Messages { sessions: 1 } => "messages, one hot session",
            Self::Messages { .. } => "messages, 100 sessions",
            Self::Votes => "votes, one hot poll",
        }
    }
}

/// Results of one case, with one entry per manner.
struct Compared {
    case: Case,
    clients: usize,
    rates: [f64; 3],
    latencies: [Histogram<u64>; 3],
}

struct Stage {
    /// URL of the role as which PostgREST logs in.
    url: String,
    admin_url: String,
    writer: Writer,
    sessions: Vec<Uuid>,
    users: Vec<Arc<Identity>>,
    voting: Uuid,
    movies: Vec<Uuid>,
}

/// A connection with PostgREST's prepared statements.
struct Link {
    client: Client,
    begin: Statement,
    settings: Statement,
    message: Statement,
    vote: Statement,
    commit: Statement,
    turn: Semaphore,
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
    let (stage, batchers) = prepare(cluster).await?;
    let stage = Arc::new(stage);
    let posting = tokio::spawn(batchers.run());
    let admin = connect(&stage.admin_url).await?;
    let version: String = admin.query_one("show server_version", &[]).await?.get(0);
    let fsync: String = admin.query_one("show fsync", &[]).await?.get(0);
    let load = usher_load::proc::load_average().unwrap_or_default();
    if !arguments.json {
        println!("Postgres {version}, fsync {fsync}, load average before {load:.2}\n\n{HEAD}");
    }
    let cases = [
        Case::Messages { sessions: 1 },
        Case::Messages { sessions: SESSIONS },
        Case::Votes,
    ];
    let mut results = Vec::new();
    for case in cases {
        for &clients in &arguments.clients {
            let compared = compare(arguments, &stage, case, clients).await?;
            if arguments.json {
                results.push(compared.json());
            } else {
                println!("{compared}");
            }
        }
    }
    check(&admin).await?;
    if arguments.json {
        let results = json!({"postgres": version, "fsync": fsync, "load": load, "manners": ["postgrest", "pipelined", "batcher"],
                   "cases": results});
        println!("{results}");
    } else {
        println!(
            "\nevery message is in the log once, numbers have no gap, tallies equal the votes"
        );
    }
    drop(stage);
    posting.await?;
    Ok(())
}

/// Measures all manners of one case in turns.
async fn compare(
    arguments: &Arguments,
    stage: &Arc<Stage>,
    case: Case,
    clients: usize,
) -> anyhow::Result<Compared> {
    let mut compared = Compared {
        case,
        clients,
        rates: [0.0; 3],
        latencies: [histogram(), histogram(), histogram()],
    };
    let seconds = Duration::from_secs(arguments.seconds);
    let manners = [Manner::Rest, Manner::Pipelined, Manner::Batcher];
    for _ in 0..arguments.rounds {
        for (place, manner) in manners.into_iter().enumerate() {
            let (count, latency) = write(stage, manner, case, clients, seconds).await?;
            #[expect(clippy::cast_precision_loss, reason = "a count of writes in seconds")]
            let rate = count as f64 / seconds.as_secs_f64();
            compared.rates[place] += rate / f64::from(arguments.rounds);
            compared.latencies[place].add(latency)?;
        }
    }
    Ok(compared)
}

impl Compared {
    fn quantiles(&self) -> [[f64; 2]; 3] {
        [0, 1, 2].map(|place| [0.5, 0.99].map(|quantile| millis(&self.latencies[place], quantile)))
    }

    fn json(&self) -> Value {
        json!({"case": self.case.name(), "clients": self.clients, "writes_per_second": self.rates,
               "p50_p99_ms": self.quantiles()})
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<26}{:>8}", self.case.name(), self.clients)?;
        for (rate, [p50, p99]) in self.rates.iter().zip(self.quantiles()) {
            write!(f, " │{rate:>10.0}{p50:>8.1}{p99:>8.1}")?;
        }
        let [rest, pipelined, batcher] = self.rates;
        write!(f, " │{:>7.1}{:>7.1}", batcher / rest, batcher / pipelined)
    }
}

/// Runs `clients` clients in one manner. Returns the number of writes and the latency of each.
async fn write(
    stage: &Arc<Stage>,
    manner: Manner,
    case: Case,
    clients: usize,
    seconds: Duration,
) -> anyhow::Result<(u64, Histogram<u64>)> {
    let mut links = Vec::new();
    if manner != Manner::Batcher {
        for _ in 0..clients.min(CONNECTIONS_MAX) {
            links.push(Arc::new(Link::open(&stage.url).await?));
        }
    }
    let mut tasks = JoinSet::new();
    let begin = Instant::now() + WARM_UP;
    let end = begin + seconds;
    for number in 0..clients {
        let stage = Arc::clone(stage);
        let link = (!links.is_empty()).then(|| Arc::clone(&links[number % links.len()]));
        tasks.spawn(async move {
            let (mut count, mut latency) = (0, histogram());
            let mut turn = number * 7_919;
            loop {
                let started = Instant::now();
                if started >= end {
                    return anyhow::Ok((count, latency));
                }
                turn += 1;
                let (identity, write) = stage.next(case, turn);
                match &link {
                    None => {
                        let done = stage.writer.write(write, identity).await;
                        done.map_err(|refusal| anyhow::anyhow!("refused: {refusal:?}"))?;
                    }
                    Some(link) => link.write(manner, &identity, &write).await?,
                }
                if started >= begin {
                    count += 1;
                    latency.record(micros(started.elapsed()))?;
                }
            }
        });
    }
    let mut total = 0;
    let mut latency = histogram();
    while let Some(done) = tasks.join_next().await {
        let (count, own) = done??;
        total += count;
        latency.add(own)?;
    }
    Ok((total, latency))
}

impl Stage {
    fn next(&self, case: Case, turn: usize) -> (Arc<Identity>, Write) {
        let identity = Arc::clone(&self.users[turn % USERS]);
        let write = match case {
            Case::Messages { sessions } => Write::Message(NewMessage {
                session: SessionId(self.sessions[turn % sessions]),
                body: Body::parse(BODY.to_owned()).expect("a body of the usual length"),
                nonce: None,
                reply_to: None,
            }),
            Case::Votes => Write::Vote(NewVote {
                voting: VotingId(self.voting),
                movie: Some(MovieId(self.movies[turn / USERS % self.movies.len()])),
            }),
        };
        (identity, write)
    }
}

impl Link {
    async fn open(url: &str) -> anyhow::Result<Self> {
        let client = connect(url).await?;
        Ok(Self {
            begin: client
                .prepare("begin isolation level read committed read write")
                .await?,
            settings: client.prepare(SETTINGS).await?,
            message: client
                .prepare(&format!("with pgrst_source as ({MESSAGE}) {ANSWER}"))
                .await?,
            vote: client
                .prepare(&format!("with pgrst_source as ({VOTE}) {ANSWER}"))
                .await?,
            commit: client.prepare("commit").await?,
            turn: Semaphore::new(1),
            client,
        })
    }

    async fn write(
        &self,
        manner: Manner,
        identity: &Identity,
        write: &Write,
    ) -> anyhow::Result<()> {
        let user = identity.subject.map(|user| user.0);
        let (statement, body, path) = match write {
            Write::Message(message) => {
                let body = json!({
                    "session_id": message.session, "user_id": user, "body": message.body.as_str(), "nonce": Uuid::new_v4(),
                });
                (&self.message, body, "/chat_messages")
            }
            Write::Vote(vote) => {
                let body = json!({"voting_session_id": vote.voting, "user_id": user, "movie_id": vote.movie});
                (&self.vote, body, "/votes")
            }
        };
        let headers =
            r#"{"user-agent":"node","prefer":"return=minimal","content-type":"application/json"}"#;
        let claims = &*identity.claims;
        let settings: [&(dyn ToSql + Sync); 7] = [
            &r#""public", "extensions""#,
            &"authenticated",
            &claims,
            &"POST",
            &path,
            &headers,
            &"{}",
        ];
        let inserted: [&(dyn ToSql + Sync); 1] = [&body];
        let _turn = self.turn.acquire().await?;
        if manner == Manner::Pipelined {
            let (begun, set, written, committed) = futures::join!(
                self.client.execute(&self.begin, &[]),
                self.client.query(&self.settings, &settings),
                self.client.query(statement, &inserted),
                self.client.execute(&self.commit, &[]),
            );
            begun?;
            set?;
            written?;
            committed?;
        } else {
            self.client.execute(&self.begin, &[]).await?;
            self.client.query(&self.settings, &settings).await?;
            self.client.query(statement, &inserted).await?;
            self.client.execute(&self.commit, &[]).await?;
        }
        Ok(())
    }
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
    Ok(())
}

async fn prepare(cluster: &Cluster) -> anyhow::Result<(Stage, Batchers)> {
    let url = cluster.superuser_url();
    let mut client = connect(&url).await?;
    migrations::shim(&mut client).await?;
    migrations::up(&mut client).await?;
    // Removes the limits for writers that bypass the gateway: the bench measures the fastest possible writes.
    client
        .batch_execute("delete from usher.write_limits where true")
        .await?;
    let ids = |count: usize| (0..count).map(|_| Uuid::new_v4()).collect::<Vec<_>>();
    let (sessions, users, movies, voting) = (ids(SESSIONS), ids(USERS), ids(4), Uuid::new_v4());
    let mut sql = format!(
        "alter role usher_gateway password '{PASSWORD}';
         alter role authenticator login noinherit password '{PASSWORD}';
         grant anon, authenticated to authenticator;\n"
    );
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
        "update public.voting_sessions set state = 'open'; analyze;"
    )?;
    client.batch_execute(&sql).await?;
    let name = url.rsplit('/').next().context("a database's name")?;
    let gateway = cluster.url_for("usher_gateway", PASSWORD, name);
    let target = Target::parse(&gateway.as_str().into(), None)?;
    let (writer, batchers) = batchers(
        &Store::new(target.pool(POOL_SIZE)),
        Bounds::default(),
        &[],
        &Arc::new(Metrics::new()),
    );
    let stage = Stage {
        url: cluster.url_for("authenticator", PASSWORD, name),
        admin_url: url,
        writer,
        sessions,
        users: users.into_iter().map(identity).collect(),
        voting,
        movies,
    };
    Ok((stage, batchers))
}

/// Builds a user with the claims of a Supabase token.
fn identity(user: Uuid) -> Arc<Identity> {
    let claims = json!({
        "iss": "https://abcdefghijklmnop.supabase.co/auth/v1", "sub": user, "aud": "authenticated",
        "exp": 1_900_000_000, "iat": 1_899_996_400, "email": "somebody@example.com", "phone": "",
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {"email": "somebody@example.com", "email_verified": true, "phone_verified": false, "sub": user},
        "role": "authenticated", "aal": "aal1", "amr": [{"method": "password", "timestamp": 1_899_996_400}],
        "session_id": Uuid::new_v4(), "is_anonymous": false,
    });
    Arc::new(Identity {
        subject: Some(UserId(user)),
        role: Role::Authenticated,
        claims: claims.to_string().into(),
        expires_at: None,
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

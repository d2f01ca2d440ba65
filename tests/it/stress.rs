//! Proves that many writers of every kind, in opposite orders, never deadlock, and that the totals are correct
//! afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::database::{Database, User, connect};

/// Turns each writer takes.
const ROUNDS: usize = 60;

/// Deadlocks are found after `deadlock_timeout`, which is a second: a short one has them told soon.
pub(crate) const SOON: &str = "set deadlock_timeout = '50ms'";

/// Longer than `deadlock_timeout`, so that Postgres reports deadlocks, and than the wait of the gateway's role, so that
/// a slow machine causes no lock timeout.
pub(crate) const PATIENT: &str = "set lock_timeout = '60s'; set statement_timeout = '120s'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_writers_wait_for_each_other() {
    let db = Database::create().await;
    let streamer = db.user("sam").await;
    let mut users = Vec::new();
    for n in 0..40 {
        users.push(db.user(&format!("user_{n}")).await);
    }
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(db.session(&streamer).await);
    }
    let movies = db.movies(3).await;
    for session in &sessions {
        db.voting(*session, &movies, "").await;
    }
    let stage = Arc::new(Stage {
        sessions,
        movies,
        writers: users[..20].to_vec(),
        leavers: users[20..].to_vec(),
        streamer,
        over: AtomicBool::new(false),
    });

    let mut tasks = JoinSet::new();
    for kind in [
        Kind::Bulk,
        Kind::BulkReversed,
        Kind::Batches,
        Kind::Batches,
        Kind::Votes,
        Kind::Votes,
        Kind::PlainVotes,
        Kind::Moderator,
        Kind::Closer,
        Kind::DueCloser,
        Kind::Ender,
        Kind::Leavers,
        Kind::SessionsGo,
        Kind::Trimmer,
        Kind::Totals,
    ] {
        let url = if kind.is_gateway() {
            &db.gateway_url
        } else {
            &db.url
        };
        let client = connect(url).await;
        // Only a superuser may have a deadlock found sooner.
        if !kind.is_gateway() {
            client.batch_execute(SOON).await.unwrap();
        }
        client.batch_execute(PATIENT).await.unwrap();
        let (stage, reader) = (Arc::clone(&stage), connect(&db.url).await);
        tasks.spawn(async move { (kind, work(&client, &reader, kind, &stage).await) });
    }
    let mut failures = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (kind, failed) = done.unwrap();
        failures.extend(failed.into_iter().map(|state| format!("{kind:?}: {state}")));
    }

    assert_eq!(failures, Vec::<String>::new());
    let deadlocks = "select pg_stat_clear_snapshot(), deadlocks from pg_stat_database where datname = current_database()";
    let row = db.client.query_one(deadlocks, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(1), 0);
    let events: i64 = db
        .one("select sum(seq)::bigint from usher.session_heads")
        .await;
    assert!(events > 1_000, "{events}");
    balance(&db).await;
}

/// Numbers without holes that end at the head, tallies and totals as the tables have them.
#[expect(clippy::too_many_lines, reason = "a table of statements")]
pub(crate) async fn balance(db: &Database) {
    while db.one::<i32>("select usher.update_vote_totals()").await > 0 {}
    let none = [
        (
            "something pending that no transaction has",
            "select (select count(*) from usher.pending_transactions) + (select count(*) from usher.pending_events)
               + (select count(*) from usher.pending_votes) + (select count(*) from usher.vote_total_changes)",
        ),
        (
            "a log with holes",
            "select count(*) from usher.session_heads h
             left join (
               select e.session_id, count(*) as count, min(e.seq) as first, max(e.seq) as last
               from usher.session_events e group by 1
             ) e on e.session_id = h.session_id
             where coalesce(e.count, 0) <> h.seq - h.floor or e.first <> h.floor + 1 or e.last <> h.seq",
        ),
        (
            "a log of no session",
            "select count(*) from usher.session_events e
             where not exists (select from usher.session_heads h where h.session_id = e.session_id)",
        ),
        (
            "times against the numbers",
            "select count(*) from (
               select e.at < lag(e.at) over (partition by e.session_id order by e.seq) as is_back
               from usher.session_events e
             ) s where is_back",
        ),
        (
            "a tally that is not the count",
            "select count(*) from public.voting_options o
             where coalesce((
               select sum(t.votes) from usher.vote_tallies t
               where t.voting_session_id = o.voting_session_id and t.movie_id = o.movie_id
             ), 0) <> (
               select count(*) from public.votes v
               where v.voting_session_id = o.voting_session_id and v.movie_id = o.movie_id
             )",
        ),
        (
            "a movie's total that is not the count",
            "select count(*) from public.movies m
             where m.vote_total <> (
               select count(*) from public.votes v
               join public.voting_sessions s on s.id = v.voting_session_id
               join public.movie_sessions l on l.id = s.session_id
               where v.movie_id = m.id and (s.results_visibility = 'live' or s.state = 'closed')
                 and l.visibility <> 'private'
             )",
        ),
        (
            "a result from before the close with more than was counted then",
            "select count(*) from public.voting_sessions v
             where v.state = 'closed' and (v.results ->> 'total')::bigint < (
               select count(*) from public.votes o where o.voting_session_id = v.id
             )",
        ),
        (
            "a message without its event",
            "select count(*) from public.chat_messages m
             join usher.session_heads h on h.session_id = m.session_id
             where h.floor = 0 and not exists (
               select from usher.session_events e where e.message_id = m.id and e.type = 'chat.created'
             )",
        ),
        (
            "words of a deleted message",
            "select count(*) from usher.session_events e
             where e.type in ('chat.created', 'chat.updated') and e.data ->> 'body' is not null
               and not exists (
                 select from public.chat_messages m where m.id = e.message_id and m.deleted_at is null
               )",
        ),
        (
            "the name of somebody who left",
            "select count(*) from usher.session_events e
             where e.data #>> '{author,username}' is not null
               and not exists (
                 select from public.profiles p where p.username = e.data #>> '{author,username}'
               )",
        ),
    ];
    for (what, sql) in none {
        assert_eq!(db.one::<i64>(sql).await, 0, "{what}");
    }
}

struct Stage {
    sessions: Vec<Uuid>,
    movies: Vec<Uuid>,
    writers: Vec<User>,
    leavers: Vec<User>,
    streamer: User,
    /// Writers with a fixed amount of work finish it; the others work until then.
    over: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Bulk,
    BulkReversed,
    Batches,
    Votes,
    PlainVotes,
    Moderator,
    Closer,
    DueCloser,
    Ender,
    Leavers,
    SessionsGo,
    Trimmer,
    Totals,
}

impl Kind {
    fn is_gateway(self) -> bool {
        matches!(
            self,
            Self::Batches | Self::Votes | Self::DueCloser | Self::Trimmer | Self::Totals
        )
    }
}

/// Works until the end, and returns the SQLSTATEs that no client should see.
async fn work(client: &Client, reader: &Client, kind: Kind, stage: &Stage) -> Vec<String> {
    let mut failures = Vec::new();
    for round in 0.. {
        let is_over = match kind {
            Kind::Leavers => round == stage.leavers.len(),
            Kind::Bulk
            | Kind::BulkReversed
            | Kind::Batches
            | Kind::Votes
            | Kind::PlainVotes
            | Kind::Moderator
            | Kind::Closer
            | Kind::DueCloser
            | Kind::Ender
            | Kind::SessionsGo
            | Kind::Trimmer
            | Kind::Totals => round >= ROUNDS && stage.over.load(Ordering::Acquire),
        };
        if is_over {
            break;
        }
        failures.extend(turn(client, reader, kind, stage, round).await);
    }
    if kind == Kind::Leavers {
        stage.over.store(true, Ordering::Release);
    }
    failures
}

#[expect(clippy::too_many_lines, reason = "a statement for each kind of writer")]
async fn turn(
    client: &Client,
    reader: &Client,
    kind: Kind,
    stage: &Stage,
    round: usize,
) -> Option<String> {
    let Stage {
        sessions, movies, ..
    } = stage;
    let session = sessions[round % sessions.len()];
    let writer = &stage.writers[round % stage.writers.len()];
    let sql = match kind {
        Kind::Bulk | Kind::BulkReversed => {
            let order = if kind == Kind::Bulk { "asc" } else { "desc" };
            format!(
                "insert into public.chat_messages (session_id, user_id, body)
                 select s.id, p.id, 'bulk' from public.movie_sessions s
                 cross join (select p.id from public.profiles p where p.username like 'user%'
                   order by p.id desc limit 3 for key share) p
                 where s.id = any ('{{{}}}')
                 order by s.id {order}",
                list(sessions)
            )
        }
        Kind::Batches => {
            let authors = stage.writers.iter().chain(&stage.leavers[round % 20..]);
            let items: Vec<Value> = authors
                .cycle()
                .skip(round)
                .take(12)
                .zip(sessions.iter().cycle())
                .map(|(author, session)| {
                    let mut item = author_of(author);
                    item["session"] = json!(session);
                    item["body"] = json!("batch");
                    item["nonce"] = json!(Uuid::new_v4());
                    item
                })
                .collect();
            return batch(client, "select refusal, detail from usher.post_messages($1)", items).await;
        }
        Kind::Votes => {
            let sql = "select id from public.voting_sessions where state = 'open' order by id desc";
            let votings: Vec<Uuid> = match reader.query(sql, &[]).await {
                Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
                Err(error) => return Some(error.to_string()),
            };
            let voters = stage.writers.iter().chain(&stage.leavers[round % 20..]);
            let items: Vec<Value> = voters
                .rev()
                .take(10)
                .enumerate()
                .flat_map(|(n, voter)| {
                    votings.iter().map(move |voting| {
                        let mut item = author_of(voter);
                        item["voting"] = json!(voting);
                        item["movie"] = json!(movies[(n + round) % movies.len()]);
                        item
                    })
                })
                .collect();
            return batch(client, "select refusal, detail from usher.cast_votes($1)", items).await;
        }
        Kind::PlainVotes => format!(
            "insert into public.votes (voting_session_id, user_id, movie_id)
             select v.id, '{}', '{}' from public.voting_sessions v where v.state = 'open' order by v.id limit 1
             on conflict (voting_session_id, user_id) do update set movie_id = excluded.movie_id",
            writer.id,
            movies[round % movies.len()]
        ),
        Kind::Moderator => match round % 3 {
            0 => format!("update public.chat_messages set deleted_at = now() where user_id = '{}' and deleted_at is null", writer.id),
            1 => format!("delete from public.chat_messages where user_id = '{}'", writer.id),
            _ => format!(
                "update public.chat_messages set body = 'edited' where session_id = '{session}' and user_id = '{}' and deleted_at is null",
                writer.id
            ),
        },
        Kind::Closer => format!(
            "update public.voting_sessions set state = 'closed' where session_id = '{session}' and state = 'open';
             with v as (
               insert into public.voting_sessions (session_id, question) values ('{session}', 'Next?') returning id
             )
             insert into public.voting_options (voting_session_id, movie_id)
             select v.id, m from v cross join unnest('{{{}}}'::uuid[]) m;
             update public.voting_sessions v set state = 'open'{}
             where v.session_id = '{session}' and v.state = 'draft'
               and not exists (select from public.voting_sessions o where o.session_id = v.session_id and o.state = 'open')",
            list(movies),
            if round.is_multiple_of(2) { ", opens_at = now() - interval '2 s', closes_at = now()" } else { "" },
        ),
        Kind::DueCloser => "select usher.close_due_votings()".to_owned(),
        Kind::Trimmer => "select usher.trim_events('1 hour', 200, 100)".to_owned(),
        Kind::Totals => "select usher.update_vote_totals()".to_owned(),
        // Ends all sessions in one statement, whatever polls are open, and reopens them, which only the owner can.
        Kind::Ender => format!(
            "update public.movie_sessions set status = 'ended' where id = any ('{{{0}}}');
             update public.movie_sessions set status = 'live' where id = any ('{{{0}}}')",
            list(sessions)
        ),
        Kind::Leavers => format!("delete from auth.users where id = '{}'", stage.leavers[round].id),
        Kind::SessionsGo => format!(
            "insert into public.movie_sessions (streamer_id, title, status) select '{0}', 'short', 'live' from generate_series(1, 2);
             insert into public.voting_sessions (session_id, question, state)
             select s.id, 'short?', 'open' from public.movie_sessions s where s.title = 'short';
             insert into public.voting_options (voting_session_id, movie_id)
             select v.id, '{1}' from public.voting_sessions v where v.question = 'short?';
             insert into public.votes (voting_session_id, user_id, movie_id)
             select v.id, '{0}', '{1}' from public.voting_sessions v where v.question = 'short?' and v.state = 'open' limit 1;
             insert into public.chat_messages (session_id, user_id, body)
             select s.id, '{2}', 'short' from public.movie_sessions s where s.title = 'short';
             delete from public.movie_sessions where id = (select id from public.movie_sessions where title = 'short' limit 1);
             delete from public.movie_sessions where id = (select id from public.movie_sessions where title = 'short' limit 1)",
            stage.streamer.id, movies[0], writer.id
        ),
    };
    // Each statement is its own transaction.
    for statement in sql.split(";\n") {
        let Err(error) = client.batch_execute(statement).await else {
            continue;
        };
        let state = state(&error);
        // Votes may come late or name a movie that is not on the ballot, and two polls may open at the same time.
        let is_expected = matches!(
            (kind, &state[..5]),
            (Kind::PlainVotes, "US005" | "US008" | "23503") | (Kind::Closer, "23505" | "23514")
        );
        if !is_expected {
            return Some(format!("{state} in {statement}"));
        }
    }
    None
}

/// Posts a batch, and returns the errors that no client caused.
async fn batch(client: &Client, sql: &str, items: Vec<Value>) -> Option<String> {
    match client.query(sql, &[&Value::from(items)]).await {
        Ok(rows) => rows
            .iter()
            .find(|row| row.get::<_, Option<&str>>(0) == Some("internal"))
            .map(|row| row.get(1)),
        Err(error) => Some(state(&error)),
    }
}

fn author_of(user: &User) -> Value {
    json!({"role": "authenticated", "claims": {"role": "authenticated", "sub": user.id}})
}

fn state(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(
        || format!("?     {error}"),
        |error| {
            format!(
                "{} {}; {:?}",
                error.code().code(),
                error.message(),
                error.detail()
            )
        },
    )
}

fn list(ids: &[Uuid]) -> String {
    let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    ids.join(",")
}

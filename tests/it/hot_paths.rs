//! No hot path reads a whole table.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::database::{self, Database};

#[tokio::test(flavor = "multi_thread")]
async fn no_hot_path_reads_a_whole_table() {
    let db = Database::create().await;
    let streamer = db.user("sam").await;
    let session = db.session(&streamer).await;
    let movies = db.movies(4).await;
    let voting = db.voting(session, &movies, "").await;
    let viewer = db.user("ann").await;
    db.run(FILL).await;
    let vote_all = format!(
        "insert into public.votes (voting_session_id, user_id, movie_id)
         select '{voting}', p.id, '{}' from public.profiles p",
        movies[0]
    );
    db.run(&vote_all).await;
    db.run("analyze").await;
    let message: Uuid = db
        .one(&format!(
            "select id from public.chat_messages where user_id <> '{}' limit 1",
            viewer.id
        ))
        .await;
    let gateway = database::connect(&db.gateway_url).await;
    let claims = json!({"sub": viewer.id, "role": "authenticated"});
    let rows = Rows {
        session,
        voting,
        movies,
        message,
        viewer: viewer.id,
        streamer: streamer.id,
    };

    // Whoever asks first reads catalogues and makes plans; what is counted comes after.
    let mut before = BTreeMap::new();
    for turn in 0..12 {
        if turn == 6 {
            before = scans(&db.client).await;
        }
        for sql in as_the_gateway(&rows, &claims, turn) {
            run(&gateway, &sql).await;
        }
        for sql in as_the_viewer(&rows, turn) {
            let act = format!(
                "begin; select set_config('role', 'authenticated', true),
                   set_config('request.jwt.claims', '{claims}', true); {sql}; commit"
            );
            run(&db.client, &act).await;
        }
    }
    let after = scans(&db.client).await;
    let grown: Vec<_> = after
        .iter()
        .filter(|(table, count)| before[*table] < **count)
        .collect();
    assert!(grown.is_empty(), "read from end to end: {grown:?}");
}

/// What the statements are about.
struct Rows {
    session: Uuid,
    voting: Uuid,
    movies: Vec<Uuid>,
    message: Uuid,
    viewer: Uuid,
    streamer: Uuid,
}

/// What the gateway asks and writes, as `src/postgres/store.rs` has it.
fn as_the_gateway(rows: &Rows, claims: &Value, turn: usize) -> Vec<String> {
    let (session, voting, movie) = (rows.session, rows.voting, rows.movies[turn % 4]);
    let item = json!({"role": "authenticated", "claims": claims, "session": session,
        "nonce": Uuid::new_v4(), "body": "hello"});
    let vote = json!({"role": "authenticated", "claims": claims, "voting": voting,
        "movie": movie});
    vec![
        format!(
            "begin; select set_config('role', 'authenticated', true),
               set_config('request.jwt.claims', '{claims}', true);
             select usher.admit('{session}'); set local role none;
             select usher.session_snapshot('{session}'); commit"
        ),
        format!("select * from usher.events_after('{session}', {turn}, 500, 100000)"),
        format!("select * from usher.heads(array['{session}']::uuid[])"),
        format!("select * from usher.tallies(array['{voting}']::uuid[])"),
        format!("select * from usher.post_messages('[{item}]')"),
        format!("select * from usher.cast_votes('[{vote}]')"),
        "select usher.close_due_votings()".to_owned(),
    ]
}

/// What an app asks and writes over the Data API.
fn as_the_viewer(rows: &Rows, turn: usize) -> Vec<String> {
    let (session, voting, movie) = (rows.session, rows.voting, rows.movies[turn % 4]);
    let (message, viewer, streamer) = (rows.message, rows.viewer, rows.streamer);
    vec![
        format!(
            "select * from public.chat_messages where session_id = '{session}' order by created_at desc limit 50"
        ),
        format!("select * from public.chat_messages where id = '{message}'"),
        format!("select * from public.voting_sessions where session_id = '{session}'"),
        format!("select * from public.voting_options where voting_session_id = '{voting}'"),
        format!("select * from public.votes where voting_session_id = '{voting}'"),
        "select * from public.votes".to_owned(),
        format!("select * from public.movie_sessions where id = '{session}'"),
        format!(
            "select * from public.movie_sessions where streamer_id = '{}'",
            streamer
        ),
        "select id from public.profiles where username = 'ann'".to_owned(),
        format!(
            "select * from public.session_members where session_id = '{session}' and user_id = '{}'",
            viewer
        ),
        format!(
            "select * from public.session_bans where session_id = '{session}' and user_id = '{}'",
            viewer
        ),
        format!(
            "insert into public.chat_messages (session_id, body, reply_to) values ('{session}', 'hello', null)"
        ),
        format!("update public.chat_messages set body = 'edited' where id = '{message}'"),
        format!(
            "insert into public.votes (voting_session_id, movie_id) values ('{voting}', '{}')
             on conflict (voting_session_id, user_id) do update set movie_id = excluded.movie_id",
            movie
        ),
    ]
}

/// 20,000 sessions, of which 2,000 with members, bans, a voting and 30 messages each; 10,000 accounts.
const FILL: &str = "
    insert into auth.users (id, aud, role)
    select gen_random_uuid(), 'authenticated', 'authenticated' from generate_series(1, 10000);
    insert into public.movie_sessions (streamer_id, title, status)
    select p.id, 'session', 'live' from public.profiles p limit 2000;
    insert into public.session_members (session_id, user_id)
    select s.id, p.id from public.movie_sessions s cross join (select id from public.profiles limit 5) as p
    on conflict do nothing;
    insert into public.session_bans (session_id, user_id)
    select s.id, p.id from public.movie_sessions s
    cross join (select id from public.profiles where username like 'user%' limit 2) as p
    on conflict do nothing;
    insert into public.chat_messages (session_id, user_id, body)
    select s.id, s.streamer_id, 'message ' || n from public.movie_sessions s cross join generate_series(1, 30) as n;
    insert into public.voting_sessions (session_id, question, state)
    select s.id, 'which?', 'closed' from public.movie_sessions s;
    insert into public.movie_sessions (streamer_id, title, status)
    select p.id, 'session', 'ended' from public.profiles p cross join generate_series(1, 2) limit 18000;
    insert into public.voting_options (voting_session_id, movie_id)
    select v.id, m.id from public.voting_sessions v cross join public.movies m
    on conflict do nothing;
";

/// Runs statements and has them counted at once, which Postgres would otherwise do when it is idle.
async fn run(client: &Client, sql: &str) {
    for sql in [sql, "select pg_stat_force_next_flush()"] {
        if let Err(error) = client.simple_query(sql).await {
            panic!("{error:?}\nin {sql}");
        }
    }
}

/// Sequential scans of each of our tables so far. Small by nature: `identity` has one row, `movies` few.
async fn scans(client: &Client) -> BTreeMap<String, i64> {
    let sql = "select relid::regclass::text, seq_scan from pg_stat_user_tables
        where schemaname in ('public', 'usher') and relname not in ('identity', 'movies', 'overlay_tokens')";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

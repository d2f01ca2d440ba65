//! Proves that the triggers take time in proportion to the rows of a statement, even with plans that were made for
//! one row.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::database::{Database, connect};

/// Rows of the large statement; the small one has a tenth.
const ROWS: i64 = 10_000;

/// The written rows, from `$a` to `$b`. Their ids contain the group of the table.
const STATEMENTS: &[&str] = &[
    "update public.chat_messages set body = body || '!' where id between '$c$a' and '$c$b'",
    "update public.chat_messages set deleted_at = now() where id between '$c$a' and '$c$b'",
    "delete from public.chat_messages where id between '$c$a' and '$c$b'",
    "update public.votes set movie_id = '00000000-0000-4000-b000-000000000002' where user_id between '$8$a' and '$8$b'",
    "delete from public.votes where user_id between '$8$a' and '$8$b'",
    "update public.voting_options set position = 3 where movie_id between '$b$a' and '$b$b'",
    "delete from public.voting_options where movie_id between '$b$a' and '$b$b'",
    "update public.voting_sessions set question = 'Which?' where id between '$a$a' and '$a$b'",
    "delete from public.voting_sessions where id between '$a$a' and '$a$b'",
    "update public.movie_sessions set status = 'ended' where id between '$9$a' and '$9$b'",
    "delete from public.movie_sessions where id between '$9$a' and '$9$b'",
    "update public.session_bans set until = now() where user_id between '$8$a' and '$8$b'",
    "delete from public.session_bans where user_id between '$8$a' and '$8$b'",
    "update public.session_members set role = 'moderator' where user_id between '$8$a' and '$8$b'",
    "delete from public.session_members where user_id between '$8$a' and '$8$b'",
    "update public.overlay_tokens set revoked_at = now() where id between '$d$a' and '$d$b'",
    "delete from public.overlay_tokens where id between '$d$a' and '$d$b'",
];

#[tokio::test]
async fn ten_times_the_rows_take_at_most_twenty_times_as_long() {
    let db = Database::create().await;
    fill(&db).await;
    for statement in STATEMENTS {
        let client = connect(&db.url).await;
        // Plans are made for one row, as on a connection of a pool.
        time(&client, statement, 1, 1).await;
        let mut ratio = f64::INFINITY;
        for _ in 0..3 {
            let small = time(&client, statement, 2, ROWS / 10).await;
            let large = time(&client, statement, 2 + ROWS / 10, ROWS).await;
            ratio = ratio.min(large.as_secs_f64() / small.as_secs_f64());
        }
        assert!(ratio <= 20.0, "{ratio:.1} times as long: {statement}");
    }
}

/// How long a statement over so many rows takes, with what the commit would do. It is undone.
async fn time(client: &Client, statement: &str, from: i64, count: i64) -> Duration {
    let mut sql = statement.to_owned();
    for group in ["8", "9", "a", "b", "c", "d"] {
        for (place, number) in [("a", from), ("b", from + count - 1)] {
            let id = format!("00000000-0000-4000-{group}000-{number:012}");
            sql = sql.replace(&format!("${group}${place}"), &id);
        }
    }
    client.batch_execute("begin").await.unwrap();
    let began = Instant::now();
    client.batch_execute(&sql).await.unwrap();
    client.batch_execute("select usher.settle()").await.unwrap();
    let taken = began.elapsed();
    client.batch_execute("rollback").await.unwrap();
    taken
}

/// As many rows of each kind as are written: people 8, sessions 9, polls a, movies b, messages c, overlay tokens d.
async fn fill(db: &Database) {
    let rows = 1 + ROWS / 10 + ROWS;
    db.run(&format!(
        "create function pg_temp.id(kind text, n bigint) returns uuid language sql immutable
           return ('00000000-0000-4000-' || kind || '000-' || lpad(n::text, 12, '0'))::uuid;
         insert into auth.users (id) select pg_temp.id('8', n) from generate_series(1, {rows}) n;
         insert into public.movies (id, title) select pg_temp.id('b', n), 'Movie' from generate_series(1, {rows}) n;
         insert into public.movie_sessions (id, streamer_id, title, status)
         select pg_temp.id('9', n), pg_temp.id('8', 1), 'Night', 'live' from generate_series(1, {rows} + 1) n;
         insert into public.voting_sessions (id, session_id, question)
         select pg_temp.id('a', n), pg_temp.id('9', n), 'What?' from generate_series(1, {rows} + 1) n;
         insert into public.voting_options (voting_session_id, movie_id)
         select pg_temp.id('a', {rows} + 1), pg_temp.id('b', n) from generate_series(1, {rows}) n;
         update public.voting_sessions set state = 'open' where id = pg_temp.id('a', {rows} + 1);
         insert into public.votes (voting_session_id, user_id, movie_id)
         select pg_temp.id('a', {rows} + 1), pg_temp.id('8', n), pg_temp.id('b', 1) from generate_series(1, {rows}) n;
         insert into public.chat_messages (id, session_id, user_id, body)
         select pg_temp.id('c', n), pg_temp.id('9', {rows} + 1), pg_temp.id('8', 1), 'text' from generate_series(1, {rows}) n;
         insert into public.session_members (session_id, user_id)
         select pg_temp.id('9', {rows} + 1), pg_temp.id('8', n) from generate_series(1, {rows}) n;
         insert into public.session_bans (session_id, user_id)
         select pg_temp.id('9', {rows} + 1), pg_temp.id('8', n) from generate_series(1, {rows}) n;
         insert into public.overlay_tokens (id, session_id, label, expires_at)
         select pg_temp.id('d', n), pg_temp.id('9', {rows} + 1), 'OBS', now() + interval '1 day'
         from generate_series(1, {rows}) n;"
    ))
    .await;
    db.run("vacuum analyze").await;
}

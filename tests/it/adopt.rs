//! Runs the example of `docs/database.md`: a project that already has such tables moves its data into Usher's tables.

use tokio_postgres::Client;
use usher::postgres::migrations::{self, Down};

use crate::database;

const BEFORE: &str = include_str!("../../sql/examples/adopt_before.sql");
const AFTER: &str = include_str!("../../sql/examples/adopt_after.sql");

/// Tables of the names that ours have, with other columns.
const A_PROJECT: &str = "
    insert into auth.users (id, raw_user_meta_data) values
      ('aa000000-0000-4000-8000-000000000001', '{\"username\": \"host\"}'),
      ('aa000000-0000-4000-8000-000000000002', '{\"username\": \"guest\"}');
    create table public.movies (id uuid primary key, name text, year integer);
    create table public.rooms (
      id uuid primary key, host_id uuid references auth.users, name text, movie_id uuid references public.movies,
      is_live boolean, created_at timestamptz default now()
    );
    create table public.chat_messages (
      id uuid primary key default gen_random_uuid(), room_id uuid references public.rooms,
      author_id uuid references auth.users, text text, sent_at timestamptz
    );
    insert into public.movies values ('ff000000-0000-4000-8000-000000000001', E'Metro\\npolis', 1927);
    insert into public.rooms values
      ('5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000001', 'Friday',
       'ff000000-0000-4000-8000-000000000001', true),
      ('5e000000-0000-4000-8000-000000000002', 'aa000000-0000-4000-8000-000000000001', 'Last Friday', null, false);
    insert into public.chat_messages (room_id, author_id, text, sent_at)
    select '5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000002', 'message ' || n,
      now() - n * interval '1 minute'
    from generate_series(1, 200) as n;
    insert into public.chat_messages (room_id, author_id, text, sent_at) values
      ('5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000002', '', now()),
      ('5e000000-0000-4000-8000-000000000001', 'aa000000-0000-4000-8000-000000000002', E' \\n', now());
";

#[tokio::test]
async fn a_project_with_such_tables_adopts_ours_and_can_go_back() {
    let url = database::fresh().await;
    let mut client = database::connect(&url).await;
    migrations::shim(&mut client).await.unwrap();
    client.batch_execute(A_PROJECT).await.unwrap();
    let untouched = text(
        &client,
        "select count(*) || ' of ' || count(distinct id) from public.chat_messages",
    )
    .await;

    client.batch_execute(BEFORE).await.unwrap();
    migrations::up(&mut client).await.unwrap();
    client.batch_execute(AFTER).await.unwrap();

    let log = "select string_agg(data ->> 'body', ',' order by seq) from usher.session_events
        where session_id = '5e000000-0000-4000-8000-000000000001'";
    let expected: Vec<String> = (1..=200).rev().map(|n| format!("message {n}")).collect();
    assert_eq!(text(&client, log).await, expected.join(","));
    let sessions = "select string_agg(s.status || ' ' || p.role, ',' order by s.id)
        from public.movie_sessions s join public.profiles p on p.id = s.streamer_id";
    assert_eq!(
        text(&client, sessions).await,
        "live streamer,ended streamer"
    );

    // Back: ours go, theirs return as they were.
    migrations::down(&mut client, &Down::To("0".to_owned()))
        .await
        .unwrap();
    client
        .batch_execute(
            "alter table legacy.movies set schema public;
             alter table legacy.rooms set schema public;
             alter table legacy.chat_messages set schema public;
             drop schema legacy",
        )
        .await
        .unwrap();
    let again = text(
        &client,
        "select count(*) || ' of ' || count(distinct id) from public.chat_messages",
    )
    .await;
    assert_eq!(again, untouched);
}

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

//! Proves that no hot path scans a whole table: the queries of the gateway and of a browser use indexes.
//!
//! Postgres itself counts the sequential scans of each table, also those inside functions, policies and foreign keys.

use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::database::{Database, connect};

/// Tables that grow with use.
const LARGE: &str = "'chat_messages', 'votes', 'session_events', 'voting_sessions', 'voting_options', 'vote_tallies',
    'movie_sessions', 'session_members', 'session_bans', 'overlay_tokens', 'profiles', 'users', 'pending_transactions',
    'pending_events', 'pending_votes', 'vote_total_changes', 'movie_votes'";

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a list of questions")]
async fn no_hot_path_reads_a_whole_table() {
    let db = Database::create().await;
    let Filled {
        session,
        voting,
        movie,
        user,
        streamer,
        message,
    } = fill(&db).await;
    let claims = |user: Uuid| json!({"role": "authenticated", "sub": user});
    let item = json!({"role": "authenticated", "claims": claims(user)});
    let with = |more: serde_json::Value| {
        let mut item = item.clone();
        let more = more.as_object().unwrap().clone();
        item.as_object_mut().unwrap().extend(more);
        json!([item]).to_string()
    };
    let post = with(json!({"session": session, "body": "hello", "nonce": Uuid::new_v4()}));
    let cast = with(json!({"voting": voting, "movie": movie}));
    let mut scans = Vec::new();

    let gateway = connect(&db.gateway_url).await;
    for sql in [
        format!(
            "begin;
             select set_config('role', 'authenticated', true), set_config('request.jwt.claims', '{}', true);
             select usher.admit('{session}'); set local role none; select usher.session_snapshot('{session}'); commit",
            claims(user)
        ),
        format!(
            "begin; select set_config('role', 'anon', true), set_config('request.jwt.claims', '{{}}', true);
             select usher.admit('{session}'); commit"
        ),
        format!(
            "begin;
             select set_config('role', 'authenticated', true), set_config('request.jwt.claims', '{}', true);
             select usher.messages_before('{session}', null, null, null, 50);
             select usher.messages_before('{session}', 3000, null, null, 50);
             select usher.messages_before('{session}', null, 2000000000000000, '{message}', 50); commit",
            claims(user)
        ),
        format!("select usher.heads(array['{session}']::uuid[])"),
        format!(
            "select (select usher.epoch()), h.head, h.floor, e.event from (values (1)) as one (row)
             left join usher.heads(array['{session}']::uuid[]) h on true
             left join usher.events_after('{session}', 10, 200, 60000) e on true
             order by e.seq"
        ),
        format!("select usher.tallies(array['{voting}']::uuid[])"),
        format!("select usher.post_messages('{post}')"),
        format!("select usher.cast_votes('{cast}')"),
        "select usher.close_due_votings()".to_owned(),
        "select usher.due_votings(10)".to_owned(),
        format!("select usher.close_due_voting('{voting}')"),
        "select usher.trim_events('1 day', 1000, 1000)".to_owned(),
        "select usher.update_vote_totals()".to_owned(),
    ] {
        scans.extend(scans_of(&db, &gateway, &sql).await);
    }

    let rest = connect(&db.url).await;
    for (caller, sql) in [
        (
            user,
            format!(
                "select * from public.chat_messages where session_id = '{session}' order by created_at desc limit 50"
            ),
        ),
        (
            user,
            format!("select * from public.chat_messages where id = '{message}'"),
        ),
        (
            user,
            format!(
                "insert into public.chat_messages (session_id, body, reply_to) values ('{session}', 'x', '{message}')"
            ),
        ),
        (
            user,
            format!("update public.chat_messages set body = 'y' where id = '{message}'"),
        ),
        (
            user,
            format!("select * from public.movie_sessions where id = '{session}'"),
        ),
        (
            user,
            format!("select * from public.voting_sessions where session_id = '{session}'"),
        ),
        (
            user,
            format!("select * from public.voting_options where voting_session_id = '{voting}'"),
        ),
        (user, "select * from public.votes".to_owned()),
        (
            user,
            format!("delete from public.votes where voting_session_id = '{voting}'"),
        ),
        (
            user,
            format!(
                "insert into public.votes (voting_session_id, movie_id) values ('{voting}', '{movie}')"
            ),
        ),
        (user, "select * from public.my_profile()".to_owned()),
        (
            user,
            format!("select id, username from public.profiles where id = '{streamer}'"),
        ),
        (
            streamer,
            format!("select * from public.session_members where session_id = '{session}'"),
        ),
        (
            streamer,
            format!(
                "insert into public.session_bans (session_id, user_id) values ('{session}', '{user}')"
            ),
        ),
        (
            streamer,
            format!(
                "delete from public.session_bans where session_id = '{session}' and user_id = '{user}'"
            ),
        ),
        (
            streamer,
            format!("update public.chat_messages set deleted_at = now() where id = '{message}'"),
        ),
        (
            streamer,
            format!("select * from public.overlay_tokens where session_id = '{session}'"),
        ),
        (
            streamer,
            format!("update public.voting_sessions set state = 'closed' where id = '{voting}'"),
        ),
        (
            streamer,
            format!("update public.movie_sessions set status = 'ended' where id = '{session}'"),
        ),
    ] {
        let sql = format!(
            "begin; set local role authenticated; select set_config('request.jwt.claims', '{}', true); {sql}; commit",
            claims(caller)
        );
        scans.extend(scans_of(&db, &rest, &sql).await);
    }
    for sql in [
        format!("delete from auth.users where id = '{user}'"),
        format!("delete from public.movie_sessions where id = '{session}'"),
    ] {
        scans.extend(scans_of(&db, &rest, &sql).await);
    }
    assert_eq!(scans, Vec::<String>::new());

    // And one that does, so that the count is seen to count.
    let all = "select count(*) from public.chat_messages where body like '%zz%'";
    assert_eq!(scans_of(&db, &rest, all).await.len(), 1);
}

/// A connection plans its functions once, mostly while these tables are small: an evening fills them.
#[tokio::test]
async fn what_a_batch_reads_does_not_grow_with_the_evening() {
    let db = Database::create().await;
    let user = db.user("ann").await;
    let session = db.session(&user).await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    db.run("vacuum analyze").await;
    let gateway = connect(&db.gateway_url).await;
    let author =
        json!({"role": "authenticated", "claims": {"role": "authenticated", "sub": user.id}});
    let with = |more: serde_json::Value| {
        let mut item = author.clone();
        item.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!([item])
    };
    let mut read = Vec::new();
    for round in 0..2 {
        if round == 1 {
            db.run(&format!(
                "insert into public.chat_messages (session_id, user_id, body)
                 select '{session}', '{0}', 'message ' || n from generate_series(1, 5000) n;
                 insert into auth.users (id) select gen_random_uuid() from generate_series(1, 2000);
                 insert into public.votes (voting_session_id, user_id, movie_id)
                 select '{voting}', p.id, '{1}' from public.profiles p where p.id <> '{0}'",
                user.id, movies[0]
            ))
            .await;
        }
        db.run("select pg_stat_force_next_flush()").await;
        let before = index_reads(&db).await;
        for n in 0..3 {
            let post = with(json!({"session": session, "body": "hello", "nonce": Uuid::new_v4()}));
            let cast = with(json!({"voting": voting, "movie": movies[(n + round) % 2]}));
            for (sql, batch) in [
                ("select refusal from usher.post_messages($1)", post),
                ("select refusal from usher.cast_votes($1)", cast),
            ] {
                let row = gateway.query_one(sql, &[&batch]).await.unwrap();
                assert_eq!(row.get::<_, Option<&str>>(0), None, "{sql}");
            }
        }
        gateway
            .batch_execute("select pg_stat_force_next_flush()")
            .await
            .unwrap();
        read.push(index_reads(&db).await - before);
    }
    let by_index: String = db
        .one(
            "select string_agg(indexrelname || ' ' || idx_tup_read, ', ' order by idx_tup_read desc)
             from pg_stat_all_indexes where idx_tup_read > 100",
        )
        .await;
    assert!(
        read[1] <= read[0] + 100,
        "entries of indexes read, before and after: {read:?}, of them in all: {by_index}"
    );
}

/// Entries of the large tables' indexes that were read so far.
async fn index_reads(db: &Database) -> i64 {
    let sql = format!(
        "select sum(idx_tup_read)::bigint from pg_stat_all_indexes
         where schemaname in ('public', 'usher', 'auth') and relname in ({LARGE})"
    );
    db.one(&sql).await
}

/// Runs statements; gives the large tables that they have read whole.
async fn scans_of(db: &Database, client: &Client, sql: &str) -> Vec<String> {
    let count = format!(
        "select coalesce(json_object_agg(relname, seq_scan order by relname), '{{}}')::text
         from pg_stat_all_tables where schemaname in ('public', 'usher', 'auth') and relname in ({LARGE})"
    );
    let before: String = db.one(&count).await;
    if let Err(error) = client.batch_execute(sql).await {
        panic!("{error:?}\nin {sql}");
    }
    // Counts are handed in at the end of the transaction after.
    client
        .batch_execute("select pg_stat_force_next_flush()")
        .await
        .unwrap();
    let after: String = db.one(&count).await;
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let (before, after) = (parse(&before), parse(&after));
    let tables = after.as_object().unwrap().iter();
    tables
        .filter(|(table, scans)| before[table.as_str()] != **scans)
        .map(|(table, _)| format!("{table} in {sql}"))
        .collect()
}

struct Filled {
    session: Uuid,
    voting: Uuid,
    movie: Uuid,
    user: Uuid,
    streamer: Uuid,
    message: Uuid,
}

/// 1,000 accounts, 2,000 sessions, of which 20 are live, 100,000 messages, 2,000 polls, 20,000 votes.
async fn fill(db: &Database) -> Filled {
    db.run(
        "create function pg_temp.person(n bigint) returns uuid language sql immutable
           return ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid;
         create function pg_temp.movie_session(n bigint) returns uuid language sql immutable
           return ('00000000-0000-4000-9000-' || lpad(n::text, 12, '0'))::uuid;
         create function pg_temp.voting(n bigint) returns uuid language sql immutable
           return ('00000000-0000-4000-a000-' || lpad(n::text, 12, '0'))::uuid;
         create function pg_temp.movie(n bigint) returns uuid language sql immutable
           return ('00000000-0000-4000-b000-' || lpad(n::text, 12, '0'))::uuid;
         insert into auth.users (id, raw_user_meta_data)
         select pg_temp.person(n), jsonb_build_object('username', 'user_' || n) from generate_series(1, 1000) n;
         update public.profiles set role = 'streamer' where username like 'user\\_1__';
         insert into public.movies (id, title) select pg_temp.movie(n), 'movie ' || n from generate_series(1, 10) n;
         insert into public.movie_sessions (id, streamer_id, title, status)
         select pg_temp.movie_session(n), pg_temp.person(100 + n % 100), 'session ' || n,
           case when n % 100 = 1 then 'live' else 'scheduled' end
         from generate_series(1, 2000) n;
         insert into public.session_members (session_id, user_id)
         select pg_temp.movie_session(n), pg_temp.person(1 + (n * 7 + m) % 1000)
         from generate_series(1, 2000) n cross join generate_series(1, 5) m;
         insert into public.session_bans (session_id, user_id, until)
         select pg_temp.movie_session(n), pg_temp.person(500 + n % 400), now() + interval '1 day' from generate_series(1, 2000) n;
         insert into public.overlay_tokens (session_id, label, expires_at)
         select pg_temp.movie_session(n), 'OBS', now() + interval '1 day' from generate_series(1, 2000) n;
         insert into public.chat_messages (session_id, user_id, body)
         select pg_temp.movie_session(1 + n % 2000), pg_temp.person(1 + n % 1000), 'message ' || n
         from generate_series(1, 96000) n;
         insert into public.chat_messages (session_id, user_id, body)
         select pg_temp.movie_session(1), pg_temp.person(1 + n % 40), 'message ' || n from generate_series(1, 4000) n;
         insert into public.voting_sessions (id, session_id, question)
         select pg_temp.voting(n), pg_temp.movie_session(n), 'Next?' from generate_series(1, 2000) n;
         insert into public.voting_options (voting_session_id, movie_id)
         select pg_temp.voting(n), pg_temp.movie(m) from generate_series(1, 2000) n cross join generate_series(1, 3) m;
         update public.voting_sessions set state = 'open';
         insert into public.votes (voting_session_id, user_id, movie_id)
         select pg_temp.voting(n), pg_temp.person(1 + (n * 3 + m) % 1000), pg_temp.movie(1 + m % 3)
         from generate_series(1, 2000) n cross join generate_series(1, 10) m",
    )
    .await;
    db.run("vacuum analyze").await;
    let id = |group: &str, n: u32| -> Uuid {
        format!("00000000-0000-4000-{group}-{n:012}")
            .parse()
            .unwrap()
    };
    let mine = "select id from public.chat_messages
        where session_id = '00000000-0000-4000-9000-000000000001'
          and user_id = '00000000-0000-4000-8000-000000000003' limit 1";
    Filled {
        session: id("9000", 1),
        voting: id("a000", 1),
        movie: id("b000", 1),
        user: id("8000", 3),
        streamer: id("8000", 101),
        message: db.one(mine).await,
    }
}

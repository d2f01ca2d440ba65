//! Proves that deleting an account removes the user from every table and from the events in the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::client::{Client, refused};
use crate::database::Database;
use crate::gateway::Gateway;

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one life, from the first word to the last"
)]
async fn nothing_that_is_left_names_a_deleted_account() {
    let db = Database::create().await;
    let (ann, streamer) = (db.user("unforgettable_ann").await, db.user("sam").await);
    let ben = db.user("ben").await;
    let session = db.session(&streamer).await;
    let other = db.session(&streamer).await;
    let own = db.session(&ann).await;
    db.run(&format!(
        "update public.profiles set avatar_path = 'picture_of_ann.png' where id = '{}'",
        ann.id
    ))
    .await;

    // Her messages, edits and deletions, her acts on other users, and their acts on her.
    let said = db.say(session, &ann, "secret words").await;
    let edited = db.say(other, &ann, "secret wrds").await;
    let removed = db.say(other, &ann, "secret and removed").await;
    let hidden = db.say(session, &ben, "words of ben").await;
    let purged = db.say(session, &ben, "words of ben").await;
    db.say(own, &ben, "a guest of ann").await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    db.run(&format!(
        "insert into public.votes (voting_session_id, user_id, movie_id) values ('{voting}', '{ann}', '{movie}');
         update public.chat_messages set body = 'secret words' where id = '{edited}';
         delete from public.chat_messages where id = '{removed}';
         insert into public.session_bans (session_id, user_id) values ('{other}', '{ann}'), ('{session}', '{ann}');
         delete from public.session_bans where session_id = '{other}';
         update public.chat_messages set deleted_at = now(), deleted_by = '{ann}' where id = '{hidden}';
         select set_config('request.jwt.claims', '{{\"sub\": \"{ann}\"}}', false);
         delete from public.chat_messages where id = '{purged}';
         select set_config('request.jwt.claims', '', false);
         update public.movie_sessions set streamer_id = '{ann}' where id = '{other}';
         update public.movie_sessions set streamer_id = '{sam}' where id = '{other}';
         insert into public.movies (title, created_by) values ('by ann', '{ann}')",
        ann = ann.id,
        sam = streamer.id,
        movie = movies[0],
    ))
    .await;
    let traces = [
        ann.id.to_string(),
        ann.name.clone(),
        "picture_of_ann".to_owned(),
        "secret".to_owned(),
    ];
    for trace in &traces {
        assert!(count_rows_with(&db, trace).await > 1, "{trace}");
    }
    let before = [db.head(session).await, db.head(other).await];

    // She may be asking for it herself.
    db.run(&format!(
        "select set_config('request.jwt.claims', '{{\"sub\": \"{ann}\"}}', false);
         delete from auth.users where id = '{ann}'",
        ann = ann.id
    ))
    .await;

    for trace in &traces {
        assert_eq!(count_rows_with(&db, trace).await, 0, "{trace}");
    }
    // Other users lose nothing, and receive the ids of the deleted messages.
    let log = db.log(session).await;
    let gone: Vec<&str> = log[usize::try_from(before[0]).unwrap()..]
        .iter()
        .map(|event| event["data"]["id"].as_str().unwrap())
        .collect();
    assert_eq!(gone, [said.to_string()]);
    assert_eq!(db.head(other).await, before[1] + 1);
    assert_eq!(log[0]["data"]["author"], serde_json::Value::Null);
    assert_eq!(
        log[0]["data"]["user_id"],
        "00000000-0000-0000-0000-000000000000"
    );
    assert_eq!(log[1]["data"]["author"]["username"], "ben");
    assert_eq!(db.count_votes(voting).await, []);
    db.run("select usher.update_vote_totals()").await;
    let total: i64 = db
        .one("select sum(vote_total)::bigint from public.movies")
        .await;
    assert_eq!(total, 0);
}

#[tokio::test]
async fn ten_thousand_messages_go_at_once_with_a_few_notices() {
    let db = Database::create().await;
    let (ann, streamer) = (db.user("ann").await, db.user("sam").await);
    let sessions = [
        db.session(&streamer).await,
        db.session(&streamer).await,
        db.session(&streamer).await,
    ];
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut viewer = Client::anonymous(gateway.at).await;
    viewer.subscribe(sessions[0]).await;
    db.run(&format!(
        "insert into public.chat_messages (session_id, user_id, body)
         select s.id, '{}', 'message ' || n from generate_series(1, 3334) n cross join public.movie_sessions s",
        ann.id
    ))
    .await;
    viewer.event(sessions[0], 3_334).await;
    let notices = count_notices(&db).await;

    // The gateway's own limit for a statement, which is not there for nothing.
    db.run(&format!(
        "set statement_timeout = '8s'; delete from auth.users where id = '{}'; notify {}, 'over'",
        ann.id,
        db.channel("events").await
    ))
    .await;

    viewer.event(sessions[0], 6_668).await;
    crate::client::until("the last notice", async || {
        notices.1.load(Ordering::Acquire) > 0
    })
    .await;
    // Twenty with the event and one with the last number, for each session.
    assert_eq!(notices.0.load(Ordering::Acquire), 3 * 21);
}

/// The token outlives the account: its bearer may watch on, and is not told otherwise until a message is refused.
#[tokio::test]
async fn a_deleted_account_may_watch_and_not_write() {
    let db = Database::create().await;
    let (ann, streamer) = (db.user("ann").await, db.user("sam").await);
    let session = db.session(&streamer).await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    let may = client.subscribe(session).await["can"].clone();
    let stranger = json!({"send": false, "vote": false, "moderate": false});
    assert_eq!(may, json!({"send": true, "vote": true, "moderate": false}));
    let position = client.position(session);

    db.run(&format!("delete from auth.users where id = '{}'", ann.id))
        .await;

    assert_eq!(client.expect("access").await["can"], stranger);
    refused(client.try_send(session, "hello").await, "forbidden");
    refused(client.try_vote(voting, Some(movies[0])).await, "forbidden");
    // Neither a new subscription nor the resume token from before says otherwise.
    let mut again = Client::connect(gateway.at, &ann).await;
    assert_eq!(again.subscribe(session).await["can"], stranger);
    let mut back = Client::connect(gateway.at, &ann).await;
    let resumed = back.resume_with(session, position).await;
    assert_eq!(
        (&resumed["recovered"], &resumed["can"]),
        (&json!(true), &stranger)
    );
    db.say(session, &streamer, "for all").await;
    for client in [&mut client, &mut again, &mut back] {
        client.has_the_whole_log(&db, session).await;
    }
}

/// Rows of any table of ours whose text contains something.
async fn count_rows_with(db: &Database, trace: &str) -> i64 {
    let mut found = 0;
    let tables = "select array_agg(format('%I.%I', n.nspname, c.relname))
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname in ('public', 'usher', 'auth') and c.relkind = 'r'";
    for table in db.one::<Vec<String>>(tables).await {
        let sql = format!("select count(*) from {table} t where t::text ilike '%{trace}%'");
        found += db.one::<i64>(&sql).await;
    }
    found
}

/// Counts the notifications on the channel of events: those of events, and the markers that end the count.
async fn count_notices(db: &Database) -> Arc<(AtomicUsize, AtomicUsize)> {
    let (client, mut connection) = tokio_postgres::connect(&db.url, NoTls).await.unwrap();
    let counts = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let counted = Arc::clone(&counts);
    tokio::spawn(async move {
        while let Some(Ok(message)) =
            std::future::poll_fn(|context| connection.poll_message(context)).await
        {
            if let AsyncMessage::Notification(notice) = message {
                let count = if notice.payload() == "over" {
                    &counted.1
                } else {
                    &counted.0
                };
                count.fetch_add(1, Ordering::AcqRel);
            }
        }
    });
    let listen = format!("listen {}", db.channel("events").await);
    client.batch_execute(&listen).await.unwrap();
    // Listens as long as the test runs.
    tokio::spawn(async move {
        let _client = client;
        std::future::pending::<()>().await;
    });
    counts
}

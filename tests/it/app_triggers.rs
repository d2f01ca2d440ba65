//! Proves that an app's own triggers on Usher's tables work: the log is the same for writes by SQL and by socket. A
//! text that a trigger took back never leaves the database.

use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::client::{Client, PATIENCE, refused, votes};
use crate::database::{Database, User};
use crate::gateway::Gateway;
use crate::overheard::Overheard;

/// Inserts messages one by one, by SQL in a session and by the socket in another, and gives what the log then has of each:
/// the type and the text of every event. The two are the same.
async fn log_of(stage: &Stage, bodies: &[&str]) -> Vec<(String, Value)> {
    let Stage {
        db, gateway, sam, ..
    } = stage;
    let (plain, live) = (db.session(sam).await, db.session(sam).await);
    for body in bodies {
        db.run(&format!(
            "insert into public.chat_messages (session_id, user_id, body) values ('{plain}', '{}', '{body}')",
            sam.id
        ))
        .await;
    }
    let mut client = Client::connect(gateway.at, sam).await;
    client.subscribe(live).await;
    for body in bodies {
        client.try_send(live, body).await;
    }
    client.has_the_whole_log(db, live).await;
    let by_socket = events(db, live).await;
    assert_eq!(events(db, plain).await, by_socket);
    by_socket
}

#[tokio::test]
async fn an_answer_follows_its_question() {
    let stage = Stage::with_trigger(
        "after insert",
        "if new.body like 'question%' then
           insert into public.chat_messages (session_id, user_id, body)
           values (new.session_id, new.user_id, 'answer to ' || new.body);
         end if;
         return null;",
    )
    .await;
    let expected = created(&[
        "question 1",
        "answer to question 1",
        "a word",
        "question 2",
        "answer to question 2",
    ]);
    let bodies = ["question 1", "a word", "question 2"];
    assert_eq!(log_of(&stage, &bodies).await, expected);

    // In one statement the trigger runs row by row.
    let Stage { db, sam, .. } = &stage;
    let session = db.session(sam).await;
    db.run(&format!(
        "insert into public.chat_messages (session_id, user_id, body)
         select '{session}', '{}', b from unnest('{{question 1,a word,question 2}}'::text[]) b",
        sam.id
    ))
    .await;
    assert_eq!(events(db, session).await, expected);
}

#[tokio::test]
async fn text_that_a_trigger_takes_back_never_leaves_the_database() {
    let stage = Stage::with_trigger(
        "after insert",
        "if new.body like 'deleted%' then
           update public.chat_messages set deleted_at = now() where id = new.id;
         elsif new.body like 'masked%' then
           update public.chat_messages set body = '***' where id = new.id;
         elsif new.body like 'removed%' then
           delete from public.chat_messages where id = new.id;
         end if;
         return null;",
    )
    .await;
    let heard = Overheard::start(&stage.db).await;
    let bodies = [
        "fine",
        "deleted secret",
        "masked secret",
        "removed secret",
        "fine too",
    ];
    let expected = vec![
        event("chat.created", "fine"),
        ("chat.created".to_owned(), Value::Null),
        ("chat.deleted".to_owned(), Value::Null),
        event("chat.created", "***"),
        event("chat.created", "fine too"),
    ];
    assert_eq!(log_of(&stage, &bodies).await, expected);
    let heard = heard.all().await;
    assert!(heard.contains("fine too"), "{heard}");
    assert!(!heard.contains("secret"), "{heard}");
}

#[tokio::test]
async fn a_deferred_trigger_takes_text_back_in_time_as_well() {
    let stage = Stage::new().await;
    stage
        .db
        .run(
            "create function public.late() returns trigger language plpgsql security definer set search_path = '' as $$
             begin
               update public.chat_messages set body = '***' where id = new.id;
               if new.body <> 'echo' then
                 insert into public.chat_messages (session_id, user_id, body) values (new.session_id, new.user_id, 'echo');
               end if;
               return null;
             end $$;
             create constraint trigger late after insert on public.chat_messages deferrable initially deferred
               for each row execute function public.late();",
        )
        .await;
    let heard = Overheard::start(&stage.db).await;
    let Stage { db, sam, .. } = &stage;
    // The second row's trigger runs after the first call to settle.
    let session = db.session(sam).await;
    let insert = format!(
        "insert into public.chat_messages (session_id, user_id, body) values ('{session}', '{}', 'secret');",
        sam.id
    );
    db.run(&format!("begin; {insert} {insert} commit")).await;
    assert_eq!(events(db, session).await, created(&["***"; 4]));
    // With `set constraints immediate`, nothing is settled before the statement's triggers have ended.
    let session = db.session(sam).await;
    let insert = insert.replace(
        &insert[insert.find("values").unwrap()..],
        &format!("values ('{session}', '{}', 'secret');", sam.id),
    );
    db.run(&format!(
        "begin; set constraints all immediate; {insert} {insert} commit"
    ))
    .await;
    assert_eq!(events(db, session).await, created(&["***"; 4]));

    let mut client = Client::connect(stage.gateway.at, sam).await;
    let session = db.session(sam).await;
    client.subscribe(session).await;
    assert_eq!(client.send(session, "secret").await["seq"], 1);
    assert_eq!(client.event(session, 1).await["data"]["body"], "***");
    client.has_the_whole_log(db, session).await;
    let heard = heard.all().await;
    assert!(
        heard.contains("***") && !heard.contains("secret"),
        "{heard}"
    );
}

/// Each runs only after the one before has ended, and records nothing until the last.
#[tokio::test]
async fn however_many_deferred_triggers_call_each_other_they_are_in_time() {
    let stage = Stage::new().await;
    stage
        .db
        .run(
            "create table public.moderation (message uuid, round integer);
             create function public.review() returns trigger language plpgsql security definer set search_path = '' as $$
             begin
               if tg_table_name = 'chat_messages' then
                 insert into public.moderation values (new.id, 1);
               elsif new.round < 6 then
                 insert into public.moderation values (new.message, new.round + 1);
               else
                 update public.chat_messages set body = '***' where id = new.message;
               end if;
               return null;
             end $$;
             create constraint trigger review after insert on public.chat_messages deferrable initially deferred
               for each row execute function public.review();
             create constraint trigger review after insert on public.moderation deferrable initially deferred
               for each row execute function public.review();",
        )
        .await;
    let heard = Overheard::start(&stage.db).await;
    let bodies = ["secret", "secret too"];
    assert_eq!(log_of(&stage, &bodies).await, created(&["***"; 2]));
    let heard = heard.all().await;
    assert!(
        heard.contains("***") && !heard.contains("secret"),
        "{heard}"
    );
}

/// Each of these would settle before the commit, or not at all.
#[tokio::test]
async fn settings_of_a_transaction_do_not_move_its_settlement() {
    let stage = Stage::new().await;
    let Stage { db, sam, .. } = &stage;
    let heard = Overheard::start(db).await;
    let session = db.session(sam).await;
    let insert = |body: &str| {
        format!(
            "insert into public.chat_messages (session_id, user_id, body) values ('{session}', '{}', '{body}');",
            sam.id
        )
    };
    let immediate = "set constraints all immediate;";
    for transaction in [
        format!(
            "{} {immediate} {immediate} {immediate} delete from public.chat_messages where body = 'secret 1';",
            insert("secret 1")
        ),
        format!(
            "{immediate} {} set constraints all deferred; {immediate} {} {immediate}
             update public.chat_messages set deleted_at = now() where body = 'secret 2';
             update public.chat_messages set body = 'masked' where body = 'secret 3';",
            insert("secret 2"),
            insert("secret 3")
        ),
        format!(
            "{} {immediate} savepoint s; {} {immediate} rollback to s; {immediate}",
            insert("kept"),
            insert("secret 4")
        ),
        // Supabase lets `postgres` set this. The commit still settles the rows recorded before.
        format!(
            "{} set local session_replication_role = replica;",
            insert("before replica")
        ),
    ] {
        db.run(&format!("begin; {transaction} commit")).await;
    }
    assert_eq!(
        events(db, session).await,
        [
            ("chat.created".to_owned(), Value::Null),
            event("chat.created", "masked"),
            ("chat.deleted".to_owned(), Value::Null),
            event("chat.created", "kept"),
            event("chat.created", "before replica"),
        ]
    );
    let pending = "select count(*) from usher.pending_transactions";
    assert_eq!(db.one::<i64>(pending).await, 0);
    let heard = heard.all().await;
    assert!(heard.contains("masked"), "{heard}");
    assert!(!heard.contains("secret"), "{heard}");
}

#[tokio::test]
async fn a_message_that_a_trigger_renames_is_acknowledged_by_its_real_id() {
    let stage = Stage::with_trigger(
        "before insert",
        "new.id := ('00000000-0000-4000-8000-' || lpad(ascii(new.body)::text, 12, '0'))::uuid;
         if new.body = 'swallowed' then
           return null;
         end if;
         return new;",
    )
    .await;
    let Stage {
        db, gateway, sam, ..
    } = &stage;
    let session = db.session(sam).await;
    let mut client = Client::connect(gateway.at, sam).await;
    let mut frames = Vec::new();
    for (id, body) in ["a", "swallowed", "b", "c"].into_iter().enumerate() {
        let nonce = Uuid::from_u128(id as u128 + 1);
        frames.push(
            json!({"type": "send", "id": id, "session": session, "body": body, "nonce": nonce}),
        );
    }
    // In one batch, and each of them once more.
    for _ in 0..2 {
        for frame in &frames {
            client.say(frame).await;
        }
        let mut answers = Vec::new();
        while answers.len() < frames.len() {
            match client.read_until(Instant::now() + PATIENCE).await {
                Ok(frame) if frame["id"].is_number() => answers.push(frame),
                Ok(_) => {}
                Err(code) => client.fail(&format!("closed with {code}")),
            }
        }
        answers.sort_by_key(|answer| answer["id"].as_u64());
        for (id, code, seq) in [(0, 97, 1), (2, 98, 2), (3, 99, 3)] {
            let message = format!("00000000-0000-4000-8000-{code:012}");
            let told = &answers[id];
            assert_eq!(
                (&told["message"], &told["seq"]),
                (&json!(message), &json!(seq)),
                "{told}"
            );
        }
        assert_eq!(answers[1]["code"], "forbidden", "{}", answers[1]);
    }
    assert_eq!(events(db, session).await, created(&["a", "b", "c"]));
}

#[tokio::test]
async fn a_repeated_nonce_is_acknowledged_though_a_trigger_swallows_the_second() {
    let stage = Stage::with_trigger(
        "before insert",
        "if exists (select from public.chat_messages m where m.nonce = new.nonce) then
           return null;
         end if;
         return new;",
    )
    .await;
    let session = stage.db.session(&stage.sam).await;
    let mut client = Client::connect(stage.gateway.at, &stage.sam).await;
    let nonce = Uuid::new_v4();
    let frame = json!({"type": "send", "session": session, "body": "once", "nonce": nonce});
    let first = client.ask(frame.clone()).await;
    let second = client.ask(frame).await;
    assert_eq!(
        (&first["type"], &first["seq"]),
        (&json!("ack"), &json!(1)),
        "{first}"
    );
    assert_eq!(
        (&second["message"], &second["seq"]),
        (&first["message"], &first["seq"]),
        "{second}"
    );
}

#[tokio::test]
async fn votes_of_a_trigger_on_messages_count() {
    let stage = Stage::with_trigger(
        "after insert",
        "insert into public.votes (voting_session_id, user_id, movie_id)
         select o.voting_session_id, new.user_id, o.movie_id
         from public.voting_options o
         join public.voting_sessions v on v.id = o.voting_session_id
         where v.session_id = new.session_id and v.state = 'open' and o.position::text = new.body
         on conflict (voting_session_id, user_id) do update set movie_id = excluded.movie_id;
         return null;",
    )
    .await;
    let Stage {
        db, gateway, sam, ..
    } = &stage;
    let session = db.session(sam).await;
    let ann = db.user("ann").await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    client.send(session, "2").await;
    client
        .expect_where("tally", |tally| votes(tally) == [(movies[1], 1)])
        .await;
    db.say(session, sam, "1").await;
    client
        .expect_where("tally", |tally| tally["total"] == 2)
        .await;
    client.send(session, "1").await;
    client
        .expect_where("tally", |tally| votes(tally) == [(movies[0], 2)])
        .await;
    db.set_voting(voting, "state = 'closed'").await;
    let closed = client
        .expect_where("tally", |tally| tally["status"] == "closed")
        .await;
    assert_eq!(votes(&closed), [(movies[0], 2)]);
    assert_eq!(votes(&closed), db.count_votes(voting).await);
}

#[tokio::test]
async fn messages_of_a_trigger_on_votes_are_in_the_log() {
    let stage = Stage::new().await;
    let Stage {
        db, gateway, sam, ..
    } = &stage;
    db.run(
        "create function public.cheer() returns trigger language plpgsql security definer set search_path = '' as $$
         begin
           insert into public.chat_messages (session_id, user_id, body)
           select v.session_id, new.user_id, 'voted' from public.voting_sessions v where v.id = new.voting_session_id;
           return null;
         end $$;
         create trigger cheer after insert or update on public.votes for each row execute function public.cheer();
         create function public.announce() returns trigger language plpgsql security definer set search_path = '' as $$
         begin
           insert into public.chat_messages (session_id, user_id, body)
           select new.session_id, s.streamer_id, 'the result is ' || (new.results ->> 'total')
           from public.movie_sessions s where s.id = new.session_id;
           return null;
         end $$;
         create trigger announce after update on public.voting_sessions
           for each row when (new.state = 'closed' and old.state = 'open') execute function public.announce();",
    )
    .await;
    let session = db.session(sam).await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    let mut client = Client::connect(gateway.at, sam).await;
    client.subscribe(session).await;
    client.vote(voting, Some(movies[0])).await;
    client.vote(voting, Some(movies[1])).await;
    // Closed by the end of the session; the message follows what it speaks of.
    db.set_session(session, "status = 'ended'").await;
    client.event(session, 6).await;
    client.has_the_whole_log(db, session).await;
    let types: Vec<String> = events(db, session)
        .await
        .into_iter()
        .map(|(kind, body)| format!("{kind} {}", body.as_str().unwrap_or_default()))
        .collect();
    assert_eq!(
        types,
        [
            "voting.opened ",
            "chat.created voted",
            "chat.created voted",
            "voting.closed ",
            "session.updated ",
            "chat.created the result is 1"
        ]
    );
}

#[tokio::test]
async fn a_vote_that_a_trigger_changes_is_answered_as_it_is_stored() {
    let stage = Stage::new().await;
    let Stage {
        db, gateway, sam, ..
    } = &stage;
    let session = db.session(sam).await;
    let movies = db.movies(3).await;
    let voting = db.voting(session, &movies, "").await;
    db.run(&format!(
        "create function public.steer() returns trigger language plpgsql as $$
         begin
           if tg_op = 'DELETE' or new.movie_id = '{0}' then
             return null;
           elsif new.movie_id = '{1}' then
             new.movie_id := '{2}';
           end if;
           return new;
         end $$;
         create trigger steer before insert or update or delete on public.votes
           for each row execute function public.steer();",
        movies[0], movies[1], movies[2]
    ))
    .await;
    let mut client = Client::connect(gateway.at, sam).await;
    refused(client.try_vote(voting, Some(movies[0])).await, "forbidden");
    assert_eq!(
        client.vote(voting, Some(movies[1])).await["movie"],
        json!(movies[2])
    );
    refused(client.try_vote(voting, Some(movies[0])).await, "forbidden");
    refused(client.try_vote(voting, None).await, "forbidden");
    assert_eq!(
        client.vote(voting, Some(movies[2])).await["movie"],
        json!(movies[2])
    );
    assert_eq!(db.count_votes(voting).await, [(movies[2], 1)]);
}

#[tokio::test]
async fn imported_deleted_messages_publish_no_text() {
    let stage = Stage::new().await;
    let Stage { db, sam, .. } = &stage;
    let session = db.session(sam).await;
    let heard = Overheard::start(db).await;
    let insert = format!(
        "insert into public.chat_messages (session_id, user_id, body) values ('{session}', '{}',",
        sam.id
    );
    for transaction in [
        format!(
            "insert into public.chat_messages (session_id, user_id, body, deleted_at, created_at)
             select '{session}', '{}', 'secret ' || n, case when n % 2 = 0 then now() end,
               '2020-01-01'::timestamptz + n * interval '1 s'
             from generate_series(1, 4) n",
            sam.id
        ),
        "update public.chat_messages set deleted_at = now() where body = 'secret 1'".to_owned(),
        format!(
            "{insert} 'secret 5'); update public.chat_messages set deleted_at = now() where body = 'secret 5'"
        ),
        format!("{insert} 'secret 6'); delete from public.chat_messages where body = 'secret 6'"),
    ] {
        db.run(&transaction).await;
    }
    let told: Vec<String> = events(db, session)
        .await
        .into_iter()
        .map(|(kind, body)| format!("{kind} {}", body.as_str().unwrap_or("-")))
        .collect();
    assert_eq!(
        told,
        [
            "chat.created -",
            "chat.created -",
            "chat.deleted -",
            "chat.created secret 3",
            "chat.created -",
            "chat.deleted -",
            "chat.deleted -",
            "chat.created -",
            "chat.deleted -"
        ]
    );
    let log = db.log(session).await;
    assert!(log[1]["data"]["deleted_at"].is_string(), "{}", log[1]);
    assert_eq!(log[1]["data"]["author"]["username"], "sam");
    let heard = heard.all().await;
    for (n, may_be_heard) in [
        (1, true),
        (2, false),
        (3, true),
        (4, false),
        (5, false),
        (6, false),
    ] {
        assert_eq!(
            heard.contains(&format!("secret {n}")),
            may_be_heard,
            "{n}: {heard}"
        );
    }
}

struct Stage {
    db: Database,
    gateway: Gateway,
    sam: User,
}

impl Stage {
    async fn new() -> Self {
        let db = Database::create().await;
        let sam = db.user("sam").await;
        let gateway = Gateway::start(&db, |_| {}).await;
        Self { db, gateway, sam }
    }

    /// With a trigger on `chat_messages`, row by row, that runs as its owner.
    async fn with_trigger(when: &str, body: &str) -> Self {
        let stage = Self::new().await;
        stage
            .db
            .run(&format!(
                "create function public.app() returns trigger language plpgsql security definer set search_path = '' as $$
                 begin
                   {body}
                 end $$;
                 create trigger app {when} on public.chat_messages for each row execute function public.app();"
            ))
            .await;
        stage
    }
}

/// Type and text of a session's events.
async fn events(db: &Database, session: Uuid) -> Vec<(String, Value)> {
    let log = db.log(session).await;
    log.iter()
        .map(|event| {
            (
                event["type"].as_str().unwrap().to_owned(),
                event["data"]["body"].clone(),
            )
        })
        .collect()
}

fn event(kind: &str, body: &str) -> (String, Value) {
    (kind.to_owned(), json!(body))
}

fn created(bodies: &[&str]) -> Vec<(String, Value)> {
    bodies
        .iter()
        .map(|body| event("chat.created", body))
        .collect()
}

//! Proves the main job of the gateway: viewers watch, write messages and vote.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, refused, votes};
use crate::database::Database;
use crate::gateway::Gateway;

#[tokio::test]
async fn a_subscriber_is_told_the_session_and_its_history() {
    let db = Database::create().await;
    let (sam, ann) = (db.user("sam").await, db.user("ann").await);
    let session = db.session(&sam).await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    for n in 1..=60 {
        db.say(session, &ann, &format!("message {n}")).await;
    }
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut client = Client::connect(gateway.at, &ann).await;

    let subscribed = client.subscribe(session).await;
    assert_eq!(subscribed["seq"], 11, "the number before 50 of 61 events");
    assert_eq!(
        (&subscribed["recovered"], &subscribed["reason"]),
        (&json!(false), &json!("fresh"))
    );
    let can = json!({"send": true, "vote": true, "moderate": false});
    assert_eq!(
        (&subscribed["can"], &subscribed["viewers"]),
        (&can, &json!(1))
    );
    let info = &subscribed["info"];
    assert_eq!(
        (&info["title"], &info["status"]),
        (&json!("A night at the movies"), &json!("live"))
    );
    assert_eq!(
        (&info["slow_mode_seconds"], &info["chat_enabled"]),
        (&json!(0), &json!(true))
    );
    assert!(subscribed["resume_token"].as_str().unwrap().len() <= 512);
    let told = &subscribed["votings"][0];
    assert_eq!(
        (&told["voting"], &told["status"]),
        (&json!(voting), &json!("open"))
    );
    assert_eq!(
        (&told["question"], &told["mine"]),
        (&json!("What next?"), &Value::Null)
    );
    let second = &told["options"][1];
    assert_eq!(
        (&second["movie"], &second["title"]),
        (&json!(movies[1]), &json!("Movie 2"))
    );
    assert_eq!((&told["total"], votes(told)), (&json!(0), vec![]));

    let last = client.event(session, 61).await;
    assert_eq!(
        (&last["type"], &last["data"]["body"]),
        (&json!("chat.created"), &json!("message 60"))
    );
    let author = &last["data"]["author"];
    assert_eq!(
        (&author["username"], &author["role"]),
        (&json!("ann"), &json!("viewer"))
    );
    assert_eq!(client.standing(session).events, db.log(session).await[11..]);
    gateway.stop().await;
}

#[tokio::test]
async fn the_history_is_as_long_as_was_asked_for() {
    let db = Database::create().await;
    let sam = db.user("sam").await;
    let session = db.session(&sam).await;
    for n in 1..=250 {
        db.say(session, &sam, &n.to_string()).await;
    }
    let gateway = Gateway::start(&db, |_| {}).await;

    for (history, seq) in [(0, 250), (1, 249), (200, 50)] {
        let mut client = Client::anonymous(gateway.at).await;
        let frame = json!({"type": "subscribe", "session": session, "history": history});
        let subscribed = client.ask(frame).await;
        assert_eq!(subscribed["seq"], seq, "history {history}");
        // The history ends at the newest event: no event follows the `pong`.
        if history > 0 {
            client.event(session, 250).await;
        }
        client.has_nothing(&[]).await;
        assert_eq!(client.standing(session).events.len(), history);
    }
}

#[tokio::test]
async fn a_row_inserted_by_sql_reaches_every_subscriber_with_the_next_number() {
    let (db, gateway, session) = stage().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let mut clients = [
        Client::connect(gateway.at, &ann).await,
        Client::connect(gateway.at, &ben).await,
        Client::anonymous(gateway.at).await,
    ];
    for client in &mut clients {
        client.subscribe(session).await;
    }

    let message = db.say(session, &ben, "from psql").await;

    for client in &mut clients {
        let event = client.event(session, 1).await;
        assert_eq!(event["type"], "chat.created");
        assert_eq!(event["data"]["id"], json!(message));
        client.has_the_whole_log(&db, session).await;
    }
}

#[tokio::test]
async fn a_message_is_acknowledged_with_the_number_that_its_event_bears() {
    let (db, gateway, session) = stage().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let mut author = Client::connect(gateway.at, &ann).await;
    let mut other = Client::connect(gateway.at, &ben).await;
    author.subscribe(session).await;
    other.subscribe(session).await;

    for n in 1..=3 {
        db.say(session, &ben, "in between").await;
        let body = format!("hello {n} \u{1F3AC} \"quoted\" \\ \u{2028}");
        let ack = author.send(session, &body).await;
        // Every acknowledged message is in the table.
        let sql = format!(
            "select body from public.chat_messages where id = {}",
            quoted(&ack["message"])
        );
        assert_eq!(db.one::<String>(&sql).await, body);
        for client in [&mut author, &mut other] {
            let event = client.event(session, ack["seq"].as_u64().unwrap()).await;
            assert_eq!(
                (&event["data"]["id"], &event["data"]["body"]),
                (&ack["message"], &json!(body))
            );
            assert_eq!(event["data"]["user_id"], json!(ann.id));
        }
    }
    author.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn a_reply_names_what_it_answers() {
    let (db, gateway, session) = stage().await;
    let ann = db.user("ann").await;
    let first = db.say(session, &ann, "a question").await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;

    let reply = json!({"type": "send", "session": session, "body": "an answer", "reply_to": first});
    client.ask(reply).await;
    let event = client.event(session, 2).await;
    assert_eq!(event["data"]["reply_to"], json!(first));

    let nowhere =
        json!({"type": "send", "session": session, "body": "x", "reply_to": Uuid::new_v4()});
    let refusal = refused(client.ask(nowhere).await, "bad_request");
    assert!(
        refusal["message"].as_str().unwrap().contains("reply_to"),
        "{refusal}"
    );
}

#[tokio::test]
async fn the_same_nonce_twice_is_one_message_with_one_answer() {
    let (db, gateway, session) = stage().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    let nonce = Uuid::new_v4();
    let frame = json!({"type": "send", "session": session, "body": "once", "nonce": nonce});

    let first = client.ask(frame.clone()).await;
    client.send(session, "in between").await;
    let second = client.ask(frame.clone()).await;
    // From another socket too.
    let mut again = Client::connect(gateway.at, &ann).await;
    let third = again.ask(frame.clone()).await;
    assert_eq!(first["type"], "ack");
    for repeated in [&second, &third] {
        assert_eq!(
            (&repeated["seq"], &repeated["message"]),
            (&first["seq"], &first["message"])
        );
    }
    // The same nonce of another user is a different one.
    let mut other = Client::connect(gateway.at, &ben).await;
    let others = other.ask(frame).await;
    assert_ne!(others["message"], first["message"]);

    let count = format!("select count(*) from public.chat_messages where session_id = '{session}'");
    assert_eq!(db.one::<i64>(&count).await, 3);
    client.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn a_nonce_sent_twice_at_once_is_still_one_message() {
    let (db, gateway, session) = stage().await;
    let ann = db.user("ann").await;
    let mut client = Client::connect(gateway.at, &ann).await;
    let nonce = Uuid::new_v4();
    for id in ["one", "two", "three"] {
        client.say(&json!({"type": "send", "id": id, "session": session, "body": "once", "nonce": nonce})).await;
    }
    let mut answers = Vec::new();
    for _ in 0..3 {
        let ack = client.expect("ack").await;
        answers.push((ack["seq"].clone(), ack["message"].clone()));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(db.head(session).await, 1);
}

#[tokio::test]
async fn votes_of_three_give_a_tally_equal_to_the_table() {
    let (db, gateway, session) = stage().await;
    let movies = db.movies(3).await;
    let voting = db.voting(session, &movies, "").await;
    let mut viewer = Client::anonymous(gateway.at).await;
    viewer.subscribe(session).await;
    let mut voters = Vec::new();
    for name in ["ann", "ben", "cleo"] {
        let user = db.user(name).await;
        voters.push(Client::connect(gateway.at, &user).await);
    }

    for (voter, movie) in voters.iter_mut().zip([0, 1, 1]) {
        let ack = voter.vote(voting, Some(movies[movie])).await;
        assert_eq!(
            (&ack["voting"], &ack["movie"]),
            (&json!(voting), &json!(movies[movie]))
        );
    }
    let tally = viewer
        .expect_where("tally", |tally| tally["total"] == 3)
        .await;
    assert_eq!(votes(&tally), db.count_votes(voting).await);
    assert_eq!(
        tally["counts"].as_array().unwrap().len(),
        3,
        "every movie of the ballot"
    );

    // One changes, one withdraws.
    voters[0].vote(voting, Some(movies[2])).await;
    voters[1].vote(voting, None).await;
    let mut expected = vec![(movies[1], 1), (movies[2], 1)];
    expected.sort_unstable();
    assert_eq!(db.count_votes(voting).await, expected);
    viewer
        .expect_where("tally", |tally| votes(tally) == expected)
        .await;

    // Withdrawing no vote succeeds, and `subscribed` contains the user's own vote.
    let ack = voters[1].vote(voting, None).await;
    assert_eq!(ack["movie"], Value::Null);
    let subscribed = voters[0].subscribe(session).await;
    assert_eq!(subscribed["votings"][0]["mine"], json!(movies[2]));
    assert_eq!(votes(&subscribed["votings"][0]), expected);
}

#[tokio::test]
async fn an_anonymous_viewer_reads_and_may_not_write() {
    let (db, gateway, session) = stage().await;
    let sam = db.user("ann").await;
    let movies = db.movies(1).await;
    let voting = db.voting(session, &movies, "").await;
    let mut client = Client::anonymous(gateway.at).await;
    let subscribed = client.subscribe(session).await;
    let can = json!({"send": false, "vote": false, "moderate": false});
    assert_eq!(subscribed["can"], can);

    refused(client.try_send(session, "let me in").await, "forbidden");
    refused(client.try_vote(voting, Some(movies[0])).await, "forbidden");

    db.say(session, &sam, "hello").await;
    client.has_the_whole_log(&db, session).await;
    assert_eq!(
        db.one::<i64>("select count(*) from public.chat_messages")
            .await,
        1
    );
}

#[tokio::test]
async fn a_rolled_back_row_burns_no_number_and_shows_nothing() {
    let (db, gateway, session) = stage().await;
    let ann = db.user("ann").await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    let insert = |body: &str| {
        format!(
            "insert into public.chat_messages (session_id, user_id, body) values ('{session}', '{}', '{body}')",
            ann.id
        )
    };

    db.run(&format!(
        "begin; {}; {}; rollback",
        insert("never"),
        insert("ever")
    ))
    .await;
    db.run(&format!(
        "begin; savepoint s; {}; rollback to s; {}; commit",
        insert("never"),
        insert("kept")
    ))
    .await;

    let event = client.event(session, 1).await;
    assert_eq!(event["data"]["body"], "kept");
    client.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn nothing_is_shown_or_acknowledged_before_it_is_committed() {
    let (db, gateway, session) = stage().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let mut author = Client::connect(gateway.at, &ann).await;
    let mut viewer = Client::connect(gateway.at, &ben).await;
    viewer.subscribe(session).await;
    author.subscribe(session).await;
    // A writer who holds the log's next number and does not commit.
    let writer = crate::database::connect(&db.url).await;
    writer.batch_execute("begin").await.unwrap();
    crate::database::say(&writer, session, &ben, "first").await;
    // The number is taken until the commit; no other writer may take it.
    let lock = format!("select from usher.session_heads where session_id = '{session}' for update");
    writer.batch_execute(&lock).await.unwrap();

    author
        .say(&json!({"type": "send", "id": "s", "session": session, "body": "second"}))
        .await;
    db.until(
        "exists (select from pg_stat_activity where usename = 'usher_gateway' and wait_event_type = 'Lock'
            and datname = current_database())",
    )
    .await;
    author.has_nothing(&["ack", "events"]).await;
    viewer.has_nothing(&["events"]).await;

    writer.batch_execute("commit").await.unwrap();
    assert_eq!(author.expect("ack").await["seq"], 2);
    for client in [&mut author, &mut viewer] {
        assert_eq!(client.event(session, 1).await["data"]["body"], "first");
        client.has_the_whole_log(&db, session).await;
    }
}

#[tokio::test]
async fn several_sessions_on_one_socket_do_not_mix() {
    let (db, gateway, first) = stage().await;
    let ann = db.user("ann").await;
    let second = db.session(&ann).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(first).await;
    client.subscribe(second).await;

    for _ in 0..5 {
        db.say(first, &ann, "in the first").await;
        db.say(second, &ann, "in the second").await;
    }
    client.has_the_whole_log(&db, first).await;
    client.has_the_whole_log(&db, second).await;

    // After an unsubscribe its events stop and the other's go on.
    let answer = client
        .ask(json!({"type": "unsubscribe", "session": first}))
        .await;
    client.check_kind(&answer, "unsubscribed");
    assert_eq!(answer["session"], json!(first));
    client.take("events");
    db.say(first, &ann, "nobody hears").await;
    db.say(second, &ann, "somebody hears").await;
    client.has_the_whole_log(&db, second).await;
    assert_eq!(client.seq(first), 5);

    // And it can be had again.
    client.subscribe(first).await;
    client.has_the_whole_log(&db, first).await;
}

#[tokio::test]
async fn a_second_subscribe_starts_over() {
    let (db, gateway, session) = stage().await;
    let ann = db.user("ann").await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    for _ in 0..3 {
        db.say(session, &ann, "hello").await;
    }
    client.event(session, 3).await;
    let subscribed = client.subscribe(session).await;
    assert_eq!(
        (&subscribed["seq"], &subscribed["viewers"]),
        (&json!(0), &json!(1))
    );
    client.event(session, 3).await;
    db.say(session, &ann, "once").await;
    client.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn the_hundred_and_first_subscription_is_refused() {
    let (db, gateway, session) = stage().await;
    let ann = db.user("ann").await;
    let mut client = Client::connect(gateway.at, &ann).await;
    let mut sessions = vec![session];
    while sessions.len() < 101 {
        sessions.push(db.session(&ann).await);
    }
    for session in &sessions[..100] {
        client.subscribe(*session).await;
    }
    let frame = json!({"type": "subscribe", "session": sessions[100]});
    refused(client.ask(frame).await, "bad_request");
    // One that is there already may be asked for again.
    client.subscribe(sessions[99]).await;
    client
        .ask(json!({"type": "unsubscribe", "session": sessions[0]}))
        .await;
    client.subscribe(sessions[100]).await;
    db.say(sessions[100], &ann, "hello").await;
    client.has_the_whole_log(&db, sessions[100]).await;
}

#[tokio::test]
async fn viewers_are_counted() {
    let (db, gateway, session) = stage().await;
    let ann = db.user("ann").await;
    let mut first = Client::connect(gateway.at, &ann).await;
    assert_eq!(first.subscribe(session).await["viewers"], 1);
    let mut second = Client::anonymous(gateway.at).await;
    assert_eq!(second.subscribe(session).await["viewers"], 2);
    first
        .expect_where("viewers", |viewers| viewers["count"] == 2)
        .await;

    drop(second);
    first
        .expect_where("viewers", |viewers| viewers["count"] == 1)
        .await;
}

/// A database with a live session, and a gateway in front of it.
async fn stage() -> (Database, Gateway, Uuid) {
    let db = Database::create().await;
    let sam = db.user("sam").await;
    let session = db.session(&sam).await;
    let gateway = Gateway::start(&db, |_| {}).await;
    (db, gateway, session)
}

fn quoted(text: &Value) -> String {
    format!("'{}'", text.as_str().unwrap())
}

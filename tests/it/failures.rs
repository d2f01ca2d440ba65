//! Proves that no event is lost when the gateway, the LISTEN connection or Postgres itself fails.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::client::{Client, refused, until};
use crate::database::{self, Database, User};
use crate::gateway::{Gateway, Process};
use crate::http::{get, metric};
use crate::stage::Stage;
use usher_devdb::cluster::{Cluster, ClusterOptions, StopMode};

const ANYWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

#[tokio::test]
async fn a_killed_gateway_restarts_and_no_event_is_missing() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let session = db.session(&ann).await;
    let mut gateway = Process::serve(&db, ANYWHERE).await;
    let at = gateway.at;
    let mut clients = [Client::connect(at, &ann).await, Client::anonymous(at).await];
    for client in &mut clients {
        client.subscribe(session).await;
    }
    let writer = Writer::start(&db, session, &ben);

    for round in 0..3 {
        let seen = clients[0].seq(session);
        for client in &mut clients {
            client.event(session, seen + 5).await;
        }
        gateway.kill();
        for client in &mut clients {
            assert_eq!(client.closed().await, 1006);
        }
        gateway = Process::serve(&db, at).await;
        let mut back = Vec::new();
        for client in clients {
            let mut client = client.reconnect(at).await;
            let subscribed = client.resume(session).await;
            assert_eq!(subscribed["recovered"], true, "round {round}");
            back.push(client);
        }
        clients = back.try_into().ok().unwrap();
        clients[0].send(session, &format!("round {round}")).await;
    }

    writer.stop().await;
    for client in &mut clients {
        client.has_the_whole_log(&db, session).await;
    }
}

#[tokio::test]
async fn a_signal_tells_clients_to_come_back_and_ends_the_process_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let db = Database::create().await;
        let ann = db.user("ann").await;
        let session = db.session(&ann).await;
        let gateway = Process::serve(&db, ANYWHERE).await;
        let at = gateway.at;
        let mut client = Client::connect(at, &ann).await;
        client.subscribe(session).await;
        client.send(session, "before").await;

        let ended = tokio::task::spawn_blocking(move || gateway.end(signal));
        let reconnect = client.expect("reconnect").await;
        assert_eq!(reconnect["reason"], "draining");
        assert_eq!(client.closed().await, 1012);
        assert_eq!(ended.await.unwrap(), Some(0));

        db.say(session, &ann, "while it was away").await;
        let _again = Process::serve(&db, at).await;
        let mut client = client.reconnect(at).await;
        assert_eq!(client.resume(session).await["recovered"], true);
        client.has_the_whole_log(&db, session).await;
    }
}

#[tokio::test]
async fn a_lost_listen_connection_loses_nothing_and_doubles_nothing() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let session = db.session(&ann).await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    let mut voter = Client::connect(gateway.at, &ben).await;
    let writer = Writer::start(&db, session, &ben);

    for round in 1..=3 {
        client.event(session, client.seq(session) + 5).await;
        // The second time everything that the gateway holds goes.
        let which = if round == 2 {
            "true"
        } else {
            "query = 'select usher.epoch(), (usher.channel_names()).*'"
        };
        let ended: i64 = db
            .one(&format!(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity
                 where usename = 'usher_gateway' and datname = current_database() and {which}"
            ))
            .await;
        assert!(ended >= 1);
        // The gateway gets no notification of this vote, nor of the writer's messages meanwhile.
        db.run(&format!(
            "insert into public.votes (voting_session_id, user_id, movie_id) values ('{voting}', '{}', '{}')
             on conflict (voting_session_id, user_id) do update set movie_id = excluded.movie_id",
            ann.id, movies[round % 2]
        ))
        .await;
        until("the gateway listens again", async || {
            metric(gateway.at, "usher_listen_losses_total").await >= round as f64
                && get(gateway.at, "/readyz", &[]).await.status == 200
        })
        .await;
        voter.send(session, "after the loss").await;
        let expected = db.count_votes(voting).await;
        client
            .expect_where("tally", |tally| crate::client::votes(tally) == expected)
            .await;
    }

    writer.stop().await;
    client.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn a_hint_that_is_lost_or_doubled_is_noticed_by_its_number() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    db.say(session, &ann, "first").await;
    client.event(session, 1).await;

    for seq in [2, 4, 6] {
        // An event in the log without a notification.
        db.run(&format!(
            "update usher.session_heads set seq = {seq} where session_id = '{session}';
             insert into usher.session_events (session_id, seq, type, at, data)
             values ('{session}', {seq}, 'chat.created', now(), '{{\"body\":\"untold\"}}')"
        ))
        .await;
        if seq == 4 {
            // And one with two late notifications.
            db.run(&format!(
                "select pg_notify((select events from usher.channels), '{{\"s\":\"{session}\",\"q\":1,\"e\":' || usher.wire_event(seq, type, at, data) || '}}')
                 from usher.session_events where session_id = '{session}' and seq = 1"
            ))
            .await;
        }
        db.say(session, &ann, "told").await;
        client.has_the_whole_log(&db, session).await;
    }
    // Hints about unknown sessions, and texts that are not hints.
    for payload in [
        "",
        "nonsense",
        "{}",
        "[]",
        "{\"s\":\"nonsense\",\"q\":-1}",
        "{\"s\":7}",
    ] {
        for kind in ["events", "votes", "control"] {
            let channel = db.channel(kind).await;
            db.run(&format!("select pg_notify('{channel}', '{payload}')"))
                .await;
        }
    }
    db.run(&format!(
        "select pg_notify((select events from usher.channels), '{{\"s\":\"{session}\",\"q\":99}}')"
    ))
    .await;
    db.say(session, &ann, "last").await;
    client.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn counts_that_changed_during_a_listen_outage_are_sent() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let movies = db.movies(2).await;
    let mut viewers = Vec::new();
    for _ in 0..2 {
        let session = db.session(&ann).await;
        let voting = db.voting(session, &movies, "").await;
        let mut client = Client::anonymous(gateway.at).await;
        client.subscribe(session).await;
        viewers.push((client, session, voting));
    }
    // The cached state of the second session is out of date.
    let (client, session, _) = &mut viewers[1];
    db.set_session(*session, "title = 'Another title'").await;
    client.event(*session, 2).await;

    deafen(&db, &gateway).await;
    for (_, _, voting) in &viewers {
        let vote =
            "insert into public.votes (voting_session_id, user_id, movie_id) values ($1, $2, $3)";
        db.client
            .execute(vote, &[voting, &ann.id, &movies[1]])
            .await
            .unwrap();
    }
    let name: String = db.one("select current_database()").await;
    db.run(&format!("alter database {name} connection limit -1"))
        .await;

    for (client, session, voting) in &mut viewers {
        let voting = json!(voting);
        let is_told = |tally: &Value| tally["voting"] == voting && tally["total"] == 1;
        client.expect_where("tally", is_told).await;
        client.has_the_whole_log(&db, *session).await;
    }
}

#[tokio::test]
async fn counts_of_a_poll_opened_during_a_listen_outage_are_sent() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let movies = db.movies(2).await;
    let session = db.session(&ann).await;
    let mut client = Client::anonymous(gateway.at).await;
    client.subscribe(session).await;

    deafen(&db, &gateway).await;
    let voting = db.voting(session, &movies, "").await;
    let vote =
        "insert into public.votes (voting_session_id, user_id, movie_id) values ($1, $2, $3)";
    db.client
        .execute(vote, &[&voting, &ann.id, &movies[1]])
        .await
        .unwrap();
    let name: String = db.one("select current_database()").await;
    db.run(&format!("alter database {name} connection limit -1"))
        .await;

    let voting = json!(voting);
    let is_told = |tally: &Value| tally["voting"] == voting && tally["total"] == 1;
    client.expect_where("tally", is_told).await;
    client.has_the_whole_log(&db, session).await;
}

#[tokio::test]
async fn clients_stay_connected_while_postgres_is_away_and_catch_up() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let mut db = Database::create_in(&cluster).await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let session = db.session(&ann).await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;

    for mode in [StopMode::Fast, StopMode::Crash] {
        client.send(session, "before").await;
        cluster.stop_server(mode).await.unwrap();
        until("the gateway is not ready", async || {
            let answer = get(gateway.at, "/readyz", &[]).await;
            let json = answer.json();
            answer.status == 503 && json["ready"] == false && json["checks"]["listen"] == false
        })
        .await;
        assert_eq!(get(gateway.at, "/healthz", &[]).await.status, 200);
        let mut newcomer = Client::connect(gateway.at, &ben).await;
        let mut answer = Value::Null;
        // What a crash leaves of the server answers until it notices.
        until("the last of the server is gone", async || {
            answer = newcomer.try_subscribe(session).await;
            answer["type"] == "error"
        })
        .await;
        let refusal = refused(answer, "unavailable");
        assert!(refusal["retry_after_ms"].as_u64().is_some(), "{refusal}");
        // A write waits for a while, and is done once.
        let nonce = Uuid::new_v4();
        let message = json!({"type": "send", "id": "w", "session": session, "body": "meanwhile", "nonce": nonce});
        client.say(&message).await;

        cluster.start_server().await.unwrap();
        db.reconnect().await;
        let ack = client.expect("ack").await;
        assert_eq!(ack["id"], "w");
        db.say(session, &ben, "after").await;
        client.has_the_whole_log(&db, session).await;
        until("the gateway is ready", async || {
            get(gateway.at, "/readyz", &[]).await.status == 200
        })
        .await;
        newcomer.subscribe(session).await;
        newcomer.has_the_whole_log(&db, session).await;
    }
    drop(gateway);
    cluster.stop().await;
}

#[tokio::test]
async fn an_incident_is_told_in_a_few_lines_however_many_watch() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let mut db = Database::create_in(&cluster).await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let gateway = Process::serve(&db, ANYWHERE).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = Client::connect(gateway.at, &ann).await;
        client.subscribe(session).await;
        clients.push(client);
    }
    gateway.lines();

    cluster.stop_server(StopMode::Fast).await.unwrap();
    until("the gateway is not ready", async || {
        get(gateway.at, "/readyz", &[]).await.status == 503
    })
    .await;
    cluster.start_server().await.unwrap();
    db.reconnect().await;
    db.say(session, &ann, "after").await;
    for client in &mut clients {
        client.has_the_whole_log(&db, session).await;
    }

    let lines: Vec<Value> = gateway
        .lines()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told = |message: &str| {
        let is_it = |line: &&Value| line["message"] == message;
        lines.iter().filter(is_it).count()
    };
    // That it was lost, and that it cannot be had again.
    let losses = told("not listening, trying again");
    assert!((1..=2).contains(&losses), "{lines:#?}");
    assert_eq!(told("listening"), 1, "{lines:#?}");
    let listening = lines.iter().find(|line| line["message"] == "listening");
    assert!(listening.unwrap()["away_ms"].is_u64(), "{lines:#?}");
    assert!(lines.len() <= 5, "{lines:#?}");
    drop(gateway);
    cluster.stop().await;
}

#[tokio::test]
async fn each_reason_for_not_listening_is_told_once() {
    let db = Database::create().await;
    let nobody = TcpListener::bind(ANYWHERE).await.unwrap();
    let url = format!(
        "postgres://usher_gateway:no@{}/postgres?sslmode=disable",
        nobody.local_addr().unwrap()
    );
    let settings = [
        ("USHER_LISTEN_DATABASE_URL", url.as_str()),
        ("SUPABASE_JWT_SECRET", database::JWT_SECRET),
    ];
    let gateway = Process::start(&db, ANYWHERE, &settings).await;
    // A server that hangs up, three times, and then one that hears nothing.
    for _ in 0..3 {
        drop(nobody.accept().await.unwrap());
    }
    let mut losses = Vec::new();
    until("the log states another reason", async || {
        let is_loss = |line: &String| line.contains("not listening, trying again");
        losses.extend(gateway.lines().into_iter().filter(is_loss));
        losses.len() == 2
    })
    .await;
    assert!(losses[1].contains("no answer within"), "{losses:#?}");
}

#[tokio::test]
async fn a_gateway_that_starts_before_postgres_serves_when_it_comes() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let mut db = Database::create_in(&cluster).await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    cluster.stop_server(StopMode::Fast).await.unwrap();

    let starting = Gateway::start(&db, |_| {});
    let coming_back = async {
        // The length of the outage.
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.start_server().await.unwrap();
    };
    let (gateway, ()) = tokio::join!(starting, coming_back);

    db.reconnect().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    client.send(session, "here").await;
    client.has_the_whole_log(&db, session).await;
    drop(gateway);
    cluster.stop().await;
}

/// Takes the LISTEN connection away, and keeps it away until the database lets connections in again.
async fn deafen(db: &Database, gateway: &Gateway) {
    let name: String = db.one("select current_database()").await;
    db.run(&format!("alter database {name} connection limit 0"))
        .await;
    let ended: i64 = db
        .one(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where usename = 'usher_gateway' and datname = current_database() and query = 'select usher.epoch(), (usher.channel_names()).*'",
        )
        .await;
    assert_eq!(ended, 1);
    until("the gateway knows", async || {
        metric(gateway.at, "usher_listening").await == 0.0
    })
    .await;
}

/// Writes over its own connection until the test stops it.
struct Writer {
    stop: watch::Sender<bool>,
    writing: JoinHandle<()>,
}

impl Writer {
    fn start(db: &Database, session: Uuid, author: &User) -> Self {
        let (stop, is_stopped) = watch::channel(false);
        let (url, author) = (db.url.clone(), author.clone());
        let writing = tokio::spawn(async move {
            let client = database::connect(&url).await;
            let mut written = 0;
            while !*is_stopped.borrow() {
                written += 1;
                database::say(&client, session, &author, &format!("written {written}")).await;
                // A pace, so that the log does not outgrow the test.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { stop, writing }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.writing.await.unwrap();
    }
}

//! Proves Server-Sent Events as a browser's EventSource receives them. The client checks every event number.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use crate::client::{Client, PATIENCE, until};
use crate::database::{Database, User, token};
use crate::gateway::{Gateway, Process};
use crate::http::{Answer, call, get, metric, read_chunk, read_head};
use crate::stage::Stage;

/// One event source. What it has seen it asks for again, as a browser does.
pub(crate) struct Source {
    socket: TcpStream,
    unread: String,
    last_id: Option<String>,
    retry_ms: Option<u64>,
    comments: usize,
    has_epochs: bool,
}

impl Source {
    /// Opens a stream that must begin.
    pub(crate) async fn open(
        at: SocketAddr,
        path: &str,
        user: Option<&User>,
        last_id: Option<&str>,
    ) -> Self {
        let mut socket = TcpStream::connect(at).await.unwrap();
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nAccept-Encoding: gzip\r\n");
        if let Some(user) = user {
            request.push_str(&format!("Authorization: Bearer {}\r\n", user.token));
        }
        if let Some(id) = last_id {
            request.push_str(&format!("Last-Event-ID: {id}\r\n"));
        }
        socket
            .write_all(format!("{request}\r\n").as_bytes())
            .await
            .unwrap();
        let (status, headers) = timeout(PATIENCE, read_head(&mut socket)).await.unwrap();
        assert_eq!(status, 200, "{headers:?}");
        assert_eq!(headers["content-type"], "text/event-stream");
        assert_eq!(headers["cache-control"], "no-store");
        assert!(!headers.contains_key("content-encoding"), "{headers:?}");
        Self {
            socket,
            unread: String::new(),
            last_id: last_id.map(str::to_owned),
            retry_ms: None,
            comments: 0,
            has_epochs: path.contains("ids=epoch"),
        }
    }

    /// The next frame; `None` at the end of the stream.
    pub(crate) async fn frame(&mut self) -> Option<Value> {
        let read = async {
            loop {
                while let Some((block, rest)) = self.unread.split_once("\n\n") {
                    let (block, rest) = (block.to_owned(), rest.to_owned());
                    self.unread = rest;
                    if let Some(frame) = self.dispatch(&block) {
                        return Some(frame);
                    }
                }
                let chunk = read_chunk(&mut self.socket).await?;
                self.unread.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        };
        timeout(PATIENCE, read).await.expect("nothing comes")
    }

    fn dispatch(&mut self, block: &str) -> Option<Value> {
        let mut data = Vec::new();
        for line in block.lines() {
            match line.split_once(':').expect("a field or a comment") {
                ("", _) => self.comments += 1,
                ("id", id) => self.last_id = Some(id.trim().to_owned()),
                ("retry", ms) => self.retry_ms = Some(ms.trim().parse().unwrap()),
                ("data", text) => data.push(text),
                other => panic!("an unknown field {other:?}"),
            }
        }
        let frame: Value = serde_json::from_str(&data.join("\n")).ok()?;
        if frame["type"] == "events" {
            let newest = frame["events"].as_array().unwrap().last().unwrap()["seq"].to_string();
            let last_id = self.last_id.as_deref().unwrap();
            let seq = last_id.split('@').next().unwrap();
            assert_eq!(seq, newest);
            assert_eq!(last_id != newest, self.has_epochs, "{last_id}");
        }
        Some(frame)
    }

    async fn expect(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.frame().await;
            let frame = frame.unwrap_or_else(|| panic!("the stream ended before {kind}"));
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// The events after a number, up to another, which must be consecutive.
    async fn events(&mut self, after: u64, to: u64) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < usize::try_from(to - after).unwrap() {
            let frame = self.expect("events").await;
            events.extend(frame["events"].as_array().unwrap().clone());
        }
        let numbers: Vec<u64> = events
            .iter()
            .map(|event| event["seq"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers, (after + 1..=to).collect::<Vec<_>>());
        events
    }

    /// Waits until the stream ends, and returns its last frames.
    async fn rest(&mut self) -> Vec<Value> {
        let mut frames = Vec::new();
        while let Some(frame) = self.frame().await {
            frames.push(frame);
        }
        frames
    }
}

fn path(session: Uuid) -> String {
    format!("/v1/sessions/{session}/stream")
}

async fn refused(at: SocketAddr, path: &str, user: &User) -> Answer {
    get(at, &format!("{path}?access_token={}", user.token), &[]).await
}

#[tokio::test]
async fn a_stream_has_the_frames_of_the_socket() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let session = db.session(&ann).await;
    let movies = db.movies(2).await;
    db.say(session, &ann, "before").await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut source = Source::open(gateway.at, &path(session), Some(&ben), None).await;
    let mut socket = Client::connect(gateway.at, &ben).await;
    let mut theirs = socket.subscribe(session).await;

    let mut ours = source.frame().await.unwrap();
    assert_eq!(ours["type"], "subscribed");
    assert_eq!(source.last_id.as_deref(), Some("0"));
    assert!(
        source
            .retry_ms
            .is_some_and(|ms| (1_000..4_000).contains(&ms))
    );
    for frame in [&mut ours, &mut theirs] {
        for own in ["id", "resume_token", "viewers"] {
            frame.as_object_mut().unwrap().remove(own);
        }
    }
    assert_eq!(ours, theirs);
    assert_eq!(source.events(0, 1).await, db.log(session).await);

    db.say(session, &ann, "line\nbreak \u{2028} and 🎬").await;
    let voting = db.voting(session, &movies, "").await;
    socket.vote(voting, Some(movies[0])).await;
    let tally = source.expect("tally").await;
    assert_eq!(
        (&tally["voting"], &tally["session"]),
        (&json!(voting), &json!(session))
    );
    db.ban(session, &ben, "now() + interval '1 hour'").await;
    assert_eq!(source.expect("access").await["can"]["send"], false);
    source.expect("viewers").await;
    assert_eq!(metric(gateway.at, "usher_connections").await, 2.0);
    drop(source);
    until("a client that leaves is noticed", async || {
        metric(gateway.at, "usher_connections").await == 1.0
    })
    .await;
}

#[tokio::test]
async fn a_stream_resumed_with_the_last_id_misses_nothing_even_after_a_crash() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let mut gateway = Process::serve(&db, ([127, 0, 0, 1], 0).into()).await;
    let at = gateway.at;
    let mut source = Source::open(at, &path(session), None, None).await;
    for number in 0..5 {
        db.say(session, &ann, &format!("message {number}")).await;
    }
    source.events(0, 5).await;
    for round in 0..2 {
        gateway.kill();
        assert!(
            source
                .rest()
                .await
                .iter()
                .all(|frame| frame["type"] != "events")
        );
        let seen: u64 = source.last_id.as_ref().unwrap().parse().unwrap();
        for number in 0..300 {
            db.say(session, &ann, &format!("while it was away {number}"))
                .await;
        }
        gateway = Process::serve(&db, at).await;
        source = Source::open(at, &path(session), None, source.last_id.as_deref()).await;
        let subscribed = source.frame().await.unwrap();
        assert_eq!(
            (&subscribed["recovered"], &subscribed["seq"]),
            (&json!(true), &json!(seen))
        );
        db.say(session, &ann, "and on").await;
        source.events(seen, seen + 301).await;
        assert_eq!(seen + 301, 5 + 301 * (round + 1));
    }
    // In a query too, and with an epoch; another epoch is a fresh start.
    let last = source.last_id.clone().unwrap();
    let asked = format!("{}?after=3&epoch=another&history=2", path(session));
    let mut other = Source::open(at, &asked, None, None).await;
    let subscribed = other.frame().await.unwrap();
    assert_eq!(
        (&subscribed["recovered"], &subscribed["reason"]),
        (&json!(false), &json!("ahead"))
    );
    let mut other =
        Source::open(at, &format!("{}?after=3", path(session)), None, Some(&last)).await;
    assert_eq!(other.frame().await.unwrap()["seq"].to_string(), last);
    let mut other = Source::open(at, &format!("{}?history=2", path(session)), None, None).await;
    assert_eq!(other.frame().await.unwrap()["seq"], 605);
}

#[tokio::test]
async fn the_last_id_names_the_epoch_where_the_page_asks_for_it() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    for number in 0..3 {
        db.say(session, &ann, &format!("message {number}")).await;
    }
    let gateway = Gateway::start(&db, |_| {}).await;
    let at = gateway.at;
    let path = format!("{}?ids=epoch", path(session));
    let mut source = Source::open(at, &path, None, None).await;
    let epoch = source.expect("subscribed").await["epoch"].clone();
    let epoch = epoch.as_str().unwrap();
    assert_eq!(source.last_id, Some(format!("0@{epoch}")));
    source.events(0, 3).await;
    assert_eq!(source.last_id, Some(format!("3@{epoch}")));
    // What the browser sends when it reconnects, after which the database is another.
    let last = source.last_id.clone();
    let mut source = Source::open(at, &path, None, last.as_deref()).await;
    let again = source.expect("subscribed").await;
    assert_eq!(
        (&again["recovered"], &again["seq"]),
        (&json!(true), &json!(3))
    );
    drop(source);
    drop(gateway);
    db.run("update usher.identity set id = gen_random_uuid()")
        .await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let at = gateway.at;
    db.say(session, &ann, "of the other life").await;
    let mut source = Source::open(at, &path, None, last.as_deref()).await;
    let other = source.expect("subscribed").await;
    assert_eq!(
        (&other["recovered"], &other["reason"], &other["seq"]),
        (&json!(false), &json!("ahead"), &json!(0))
    );
    assert_eq!(
        source.last_id,
        Some(format!("0@{}", other["epoch"].as_str().unwrap()))
    );
    source.events(0, 4).await;
    // A bare number has no epoch to compare. The id wins over the query.
    let mut source = Source::open(at, &path, None, Some("3")).await;
    assert_eq!(source.expect("subscribed").await["recovered"], true);
    let asked = format!("{path}&epoch={}", other["epoch"].as_str().unwrap());
    let mut source = Source::open(at, &asked, None, last.as_deref()).await;
    assert_eq!(source.expect("subscribed").await["recovered"], false);
    for (query, id) in [("?ids=both", "3"), ("", "@"), ("", "x@3"), ("", "-1@e")] {
        let path = format!("{}{query}", crate::stream::path(session));
        get(at, &path, &[("Last-Event-ID", id)])
            .await
            .is_refusal(400, "bad_request");
    }
}

#[tokio::test]
async fn a_stream_that_cannot_begin_is_refused_and_not_opened() {
    let Stage {
        db,
        gateway,
        session,
        ben,
        ..
    } = Stage::adapted(|config| config.connections_max = 2).await;
    let at = gateway.at;
    refused(at, &path(Uuid::new_v4()), &ben)
        .await
        .is_refusal(404, "not_found");
    get(at, &path(session), &[("Last-Event-ID", "x")])
        .await
        .is_refusal(400, "bad_request");
    get(at, &format!("{}?history=201", path(session)), &[])
        .await
        .is_refusal(400, "bad_request");
    get(at, &format!("{}?access_token=x", path(session)), &[])
        .await
        .is_refusal(401, "unauthorized");
    db.ban(session, &ben, "null").await;
    refused(at, &path(session), &ben)
        .await
        .is_refusal(403, "banned");

    // Each takes one permit, and gives it back.
    let first = Source::open(at, &path(session), None, None).await;
    let _second = Source::open(at, &path(session), None, None).await;
    let answer = get(at, &path(session), &[]).await;
    answer.is_refusal(503, "unavailable");
    assert!(answer.headers.contains_key("retry-after"));
    drop(first);
    until("a closed stream frees its place", async || {
        metric(at, "usher_connections").await == 1.0
    })
    .await;
    Source::open(at, &path(session), None, None).await;
}

#[tokio::test]
async fn head_says_whether_a_stream_would_begin_and_opens_none() {
    let Stage {
        gateway, session, ..
    } = Stage::new().await;
    let head = call(gateway.at, "HEAD", &path(session), &[], "").await;
    assert_eq!((head.status, &*head.body), (200, ""));
    assert_eq!(head.headers["content-type"], "text/event-stream");
    let unknown = path(Uuid::new_v4());
    let head = call(gateway.at, "HEAD", &unknown, &[], "").await;
    assert_eq!(head.status, 404);
    let opened = metric(gateway.at, "usher_connections_opened_total").await;
    assert_eq!(opened, 0.0);
}

#[tokio::test]
async fn a_stream_ends_with_its_token_and_with_access() {
    let db = Database::create().await;
    let (ann, ben, mut eve) = (
        db.user("ann").await,
        db.user("ben").await,
        db.user("eve").await,
    );
    let session = db.session(&ann).await;
    let gateway = Gateway::start(&db, |_| {}).await;
    eve.token = token(eve.id, Duration::from_secs(3));
    let mut expiring = Source::open(gateway.at, &path(session), Some(&eve), None).await;
    let mut banned = Source::open(gateway.at, &path(session), Some(&ben), None).await;
    banned.expect("subscribed").await;
    db.ban(session, &ben, "null").await;
    let rest = banned.rest().await;
    let last = rest.last().unwrap();
    assert_eq!(
        (&last["type"], &last["reason"]),
        (&json!("unsubscribed"), &json!("banned"))
    );
    refused(gateway.at, &path(session), &ben)
        .await
        .is_refusal(403, "banned");

    let rest = expiring.rest().await;
    assert!(
        rest.iter().any(|frame| frame["type"] == "token_expiring"),
        "{rest:?}"
    );
    refused(gateway.at, &path(session), &eve)
        .await
        .is_refusal(401, "unauthorized");
}

#[tokio::test]
async fn a_stopping_gateway_tells_its_streams_when_to_reconnect() {
    let Stage {
        gateway, session, ..
    } = Stage::new().await;
    let mut source = Source::open(gateway.at, &path(session), None, None).await;
    source.expect("subscribed").await;
    gateway.begin_stop();
    let reconnect = source.expect("reconnect").await;
    assert_eq!(source.retry_ms, reconnect["after_ms"].as_u64());
    assert!(source.rest().await.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn a_stream_shows_signs_of_life_and_outlives_plain_connections() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::adapted(|config| config.heartbeat = Duration::from_secs(1)).await;
    let mut source = Source::open(gateway.at, &path(session), None, None).await;
    source.expect("subscribed").await;
    // Three heartbeats without a pong would close it.
    tokio::time::sleep(Duration::from_secs(4)).await;
    db.say(session, &ann, "still there").await;
    source.events(0, 1).await;
    assert!(source.comments >= 3, "{} signs of life", source.comments);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_bounded_and_then_left() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::adapted(|config| config.heartbeat = Duration::from_secs(1)).await;
    let mut stuck = Source::open(gateway.at, &path(session), None, None).await;
    let mut healthy = Source::open(gateway.at, &path(session), None, None).await;
    stuck.expect("subscribed").await;
    let sql = format!(
        "insert into public.chat_messages (session_id, user_id, body)
         select '{session}', '{}', repeat('x', 2000) from generate_series(1, 4000) n",
        ann.id
    );
    db.run(&sql).await;
    healthy.events(0, 4_000).await;
    until("the slow one is closed", async || {
        metric(gateway.at, "usher_closes_total{kind=\"4008\"}").await >= 1.0
    })
    .await;
    until("the connection is closed", async || {
        metric(gateway.at, "usher_connections").await == 1.0
    })
    .await;
    // The client has the events that were under way, without a gap, and reconnects for the rest.
    let rest = stuck.rest().await;
    let seen: Vec<u64> = rest
        .iter()
        .filter(|frame| frame["type"] == "events")
        .flat_map(|frame| frame["events"].as_array().unwrap().iter())
        .map(|event| event["seq"].as_u64().unwrap())
        .collect();
    let count = u64::try_from(seen.len()).unwrap();
    assert!(count < 4_000, "nothing was held back");
    assert_eq!(seen, (1..=count).collect::<Vec<_>>());
    let mut source = Source::open(gateway.at, &path(session), None, stuck.last_id.as_deref()).await;
    source.events(count, 4_000).await;
}

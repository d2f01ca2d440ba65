//! Proves the HTTP calls: each answer and each error, as a client sees them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use crate::client::{Client, PATIENCE, refused};
use crate::database::{Database, JWT_SECRET, User, sign, token};
use crate::gateway::Gateway;
use crate::http::{Answer, call, exchange, get};
use crate::stage::Stage;
use usher::config::AllowedOrigins;
use usher_core::auth::mint::NewClaims;
use usher_core::limits::FRAME_BYTES_MAX;
use usher_core::protocol::id::{SessionId, UserId};
use usher_devdb::cluster::{Cluster, ClusterOptions, StopMode};

/// A client of the HTTP API.
pub(crate) struct Caller<'a> {
    gateway: &'a Gateway,
    authorization: Option<String>,
}

impl<'a> Caller<'a> {
    pub(crate) fn new(gateway: &'a Gateway, user: &User) -> Self {
        Self {
            gateway,
            authorization: Some(format!("Bearer {}", user.token)),
        }
    }

    pub(crate) fn anonymous(gateway: &'a Gateway) -> Self {
        Self {
            gateway,
            authorization: None,
        }
    }

    async fn call(&self, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Answer {
        let mut headers = more.to_vec();
        if let Some(authorization) = &self.authorization {
            headers.push(("Authorization", authorization));
        }
        call(self.gateway.at, method, path, &headers, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], "").await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        let json = [("Content-Type", "application/json")];
        self.call(method, path, &json, &body.to_string()).await
    }

    async fn post(&self, session: Uuid, body: &str) -> Answer {
        let path = format!("/v1/sessions/{session}/messages");
        self.send("POST", &path, json!({ "body": body })).await
    }
}

/// What an answer is about.
#[track_caller]
pub(crate) fn data(answer: &Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let mut json = answer.json();
    assert_eq!(json.as_object().unwrap().len(), 1, "{json}");
    json["data"].take()
}

#[tokio::test]
async fn the_log_is_paged_and_is_the_same_as_on_the_socket() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let session = db.session(&ann).await;
    for number in 0..7 {
        db.say(session, &ben, &format!("message {number} 🎬 \"quoted\""))
            .await;
    }
    let gateway = Gateway::start(&db, |_| {}).await;
    let caller = Caller::new(&gateway, &ben);
    let path = format!("/v1/sessions/{session}/events");

    let mut seen = Vec::new();
    loop {
        let page = caller
            .get(&format!("{path}?after={}&limit=3", seen.len()))
            .await;
        let page = data(&page, 200);
        assert_eq!((&page["head"], &page["floor"]), (&json!(7), &json!(0)));
        let events = page["events"].as_array().unwrap().clone();
        if events.is_empty() {
            break;
        }
        assert!(events.len() <= 3);
        seen.extend(events);
    }
    assert_eq!(seen, db.log(session).await);
    let mut client = Client::connect(gateway.at, &ben).await;
    let subscribed = client.subscribe(session).await;
    client.has_the_whole_log(&db, session).await;
    let all = data(&Caller::anonymous(&gateway).get(&path).await, 200);
    assert_eq!(all["epoch"], subscribed["epoch"]);
    assert_eq!(all["events"].as_array().unwrap().len(), 7);

    // Beyond the end and below the floor there is nothing, and no hole.
    let beyond = data(&caller.get(&format!("{path}?after=99")).await, 200);
    assert_eq!(
        (&beyond["events"], &beyond["head"]),
        (&json!([]), &json!(7))
    );
    db.run("select usher.trim_logs('1 day', 2, 1000)").await;
    let below = data(&caller.get(&format!("{path}?after=2")).await, 200);
    assert_eq!((&below["events"], &below["floor"]), (&json!([]), &json!(5)));
    let kept = data(&caller.get(&format!("{path}?after=5")).await, 200);
    assert_eq!(kept["events"].as_array().unwrap().len(), 2);
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one chat, read in many ways")]
async fn chat_is_read_back_to_its_beginning_without_what_was_deleted() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let session = db.session(&ann).await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(db.say(session, &ben, &format!("message {number}")).await);
    }
    let deleted = format!(
        "update public.chat_messages set deleted_at = now() where id in ('{}', '{}')",
        ids[3], ids[12]
    );
    db.run(&deleted).await;
    db.run(&format!(
        "update public.chat_messages set body = 'edited' where id = '{}'",
        ids[5]
    ))
    .await;
    // The first ten leave the log. What the log still has begins with the eleventh message.
    db.run("select usher.trim_logs('1 day', 13, 1000)").await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let path = format!("/v1/sessions/{session}/messages");

    for caller in [Caller::new(&gateway, &ben), Caller::anonymous(&gateway)] {
        for limit in [1, 4, 7, 100] {
            let (mut read, mut next) = (Vec::new(), None::<String>);
            loop {
                let before = next.map_or(String::new(), |next| format!("&before={next}"));
                let page = data(
                    &caller.get(&format!("{path}?limit={limit}{before}")).await,
                    200,
                );
                let messages = page["messages"].as_array().unwrap().clone();
                assert!(messages.len() <= limit);
                read.extend(messages);
                next = page["next"].as_str().map(str::to_owned);
                if next.is_none() {
                    break;
                }
            }
            let kept: Vec<&Uuid> = (0..20)
                .rev()
                .filter(|n| ![3, 12].contains(n))
                .map(|n| &ids[n])
                .collect();
            let got: Vec<Uuid> = read
                .iter()
                .map(|message| message["id"].as_str().unwrap().parse().unwrap())
                .collect();
            assert_eq!(got.iter().collect::<Vec<_>>(), kept, "limit {limit}");
            let numbers: Vec<&Value> = read.iter().map(|message| &message["seq"]).collect();
            assert_eq!(numbers[0], 20);
            assert!(
                numbers[numbers.len() - 10..]
                    .iter()
                    .any(|seq| seq.is_null())
            );
        }
    }

    let newest = data(
        &Caller::new(&gateway, &ben)
            .get(&format!("{path}?limit=1"))
            .await,
        200,
    );
    let message = &newest["messages"][0];
    assert_eq!(message["body"], "message 19");
    assert_eq!(message["author"]["username"], "ben");
    assert_eq!(
        (&message["deleted_at"], &message["user_id"]),
        (&Value::Null, &json!(ben.id))
    );
    let log = db.log(session).await;
    let created = log
        .iter()
        .find(|event| event["data"]["id"] == message["id"])
        .unwrap();
    assert_eq!(created["data"]["created_at"], message["created_at"]);
    let before = data(
        &Caller::new(&gateway, &ben)
            .get(&format!("{path}?before=20&limit=2"))
            .await,
        200,
    );
    assert_eq!(
        (&before["messages"][0]["seq"], &before["next"]),
        (&json!(19), &json!("18"))
    );
}

#[tokio::test]
async fn a_message_is_written_once_for_its_key() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ben,
    } = Stage::new().await;
    let caller = Caller::new(&gateway, &ben);
    let path = format!("/v1/sessions/{session}/messages");
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;

    let key = Uuid::new_v4().to_string();
    let headers = [
        ("Content-Type", "application/json; charset=utf-8"),
        ("Idempotency-Key", &*key),
    ];
    let body = json!({"body": "hello", "unknown": [1]}).to_string();
    let first = data(&caller.call("POST", &path, &headers, &body).await, 201);
    let event = client.event(session, first["seq"].as_u64().unwrap()).await;
    assert_eq!(
        (&event["data"]["id"], &event["data"]["body"]),
        (&first["message"], &json!("hello"))
    );
    let again = data(&caller.call("POST", &path, &headers, &body).await, 200);
    assert_eq!(again, first);
    assert_eq!(db.head(session).await, 1);

    // The same key on the socket is the same message.
    let mut socket = Client::connect(gateway.at, &ben).await;
    let send = json!({"type": "send", "session": session, "body": "hello", "nonce": key});
    assert_eq!(socket.ask(send).await["message"], first["message"]);

    let reply = json!({"body": "and hello", "reply_to": first["message"]});
    data(&caller.send("POST", &path, reply).await, 201);
    data(&caller.post(session, "without a key").await, 201);
    data(&caller.post(session, "without a key").await, 201);
    assert_eq!(db.head(session).await, 4);

    let headers = [
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "seven"),
    ];
    let answer = caller.call("POST", &path, &headers, &body).await;
    answer.is_refusal(400, "bad_request");
    assert!(answer.body.contains("Idempotency-Key"), "{answer:?}");
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "the life of one poll")]
async fn votes_are_cast_and_withdrawn_and_counts_are_shown_to_those_who_may_see_them() {
    let db = Database::create().await;
    let (ann, ben, eve) = (
        db.user("ann").await,
        db.user("ben").await,
        db.user("eve").await,
    );
    let session = db.session(&ann).await;
    let movies = db.movies(2).await;
    let voting = db
        .voting(session, &movies, "results_visibility = 'after_close'")
        .await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let (streamer, viewer) = (Caller::new(&gateway, &ann), Caller::new(&gateway, &ben));
    let (vote, tally) = (
        format!("/v1/votings/{voting}/vote"),
        format!("/v1/votings/{voting}/tally"),
    );

    let done = data(
        &viewer.send("PUT", &vote, json!({"movie": movies[0]})).await,
        200,
    );
    assert_eq!(done, json!({"voting": voting, "movie": movies[0]}));
    data(
        &viewer.send("PUT", &vote, json!({"movie": movies[1]})).await,
        200,
    );
    data(
        &streamer
            .send("PUT", &vote, json!({"movie": movies[0]}))
            .await,
        200,
    );
    assert_eq!(db.count_votes(voting).await.len(), 2);

    let hidden = data(&viewer.get(&tally).await, 200);
    assert_eq!(
        (&hidden["type"], &hidden["total"], &hidden["counts"]),
        (&json!("tally"), &json!(2), &Value::Null)
    );
    let shown = data(&streamer.get(&tally).await, 200);
    assert_eq!(shown["counts"].as_array().unwrap().len(), 2);

    let done = data(&viewer.call("DELETE", &vote, &[], "").await, 200);
    assert_eq!(done, json!({"voting": voting, "movie": null}));
    data(&viewer.call("DELETE", &vote, &[], "").await, 200);
    data(
        &streamer.send("PUT", &vote, json!({"movie": null})).await,
        200,
    );
    assert_eq!(db.count_votes(voting).await, vec![]);

    viewer
        .send("PUT", &vote, json!({"movie": Uuid::new_v4()}))
        .await
        .is_refusal(400, "bad_request");
    db.set_voting(voting, "allow_change = false").await;
    data(
        &viewer.send("PUT", &vote, json!({"movie": movies[0]})).await,
        200,
    );
    viewer
        .send("PUT", &vote, json!({"movie": movies[1]}))
        .await
        .is_refusal(409, "conflict");
    db.set_voting(voting, "state = 'closed'").await;
    viewer
        .send("PUT", &vote, json!({"movie": movies[1]}))
        .await
        .is_refusal(409, "voting_closed");
    let open = data(&Caller::anonymous(&gateway).get(&tally).await, 200);
    assert_eq!(open["counts"].as_array().unwrap().len(), 2);

    // The tally of a draft is `not_found`, also for the streamer, and that of a private session for other users.
    let draft = db.draft(session, &movies, "").await;
    streamer
        .get(&format!("/v1/votings/{draft}/tally"))
        .await
        .is_refusal(404, "not_found");
    db.set_session(session, "visibility = 'private'").await;
    Caller::new(&gateway, &eve)
        .get(&tally)
        .await
        .is_refusal(404, "not_found");
}

#[tokio::test]
async fn each_database_error_has_its_code_and_status() {
    let Stage {
        db,
        gateway,
        session,
        ben,
        ..
    } = Stage::new().await;
    let (viewer, nobody) = (Caller::new(&gateway, &ben), Caller::anonymous(&gateway));
    let events = format!("/v1/sessions/{session}/events");
    let messages = format!("/v1/sessions/{session}/messages");

    viewer
        .post(session, "")
        .await
        .is_refusal(400, "bad_request");
    viewer
        .post(session, &"x".repeat(2_001))
        .await
        .is_refusal(413, "too_large");
    viewer
        .post(Uuid::new_v4(), "hello")
        .await
        .is_refusal(404, "not_found");
    let reply = json!({"body": "x", "reply_to": Uuid::new_v4()});
    viewer
        .send("POST", &messages, reply)
        .await
        .is_refusal(400, "bad_request");
    nobody
        .post(session, "hello")
        .await
        .is_refusal(401, "unauthorized");

    db.set_session(session, "slow_mode_seconds = 60").await;
    data(&viewer.post(session, "one").await, 201);
    let answer = viewer.post(session, "two").await;
    answer.is_refusal(429, "slow_mode");
    let seconds: u64 = answer.headers["retry-after"].parse().unwrap();
    assert!((1..=60).contains(&seconds), "{answer:?}");
    assert!(answer.json()["error"]["retry_after_ms"].as_u64().unwrap() > 1_000 * (seconds - 1));
    db.set_session(session, "slow_mode_seconds = 0, chat_enabled = false")
        .await;
    viewer
        .post(session, "three")
        .await
        .is_refusal(403, "forbidden");
    db.set_session(session, "chat_enabled = true").await;

    db.ban(session, &ben, "now() + interval '1 hour'").await;
    viewer
        .post(session, "three")
        .await
        .is_refusal(403, "banned");
    data(&viewer.get(&events).await, 200);
    db.ban(session, &ben, "null").await;
    viewer.get(&events).await.is_refusal(403, "banned");
    viewer.get(&messages).await.is_refusal(403, "banned");

    db.set_session(session, "visibility = 'private'").await;
    nobody.get(&events).await.is_refusal(404, "not_found");
    nobody.get(&messages).await.is_refusal(404, "not_found");
    db.set_session(session, "visibility = 'public', status = 'ended'")
        .await;
    Caller::new(&gateway, &db.user("eve").await)
        .post(session, "too late")
        .await
        .is_refusal(409, "session_ended");
    data(&nobody.get(&messages).await, 200);
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a list of mistakes")]
async fn an_invalid_call_gets_an_error_that_says_how_to_fix_it() {
    let Stage {
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let caller = Caller::new(&gateway, &ann);
    let events = format!("/v1/sessions/{session}/events");
    let messages = format!("/v1/sessions/{session}/messages");
    let says = |answer: Answer, word: &str| {
        answer.is_refusal(400, "bad_request");
        assert!(
            answer.body.contains(word),
            "{word} is not named: {answer:?}"
        );
    };

    says(caller.get("/v1/sessions/seven/events").await, "id");
    says(caller.get("/v1/sessions/%ff/events").await, "id");
    says(caller.get("/v1/votings/7/tally").await, "id");
    for after in ["-1", "x", "1.5", "%2B1", "9223372036854775808", ""] {
        says(
            caller.get(&format!("{events}?after={after}")).await,
            "after",
        );
    }
    for limit in ["0", "1001", "x", "-1", ""] {
        says(
            caller.get(&format!("{events}?limit={limit}")).await,
            "limit",
        );
    }
    says(caller.get(&format!("{messages}?limit=101")).await, "limit");
    for before in ["x", "-1", "1_", "1_x", "_1"] {
        says(
            caller.get(&format!("{messages}?before={before}")).await,
            "before",
        );
    }
    // Unknown fields are ignored, the last of repeated fields counts, and texts may be escaped.
    data(
        &caller
            .get(&format!("{events}?color=red&limit=x&limit=%35&after=%30"))
            .await,
        200,
    );

    let json = [("Content-Type", "application/json")];
    for (body, word) in [
        ("{", "JSON"),
        ("[]", "object"),
        ("{}", "body"),
        (r#"{"body":7}"#, "body"),
        (r#"{"body":"a\u0000b"}"#, "body"),
        (r#"{"body":"x","reply_to":"y"}"#, "reply_to"),
    ] {
        says(caller.call("POST", &messages, &json, body).await, word);
    }
    let vote = format!("/v1/votings/{}/vote", Uuid::new_v4());
    says(caller.call("PUT", &vote, &json, "{}").await, "movie");
    says(
        caller.call("PUT", &vote, &json, r#"{"movie":"x"}"#).await,
        "movie",
    );
    says(caller.call("PUT", &vote, &json, "\u{feff}{}").await, "JSON");
    caller
        .call("POST", &messages, &json, &"[".repeat(20_000))
        .await
        .is_refusal(400, "bad_request");

    let text = [("Content-Type", "text/plain")];
    caller
        .call("POST", &messages, &text, r#"{"body":"x"}"#)
        .await
        .is_refusal(415, "bad_request");
    caller
        .call("POST", &messages, &[], r#"{"body":"x"}"#)
        .await
        .is_refusal(415, "bad_request");
    let large = json!({"body": "x", "pad": "x".repeat(FRAME_BYTES_MAX)}).to_string();
    caller
        .call("POST", &messages, &json, &large)
        .await
        .is_refusal(413, "too_large");
    let bearer = format!("Bearer {}", ann.token);
    let chunked = [
        ("Authorization", &*bearer),
        ("Content-Type", "application/json"),
        ("Transfer-Encoding", "chunked"),
    ];
    let chunks = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let request = format!(
        "POST {messages} HTTP/1.1\r\nHost: x\r\n{}\r\n{chunks}",
        chunked
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .concat(),
    );
    let answer = exchange(gateway.at, &request, false).await;
    answer.is_refusal(413, "too_large");

    for (method, path, allowed) in [
        ("POST", &*events, "GET"),
        ("DELETE", &messages, "GET,HEAD,POST"),
        ("GET", &vote, "PUT,DELETE"),
        ("POST", "/healthz", "GET"),
        ("PUT", "/index.html", "GET, HEAD"),
    ] {
        let answer = caller.call(method, path, &[], "").await;
        answer.is_refusal(405, "bad_request");
        let said = &answer.headers["allow"];
        assert!(
            allowed.split(',').all(|one| said.contains(one.trim())),
            "{said} for {path}"
        );
    }
    for path in [
        "/v1",
        "/v1/",
        "/v1/nothing",
        "/v2/sessions",
        "/v1/sessions",
        "/nothing.html",
        "/../Cargo.toml",
    ] {
        caller.get(path).await.is_refusal(404, "not_found");
        caller
            .call("POST", path, &[], "")
            .await
            .is_refusal(404, "not_found");
    }
}

#[tokio::test]
async fn callers_are_known_as_on_the_socket() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let path = format!("/v1/sessions/{session}/events");
    let with = async |authorization: &str| {
        get(gateway.at, &path, &[("Authorization", authorization)]).await
    };

    for wrong in ["Bearer x.y.z", "Bearer nonsense"] {
        let answer = with(wrong).await;
        answer.is_refusal(401, "unauthorized");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    let expired = token(ann.id, Duration::ZERO);
    with(&format!("Bearer {expired}"))
        .await
        .is_refusal(401, "unauthorized");
    let forged = sign(
        "another secret, also of 32 bytes or more",
        &NewClaims::user(UserId(ann.id)),
        Duration::from_secs(60),
    );
    with(&format!("Bearer {forged}"))
        .await
        .is_refusal(401, "unauthorized");
    data(&with("Bearer sb_publishable_abc").await, 200);
    data(&with("Basic abc").await, 200);
    data(
        &get(
            gateway.at,
            &format!("{path}?access_token={}", ann.token),
            &[],
        )
        .await,
        200,
    );
    get(gateway.at, &format!("{path}?access_token=x"), &[])
        .await
        .is_refusal(401, "unauthorized");
    drop(gateway);

    let gateway = Gateway::start(&db, |config| config.is_anonymous_allowed = false).await;
    get(gateway.at, &path, &[])
        .await
        .is_refusal(401, "unauthorized");
    data(&Caller::new(&gateway, &ann).get(&path).await, 200);
}

#[tokio::test]
async fn limits_are_the_same_as_on_the_socket() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let session = db.session(&ann).await;
    let movies = db.movies(1).await;
    let voting = db.voting(session, &movies, "").await;
    let gateway = Gateway::start(&db, |config| {
        let rate = |count| {
            let count = std::num::NonZero::new(count).unwrap();
            let period = Duration::from_secs(60);
            Some(usher::config::rates::Rate { count, period })
        };
        config.rates.messages = rate(2);
        config.rates.votes = rate(1);
        config.rates.requests = rate(5);
        config.rates.repeat_pause = Duration::from_secs(30);
    })
    .await;
    let caller = Caller::new(&gateway, &ben);
    let mut socket = Client::connect(gateway.at, &ben).await;
    socket.send(session, "over the socket").await;
    caller
        .post(session, "over the socket")
        .await
        .is_refusal(429, "rate_limited");
    data(&caller.post(session, "over http").await, 201);
    let answer = caller.post(session, "one too many").await;
    answer.is_refusal(429, "rate_limited");
    let seconds: u64 = answer.headers["retry-after"].parse().unwrap();
    assert!((1..=30).contains(&seconds), "{answer:?}");

    let vote = format!("/v1/votings/{voting}/vote");
    data(
        &caller.send("PUT", &vote, json!({"movie": movies[0]})).await,
        200,
    );
    caller
        .call("DELETE", &vote, &[], "")
        .await
        .is_refusal(429, "rate_limited");

    let from = [("X-Forwarded-For", "192.0.2.1")];
    let path = format!("/v1/sessions/{session}/events");
    for _ in 0..5 {
        data(&caller.call("GET", &path, &from, "").await, 200);
    }
    let answer = caller.call("GET", &path, &from, "").await;
    answer.is_refusal(429, "rate_limited");
    assert!(answer.headers.contains_key("retry-after"));
    // Whether the gateway is well may be asked as often as one likes.
    assert_eq!(
        call(gateway.at, "GET", "/healthz", &from, "").await.status,
        200
    );
}

#[tokio::test]
async fn an_anonymous_caller_writes_nothing_and_the_database_is_not_even_asked() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    let message = db.say(session, &ann, "hello").await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let signed = |claims: &NewClaims| User {
        token: sign(JWT_SECRET, claims, Duration::from_hours(1)),
        ..ann.clone()
    };
    let anon_key = signed(&NewClaims::anon());
    let overlay = signed(&NewClaims::overlay(
        UserId(Uuid::new_v4()),
        SessionId(session),
    ));
    let ban = format!("/v1/sessions/{session}/bans/{}", ann.id);
    let (vote, votings) = (
        format!("/v1/votings/{voting}/vote"),
        format!("/v1/sessions/{session}/votings"),
    );
    let writes = [
        (
            "POST",
            format!("/v1/sessions/{session}/messages"),
            json!({"body": "x"}),
        ),
        ("PUT", vote.clone(), json!({"movie": movies[0]})),
        ("DELETE", vote, json!({})),
        ("POST", votings, json!({"question": "x?", "movies": movies})),
        (
            "PATCH",
            format!("/v1/votings/{voting}"),
            json!({"state": "closed"}),
        ),
        (
            "PATCH",
            format!("/v1/sessions/{session}"),
            json!({"chat_enabled": false}),
        ),
        ("DELETE", format!("/v1/messages/{message}"), json!({})),
        ("PUT", ban.clone(), json!({"seconds": 60})),
        ("DELETE", ban, json!({})),
    ];
    // Calls that need the database now get an error that says it is away.
    let name: String = db.one("select current_database()").await;
    db.run(&format!(
        "alter database {name} connection limit 0;
         select pg_terminate_backend(pid) from pg_stat_activity
         where usename = 'usher_gateway' and datname = current_database()"
    ))
    .await;
    for (method, path, body) in &writes {
        for user in [&anon_key, &overlay] {
            let caller = Caller::new(&gateway, user);
            let answer = caller.send(method, path, body.clone()).await;
            answer.is_refusal(403, "forbidden");
        }
        let caller = Caller::anonymous(&gateway);
        let answer = caller.send(method, path, body.clone()).await;
        answer.is_refusal(401, "unauthorized");
    }
    let (method, path, body) = &writes[6];
    let caller = Caller::new(&gateway, &ann);
    let answer = caller.send(method, path, body.clone()).await;
    answer.is_refusal(503, "unavailable");
    // The same words on the socket.
    let mut client = Client::connect(gateway.at, &anon_key).await;
    let refusal = refused(client.try_send(session, "x").await, "forbidden");
    let over_http = Caller::new(&gateway, &anon_key).post(session, "x").await;
    assert_eq!(over_http.json()["error"]["message"], refusal["message"]);
}

#[tokio::test]
async fn calls_that_moderate_have_a_rate_of_their_own_whoever_makes_them() {
    let db = Database::create().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let session = db.session(&ann).await;
    let message = db.say(session, &ann, "hello").await;
    let gateway = Gateway::start(&db, |config| {
        let (count, period) = (std::num::NonZero::new(3).unwrap(), Duration::from_secs(60));
        config.rates.moderation = Some(usher::config::rates::Rate { count, period });
    })
    .await;
    let (streamer, viewer) = (Caller::new(&gateway, &ann), Caller::new(&gateway, &ben));
    let settings = format!("/v1/sessions/{session}");
    for seconds in 1..=3 {
        let body = json!({ "slow_mode_seconds": seconds });
        data(&streamer.send("PATCH", &settings, body).await, 200);
    }
    let answer = streamer
        .send("PATCH", &settings, json!({"slow_mode_seconds": 4}))
        .await;
    answer.is_refusal(429, "rate_limited");
    let seconds: u64 = answer.headers["retry-after"].parse().unwrap();
    assert!((1..=20).contains(&seconds), "{answer:?}");
    let slow_mode = "select slow_mode_seconds from public.movie_sessions";
    assert_eq!(db.one::<i32>(slow_mode).await, 3);
    // Also that of a viewer who moderates nothing.
    let path = format!("/v1/messages/{message}");
    for _ in 0..3 {
        let answer = viewer.call("DELETE", &path, &[], "").await;
        answer.is_refusal(403, "forbidden");
    }
    let answer = viewer.call("DELETE", &path, &[], "").await;
    answer.is_refusal(429, "rate_limited");
}

#[tokio::test]
async fn while_the_database_is_away_calls_are_told_when_to_try_again() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let db = Database::create_in(&cluster).await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let caller = Caller::new(&gateway, &ann);
    cluster.stop_server(StopMode::Fast).await.unwrap();
    for path in ["events", "messages"] {
        let answer = caller.get(&format!("/v1/sessions/{session}/{path}")).await;
        answer.is_refusal(503, "unavailable");
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    }
    caller
        .get(&format!("/v1/votings/{session}/tally"))
        .await
        .is_refusal(503, "unavailable");
    caller
        .post(session, "hello")
        .await
        .is_refusal(503, "unavailable");
    cluster.stop().await;
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_say_so() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    for number in 0..50 {
        db.say(session, &ann, &format!("message {number}")).await;
    }
    let gateway = Gateway::start(&db, |_| {}).await;
    let caller = Caller::new(&gateway, &ann);
    let path = format!("/v1/sessions/{session}/events");
    let plain = caller.get(&path).await;
    assert!(!plain.headers.contains_key("content-encoding"));
    let gzip = [("Accept-Encoding", "br, gzip")];
    for path in [&*path, "/openapi.json", "/app.js"] {
        let packed = caller.call("GET", path, &gzip, "").await;
        assert_eq!(packed.headers["content-encoding"], "gzip", "{path}");
        assert!(
            packed.headers["vary"]
                .to_lowercase()
                .contains("accept-encoding")
        );
        assert_eq!(packed.bytes[..2], [0x1f, 0x8b]);
    }
    let packed = caller.call("GET", &path, &gzip, "").await;
    assert!(packed.bytes.len() < plain.bytes.len() / 2);
    // Small answers are not compressed.
    let small = caller.call("GET", "/healthz", &gzip, "").await;
    assert!(!small.headers.contains_key("content-encoding"));
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "two gateways, one of which allows every origin"
)]
async fn pages_from_elsewhere_may_read_what_their_origin_allows() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let path = format!("/v1/sessions/{session}/messages");
    let gateway = Gateway::start(&db, |_| {}).await;
    let origin = [("Origin", "https://app.example")];
    let answer = call(gateway.at, "GET", &path, &origin, "").await;
    assert_eq!(answer.headers["access-control-allow-origin"], "*");
    let exposed = &answer.headers["access-control-expose-headers"];
    assert!(exposed.contains("Retry-After") && exposed.contains("ETag"));
    for path in ["/metrics", "/healthz", "/"] {
        let answer = call(gateway.at, "GET", path, &origin, "").await;
        assert!(
            !answer.headers.contains_key("access-control-allow-origin"),
            "{path}"
        );
    }
    drop(gateway);

    let gateway = Gateway::start(&db, |config| {
        let origins = vec!["https://app.example".to_owned()];
        config.allowed_origins = AllowedOrigins::Only(origins);
        config.rates.requests = None;
    })
    .await;
    let preflight = async |origin: &str| {
        let asked = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            (
                "Access-Control-Request-Headers",
                "authorization,content-type,idempotency-key",
            ),
        ];
        call(gateway.at, "OPTIONS", &path, &asked, "").await
    };
    let allowed = preflight("https://app.example").await;
    assert_eq!(allowed.status, 204);
    assert_eq!(
        allowed.headers["access-control-allow-origin"],
        "https://app.example"
    );
    assert_eq!(allowed.headers["vary"], "Origin");
    let (methods, headers) = (
        &allowed.headers["access-control-allow-methods"],
        allowed.headers["access-control-allow-headers"].to_lowercase(),
    );
    for method in ["GET", "POST", "PUT", "DELETE"] {
        assert!(methods.contains(method), "{methods}");
    }
    for header in [
        "authorization",
        "content-type",
        "idempotency-key",
        "last-event-id",
    ] {
        assert!(headers.contains(header), "{headers}");
    }
    let other = preflight("https://evil.example").await;
    other.is_refusal(403, "forbidden");
    assert!(!other.headers.contains_key("access-control-allow-origin"));

    let answer = call(gateway.at, "GET", &path, &origin, "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.headers["access-control-allow-origin"],
        "https://app.example"
    );
    let evil = [("Origin", "https://evil.example")];
    let answer = call(gateway.at, "GET", &path, &evil, "").await;
    answer.is_refusal(403, "forbidden");
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    // A page can read a refusal too, to show what is wrong.
    let answer = call(gateway.at, "GET", "/v1/sessions/x/events", &origin, "").await;
    answer.is_refusal(400, "bad_request");
    assert_eq!(
        answer.headers["access-control-allow-origin"],
        "https://app.example"
    );
    assert_eq!(call(gateway.at, "GET", &path, &[], "").await.status, 200);
}

#[tokio::test]
async fn pages_are_kept_by_browsers_and_asked_about() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let page = get(gateway.at, "/", &[]).await;
    assert_eq!(page.status, 200);
    let tag = &page.headers["etag"];
    for known in [
        tag.clone(),
        format!("\"other\", {tag}"),
        tag.replace("W/", ""),
        "*".to_owned(),
    ] {
        let again = get(gateway.at, "/", &[("If-None-Match", &known)]).await;
        assert_eq!((again.status, &*again.body), (304, ""), "{known}");
        assert_eq!(&again.headers["etag"], tag);
    }
    let other = get(gateway.at, "/", &[("If-None-Match", "\"other\"")]).await;
    assert_eq!(other.status, 200);
    assert_ne!(&get(gateway.at, "/app.js", &[]).await.headers["etag"], tag);

    let policy = &page.headers["content-security-policy"];
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(
        !policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
    assert_eq!(page.headers["referrer-policy"], "no-referrer");
    assert_eq!(page.headers["cache-control"], "no-cache");

    for path in ["/", "/healthz", "/openapi.json", "/metrics"] {
        let (head, whole) = (
            call(gateway.at, "HEAD", path, &[], "").await,
            get(gateway.at, path, &[]).await,
        );
        assert_eq!((head.status, &*head.body), (200, ""), "{path}");
        assert_eq!(
            head.headers.get("content-type"),
            whole.headers.get("content-type")
        );
    }
}

#[tokio::test]
async fn the_document_has_every_call_and_is_of_this_version() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let document = get(gateway.at, "/openapi.json", &[]).await;
    assert_eq!(document.status, 200);
    let document = document.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    for (path, methods) in [
        ("/v1/sessions/{id}/events", &["get"][..]),
        ("/v1/sessions/{id}/messages", &["get", "post"]),
        ("/v1/sessions/{id}/stream", &["get"]),
        ("/v1/votings/{id}/tally", &["get"]),
        ("/v1/votings/{id}/vote", &["put", "delete"]),
        ("/v1/votings/{id}", &["patch"]),
        ("/v1/movies", &["get"]),
        ("/v1/sessions/{id}", &["patch"]),
        ("/v1/sessions/{id}/bans", &["get"]),
        ("/v1/sessions/{id}/bans/{user}", &["put", "delete"]),
        ("/v1/messages/{id}", &["delete"]),
        ("/healthz", &["get"]),
        ("/readyz", &["get"]),
        ("/metrics", &["get"]),
    ] {
        for method in methods {
            let call = &document["paths"][path][method];
            assert!(call["responses"]["200"].is_object(), "{method} {path}");
            assert!(call["summary"].is_string(), "{method} {path}");
        }
    }
    assert_eq!(
        document["components"]["securitySchemes"]["token"]["scheme"],
        "bearer"
    );
    // Everything that is named exists.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[tokio::test]
async fn a_fault_of_the_database_is_internal_and_says_nothing_of_it() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    // An object that the operator added fails in an unforeseen way.
    db.run(
        "create function public.broken() returns trigger language plpgsql as $$
         begin raise exception using errcode = 'XX000', message = 'a secret of the operator'; end $$;
         create trigger broken before insert on public.chat_messages
         for each row execute function public.broken()",
    )
    .await;
    let mut gateway = Gateway::start(&db, |_| {}).await;
    let answer = Caller::new(&gateway, &ann).post(session, "hello").await;
    answer.is_refusal(500, "internal");
    assert!(!answer.body.contains("secret"), "{}", answer.body);
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    let answer = refused(client.try_send(session, "hello").await, "internal");
    assert!(!answer.to_string().contains("secret"), "{answer}");
    // The log tells the operator.
    assert!(gateway.take_errors().contains("XX000"));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_long() {
    let Stage {
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let request = format!(
        "POST /v1/sessions/{session}/messages HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{\"body\":",
        gateway.at, ann.token
    );
    let answer = exchange(gateway.at, &request, false).await;
    answer.is_refusal(408, "bad_request");
}

#[tokio::test]
async fn no_answer_gives_a_header_twice() {
    let Stage {
        gateway, session, ..
    } = Stage::adapted(|config| {
        config.allowed_origins = AllowedOrigins::Only(vec!["https://app.example".to_owned()]);
    })
    .await;
    let events = format!("/v1/sessions/{session}/events");
    let stream = format!("/v1/sessions/{session}/stream");
    let mut seen = Vec::new();
    for (method, path, more) in [
        ("GET", "/", ""),
        ("GET", "/studio", ""),
        ("GET", "/overlay.js", ""),
        ("GET", "/nothing", ""),
        ("POST", "/", ""),
        ("GET", "/healthz", ""),
        ("GET", "/readyz", ""),
        ("GET", "/metrics", ""),
        (
            "GET",
            "/metrics",
            "Accept: application/openmetrics-text\r\n",
        ),
        ("GET", "/openapi.json", ""),
        ("GET", &events, ""),
        ("GET", &events, "Authorization: Bearer x\r\n"),
        ("DELETE", &events, ""),
        ("HEAD", &stream, ""),
        ("GET", &stream, ""),
        (
            "OPTIONS",
            &events,
            "Access-Control-Request-Method: POST\r\n",
        ),
        ("GET", "/v1/socket", ""),
        (
            "GET",
            "/v1/socket",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: usher.v1\r\n",
        ),
    ] {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: gateway\r\nOrigin: https://app.example\r\n\
             Accept-Encoding: gzip\r\n{more}\r\n"
        );
        let names = header_names(gateway.at, &request).await;
        let once: BTreeSet<&String> = names.iter().collect();
        if once.len() < names.len() {
            seen.push(format!("{method} {path}: {names:?}"));
        }
    }
    assert!(seen.is_empty(), "{seen:#?}");
    let headers = [("Origin", "https://app.example")];
    let answer = get(gateway.at, "/metrics", &headers).await;
    assert_eq!(answer.headers["vary"], "accept, accept-encoding");
    let answer = get(gateway.at, &events, &headers).await;
    assert_eq!(answer.headers["vary"], "Origin, accept-encoding");
}

/// The names of the headers of an answer, in lower case and in their order.
async fn header_names(at: SocketAddr, request: &str) -> Vec<String> {
    let mut socket = TcpStream::connect(at).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, socket.read_u8()).await.unwrap().unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.map(|(name, _)| name.to_lowercase()).collect()
}

//! Proves that the gateway uses published keys without a secret, follows key changes without a restart, and keeps its
//! keys when the key server fails.

use std::time::Duration;

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use tokio::time::Instant;
use usher_core::auth::mint::{self, NewClaims};
use usher_core::protocol::id::UserId;
use uuid::Uuid;

use crate::client::{Client, refused, until};
use crate::database::{Database, User};
use crate::gateway::{Gateway, Process};
use crate::http::{get, metric, shake};
use crate::key_server::{Answer, KeyServer, TlsKeyServer};
use crate::keys::{TestKey, encode};

#[tokio::test]
async fn tokens_of_published_keys_are_good_without_a_secret() {
    let keys = [
        TestKey::es256("a"),
        TestKey::ed25519("b"),
        TestKey::rs256("c"),
    ];
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = stage(&keys.each_ref()).await;
    for key in &keys {
        let token = key.sign(&claims(&ann));
        let mut by_header = Client::open(gateway.at, "header", Some(token.clone())).await;
        by_header.subscribe(session).await;
        by_header.send(session, "hello").await;
        let query = format!("?access_token={token}");
        let mut by_query = Client::open_with_query(gateway.at, &query).await;
        by_query.send(session, "hello again").await;
        let mut by_frame = Client::anonymous(gateway.at).await;
        let answer = by_frame.ask(json!({"type": "auth", "token": token})).await;
        assert_eq!(
            (&answer["sub"], &answer["role"]),
            (&json!(ann.id), &json!("authenticated"))
        );
        by_frame.send(session, "and again").await;
        by_header.has_the_whole_log(&db, session).await;
    }
    // This gateway does not know the secret of the other tests.
    let answer = shake(
        gateway.at,
        "",
        &[("Authorization", &format!("Bearer {}", ann.token))],
    )
    .await;
    answer.is_refusal(401, "unauthorized");
    assert_eq!(metric(gateway.at, "usher_keys").await, 3.0);
    assert!(metric(gateway.at, "usher_keys_age_seconds").await < 60.0);
}

#[tokio::test]
async fn keys_are_changed_without_a_restart_and_no_client_is_refused() {
    let [old, new, newest] = [
        TestKey::es256("old"),
        TestKey::ed25519("new"),
        TestKey::rs256("newest"),
    ];
    let Stage {
        gateway,
        server,
        session,
        ann,
        ..
    } = stage(&[&old]).await;
    let mut client = Client::open(gateway.at, "ann", Some(old.sign(&claims(&ann)))).await;
    client.subscribe(session).await;

    // At the handshake.
    server.rotate(&[&old, &new]);
    let mut second = Client::open(gateway.at, "ann", Some(new.sign(&claims(&ann)))).await;
    second.send(session, "with the new key").await;

    // On an open socket: the frames after `auth` have the new identity.
    server.rotate(&[&new, &newest]);
    let mut nobody = Client::anonymous(gateway.at).await;
    nobody
        .say(&json!({"type": "auth", "id": "auth", "token": newest.sign(&claims(&ann))}))
        .await;
    nobody
        .say(&json!({"type": "send", "id": "send", "session": session, "body": "at once"}))
        .await;
    nobody
        .expect_where("authenticated", |frame| frame["id"] == "auth")
        .await;
    nobody
        .expect_where("ack", |frame| frame["id"] == "send")
        .await;

    // A token of a removed key is refused, and open sockets stay.
    let answer = shake(gateway.at, "", &[("Authorization", &bearer(&old, &ann))]).await;
    answer.is_refusal(401, "unauthorized");
    client.send(session, "still here").await;
}

#[tokio::test]
async fn the_last_good_keys_are_kept_while_their_server_fails() {
    let db = Database::create().await;
    let (ann, elsewhere) = (
        db.user("ann").await,
        KeyServer::publish(&[&TestKey::es256("x")]).await,
    );
    let session = db.session(&ann).await;
    let failures: [(&str, &str, Option<Answer>); 8] = [
        ("an error", "failed", Some(Answer::Status(500))),
        ("not found", "failed", Some(Answer::Status(404))),
        ("garbage", "broken", Some(Answer::Text("<html>".to_owned()))),
        (
            "no keys",
            "empty",
            Some(Answer::Text(r#"{"keys":[]}"#.to_owned())),
        ),
        (
            "a secret",
            "empty",
            Some(Answer::Text(
                r#"{"keys":[{"kty":"oct","k":"AAAA","kid":"new"}]}"#.to_owned(),
            )),
        ),
        (
            "elsewhere",
            "failed",
            Some(Answer::Redirect(elsewhere.url())),
        ),
        ("slow", "failed", Some(Answer::Stuck)),
        ("nobody", "failed", None),
    ];
    let trials = failures.map(|(what, kind, answer)| fail(&db, session, &ann, what, kind, answer));
    futures::future::join_all(trials).await;
    // An answer without an end is not a failure of the server's making, but of its size.
    let endless = Answer::Endless(crate::keys::key_set(&[&TestKey::es256("new")]));
    fail(&db, session, &ann, "endless", "failed", Some(endless)).await;
    assert_eq!(elsewhere.asked(), 0, "a redirect was followed");
}

/// The key server fails in one way: known keys stay valid, unknown keys cannot be checked, and the log has one line.
async fn fail(
    db: &Database,
    session: Uuid,
    ann: &User,
    what: &str,
    kind: &str,
    answer: Option<Answer>,
) {
    let (key, new) = (TestKey::es256("old"), TestKey::es256("new"));
    let server = KeyServer::publish(&[&key]).await;
    let mut gateway = start(db, &server).await;
    let mut server = match answer {
        Some(answer) => {
            server.answer(answer);
            Some(server)
        }
        None => {
            drop(server);
            None
        }
    };
    let answer = shake(gateway.at, "", &[("Authorization", &bearer(&new, ann))]).await;
    assert_eq!(answer.status, 503, "{what}: {answer:?}");
    answer.is_refusal(503, "unavailable");
    assert!(
        answer.headers.contains_key("retry-after"),
        "{what}: {answer:?}"
    );
    let count = format!("usher_key_fetches_total{{kind=\"{kind}\"}}");
    assert!(metric(gateway.at, &count).await >= 1.0, "{what}");

    let mut client = Client::open(gateway.at, what, Some(key.sign(&claims(ann)))).await;
    client.send(session, "with the key that was good").await;
    let refusal = refused(
        client
            .ask(json!({"type": "auth", "token": new.sign(&claims(ann))}))
            .await,
        "unavailable",
    );
    assert!(
        refusal["retry_after_ms"].as_u64().is_some(),
        "{what}: {refusal}"
    );
    client.send(session, "the socket is as it was").await;
    assert_eq!(get(gateway.at, "/readyz", &[]).await.status, 200, "{what}");

    // It recovers without help.
    if let Some(server) = &mut server {
        server.rotate(&[&key, &new]);
        let mut late = Client::open(gateway.at, what, Some(new.sign(&claims(ann)))).await;
        late.send(session, "with the new key").await;
        until("the incident is over", async || {
            metric(gateway.at, "usher_keys").await == 2.0
        })
        .await;
        assert!(
            gateway.log().contains("the key server answers again"),
            "{what}"
        );
    }
    let log = gateway.log();
    let lines = log.matches("signing keys cannot be fetched").count();
    assert_eq!(lines, 1, "{what}: {log}");
}

#[tokio::test]
async fn a_gateway_without_keys_is_not_ready_and_says_so() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let key = TestKey::es256("a");
    let server = KeyServer::publish(&[&key]).await;
    server.answer(Answer::Status(503));
    let url = server.url();
    let settings = [
        ("USHER_JWKS_URL", &*url),
        ("USHER_ALLOW_ANONYMOUS", "false"),
    ];
    let gateway = Process::start(&db, ([127, 0, 0, 1], 0).into(), &settings).await;
    let ready = async || get(gateway.at, "/readyz", &[]).await;
    until("all but the keys is there", async || {
        let checks = ready().await.json()["checks"].clone();
        checks["listen"] == true && checks["migrations"] == true
    })
    .await;
    let answer = ready().await;
    assert_eq!(
        (answer.status, &answer.json()["checks"]["keys"]),
        (503, &json!(false))
    );

    // The gateway cannot verify the token: the client must retry, not give up.
    let answer = shake(gateway.at, "", &[("Authorization", &bearer(&key, &ann))]).await;
    answer.is_refusal(503, "unavailable");
    let mut client = Client::anonymous(gateway.at).await;
    refused(
        client
            .ask(json!({"type": "auth", "token": key.sign(&claims(&ann))}))
            .await,
        "unavailable",
    );
    assert_eq!(client.closed().await, 1013);

    server.rotate(&[&key]);
    until("the gateway is ready", async || ready().await.status == 200).await;
    let mut client = Client::open(gateway.at, "ann", Some(key.sign(&claims(&ann)))).await;
    client.send(session, "at last").await;
}

#[tokio::test]
async fn a_flood_of_unknown_keys_costs_the_key_server_little_and_others_nothing() {
    const FLOOD: Duration = Duration::from_secs(12);
    let (key, new) = (TestKey::es256("old"), TestKey::es256("new"));
    let Stage {
        gateway,
        server,
        session,
        ann,
        ..
    } = stage(&[&key]).await;
    let began = Instant::now();
    let asked = server.asked();
    let at = gateway.at;
    let flooders = (0..40).map(|number| {
        let (stranger, claims) = (TestKey::es256(&format!("stranger {number}")), claims(&ann));
        tokio::spawn(async move {
            while began.elapsed() < FLOOD {
                let header = json!({"alg": "ES256", "kid": Uuid::new_v4()}).to_string();
                let token = stranger.sign_with_header(&header, &claims);
                let answer = shake(at, "", &[("Authorization", &format!("Bearer {token}"))]).await;
                answer.is_refusal(401, "unauthorized");
            }
        })
    });
    let flooders: Vec<_> = flooders.collect();

    let mut client = Client::open(at, "ann", Some(key.sign(&claims(&ann)))).await;
    client.subscribe(session).await;
    // Lets the flood run for a third of its time.
    tokio::time::sleep(FLOOD / 3).await;
    client.send(session, "undisturbed").await;
    // A key that is new finds its way through the flood.
    server.rotate(&[&key, &new]);
    let mut second = Client::open(at, "ann", Some(new.sign(&claims(&ann)))).await;
    second.send(session, "with the new key").await;

    for flooder in flooders {
        flooder.await.unwrap();
    }
    let (asked, seconds) = (server.asked() - asked, began.elapsed().as_secs_f64());
    assert!(
        asked >= 2 && asked as f64 <= 1.0 + seconds / 5.0,
        "asked {asked} times in {seconds} s"
    );
}

#[tokio::test]
async fn a_key_in_the_token_header_is_ignored() {
    let (key, theirs) = (TestKey::rs256("a"), TestKey::es256("a"));
    let Stage {
        gateway,
        server,
        ann,
        ..
    } = stage(&[&key]).await;
    let evil = KeyServer::publish(&[&theirs]).await;
    let claims = claims(&ann);
    let with = |header: Value| theirs.sign_with_header(&header.to_string(), &claims);
    let confused = |header: Value, secret: &str| {
        let message = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        format!(
            "{message}.{}",
            encode(hmac::sign(&secret, message.as_bytes()).as_ref())
        )
    };
    let unsigned = with(json!({"alg": "none", "kid": "a"}));
    let (message, _) = unsigned.rsplit_once('.').unwrap();
    let public = key.public().to_string();
    let modulus = key.private["n"].as_str().unwrap();
    let twice = r#"{"alg":"ES256","alg":"RS256","kid":"a"}"#;
    let tokens = [
        format!("{message}."),
        unsigned.clone(),
        confused(json!({"alg": "HS256", "kid": "a"}), &public),
        confused(json!({"alg": "HS256"}), &public),
        confused(json!({"alg": "HS256", "kid": "a"}), modulus),
        with(json!({"alg": "RS256", "kid": "a"})),
        with(json!({"alg": "ES256", "kid": "a"})),
        with(json!({"alg": "ES256", "kid": "a", "jwk": theirs.public()})),
        with(json!({"alg": "ES256", "kid": "a", "jku": evil.url()})),
        with(json!({"alg": "ES256", "kid": evil.url(), "x5u": evil.url()})),
        with(json!({"alg": "ES256", "kid": "../../../../dev/null"})),
        with(json!({"alg": "ES256", "kid": "a' union select 'x"})),
        with(json!({"alg": "ES256", "kid": "k".repeat(5_000)})),
        with(json!({"alg": "ES256", "kid": {"a": 1}})),
        key.sign_with_header(twice, &claims),
        key.sign_with_header(r#"{"alg":"RS256","kid":"a","crit":["exp"]}"#, &claims),
    ];
    let asked = server.asked();
    let at = gateway.at;
    let attacks = tokens.iter().map(|token| async move {
        let answer = shake(at, "", &[("Authorization", &*format!("Bearer {token}"))]).await;
        answer.is_refusal(401, "unauthorized");
        assert!(
            !answer.body.contains("kid") && !answer.body.contains(token.as_str()),
            "{answer:?}"
        );
        let mut client = Client::anonymous(at).await;
        refused(
            client.ask(json!({"type": "auth", "token": token})).await,
            "unauthorized",
        );
    });
    futures::future::join_all(attacks).await;
    assert_eq!(evil.asked(), 0, "a key was fetched from where a token said");
    assert!(
        server.asked() - asked <= 4,
        "asked {} times",
        server.asked() - asked
    );
    Client::open(gateway.at, "ann", Some(key.sign(&claims))).await;
}

#[tokio::test]
async fn keys_are_fetched_over_tls_from_whom_the_system_trusts() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let key = TestKey::es256("a");
    let server = TlsKeyServer::publish(&[&key]).await;
    let (url, folder) = (server.url(), tempfile::tempdir().unwrap());
    let trusted = |name: &str, pem: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, pem).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let (ours, other) = (
        trusted("ours", &server.authority),
        trusted("other", &TlsKeyServer::other_authority()),
    );
    let listen = ([127, 0, 0, 1], 0).into();
    let settings = [("USHER_JWKS_URL", &*url), ("SSL_CERT_FILE", &*ours)];
    let gateway = Process::start(&db, listen, &settings).await;
    until("the gateway is ready", async || {
        get(gateway.at, "/readyz", &[]).await.status == 200
    })
    .await;
    Client::open(gateway.at, "ann", Some(key.sign(&claims(&ann)))).await;

    let settings = [("USHER_JWKS_URL", &*url), ("SSL_CERT_FILE", &*other)];
    let gateway = Process::start(&db, listen, &settings).await;
    let mut lines = Vec::new();
    until("the gateway says why", async || {
        lines.extend(gateway.lines());
        lines
            .iter()
            .any(|line| line.contains("signing keys cannot be fetched"))
    })
    .await;
    assert!(
        lines
            .iter()
            .any(|line| line.contains("invalid peer certificate")),
        "{lines:?}"
    );
    assert_eq!(
        get(gateway.at, "/readyz", &[]).await.json()["checks"]["keys"],
        false
    );
}

#[tokio::test]
async fn tokens_over_the_queue_limit_are_told_to_retry() {
    let (key, new) = (TestKey::es256("old"), TestKey::es256("new"));
    let Stage {
        gateway,
        server,
        ann,
        ..
    } = stage(&[&key]).await;
    server.answer(Answer::Stuck);
    let (at, authorization) = (gateway.at, bearer(&new, &ann));
    let shakes = (0..300).map(|_| async {
        let began = Instant::now();
        let answer = shake(at, "", &[("Authorization", &*authorization)]).await;
        answer.is_refusal(503, "unavailable");
        began.elapsed() < Duration::from_secs(3)
    });
    let at_once = futures::future::join_all(shakes).await;
    let at_once = at_once.into_iter().filter(|is_quick| *is_quick).count();
    assert!(
        at_once >= 300 - 256,
        "{at_once} of 300 were answered at once"
    );
}

fn claims(user: &User) -> Value {
    let payload = mint::payload(
        &NewClaims::user(UserId(user.id)),
        jsonwebtoken::get_current_timestamp(),
        Duration::from_secs(3_600),
    );
    payload.into()
}

fn bearer(key: &TestKey, user: &User) -> String {
    format!("Bearer {}", key.sign(&claims(user)))
}

async fn start(db: &Database, server: &KeyServer) -> Gateway {
    let url = server.url().parse().unwrap();
    Gateway::start(db, |config| {
        config.token_keys.secret = None;
        config.token_keys.url = Some(url);
    })
    .await
}

struct Stage {
    db: Database,
    gateway: Gateway,
    server: KeyServer,
    session: Uuid,
    ann: User,
}

/// A gateway that knows what a key server publishes, and nothing else.
async fn stage(keys: &[&TestKey]) -> Stage {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let server = KeyServer::publish(keys).await;
    let gateway = start(&db, &server).await;
    Stage {
        db,
        gateway,
        server,
        session,
        ann,
    }
}

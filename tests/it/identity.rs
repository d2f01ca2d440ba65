//! Proves how the gateway identifies a client: where a token may be sent, which tokens are valid, and when they
//! expire.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use serde_json::{Value, json};
use tokio::time::Instant;
use usher::config::AllowedOrigins;
use usher_core::auth::mint::{self, NewClaims};
use usher_core::auth::signing::SigningKey;
use usher_core::limits::ACCESS_TOKEN_BYTES_MAX;
use usher_core::protocol::id::UserId;
use uuid::Uuid;

use crate::client::{Client, refused};
use crate::database::{Database, JWT_SECRET, User, sign, token};
use crate::gateway::Gateway;
use crate::http::{self, UPGRADE, get, shake};
use crate::stage::Stage;

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_token_is_taken_from_the_header_the_query_or_a_frame() {
    let Stage {
        db,
        mut gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let ben = db.user("ben").await;
    let mut by_header = Client::connect(gateway.at, &ann).await;
    let mut by_query =
        Client::open_with_query(gateway.at, &format!("?x=1&access_token={}", ann.token)).await;
    let mut by_frame = Client::anonymous(gateway.at).await;
    assert_eq!(by_frame.subscribe(session).await["can"]["send"], false);
    let answer = by_frame
        .ask(json!({"type": "auth", "token": ann.token}))
        .await;
    assert_eq!(
        (&answer["type"], &answer["sub"], &answer["role"]),
        (
            &json!("authenticated"),
            &json!(ann.id),
            &json!("authenticated")
        )
    );
    assert!(answer["expires_at"].as_u64().is_some());
    // The permissions change with the token.
    assert_eq!(by_frame.expect("access").await["can"]["send"], true);
    for client in [&mut by_header, &mut by_query, &mut by_frame] {
        client.send(session, "hello").await;
    }
    by_frame.has_the_whole_log(&db, session).await;
    let authors: Vec<&Value> = by_frame
        .standing(session)
        .events
        .iter()
        .map(|event| &event["data"]["user_id"])
        .collect();
    assert_eq!(authors, [&json!(ann.id); 3]);

    // The header is the first to be asked.
    let query = format!("?access_token={}", ben.token);
    let headers = [("Authorization", &*format!("Bearer {}", "nonsense"))];
    shake(gateway.at, &query, &headers)
        .await
        .is_refusal(401, "unauthorized");

    let log = gateway.log();
    for secret in [&ann.token, &ben.token, JWT_SECRET] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test]
async fn a_publishable_key_is_no_token() {
    let Stage {
        gateway, session, ..
    } = Stage::new().await;
    let key = "sb_publishable_0123456789abcdef";
    let mut client = Client::open(gateway.at, "browser", Some(key.to_owned())).await;
    assert_eq!(client.subscribe(session).await["can"]["send"], false);
    let anon_key = sign(JWT_SECRET, &NewClaims::anon(), HOUR);
    let mut client = Client::open(gateway.at, "legacy", Some(anon_key)).await;
    assert_eq!(client.subscribe(session).await["can"]["send"], false);
}

#[tokio::test]
async fn an_apikey_as_supabase_js_sends_it_is_nothing_to_the_gateway() {
    let Stage {
        mut gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let anon_key = sign(JWT_SECRET, &NewClaims::anon(), HOUR);
    for key in [
        "sb_publishable_0123456789abcdef",
        "sb_secret_0123456789abcdef",
        &anon_key,
        "nonsense",
    ] {
        let query = format!("?apikey={key}&vsn=1.0.0");
        let mut nobody = Client::open_with_query(gateway.at, &query).await;
        assert_eq!(nobody.subscribe(session).await["can"]["send"], false);
        let query = format!("{query}&access_token={}", ann.token);
        let mut client = Client::open_with_query(gateway.at, &query).await;
        assert_eq!(client.subscribe(session).await["can"]["send"], true);
        let headers = [("apikey", key), ("x-api-key", key)];
        assert_eq!(shake(gateway.at, "", &headers).await.status, 101);
        assert!(!gateway.log().contains(key), "{key}");
    }
}

#[tokio::test]
async fn a_secret_key_is_refused_by_name_wherever_a_token_may_stand() {
    let Stage { gateway, ann, .. } = Stage::new().await;
    let key = "sb_secret_0123456789abcdef";
    let header = shake(
        gateway.at,
        "",
        &[("Authorization", &*format!("Bearer {key}"))],
    )
    .await;
    let query = shake(gateway.at, &format!("?access_token={key}"), &[]).await;
    for answer in [header, query] {
        answer.is_refusal(401, "unauthorized");
        assert!(
            answer.body.contains("a secret key must never be sent"),
            "{answer:?}"
        );
    }
    let mut client = Client::connect(gateway.at, &ann).await;
    let answer = client.ask(json!({"type": "auth", "token": key})).await;
    let refusal = refused(answer, "unauthorized");
    assert!(
        refusal
            .to_string()
            .contains("a secret key must never be sent"),
        "{refusal}"
    );
}

#[tokio::test]
async fn whoever_signed_in_anonymously_is_a_user_whom_policies_can_tell_apart() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut claims = mint::payload(&NewClaims::user(UserId(ann.id)), now(), HOUR);
    claims.insert("is_anonymous".to_owned(), true.into());
    let key = SigningKey::from_secret(&JWT_SECRET.into());
    let token = key.sign(&claims, &SystemRandom::new());
    let mut guest = Client::open(gateway.at, "guest", Some(token.clone())).await;
    let answer = guest.ask(json!({"type": "auth", "token": token})).await;
    assert_eq!(
        (&answer["role"], &answer["sub"]),
        (&json!("authenticated"), &json!(ann.id))
    );
    assert_eq!(guest.subscribe(session).await["can"]["send"], true);
    guest.send(session, "hello").await;

    db.run(
        "create policy no_guests on public.chat_messages as restrictive for insert to authenticated
             with check ((select (auth.jwt() ->> 'is_anonymous')::boolean) is not true)",
    )
    .await;
    refused(guest.try_send(session, "again").await, "forbidden");
    let mut ann = Client::connect(gateway.at, &ann).await;
    ann.send(session, "for good").await;
}

#[tokio::test]
async fn a_bad_token_is_refused_at_the_handshake() {
    let Stage {
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let claims = |change: fn(&mut NewClaims)| {
        let mut claims = NewClaims::user(UserId(ann.id));
        change(&mut claims);
        sign(JWT_SECRET, &claims, HOUR)
    };
    let foreign = sign(
        "another secret, of 32 bytes or more",
        &NewClaims::user(UserId(ann.id)),
        HOUR,
    );
    let [head, payload, signature] = ann.token.split('.').collect::<Vec<_>>().try_into().unwrap();
    // {"alg":"none","typ":"JWT"}
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
    for (what, token) in [
        ("garbage", "nonsense".to_owned()),
        ("no signature", format!("{head}.{payload}.")),
        ("no algorithm", unsigned),
        (
            "another's payload",
            format!("{head}.{}.{signature}", payload.to_uppercase()),
        ),
        ("another secret", foreign),
        ("expired", expired(&ann)),
        (
            "service_role",
            claims(|claims| claims.role = "service_role".to_owned()),
        ),
        (
            "an unknown role",
            claims(|claims| claims.role = "postgres".to_owned()),
        ),
        ("no subject", claims(|claims| claims.subject = None)),
        (
            "another audience",
            claims(|claims| claims.audience = Some("elsewhere".to_owned())),
        ),
        ("a secret key", "sb_secret_0123456789abcdef".to_owned()),
        ("too long", "x".repeat(ACCESS_TOKEN_BYTES_MAX + 1)),
    ] {
        let headers = [("Authorization", &*format!("Bearer {token}"))];
        let answer = shake(gateway.at, "", &headers).await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        answer.is_refusal(401, "unauthorized");
        assert!(!answer.body.contains(&token), "{what}: {answer:?}");
        let answer = shake(gateway.at, &format!("?access_token={token}"), &[]).await;
        answer.is_refusal(401, "unauthorized");
        // On an open socket it is an error, and the socket is as it was.
        if token.len() <= ACCESS_TOKEN_BYTES_MAX {
            let mut client = Client::connect(gateway.at, &ann).await;
            refused(
                client.ask(json!({"type": "auth", "token": token})).await,
                "unauthorized",
            );
            client.subscribe(session).await;
        }
    }
}

#[tokio::test]
async fn a_token_of_32_kib_is_taken_everywhere_and_one_beyond_is_refused_by_name() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    let token = large_token(&ann, ACCESS_TOKEN_BYTES_MAX);
    let bearer = format!("Bearer {token}");
    let mut by_header = Client::open(gateway.at, "header", Some(token.clone())).await;
    let query = format!("?access_token={token}");
    let mut by_query = Client::open_with_query(gateway.at, &query).await;
    let mut by_frame = Client::anonymous(gateway.at).await;
    let id = "\u{1}".repeat(64);
    by_frame
        .say(&json!({"type": "auth", "id": id, "token": token}))
        .await;
    assert_eq!(by_frame.expect("authenticated").await["sub"], json!(ann.id));
    // What the claims weigh in the database, and in a batch: more than fits one transaction.
    for client in [&mut by_header, &mut by_query, &mut by_frame] {
        assert_eq!(client.subscribe(session).await["can"]["send"], true);
        for n in 0..20 {
            let body = format!("message {n}");
            client
                .say(&json!({"type": "send", "session": session, "body": body}))
                .await;
        }
    }
    for client in [&mut by_header, &mut by_query, &mut by_frame] {
        for _ in 0..20 {
            client.expect("ack").await;
        }
        client.vote(voting, Some(movies[1])).await;
    }
    assert_eq!(db.head(session).await, 61);
    let subscribed = by_frame.resume(session).await;
    assert_eq!(subscribed["recovered"], true);
    let resume_token = subscribed["resume_token"].as_str().unwrap();
    assert!(resume_token.len() <= 2_048, "{resume_token}");
    for (path, headers) in [
        (
            format!("/v1/sessions/{session}/events"),
            vec![("Authorization", &*bearer)],
        ),
        (format!("/v1/sessions/{session}/events{query}"), Vec::new()),
    ] {
        assert_eq!(get(gateway.at, &path, &headers).await.status, 200);
    }

    let beyond = large_token(&ann, ACCESS_TOKEN_BYTES_MAX + 4);
    let bearer = format!("Bearer {beyond}");
    let headers = [("Authorization", &*bearer)];
    let path = format!("/v1/sessions/{session}/events");
    for answer in [
        shake(gateway.at, "", &headers).await,
        shake(gateway.at, &format!("?access_token={beyond}"), &[]).await,
        get(gateway.at, &path, &headers).await,
    ] {
        answer.is_refusal(401, "unauthorized");
        assert!(
            answer.body.contains("longer than 32768 bytes"),
            "{answer:?}"
        );
    }
    // The socket stays as it was.
    let frame = json!({"type": "auth", "token": beyond});
    let refusal = refused(by_frame.ask(frame).await, "too_large");
    assert_eq!(refusal["message"], "token must have at most 32768 bytes");
    by_frame.send(session, "still here").await;
}

#[tokio::test]
async fn tokens_of_every_accepted_issuer_are_good_and_another_is_named_to_the_operator_alone() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let mut gateway = Gateway::start(&db, |config| {
        config.token_keys.issuers = vec![
            "https://auth.example.org/auth/v1".to_owned(),
            "https://abc.supabase.co/auth/v1/".to_owned(),
        ];
    })
    .await;
    let of = |issuer: &str| {
        let mut claims = NewClaims::user(UserId(ann.id));
        claims.issuer = Some(issuer.to_owned());
        sign(JWT_SECRET, &claims, HOUR)
    };
    for issuer in [
        "https://auth.example.org/auth/v1",
        "https://auth.example.org/auth/v1/",
        "https://abc.supabase.co/auth/v1",
        "https://abc.supabase.co/auth/v1/",
    ] {
        let mut client = Client::open(gateway.at, "ann", Some(of(issuer))).await;
        assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong");
    }
    let mut client = Client::anonymous(gateway.at).await;
    for issuer in [
        "https://self.hosted.example/auth/v1",
        "https://auth.example.org/auth",
        "https://auth.example.org/auth/v1/x",
    ] {
        let headers = [("Authorization", &*format!("Bearer {}", of(issuer)))];
        let answer = shake(gateway.at, "", &headers).await;
        answer.is_refusal(401, "unauthorized");
        let frame = json!({"type": "auth", "token": of(issuer)});
        let refusal = refused(client.ask(frame).await, "unauthorized");
        let message = refusal["message"].as_str().unwrap();
        assert!(
            message.contains("does not accept tokens of that issuer"),
            "{message}"
        );
        assert_eq!(answer.json()["error"]["message"], message);
        assert!(
            !message.contains("example") && !message.contains("supabase.co"),
            "{message}"
        );
    }
    let log = gateway.log();
    let told: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("another issuer"))
        .collect();
    assert_eq!(told.len(), 1, "{log}");
    for named in [
        "https://self.hosted.example/auth/v1",
        "https://auth.example.org/auth/v1, https://abc.supabase.co/auth/v1/",
        "USHER_ISSUER",
    ] {
        assert!(told[0].contains(named), "{told:?}");
    }
}

#[tokio::test]
async fn a_refused_token_is_named_by_a_reason_wherever_it_is_shown() {
    let Stage {
        gateway,
        session,
        ann,
        ..
    } = Stage::adapted(|config| {
        config.token_keys.issuers = vec!["https://auth.example/auth/v1".to_owned()];
    })
    .await;
    let at = gateway.at;
    let of = |issuer: Option<&str>, ttl: Duration| {
        let mut claims = NewClaims::user(UserId(ann.id));
        claims.issuer = issuer.map(str::to_owned);
        sign(JWT_SECRET, &claims, ttl)
    };
    let good = of(Some("https://auth.example/auth/v1"), HOUR);
    let (message, _) = good.rsplit_once('.').unwrap();
    let mut role = NewClaims::user(UserId(ann.id));
    role.role = "service_role".to_owned();
    let other_key = sign(&JWT_SECRET.replace("secret", "guess!"), &role, HOUR);
    for (token, reason) in [
        ("nonsense".to_owned(), "malformed"),
        ("sb_secret_x".to_owned(), "secret_key"),
        (format!("{message}."), "signature"),
        (other_key, "signature"),
        (
            of(Some("https://auth.example/auth/v1"), Duration::ZERO),
            "expired",
        ),
        (of(Some("https://other.example"), HOUR), "issuer"),
        (of(None, HOUR), "issuer"),
        (sign(JWT_SECRET, &role, HOUR), "role"),
        (large_token(&ann, ACCESS_TOKEN_BYTES_MAX + 4), "too_large"),
    ] {
        let bearer = format!("Bearer {token}");
        let header = [("Authorization", bearer.as_str())];
        let mut answers = vec![shake(at, "", &header).await.json()["error"].clone()];
        for path in ["events", "stream"] {
            let path = format!("/v1/sessions/{session}/{path}");
            let answer = get(at, &path, &header).await;
            answer.is_refusal(401, "unauthorized");
            answers.push(answer.json()["error"].clone());
        }
        let mut client = Client::anonymous(at).await;
        answers.push(client.ask(json!({"type": "auth", "token": token})).await);
        for answer in &answers {
            assert_eq!(answer["reason"], reason, "{answers:#?}");
        }
    }
    // A token is required. A refusal that is not about a token has no reason.
    let path = format!("/v1/sessions/{session}/messages");
    let json = [("Content-Type", "application/json")];
    let answer = http::call(at, "POST", &path, &json, r#"{"body":"x"}"#).await;
    assert_eq!(answer.json()["error"]["reason"], "missing", "{answer:?}");
    let answer = get(at, &format!("/v1/sessions/{}/events", Uuid::new_v4()), &[]).await;
    answer.is_refusal(404, "not_found");
    assert_eq!(answer.json()["error"].get("reason"), None);
}

/// A token of so many bytes, or up to three fewer: base64 has no other lengths.
fn large_token(user: &User, bytes: usize) -> String {
    let with_name = |length: usize| {
        let mut claims = NewClaims::user(UserId(user.id));
        claims.user_metadata = Some(mint::UserMetadata {
            username: "x".repeat(length),
            display_name: None,
        });
        sign(JWT_SECRET, &claims, HOUR)
    };
    let rest = with_name(0).len();
    let mut length = (bytes - rest) * 3 / 4;
    while with_name(length + 1).len() <= bytes {
        length += 1;
    }
    with_name(length)
}

#[tokio::test]
async fn a_wrong_origin_path_or_method_is_refused() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |config| {
        config.allowed_origins = AllowedOrigins::Only(vec!["https://app.example".to_owned()]);
    })
    .await;
    let at = gateway.at;
    for origin in [
        "https://evil.example",
        "null",
        "https://app.example.evil.example",
        "http://app.example",
    ] {
        shake(at, "", &[("Origin", origin)])
            .await
            .is_refusal(403, "forbidden");
    }
    assert_eq!(
        shake(at, "", &[("Origin", "https://app.example")])
            .await
            .status,
        101
    );
    assert_eq!(shake(at, "", &[]).await.status, 101);

    get(at, "/v1/sockets", &UPGRADE)
        .await
        .is_refusal(404, "not_found");
    get(at, "/v1/socket/", &UPGRADE)
        .await
        .is_refusal(404, "not_found");
    let plain = get(at, "/v1/socket", &[]).await;
    plain.is_refusal(426, "bad_request");
    assert_eq!(plain.headers["upgrade"], "websocket");
    let mut old = UPGRADE;
    old[2] = ("Sec-WebSocket-Version", "8");
    let old = get(at, "/v1/socket", &old).await;
    old.is_refusal(426, "bad_request");
    assert_eq!(old.headers["sec-websocket-version"], "13");
}

#[tokio::test]
async fn a_full_node_says_when_to_try_again() {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |config| config.connections_max = 1).await;
    let first = Client::anonymous(gateway.at).await;
    let answer = shake(gateway.at, "", &[]).await;
    answer.is_refusal(503, "unavailable");
    assert!(
        answer.headers["retry-after"].parse::<u64>().is_ok(),
        "{answer:?}"
    );
    drop(first);
    crate::client::until("no connection is left", async || {
        http::metric(gateway.at, "usher_connections").await == 0.0
    })
    .await;
    Client::anonymous(gateway.at).await;
}

#[tokio::test]
async fn another_subject_on_an_open_socket_closes_it() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let ben = db.user("ben").await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    // A fresh token of the same subject is welcome.
    let fresh = client
        .ask(json!({"type": "auth", "token": token(ann.id, HOUR)}))
        .await;
    assert_eq!(fresh["type"], "authenticated");

    client
        .say(&json!({"type": "auth", "token": ben.token}))
        .await;
    assert_eq!(client.closed().await, 4509);
    // An anonymous caller is another subject too: a client that signs out opens another socket.
    let mut client = Client::connect(gateway.at, &ann).await;
    let key = "sb_publishable_0123456789abcdef";
    client.say(&json!({"type": "auth", "token": key})).await;
    assert_eq!(client.closed().await, 4509);
}

#[tokio::test]
async fn an_auth_frame_answers_with_its_id_and_names_what_is_wrong() {
    let Stage { gateway, ann, .. } = Stage::new().await;
    let mut client = Client::anonymous(gateway.at).await;
    for frame in [
        json!({"type": "auth"}),
        json!({"type": "auth", "token": 7}),
        json!({"type": "auth", "token": null}),
    ] {
        let refusal = refused(client.ask(frame).await, "bad_request");
        assert!(
            refusal["message"].as_str().unwrap().contains("token"),
            "{refusal}"
        );
    }
    // A project key belongs to no user. The anon key expires.
    let publishable = json!({"type": "auth", "token": "sb_publishable_0123456789abcdef"});
    let answer = client.ask(publishable).await;
    let expected = json!({"type": "authenticated", "id": answer["id"], "sub": null, "role": "anon", "expires_at": null});
    assert_eq!(answer, expected);
    let anon_key = sign(JWT_SECRET, &NewClaims::anon(), HOUR);
    let answer = client.ask(json!({"type": "auth", "token": anon_key})).await;
    assert_eq!(
        (&answer["role"], &answer["sub"]),
        (&json!("anon"), &Value::Null)
    );
    assert!(answer["expires_at"].as_u64().unwrap() > now());
    let answer = client
        .ask(json!({"type": "auth", "token": ann.token}))
        .await;
    assert_eq!(
        (&answer["role"], &answer["sub"]),
        (&json!("authenticated"), &json!(ann.id))
    );
}

#[tokio::test]
async fn the_end_of_a_token_is_announced_a_minute_before() {
    let Stage { gateway, ann, .. } = Stage::new().await;
    let ends_at = now() + 63;
    let ttl = Duration::from_secs(63);
    let mut client = Client::open(gateway.at, "ann", Some(token(ann.id, ttl))).await;
    client.has_nothing(&["token_expiring"]).await;
    let expiring = client.expect("token_expiring").await;
    let left = ends_at.saturating_sub(now());
    assert!((57..=60).contains(&left), "announced {left} s before");
    assert!(
        expiring["expires_at"].as_u64().unwrap().abs_diff(ends_at) <= 1,
        "{expiring}"
    );
    // A new token postpones the expiry.
    client
        .ask(json!({"type": "auth", "token": ann.token}))
        .await;
    // The time in which a wrong second announcement would arrive.
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.has_nothing(&["token_expiring"]).await;
}

#[tokio::test]
async fn a_token_that_expires_is_announced_and_then_closes_the_socket() {
    let Stage {
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let began = Instant::now();
    let mut client = Client::open(
        gateway.at,
        "ann",
        Some(token(ann.id, Duration::from_secs(3))),
    )
    .await;
    client.subscribe(session).await;
    client.expect("token_expiring").await;
    let mut renewed = Client::open(
        gateway.at,
        "ann",
        Some(token(ann.id, Duration::from_secs(3))),
    )
    .await;
    renewed.subscribe(session).await;
    let expiring = renewed.expect("token_expiring").await;
    assert!(expiring["expires_at"].as_u64().is_some(), "{expiring}");
    renewed
        .ask(json!({"type": "auth", "token": ann.token}))
        .await;

    assert_eq!(client.closed().await, 4001);
    let lived = began.elapsed().as_secs_f64();
    assert!((1.5..15.0).contains(&lived), "closed after {lived} s");
    // The other one outlives its first token by far.
    while began.elapsed().as_secs_f64() < lived + 1.5 {
        renewed.send(session, "still here").await;
        // The pace of the messages.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_socket_without_a_required_token_is_closed() {
    let Stage {
        gateway,
        session,
        ann,
        ..
    } = Stage::adapted(|config| config.is_anonymous_allowed = false).await;
    let mut nobody = Client::anonymous(gateway.at).await;
    let mut late = Client::anonymous(gateway.at).await;
    for wish in [
        json!({"type": "subscribe", "session": session}),
        json!({"type": "send", "session": session, "body": "hello"}),
        json!({"type": "auth", "token": "sb_publishable_0123456789abcdef"}),
    ] {
        refused(nobody.ask(wish).await, "unauthorized");
    }
    assert_eq!(nobody.ask(json!({"type": "ping"})).await["type"], "pong");
    let began = Instant::now();
    let answer = late.ask(json!({"type": "auth", "token": ann.token})).await;
    assert_eq!(answer["type"], "authenticated");
    late.subscribe(session).await;

    assert_eq!(nobody.closed().await, 4501);
    assert!(began.elapsed() > Duration::from_secs(5));
    late.send(session, "still here").await;
}

#[tokio::test]
async fn a_user_without_a_profile_may_watch_and_not_write() {
    let Stage {
        db,
        gateway,
        session,
        ..
    } = Stage::new().await;
    let ghost = User {
        id: Uuid::new_v4(),
        name: "ghost".to_owned(),
        token: String::new(),
    };
    let mut client = Client::open(gateway.at, &ghost.name, Some(token(ghost.id, HOUR))).await;
    client.subscribe(session).await;
    refused(client.try_send(session, "boo").await, "forbidden");
    assert_eq!(db.head(session).await, 0);
}

/// A token that was good until a while ago.
fn expired(user: &User) -> String {
    let claims = NewClaims::user(UserId(user.id));
    let an_hour_ago = now() - 3_600;
    mint::mint(
        &JWT_SECRET.into(),
        &claims,
        an_hour_ago,
        Duration::from_secs(3_000),
    )
}

fn now() -> u64 {
    jsonwebtoken::get_current_timestamp()
}

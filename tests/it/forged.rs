//! Proves that the gateway rejects tokens that were made up, changed or stolen.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use usher_core::auth::mint::{self, NewClaims};
use usher_core::protocol::id::UserId;

use crate::client::{Client, refused};
use crate::database::{Database, JWT_SECRET, User};
use crate::gateway::Gateway;
use crate::http::{metric, shake};
use crate::key_server::KeyServer;
use crate::keys::{TestKey, encode};
use crate::stage::Stage;

const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn no_header_makes_a_token_good() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let (ec, rsa) = (TestKey::es256("ec"), TestKey::rs256("rsa"));
    let server = KeyServer::publish(&[&ec, &rsa]).await;
    let url = server.url().parse().unwrap();
    // A secret and published keys at a time: the most that there is to confuse.
    let gateway = Gateway::start(&db, |config| config.token_keys.url = Some(url)).await;
    let claims = claims(&ann);
    let mut forged = Vec::new();
    for algorithm in [
        "none", "None", "nOnE", "NONE", "", "HS384", "HS512", "PS256", "hs256", "HS256 ",
    ] {
        let header = json!({"alg": algorithm, "typ": "JWT"}).to_string();
        let signed = sign(JWT_SECRET.as_bytes(), &header, &claims);
        forged.push((format!("alg {algorithm:?}"), signed.clone()));
        let (message, _) = signed.rsplit_once('.').unwrap();
        forged.push((
            format!("alg {algorithm:?}, unsigned"),
            format!("{message}."),
        ));
    }
    // The forger uses each form of the public key as an HMAC secret.
    for key in [&ec, &rsa] {
        let public = key.public();
        let mut secrets = vec![
            public.to_string(),
            serde_json::to_string_pretty(&public).unwrap(),
        ];
        secrets.extend(
            ["n", "x", "e", "kid"]
                .iter()
                .filter_map(|field| public[field].as_str())
                .map(str::to_owned),
        );
        for secret in secrets.into_iter().chain([String::new()]) {
            for kid in [&public["kid"], &Value::Null] {
                let header = json!({"alg": "HS256", "kid": kid}).to_string();
                forged.push((
                    format!("secret {secret:.20}"),
                    sign(secret.as_bytes(), &header, &claims),
                ));
            }
        }
        // The secret's own signature under the algorithm of another key.
        for algorithm in ["RS256", "ES256", "EdDSA"] {
            let header = json!({"alg": algorithm, "kid": public["kid"]}).to_string();
            forged.push((
                algorithm.to_owned(),
                sign(JWT_SECRET.as_bytes(), &header, &claims),
            ));
        }
    }
    // A key that the token itself brings along, or says where to fetch.
    let own = TestKey::es256("ec");
    for header in [
        json!({"alg": "ES256", "kid": "ec", "jwk": own.public()}),
        json!({"alg": "ES256", "kid": "ec", "jku": server.url()}),
        json!({"alg": "ES256", "kid": "ec", "x5u": server.url(), "x5c": ["AAAA"]}),
        json!({"alg": "ES256", "kid": "../../../dev/null"}),
        json!({"alg": "ES256", "kid": "ec' or '1'='1"}),
        json!({"alg": "ES256", "kid": "ec\u{0}"}),
        json!({"alg": "ES256", "kid": ["ec"]}),
        json!({"alg": "ES256", "kid": {"$ne": ""}}),
        json!({"alg": "ES256", "kid": "k".repeat(4_000)}),
        json!({"alg": "ES256"}),
    ] {
        forged.push((
            header.to_string(),
            own.sign_with_header(&header.to_string(), &claims),
        ));
    }
    forged.push((
        "a critical extension".to_owned(),
        ec.sign_with_header(
            r#"{"alg":"ES256","kid":"ec","crit":["exp"],"exp":9}"#,
            &claims,
        ),
    ));
    for (what, token) in &forged {
        let answer = shake(
            gateway.at,
            "",
            &[("Authorization", &format!("Bearer {token}"))],
        )
        .await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        assert!(!answer.body.contains(token.as_str()), "{what}: {answer:?}");
    }
    for good in [ann.token, ec.sign(&claims), rsa.sign(&claims)] {
        let answer = shake(
            gateway.at,
            "",
            &[("Authorization", &format!("Bearer {good}"))],
        )
        .await;
        assert_eq!(answer.status, 101, "{answer:?}");
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn claims_that_are_signed_are_still_held_to_the_rules() {
    let Stage {
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let with = |claim: &str, value: Value| {
        let mut claims = claims(&ann);
        claims[claim] = value;
        claims.to_string()
    };
    let deep = |levels: usize| format!("{{\"x\":{}1{},", "[".repeat(levels), "]".repeat(levels));
    let rest = claims(&ann).to_string()[1..].to_owned();
    let roles = [
        "postgres",
        "supabase_admin",
        "service_role",
        "usher_gateway",
        "authenticator",
        "dashboard_user",
        "Authenticated",
        "authenticated ",
        "authenticated\"; set role postgres; --",
        "",
        "none",
    ];
    let mut payloads: Vec<(String, u16)> = roles
        .iter()
        .map(|role| (with("role", json!(role)), 401))
        .collect();
    payloads.extend([
        (with("role", json!(["authenticated"])), 401),
        (with("role", json!({"authenticated": true})), 401),
        (with("role", json!("authenticated\u{0}")), 401),
        (
            with(
                "sub",
                json!("00000000-0000-0000-0000-000000000000' or true --"),
            ),
            401,
        ),
        (with("sub", json!({"id": ann.id})), 401),
        (with("exp", json!("9999999999")), 401),
        (with("exp", json!(-1)), 401),
        (with("exp", json!(0)), 401),
        (with("exp", json!(u64::MAX)), 101),
        (with("exp", json!(1e300)), 101),
        (with("nbf", json!(u64::MAX)), 401),
        (with("note", json!("nul \u{0}")), 401),
        (with("nul \u{0}", json!(1)), 401),
        (
            with("app_metadata", json!({"deep": [{"er": "nul \u{0}"}]})),
            401,
        ),
        (
            with(
                "app_metadata",
                json!({"role": "postgres", "a": [1, {"b": null}]}),
            ),
            101,
        ),
        (deep(200) + &rest, 401),
        (deep(100) + &rest, 101),
        // The last of two would be the database's, and the first might be ours.
        (format!("{{\"role\":\"postgres\",{rest}"), 401),
        (format!("{{\"note\":\"\\ud83c\",{rest}"), 401),
        (format!("[{{{rest}]"), 401),
        (format!("{{{rest} {{}}"), 401),
    ]);
    for (payload, status) in &payloads {
        let token = sign_text(JWT_SECRET.as_bytes(), HS256, payload);
        let answer = shake(
            gateway.at,
            "",
            &[("Authorization", &format!("Bearer {token}"))],
        )
        .await;
        assert_eq!(answer.status, *status, "{payload}: {answer:?}");
        assert!(answer.body.len() < 500, "{payload}: {answer:?}");
    }
    // The database accepts the accepted claims too.
    for payload in [
        with("exp", json!(1e300)),
        deep(100) + &rest,
        with("app_metadata", json!({"role": "postgres"})),
    ] {
        let token = sign_text(JWT_SECRET.as_bytes(), HS256, &payload);
        let mut client = Client::open(gateway.at, "ann", Some(token)).await;
        client.subscribe(session).await;
        client.send(session, "hello").await;
    }
}

#[tokio::test]
async fn a_stolen_resume_token_admits_nobody_however_often_it_is_shown() {
    let db = Database::create().await;
    let (ann, ben, mallory) = (
        db.user("ann").await,
        db.user("ben").await,
        db.user("mallory").await,
    );
    let session = db.session(&ann).await;
    db.set_session(session, "visibility = 'private'").await;
    db.join(session, &ben).await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let mut client = Client::connect(gateway.at, &ben).await;
    client.subscribe(session).await;
    let stolen = client.position(session);
    let frame = json!({"type": "subscribe", "session": session, "resume": stolen});
    let sessions = metric(gateway.at, "usher_subscriptions").await;

    for _ in 0..20 {
        let mut thief = Client::connect(gateway.at, &mallory).await;
        let mut nobody = Client::anonymous(gateway.at).await;
        for _ in 0..5 {
            refused(thief.ask(frame.clone()).await, "not_found");
            refused(nobody.ask(frame.clone()).await, "not_found");
        }
    }
    // In another session it is no token at all.
    let other = db.session(&ann).await;
    db.set_session(other, "visibility = 'private'").await;
    let elsewhere = json!({"type": "subscribe", "session": other, "resume": stolen});
    refused(client.ask(elsewhere).await, "not_found");
    // Its bearer may show it as often as they like, until they are put out.
    for _ in 0..20 {
        let mut again = Client::connect(gateway.at, &ben).await;
        assert_eq!(again.ask(frame.clone()).await["recovered"], true);
    }
    let removed = format!(
        "delete from public.session_members where user_id = '{}'",
        ben.id
    );
    db.run(&removed).await;
    let goodbye = client.expect("unsubscribed").await;
    assert_eq!(goodbye["reason"], "forbidden");
    let mut again = Client::connect(gateway.at, &ben).await;
    refused(again.ask(frame).await, "forbidden");
    assert!(metric(gateway.at, "usher_subscriptions").await <= sessions);
}

fn claims(user: &User) -> Value {
    let now = jsonwebtoken::get_current_timestamp();
    mint::payload(
        &NewClaims::user(UserId(user.id)),
        now,
        Duration::from_hours(1),
    )
    .into()
}

fn sign(secret: &[u8], header: &str, claims: &Value) -> String {
    sign_text(secret, header, &claims.to_string())
}

/// A token of any two texts, signed with HMAC-SHA-256 whatever they say.
fn sign_text(secret: &[u8], header: &str, payload: &str) -> String {
    let message = format!(
        "{}.{}",
        encode(header.as_bytes()),
        encode(payload.as_bytes())
    );
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    format!("{message}.{}", signature.unwrap())
}

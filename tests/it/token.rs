//! Proves `usher token` as a user runs it in a shell.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::database::{Database, JWT_SECRET};
use crate::gateway::Gateway;
use crate::http::shake;
use crate::key_server::KeyServer;
use crate::keys::{TestKey, decode};

#[tokio::test]
async fn a_minted_token_opens_a_socket() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let key = TestKey::es256("ours");
    let server = KeyServer::publish(&[&key]).await;
    let gateway = Gateway::start(&db, |config| {
        config.token_keys.url = Some(server.url().parse().unwrap());
        config.token_keys.issuers = vec!["https://abc.supabase.co/auth/v1".to_owned()];
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.json");
    fs::write(&file, json!([key.private]).to_string()).unwrap();
    let (file, user) = (file.to_str().unwrap(), ann.id.to_string());
    for arguments in [
        &["--sub", &user][..],
        &["--sub", &user, "--key", file],
        &["--sub", &user, "--claim", r#"aud=["x","authenticated"]"#],
    ] {
        let token = mint(arguments);
        let mut client = Client::open(gateway.at, "ann", Some(token)).await;
        client.send(session, &arguments.join(" ")).await;
    }
    // Without a user it is the anon key, which has no issuer of the project's.
    let mut anybody = Client::open(gateway.at, "anybody", Some(mint(&[]))).await;
    assert_eq!(anybody.subscribe(session).await["can"]["send"], false);
    for role in ["service_role", "postgres"] {
        let authorization = format!("Bearer {}", mint(&["--sub", &user, "--role", role]));
        let answer = shake(gateway.at, "", &[("Authorization", &*authorization)]).await;
        answer.is_refusal(401, "unauthorized");
        assert!(answer.body.contains(role), "{answer:?}");
    }
}

#[test]
fn an_anonymous_user_and_further_claims_are_in_the_token() {
    let token = mint(&[
        "--anonymous",
        "--claim",
        r#"app_metadata={"plan":"gold"}"#,
        "--ttl",
        "90s",
    ]);
    let claims: Value = serde_json::from_slice(&decode(token.split('.').nth(1).unwrap())).unwrap();
    assert!(
        claims["sub"].as_str().unwrap().parse::<Uuid>().is_ok(),
        "{claims}"
    );
    assert_eq!(claims["role"], "authenticated");
    assert_eq!(claims["aud"], "authenticated");
    assert_eq!(claims["is_anonymous"], true);
    assert_eq!(claims["app_metadata"]["plan"], "gold");
    assert_eq!(claims["iss"], "https://abc.supabase.co/auth/v1");
    assert_eq!(
        claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
        90
    );
}

#[test]
fn what_is_missing_or_wrong_is_said_with_what_would_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let public = folder.path().join("public.json");
    fs::write(&public, TestKey::ed25519("a").public().to_string()).unwrap();
    for (arguments, said) in [
        (&["--role", "authenticated"][..], "--sub <uuid>"),
        (&["--secret", "short"], "32 or more"),
        (&["--claim", "plan=gold"], "in double quotes"),
        (&["--ttl", "soon"], "15m"),
        (&["--anonymous", "--role", "anon"], "cannot be used with"),
        (&["--key", "/no/such/file"], "/no/such/file"),
        (&["--key", public.to_str().unwrap()], "private JWK"),
    ] {
        let output = command(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && text.contains(said),
            "{arguments:?}: {text}"
        );
        assert!(
            output.stdout.is_empty() && !text.contains(JWT_SECRET),
            "{text}"
        );
    }
    let output = command(&[])
        .env_remove("SUPABASE_JWT_SECRET")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("--secret, SUPABASE_JWT_SECRET") && text.contains("--key FILE"),
        "{text}"
    );
}

fn mint(arguments: &[&str]) -> String {
    let output = command(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {text}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_usher"));
    command
        .arg("token")
        .args(arguments)
        .env_clear()
        .env("SUPABASE_JWT_SECRET", JWT_SECRET)
        .env("SUPABASE_URL", "https://abc.supabase.co/");
    command
}

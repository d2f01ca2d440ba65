//! Proves that a forgotten or mistyped setting gives the operator one line that says what to do.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;
use uuid::Uuid;

use crate::client::until;
use crate::database::{Database, JWT_SECRET, connect, fresh, in_database};
use crate::gateway::Process;
use crate::http::{get, metric};
use usher::postgres::migrations;
use usher_devdb::cluster::{Cluster, ClusterOptions};

const PROGRAM: &str = env!("CARGO_BIN_EXE_usher");

#[tokio::test]
async fn an_empty_database_is_one_error_with_the_command_to_run() {
    let (db, url) = (Database::create().await, fresh().await);
    let settings = [
        ("DATABASE_URL", &*url),
        ("SUPABASE_JWT_SECRET", JWT_SECRET),
        ("USHER_TALY_HZ", "a value that nobody sees"),
    ];
    let gateway = Process::start(&db, ([127, 0, 0, 1], 0).into(), &settings).await;
    // The chores fail once a second, and each caller's question fails as well.
    until("several queries have failed", async || {
        let path = format!("/v1/sessions/{}/messages", Uuid::new_v4());
        get(gateway.at, &path, &[])
            .await
            .is_refusal(500, "internal");
        metric(gateway.at, "usher_query_failures_total").await >= 10.0
    })
    .await;
    assert_eq!(get(gateway.at, "/readyz", &[]).await.status, 503);

    let lines = gateway.lines();
    let of_level = |level: &str| -> Vec<String> {
        let events = lines
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        events
            .filter(|event| event["level"] == level)
            .map(|event| event["message"].as_str().unwrap().to_owned())
            .collect()
    };
    let errors = of_level("ERROR");
    assert_eq!(errors.len(), 1, "{lines:#?}");
    assert!(errors[0].contains("`usher migrate up`"), "{errors:?}");
    // A misspelt setting is a warning, and its value is in no line.
    let warnings = of_level("WARN");
    assert_eq!(
        warnings,
        ["USHER_TALY_HZ is not a setting: did you mean USHER_TALLY_HZ?"]
    );
    assert!(!lines.concat().contains("nobody sees"), "{lines:#?}");

    let mut client = connect(&url).await;
    migrations::shim(&mut client).await.unwrap();
    migrations::up(&mut client).await.unwrap();
    until("the gateway is ready", async || {
        get(gateway.at, "/readyz", &[]).await.status == 200
    })
    .await;
    let lines = gateway.lines().concat();
    assert!(
        lines.contains("the database has what this gateway calls"),
        "{lines}"
    );
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_told_from_one_that_is_wrong() {
    let db = Database::create().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let is_taken = format!("port {port} is taken");
    for (listen, words) in [
        (format!("127.0.0.1:{port}"), &*is_taken),
        (format!("localhost:{port}"), &is_taken),
        (port.to_string(), &is_taken),
        (
            "192.0.2.1:4000".to_owned(),
            "this machine does not have the address 192.0.2.1",
        ),
        (
            "example.com:4000".to_owned(),
            "localhost:4000, or a port alone",
        ),
    ] {
        for command in ["serve", "dev"] {
            let settings = [
                ("DATABASE_URL", &*db.gateway_url),
                ("SUPABASE_JWT_SECRET", JWT_SECRET),
                ("USHER_LISTEN", &listen),
            ];
            let (status, output) = usher(&[command], &settings);
            assert_ne!(status, Some(0), "{command} {listen}");
            assert!(output.contains(words), "{command} {listen}: {output}");
            assert!(!output.contains("os error"), "{command} {listen}: {output}");
        }
    }
}

#[tokio::test]
async fn a_bare_postgres_is_told_from_a_supabase_project() {
    let url = fresh().await;
    let settings = [("DATABASE_URL", &*url)];
    let (status, output) = usher(&["migrate", "up"], &settings);
    assert_eq!(status, Some(1));
    for words in ["table auth.users", "usher migrate up --shim"] {
        assert!(output.contains(words), "{output}");
    }
    // Nothing has happened, and the advice is good.
    let (status, output) = usher(&["migrate", "up", "--shim"], &settings);
    assert_eq!(status, Some(0), "{output}");
    let (status, output) = usher(&["migrate", "up"], &settings);
    assert_eq!((status, output.trim()), (Some(0), "nothing to do"));
}

#[tokio::test]
async fn the_gateways_role_is_told_who_migrates() {
    let db = Database::create().await;
    let settings = [
        ("DATABASE_URL", &*db.gateway_url),
        ("USHER_MIGRATE_URL", "a value that nobody sees"),
    ];
    for arguments in [&["status"][..], &["down"], &["up"]] {
        let (status, output) = usher(&[&["migrate"], arguments].concat(), &settings);
        assert_eq!(status, Some(1));
        for words in [
            "on Supabase: postgres",
            "warning: USHER_MIGRATE_URL is not a setting",
        ] {
            assert!(output.contains(words), "{arguments:?}: {output}");
        }
        // The role must have no privileges itself.
        for words in ["grant ", "nobody sees"] {
            assert!(!output.contains(words), "{arguments:?}: {output}");
        }
    }
}

/// From Postgres 16 on, CREATEROLE alone does not let a role grant other roles. The advised grants must be enough.
#[tokio::test]
async fn a_role_that_may_not_migrate_is_told_which_grants_help() {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let superuser = connect(&cluster.superuser_url()).await;
    superuser
        .batch_execute("create role migrator login password 'pw'")
        .await
        .unwrap();
    superuser
        .batch_execute("create database project owner migrator")
        .await
        .unwrap();
    let url = in_database(&cluster.superuser_url(), "project");
    let mut project = connect(&url).await;
    migrations::shim(&mut project).await.unwrap();
    // As a project whose owner was replaced, or a Postgres of one's own: the role has none of what `postgres` has there.
    project
        .batch_execute(
            "revoke anon, authenticated, service_role from migrator;
            alter database project owner to postgres",
        )
        .await
        .unwrap();
    let url = cluster.url_for("migrator", "pw", "project");
    let settings = [("DATABASE_URL", &*url)];
    let mut advised = Vec::new();
    // One error names all missing rights, except those that later migrations need.
    let output = loop {
        let (status, output) = usher(&["migrate", "up"], &settings);
        if status == Some(0) {
            break output;
        }
        let advice = output.lines().find_map(|line| {
            line.trim()
                .strip_prefix("to do: run as a superuser, and then try again: ")
        });
        let advice = advice
            .unwrap_or_else(|| panic!("no advice: {output}"))
            .to_owned();
        assert!(!advised.contains(&advice), "it did not help: {output}");
        project.batch_execute(&advice).await.unwrap();
        advised.push(advice);
    };
    assert!(output.contains("applied "), "{output}");
    let advised = advised.join("\n");
    assert!(
        advised.contains("grant create on database project to migrator"),
        "{advised}"
    );
    let version: i32 = project
        .query_one("select current_setting('server_version_num')::integer", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(
        advised.contains("grant anon, authenticated to migrator with admin option"),
        version >= 160_000,
        "{advised}"
    );
    cluster.stop().await;
}

/// Runs a command to its end, with these variables alone; what it wrote.
fn usher(arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Command::new(PROGRAM)
        .args(arguments)
        .env_clear()
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code(), text)
}

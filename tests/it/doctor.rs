//! `usher doctor` from outside: a good configuration, and broken ones, one by one.

use std::process::{Command, Output};

use serde_json::Value;

use crate::database::{Database, JWT_SECRET};

#[tokio::test]
async fn a_good_configuration_has_no_failure() {
    let db = Database::create().await;
    let report = report(&doctor(&db, &[]));
    assert_eq!(report["ok"], true, "{report:#}");
    for check in [
        "database",
        "postgres",
        "clock",
        "role",
        "migrations",
        "grants",
        "row level security",
        "triggers",
        "listen",
    ] {
        assert_eq!(verdict(&report, check), "ok", "{check}: {report:#}");
    }
    // The resume secret is not set: nothing fails, and it is said.
    assert_eq!(verdict(&report, "settings"), "warning");
    assert!(
        report.to_string().contains("USHER_RESUME_SECRET"),
        "{report:#}"
    );
}

#[tokio::test]
async fn what_is_broken_is_named_with_what_to_do() {
    for (sql, check, words) in [
        (
            "alter table public.votes disable trigger votes_cast",
            "triggers",
            "votes_cast on public.votes",
        ),
        (
            "alter table public.chat_messages disable row level security",
            "row level security",
            "public.chat_messages",
        ),
        (
            "drop function usher.close_due_votings()",
            "migrations",
            "_lookups.sql",
        ),
        (
            "create or replace function usher.close_due_votings() returns integer language sql as $$ select 0 $$",
            "migrations",
            "_lookups.sql",
        ),
        (
            "revoke execute on function usher.tallies(uuid[]) from usher_gateway",
            "grants",
            "usher.tallies",
        ),
        (
            "revoke usage on schema usher from usher_gateway",
            "role",
            "schema usher",
        ),
    ] {
        let db = Database::create().await;
        db.run(sql).await;
        let output = doctor(&db, &[]);
        let report = report(&output);
        assert_eq!(verdict(&report, check), "failed", "{sql}: {report:#}");
        assert!(report.to_string().contains(words), "{sql}: {report:#}");
        assert_eq!(output.status.code(), Some(1), "{sql}");
    }
}

#[tokio::test]
async fn settings_and_addresses_that_are_wrong_are_named_and_no_secret_is() {
    let db = Database::create().await;
    for (name, value, words) in [
        ("SUPABASE_JWT_SECRET", "short", "it has 5 bytes"),
        ("USHER_TALLY_HZ", "0", "USHER_TALLY_HZ"),
        (
            "DATABASE_URL",
            "postgres://u:s3cret@127.0.0.1:1/d",
            "host and port",
        ),
        (
            "DATABASE_URL",
            "postgres://u:s3cret@no.such.host.invalid/d",
            "has no address",
        ),
        (
            "DATABASE_URL",
            &db.gateway_url
                .replacen(':', ":s3cret", 2)
                .replace(":s3cret//", "://"),
            "database",
        ),
        ("USHER_JWKS_URL", "http://127.0.0.1:1/jwks", "keys"),
    ] {
        let output = doctor(&db, &[(name, value)]);
        let report = report(&output);
        assert_eq!(report["ok"], false, "{name}={value}: {report:#}");
        assert!(
            report.to_string().contains(words),
            "{name}={value}: {report:#}"
        );
        let shown = format!("{output:?}");
        assert!(
            !shown.contains("s3cret") && !shown.contains(JWT_SECRET),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn for_people_each_finding_is_a_line_with_what_to_do_below() {
    let db = Database::create().await;
    db.run("alter table public.votes disable trigger votes_cast")
        .await;
    let output = command(&db, &[]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("failed   triggers: missing or disabled: votes_cast"),
        "{text}"
    );
    assert!(text.contains("to do: alter table"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}

fn doctor(db: &Database, settings: &[(&str, &str)]) -> Output {
    command(db, settings).arg("--json").output().unwrap()
}

fn command(db: &Database, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_usher"));
    command
        .arg("doctor")
        .env_clear()
        .env("DATABASE_URL", &db.gateway_url)
        .env("SUPABASE_JWT_SECRET", JWT_SECRET)
        .envs(settings.iter().copied());
    command
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The worst verdict of a check.
fn verdict<'a>(report: &'a Value, check: &str) -> &'a str {
    let findings = report["findings"].as_array().unwrap().iter();
    let verdicts: Vec<&str> = findings
        .filter(|finding| finding["check"] == check)
        .map(|finding| finding["verdict"].as_str().unwrap())
        .collect();
    let worst = ["failed", "warning", "ok"].into_iter();
    worst
        .into_iter()
        .find(|one| verdicts.contains(one))
        .unwrap_or("absent")
}

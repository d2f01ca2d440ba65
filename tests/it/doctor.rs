//! Proves the findings of `usher doctor`, run as a process: on a good configuration, and on broken ones, one by one.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use uuid::Uuid;

use crate::certificates::{Authority, Files};
use crate::database::{Database, JWT_SECRET};
use crate::key_server::{Answer, KeyServer};
use crate::keys::{TestKey, key_set};
use crate::postgres_tls::Server;

const PROGRAM: &str = env!("CARGO_BIN_EXE_usher");

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
        "isolation",
        "buckets",
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
async fn doctor_names_each_broken_part_and_its_fix() {
    for (sql, check, words) in [
        (
            "alter table public.votes disable trigger \"00_usher_cast\"",
            "triggers",
            "00_usher_cast on public.votes",
        ),
        (
            "alter table public.chat_messages disable row level security",
            "row level security",
            "public.chat_messages",
        ),
        (
            "drop function usher.close_due_votings()",
            "migrations",
            "_gateway_reads.sql",
        ),
        (
            "create or replace function usher.close_due_votings() returns integer language sql as $$ select 0 $$",
            "migrations",
            "_gateway_reads.sql",
        ),
        (
            "revoke execute on function usher.tallies(uuid[]) from usher_gateway",
            "grants",
            "the gateway may not call usher.tallies",
        ),
        (
            "revoke execute on function usher.heads(uuid[]) from usher_gateway",
            "grants",
            "the gateway may not call usher.heads",
        ),
        (
            "revoke execute on function usher.admit(uuid) from anon",
            "grants",
            "callers may not call usher.admit",
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
async fn a_bucket_that_was_there_and_differs_is_reported() {
    let db = Database::create().await;
    assert_eq!(verdict(&report(&doctor(&db, &[])), "buckets"), "ok");
    for (sql, words) in [
        (
            "update storage.buckets set public = false where id = 'avatars'",
            "bucket avatars was there before: it is private",
        ),
        (
            "update storage.buckets set file_size_limit = null where id = 'posters'",
            "it takes files of any size, not of up to 5242880",
        ),
        (
            "update storage.buckets set allowed_mime_types = array['image/png'] where id = 'posters'",
            "it takes image/png, not image/png, image/jpeg, image/webp",
        ),
        (
            "drop policy usher_avatars_select on storage.objects",
            "it has none of Usher's policies",
        ),
        (
            "delete from storage.buckets where id = 'posters'",
            "there is no bucket posters",
        ),
    ] {
        db.run(sql).await;
        let report = report(&doctor(&db, &[]));
        assert_eq!(verdict(&report, "buckets"), "warning", "{sql}: {report:#}");
        assert!(report.to_string().contains(words), "{sql}: {report:#}");
    }
}

#[tokio::test]
async fn another_isolation_level_is_said_and_no_failure() {
    let db = Database::create().await;
    let name: String = db.one("select current_database()::text").await;
    db.run(&format!(
        "alter database {name} set default_transaction_isolation = 'serializable'"
    ))
    .await;
    let report = report(&doctor(&db, &[]));
    assert_eq!(verdict(&report, "isolation"), "ok", "{report:#}");
    let words = "default_transaction_isolation is serializable here";
    assert!(report.to_string().contains(words), "{report:#}");
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
            &with_password(&db.gateway_url, "s3cret"),
            "give the role its password",
        ),
        (
            "USHER_JWKS_URL",
            "http://127.0.0.1:1/jwks",
            "http://127.0.0.1:1/jwks: reach the key server: ",
        ),
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
async fn the_issuers_whose_tokens_are_accepted_are_named() {
    let db = Database::create().await;
    for (settings, words) in [
        (
            &[][..],
            "any: neither SUPABASE_URL nor USHER_ISSUER names one",
        ),
        (
            &[(
                "USHER_ISSUER",
                "https://auth.example.org/, https://b.example/auth/v1",
            )],
            "issued by https://auth.example.org/, https://b.example/auth/v1",
        ),
    ] {
        let report = report(&doctor(&db, settings));
        assert_finds(&report, "issuers", "ok", words);
    }
}

#[tokio::test]
async fn the_key_server_is_asked_for_keys_of_use() {
    let db = Database::create().await;
    let server = KeyServer::publish(&[&TestKey::es256("one")]).await;
    let url = server.url();
    for (answer, expected, words) in [
        (None, "ok", "has 1 of use"),
        (
            Some(Answer::Text(key_set(&[]))),
            "failed",
            "has no key of use",
        ),
        (
            Some(Answer::Text("<html>".to_owned())),
            "failed",
            "not a JSON Web Key Set",
        ),
        (Some(Answer::Status(404)), "failed", "answered 404"),
        (
            Some(Answer::Redirect(url.clone())),
            "failed",
            "answered 302",
        ),
        (Some(Answer::Stuck), "failed", "did not answer within"),
    ] {
        if let Some(answer) = answer {
            server.answer(answer);
        }
        let report = report_of(command(&db, &[("USHER_JWKS_URL", &url)])).await;
        assert_finds(&report, "keys", expected, words);
    }
}

#[tokio::test]
async fn a_role_that_the_policies_do_not_bind_or_that_cannot_act_is_named() {
    let db = Database::create().await;
    let report = report_of(command(&db, &[("DATABASE_URL", &db.url)])).await;
    assert_finds(
        &report,
        "role",
        "failed",
        "it is a superuser or has BYPASSRLS",
    );
    let name = format!("role_{}", Uuid::new_v4().simple());
    db.run(&format!(
        "create role {name} login noinherit password 'pw'; grant usage on schema usher to {name}"
    ))
    .await;
    let url = db.gateway_url.replacen("usher_gateway", &name, 1);
    let url = with_password(&url, "pw");
    for (sql, expected, words) in [
        ("grant anon to", "failed", "may not act as authenticated"),
        ("grant authenticated to", "ok", "is bound by every policy"),
        ("alter role {} inherit", "warning", "inherits"),
        (
            "alter role {} noinherit bypassrls",
            "failed",
            "has BYPASSRLS",
        ),
    ] {
        let sql = sql.replace("{}", &name);
        let sql = if sql.ends_with(" to") {
            format!("{sql} {name}")
        } else {
            sql
        };
        db.run(&sql).await;
        let report = report_of(command(&db, &[("DATABASE_URL", &url)])).await;
        assert_finds(&report, "role", expected, words);
    }
}

#[tokio::test]
async fn the_room_for_connections_is_counted_for_server_role_and_database() {
    let db = Database::create().await;
    let report = report_of(command(&db, &[])).await;
    assert_finds(
        &report,
        "connections",
        "ok",
        "that the server takes are free; a gateway needs 5",
    );
    let report = report_of(command(&db, &[("USHER_POOL_SIZE", "64")])).await;
    assert!(
        report.to_string().contains("a gateway needs 65"),
        "{report:#}"
    );

    let database: String = db.one("select current_database()::text").await;
    // The test's own connection and the gateway's five.
    for (limit, expected) in [(6, "ok"), (5, "warning")] {
        db.run(&format!(
            "alter database {database} connection limit {limit}"
        ))
        .await;
        let report = report_of(command(&db, &[])).await;
        let words = format!("of the {limit} that the database {database} takes are free");
        assert_finds(&report, "connections", expected, &words);
    }
    db.run(&format!("alter database {database} connection limit -1"))
        .await;

    let name = format!("role_{}", Uuid::new_v4().simple());
    db.run(&format!(
        "create role {name} login connection limit 4 password 'pw'"
    ))
    .await;
    let url = with_password(&db.gateway_url.replacen("usher_gateway", &name, 1), "pw");
    let report = report_of(command(&db, &[("DATABASE_URL", &url)])).await;
    let words = format!("4 of the 4 that the role {name} takes are free");
    assert_finds(&report, "connections", "warning", &words);
}

#[tokio::test]
async fn a_clock_that_is_off_is_named() {
    let folders = fs::read_dir("/usr/lib").unwrap().flatten();
    let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let library = libraries
        .find(|library| library.exists())
        .expect("libfaketime is needed: apt install faketime");
    let db = Database::create().await;
    for (offset, expected) in [("+0.2s", "ok"), ("+5s", "warning"), ("-1h", "warning")] {
        let mut command = command(&db, &[]);
        command
            .env("LD_PRELOAD", &library)
            .env("FAKETIME", offset)
            .env("DONT_FAKE_MONOTONIC", "1");
        let report = report_of(command).await;
        assert_finds(&report, "clock", expected, "ms apart at most");
    }
}

#[tokio::test]
async fn a_file_limit_that_allows_fewer_sockets_is_named() {
    let db = Database::create().await;
    for (sockets, expected, words) in [
        ("128", "ok", "256 files are enough for 128 sockets"),
        (
            "129",
            "warning",
            "256 files allow 128 sockets, not USHER_MAX_CONNECTIONS=129",
        ),
    ] {
        let settings = [("USHER_MAX_CONNECTIONS", sockets)];
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n 256; exec \"$@\"", "sh", PROGRAM, "doctor"]);
        set(&mut limited, &db, &settings);
        let report = report_of(limited).await;
        assert_finds(&report, "file limit", expected, words);
    }
}

#[tokio::test]
async fn certificates_that_end_soon_are_named_before_they_do() {
    let authority = Authority::new("an authority");
    let server = Server::start().await;
    let db = Database::create().await;
    for (days, expected, words) in [
        (90, "ok", "has 90 days left"),
        (13, "warning", "has 13 days left"),
        (0, "warning", "has 0 days left"),
    ] {
        let pair = authority.issue_for_days(&["localhost"], days);
        let files = Files::new(&pair);
        server.show(&pair).await;
        let settings = [
            ("USHER_TLS_CERT", files.chain.to_str().unwrap()),
            ("USHER_TLS_KEY", files.key.to_str().unwrap()),
            ("DATABASE_URL", &server.url("sslmode=require")),
        ];
        let report = report_of(command(&db, &settings)).await;
        assert_finds(&report, "listener certificate", expected, words);
        assert_finds(&report, "database certificate", expected, words);
        assert_finds(&report, "database certificate", expected, "CN=an authority");
        assert_finds(
            &report,
            "database",
            "ok",
            "answers under TLS (sslmode Require)",
        );
    }
    let pair = authority.issue_until(&["localhost"], 2020);
    let files = Files::new(&pair);
    server.show(&pair).await;
    let settings = [
        ("USHER_TLS_CERT", files.chain.to_str().unwrap()),
        ("USHER_TLS_KEY", files.key.to_str().unwrap()),
        ("USHER_PG_ROOT_CERT", &authority.pem()),
        ("DATABASE_URL", &server.url("sslmode=verify-full")),
    ];
    let report = report_of(command(&db, &settings)).await;
    assert_finds(&report, "listener certificate", "failed", "has expired");
    assert_finds(&report, "database certificate", "failed", "has expired");
    assert_finds(&report, "database", "failed", "renew it at the server");
    server.cluster.stop().await;
}

#[tokio::test]
async fn for_people_each_finding_is_a_line_with_what_to_do_below() {
    let db = Database::create().await;
    db.run("alter table public.votes disable trigger \"00_usher_cast\"")
        .await;
    let output = command(&db, &[]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("failed   triggers: missing or disabled: 00_usher_cast"),
        "{text}"
    );
    assert!(text.contains("to do: alter table"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}

pub(crate) fn doctor(db: &Database, settings: &[(&str, &str)]) -> Output {
    command(db, settings).arg("--json").output().unwrap()
}

fn command(db: &Database, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(PROGRAM);
    set(command.arg("doctor"), db, settings);
    command
}

fn set(command: &mut Command, db: &Database, settings: &[(&str, &str)]) {
    command
        .env_clear()
        .env("DATABASE_URL", &db.gateway_url)
        .env("SUPABASE_JWT_SECRET", JWT_SECRET)
        .envs(settings.iter().copied());
}

/// What it says, while the servers of the test go on.
async fn report_of(mut command: Command) -> Value {
    let run = move || command.arg("--json").output().unwrap();
    report(&tokio::task::spawn_blocking(run).await.unwrap())
}

/// The URL with another password.
fn with_password(url: &str, password: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (login, place) = rest.split_once('@').unwrap();
    let (user, _) = login.split_once(':').unwrap();
    format!("{scheme}://{user}:{password}@{place}")
}

pub(crate) fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// One finding of a check has a verdict, and these words in what was found or is to be done.
pub(crate) fn assert_finds(report: &Value, check: &str, verdict: &str, words: &str) {
    let mut findings = report["findings"].as_array().unwrap().iter();
    let is_found = findings.any(|finding| {
        let texts = [&finding["found"], &finding["advice"]];
        let mut texts = texts.into_iter().filter_map(Value::as_str);
        finding["check"] == check
            && finding["verdict"] == verdict
            && texts.any(|text| text.contains(words))
    });
    assert!(is_found, "{check} {verdict} {words}: {report:#}");
}

/// The worst verdict of a check.
pub(crate) fn verdict<'a>(report: &'a Value, check: &str) -> &'a str {
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

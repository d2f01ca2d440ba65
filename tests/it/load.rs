//! Proves `usher load`: runs the real binary against a real gateway and compares its report with the database.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use usher::config::rates::Rate;
use uuid::Uuid;

use crate::database::{Database, JWT_SECRET};
use crate::gateway::{Gateway, Process};

const SOUND: i32 = 0;
const VOID: i32 = 3;
const BROKEN: i32 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn the_counts_of_the_report_match_the_database() {
    let stage = Stage::new().await;
    let movies = stage.db.movies(3).await;
    let voting = stage.db.voting(stage.session, &movies, "").await;
    let gateway = Gateway::start(&stage.db, |_| {}).await;
    let output = stage
        .load(gateway.at)
        .args(["--jwt-secret", JWT_SECRET])
        .with("--viewers 40 --chatters 4 --voters 6 --rate 30")
        .with("--warm-up 0.5 --duration 3 --storm 50%@1 --slow 4 --threads 2")
        .run()
        .await;
    // On a busy machine the generator may be late, and reports it.
    assert!(
        [Some(SOUND), Some(VOID)].contains(&output.status.code()),
        "{}",
        text(&output)
    );
    let outcome = stage.outcome();

    let run = outcome["run"]["id"].as_str().unwrap();
    let rows = format!("select count(*) from public.chat_messages where body like 'load {run} %'");
    let rows: i64 = stage.db.one(&rows).await;
    assert_eq!(outcome["messages"]["acknowledged"], rows);
    assert_eq!(outcome["messages"]["due"], 105);
    assert_eq!(rows, 105);
    let votes: u64 = stage
        .db
        .count_votes(voting)
        .await
        .iter()
        .map(|(_, votes)| votes)
        .sum();
    assert_eq!(
        (outcome["votes"]["acknowledged"].as_u64(), votes),
        (Some(6), 6)
    );

    let audit = &outcome["audit"];
    for fault in ["lost", "duplicates", "gaps", "order_errors", "skipped"] {
        assert_eq!(audit[fault], 0, "{fault}: {audit}");
    }
    // Every viewer received the log from its position at the start of the subscription.
    let head = stage.db.head(stage.session).await;
    let received = audit["received"].as_u64().unwrap();
    assert_eq!(outcome["expected"], received);
    assert!(
        received >= 40 * 105 && received <= 40 * head,
        "{received} of {head}"
    );
    // Latency is that of messages that were due in the measured time, of viewers that were there and read.
    let measured = outcome["latency"]["count"].as_u64().unwrap();
    assert!(measured > 16 * 90 && measured <= 36 * 90, "{measured}");
    assert_eq!(outcome["ack"]["count"], 90);
    let (dropped, whole) = (&outcome["storm"]["dropped"], &outcome["storm"]["whole"]);
    assert_eq!((dropped.as_u64(), whole.as_u64()), (Some(18), Some(18)));
    assert_eq!(
        (&outcome["slow"]["stalled"], &outcome["absent"]),
        (&Value::from(4), &Value::from(0))
    );
    assert_eq!(outcome["connect"]["count"], 40);

    says_zero_and_draws(&stage, &output);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_can_be_inserted_past_the_gateway_into_many_sessions() {
    let stage = Stage::new().await;
    let streamer = stage.db.user("another").await;
    let other = stage.db.session(&streamer).await.to_string();
    let gateway = Gateway::start(&stage.db, |_| {}).await;
    let output = stage
        .load(gateway.at)
        .args(["--session", &other])
        .with("--viewers 20 --rate 40 --warm-up 0 --duration 2")
        .with("--addresses 3 --forwarded")
        .run()
        .await;
    assert!(
        [Some(SOUND), Some(VOID)].contains(&output.status.code()),
        "{}",
        text(&output)
    );
    let outcome = stage.outcome();
    assert_eq!(outcome["run"]["written_by"], "database");
    assert_eq!(
        (
            &outcome["messages"]["acknowledged"],
            &outcome["insert"]["count"]
        ),
        (&80.into(), &80.into())
    );
    // Ten viewers in each of two sessions, which have forty messages each.
    assert_eq!(outcome["latency"]["count"], 800);
    assert_eq!(outcome["audit"]["lost"], 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_ends_and_names_what_ended_it() {
    let stage = Stage::new().await;
    let gateway = Gateway::start(&stage.db, |_| {}).await;
    let output = stage
        .load(gateway.at)
        .with("--viewers 5 --rate 4 --find-limit --step 0.5 --bound 0.001")
        .run()
        .await;
    // Nothing is delivered within a microsecond, so the search goes down until there is nothing to try.
    assert_eq!(output.status.code(), Some(SOUND), "{}", text(&output));
    let search = &stage.outcome()["search"];
    assert_eq!(
        (&search["knee_rate"], &search["bound_ms"]),
        (&Value::Null, &Value::from(0.001))
    );
    let rates: Vec<f64> = search["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["rate"].as_f64().unwrap())
        .collect();
    assert_eq!(rates, [4.0, 2.0, 1.0]);
    assert!(
        search["limited_by"].as_str().unwrap().contains("p99 was"),
        "{search}"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_is_not_covered_up() {
    let stage = Stage::new().await;
    let gateway = Process::serve(&stage.db, ([127, 0, 0, 1], 0).into()).await;
    let mut load = stage.load(gateway.at);
    load.with("--viewers 10 --rate 40 --warm-up 0 --duration 4 --drain 0.5");
    let mut child = load
        .command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(
        lines.any(|line| line.contains("measuring")),
        "it never measured"
    );
    gateway.kill();
    let (status, words) = tokio::task::spawn_blocking(move || {
        thread::spawn(move || lines.count());
        let mut words = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut words)
            .unwrap();
        (child.wait().unwrap(), words)
    })
    .await
    .unwrap();
    assert_eq!(status.code(), Some(BROKEN), "{words}");
    let outcome = stage.outcome();
    // The database continued, and its numbers show the events that no viewer received.
    let lost = outcome["audit"]["lost"].as_u64().unwrap();
    let head = stage.db.head(stage.session).await;
    assert_eq!(
        lost + outcome["audit"]["received"].as_u64().unwrap(),
        10 * head
    );
    assert!(lost >= 100, "{lost} of {head}");
    assert_eq!(
        (&outcome["absent"], &outcome["closes"]["1006"]),
        (&10.into(), &10.into())
    );
    assert!(
        words.contains("BROKEN") && words.contains("10 of 10 viewers were not watching at the end"),
        "{words}"
    );
    assert!(words.contains("no server listens there"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_by_name_with_what_to_do() {
    let stage = Stage::new().await;
    let gateway = Gateway::start(&stage.db, |config| {
        config.rates.messages = Some(Rate {
            count: NonZero::new(3).unwrap(),
            period: Duration::from_secs(60),
        });
    })
    .await;
    let output = stage
        .load(gateway.at)
        .args(["--jwt-secret", JWT_SECRET, "--chatters", "2"])
        .with("--viewers 3 --rate 10 --warm-up 0 --duration 2 --drain 2")
        .run()
        .await;
    let outcome = stage.outcome();
    assert_eq!(outcome["messages"]["acknowledged"], 6);
    assert_eq!(outcome["messages"]["refused"]["rate_limited"], 14);
    let words = text(&output);
    assert!(
        words.contains("14 messages were refused as rate_limited")
            && words.contains("USHER_LIMIT_MESSAGES"),
        "{words}"
    );
    gateway.stop().await;

    let gateway = Gateway::start(&stage.db, |config| config.connections_max = 4).await;
    let mut load = stage.load(gateway.at);
    load.with("--viewers 12 --ramp 100 --duration 1");
    let mut child = load
        .command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let words = tokio::task::spawn_blocking(move || {
        let mut words = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut words)
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1));
        words
    })
    .await
    .unwrap();
    assert!(
        words.contains("of 12 viewers joined") && words.contains("USHER_MAX_CONNECTIONS"),
        "{words}"
    );
    gateway.stop().await;
}

#[test]
fn a_wrong_argument_is_named_with_what_would_be_right() {
    let session = Uuid::from_u128(7).to_string();
    let there = ["--url", "ws://127.0.0.1:1", "--session", &session];
    let with = |more: &[&'static str]| [&there, more].concat();
    refused(&[], 2, "--url <URL>");
    refused(
        &["--url", "ws://a", "--session", "x"],
        2,
        "invalid value 'x' for '--session <UUID>'",
    );
    refused(&["--viewers", "0"], 2, "0 is not in 1..=1000000");
    refused(&["--rate=-1"], 2, "it must be a number above 0");
    refused(
        &["--storm", "a"],
        2,
        "it must be viewers, and maybe a second",
    );
    refused(&["--find-limit", "--voters", "3"], 2, "cannot be used with");
    refused(
        &["--url", "a:b:c", "--session", &session],
        1,
        "--url must have the form ws://host:port",
    );
    refused(&with(&["--tokens", "/nowhere"]), 1, "read /nowhere");
    refused(&with(&[]), 1, "writers and signed-in viewers need tokens");
    refused(
        &with(&["--write-by", "database"]),
        1,
        "needs --database-url",
    );
    refused(
        &with(&["--database-url", "mysql://a"]),
        1,
        "it must begin with postgres://",
    );
    refused(
        &["--dev", "/dev/null"],
        1,
        "must contain the line that `usher dev --json` prints",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_target_is_reported_immediately() {
    let stage = Stage::new().await;
    let gateway = Gateway::start(&stage.db, |_| {}).await;
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let strange = stranger();
    let session = stage.session.to_string();
    let drive = |url: &str, session: &str, more: &[&str], expected: &str| {
        let args = [
            "--url",
            url,
            "--session",
            session,
            "--database-url",
            &stage.db.url,
        ];
        refused(&[&args, more].concat(), 1, expected);
    };
    let here = format!("ws://{}", gateway.at);
    drive(
        "a:b:c",
        &session,
        &[],
        "--url must have the form ws://host:port",
    );
    drive(
        &format!("ws://{free}"),
        &session,
        &[],
        "is the gateway running there?",
    );
    drive(
        &format!("ws://{strange}"),
        &session,
        &[],
        "does not speak HTTP",
    );
    drive(
        &format!("{here}/nothing"),
        &session,
        &[],
        "an Usher's path is /v1/socket",
    );
    let nobody = Uuid::from_u128(7).to_string();
    drive(&here, &nobody, &[], "cannot be watched there: not_found");
    drive(
        &here,
        &session,
        &["--storm", "5@60"],
        "within the measured time",
    );
    drive(
        &here,
        &session,
        &["--report", "/nowhere/r.html"],
        "write /nowhere/r.html",
    );
    let voters = [
        "--jwt-secret",
        JWT_SECRET,
        "--voters",
        "2",
        "--viewers",
        "2",
    ];
    drive(&here, &session, &voters, "no open poll");
    gateway.stop().await;
}

/// The terminal and the report of a good run.
fn says_zero_and_draws(stage: &Stage, output: &Output) {
    let words = text(output);
    assert!(
        words.contains("lost 0   doubled 0   gaps 0   out of order 0"),
        "{words}"
    );
    let report = fs::read_to_string(stage.home.path().join("report.html")).unwrap();
    assert!(report.starts_with("<!doctype html>") && report.ends_with("</html>\n"));
    assert!(
        !report.contains("http")
            && !report.contains("src=")
            && report.matches("<figure").count() == 5
    );
}

// ---- what the tests stand on ----

/// A database with a live session, and a place for results.
struct Stage {
    db: Database,
    session: Uuid,
    home: TempDir,
}

impl Stage {
    async fn new() -> Self {
        let db = Database::create().await;
        let streamer = db.user("nora").await;
        Self {
            session: db.session(&streamer).await,
            home: tempfile::tempdir().unwrap(),
            db,
        }
    }

    /// A run against this gateway and database, with results in files.
    fn load(&self, at: SocketAddr) -> Load {
        let mut command = Command::new(env!("CARGO_BIN_EXE_usher"));
        command
            .args([
                "load",
                "--url",
                &format!("ws://{at}"),
                "--session",
                &self.session.to_string(),
            ])
            .args(["--database-url", &self.db.url])
            .arg("--json")
            .arg(self.home.path().join("outcome.json"))
            .arg("--report")
            .arg(self.home.path().join("report.html"))
            .env_clear()
            .stdin(Stdio::null());
        Load { command }
    }

    fn outcome(&self) -> Value {
        let json = fs::read_to_string(self.home.path().join("outcome.json")).unwrap();
        serde_json::from_str(&json).unwrap()
    }
}

struct Load {
    command: Command,
}

impl Load {
    /// Adds arguments that hold no blanks.
    fn with(&mut self, words: &str) -> &mut Self {
        self.command.args(words.split(' '));
        self
    }

    fn args<const N: usize>(&mut self, args: [&str; N]) -> &mut Self {
        self.command.args(args);
        self
    }

    async fn run(&mut self) -> Output {
        let mut child = self
            .command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        tokio::task::spawn_blocking(move || {
            let mut output = Output {
                status: Default::default(),
                stdout: Vec::new(),
                stderr: Vec::new(),
            };
            child
                .stdout
                .take()
                .unwrap()
                .read_to_end(&mut output.stdout)
                .unwrap();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_end(&mut output.stderr)
                .unwrap();
            output.status = child.wait().unwrap();
            output
        })
        .await
        .unwrap()
    }
}

fn text(output: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{out}\n{err}")
}

/// A server that speaks another protocol.
fn stranger() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let _ = socket.unwrap().write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
        }
    });
    at
}

/// Runs `usher load` with arguments that cannot be.
fn refused(args: &[&str], status: i32, expected: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_usher"))
        .arg("load")
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let words = text(&output);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {words}");
    assert!(words.contains(expected), "{args:?} says: {words}");
    assert!(!words.contains(JWT_SECRET), "{words}");
}

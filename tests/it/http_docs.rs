//! Runs the examples of docs/http.md unchanged and in order against `usher dev`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Before the examples: each answer of curl goes to a file, and waiting ends when there is something to read.
const PRELUDE: &str = r#"
set -eu
trap 'kill $(jobs -p)' EXIT
uuidgen() { cat /proc/sys/kernel/random/uuid; }
sleep() { for _ in $(seq 600); do [ -s demo.json ] && return; command sleep 0.1; done; }
calls=0
curl() {
    calls=$((calls + 1))
    command curl --silent --output "answer-$calls" --write-out '%{http_code}' "$@" >"status-$calls" || true
}
"#;

/// The expected answers of the examples: the status, and a part of the body.
const ANSWERS: [(&str, &[&str]); 11] = [
    // The log.
    (
        "200",
        &["/data/events", "/data/head", "/data/floor", "/data/epoch"],
    ),
    // Chat.
    ("200", &["/data/messages", "/data/next"]),
    ("201", &["/data/seq", "/data/message"]),
    // Votings.
    (
        "200",
        &[
            "/data/type",
            "/data/status",
            "/data/version",
            "/data/total",
            "/data/counts",
        ],
    ),
    ("200", &["/data/voting", "/data/movie"]),
    ("200", &["/data/voting", "/data/movie"]),
    // Moderation.
    ("200", &["/data"]),
    ("200", &["/data/movies"]),
    ("201", &["/data"]),
    ("200", &["/data"]),
    // Server-Sent Events.
    ("200", &[]),
];

#[test]
fn every_example_is_answered_as_the_page_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/http.md");
    let page = fs::read_to_string(page).unwrap();
    let blocks = page.split("```sh\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap());
    let examples: String = blocks.collect();
    let script = examples.replacen("127.0.0.1:4000", "127.0.0.1:0", 1);
    assert_ne!(
        script, examples,
        "usher dev is started by the first example"
    );

    let home = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_usher")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-c", &format!("{PRELUDE}{script}")])
        .current_dir(home.path())
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");

    let read = |name: String| fs::read_to_string(home.path().join(name));
    for (number, (status, fields)) in (1..).zip(ANSWERS) {
        let body = read(format!("answer-{number}")).unwrap();
        assert_eq!(
            read(format!("status-{number}")).unwrap(),
            status,
            "call {number}: {body}"
        );
        if fields.is_empty() {
            assert!(body.contains(r#"data: {"type":"subscribed""#), "{body}");
            continue;
        }
        let body: Value = serde_json::from_str(&body).unwrap();
        for field in fields {
            assert!(
                body.pointer(field).is_some(),
                "call {number}, {field}: {body}"
            );
        }
    }
    let more = read(format!("status-{}", ANSWERS.len() + 1));
    assert!(more.is_err(), "the table of answers lacks an example");
}

//! The pgTAP files of `sql/tests`, each in a database of its own.

use std::path::Path;

use tokio_postgres::SimpleQueryMessage;

use crate::database::Database;

#[tokio::test(flavor = "multi_thread")]
async fn access_is_as_the_pgtap_file_says() {
    check("01_access.sql").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_is_as_the_pgtap_file_says() {
    check("02_chat.sql").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_are_as_the_pgtap_file_says() {
    check("03_votes.sql").await;
}

#[test]
fn every_pgtap_file_is_run() {
    let files = std::fs::read_dir(folder()).unwrap().count();
    assert_eq!(files, 3, "a file of sql/tests has no test here");
}

/// Runs a file and reads its TAP: a plan, then that many lines of which none begins with `not ok`.
async fn check(file: &str) {
    let script = std::fs::read_to_string(folder().join(file)).unwrap();
    let database = Database::create().await;
    let messages = database.client.simple_query(&script).await;
    let messages = messages.expect("the script runs; it needs Debian's postgresql-15-pgtap");
    let lines: Vec<String> = messages
        .iter()
        .filter_map(|message| {
            let SimpleQueryMessage::Row(row) = message else {
                return None;
            };
            row.get(0).map(str::to_owned)
        })
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let plan = lines.iter().find_map(|line| line.strip_prefix("1.."));
    let planned: usize = plan.expect("a plan").trim().parse().unwrap();
    let passed = lines.iter().filter(|line| line.starts_with("ok ")).count();
    assert_eq!(passed, planned, "{file}:\n{}", lines.join("\n"));
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/tests"))
}

//! Reads the output of a pgTAP file.

use std::path::{Path, PathBuf};

use tokio_postgres::{Client, SimpleQueryMessage};

/// The files of `sql/tests`, by name.
pub(crate) fn files() -> Vec<PathBuf> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/tests"));
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Runs a script and gives the number of its assertions, or why it did not pass: the failed ones, or the error that
/// ended it.
pub(crate) async fn run(client: &Client, script: &str) -> Result<usize, String> {
    let messages = client.simple_query(script).await;
    let messages = messages.map_err(|error| match error.as_db_error() {
        Some(error) => format!("ended early: {error}"),
        None => format!("ended early: {error}"),
    })?;
    let texts = messages.iter().filter_map(|message| {
        let SimpleQueryMessage::Row(row) = message else {
            return None;
        };
        row.get(0)
    });
    let lines: Vec<&str> = texts.flat_map(str::lines).collect();
    let failed: Vec<&str> = lines
        .iter()
        .filter(|line| line.starts_with("not ok"))
        .copied()
        .collect();
    let passed = lines.iter().filter(|line| line.starts_with("ok ")).count();
    let planned = lines.iter().find_map(|line| line.strip_prefix("1.."));
    let planned: usize = planned
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0);
    if !failed.is_empty() {
        Err(failed.join("\n"))
    } else if passed != planned || passed == 0 {
        Err(format!("{passed} of {planned} assertions ran"))
    } else {
        Ok(passed)
    }
}

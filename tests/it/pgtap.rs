//! The pgTAP files of `sql/tests`, each in a database of its own.

use crate::database::Database;
use crate::tap;

#[tokio::test(flavor = "multi_thread")]
async fn every_pgtap_file_passes() {
    let files = tap::files();
    assert!(!files.is_empty());
    let mut failures = String::new();
    for file in files {
        let script = std::fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().display();
        let database = Database::create().await;
        // Needs Debian's postgresql-15-pgtap.
        match tap::run(&database.client, &script).await {
            Ok(passed) => println!("{name}: {passed} passed"),
            Err(why) => failures.push_str(&format!("{name}:\n{why}\n")),
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

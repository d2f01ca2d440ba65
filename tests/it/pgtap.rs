//! The pgTAP files of `sql/tests`, each in a database of its own.

use usher::postgres::migrations::{self, Down};

use crate::database::{Database, PROTECT_DELETE, connect, fresh};
use crate::migrations::dump;
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

/// A Supabase project has its extensions in a schema of their own, which only the API roles may use, and refuses deletes in
/// storage.
#[tokio::test(flavor = "multi_thread")]
async fn every_pgtap_file_passes_as_on_supabase() {
    let url = fresh().await;
    let mut client = connect(&url).await;
    migrations::shim(&mut client).await.unwrap();
    client.batch_execute(PROTECT_DELETE).await.unwrap();
    client
        .batch_execute(
            "create schema extensions;
            grant usage on schema extensions to anon, authenticated, service_role;
            do $$
            declare
              extension text;
            begin
              execute format('alter database %I set search_path = \"$user\", public, extensions', current_database());
              -- Builds of Postgres that lack contrib have pgTAP all the same.
              for extension in
                select a.name from pg_available_extensions a where a.name in ('pgtap', 'pgcrypto', 'uuid-ossp')
              loop
                execute format('create extension %I schema extensions', extension);
              end loop;
            end $$",
        )
        .await
        .unwrap();
    let before = dump(&url).await;
    // From here on the path of the database is the connection's.
    let mut client = connect(&url).await;
    migrations::up(&mut client).await.unwrap();
    let mut failures = String::new();
    for file in tap::files() {
        let script = std::fs::read_to_string(&file).unwrap();
        // Each has a connection of its own, whose end rolls it back.
        if let Err(why) = tap::run(&connect(&url).await, &script).await {
            let name = file.file_name().unwrap().display();
            failures.push_str(&format!("{name}:\n{why}\n"));
        }
    }
    assert!(failures.is_empty(), "{failures}");
    let all = Down::To("0".to_owned());
    migrations::down(&mut client, &all).await.unwrap();
    assert_eq!(dump(&url).await, before);
    let buckets = "select count(*) from storage.buckets";
    let buckets: i64 = client.query_one(buckets, &[]).await.unwrap().get(0);
    assert_eq!(buckets, 0);
    migrations::up(&mut client).await.unwrap();
}

//! Runs the pgTAP files of `sql/tests`, each in its own database.

use usher::postgres::migrations::{self, Down};
use usher_devdb::cluster::{Cluster, ClusterOptions};

use crate::database::{Database, PROTECT_DELETE, connect, in_database};
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

/// As on Supabase: who migrates and tests is no superuser, extensions are in a schema of their own that only the API roles
/// may use, and storage refuses deletes.
#[tokio::test(flavor = "multi_thread")]
async fn every_pgtap_file_passes_as_on_supabase() {
    // Roles belong to the cluster, and this one's owner makes the gateway's.
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let superuser = connect(&cluster.superuser_url()).await;
    superuser
        .batch_execute("create role project_owner login createrole bypassrls password 'pw'")
        .await
        .unwrap();
    superuser
        .batch_execute("create database project owner project_owner")
        .await
        .unwrap();
    let mut superuser = connect(&in_database(&cluster.superuser_url(), "project")).await;
    migrations::shim(&mut superuser).await.unwrap();
    superuser.batch_execute(PROTECT_DELETE).await.unwrap();
    superuser
        .batch_execute(
            "create schema extensions;
            grant all on schema extensions to project_owner;
            grant usage on schema extensions to anon, authenticated, service_role;
            -- As supautils does for `postgres`.
            grant set on parameter session_replication_role to project_owner;
            alter role project_owner set search_path = \"$user\", public, extensions;
            do $$
            declare
              extension text;
            begin
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
    let superuser_url = in_database(&cluster.superuser_url(), "project");
    let before = dump(&superuser_url).await;

    let url = cluster.url_for("project_owner", "pw", "project");
    let mut owner = connect(&url).await;
    migrations::up(&mut owner).await.unwrap();
    let mut failures = String::new();
    for file in tap::files() {
        let script = std::fs::read_to_string(&file).unwrap();
        // Each file has its own connection. Closing it rolls the file back.
        if let Err(why) = tap::run(&connect(&url).await, &script).await {
            let name = file.file_name().unwrap().display();
            failures.push_str(&format!("{name}:\n{why}\n"));
        }
    }
    assert!(failures.is_empty(), "{failures}");

    let all = Down::To("0".to_owned());
    migrations::down(&mut owner, &all).await.unwrap();
    assert_eq!(dump(&superuser_url).await, before);
    let buckets = "select count(*) from storage.buckets";
    let buckets: i64 = superuser.query_one(buckets, &[]).await.unwrap().get(0);
    assert_eq!(buckets, 0);
    migrations::up(&mut owner).await.unwrap();
    cluster.stop().await;
}

//! Proves that the migrations apply, revert and apply again, even when many processes start at the same time.

use std::process::Command;

use expect_test::expect_file;
use tokio::task::JoinSet;
use usher::postgres::migrations::{self, Down, MigrationError, MigrationState};
use usher_devdb::{
    binaries::{Binaries, ProgramSearch},
    os_user::OsUser,
};

use crate::database::{connect, fresh};

#[tokio::test]
async fn twenty_concurrent_starts_apply_each_migration_once() {
    let url = fresh().await;
    migrations::shim(&mut connect(&url).await).await.unwrap();

    let mut starters = JoinSet::new();
    for _ in 0..20 {
        let url = url.clone();
        starters.spawn(async move { migrations::up(&mut connect(&url).await).await });
    }
    let mut applied = Vec::new();
    while let Some(starter) = starters.join_next().await {
        applied.extend(starter.unwrap().unwrap());
    }

    applied.sort_by(|a, b| a.version.cmp(&b.version));
    assert_eq!(applied, migrations::all());
    assert!(
        migrations::pending(&connect(&url).await)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn down_then_up_again_leaves_the_same_schema() {
    let url = fresh().await;
    let mut client = connect(&url).await;
    migrations::shim(&mut client).await.unwrap();
    let bare = dump(&url).await;
    migrations::up(&mut client).await.unwrap();
    let whole = dump(&url).await;

    let one = migrations::down(&mut client, &Down::OneStep).await.unwrap();
    assert_eq!(one.first(), migrations::all().last());
    assert_eq!(migrations::up(&mut client).await.unwrap(), one);
    assert_eq!(dump(&url).await, whole);

    let first = migrations::all().swap_remove(0);
    let to = Down::To(first.version.clone());
    let taken_back = migrations::down(&mut client, &to).await.unwrap();
    assert_eq!(taken_back.len(), migrations::all().len() - 1);
    let status = migrations::status(&client).await.unwrap();
    assert_eq!(status[0], (first, MigrationState::Applied));
    assert!(
        status[1..]
            .iter()
            .all(|(_, state)| *state == MigrationState::Pending)
    );

    migrations::down(&mut client, &Down::To("0".to_owned()))
        .await
        .unwrap();
    assert_eq!(dump(&url).await, bare);
    migrations::up(&mut client).await.unwrap();
    assert_eq!(dump(&url).await, whole);
}

#[tokio::test]
async fn each_step_down_can_be_taken_and_taken_back() {
    let url = fresh().await;
    let mut client = connect(&url).await;
    migrations::shim(&mut client).await.unwrap();
    migrations::up(&mut client).await.unwrap();
    for _ in migrations::all() {
        let back = migrations::down(&mut client, &Down::OneStep).await.unwrap();
        let after = dump(&url).await;
        migrations::up(&mut client).await.unwrap();
        let to = back[0].version.clone();
        let before = migrations::all().into_iter().rev().find(|m| m.version < to);
        let to = Down::To(before.map_or("0".to_owned(), |m| m.version));
        migrations::down(&mut client, &to).await.unwrap();
        assert_eq!(dump(&url).await, after, "after {}", back[0].file());
    }
}

#[tokio::test]
async fn the_record_is_in_the_form_of_the_supabase_cli() {
    let url = fresh().await;
    let mut client = connect(&url).await;
    // As an old CLI leaves it, with a migration of the application's own.
    client
        .batch_execute(
            "create schema supabase_migrations;
            create table supabase_migrations.schema_migrations (version text not null primary key);
            insert into supabase_migrations.schema_migrations values ('20200101000000')",
        )
        .await
        .unwrap();
    migrations::shim(&mut client).await.unwrap();
    migrations::up(&mut client).await.unwrap();

    let query =
        "select name, cardinality(statements) > 0 from supabase_migrations.schema_migrations
        where version = $1";
    let first = migrations::all().swap_remove(0);
    let row = client.query_one(query, &[&first.version]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), (Some(first.name), Some(true)));
    let status = migrations::status(&client).await.unwrap();
    assert_eq!(status[0].1, MigrationState::Foreign);
    migrations::down(&mut client, &Down::To("0".to_owned()))
        .await
        .unwrap();
    let foreign = migrations::status(&client).await.unwrap();
    assert_eq!(foreign[0].1, MigrationState::Foreign);
}

#[tokio::test]
async fn a_version_that_is_not_applied_cannot_be_gone_back_to() {
    let url = fresh().await;
    let mut client = connect(&url).await;
    let down = Down::To("20990101000000".to_owned());
    let error = migrations::down(&mut client, &down).await.unwrap_err();
    assert!(
        matches!(error, MigrationError::UnknownVersion { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn the_shim_keeps_away_from_what_is_not_bare() {
    let url = fresh().await;
    let mut client = connect(&url).await;
    client
        .batch_execute(
            "create schema auth; create table auth.users (id uuid);
            alter table auth.users owner to pg_monitor",
        )
        .await
        .unwrap();
    let error = migrations::shim(&mut client).await.unwrap_err();
    assert!(matches!(error, MigrationError::NotBare), "{error}");
}

#[tokio::test]
async fn the_shim_may_be_applied_twice() {
    let url = fresh().await;
    let mut client = connect(&url).await;
    migrations::shim(&mut client).await.unwrap();
    let once = dump(&url).await;
    migrations::shim(&mut client).await.unwrap();
    assert_eq!(dump(&url).await, once);
}

/// `UPDATE_EXPECT=1 cargo test --test it migrations` writes it again. It is compared on the version it was written with
/// alone: others have other words for the same.
#[tokio::test]
async fn the_golden_dump_is_what_the_migrations_make() {
    let url = fresh().await;
    let mut client = connect(&url).await;
    let version = client.query_one("show server_version_num", &[]).await;
    let version: String = version.unwrap().get(0);
    if !version.starts_with("15") {
        println!("not compared on {version}: sql/schema.sql is of Postgres 15");
        return;
    }
    migrations::shim(&mut client).await.unwrap();
    migrations::up(&mut client).await.unwrap();
    let text = dump_with(&url, &["--no-owner", "--schema=public", "--schema=usher"]).await;
    // What the dump sets for itself, and the version of who wrote it.
    let is_kept = |line: &&str| {
        !line.starts_with("SET ")
            && !line.starts_with("SELECT pg_catalog.set_config")
            && !line.starts_with("--")
    };
    let kept: Vec<&str> = text.lines().filter(is_kept).collect();
    let mut golden =
        "-- What the migrations make, for reading. Written by pg_dump 15 and kept by a test; not a source.\n"
            .to_owned();
    let mut was_blank = false;
    for line in kept {
        if !(line.is_empty() && was_blank) {
            golden.push_str(line);
            golden.push('\n');
        }
        was_blank = line.is_empty();
    }
    expect_file!["../../sql/schema.sql"].assert_eq(golden.trim_end());
}

/// Returns the schema and the role memberships as text, without the record of migrations.
pub(crate) async fn dump(url: &str) -> String {
    dump_with(url, &["--exclude-schema=supabase_migrations"]).await
}

async fn dump_with(url: &str, options: &[&str]) -> String {
    let search = ProgramSearch::default();
    let binaries = Binaries::find(&search, OsUser::for_server()).await.unwrap();
    let output = Command::new(binaries.program("pg_dump"))
        .args(["--schema-only", "--dbname", url])
        .args(options)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    // A fresh random word in each dump.
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    lines.collect::<Vec<_>>().join("\n")
}

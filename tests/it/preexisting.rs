//! Proves that the migrations do not change existing objects: buckets, their policies and files, the login role.

use tokio_postgres::Client;
use usher::postgres::migrations::{self, Down};
use usher_devdb::cluster::{Cluster, ClusterOptions};

use crate::database::{PROTECT_DELETE, connect, fresh};

#[tokio::test]
async fn a_bucket_that_was_there_is_left_alone() {
    let mut client = bare().await;
    client
        .batch_execute(
            "insert into storage.buckets (id, name, public, file_size_limit) values ('avatars', 'avatars', false, 5);
            insert into storage.buckets (id, name) values ('pictures', 'posters');
            insert into storage.objects (bucket_id, name) values ('avatars', 'passport.png');
            create policy mine on storage.objects for select to authenticated using (bucket_id = 'avatars')",
        )
        .await
        .unwrap();
    let before = storage(&client).await;

    migrations::up(&mut client).await.unwrap();
    assert_eq!(storage(&client).await, before);

    // Nor does anything go that has our names and is not ours.
    let policy =
        "create policy usher_posters_insert on storage.objects for insert with check (false)";
    client.batch_execute(policy).await.unwrap();
    let before = storage(&client).await;
    down(&mut client).await;
    assert_eq!(storage(&client).await, before);
}

#[tokio::test]
async fn a_policy_that_was_there_is_not_replaced() {
    let mut client = bare().await;
    let policy =
        "create policy usher_avatars_insert on storage.objects for insert with check (false)";
    client.batch_execute(policy).await.unwrap();
    let before = storage(&client).await;

    let error = migrations::up(&mut client).await.unwrap_err().to_string();

    assert!(error.contains("usher_avatars_insert"), "{error}");
    assert_eq!(storage(&client).await, before);
}

#[tokio::test]
async fn buckets_of_the_migration_go_where_they_are_empty() {
    let mut client = bare().await;
    let before = storage(&client).await;
    migrations::up(&mut client).await.unwrap();
    let migrated = storage(&client).await;
    let file = "insert into storage.objects (bucket_id, name) values ('posters', 'a/b.png')";
    client.batch_execute(file).await.unwrap();

    down(&mut client).await;
    let left = storage(&client).await;
    assert!(
        left.contains("bucket posters") && left.contains("file posters/a/b.png"),
        "{left}"
    );
    assert!(
        !left.contains("bucket avatars") && !left.contains("policy"),
        "{left}"
    );

    // On the way up a bucket with files is ours again.
    migrations::up(&mut client).await.unwrap();
    let remove = "set storage.allow_delete_query = 'true'; delete from storage.objects where true;
        reset storage.allow_delete_query";
    client.batch_execute(remove).await.unwrap();
    assert_eq!(storage(&client).await, migrated);

    down(&mut client).await;
    assert_eq!(storage(&client).await, before);
}

#[tokio::test]
async fn a_login_role_that_was_there_is_left_alone() {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let mut client = connect(&cluster.superuser_url()).await;
    migrations::shim(&mut client).await.unwrap();
    client
        .batch_execute(
            "create role usher_gateway login noinherit password 'mine';
            alter role usher_gateway set statement_timeout = '30s';
            create table public.precious (n integer);
            alter table public.precious owner to usher_gateway",
        )
        .await
        .unwrap();

    migrations::up(&mut client).await.unwrap();
    let settings = "select array_to_string(setconfig, ' ') from pg_db_role_setting
        where setrole = 'usher_gateway'::regrole and setdatabase = 0";
    let row = client.query_one(settings, &[]).await.unwrap();
    assert_eq!(
        row.get::<_, &str>(0),
        "statement_timeout=30s lock_timeout=1s"
    );

    down(&mut client).await;
    let kept = "select tableowner from pg_tables where tablename = 'precious'";
    let row = client.query_one(kept, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "usher_gateway");
    cluster.stop().await;
}

#[tokio::test]
async fn a_login_role_of_the_migrations_goes_with_them() {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let mut client = connect(&cluster.superuser_url()).await;
    migrations::shim(&mut client).await.unwrap();
    let exists = "select exists (select from pg_roles where rolname = 'usher_gateway')";

    migrations::up(&mut client).await.unwrap();
    assert!(
        client
            .query_one(exists, &[])
            .await
            .unwrap()
            .get::<_, bool>(0)
    );
    down(&mut client).await;
    assert!(
        !client
            .query_one(exists, &[])
            .await
            .unwrap()
            .get::<_, bool>(0)
    );
    cluster.stop().await;
}

/// From Postgres 16 on, a role grants another only with the admin option on it.
#[tokio::test]
async fn a_grant_that_is_missing_is_named() {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let superuser = connect(&cluster.superuser_url()).await;
    superuser
        .batch_execute("create role migrator login createrole password 'pw'")
        .await
        .unwrap();
    superuser
        .batch_execute("create database project owner migrator")
        .await
        .unwrap();
    let url = cluster.superuser_url();
    let (server, _) = url.rsplit_once('/').unwrap();
    let mut owner = connect(&format!("{server}/project")).await;
    migrations::shim(&mut owner).await.unwrap();
    owner
        .batch_execute("revoke admin option for anon, authenticated from migrator")
        .await
        .unwrap();
    let row = owner.query_one("show server_version_num", &[]).await;
    let version: i32 = row.unwrap().get::<_, &str>(0).parse().unwrap();
    let mut client = connect(&cluster.url_for("migrator", "pw", "project")).await;

    if version >= 160_000 {
        let error = migrations::up(&mut client).await.unwrap_err().to_string();
        let advice = "grant anon, authenticated to migrator with admin option";
        assert!(error.contains(advice), "{error}");
        owner.batch_execute(advice).await.unwrap();
    }
    migrations::up(&mut client).await.unwrap();
    down(&mut client).await;
    cluster.stop().await;
}

/// A database before the migrations, which refuses to delete files as the platform does.
async fn bare() -> Client {
    let mut client = connect(&fresh().await).await;
    migrations::shim(&mut client).await.unwrap();
    client.batch_execute(PROTECT_DELETE).await.unwrap();
    client
}

async fn down(client: &mut Client) {
    let down = Down::To("0".to_owned());
    migrations::down(client, &down).await.unwrap();
}

/// All of storage that the migrations might touch: buckets, files and policies.
async fn storage(client: &Client) -> String {
    let sql = "select string_agg(line, E'\\n' order by line)
        from (
            select format('bucket %s %s %s %s %s', id, name, public, file_size_limit, allowed_mime_types) as line
            from storage.buckets
            union all
            select format('file %s/%s', bucket_id, name) from storage.objects
            union all
            select format('policy %s %s %s %s %s', policyname, cmd, roles, qual, with_check)
            from pg_policies where schemaname = 'storage'
        ) as lines";
    let row = client.query_one(sql, &[]).await.unwrap();
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

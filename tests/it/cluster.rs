//! Proves that the throwaway cluster, used as a library, stops, crashes, restarts and leaves no files behind.

use std::{fs, path::Path};

use usher::postgres::connect::Target;
use usher::postgres::connect_error::ConnectError;
use usher_devdb::{
    ClusterError,
    binaries::ProgramSearch,
    cluster::{Cluster, ClusterOptions, StopMode},
};

use crate::database::connect;

#[tokio::test]
async fn a_server_comes_back_with_its_data_after_a_stop_and_after_a_crash() {
    let mut cluster = start().await;
    let port = cluster.port();
    let client = connect(&cluster.superuser_url()).await;
    client
        .batch_execute("create table kept (n int)")
        .await
        .unwrap();

    for mode in [StopMode::Fast, StopMode::Immediate, StopMode::Crash] {
        cluster.stop_server(mode).await.unwrap();
        assert_eq!(cluster.pid(), None);
        cluster.start_server().await.unwrap();

        let client = connect(&cluster.superuser_url()).await;
        client
            .batch_execute("insert into kept values (1)")
            .await
            .unwrap();
        assert_eq!(cluster.port(), port);
    }

    let client = connect(&cluster.superuser_url()).await;
    let row = client
        .query_one("select count(*) from kept", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 3);
    cluster.stop().await;
}

#[tokio::test]
async fn a_cluster_that_is_dropped_or_stopped_leaves_no_process_and_no_file() {
    for is_stopped in [true, false] {
        let cluster = start().await;
        let client = connect(&cluster.superuser_url()).await;
        let row = client
            .query_one("show unix_socket_directories", &[])
            .await
            .unwrap();
        let directory: String = row.get(0);
        let server = Path::new("/proc").join(cluster.pid().unwrap().to_string());
        assert!(Path::new(&directory).exists());

        if is_stopped {
            cluster.stop().await;
        } else {
            drop(cluster);
        }

        assert!(!Path::new(&directory).exists());
        assert!(!server.exists());
    }
}

#[tokio::test]
async fn a_login_without_a_password_fails() {
    let cluster = start().await;
    for url in [
        cluster.url_for("postgres", "", "postgres"),
        cluster.url_for("postgres", "postgres", "postgres"),
    ] {
        let target = Target::parse(&url.into(), None).unwrap();
        let error = target.connect().await.map(|_| ()).unwrap_err();
        assert!(matches!(error, ConnectError::Postgres { .. }), "{error}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_wrong_directory_of_programs_is_named() {
    let empty = tempfile::tempdir().unwrap();
    let options = ClusterOptions {
        search: ProgramSearch {
            pg_bin: Some(empty.path().to_owned()),
            ..ProgramSearch::default()
        },
        ..ClusterOptions::default()
    };
    let error = Cluster::start(options).await.unwrap_err();
    assert!(error.to_string().contains("--pg-bin"), "{error}");
}

#[tokio::test]
async fn data_of_another_version_is_not_touched() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("data")).unwrap();
    fs::write(home.path().join("data/PG_VERSION"), "9\n").unwrap();
    let options = ClusterOptions {
        data: Some(home.path().to_owned()),
        ..ClusterOptions::default()
    };
    let error = Cluster::start(options).await.unwrap_err();
    assert!(
        matches!(error, ClusterError::OtherVersion { .. }),
        "{error}"
    );
}

async fn start() -> Cluster {
    Cluster::start(ClusterOptions::default()).await.unwrap()
}

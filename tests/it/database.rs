//! One Postgres for all tests of this process, and a database of its own for each test that asks.

use tokio::sync::OnceCell;
use tokio_postgres::Client;
use usher::postgres::{
    cluster::{Cluster, ClusterOptions},
    connect::Target,
};
use uuid::Uuid;

/// Never dropped: its watchdog ends it when the process does.
static SHARED: OnceCell<Cluster> = OnceCell::const_new();

/// The shared cluster, which no test may stop.
pub(crate) async fn shared() -> &'static Cluster {
    SHARED
        .get_or_init(async || {
            let started = Cluster::start(ClusterOptions::default()).await;
            started.expect("a Postgres is needed: its error says what to do")
        })
        .await
}

/// The superuser's URL of a fresh, empty database.
pub(crate) async fn fresh() -> String {
    let url = shared().await.superuser_url();
    let name = format!("test_{}", Uuid::new_v4().simple());
    let client = connect(&url).await;
    client
        .batch_execute(&format!("create database {name}"))
        .await
        .unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

/// A client whose connection is driven until the client is dropped.
pub(crate) async fn connect(url: &str) -> Client {
    let target = Target::parse(&url.into(), None).unwrap();
    let (client, link) = target.connect().await.unwrap();
    tokio::spawn(link.drive());
    client
}

//! Proves TLS to Postgres: every `sslmode` against servers with good and bad certificates, for queries and for
//! LISTEN.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::{fs, io};

use usher::postgres::connect::Target;
use usher::postgres::connect_error::ConnectError;
use usher_devdb::cluster::{Cluster, ClusterOptions};

use crate::certificates::{Authority, Pair, self_signed};
use crate::client::{Client, until};
use crate::database::{Database, connect};
use crate::gateway::Gateway;

const MODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

#[tokio::test]
async fn each_sslmode_trusts_what_it_should() {
    let server = Server::start().await;
    let authority = Authority::new("the database's own");
    let root = server.file("root.crt", &authority.pem());
    let stranger = server.file("stranger.crt", &Authority::new("another").pem());

    // Without TLS at the server.
    for mode in MODES {
        let expected = if ["disable", "allow", "prefer"].contains(&mode) {
            "ok"
        } else {
            "offers no TLS"
        };
        server
            .check(&format!("sslmode={mode}"), &root, expected)
            .await;
    }

    for (what, pair, [verify_ca, verify_full, require]) in certificates(&authority) {
        server.show(&pair).await;
        for mode in ["disable", "allow", "prefer"] {
            server.check(&format!("sslmode={mode}"), &root, "ok").await;
        }
        // Without a root certificate there is nothing to hold the certificate to.
        server.check("sslmode=require", "", "ok").await;
        server.check("sslmode=require", &root, require).await;
        server.check("sslmode=verify-ca", &root, verify_ca).await;
        server
            .check("sslmode=verify-full", &root, verify_full)
            .await;
        println!("a certificate that is {what}");
    }

    server.show(&authority.issue(&["localhost"])).await;
    // Another authority, and those of the system, which do not know ours.
    server
        .check("sslmode=verify-full", &stranger, "USHER_PG_ROOT_CERT")
        .await;
    server
        .check("sslrootcert=system", &root, "USHER_PG_ROOT_CERT")
        .await;
    let weak = Target::parse(
        &server.url("sslmode=require&sslrootcert=system").into(),
        None,
    );
    assert!(weak.unwrap_err().to_string().contains("verify-full"));
    // Bound to this very channel, which is more than the password.
    server
        .check("sslmode=verify-full&channel_binding=require", &root, "ok")
        .await;
    server.cluster.stop().await;
}

#[tokio::test]
async fn queries_and_listen_both_go_under_tls() {
    let server = Server::start().await;
    let authority = Authority::new("the database's own");
    let root = server.file("root.crt", &authority.pem());
    server.show(&authority.issue(&["localhost"])).await;
    let db = Database::create_in(&server.cluster).await;
    let url = db.gateway_url.replacen("127.0.0.1", "localhost", 1);
    let target = Target::parse(&format!("{url}?sslmode=verify-full").into(), Some(&root)).unwrap();

    let gateway = Gateway::start(&db, |config| {
        config.database = target.clone();
        config.listen_database = target;
    })
    .await;
    let streamer = db.user("streamer").await;
    let session = db.session(&streamer).await;
    let mut viewer = Client::connect(gateway.at, &streamer).await;
    viewer.subscribe(session).await;
    viewer.send(session, "under TLS").await;
    viewer.has_the_whole_log(&db, session).await;
    let plain: i64 = db
        .one(
            "select count(*) from pg_stat_ssl s join pg_stat_activity a using (pid) \
             where a.usename = 'usher_gateway' and not s.ssl",
        )
        .await;
    assert_eq!(plain, 0);
    gateway.stop().await;
    server.cluster.stop().await;
}

/// Certificates, and what verify-ca, verify-full, and require with a root certificate say of each: that is verify-ca.
fn certificates(authority: &Authority) -> [(&'static str, Pair, [&'static str; 3]); 5] {
    [
        ("good", authority.issue(&["localhost"]), ["ok", "ok", "ok"]),
        (
            "for another host",
            authority.issue(&["db.example"]),
            ["ok", "for another host", "ok"],
        ),
        (
            "expired",
            authority.issue_until(&["localhost"], 2020),
            ["has expired", "has expired", "has expired"],
        ),
        (
            "of a stranger",
            Authority::new("another").issue(&["localhost"]),
            [
                "USHER_PG_ROOT_CERT",
                "USHER_PG_ROOT_CERT",
                "USHER_PG_ROOT_CERT",
            ],
        ),
        (
            "self-signed",
            self_signed(&["localhost"]),
            [
                "USHER_PG_ROOT_CERT",
                "USHER_PG_ROOT_CERT",
                "USHER_PG_ROOT_CERT",
            ],
        ),
    ]
}

/// A Postgres that can be given certificates.
pub(crate) struct Server {
    pub(crate) cluster: Cluster,
    data: PathBuf,
    kept: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
        let client = connect(&cluster.superuser_url()).await;
        let row = client.query_one("show data_directory", &[]).await.unwrap();
        let data: String = row.get(0);
        Self {
            cluster,
            data: data.into(),
            kept: tempfile::tempdir().unwrap(),
        }
    }

    /// A file for the client; gives its path.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.kept.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Has the server show a certificate, from now on.
    pub(crate) async fn show(&self, pair: &Pair) {
        write_for_server(&self.data.join("server.crt"), &pair.chain).unwrap();
        write_for_server(&self.data.join("server.key"), &pair.key).unwrap();
        let client = connect(&self.cluster.superuser_url()).await;
        client
            .batch_execute("alter system set ssl = on")
            .await
            .unwrap();
        client
            .batch_execute("select pg_reload_conf()")
            .await
            .unwrap();
        let mut wanted = io::BufReader::new(pair.chain.as_bytes());
        let wanted: Vec<_> = rustls::pki_types::pem::PemObject::pem_reader_iter(&mut wanted)
            .collect::<Result<Vec<rustls::pki_types::CertificateDer<'static>>, _>>()
            .unwrap();
        let target = Target::parse(&self.url("sslmode=require").into(), None).unwrap();
        until("the server shows the certificate", async || {
            let (_, seen) = target.connect_watched().await;
            seen.is_some_and(|seen| seen == wanted[0].as_ref())
        })
        .await;
    }

    /// The superuser's URL, by the name that the certificates have.
    pub(crate) fn url(&self, parameters: &str) -> String {
        let url = self.cluster.superuser_url();
        let url = url.replacen("127.0.0.1", "localhost", 1);
        let separator = if url.contains('?') { '&' } else { '?' };
        format!("{url}{separator}{parameters}")
    }

    async fn check(&self, parameters: &str, root: &str, expected: &str) {
        let target = Target::parse(&self.url(parameters).into(), Some(root)).unwrap();
        let outcome = match target.connect().await {
            Ok(_) => "ok".to_owned(),
            Err(error @ ConnectError::Untrusted { .. } | error @ ConnectError::NoTls { .. }) => {
                error.to_string()
            }
            Err(error) => panic!("{parameters}: {error:?}"),
        };
        let holds = if expected == "ok" {
            outcome == "ok"
        } else {
            outcome.contains(expected)
        };
        assert!(holds, "{parameters} with {root}: {outcome}, not {expected}");
        // The pool opens its own connections, with the same TLS settings.
        let pooled = target.pool(1).get().await;
        assert_eq!(
            pooled.is_ok(),
            expected == "ok",
            "{parameters}: the pool differs"
        );
    }
}

fn write_for_server(path: &Path, text: &str) -> io::Result<()> {
    let owner = fs::metadata(path.parent().unwrap())?;
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    chown(path, Some(owner.uid()), Some(owner.gid()))
}

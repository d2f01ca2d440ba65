//! A Postgres, a database per fault, and gateways as real processes.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, NoTls};
use usher::postgres::migrations;
use usher_core::auth::mint::{NewClaims, mint};
use usher_core::protocol::id::UserId;
use usher_devdb::cluster::{Cluster, ClusterOptions};
use uuid::Uuid;

use crate::ledger::{Row, fingerprint};

/// The longest that anything may take to start or to recover.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const JWT_SECRET: &str = "the secret of all faults, 32 bytes or more";
const RESUME_SECRET: &str = "the resume secret of all faults, 32 bytes";
const GATEWAY_PASSWORD: &str = "a password only for faults";
const TEMPLATE: &str = "faults_template";
const POLL: Duration = Duration::from_millis(20);

/// Signs tokens, with a clock that a fault can change.
pub(crate) struct Keys {
    pub(crate) ttl: Duration,
    /// Seconds by which the signer's clock is ahead of this machine's.
    pub(crate) ahead: AtomicI64,
}

impl Keys {
    pub(crate) fn token(&self, user: Uuid) -> String {
        let secret: SecretString = JWT_SECRET.into();
        let now = jsonwebtoken::get_current_timestamp();
        let now = now.saturating_add_signed(self.ahead.load(Ordering::Relaxed));
        mint(&secret, &NewClaims::user(UserId(user)), now, self.ttl)
    }
}

/// A Postgres that flushes to its disk and contains a migrated template database.
pub(crate) struct Postgres {
    pub(crate) cluster: Cluster,
    pub(crate) home: PathBuf,
    databases: u32,
    /// Deletes the files on drop.
    _directory: tempfile::TempDir,
}

impl Postgres {
    /// Starts a Postgres. `prepare` may first mount something on its directory.
    pub(crate) async fn start(
        prepare: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let open = |path: &Path| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(path, mode)
        };
        open(directory.path())?;
        let home = directory.path().join("home");
        std::fs::create_dir(&home)?;
        prepare(&home)?;
        open(&home)?;
        let options = ClusterOptions {
            data: Some(home.clone()),
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start(options).await?;
        let url = cluster.superuser_url();
        let client = connect(&url).await?;
        client
            .batch_execute(&format!("create database {TEMPLATE}"))
            .await?;
        let mut client = connect(&in_database(&url, TEMPLATE)).await?;
        migrations::shim(&mut client).await?;
        migrations::up(&mut client).await?;
        let password = format!(
            "alter role usher_gateway password '{GATEWAY_PASSWORD}';
             alter role usher_gateway set track_functions = 'all'"
        );
        client.batch_execute(&password).await?;
        Ok(Self {
            cluster,
            home,
            databases: 0,
            _directory: directory,
        })
    }

    /// Creates a database from the template.
    pub(crate) async fn database(&mut self) -> anyhow::Result<Database> {
        self.databases += 1;
        let name = format!("fault_{}", self.databases);
        let url = self.cluster.superuser_url();
        let client = connect(&url).await?;
        let create = format!("create database {name} template {TEMPLATE}");
        client.batch_execute(&create).await?;
        Ok(Database {
            url: in_database(&url, &name),
            gateway_url: self
                .cluster
                .url_for("usher_gateway", GATEWAY_PASSWORD, &name),
        })
    }

    /// Returns the process ids of the server and its children.
    pub(crate) fn processes(&self) -> anyhow::Result<Vec<Pid>> {
        let server = self.cluster.pid().context("the server runs")?;
        let mut pids = usher_load::proc::children(server);
        pids.push(server);
        let as_pid = |pid: u32| Pid::from_raw(i32::try_from(pid).ok()?);
        Ok(pids.into_iter().filter_map(as_pid).collect())
    }
}

/// The database of one fault.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) gateway_url: String,
}

impl Database {
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        connect(&self.url).await
    }

    /// Returns the whole log of a session.
    pub(crate) async fn log(&self, session: Uuid) -> anyhow::Result<Vec<Row>> {
        let sql = "select seq, usher.wire_event(seq, type, at, data) from usher.session_events
            where session_id = $1 order by seq";
        let rows = self.connect().await?.query(sql, &[&session]).await?;
        let row = |row: &tokio_postgres::Row| {
            (
                row.get::<_, i64>(0).cast_unsigned(),
                fingerprint(row.get(1)),
            )
        };
        Ok(rows.iter().map(row).collect())
    }
}

/// A running `usher serve`, killed on drop.
pub(crate) struct Gateway {
    pub(crate) at: SocketAddr,
    child: Child,
}

/// The settings of a gateway.
#[derive(Clone)]
pub(crate) struct GatewayOptions {
    pub(crate) at: SocketAddr,
    pub(crate) database_url: String,
    /// The file to which its output is appended.
    pub(crate) log: PathBuf,
    /// Additional environment variables.
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl Gateway {
    /// Starts a gateway and waits until it is ready.
    pub(crate) async fn start(options: &GatewayOptions) -> anyhow::Result<Self> {
        let mut gateway = Self::spawn(options)?;
        let mut waited = Duration::ZERO;
        while !gateway.is_ready().await {
            if let Some(status) = gateway.child.try_wait()? {
                bail!(
                    "usher serve ended with {status}: see {}",
                    options.log.display()
                );
            }
            if waited > PATIENCE {
                bail!("usher serve is not ready: see {}", options.log.display());
            }
            sleep(POLL).await;
            waited += POLL;
        }
        Ok(gateway)
    }

    /// Starts a gateway without waiting.
    pub(crate) fn spawn(options: &GatewayOptions) -> anyhow::Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&options.log)?;
        let child = Command::new(env!("CARGO_BIN_EXE_usher"))
            .arg("serve")
            .env_clear()
            .env("DATABASE_URL", &options.database_url)
            .env("SUPABASE_JWT_SECRET", JWT_SECRET)
            .env("USHER_RESUME_SECRET", RESUME_SECRET)
            .env("USHER_LISTEN", options.at.to_string())
            .env("USHER_HEARTBEAT_MS", "1000")
            .env("USHER_DRAIN_SECONDS", "1")
            .env("USHER_FANOUT_LOOPS", "2")
            .env("USHER_LOG_FORMAT", "json")
            .env("USHER_LIMIT_MESSAGES", "off")
            .env("USHER_LIMIT_VOTES", "off")
            .envs(
                options
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start usher serve")?;
        Ok(Self {
            at: options.at,
            child,
        })
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(rustix::process::kill_process(
            Pid::from_child(&self.child),
            signal,
        )?)
    }

    /// Waits until the process has ended.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        let ended = async {
            while self.child.try_wait()?.is_none() {
                sleep(POLL).await;
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, ended).await?
    }

    async fn is_ready(&self) -> bool {
        let answer = timeout(Duration::from_secs(5), self.get("/readyz")).await;
        matches!(answer, Ok(Ok(text)) if text.starts_with("HTTP/1.1 200"))
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut socket = TcpStream::connect(self.at).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: usher\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        socket.read_to_string(&mut text).await?;
        Ok(text)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a free port below the range that the system uses for outgoing connections.
pub(crate) fn free_port() -> anyhow::Result<SocketAddr> {
    for port in 4_100..9_000 {
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        if std::net::TcpListener::bind(at).is_ok() {
            return Ok(at);
        }
    }
    bail!("no free port between 4100 and 9000")
}

pub(crate) async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = timeout(PATIENCE, tokio_postgres::connect(url, NoTls)).await??;
    tokio::spawn(connection);
    Ok(client)
}

fn in_database(url: &str, name: &str) -> String {
    let end = url.rfind('/').expect("a url has a path");
    format!("{}/{name}", &url[..end])
}

//! The server of a cluster: its data made or checked, its process started on a free port.
//!
//! Serves on 127.0.0.1 and a Unix socket, every login by a password that was made at random. Throwaway data is not
//! flushed to the disk; data that is kept is.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    net::TcpListener,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{OpenOptionsExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::NoTls;
use tracing::info;
use uuid::Uuid;

use crate::{
    binaries::Binaries,
    error::{ClusterError, START_TIMEOUT, failed},
    os_user::OsUser,
    watchdog::{FirstSignal, Watchdog},
};

/// The role that the cluster is made for, named as Supabase's.
const SUPERUSER: &str = "postgres";

/// How often a starting server is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Ports to choose from: below the range that systems give to outgoing connections, so that nobody sits on the port by
/// chance while the server is down, and a client that retries cannot connect to itself.
const PORTS: std::ops::Range<u16> = 15_433..32_000;

/// Ports to try, where another process takes one between our look and the server's.
const PORT_ATTEMPTS: u32 = 20;

/// Bytes of a Unix socket's path that every system allows.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// Lines of the server's log that an error repeats.
const LOG_LINES: usize = 6;

/// Room for a gateway, a load test and somebody's psql, beside the tests that share one server.
const CONNECTIONS_MAX: u32 = 200;

/// What a part of a URL must not hold as it is (RFC 3986 §2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What it takes to start the server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) binaries: Binaries,
    pub(crate) account: Option<OsUser>,
    /// Where socket and log are; removed in the end.
    pub(crate) directory: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) is_durable: bool,
    pub(crate) port: u16,
    pub(crate) password: SecretString,
}

impl Server {
    /// Makes the data, or checks that what is there is ours to run.
    pub(crate) async fn prepare(
        &mut self,
        watchdog: &mut Watchdog,
        password_file: &Path,
    ) -> Result<(), ClusterError> {
        let version_file = self.data.join("PG_VERSION");
        if let Ok(found) = fs::read_to_string(&version_file) {
            let programs = self.binaries.major();
            if found.trim() != programs.to_string() {
                return Err(ClusterError::OtherVersion {
                    data: self.data.clone(),
                    found: found.trim().to_owned(),
                    programs,
                });
            }
            let password = fs::read_to_string(password_file);
            self.password = password.map_err(failed("read", password_file))?.into();
            return Ok(());
        }
        write_private(password_file, self.password.expose_secret())?;
        if let Some(account) = self.account {
            account
                .own(password_file)
                .map_err(failed("hand over", password_file))?;
        }
        // Made under another name, so that what a power cut leaves half-made is never taken for a cluster.
        let unfinished = self.data.with_extension("unfinished");
        self.make_data_directory(&unfinished)?;
        self.init(watchdog, &unfinished, password_file).await?;
        fs::rename(&unfinished, &self.data).map_err(failed("rename", &unfinished))
    }

    /// Makes the empty directory that `initdb` will fill, since the account may not write beside it.
    fn make_data_directory(&self, data: &Path) -> Result<(), ClusterError> {
        if data.exists() {
            fs::remove_dir_all(data).map_err(failed("remove", data))?;
        }
        fs::create_dir(data).map_err(failed("make", data))?;
        fs::set_permissions(data, fs::Permissions::from_mode(0o700))
            .map_err(failed("protect", data))?;
        match self.account {
            Some(account) => account.own(data).map_err(failed("hand over", data)),
            None => Ok(()),
        }
    }

    async fn init(
        &self,
        watchdog: &mut Watchdog,
        data: &Path,
        password_file: &Path,
    ) -> Result<(), ClusterError> {
        info!(version = self.binaries.major(), "making a database cluster");
        let mut command = self.command("initdb")?;
        // glibc and musl have C.UTF-8 without further packages, which makes letters beyond ASCII letters.
        let locale = if cfg!(target_os = "linux") {
            "C.UTF-8"
        } else {
            "C"
        };
        command
            .arg("--pgdata")
            .arg(data)
            .arg("--pwfile")
            .arg(password_file)
            .args(["--username", SUPERUSER, "--auth", "scram-sha-256"])
            .args([
                "--encoding",
                "UTF8",
                "--locale",
                locale,
                "--no-instructions",
            ]);
        if !self.is_durable {
            command.arg("--no-sync");
        }
        match spawn_and_wait(watchdog, &mut command).await {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(ClusterError::Program {
                program: "initdb",
                log: self.log(),
            }),
            Err(source) => Err(ClusterError::Io {
                attempt: format!("run {}", self.binaries.program("initdb").display()),
                source,
            }),
        }
    }

    pub(crate) async fn start_on_free_port(
        &mut self,
        watchdog: &mut Watchdog,
    ) -> Result<(), ClusterError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            self.port = free_port().map_err(|source| ClusterError::Io {
                attempt: "find a free port on 127.0.0.1".to_owned(),
                source,
            })?;
            match self.start(watchdog).await {
                Err(ClusterError::Program { log, .. })
                    if attempt < PORT_ATTEMPTS && log.contains("could not bind") => {}
                other => return other,
            }
        }
    }

    pub(crate) async fn start(&self, watchdog: &mut Watchdog) -> Result<(), ClusterError> {
        let url = self.superuser_url();
        let coming_up = async {
            self.spawn(watchdog)?;
            loop {
                tokio::time::sleep(POLL).await;
                if tokio_postgres::connect(&url, NoTls).await.is_ok() {
                    return Ok(());
                }
                let exit = watchdog.poll_exit().map_err(|source| ClusterError::Io {
                    attempt: "wait for postgres".to_owned(),
                    source,
                })?;
                if exit.is_none() {
                    continue;
                }
                let log = self.log();
                // After a crash the children of the old server end in their own time, and hold its memory until then.
                if !log.contains("pre-existing shared memory block") {
                    let program = "postgres";
                    return Err(ClusterError::Program { program, log });
                }
                self.spawn(watchdog)?;
            }
        };
        tokio::time::timeout(START_TIMEOUT, coming_up)
            .await
            .unwrap_or_else(|_elapsed| Err(ClusterError::Silent { log: self.log() }))
    }

    fn spawn(&self, watchdog: &mut Watchdog) -> Result<(), ClusterError> {
        let mut command = self.command("postgres")?;
        let socket = self.socket_directory();
        let mut set = |name: &str, value: &str| {
            command.args(["-c", &format!("{name}={value}")]);
        };
        set("listen_addresses", "127.0.0.1");
        set("port", &self.port.to_string());
        set("unix_socket_directories", &socket);
        set("unix_socket_permissions", "0700");
        set("max_connections", &CONNECTIONS_MAX.to_string());
        set("logging_collector", "off");
        set("timezone", "UTC");
        set("log_timezone", "UTC");
        if !self.is_durable {
            // Survives a crash of the server, since the system still has what was written; not one of the machine.
            set("fsync", "off");
            set("full_page_writes", "off");
        }
        command.arg("-D").arg(&self.data);
        watchdog
            .spawn(&mut command, FirstSignal::Interrupt)
            .map_err(|source| ClusterError::Io {
                attempt: format!("run {}", self.binaries.program("postgres").display()),
                source,
            })
    }

    /// A program of Postgres, run by the right account, writing to a fresh log.
    fn command(&self, program: &'static str) -> Result<Command, ClusterError> {
        let path = self.directory.join("log");
        let log = File::create(&path).map_err(failed("write", &path))?;
        let errors = log.try_clone().map_err(failed("write", &path))?;
        let mut command = Command::new(self.binaries.program(program));
        command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // The operator's own settings for psql must not lead our server elsewhere.
            .env_remove("PGDATA")
            .env_remove("PGPORT")
            .env("LC_ALL", "C");
        if let Some(OsUser { uid, gid }) = self.account {
            command.uid(uid).gid(gid);
        }
        Ok(command)
    }

    /// The directory of the Unix socket; none where its path would be too long for the system.
    fn socket_directory(&self) -> String {
        let is_short = self.directory.as_os_str().as_bytes().len() + "/.s.PGSQL.65535".len()
            <= SOCKET_PATH_BYTES_MAX;
        match self.directory.to_str() {
            // A comma would end the name.
            Some(path) if is_short && !path.contains([',', '"']) => path.to_owned(),
            Some(_) | None => String::new(),
        }
    }

    pub(crate) fn superuser_url(&self) -> String {
        url(
            SUPERUSER,
            self.password.expose_secret(),
            self.port,
            SUPERUSER,
        )
    }

    fn log(&self) -> String {
        let text = fs::read(self.directory.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
        tail.join("\n")
    }
}

async fn spawn_and_wait(watchdog: &mut Watchdog, command: &mut Command) -> io::Result<ExitStatus> {
    watchdog.spawn(command, FirstSignal::Kill)?;
    watchdog.wait().await
}

fn free_port() -> io::Result<u16> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_ATTEMPTS {
        let [.., a, b] = Uuid::new_v4().into_bytes();
        let port = PORTS.start + u16::from_be_bytes([a, b]) % (PORTS.end - PORTS.start);
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(_listener) => return Ok(port),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn write_private(path: &Path, text: &str) -> Result<(), ClusterError> {
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(failed("write", path))
}

pub(crate) fn url(user: &str, password: &str, port: u16, database: &str) -> String {
    let [user, password, database] =
        [user, password, database].map(|text| utf8_percent_encode(text, RESERVED));
    format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}")
}

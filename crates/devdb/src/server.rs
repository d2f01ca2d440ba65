//! The server of a cluster: creates or checks its data, and starts its process on a free port.
//!
//! It listens on 127.0.0.1 and on a Unix socket. Every login needs a random password. Kept data is flushed to the disk;
//! temporary data is not.

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
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::NoTls;
use tracing::info;
use uuid::Uuid;

use crate::limits::{
    CONNECTIONS_MAX, LOG_LINES, PORT_ATTEMPTS, PORTS, SOCKET_PATH_BYTES_MAX, START_POLL,
    START_TIMEOUT,
};
use crate::{
    binaries::Binaries,
    error::{ClusterError, failed},
    os_user::OsUser,
    watchdog::{FirstSignal, Watchdog},
};

/// The superuser, with the name that Supabase uses.
const SUPERUSER: &str = "postgres";

/// The characters that a part of a URL must escape (RFC 3986 §2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The settings that start the server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) binaries: Binaries,
    pub(crate) account: Option<OsUser>,
    /// The directory of the socket and the log. It is removed at the end.
    pub(crate) directory: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) is_durable: bool,
    pub(crate) port: u16,
    pub(crate) password: SecretString,
}

impl Server {
    /// Creates the data, or checks that these programs can run the existing data.
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
        // Created under another name, so that data that a power failure left incomplete is never used.
        let unfinished = self.data.with_extension("unfinished");
        self.make_data_directory(&unfinished)?;
        self.init(watchdog, &unfinished, password_file).await?;
        fs::rename(&unfinished, &self.data).map_err(failed("rename", &unfinished))
    }

    /// Creates the empty directory that `initdb` fills, because the server's user may not write beside it.
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
        info!(
            version = self.binaries.major(),
            "creating a database cluster"
        );
        let mut command = self.command("initdb")?;
        // glibc and musl have C.UTF-8 without further packages. In C.UTF-8, letters beyond ASCII count as letters.
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
                tokio::time::sleep(START_POLL).await;
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
                // After a crash, the old server's children end later and hold its shared memory until then.
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
            // Survives a crash of the server, because the system still has the written data, but not a crash
            // of the machine.
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

    /// Returns the command for a program of Postgres, run by the server's user, with a new log.
    fn command(&self, program: &'static str) -> Result<Command, ClusterError> {
        let path = self.directory.join("log");
        let log = File::create(&path).map_err(failed("write", &path))?;
        let errors = log.try_clone().map_err(failed("write", &path))?;
        let mut command = Command::new(self.binaries.program(program));
        command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // The operator's settings for psql must not affect this server.
            .env_remove("PGDATA")
            .env_remove("PGPORT")
            .env("LC_ALL", "C");
        if let Some(OsUser { uid, gid }) = self.account {
            command.uid(uid).gid(gid);
        }
        Ok(command)
    }

    /// Returns the directory of the Unix socket; empty if the socket's path would be too long for the system.
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

//! Starts and stops a Postgres of our own, for `usher dev` and the tests.
//!
//! ```text
//! TMPDIR/usher-XXXXXX/          removed at the end, in every case (see `watchdog`)
//!   data/                       unless a data directory was named, which is kept
//!   .s.PGSQL.<port>             the Unix socket, for the user that runs the server only
//!   log                         the server's output
//! ```
//!
//! If this process runs as root, an unprivileged user runs the server, because Postgres refuses root.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use secrecy::SecretString;
use tracing::warn;
use uuid::Uuid;

use crate::limits::STOP_TIMEOUT;
use crate::{
    binaries::{Binaries, ProgramSearch},
    error::{ClusterError, failed},
    os_user::OsUser,
    server::{Server, url},
    watchdog::Watchdog,
};

/// The options of a cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterOptions {
    /// Where to find the programs.
    pub search: ProgramSearch,
    /// A directory that keeps the data durably. Without one, the data is removed at the end.
    pub data: Option<PathBuf>,
}

/// How to stop a server, in Postgres's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Ends every connection, writes all data, and stops.
    Fast,
    /// Stops immediately. The next start recovers.
    Immediate,
    /// Kills the main process with `kill -9`.
    Crash,
}

/// A running Postgres of our own. Dropping it stops the server, and blocks the thread until the server has stopped.
/// [`Cluster::stop`] does the same without blocking.
#[derive(Debug)]
pub struct Cluster {
    watchdog: Watchdog,
    server: Server,
    /// Locks the data directory while the cluster exists.
    _lock: Option<File>,
}

impl Cluster {
    /// Starts a cluster, and creates its data if there is none. Cancel-safe: dropping the future leaves nothing behind.
    ///
    /// # Errors
    ///
    /// If no usable programs are found, the disk is full, or the server does not start.
    pub async fn start(options: ClusterOptions) -> Result<Self, ClusterError> {
        let account = OsUser::for_server();
        if let Some(data) = &options.data {
            check_reach(account, data)?;
        }
        let lock = options.data.as_deref().map(lock_data).transpose()?;
        let binaries = Binaries::find(&options.search, account).await?;
        let (directory, mut watchdog) = make_directory(account)?;
        let is_durable = options.data.is_some();
        let home = options.data.unwrap_or_else(|| directory.clone());
        let home = fs::canonicalize(&home).map_err(failed("open", &home))?;
        let mut server = Server {
            binaries,
            account,
            directory,
            data: home.join("data"),
            is_durable,
            port: 0,
            password: random_password(),
        };
        server
            .prepare(&mut watchdog, &home.join("superuser-password"))
            .await?;
        server.start_on_free_port(&mut watchdog).await?;
        Ok(Self {
            watchdog,
            server,
            _lock: lock,
        })
    }

    /// Stops the server and removes all files except a named data directory.
    pub async fn stop(self) {
        self.watchdog.end().await;
    }

    /// Stops only the server. Data, port and passwords stay for [`Cluster::start_server`].
    ///
    /// # Errors
    ///
    /// If the system refuses to send a signal.
    pub async fn stop_server(&mut self, mode: StopMode) -> Result<(), ClusterError> {
        if self.watchdog.pid().is_none() {
            return Ok(());
        }
        let first = match mode {
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
            StopMode::Crash => Signal::KILL,
        };
        for signal in [first, Signal::QUIT, Signal::KILL] {
            let io = |source| ClusterError::Io {
                attempt: "stop postgres".to_owned(),
                source,
            };
            self.watchdog.signal(signal).map_err(io)?;
            if let Ok(ended) = tokio::time::timeout(STOP_TIMEOUT, self.watchdog.wait()).await {
                ended.map_err(io)?;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Starts the server again, on the same port and with the same data.
    ///
    /// # Errors
    ///
    /// If the server does not start.
    pub async fn start_server(&mut self) -> Result<(), ClusterError> {
        self.server.start(&mut self.watchdog).await
    }

    /// Returns the server's process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let pid = self.watchdog.pid()?;
        u32::try_from(pid.as_raw_nonzero().get()).ok()
    }

    /// Returns the port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Returns a URL for the superuser, who owns the database `postgres`.
    #[must_use]
    pub fn superuser_url(&self) -> String {
        self.server.superuser_url()
    }

    /// Returns a URL for any user.
    #[must_use]
    pub fn url_for(&self, user: &str, password: &str, database: &str) -> String {
        url(user, password, self.server.port, database)
    }
}

/// Creates the directory that is removed at the end, and its watchdog.
fn make_directory(account: Option<OsUser>) -> Result<(PathBuf, Watchdog), ClusterError> {
    let parent = temporary_parent(account)?;
    let made = tempfile::Builder::new()
        .prefix("usher-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(&parent);
    let directory = made.map_err(failed("make a directory in", &parent))?;
    let path = fs::canonicalize(directory.path()).map_err(failed("open", directory.path()))?;
    let watchdog = Watchdog::start(Some(path.clone())).map_err(|source| ClusterError::Io {
        attempt: "start /bin/sh".to_owned(),
        source,
    })?;
    // From here on the watchdog removes the directory.
    let _ = directory.keep();
    if let Some(account) = account {
        account.own(&path).map_err(failed("hand over", &path))?;
    }
    Ok((path, watchdog))
}

/// Returns `TMPDIR`, or `/tmp` if the user that runs the server cannot reach it, as with root's private directories.
fn temporary_parent(account: Option<OsUser>) -> Result<PathBuf, ClusterError> {
    let wanted = std::env::temp_dir();
    let wanted =
        fs::canonicalize(&wanted).map_err(failed("open the temporary directory", &wanted))?;
    let Some(account) = account.filter(|account| !account.can_reach(&wanted)) else {
        return Ok(wanted);
    };
    let fallback = PathBuf::from("/tmp");
    check_reach(Some(account), &fallback)?;
    warn!(
        tmpdir = %wanted.display(), uid = account.uid,
        "the user that runs Postgres cannot reach TMPDIR, so its files go to /tmp; chmod o+x on TMPDIR allows access"
    );
    Ok(fallback)
}

/// Checks that the user can reach a directory, which need not exist yet.
fn check_reach(account: Option<OsUser>, directory: &Path) -> Result<(), ClusterError> {
    let directory = std::path::absolute(directory).map_err(failed("find", directory))?;
    match account {
        Some(account) if !account.can_reach(&directory) => Err(ClusterError::Unreachable {
            directory,
            uid: account.uid,
        }),
        Some(_) | None => Ok(()),
    }
}

/// Locks a directory for this process while the file is open.
fn lock_data(home: &Path) -> Result<File, ClusterError> {
    fs::create_dir_all(home).map_err(failed("make", home))?;
    let path = home.join("lock");
    let lock = File::create(&path).map_err(failed("write", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(ClusterError::InUse {
            data: home.to_owned(),
        }),
        Err(fs::TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
    }
}

fn random_password() -> SecretString {
    Uuid::new_v4().simple().to_string().into()
}

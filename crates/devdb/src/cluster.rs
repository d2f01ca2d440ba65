//! A Postgres of our own, for `usher dev` and the tests.
//!
//! ```text
//! TMPDIR/usher-XXXXXX/          removed in the end, whatever happens (see `watchdog`)
//!   data/                       unless a directory was named, which is kept
//!   .s.PGSQL.<port>             its Unix socket, which only the account that runs it may enter
//!   log                         what the server says
//! ```
//!
//! Postgres refuses root, so root becomes an unprivileged account for it.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use secrecy::SecretString;
use tracing::warn;
use uuid::Uuid;

use crate::{
    binaries::{Binaries, Search},
    error::{ClusterError, failed},
    os_user::OsUser,
    server::{Server, url},
    watchdog::Watchdog,
};

/// How long a server may take to shut down when it is told to, before it is told in stronger words.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How the cluster shall be.
#[derive(Clone, Debug, Default)]
pub struct ClusterOptions {
    /// Where its programs come from.
    pub search: Search,
    /// A directory to keep the data in, durably; without one the data is thrown away in the end.
    pub data: Option<PathBuf>,
}

/// How a server is told to stop; Postgres's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Ends every connection, writes everything, stops.
    Fast,
    /// Stops at once; the next start recovers.
    Immediate,
    /// A crash of the main process: `kill -9`.
    Crash,
}

/// A running Postgres of our own. Dropping it ends it, and blocks the thread until that is done; [`Cluster::stop`]
/// does the same without.
#[derive(Debug)]
pub struct Cluster {
    watchdog: Watchdog,
    server: Server,
    /// Held for as long as the data is ours.
    _lock: Option<File>,
}

impl Cluster {
    /// Starts a cluster, making its data where there is none. Cancel-safe: dropping the future leaves nothing behind.
    ///
    /// # Errors
    ///
    /// Where there are no programs, no room, or the server does not come up.
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

    /// Ends the server and removes what is not to be kept.
    pub async fn stop(self) {
        self.watchdog.end().await;
    }

    /// Stops the server alone; data, port and passwords stay for [`Cluster::start_server`].
    ///
    /// # Errors
    ///
    /// Where the system refuses to signal.
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

    /// Starts the server again, on the same port with the same data.
    ///
    /// # Errors
    ///
    /// Where it does not come up.
    pub async fn start_server(&mut self) -> Result<(), ClusterError> {
        self.server.start(&mut self.watchdog).await
    }

    /// The process id of the server, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let pid = self.watchdog.pid()?;
        u32::try_from(pid.as_raw_nonzero().get()).ok()
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// A URL for the superuser, who owns the database `postgres`.
    #[must_use]
    pub fn superuser_url(&self) -> String {
        self.server.superuser_url()
    }

    /// A URL for any user.
    #[must_use]
    pub fn url_for(&self, user: &str, password: &str, database: &str) -> String {
        url(user, password, self.server.port, database)
    }
}

/// Makes the directory that is removed in the end, with its watchdog.
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
    // From here on the watchdog removes it.
    let _ = directory.keep();
    if let Some(account) = account {
        account.own(&path).map_err(failed("hand over", &path))?;
    }
    Ok((path, watchdog))
}

/// `TMPDIR`, unless it is closed to the account that the server runs as, as a private one of root is; then `/tmp`.
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
        "TMPDIR is closed to the account that Postgres runs as: its files go to /tmp (chmod o+x would open it)"
    );
    Ok(fallback)
}

/// Whether the account can get at a directory, which need not exist yet.
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

/// Takes a directory for ourselves, for as long as the file is open.
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

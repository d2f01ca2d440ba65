//! Why there is no cluster.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::binaries::BinariesError;

/// How long a server may take until it lets us in, recovery after a crash included.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No programs to run.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// The system refused something.
    #[error("{attempt}")]
    Io {
        /// What was attempted, and with what.
        attempt: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The data directory is in use by another process.
    #[error("the data directory {} is in use: stop the other `usher dev --data`, or name another", data.display())]
    InUse {
        /// The directory.
        data: PathBuf,
    },
    /// The data was written by another major version.
    #[error(
        "the data in {} is of Postgres {found} and the programs found are of {programs}: \
         name those of {found} with --pg-bin, or another --data directory", data.display()
    )]
    OtherVersion {
        /// The directory.
        data: PathBuf,
        /// The version that wrote it.
        found: String,
        /// The version of the programs.
        programs: u32,
    },
    /// The server's account cannot get at a directory.
    #[error(
        "Postgres cannot run as root, and the account that it runs as (uid {uid}) cannot reach {}: \
         choose a directory outside of private ones, or open the way with chmod o+x", directory.display()
    )]
    Unreachable {
        /// The directory.
        directory: PathBuf,
        /// The account's user id.
        uid: u32,
    },
    /// A program of Postgres failed.
    #[error("{program} failed:\n{log}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The end of what it said.
        log: String,
    },
    /// The server does not answer.
    #[error("postgres does not answer within {} s:\n{log}", START_TIMEOUT.as_secs())]
    Silent {
        /// The end of what it said.
        log: String,
    },
}

pub(crate) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClusterError {
    let attempt = format!("{what} {}", path.display());
    move |source| ClusterError::Io { attempt, source }
}

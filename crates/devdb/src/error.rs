//! The errors of a temporary Postgres.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::binaries::BinariesError;
use crate::limits::START_TIMEOUT;

/// The reason why a cluster could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No usable programs of Postgres.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// A system call failed.
    #[error("{attempt}")]
    Io {
        /// The action, and its object.
        attempt: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The data directory is in use by another process.
    #[error(
        "the data directory {} is in use: stop the other `usher dev --data`, or choose another directory",
        data.display()
    )]
    InUse {
        /// The data directory that is in use.
        data: PathBuf,
    },
    /// Another major version of Postgres wrote the data.
    #[error(
        "the data in {} is from Postgres {found}, but the programs found are version {programs}: \
         name the programs of {found} with --pg-bin, or choose another --data directory", data.display()
    )]
    OtherVersion {
        /// The directory with the data.
        data: PathBuf,
        /// The version that wrote the data.
        found: String,
        /// The version of the programs.
        programs: u32,
    },
    /// The user that runs the server cannot reach a directory.
    #[error(
        "Postgres cannot run as root, and the user that runs it (uid {uid}) cannot reach {}: \
         choose a directory that other users can reach, or allow access with chmod o+x", directory.display()
    )]
    Unreachable {
        /// The directory that cannot be reached.
        directory: PathBuf,
        /// The user's id.
        uid: u32,
    },
    /// A program of Postgres failed.
    #[error("{program} failed:\n{log}")]
    Program {
        /// The program's name.
        program: &'static str,
        /// The end of its log.
        log: String,
    },
    /// The server does not accept connections in time.
    #[error("postgres did not accept a connection within {} s:\n{log}", START_TIMEOUT.as_secs())]
    Silent {
        /// The end of its log.
        log: String,
    },
}

pub(crate) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClusterError {
    let attempt = format!("{what} {}", path.display());
    move |source| ClusterError::Io { attempt, source }
}

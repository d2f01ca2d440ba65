//! The values of the settings as given, by flags, the environment or defaults.
//!
//! Everything is text here, so that one wrong number does not hide the other mistakes.

use std::collections::HashMap;
use std::path::Path;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::secret::{SecretError, read_secret};
use crate::config::settings::{ALL, Setting};

/// The values by the names of their settings. Any of them may be a secret, so none is printed.
#[derive(Clone, Debug, Default)]
pub struct Raw(HashMap<String, SecretString>);

impl Raw {
    /// Reads the environment alone.
    #[cfg(feature = "dev")]
    pub(crate) fn from_environment() -> Self {
        let command = Self::augment_args(Command::new("usher").no_binary_name(true));
        let matches = command.get_matches_from::<_, &str>([]);
        Self::from_arg_matches(&matches).expect("every value is a text")
    }

    /// Sets a value.
    #[cfg(feature = "dev")]
    pub(crate) fn set(&mut self, setting: &Setting, value: SecretString) {
        self.0.insert(setting.name.to_owned(), value);
    }

    /// Forgets a value, and the file that may contain it.
    #[cfg(feature = "dev")]
    pub(crate) fn remove(&mut self, setting: &Setting) {
        self.0.remove(setting.name);
        setting.file_name().map(|name| self.0.remove(&name));
    }

    /// Returns a value without the spaces around it. Empty if the setting is not given and has no default.
    pub(crate) fn text(&self, setting: &Setting) -> &str {
        self.0
            .get(setting.name)
            .map_or("", |value| value.expose_secret().trim())
    }

    /// Returns a secret, given as a value or in a file.
    pub(crate) fn secret(&self, setting: &Setting) -> Result<Option<SecretString>, SecretError> {
        let file = setting.file_name().and_then(|name| self.0.get(&name));
        let file = file.map(|path| Path::new(path.expose_secret()));
        read_secret(setting.name, self.0.get(setting.name), file)
    }
}

impl Args for Raw {
    fn augment_args(command: Command) -> Command {
        command.args(ALL.iter().flat_map(|setting| setting.args()))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Raw {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut raw = Self::default();
        raw.update_from_arg_matches(matches)?;
        Ok(raw)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in ALL {
            for name in [setting.name.to_owned()]
                .into_iter()
                .chain(setting.file_name())
            {
                if let Some(value) = matches.get_one::<SecretString>(&name) {
                    self.0.insert(name, value.clone());
                }
            }
        }
        Ok(())
    }
}

//! Reads single settings and collects the mistakes in them.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::num::NonZero;
use std::time::Duration;

use secrecy::SecretString;

use crate::causes::with_causes;
use crate::config::address::parse_listen;
use crate::config::rates::Rate;
use crate::config::raw::Raw;
use crate::config::secret::check_length;
use crate::config::settings::{Accepts, Setting};
use crate::limits::{RATE_COUNT_MAX, RATE_SECONDS_MAX};

/// Switches off a limit or a key set.
pub(crate) const OFF: &str = "off";

/// One wrong setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) setting: &'static str,
    /// The mistake and the expected value. Never contains a secret.
    pub(crate) problem: String,
}

/// All mistakes in the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub(crate) Vec<Mistake>);

impl Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.len() {
            1 => "a setting is wrong or missing (see `usher serve --help`):",
            _ => "several settings are wrong or missing (see `usher serve --help`):",
        })?;
        for Mistake { setting, problem } in &self.0 {
            write!(f, "\n  {setting}: {problem}")?;
        }
        Ok(())
    }
}

/// The settings as given, and the mistakes found so far. A method that returns `None` has recorded a mistake.
pub(crate) struct Check<'a> {
    pub(crate) raw: &'a Raw,
    pub(crate) mistakes: Vec<Mistake>,
    pub(crate) warnings: Vec<String>,
}

impl<'a> Check<'a> {
    pub(crate) fn new(raw: &'a Raw) -> Self {
        Self {
            raw,
            mistakes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(crate) fn number<T: TryFrom<u64>>(&mut self, setting: &'static Setting) -> Option<T> {
        let (Accepts::Number(range) | Accepts::NumberOrOff(range)) = &setting.accepts else {
            unreachable!("{} is declared as a number", setting.name);
        };
        let text = self.raw.text(setting);
        let number = text.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let (min, max) = (range.start(), range.end());
            self.wrong(setting, text, format!("a whole number from {min} to {max}"));
        }
        // A type that is too small for its range fails for valid values; the tests of the bounds would show it.
        number.and_then(|number| T::try_from(number).ok())
    }

    /// The inner `Option` is `None` for `off`.
    pub(crate) fn number_or_off(
        &mut self,
        setting: &'static Setting,
    ) -> Option<Option<NonZero<u32>>> {
        if self.raw.text(setting) == OFF {
            return Some(None);
        }
        self.number(setting).map(NonZero::new)
    }

    /// The inner `Option` is `None` for `off`.
    pub(crate) fn rate(&mut self, setting: &'static Setting) -> Option<Option<Rate>> {
        let Accepts::Rate(min) = setting.accepts else {
            unreachable!("{} is declared as a rate", setting.name);
        };
        let text = self.raw.text(setting);
        if text == OFF {
            return Some(None);
        }
        let parse = |text: &str, min, max| {
            let number: u64 = text.trim().parse().ok()?;
            (min..=max).contains(&number).then_some(number)
        };
        let rate = text.split_once('/').and_then(|(count, seconds)| {
            let count = parse(count, min, RATE_COUNT_MAX)?;
            Some(Rate {
                count: NonZero::new(u32::try_from(count).ok()?)?,
                period: Duration::from_secs(parse(seconds, 1, RATE_SECONDS_MAX)?),
            })
        });
        if rate.is_none() {
            let right = format!("a count of {min} or more and seconds, such as 20/30, or off");
            self.wrong(setting, text, right);
        }
        rate.map(Some)
    }

    /// Reads one of a few words.
    pub(crate) fn one_of<T>(
        &mut self,
        setting: &'static Setting,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let Accepts::OneOf(words) = setting.accepts else {
            unreachable!("{} is declared as one of a few words", setting.name);
        };
        let text = self.raw.text(setting);
        let value = parse(text);
        if value.is_none() {
            self.wrong(setting, text, words);
        }
        value
    }

    /// Reads a list with commas between its items. `right` describes an item that `parse` reads.
    pub(crate) fn list<T>(
        &mut self,
        setting: &'static Setting,
        parse: impl Fn(&str) -> Option<T>,
        right: &str,
    ) -> Option<Vec<T>> {
        let mistakes_before = self.mistakes.len();
        let mut list = Vec::new();
        for item in self.raw.text(setting).split(',').map(str::trim) {
            match parse(item) {
                _ if item.is_empty() => {}
                Some(parsed) => list.push(parsed),
                None => self.wrong(setting, item, right),
            }
        }
        (self.mistakes.len() == mistakes_before).then_some(list)
    }

    pub(crate) fn listen_address(&mut self, setting: &'static Setting) -> Option<SocketAddr> {
        let text = self.raw.text(setting);
        parse_listen(text)
            .map_err(|right| self.wrong(setting, text, right))
            .ok()
    }

    /// Reads a secret from its value or its file. The inner `Option` is `None` if it is not given.
    pub(crate) fn secret(&mut self, setting: &'static Setting) -> Option<Option<SecretString>> {
        self.raw
            .secret(setting)
            .map_err(|error| self.mistake(setting, with_causes(&error)))
            .ok()
    }

    /// Reads a secret that signs. `advice` is appended to the message if it is too short.
    pub(crate) fn signing_secret(
        &mut self,
        setting: &'static Setting,
        advice: &str,
    ) -> Option<Option<SecretString>> {
        let secret = self.secret(setting)?;
        if let Some(Err(error)) = secret.as_ref().map(check_length) {
            self.mistake(setting, format!("{error}{advice}"));
            return None;
        }
        Some(secret)
    }

    pub(crate) fn wrong(&mut self, setting: &'static Setting, given: &str, right: impl Display) {
        self.mistake(setting, format!("`{given}` must be {right}"));
    }

    pub(crate) fn mistake(&mut self, setting: &'static Setting, problem: impl Into<String>) {
        self.mistakes.push(Mistake {
            setting: setting.name,
            problem: problem.into(),
        });
    }
}

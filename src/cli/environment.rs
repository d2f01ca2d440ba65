//! Warns of misspelt settings: a variable such as `USHER_TALY_HZ` would change nothing.

use std::{collections::BTreeSet, env, ffi::OsString};

use clap::CommandFactory as _;

use crate::cli::Cli;

/// Prefix of our settings.
const PREFIX: &str = "USHER_";

/// Prefixes that the comparison of two names ignores: `USHER_JWT_SECRET` resembles `SUPABASE_JWT_SECRET`.
const PREFIXES: [&str; 2] = [PREFIX, "SUPABASE_"];

/// Suffixes of the variables that Kubernetes sets for a Service named usher or usher-something.
const KUBERNETES_SUFFIXES: [&str; 2] = ["_SERVICE_HOST", "_SERVICE_PORT"];

/// Returns one warning for each variable of this process that resembles a setting but is not a setting of any command.
pub(crate) fn warnings() -> Vec<String> {
    unknown(env::vars_os())
}

/// Names the variables and the settings that they resemble. Never shows a value, because it may be a secret.
fn unknown(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<String> {
    let settings = settings();
    let unknown: BTreeSet<String> = variables
        .filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            let is_ours = name.starts_with(PREFIX) && !is_of_kubernetes(&name, &value);
            (is_ours && !settings.contains(&name)).then_some(name)
        })
        .collect();
    let warning = |name: String| match nearest(&name, &settings) {
        Some(setting) => format!("{name} is not a setting: did you mean {setting}?"),
        None => format!("{name} is not a setting, and changes nothing"),
    };
    unknown.into_iter().map(warning).collect()
}

/// The environment variables of all commands, from clap.
fn settings() -> BTreeSet<String> {
    let command = Cli::command();
    let commands = command.get_subcommands().chain([&command]);
    commands
        .flat_map(clap::Command::get_arguments)
        .filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned))
        .collect()
}

/// Returns the setting that a name resembles most, if any. Up to a quarter of the letters may differ, and the words may be
/// in another order.
fn nearest<'a>(name: &str, settings: &'a BTreeSet<String>) -> Option<&'a str> {
    let (ours, our_words) = (stem(name), words(name));
    let distance = |setting: &str| {
        let in_order = strsim::damerau_levenshtein(ours, stem(setting));
        in_order.min(1 + strsim::damerau_levenshtein(&our_words, &words(setting)))
    };
    let (distance, setting) = settings
        .iter()
        .map(|setting| (distance(setting), setting.as_str()))
        .min()?;
    (distance <= (ours.len() / 4).max(2) && distance < ours.len()).then_some(setting)
}

/// A name without its prefix.
fn stem(name: &str) -> &str {
    let stripped = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
    stripped.unwrap_or(name)
}

/// The words of a stem in alphabetical order.
fn words(name: &str) -> String {
    let mut words: Vec<&str> = stem(name).split('_').collect();
    words.sort_unstable();
    words.join("_")
}

/// Returns whether Kubernetes, or a Docker link, set the variable for a Service: `USHER_SERVICE_HOST`, or
/// `USHER_PORT=tcp://10.0.0.1:4000` and the variables derived from it.
fn is_of_kubernetes(name: &str, value: &OsString) -> bool {
    let is_url = value.to_str().is_some_and(|value| {
        ["tcp://", "udp://", "sctp://"]
            .iter()
            .any(|scheme| value.starts_with(scheme))
    });
    let is_derived = name.split_once("_PORT_").is_some_and(|(_, rest)| {
        let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        digits.len() < rest.len() && digits.starts_with('_')
    });
    let is_service = KUBERNETES_SUFFIXES
        .iter()
        .any(|suffix| name.ends_with(suffix))
        || name.contains("_SERVICE_PORT_");
    is_service || is_derived || (is_url && name.ends_with("_PORT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_setting_is_named_with_the_one_that_is_meant() {
        for (name, meant) in [
            ("USHER_TALY_HZ", "USHER_TALLY_HZ"),
            ("USHER_LISTN", "USHER_LISTEN"),
            ("USHER_MAX_CONECTIONS", "USHER_MAX_CONNECTIONS"),
            ("USHER_CONNECTIONS_MAX", "USHER_MAX_CONNECTIONS"),
            ("USHER_DATABASE_URL", "DATABASE_URL"),
            ("USHER_JWT_SECRET", "SUPABASE_JWT_SECRET"),
            ("USHER_RESUME_SECRET_FIEL", "USHER_RESUME_SECRET_FILE"),
            ("USHER_LISTEN_URL_DATABASE", "USHER_LISTEN_DATABASE_URL"),
        ] {
            let warning = format!("{name} is not a setting: did you mean {meant}?");
            assert_eq!(warnings_about(&[(name, "x")]), [warning]);
        }
    }

    #[test]
    fn one_that_resembles_none_is_named_alone_and_no_value_is_ever_shown() {
        let found = warnings_about(&[
            ("USHER_COLOUR", "hunter2"),
            ("USHER_LISTEN", "0.0.0.0:4000"),
            ("USHER_LOAD_DATABASE_URL", "hunter2"),
            ("USHER_PG_BIN", "/usr"),
            ("USHERS", "x"),
            ("PATH", "x"),
        ]);
        assert_eq!(
            found,
            ["USHER_COLOUR is not a setting, and changes nothing"]
        );
    }

    #[test]
    fn what_kubernetes_makes_for_a_service_is_not_taken_for_a_setting() {
        let found = warnings_about(&[
            ("USHER_SERVICE_HOST", "10.0.0.1"),
            ("USHER_SERVICE_PORT", "4000"),
            ("USHER_SERVICE_PORT_HTTP", "4000"),
            ("USHER_PORT", "tcp://10.0.0.1:4000"),
            ("USHER_PORT_4000_TCP", "tcp://10.0.0.1:4000"),
            ("USHER_PORT_4000_TCP_ADDR", "10.0.0.1"),
            ("USHER_PORT_4000_TCP_PORT", "4000"),
            ("USHER_PORT_4000_TCP_PROTO", "tcp"),
            ("USHER_WEB_PORT_80_TCP_ADDR", "10.0.0.1"),
        ]);
        assert!(found.is_empty(), "{found:?}");
        assert_eq!(warnings_about(&[("USHER_PORT", "4000")]).len(), 1);
    }

    fn warnings_about(variables: &[(&str, &str)]) -> Vec<String> {
        unknown(
            variables
                .iter()
                .map(|(name, value)| (OsString::from(name), OsString::from(value))),
        )
    }
}

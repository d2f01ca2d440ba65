//! Formats the command line for the report: a shell accepts it again, and secrets are hidden.

/// The text that replaces a secret.
const HIDDEN: &str = "***";

/// Flags whose value is a secret. A database URL is hidden whole, since any part of it may contain a password.
const SECRET_FLAGS: [&str; 2] = ["--jwt-secret", "--database-url"];

/// Formats the arguments of this process, with the program's name instead of its path.
#[must_use]
pub(crate) fn shown() -> String {
    shown_of(std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()))
}

fn shown_of(arguments: impl Iterator<Item = String>) -> String {
    let mut words = Vec::new();
    let mut is_secret = false;
    for (place, argument) in arguments.enumerate() {
        let shown = match argument.split_once('=') {
            _ if place == 0 => "usher".to_owned(),
            _ if std::mem::take(&mut is_secret) => HIDDEN.to_owned(),
            Some((flag, _)) if SECRET_FLAGS.contains(&flag) => format!("{flag}={HIDDEN}"),
            Some(_) | None => {
                is_secret = SECRET_FLAGS.contains(&argument.as_str());
                argument
            }
        };
        words.push(quoted(&shown));
    }
    words.join(" ")
}

/// Quotes a word for a shell if necessary.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=+:,./@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_is_typed_and_without_secrets() {
        for (arguments, shown) in [
            (
                &["/opt/usher", "load", "--dev", "ready.json", "--slow=10%"][..],
                "usher load --dev ready.json --slow=10%",
            ),
            (
                &["usher", "load", "--report", "my report's.html", ""],
                r"usher load --report 'my report'\''s.html' ''",
            ),
            (
                &[
                    "usher",
                    "load",
                    "--jwt-secret",
                    "hunter2",
                    "--database-url=postgres://u:hunter2@h/d",
                    "--database-url",
                    "--jwt-secret",
                    "-q",
                ],
                "usher load --jwt-secret '***' '--database-url=***' --database-url '***' -q",
            ),
        ] {
            let arguments = arguments.iter().map(|&argument| argument.to_owned());
            assert_eq!(shown_of(arguments), shown);
        }
    }
}

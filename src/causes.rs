//! Formats an error with its causes in one line. A log in JSON shows no causes by itself.

use std::{error::Error, iter::successors};

/// Returns the error and its causes, separated by colons.
#[must_use]
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let chain = successors(Some(error), |error| (*error).source());
    let words: Vec<String> = chain.map(ToString::to_string).collect();
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("read {0}")]
    struct Unread(&'static str, #[source] io::Error);

    #[test]
    fn every_cause_is_there() {
        let gone = io::Error::other(io::Error::other("the disk is gone"));
        let error = Unread("the file", gone);
        assert_eq!(with_causes(&error), "read the file: the disk is gone");
    }
}

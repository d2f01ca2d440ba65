//! The finding of a check of `usher doctor`.

use std::time::Duration;

use serde::Serialize;

use crate::clock;
use crate::limits::EXPIRY_WARNING;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    Ok,
    Warning,
    Failed,
}

#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) check: &'static str,
    pub(crate) verdict: Severity,
    pub(crate) found: String,
    pub(crate) advice: Option<String>,
}

pub(crate) fn ok(check: &'static str, found: impl Into<String>) -> Finding {
    Finding {
        check,
        verdict: Severity::Ok,
        found: found.into(),
        advice: None,
    }
}

pub(crate) fn warning(check: &'static str, found: impl Into<String>, advice: &str) -> Finding {
    Finding {
        verdict: Severity::Warning,
        advice: Some(advice.to_owned()),
        ..ok(check, found)
    }
}

pub(crate) fn failed(check: &'static str, found: impl Into<String>, advice: &str) -> Finding {
    Finding {
        verdict: Severity::Failed,
        ..warning(check, found, advice)
    }
}

pub(crate) fn expires(check: &'static str, at: Duration, about: &str, advice: &str) -> Finding {
    let left = at.saturating_sub(Duration::from_millis(clock::moment().unix_ms));
    let found = format!("{about}has {} days left", left.as_secs() / 86_400);
    match left {
        Duration::ZERO => failed(check, format!("{about}has expired"), advice),
        left if left < EXPIRY_WARNING => warning(check, found, advice),
        _ => ok(check, found),
    }
}

//! Limits how often the same failure of the database is logged.
//!
//! A missing schema or a broken function fails every query that needs it, many times a second, and would bury the rest
//! of the log. The first failure of a kind is logged immediately. Further ones are counted, and the next line, after
//! [`LOG_REPEAT_INTERVAL`] at the earliest, has their number.

use std::sync::atomic::{AtomicBool, Ordering};

use dashmap::{DashMap, Entry};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::causes::with_causes;
use crate::limits::{LOG_KINDS_MAX, LOG_REPEAT_INTERVAL};
use crate::postgres::statement::StoreError;
use usher_core::protocol::id::SessionId;

/// The kind of all failures that a missing or outdated schema causes.
const SCHEMA: NoticeKind<'_> = ("schema", "");

/// The kind of all failures beyond [`LOG_KINDS_MAX`] kinds.
const OTHERS: NoticeKind<'_> = ("others", "");

/// The attempted query and its error.
type NoticeKind<'a> = (&'static str, &'a str);

/// The logged failures, by kind.
#[derive(Debug, Default)]
pub(crate) struct LogLimiter {
    /// Whether the schema was missing at the last check. All failures until the next check have this cause.
    lacks_schema: AtomicBool,
    logged: DashMap<(&'static str, String), Logged>,
}

#[derive(Debug)]
struct Logged {
    at: Instant,
    /// The number of failures since, which were not logged.
    unlogged: u64,
}

impl LogLimiter {
    /// Logs that the database has not answered `asked`, unless the same was logged recently.
    pub(crate) fn on_failure(&self, asked: &'static str, error: &StoreError) {
        if error.is_about_schema() || self.lacks_schema.load(Ordering::Relaxed) {
            return self.log_missing_schema(&with_causes(error));
        }
        if let Some(unlogged) = self.admit((asked, &error.kind()), Instant::now()) {
            let error = with_causes(error);
            error!(error, asked, unlogged, "a query to the database failed");
        }
    }

    /// Records whether the database has the functions that the gateway calls, and logs a change.
    pub(crate) fn on_schema(&self, is_there: bool) {
        let was_lacking = self.lacks_schema.swap(!is_there, Ordering::Relaxed);
        if !is_there {
            self.log_missing_schema("functions are missing in the schema usher");
        } else if was_lacking {
            let (what, why) = SCHEMA;
            self.logged.remove(&(what, why.to_owned()));
            info!("the database has what this gateway calls");
        }
    }

    /// Logs that functions are missing in the database, with the command to run.
    pub(crate) fn log_missing_schema(&self, error: &str) {
        if let Some(unlogged) = self.admit(SCHEMA, Instant::now()) {
            error!(
                error,
                unlogged,
                "the database does not have what this gateway calls, or does not let its role call it: run `usher \
                 migrate up` as the role that owns the schema, connect as usher_gateway, and see `usher doctor`"
            );
        }
    }

    /// Logs that writes failed, unless the same was logged recently.
    pub(crate) fn on_unwritten(&self, what: &'static str, reason: &str, items: usize) {
        if let Some(unlogged) = self.admit(("writes", what), Instant::now()) {
            warn!(reason, items, unlogged, "{what}");
        }
    }

    /// Logs that the database refused a write for a reason that is not the caller's fault.
    pub(crate) fn on_refusal(&self, name: &str, detail: Option<&str>) {
        if let Some(unlogged) = self.admit(("a write", detail.unwrap_or(name)), Instant::now()) {
            error!(
                name,
                detail, unlogged, "a write was refused for a reason of our own"
            );
        }
    }

    /// Logs that clients got events that the log does not have. Forged notifications can come as fast as Postgres
    /// allows.
    pub(crate) fn on_forged(&self, session: SessionId, events: u64) {
        if let Some(unlogged) = self.admit(("notifications", "forged"), Instant::now()) {
            warn!(
                %session,
                events,
                unlogged,
                "an event that was shown is not in the log: a role other than Usher's own sends notifications; viewers start \
                 over"
            );
        }
    }

    /// Returns whether to log a failure of this kind, with the number of unlogged ones since the last.
    fn admit(&self, (what, why): NoticeKind<'_>, now: Instant) -> Option<u64> {
        let is_full = self.logged.len() >= LOG_KINDS_MAX;
        let mut key = (what, why.to_owned());
        if is_full && !self.logged.contains_key(&key) {
            key = (OTHERS.0, OTHERS.1.to_owned());
        }
        match self.logged.entry(key) {
            Entry::Vacant(place) => {
                place.insert(Logged {
                    at: now,
                    unlogged: 0,
                });
                Some(0)
            }
            Entry::Occupied(mut logged) => {
                let logged = logged.get_mut();
                if now.saturating_duration_since(logged.at) < LOG_REPEAT_INTERVAL {
                    logged.unlogged += 1;
                    return None;
                }
                logged.at = now;
                Some(std::mem::take(&mut logged.unlogged))
            }
        }
    }
}

const _: () = assert!(
    LOG_REPEAT_INTERVAL.as_secs() >= 60,
    "a log must stay readable while a failure lasts"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_failure_is_logged_once_in_a_while_and_counted_meanwhile() {
        let (limiter, now) = (LogLimiter::default(), Instant::now());
        let admit = |why, now| limiter.admit(("a chore", why), now);
        assert_eq!(admit("42883", now), Some(0));
        assert_eq!((admit("42883", now), admit("42883", now)), (None, None));
        assert_eq!(admit("22000", now), Some(0));
        let later = now + LOG_REPEAT_INTERVAL;
        assert_eq!(
            (admit("42883", later), admit("42883", later)),
            (Some(2), None)
        );
        assert_eq!(admit("22000", later), Some(0));
    }

    #[test]
    fn a_lack_of_the_schema_is_news_again_once_it_was_there() {
        let (limiter, now) = (LogLimiter::default(), Instant::now());
        assert_eq!(limiter.admit(SCHEMA, now), Some(0));
        assert_eq!(limiter.admit(SCHEMA, now), None);
        limiter.on_schema(true);
        assert_eq!(
            limiter.admit(SCHEMA, now),
            None,
            "one query may lack something for good"
        );
        limiter.on_schema(false);
        limiter.on_schema(true);
        assert_eq!(limiter.admit(SCHEMA, now), Some(0));
    }

    #[test]
    fn no_number_of_kinds_makes_it_grow() {
        let (limiter, now) = (LogLimiter::default(), Instant::now());
        for number in 0..2 * LOG_KINDS_MAX {
            limiter.admit(("a query", &number.to_string()), now);
        }
        assert!(limiter.logged.len() <= LOG_KINDS_MAX + 1);
        assert_eq!(limiter.admit(("a query", "0"), now), None);
    }
}

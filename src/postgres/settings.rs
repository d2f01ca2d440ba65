//! The settings of Postgres that the gateway relies on, for each of its transactions.
//!
//! A role, a database or the whole cluster may have other defaults: an isolation level that fails every vote, another
//! time zone, another timeout. Each transaction sets them, because behind a transaction pooler the next transaction may
//! use another connection, and a pooler refuses startup parameters.

use std::time::Duration;

/// The settings, with a place for the lock timeout, which each transaction names. Timeouts are in milliseconds.
/// `set local` costs the database less than `set_config` in a query; only the last two need a condition.
macro_rules! settings {
    () => {
        "set local search_path = pg_catalog, pg_temp; \
         set local timezone = 'UTC'; \
         set local datestyle = 'ISO, MDY'; \
         set local intervalstyle = 'postgres'; \
         set local extra_float_digits = 1; \
         set local bytea_output = 'hex'; \
         set local standard_conforming_strings = on; \
         set local transform_null_equals = off; \
         set local row_security = on; \
         set local jit = off; \
         set local lock_timeout = {}; \
         set local statement_timeout = 10000; \
         set local idle_in_transaction_session_timeout = 10000; \
         select case when pg_catalog.current_setting('transaction_timeout', true) is not null \
           then pg_catalog.set_config('transaction_timeout', '0', true) end, \
         case when pg_catalog.current_setting('synchronous_commit') = 'off' \
           then pg_catalog.set_config('synchronous_commit', 'on', true) end"
    };
}

macro_rules! callers_path {
    () => {
        "set local search_path = public, extensions"
    };
}

/// Returns the SQL that begins a transaction whose statements wait at most `lock_wait` for a lock. An acknowledgement
/// means durable, so a `synchronous_commit` that does not wait for the disk is replaced; a stricter one stays.
pub(crate) fn begin(lock_wait: Duration) -> String {
    format!(
        concat!(
            "begin isolation level read committed, read write, not deferrable; ",
            settings!()
        ),
        milliseconds(lock_wait)
    )
}

/// Like [`begin`], for a transaction that only reads.
pub(crate) fn begin_read_only(lock_wait: Duration) -> String {
    format!(
        concat!(
            "begin isolation level read committed, read only, not deferrable; ",
            settings!()
        ),
        milliseconds(lock_wait)
    )
}

/// Sets what a caller's own statements run under, in a transaction that has begun. Each waits for a lock for
/// `lock_wait` at most. The search path is PostgREST's, because an app's own triggers may rely on it.
pub(crate) fn of_callers(lock_wait: Duration) -> String {
    format!(
        concat!(settings!(), "; ", callers_path!()),
        milliseconds(lock_wait)
    )
}

/// Begins a transaction as [`begin`] does, with the search path of [`of_callers`].
pub(crate) fn begin_of_callers(lock_wait: Duration) -> String {
    format!("{}; {}", begin(lock_wait), callers_path!())
}

/// Returns a lock timeout in milliseconds. Never 0, which would disable it.
fn milliseconds(lock_wait: Duration) -> u128 {
    lock_wait.as_millis().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::QUERY_TIMEOUT;

    #[test]
    fn statements_end_when_nobody_waits_for_them_any_more() {
        let timeout = format!("= {};", QUERY_TIMEOUT.as_millis());
        let begin = begin(Duration::ZERO);
        assert_eq!(begin.matches(&timeout).count(), 2, "{begin}");
        assert!(begin.contains("lock_timeout = 1;"), "{begin}");
    }
}

//! The settings of Postgres that the gateway relies on, for each of its transactions.
//!
//! A role, a database or the whole cluster may have others: an isolation level under which no vote can be counted, another
//! time zone, a time-out of its own. They are set for each transaction and not once a connection, since behind a
//! transaction pooler the next transaction may be on another connection, and a pooler refuses startup parameters.

/// The settings as a select list, since one statement is cheaper than one each. Time-outs are in milliseconds and end what
/// nobody waits for any more; whoever waits for locks more shortly says so after this.
macro_rules! settings {
    () => {
        "pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true), \
         pg_catalog.set_config('TimeZone', 'UTC', true), \
         pg_catalog.set_config('DateStyle', 'ISO, MDY', true), \
         pg_catalog.set_config('IntervalStyle', 'postgres', true), \
         pg_catalog.set_config('extra_float_digits', '1', true), \
         pg_catalog.set_config('bytea_output', 'hex', true), \
         pg_catalog.set_config('standard_conforming_strings', 'on', true), \
         pg_catalog.set_config('transform_null_equals', 'off', true), \
         pg_catalog.set_config('row_security', 'on', true), \
         pg_catalog.set_config('jit', 'off', true), \
         pg_catalog.set_config('lock_timeout', '0', true), \
         pg_catalog.set_config('statement_timeout', '10000', true), \
         pg_catalog.set_config('idle_in_transaction_session_timeout', '10000', true), \
         case when pg_catalog.current_setting('transaction_timeout', true) is not null \
           then pg_catalog.set_config('transaction_timeout', '0', true) end, \
         case when pg_catalog.current_setting('synchronous_commit') = 'off' \
           then pg_catalog.set_config('synchronous_commit', 'on', true) end"
    };
}

/// Begins a transaction. An acknowledgement means durable, so a commit that does not wait for the disk is not taken over;
/// one that waits for more than the disk is.
pub(super) const BEGIN: &str = concat!(
    "begin isolation level read committed, read write, not deferrable; select ",
    settings!()
);

/// Begins a transaction that writes nothing.
pub(super) const BEGIN_READ_ONLY: &str = concat!(
    "begin isolation level read committed, read only, not deferrable; select ",
    settings!()
);

/// Sets what a caller's own statements run under, in a transaction that has begun. They look where PostgREST lets them
/// look, since an app's own triggers may rely on it.
pub(super) const CALLERS: &str = concat!(
    "select ",
    settings!(),
    "; set local search_path = public, extensions"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::QUERY_TIMEOUT;

    #[test]
    fn statements_end_when_nobody_waits_for_them_any_more() {
        let timeout = format!("'{}'", QUERY_TIMEOUT.as_millis());
        assert_eq!(BEGIN.matches(&timeout).count(), 2);
    }
}

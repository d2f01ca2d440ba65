//! Runs one statement, and classifies its errors.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The pool gave no connection, the connection broke, or the answer took too long. Another try may succeed.
    #[error("the database cannot be asked: {0}")]
    Unavailable(String),
    /// Another transaction held a lock for too long. The statement did nothing, and another try may succeed.
    #[error("an open transaction holds a lock that the statement needs")]
    Locked,
    /// The database refused the statement. Another try fails too.
    #[error("the database refused a statement")]
    Refused(#[source] tokio_postgres::Error),
    /// The answer has not the shape that our functions return.
    #[error("the database answered {what} in an unknown shape")]
    Shape {
        /// The subject of the query.
        what: &'static str,
        /// The error of the decoder.
        #[source]
        source: serde_json::Error,
    },
}

impl StoreError {
    /// Returns whether the statement named an object that is missing or that the gateway's role may not use.
    pub(crate) fn is_about_schema(&self) -> bool {
        matches!(self, Self::Refused(error) if is_about_schema(error))
    }

    /// Returns a text that differs between failures of the same query.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Unavailable(_) => "unavailable".to_owned(),
            Self::Locked => "locked".to_owned(),
            Self::Refused(error) => error.code().map_or("", SqlState::code).to_owned(),
            Self::Shape { what, .. } => format!("shape of {what}"),
        }
    }
}

pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

pub(crate) async fn query(
    client: &Client,
    sql: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>, StoreError> {
    client.query_typed(sql, parameters).await.map_err(classify)
}

/// Tells failures that another try may repair from those that it cannot.
pub(crate) fn classify(error: tokio_postgres::Error) -> StoreError {
    match error.code() {
        None => StoreError::Unavailable(error.to_string()),
        Some(state) if *state == SqlState::LOCK_NOT_AVAILABLE => StoreError::Locked,
        Some(state) if may_pass(state.code()) => StoreError::Unavailable(state.code().to_owned()),
        Some(_) => StoreError::Refused(error),
    }
}

/// Returns whether a statement named an object that is missing or that the gateway's role may not use.
pub(crate) fn is_about_schema(error: &tokio_postgres::Error) -> bool {
    // No such schema, table, column or function; no right to one of them.
    const STATES: [SqlState; 5] = [
        SqlState::INVALID_SCHEMA_NAME,
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_COLUMN,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::INSUFFICIENT_PRIVILEGE,
    ];
    error.code().is_some_and(|code| STATES.contains(code))
}

/// Returns whether a SQLSTATE describes the server's condition, so that the same statement may succeed later.
pub(crate) fn may_pass(state: &str) -> bool {
    // The connection, a collision with another transaction, resources, an operator, the system.
    const CLASSES: [&str; 5] = ["08", "40", "53", "57", "58"];
    // A standby (read only, or still recovering), a full queue of NOTIFY, a transaction that took too long.
    const STATES: [&str; 5] = ["25006", "55000", "54000", "25P03", "25P04"];
    STATES.contains(&state) || CLASSES.iter().any(|class| state.starts_with(class))
}

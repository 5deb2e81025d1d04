//! Errors by SQLSTATE: what the caller can decide on. The cause is kept and never printed in `Display`.

use sqlx::postgres::PgQueryResult;

/// Why the database did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a row of that name exists already ({constraint})")]
    UniqueViolation { constraint: String },
    #[error("the row refers to one that is not there ({constraint})")]
    ForeignKeyViolation { constraint: String },
    #[error("the row breaks a rule of its table ({constraint})")]
    CheckViolation { constraint: String },
    /// Row security or grants refused it: a bug of ours, or an attempt.
    #[error("the database role may not do this")]
    Denied(#[source] sqlx::Error),
    /// Serialization failure or deadlock: the whole transaction may be tried again.
    #[error("the transaction lost against another one")]
    Serialization(#[source] sqlx::Error),
    /// No connection, pool exhausted, statement or lock timeout, shutting down.
    #[error("the database does not answer in time")]
    Unavailable(#[source] sqlx::Error),
    /// A statement met another number of rows than it must.
    #[error("{actual} rows instead of {expected}")]
    RowCount { expected: u64, actual: u64 },
    #[error("a figure does not fit its column")]
    OutOfRange,
    #[error("a fact cannot be written as JSON")]
    Payload(#[from] serde_json::Error),
    #[error("the database refused the statement")]
    Other(#[source] sqlx::Error),
}

impl Error {
    /// Whether the same request may succeed later.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Serialization(_) | Self::Unavailable(_))
    }
    /// Whether it is the violation of this constraint.
    pub fn violates(&self, name: &str) -> bool {
        matches!(self,
            Self::UniqueViolation { constraint }
            | Self::ForeignKeyViolation { constraint }
            | Self::CheckViolation { constraint } if constraint == name)
    }
    /// Whether a statement met no row where it must meet some.
    pub const fn is_no_row(&self) -> bool {
        matches!(self, Self::RowCount { actual: 0, .. })
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let state = match &error {
            sqlx::Error::Database(db) => db.code().map(std::borrow::Cow::into_owned),
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::WorkerCrashed => return Self::Unavailable(error),
            sqlx::Error::RowNotFound => return Self::RowCount { expected: 1, actual: 0 },
            _ => None,
        };
        let constraint =
            error.as_database_error().and_then(|db| db.constraint()).unwrap_or_default().to_owned();
        match state.as_deref() {
            Some("23505") => Self::UniqueViolation { constraint },
            Some("23503") => Self::ForeignKeyViolation { constraint },
            Some("23514") => Self::CheckViolation { constraint },
            Some("42501") => Self::Denied(error),
            Some("40001" | "40P01") => Self::Serialization(error),
            // Timeouts, cancellation, shutdown, connection and resource classes.
            Some("57014" | "55P03" | "25P03" | "57P01" | "57P02" | "57P03") => {
                Self::Unavailable(error)
            }
            Some(code) if code.starts_with("08") || code.starts_with("53") => {
                Self::Unavailable(error)
            }
            _ => Self::Other(error),
        }
    }
}

/// SQL that changes rows says how many it must have met.
pub trait ExpectRows {
    /// # Errors
    /// [`Error::RowCount`] when it met another number.
    fn expect_rows(self, expected: u64) -> Result<(), Error>;
}

impl ExpectRows for PgQueryResult {
    fn expect_rows(self, expected: u64) -> Result<(), Error> {
        let actual = self.rows_affected();
        if actual == expected { Ok(()) } else { Err(Error::RowCount { expected, actual }) }
    }
}

//! Why a use case of this role did not happen, and what callers are told.
//!
//! `Refused` is a decision about the request, told with its code. The rest is ours: the cause is kept for
//! the log and never sent.

use api::problem::{Code, Problem};

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A decision the caller can act on.
    #[error(transparent)]
    Refused(Box<Problem>),
    #[error("the catalog's database did not do it")]
    Database(#[from] pg::Error),
    #[error("the object store did not do it")]
    Store(#[from] vault::store::StoreError),
    /// Something is here that our own code cannot have written.
    #[error("{what}")]
    Broken {
        what: &'static str,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl Error {
    pub fn refused(code: Code) -> Self {
        Self::Refused(Box::new(Problem::new(code)))
    }
    pub fn because(code: Code, detail: impl Into<String>) -> Self {
        Self::Refused(Box::new(Problem::new(code).detail(detail)))
    }
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Refused(Box::new(Problem::validation(field, detail)))
    }
    pub fn not_found() -> Self {
        Self::refused(Code::NotFound)
    }
    pub fn broken(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Broken { what, source: Some(source.into()) }
    }
    /// The code a caller is told.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(problem) => problem.code,
            Self::Database(error) if error.is_retryable() => Code::Unavailable,
            Self::Store(error) if error.retryable() => Code::StoreUnavailable,
            Self::Store(_) | Self::Database(_) | Self::Broken { .. } => Code::Internal,
        }
    }
}

impl From<Error> for runtime::Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(problem) => Self(*problem),
            Error::Database(error) => error.into(),
            Error::Store(cause) if cause.retryable() => {
                tracing::warn!(error = %cause, "the object store does not answer");
                Self(Problem::new(Code::StoreUnavailable))
            }
            other => Self::internal(&other),
        }
    }
}

//! What can go wrong with the store, by what the caller can do about it.

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};

/// A failure of the store. [`StoreError::retryable`] says whether waiting helps.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store could not be reached for {operation}")]
    Unavailable {
        operation: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the store refused {operation}: {code}")]
    Denied { operation: &'static str, code: String },
    #[error("nothing is stored under that key and version")]
    NotFound,
    #[error("an object with that key exists already")]
    AlreadyExists,
    #[error("the store answered {operation} with {code}")]
    Rejected { operation: &'static str, code: String },
    #[error("the store's answer to {operation} lacks {missing}")]
    Incomplete { operation: &'static str, missing: &'static str },
    #[error("the store is not configured for this: {0}")]
    Configuration(String),
}

impl StoreError {
    /// Whether the same call may succeed later without anybody's hands.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    pub(super) fn unavailable(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unavailable { operation, source: source.into() }
    }

    pub(super) fn configuration(error: impl std::fmt::Display) -> Self {
        Self::Configuration(error.to_string())
    }

    /// Sorts an SDK error by status and code.
    pub(super) fn from_sdk<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let code = error.code().map(str::to_owned);
        match (status, code) {
            (Some(404), _) => Self::NotFound,
            (Some(412 | 409), Some(code))
                if code == "PreconditionFailed" || code == "ConditionalRequestConflict" =>
            {
                Self::AlreadyExists
            }
            (Some(403 | 401), code) => {
                Self::Denied { operation, code: code.unwrap_or_else(|| "AccessDenied".into()) }
            }
            (Some(status), code) if (400..500).contains(&status) && status != 429 => {
                let code = code.unwrap_or_else(|| format!("HTTP {status}"));
                Self::Rejected { operation, code }
            }
            _ => Self::unavailable(operation, error),
        }
    }
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound,
            object_store::Error::AlreadyExists { .. }
            | object_store::Error::Precondition { .. } => Self::AlreadyExists,
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => {
                Self::Denied { operation: "get", code: "AccessDenied".into() }
            }
            other => Self::unavailable("get", other),
        }
    }
}

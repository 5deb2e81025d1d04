//! A problem on its way out. The cause is logged here, once, and never sent.

use api::{Code, Problem};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

/// What a handler fails with: a [`Problem`] that axum can send.
#[derive(Debug, Clone)]
pub struct Failure(pub Problem);

/// What handlers return.
pub type Reply<T> = Result<T, Failure>;

impl Failure {
    /// Our fault. The cause goes to the log with its chain, not to the caller.
    pub fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(cause), "request failed");
        Self(Problem::new(Code::Internal))
    }
    /// Something we need does not answer.
    pub fn unavailable(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::warn!(error = %chain(cause), "a part of the platform does not answer");
        Self(Problem::new(Code::Unavailable))
    }
    pub fn not_found() -> Self {
        Self(Problem::not_found())
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}
impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Self(Problem::new(code))
    }
}
impl From<pg::Error> for Failure {
    fn from(error: pg::Error) -> Self {
        if error.is_retryable() { Self::unavailable(&error) } else { Self::internal(&error) }
    }
}
impl From<api::client::Error> for Failure {
    /// Another role's answer to us. Its problems are about our call, not about the caller's request.
    fn from(error: api::client::Error) -> Self {
        if error.is_retryable() { Self::unavailable(&error) } else { Self::internal(&error) }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let problem = self.0;
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        if status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        if matches!(problem.code, Code::TooManyRequests | Code::Unavailable) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response.extensions_mut().insert(problem);
        response
    }
}

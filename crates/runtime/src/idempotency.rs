//! `Idempotency-Key`: what a request may be known by when it is repeated.

use api::Problem;
use http::HeaderMap;

/// What is told to a request whose key asked for something else before; a 409 `conflict`.
pub const USED_UP: &str = "this Idempotency-Key was used for another request";

/// The key of a request, as sent. A header that is not text is an empty key, which [`check`] refuses.
pub fn key(headers: &HeaderMap) -> Option<&str> {
    headers.get("idempotency-key").map(|value| value.to_str().unwrap_or_default())
}

/// 1 to 200 printable characters.
///
/// # Errors
/// `validation` of the header.
pub fn check(key: &str) -> Result<(), Problem> {
    if (1..=200).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Problem::validation("idempotency-key", "1 to 200 printable characters without spaces"))
}

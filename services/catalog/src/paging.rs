//! Lists in pages: how many rows, after which one, and where the next page begins.

use std::str::FromStr;

use api::page::Page;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::error::Error;

/// A page's size as asked for.
pub fn page_limit(asked: Option<u32>) -> u32 {
    asked.unwrap_or(100).clamp(1, 1_000)
}

/// What the page comes after: what a cursor holds.
///
/// # Errors
/// `validation` for anything we did not make.
pub fn after<I: FromStr>(cursor: Option<&str>) -> Result<Option<I>, Error> {
    let read = |text: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        String::from_utf8(bytes).ok()?.parse().ok()
    };
    cursor.map(|text| read(text).ok_or_else(bad_cursor)).transpose()
}

pub fn bad_cursor() -> Error {
    Error::field("cursor", "hand back `next_cursor` as it came")
}

/// The page of rows, of which one more than the limit was asked for. `place` is what the next page starts after.
pub fn page<R>(mut rows: Vec<R>, limit: u32, place: impl FnOnce(&R) -> String) -> Page<R> {
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let last = rows.last().filter(|_| more);
    let next_cursor = last.map(|row| URL_SAFE_NO_PAD.encode(place(row)));
    Page { items: rows, next_cursor }
}

//! Keyset pages by id: a cursor is the last id seen, and clients only hand it back.

use api::{
    page::{Page, PageQuery},
    problem::Problem,
};
use uuid::Uuid;

/// Where a page starts, and how many rows to ask for: one more than are shown, to know of a next page.
///
/// # Errors
/// A validation problem for a cursor that is none of ours.
pub fn bounds(query: &PageQuery) -> Result<(Option<Uuid>, i64), Problem> {
    let after =
        match &query.cursor {
            None => None,
            Some(text) => Some(Uuid::try_parse(text).map_err(|_| {
                Problem::validation("cursor", "hand back a `next_cursor` unchanged")
            })?),
        };
    Ok((after, i64::from(query.limit()) + 1))
}

/// The page of `rows`, which were asked for by [`bounds`].
pub fn page<R, T: From<R>>(
    query: &PageQuery,
    mut rows: Vec<R>,
    id: impl Fn(&R) -> Uuid,
) -> Page<T> {
    let limit = query.limit() as usize;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(|row| id(row).simple().to_string());
    Page { items: rows.into_iter().map(T::from).collect(), next_cursor }
}

//! Listings: pages over the version table, with prefix, delimiter and markers.
//!
//! Owns the walk and nothing of XML. Invariant: the cost of a page depends on what it shows, not on
//! what a delimiter folds away: a folded prefix is skipped with one seek.

use redb::ReadableTable as _;
use s3s::S3Result;

use crate::{
    meta::{Found, MetaError, Rows, found},
    model::Version,
};

/// What to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    pub prefix: String,
    pub delimiter: Option<String>,
    /// Keys after this one.
    pub after: Option<String>,
    /// With `after`: versions of that key after this one, and all later keys.
    pub after_version: Option<String>,
    pub limit: usize,
    pub all_versions: bool,
}

/// One line of a listing.
#[derive(Debug, Clone)]
pub(crate) enum Line {
    Version { key: String, version: Version, latest: bool },
    Prefix(String),
}

impl Line {
    fn key(&self) -> &str {
        match self {
            Self::Version { key, .. } | Self::Prefix(key) => key,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Page {
    pub lines: Vec<Line>,
    pub truncated: bool,
}

impl Page {
    /// Where the next page starts: the last key, and its version id in a version listing.
    pub(crate) fn last(&self) -> Option<(&str, Option<&str>)> {
        self.lines.last().map(|line| match line {
            Line::Version { key, version, .. } => (key.as_str(), Some(version.id.as_str())),
            Line::Prefix(prefix) => (prefix.as_str(), None),
        })
    }
}

/// A place in the version table: a key and how far into its history.
struct Cursor {
    key: String,
    at: u64,
}

impl Cursor {
    fn after_key(key: &str) -> Self {
        // No key sorts between a key and itself with a NUL added.
        Self { key: format!("{key}\0"), at: 0 }
    }
    fn after_prefix(prefix: &str) -> Self {
        Self { key: format!("{prefix}{}", char::MAX), at: 0 }
    }
}

fn start(rows: &impl Rows, bucket: &str, query: &Query) -> S3Result<Cursor> {
    let Some(after) = query.after.as_deref() else {
        return Ok(Cursor { key: query.prefix.clone(), at: 0 });
    };
    if let Some(id) = query.after_version.as_deref()
        && let Some(found) = rows.find_version(bucket, after, id)?
    {
        return Ok(Cursor { key: after.to_owned(), at: found.at.saturating_add(1) });
    }
    // A page that ended with a folded prefix goes on behind it.
    let folded = after.starts_with(&query.prefix) && fold(after, query) == Some(after);
    let cursor = if folded { Cursor::after_prefix(after) } else { Cursor::after_key(after) };
    let prefix = Cursor { key: query.prefix.clone(), at: 0 };
    Ok(if cursor.key < prefix.key { prefix } else { cursor })
}

fn fold<'k>(key: &'k str, query: &Query) -> Option<&'k str> {
    let delimiter = query.delimiter.as_deref().filter(|d| !d.is_empty())?;
    let rest = key.get(query.prefix.len()..)?;
    let end = query.prefix.len() + rest.find(delimiter)? + delimiter.len();
    key.get(..end)
}

/// One page of `bucket`.
pub(crate) fn list(rows: &impl Rows, bucket: &str, query: &Query) -> S3Result<Page> {
    rows.bucket(bucket)?;
    let mut page = Page::default();
    if query.limit == 0 {
        return Ok(page);
    }
    let mut cursor = start(rows, bucket, query)?;
    while let Some((key, row)) = next_row(rows, bucket, &cursor)? {
        if !key.starts_with(&query.prefix) {
            break;
        }
        let (line, next) = read_line(rows, bucket, query, key, row)?;
        cursor = next;
        let Some(line) = line else { continue };
        let repeated = page.lines.last().is_some_and(
            |last| matches!((last, &line), (Line::Prefix(a), Line::Prefix(b)) if a == b),
        );
        if repeated {
            continue;
        }
        if page.lines.len() == query.limit {
            page.truncated = true;
            break;
        }
        page.lines.push(line);
    }
    debug_assert!(page.lines.iter().all(|line| line.key().starts_with(&query.prefix)));
    Ok(page)
}

fn read_line(
    rows: &impl Rows,
    bucket: &str,
    query: &Query,
    key: String,
    row: Found,
) -> S3Result<(Option<Line>, Cursor)> {
    if let Some(prefix) = fold(&key, query) {
        let next = Cursor::after_prefix(prefix);
        // A prefix under which only deleted keys remain is not shown among current objects.
        let shown = query.all_versions || any_current(rows, bucket, prefix)?;
        return Ok((shown.then(|| Line::Prefix(prefix.to_owned())), next));
    }
    if query.all_versions {
        let newest = rows.latest(bucket, &key)?.is_some_and(|newest| newest.at == row.at);
        let next = Cursor { key: key.clone(), at: row.at.saturating_add(1) };
        return Ok((Some(Line::Version { key, version: row.version, latest: newest }), next));
    }
    let next = Cursor::after_key(&key);
    let current = row.version.object().is_some();
    let line = Line::Version { key, version: row.version, latest: true };
    Ok((current.then_some(line), next))
}

fn any_current(rows: &impl Rows, bucket: &str, prefix: &str) -> S3Result<bool> {
    let mut cursor = Cursor { key: prefix.to_owned(), at: 0 };
    while let Some((key, row)) = next_row(rows, bucket, &cursor)? {
        if !key.starts_with(prefix) {
            return Ok(false);
        }
        if row.version.object().is_some() {
            return Ok(true);
        }
        cursor = Cursor::after_key(&key);
    }
    Ok(false)
}

fn next_row(
    rows: &impl Rows,
    bucket: &str,
    cursor: &Cursor,
) -> Result<Option<(String, Found)>, MetaError> {
    let end = format!("{bucket}\0");
    let span = (bucket, cursor.key.as_str(), cursor.at)..(end.as_str(), "", 0);
    let mut range = rows.versions().range(span)?;
    let Some(row) = range.next() else { return Ok(None) };
    let row = row?;
    let key = row.0.value().1.to_owned();
    Ok(Some((key, found(row)?)))
}

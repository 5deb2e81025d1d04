//! How much an agent may say about its commit. Pure.
//!
//! Invariant: whatever passes fits every column it is written to and every receiver a fact of it goes to; one
//! tenant's figures must never hold up another's.

use api::catalog::CommitSession;

use crate::error::Error;

/// Largest figure: what every JSON reader holds exactly.
pub const MAX_FIGURE: u64 = (1 << 53) - 1;
const MAX_PATHS: usize = 1_000;
const MAX_PATH: usize = 4_096;
const MAX_TAGS: usize = 64;
const MAX_TAG_NAME: usize = 128;
const MAX_TAG_VALUE: usize = 1_024;

/// # Errors
/// `validation`, naming the field.
pub fn check(body: &CommitSession) -> Result<(), Error> {
    let stats = &body.stats;
    let figures = [
        ("files", stats.files),
        ("directories", stats.directories),
        ("others", stats.others),
        ("source_bytes", stats.source_bytes),
        ("new_bytes", stats.new_bytes),
        ("stored_bytes", stats.stored_bytes),
        ("exceptions", stats.exceptions),
        ("duration_ms", stats.duration_ms),
    ];
    if let Some((name, _)) = figures.into_iter().find(|(_, figure)| *figure > MAX_FIGURE) {
        return Err(Error::field(format!("stats/{name}"), "below 2^53"));
    }
    check_paths(&body.paths)?;
    if body.tags.len() > MAX_TAGS {
        return Err(Error::field("tags", format!("at most {MAX_TAGS}")));
    }
    for (name, value) in &body.tags {
        let fits = !name.is_empty() && name.len() <= MAX_TAG_NAME && value.len() <= MAX_TAG_VALUE;
        if !fits || !is_text(name) || !is_text(value) {
            let detail = format!(
                "names of 1 to {MAX_TAG_NAME} bytes, values of at most {MAX_TAG_VALUE}, no NUL"
            );
            return Err(Error::field("tags", detail));
        }
    }
    Ok(())
}

fn check_paths(paths: &[String]) -> Result<(), Error> {
    if paths.len() > MAX_PATHS {
        return Err(Error::field("paths", format!("at most {MAX_PATHS}")));
    }
    match paths.iter().position(|path| path.len() > MAX_PATH || !is_text(path)) {
        Some(at) => {
            Err(Error::field(format!("paths/{at}"), format!("at most {MAX_PATH} bytes, no NUL")))
        }
        None => Ok(()),
    }
}

/// PostgreSQL's text holds no NUL.
fn is_text(text: &str) -> bool {
    !text.contains('\0')
}

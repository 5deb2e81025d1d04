//! What may enter a run. Pure.
//!
//! A source is declarative (R9): absolute paths and patterns as text, bounded in number and length, without
//! control characters. What an agent reports at the end is never refused for its looks, because a report
//! refused is a report lost: it is cut to size instead, and the count tells how much there was.

use api::{
    Code, Problem,
    scheduler::{Progress, RunSource},
};
use domain::source::RunException;

pub const MAX_PATHS: usize = 1_000;
pub const MAX_EXCLUDES: usize = 1_000;
/// PATH_MAX on Linux.
const MAX_PATH_BYTES: usize = 4_096;
const MAX_TAGS: usize = 50;
const MAX_TAG_NAME: usize = 100;
const MAX_TAG_VALUE: usize = 500;
const MAX_EXCEPTIONS: usize = 1_000;
const MAX_DETAIL: usize = 1_000;
const MAX_ERROR: usize = 4_000;
/// The largest whole number JavaScript holds exactly.
const MAX_COUNT: u64 = (1 << 53) - 1;

/// Checks a source as a person or agent gave it, naming every wrong field at once.
///
/// # Errors
/// `validation` with one entry per wrong field (the first 20).
pub fn source(source: &RunSource) -> Result<(), Problem> {
    let mut wrong = Wrong::default();
    if source.paths.is_empty() {
        wrong.add("source/paths".into(), "name at least one absolute path");
    }
    if source.paths.len() > MAX_PATHS {
        wrong.add("source/paths".into(), &format!("at most {MAX_PATHS} paths"));
    }
    for (i, path) in source.paths.iter().take(MAX_PATHS).enumerate() {
        let field = || format!("source/paths/{i}");
        if !path.starts_with('/') {
            wrong.add(field(), "must be absolute: begin with /");
        }
        wrong.text(field(), path, MAX_PATH_BYTES);
    }
    if source.excludes.len() > MAX_EXCLUDES {
        wrong.add("source/excludes".into(), &format!("at most {MAX_EXCLUDES} patterns"));
    }
    for (i, pattern) in source.excludes.iter().take(MAX_EXCLUDES).enumerate() {
        if pattern.is_empty() {
            wrong.add(format!("source/excludes/{i}"), "must not be empty");
        }
        wrong.text(format!("source/excludes/{i}"), pattern, MAX_PATH_BYTES);
    }
    if source.tags.len() > MAX_TAGS {
        wrong.add("source/tags".into(), &format!("at most {MAX_TAGS} tags"));
    }
    for (i, (name, value)) in source.tags.iter().take(MAX_TAGS).enumerate() {
        // By place, not by name: a hostile name does not belong into a field path.
        if name.is_empty() {
            wrong.add(format!("source/tags/{i}/name"), "must not be empty");
        }
        wrong.text(format!("source/tags/{i}/name"), name, MAX_TAG_NAME);
        wrong.text(format!("source/tags/{i}/value"), value, MAX_TAG_VALUE);
    }
    wrong.verdict()
}

/// Checks figures of a run.
///
/// # Errors
/// `validation` naming the wrong figures.
pub fn progress(progress: &Progress) -> Result<(), Problem> {
    let mut wrong = Wrong::default();
    for (name, value) in [
        ("files", progress.files),
        ("source_bytes", progress.source_bytes),
        ("new_bytes", progress.new_bytes),
        ("stored_bytes", progress.stored_bytes),
        ("exceptions", progress.exceptions),
    ] {
        if value > MAX_COUNT {
            wrong.add(format!("progress/{name}"), "must be below 2^53");
        }
    }
    let phase = &progress.phase;
    if phase.len() > 30 || !phase.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
        wrong.add("progress/phase".into(), "at most 30 lowercase letters");
    }
    wrong.verdict()
}

/// The exceptions worth keeping, made storable.
pub fn exceptions(all: Vec<RunException>) -> Vec<RunException> {
    let storable = |e: RunException| RunException {
        path: clean(&e.path, MAX_PATH_BYTES),
        path_b64: e.path_b64.map(|text| clean(&text, 2 * MAX_PATH_BYTES)),
        kind: e.kind,
        detail: clean(&e.detail, MAX_DETAIL),
    };
    all.into_iter().take(MAX_EXCEPTIONS).map(storable).collect()
}

/// An agent's words about a failure, made storable.
pub fn error_text(text: &str) -> String {
    clean(text, MAX_ERROR)
}

/// PostgreSQL stores no NUL; file names hold every other control character.
fn clean(text: &str, at_most: usize) -> String {
    let mut kept = text.replace('\0', "\u{fffd}");
    if kept.len() > at_most {
        kept.truncate(kept.floor_char_boundary(at_most));
        kept.push('…');
    }
    kept
}

#[derive(Default)]
struct Wrong(Vec<(String, String)>);

impl Wrong {
    fn add(&mut self, field: String, detail: &str) {
        self.0.push((field, detail.to_owned()));
    }
    fn text(&mut self, field: String, text: &str, at_most: usize) {
        if text.len() > at_most {
            self.add(field, &format!("at most {at_most} bytes"));
        } else if text.chars().any(char::is_control) {
            self.add(field, "must not hold control characters");
        }
    }
    fn verdict(self) -> Result<(), Problem> {
        if self.0.is_empty() {
            return Ok(());
        }
        let start = Problem::new(Code::Validation);
        Err(self.0.into_iter().take(20).fold(start, |p, (field, detail)| p.field(field, detail)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[&str]) -> RunSource {
        RunSource { paths: paths.iter().map(|&p| p.to_owned()).collect(), ..RunSource::default() }
    }
    fn fields(problem: &Problem) -> Vec<&str> {
        problem.fields.iter().map(|f| f.field.as_str()).collect()
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let mut wrong = paths(&["/ok", "relative", "/nul\0", "/new\nline", "/\u{9f}"]);
        wrong.excludes = vec![String::new(), "*.tmp".into()];
        wrong.tags.insert("bell\u{7}".into(), "v".into());
        let problem = source(&wrong).expect_err("wrong");
        assert_eq!(
            fields(&problem),
            [
                "source/paths/1",
                "source/paths/2",
                "source/paths/3",
                "source/paths/4",
                "source/excludes/0",
                "source/tags/0/name"
            ]
        );
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(fields(&source(&paths(&[])).expect_err("none")), ["source/paths"]);
        let long = format!("/{}", "x".repeat(MAX_PATH_BYTES));
        assert_eq!(fields(&source(&paths(&[&long])).expect_err("long")), ["source/paths/0"]);
        let many = vec!["/x"; MAX_PATHS];
        assert_eq!(source(&paths(&many)), Ok(()));
        let many = vec!["/x"; MAX_PATHS + 1];
        assert_eq!(fields(&source(&paths(&many)).expect_err("many")), ["source/paths"]);
    }

    #[test]
    fn figures_beyond_what_javascript_counts_are_refused() {
        let figures = Progress { files: 1 << 53, ..Progress::default() };
        assert_eq!(fields(&progress(&figures).expect_err("big")), ["progress/files"]);
        let phase = Progress { phase: "Up\n".into(), ..Progress::default() };
        assert_eq!(fields(&progress(&phase).expect_err("phase")), ["progress/phase"]);
    }

    #[test]
    fn a_report_is_cut_to_size_never_refused() {
        let one = RunException {
            path: "/a\0b\nc".into(),
            path_b64: None,
            kind: domain::source::ExceptionKind::Unreadable,
            detail: "é".repeat(MAX_DETAIL),
        };
        let kept = exceptions(vec![one; MAX_EXCEPTIONS + 5]);
        assert_eq!(kept.len(), MAX_EXCEPTIONS);
        assert_eq!(kept[0].path, "/a\u{fffd}b\nc");
        assert!(kept[0].detail.len() <= MAX_DETAIL + '…'.len_utf8());
    }
}

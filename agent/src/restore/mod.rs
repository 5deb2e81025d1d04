//! Restore: from a snapshot into a folder, whatever the snapshot says about names.
//!
//! Scan (what is wanted, what gives way) → folders → content in pack order, each pack read once, by
//! parallel workers → links and devices → metadata of folders, deepest first. Every path operation goes
//! through [`safe_root`]; everything that did not come back as it was is a [`Problem`].

pub mod apply;
mod content;
mod finish;
mod marker;
pub mod safe_root;
mod scan;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use domain::IdGen;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use vault::snapshot::{ReadError, Reader};

use crate::sources::{GlobRules, display_path, exact_path};
use safe_root::SafeRoot;

/// When an existing entry gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    Never,
    Older,
    Changed,
    Always,
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Order {
    pub target: PathBuf,
    /// Empty: everything.
    pub include: GlobRules,
    pub overwrite: Overwrite,
}

/// What did not come back as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The entry is not there.
    NotRestored,
    /// It is there; some of its metadata is not.
    MetadataIncomplete,
    /// An existing, different entry was kept.
    Kept,
}

/// One thing to confess.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    pub kind: ProblemKind,
    pub detail: String,
}

/// What a dry run would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Create,
    Replace,
    Keep,
}

/// One line of a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    pub path: String,
    pub action: Action,
    pub size: u64,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Report {
    pub files: u64,
    pub directories: u64,
    pub others: u64,
    pub bytes: u64,
    /// Existing entries that were kept, different ones among the problems.
    pub kept: u64,
    pub problems: Vec<Problem>,
}

/// A restore that could not even begin, or was stopped.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("the target {path} cannot be used: {source}")]
    Target { path: String, source: io::Error },
    #[error("the snapshot cannot be read: {0}")]
    Snapshot(#[from] ReadError),
    #[error(
        "nothing in the snapshot matches --include; it takes names (*.conf) or paths (/etc/ssh), spelled as everhold-agent ls and everhold-agent find show them"
    )]
    NothingMatches,
    #[error("the restore was canceled; what was restored so far stays")]
    Canceled,
}

/// Figures of a restore under way.
#[derive(Debug, Default)]
pub struct Figures {
    pub bytes_total: AtomicU64,
    pub bytes: AtomicU64,
    pub files: AtomicU64,
}

/// What every part of a restore shares.
pub(crate) struct Work<'a> {
    pub reader: &'a Reader,
    pub root: SafeRoot,
    pub overwrite: Overwrite,
    /// An earlier restore into this target was interrupted.
    pub resumed: bool,
    pub ids: &'a dyn IdGen,
    pub figures: Arc<Figures>,
    pub cancel: CancellationToken,
    /// What was backed up; folders above it only lead there.
    sources: Vec<Vec<u8>>,
    problems: Mutex<Vec<Problem>>,
}

impl Work<'_> {
    fn confess(&self, path: &[u8], kind: ProblemKind, detail: impl std::fmt::Display) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.push(problem(path, kind, detail));
    }
    fn shortfalls(&self, path: &[u8], short: &apply::Shortfalls) {
        if !short.is_empty() && !self.only_leads_to_a_source(path) {
            self.confess(path, ProblemKind::MetadataIncomplete, short.join("; "));
        }
    }
    /// Such a folder (`/home` of a backup of `/home/me`) was not asked for: that a normal user cannot make
    /// it root's again is nothing to confess.
    fn only_leads_to_a_source(&self, path: &[u8]) -> bool {
        let below =
            |source: &[u8]| source.strip_prefix(path).is_some_and(|rest| rest.starts_with(b"/"));
        self.sources.iter().any(|source| below(source))
            && !self.sources.iter().any(|source| source == path)
    }
    /// A name nothing else has, beside the final one.
    fn temporary(&self) -> Vec<u8> {
        let mut random = [0; 10];
        self.ids.fill(&mut random);
        marker::temporary(random)
    }
}

fn problem(path: &[u8], kind: ProblemKind, detail: impl std::fmt::Display) -> Problem {
    Problem {
        path: display_path(path),
        path_b64: exact_path(path),
        kind,
        detail: detail.to_string(),
    }
}

/// Says what [`restore`] would do.
///
/// # Errors
/// See [`RestoreError`].
pub fn dry_run(
    reader: &Reader,
    order: &Order,
) -> Result<(Vec<Planned>, Vec<Problem>), RestoreError> {
    let root = match order.target.symlink_metadata() {
        Ok(_) => Some(open_target(order)?),
        Err(_) => None,
    };
    scan::preview(reader, order, root.as_ref())
}

/// Restores.
///
/// # Errors
/// See [`RestoreError`]; what concerns single entries is in the report instead.
pub fn restore(
    reader: &Reader,
    order: &Order,
    ids: &dyn IdGen,
    figures: Arc<Figures>,
    cancel: CancellationToken,
) -> Result<Report, RestoreError> {
    let root = open_target(order)?;
    let marker = marker::Marker::set(&root);
    let (overwrite, resumed) = (order.overwrite, marker.resumed);
    let problems = Mutex::default();
    // Without a summary every folder counts as asked for.
    let sources = reader.summary().map(|summary| summary.paths).unwrap_or_default();
    let work = Work { reader, root, overwrite, resumed, ids, figures, cancel, sources, problems };
    let scanned = scan::scan(&work, order)?;
    if scanned.matched == 0 && !order.include.is_empty() {
        marker.remove(&work.root);
        return Err(RestoreError::NothingMatches);
    }
    let mut report = Report { kept: scanned.kept, ..Report::default() };
    report.directories = scanned.folders.len() as u64;
    let written = content::write_all(&work, &scanned.files)?;
    report.files = written.len() as u64;
    finish::links_and_nodes(&work, &scanned, &written, &mut report);
    finish::folders(&work, &scanned.folders);
    report.bytes = work.figures.bytes.load(Ordering::Relaxed);
    if work.cancel.is_cancelled() {
        return Err(RestoreError::Canceled);
    }
    marker.remove(&work.root);
    report.problems = work.problems.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.problems.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(report)
}

fn open_target(order: &Order) -> Result<SafeRoot, RestoreError> {
    SafeRoot::create(&order.target)
        .map_err(|source| RestoreError::Target { path: order.target.display().to_string(), source })
}

//! Restore: from a snapshot into a folder, whatever the snapshot says about names.
//!
//! One way through the snapshot (`scan`) makes folders and names pieces of files; beside it packs are read,
//! each range once per window, and files written (`content`); then further names of hard links and the
//! metadata of folders, deepest first. Every path operation goes through [`safe_root`]; everything that did
//! not come back as it was is a [`Problem`]. Durability: one `syncfs` of the target at the end, before the
//! marker goes, so that a restore that ended well survives a power cut and any other is taken up again.

pub mod apply;
mod check;
mod compare;
mod content;
mod finish;
mod links;
mod marker;
mod place;
pub mod safe_root;
mod scan;
mod seats;
mod selection;
mod spill;
pub mod stream;
mod tar;

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use domain::IdGen;
use rustix::{fs::syncfs, io::Errno};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use vault::{
    restore::{Gauge, Limits, run},
    snapshot::{ReadError, Reader},
};

use crate::{
    pipeline::told::Telling,
    sources::{GlobRules, display_path, exact_path},
};
use links::Links;
use safe_root::SafeRoot;
use seats::Seats;
pub use selection::Selection;

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
    pub options: Options,
}

/// What else may be asked of a restore.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only these, without leading slash, with everything below; found without reading the rest.
    pub paths: Vec<Vec<u8>>,
    pub unreadable: Unreadable,
    pub afterwards: Afterwards,
    pub durability: Durability,
    /// How much may be under way at once; by the machine's cores when absent.
    pub limits: Option<Limits>,
    /// Where the list of problems goes when it gets long; without it all are kept in memory.
    pub long_list: Option<PathBuf>,
}

/// What becomes of a file with content that cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unreadable {
    /// It is not restored.
    #[default]
    Skip,
    /// What cannot be had is zeros.
    Zero,
}

/// What comes after everything was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Afterwards {
    #[default]
    Nothing,
    /// Every file is read back and its ids compared.
    Verify,
}

/// When what was restored is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When the restore has ended.
    #[default]
    AtEnd,
    /// When the system gets to it.
    Unsynced,
}

impl Order {
    /// An order with no options.
    pub fn new(target: PathBuf, include: GlobRules, overwrite: Overwrite) -> Self {
        Self { target, include, overwrite, options: Options::default() }
    }
    fn selection(&self) -> Selection {
        Selection { include: self.include.clone(), paths: self.options.paths.clone() }
    }
}

/// What did not come back as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The entry is not there.
    NotRestored,
    /// A part of the snapshot's tree that begins here is lost, and with it the names of what is in it.
    Unlisted,
    /// It is there; some of its metadata is not.
    MetadataIncomplete,
    /// An existing, different entry was kept.
    Kept,
    /// It is there; some of its content could not be had and is zeros.
    Zeroed,
    /// Read back, it is not what was restored.
    Mismatch,
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
    /// Bytes of existing files that were right already.
    pub matched: u64,
    /// Files that were read back, with `--verify`.
    pub verified: u64,
    /// Existing entries that were kept, different ones among the problems.
    pub kept: u64,
    /// The first of them, by path.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub unlisted: u64,
    /// Where all are, if not all are here.
    pub long_list: Option<PathBuf>,
    /// One of them is [`ProblemKind::Mismatch`].
    pub mismatch: bool,
    /// Frames, and their bytes, that other snapshots' packs gave because the snapshot's own had lost them.
    pub from_others: (u64, u64),
}

impl Report {
    pub const fn exceptions(&self) -> u64 {
        self.problems.len() as u64 + self.unlisted
    }
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
    #[error(
        "{0} is not in the snapshot; names are spelled as everhold-agent ls and everhold-agent find show them"
    )]
    NotInSnapshot(String),
    #[error(
        "the restore was canceled; what was restored so far stays, and the same restore again goes on from there"
    )]
    Canceled,
    #[error(
        "the target takes nothing more ({0}); make room and restore again: what was restored so far stays, and it goes on from there"
    )]
    TargetFull(io::Error),
    #[error("the output cannot be written: {0}")]
    Pipe(#[source] io::Error),
    #[error("{path} cannot be read: {why}; with --zero-damaged what is lost is zeros")]
    StreamLost { path: String, why: String },
    #[error("--stdout gives out one file; say which one with --path, or use --tar for a folder")]
    NotOneFile,
    #[error("what is left to do was put into a temporary file that cannot be read again: {0}")]
    Spill(io::Error),
    #[error("the target cannot be brought to its disk: {0}")]
    Sync(io::Error),
}

/// Figures of a restore under way.
#[derive(Debug, Default)]
pub struct Figures {
    pub bytes_total: AtomicU64,
    /// Bytes written into files.
    pub bytes: AtomicU64,
    /// Bytes of existing files that were right already.
    pub matched: AtomicU64,
    pub files: AtomicU64,
    /// Of the reading of packs.
    pub gauge: Gauge,
}

/// What every part of a restore shares.
pub(crate) struct Work<'a> {
    pub reader: &'a Reader,
    pub root: Arc<SafeRoot>,
    pub seats: Seats,
    pub overwrite: Overwrite,
    /// An earlier restore into this target was interrupted.
    pub resumed: bool,
    /// Files that it had set aside are where they were.
    pub left_aside: AtomicBool,
    pub zero_damaged: bool,
    pub limits: Limits,
    pub figures: Arc<Figures>,
    pub cancel: CancellationToken,
    /// What was backed up; folders above it only lead there.
    sources: Vec<Vec<u8>>,
    problems: Mutex<Told>,
    /// First names of hard links, by group.
    links: Links,
    /// Why the target takes nothing more.
    full: OnceLock<Errno>,
    names: Names,
}

struct Told {
    problems: Telling<Problem>,
    mismatch: bool,
    /// Paths of files that are not the snapshot's, and said so, for whoever reads back the others.
    excused: Option<HashSet<Vec<u8>>>,
}

/// Names nothing else has: random for each restore, counted within it.
struct Names {
    random: [u8; 6],
    next: AtomicU32,
}

impl Work<'_> {
    fn confess(&self, path: &[u8], kind: ProblemKind, detail: impl std::fmt::Display) {
        let mut told = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(excused) = &mut told.excused
            && kind != ProblemKind::MetadataIncomplete
        {
            excused.insert(path.to_vec());
        }
        told.mismatch |= kind == ProblemKind::Mismatch;
        told.problems.push(problem(path, kind, detail));
    }
    fn is_excused(&self, path: &[u8]) -> bool {
        let told = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        told.excused.as_ref().is_some_and(|excused| excused.contains(path))
    }
    /// The target takes nothing more: all stop.
    fn end_with(&self, errno: Errno) {
        self.full.get_or_init(|| errno);
    }
    fn is_stopped(&self) -> bool {
        self.cancel.is_cancelled() || self.full.get().is_some()
    }
    fn ended(&self) -> Result<(), RestoreError> {
        match self.full.get() {
            Some(errno) => Err(RestoreError::TargetFull((*errno).into())),
            None if self.is_stopped() => Err(RestoreError::Canceled),
            None => Ok(()),
        }
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
        let next = self.names.next.fetch_add(1, Ordering::Relaxed);
        let mut name = [0; 10];
        let (random, count) = name.split_at_mut(6);
        random.copy_from_slice(&self.names.random);
        count.copy_from_slice(&next.to_be_bytes());
        marker::temporary(name)
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

/// What is said of a part of the tree that is lost, at the path it begins with.
pub(crate) fn told(error: &ReadError) -> String {
    match error {
        ReadError::Stretch { until: Some(until), source, .. } => format!(
            "from here up to, not including, {} the snapshot's tree is lost: {source}",
            display_path(until)
        ),
        ReadError::Stretch { source, .. } => {
            format!("from here to its end the snapshot's tree is lost: {source}")
        }
        other if other.is_loss() => format!("it is lost in the snapshot's tree: {other}"),
        other => format!("nothing more of the snapshot can be listed: {other}"),
    }
}

/// Says what [`restore`] would do, entry by entry; gives what would not come back.
///
/// # Errors
/// See [`RestoreError`].
pub fn dry_run(
    reader: &Reader,
    order: &Order,
    each: impl FnMut(Planned),
) -> Result<Vec<Problem>, RestoreError> {
    let root = match order.target.symlink_metadata() {
        Ok(_) => Some(open_target(order)?),
        Err(_) => None,
    };
    scan::preview(reader, order, root.as_ref(), each)
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
    let root = Arc::new(open_target(order)?);
    let marker = marker::Marker::set(&root);
    let mut random = [0; 6];
    ids.fill(&mut random);
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let work = Work {
        reader,
        seats: Seats::new(Arc::clone(&root)),
        root,
        overwrite: order.overwrite,
        resumed: marker.resumed,
        left_aside: AtomicBool::new(false),
        zero_damaged: order.options.unreadable == Unreadable::Zero,
        limits: order.options.limits.unwrap_or(Limits::for_cores(cores)),
        figures,
        cancel,
        // Without a summary every folder counts as asked for.
        sources: reader.summary().map(|summary| summary.paths).unwrap_or_default(),
        problems: Mutex::new(Told {
            problems: (order.options.long_list.as_deref())
                .map_or_else(Telling::in_memory, Telling::to),
            mismatch: false,
            excused: (order.options.afterwards == Afterwards::Verify).then(HashSet::new),
        }),
        links: Links::new(&std::env::temp_dir()),
        full: OnceLock::new(),
        names: Names { random, next: AtomicU32::new(0) },
    };
    let crew = content::Crew::new(&work);
    let gauge = &work.figures.gauge;
    let scanned = run(reader.frames(), work.limits, gauge, &crew, |feed| {
        scan::scan(&work, order, &crew, feed)
    });
    work.ended()?;
    let scanned = scanned?;
    if scanned.matched == 0 && !order.selection().is_everything() {
        if !work.resumed {
            marker.remove(&work.root);
        }
        return Err(RestoreError::NothingMatches);
    }
    let report = finish(&work, order, scanned)?;
    // A later restore is to know of them.
    if !work.left_aside.load(Ordering::Relaxed) {
        marker.remove(&work.root);
    }
    Ok(report)
}

/// Everything after content.
fn finish(
    work: &Work<'_>,
    order: &Order,
    mut scanned: scan::Scanned,
) -> Result<Report, RestoreError> {
    let mut report = Report {
        kept: scanned.kept,
        directories: scanned.directories,
        others: scanned.others,
        files: work.figures.files.load(Ordering::Relaxed),
        ..Report::default()
    };
    finish::further_names(work, std::mem::take(&mut scanned.later), &mut report)?;
    finish::folders(work, std::mem::take(&mut scanned.folders))?;
    if order.options.durability == Durability::AtEnd {
        let top = work.root.folder(b"").map_err(|refused| io::Error::other(refused.to_string()));
        let synced = top.and_then(|top| {
            faults::point("restore: sync")?;
            Ok(syncfs(top.handle())?)
        });
        synced.map_err(RestoreError::Sync)?;
    }
    if order.options.afterwards == Afterwards::Verify {
        report.verified = check::read_back(work, order)?;
    }
    work.ended()?;
    report.bytes = work.figures.bytes.load(Ordering::Relaxed);
    report.matched = work.figures.matched.load(Ordering::Relaxed);
    report.from_others = work.reader.frames().from_others();
    let mut told = work.problems.lock().unwrap_or_else(PoisonError::into_inner);
    report.mismatch = told.mismatch;
    let told = std::mem::take(&mut told.problems).finish();
    report.unlisted = told.count() - told.len() as u64;
    report.long_list = told.file().map(Path::to_path_buf);
    report.problems = told.into_first();
    report.problems.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(report)
}

fn open_target(order: &Order) -> Result<SafeRoot, RestoreError> {
    SafeRoot::create(&order.target)
        .map_err(|source| RestoreError::Target { path: order.target.display().to_string(), source })
}

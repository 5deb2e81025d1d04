//! What is wanted, and what of it gives way to what is there: the first pass over the snapshot.

use std::collections::{HashMap, HashSet};

use vault::{
    snapshot::Reader,
    tree::{Entry, EntryKind},
};

use super::{
    Action, Order, Overwrite, Planned, Problem, ProblemKind, RestoreError, Work,
    marker::sweep,
    problem,
    safe_root::{Refused, SafeRoot, split},
};
use crate::{
    pipeline::entry::kind_of,
    sources::{Kind, Moment, Stat, display_path},
};

/// A folder to finish at the end.
pub struct FolderDue {
    pub entry: Entry,
    /// Its metadata is to be set: it is ours, or existing ones give way.
    pub apply: bool,
}

/// The work that follows from the scan.
#[derive(Default)]
pub struct Scanned {
    /// In key order: every folder before what lies in it.
    pub folders: Vec<FolderDue>,
    /// Regular files whose content is to be written; of hard links the first name only.
    pub files: Vec<Entry>,
    /// Everything else, and further names of hard links with the number of their first one.
    pub others: Vec<Entry>,
    pub kept: u64,
    /// Entries that were asked for.
    pub matched: u64,
    /// First names that were kept as they are, by hard-link group.
    pub kept_groups: HashMap<u64, Vec<u8>>,
}

/// Goes through the snapshot, makes folders, decides about the rest.
pub fn scan(work: &Work<'_>, order: &Order) -> Result<Scanned, RestoreError> {
    let mut scanned = Scanned::default();
    let mut groups = HashSet::new();
    let mut parents = Parents::default();
    let mut failed = None;
    for entry in work.reader.entries()? {
        if work.cancel.is_cancelled() {
            return Err(RestoreError::Canceled);
        }
        let entry = match entry {
            Ok(entry) => entry,
            // The rest of the tree is lost; what was listed so far is still restored.
            Err(error) => {
                failed = Some(error);
                break;
            }
        };
        if !order.include.is_empty() && !order.include.matches_with_parents(&entry.path) {
            if entry.is_dir() {
                parents.remember(entry);
            }
            continue;
        }
        scanned.matched += 1;
        for parent in parents.needed_for(&entry.path) {
            folder(work, parent, &mut scanned);
        }
        if entry.path.is_empty() {
            // The target itself keeps its own metadata: it is the user's folder.
            continue;
        }
        if entry.is_dir() {
            folder(work, entry, &mut scanned);
        } else {
            place(work, entry, &mut groups, &mut scanned);
        }
    }
    if let Some(error) = failed {
        if scanned.folders.is_empty() && scanned.files.is_empty() && scanned.others.is_empty() {
            return Err(error.into());
        }
        let detail = format!("what follows in the snapshot cannot be read: {error}");
        work.confess(b"", ProblemKind::NotRestored, detail);
    }
    Ok(scanned)
}

fn folder(work: &Work<'_>, entry: Entry, scanned: &mut Scanned) {
    match make_folder(work, &entry.path) {
        Ok(existing) => {
            let apply = existing.as_ref().is_none_or(|there| gives_way(work, &entry, there));
            if let Some(there) = existing.filter(|_| !apply)
                && !same_rights(&entry, &there)
                && !work.only_leads_to_a_source(&entry.path)
            {
                scanned.kept += 1;
                let detail =
                    "the existing folder's mode or owner differ and were kept; see --overwrite";
                work.confess(&entry.path, ProblemKind::Kept, detail);
            }
            scanned.folders.push(FolderDue { entry, apply });
        }
        Err(refused) => work.confess(&entry.path, ProblemKind::NotRestored, refused),
    }
}

/// Whether an existing folder gets the snapshot's metadata.
fn gives_way(work: &Work<'_>, entry: &Entry, there: &Stat) -> bool {
    // What an interrupted restore made is private still, or has its mode but perhaps not its times.
    let ours = there.mode & 0o777 == 0o700 || there.mode == entry.mode;
    work.overwrite != Overwrite::Never || (work.resumed && ours)
}

/// Times say nothing: whoever puts something into a folder changes them. Only root can give owners back.
fn same_rights(entry: &Entry, there: &Stat) -> bool {
    let owned = (entry.uid, entry.gid) == (there.uid, there.gid);
    entry.mode == there.mode && (owned || !rustix::process::geteuid().is_root())
}

/// What was there; `None` when the folder was made.
fn make_folder(work: &Work<'_>, path: &[u8]) -> Result<Option<Stat>, Refused> {
    let (above, name) = split(path)?;
    let above = work.root.make_folders(above)?;
    let existing = above.stat(name)?;
    match existing.as_ref().map(|stat| stat.kind) {
        Some(Kind::Directory) => {
            if work.resumed {
                sweep(&above.make_folder(name)?);
            }
            return Ok(existing);
        }
        Some(_) if work.overwrite == Overwrite::Always => above.remove(name)?,
        Some(_) => return Err(Refused::NotAFolder),
        None => {}
    }
    above.make_folder(name)?;
    Ok(None)
}

fn place(work: &Work<'_>, entry: Entry, groups: &mut HashSet<u64>, scanned: &mut Scanned) {
    match verdict(&work.root, work.overwrite, &entry) {
        Ok(Place { action: Action::Keep, same }) => {
            scanned.kept += 1;
            // Only what is the snapshot's file may lend its content to the other names.
            if let Some(group) = entry.hardlink.filter(|_| same) {
                scanned.kept_groups.entry(group).or_insert_with(|| entry.path.clone());
            }
        }
        Ok(_) => {
            let first = entry.hardlink.is_none_or(|group| groups.insert(group));
            let kept = entry.hardlink.is_some_and(|group| scanned.kept_groups.contains_key(&group));
            if entry.is_file() && first && !kept {
                scanned.files.push(entry);
            } else {
                scanned.others.push(entry);
            }
        }
        Err(Objection::Different(detail)) => {
            scanned.kept += 1;
            work.confess(&entry.path, ProblemKind::Kept, detail);
        }
        Err(Objection::Refused(refused)) => {
            work.confess(&entry.path, ProblemKind::NotRestored, refused);
        }
    }
}

/// What happens to an entry's place.
struct Place {
    action: Action,
    /// What is there looks like the snapshot's.
    same: bool,
}

enum Objection {
    /// Something else is there and stays.
    Different(&'static str),
    Refused(Refused),
}

impl From<Refused> for Objection {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

const CREATE: Place = Place { action: Action::Create, same: false };

/// Looks at the entry's place.
fn verdict(root: &SafeRoot, overwrite: Overwrite, entry: &Entry) -> Result<Place, Objection> {
    let (above, name) = split(&entry.path)?;
    let above = match root.folder(above) {
        Ok(above) => above,
        // A folder still to be made: nothing can be in it.
        Err(refused) if refused.is_not_found() => return Ok(CREATE),
        Err(refused) => return Err(refused.into()),
    };
    let Some(existing) = above.stat(name)? else { return Ok(CREATE) };
    if existing.kind == Kind::Directory {
        return Err(Objection::Different("a folder is in its place; remove it first"));
    }
    let same = looks_the_same(entry, &existing);
    let mtime = Moment { secs: entry.mtime.secs, nanos: entry.mtime.nanos };
    let action = match overwrite {
        Overwrite::Always => Action::Replace,
        Overwrite::Changed if !same => Action::Replace,
        Overwrite::Older if existing.mtime < mtime => Action::Replace,
        Overwrite::Older | Overwrite::Changed => Action::Keep,
        Overwrite::Never if same => Action::Keep,
        Overwrite::Never => {
            let words = "a different entry is there and was kept; see --overwrite";
            return Err(Objection::Different(words));
        }
    };
    Ok(Place { action, same })
}

fn looks_the_same(entry: &Entry, existing: &Stat) -> bool {
    let mtime = Moment { secs: entry.mtime.secs, nanos: entry.mtime.nanos };
    kind_of(entry) == existing.kind
        && existing.mtime == mtime
        && match &entry.kind {
            EntryKind::File { size, .. } => *size == existing.size,
            EntryKind::Symlink { target } => target.len() as u64 == existing.size,
            _ => true,
        }
}

/// Folders that were not asked for themselves but lead to something that was.
#[derive(Default)]
struct Parents {
    seen: HashMap<Vec<u8>, Entry>,
}

impl Parents {
    fn remember(&mut self, entry: Entry) {
        if !entry.path.is_empty() {
            self.seen.insert(entry.path.clone(), entry);
        }
    }
    /// Each at most once, topmost first.
    fn needed_for(&mut self, path: &[u8]) -> Vec<Entry> {
        if self.seen.is_empty() {
            return Vec::new();
        }
        let cuts = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let above = cuts.filter_map(|(at, _)| path.get(..at));
        above.filter_map(|above| self.seen.remove(above)).collect()
    }
}

/// The same decisions without doing anything.
pub fn preview(
    reader: &Reader,
    order: &Order,
    root: Option<&SafeRoot>,
) -> Result<(Vec<Planned>, Vec<Problem>), RestoreError> {
    let (mut planned, mut problems) = (Vec::new(), Vec::new());
    for entry in reader.entries()? {
        let entry = entry?;
        let wanted = order.include.is_empty() || order.include.matches_with_parents(&entry.path);
        if !wanted || entry.path.is_empty() {
            continue;
        }
        let action = match root {
            None => Ok(Action::Create),
            Some(root) if entry.is_dir() => Ok(match root.folder(&entry.path) {
                Ok(_) => Action::Keep,
                Err(_) => Action::Create,
            }),
            Some(root) => verdict(root, order.overwrite, &entry).map(|place| place.action),
        };
        let path = display_path(&entry.path);
        match action {
            Ok(action) => planned.push(Planned { path, action, size: entry.size() }),
            Err(Objection::Different(detail)) => {
                planned.push(Planned { path, action: Action::Keep, size: entry.size() });
                problems.push(problem(&entry.path, ProblemKind::Kept, detail));
            }
            Err(Objection::Refused(refused)) => {
                problems.push(problem(&entry.path, ProblemKind::NotRestored, refused));
            }
        }
    }
    if planned.is_empty() && problems.is_empty() && !order.include.is_empty() {
        return Err(RestoreError::NothingMatches);
    }
    Ok((planned, problems))
}

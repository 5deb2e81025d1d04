//! What is wanted, and what of it gives way to what is there: the first pass over the snapshot.

use std::collections::{HashMap, HashSet};

use vault::{
    snapshot::Reader,
    tree::{Entry, EntryKind},
};

use super::{
    Action, Order, Overwrite, Planned, Problem, ProblemKind, RestoreError, Work, problem,
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
        Ok(made) => {
            let apply = made || work.overwrite != Overwrite::Never;
            scanned.folders.push(FolderDue { entry, apply });
        }
        Err(refused) => work.confess(&entry.path, ProblemKind::NotRestored, refused),
    }
}

/// `true` when the folder was made, `false` when it was there.
fn make_folder(work: &Work<'_>, path: &[u8]) -> Result<bool, Refused> {
    let (above, name) = split(path)?;
    let above = work.root.make_folders(above)?;
    let existing = above.stat(name)?;
    match existing.map(|stat| stat.kind) {
        Some(Kind::Directory) => return Ok(false),
        Some(_) if work.overwrite == Overwrite::Always => above.remove(name)?,
        Some(_) => return Err(Refused::NotAFolder),
        None => {}
    }
    above.make_folder(name)?;
    Ok(true)
}

fn place(work: &Work<'_>, entry: Entry, groups: &mut HashSet<u64>, scanned: &mut Scanned) {
    match verdict(&work.root, work.overwrite, &entry) {
        Ok(Action::Keep) => {
            scanned.kept += 1;
            if let Some(group) = entry.hardlink {
                scanned.kept_groups.entry(group).or_insert_with(|| entry.path.clone());
            }
        }
        Ok(Action::Create | Action::Replace) => {
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

/// What happens to the entry's place.
fn verdict(root: &SafeRoot, overwrite: Overwrite, entry: &Entry) -> Result<Action, Objection> {
    let (above, name) = split(&entry.path)?;
    let above = match root.folder(above) {
        Ok(above) => above,
        // A folder still to be made: nothing can be in it.
        Err(refused) if refused.is_not_found() => return Ok(Action::Create),
        Err(refused) => return Err(refused.into()),
    };
    let Some(existing) = above.stat(name)? else { return Ok(Action::Create) };
    if existing.kind == Kind::Directory {
        return Err(Objection::Different("a folder is in its place; remove it first"));
    }
    let same = looks_the_same(entry, &existing);
    let mtime = Moment { secs: entry.mtime.secs, nanos: entry.mtime.nanos };
    match overwrite {
        Overwrite::Always => Ok(Action::Replace),
        Overwrite::Changed if !same => Ok(Action::Replace),
        Overwrite::Older if existing.mtime < mtime => Ok(Action::Replace),
        Overwrite::Older | Overwrite::Changed => Ok(Action::Keep),
        Overwrite::Never if same => Ok(Action::Keep),
        Overwrite::Never => {
            Err(Objection::Different("a different entry is there and was kept; see --overwrite"))
        }
    }
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
            Some(root) => verdict(root, order.overwrite, &entry),
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
    Ok((planned, problems))
}

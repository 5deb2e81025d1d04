//! What happens at an entry's place in the target: a pure decision over what is there.
//!
//! Invariant: nothing is written here, so that a dry run decides as a restore does.

use vault::tree::{Entry, EntryKind};

use super::{
    Action, Overwrite,
    content::Base,
    safe_root::{Refused, SafeRoot, split},
};
use crate::{
    pipeline::entry::kind_of,
    sources::{Kind, Moment, Stat},
};

/// What happens to an entry's place.
pub struct Place {
    pub action: Action,
    /// What is there looks like the snapshot's.
    pub same: bool,
    /// A file that can be changed where it differs, instead of being replaced.
    pub base: Option<Base>,
}

pub enum Objection {
    /// Something else is there and stays.
    Different(&'static str),
    Refused(Refused),
}

impl From<Refused> for Objection {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

pub const CREATE: Place = Place { action: Action::Create, same: false, base: None };

/// Looks at the entry's place.
pub fn verdict(root: &SafeRoot, overwrite: Overwrite, entry: &Entry) -> Result<Place, Objection> {
    let (above, name) = split(&entry.path)?;
    let above = match root.folder(above) {
        Ok(above) => above,
        // A folder still to be made: nothing can be in it.
        Err(refused) if refused.is_not_found() => return Ok(CREATE),
        Err(refused) => return Err(refused.into()),
    };
    let Some(existing) = above.stat(name)? else { return Ok(CREATE) };
    decide(overwrite, entry, &existing)
}

/// The decision, given what is there.
pub fn decide(overwrite: Overwrite, entry: &Entry, existing: &Stat) -> Result<Place, Objection> {
    if existing.kind == Kind::Directory {
        return Err(Objection::Different("a folder is in its place; remove it first"));
    }
    let same = looks_the_same(entry, existing);
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
    // Of a file with several names the others must not change with it; and whoever may have it open must not read or
    // change there what the snapshot does not let him.
    let alone = existing.kind == Kind::File && existing.links == 1 && existing.size > 0;
    let alone = alone && is_nobody_elses(entry, existing);
    let delta = action == Action::Replace && entry.is_file() && entry.hardlink.is_none() && alone;
    let base = delta.then(|| Base {
        name: entry.name().to_vec(),
        identity: existing.identity(),
        size: existing.size,
        is_part: false,
    });
    Ok(Place { action, same, base })
}

/// Whether nobody can hold it open whom the restored file would not let in: its owner is ours or will be its owner, and
/// group and others have no right that they will not have.
fn is_nobody_elses(entry: &Entry, existing: &Stat) -> bool {
    let ours = existing.uid == rustix::process::geteuid().as_raw() || existing.uid == entry.uid;
    ours && existing.mode & 0o077 & !entry.mode == 0
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

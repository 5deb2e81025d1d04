//! From a damaged pack to the files that suffer.

use std::collections::{BTreeSet, HashSet};

use super::{
    Depth, Options, Report, TreeCheck, TreeProblem, Wanted,
    packs::{self, Task},
    reader,
};
use crate::{
    id::{IdKeys, Sha256},
    rescue::{Inventory, OpenVault, Snapshots},
    snapshot::SourceError,
};

/// Packs read at once.
const READERS: usize = 4;

/// How much of a pack is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: the paths are those that would suffer if it were.
    Nothing,
    /// So many frames; the rest can still be read.
    Frames(u64),
    /// All of it.
    Everything,
}

/// Who suffers.
#[derive(Debug)]
pub struct Affected {
    pub loss: Loss,
    /// What is wrong with the pack, in words.
    pub faults: Vec<String>,
    /// Names of snapshots with what they lose.
    pub snapshots: Vec<(String, Vec<TreeProblem>)>,
    /// Paths beyond those that are listed.
    pub unlisted: u64,
}

impl Affected {
    /// Every path once, over all snapshots.
    pub fn paths(&self) -> BTreeSet<&[u8]> {
        let problems = self.snapshots.iter().flat_map(|(_, problems)| problems);
        let paths = problems.filter_map(|problem| match problem {
            TreeProblem::Content { path, .. } => Some(path.as_slice()),
            TreeProblem::Node { from, .. } => Some(from.as_slice()),
            TreeProblem::Boundaries | TreeProblem::Usage { .. } => None,
        });
        paths.collect()
    }
}

/// What is lost with the packs of this hash, as they are now. `None`: no snapshot that counts names such a pack.
///
/// # Errors
/// The bucket cannot be listed.
pub fn affected(vault: &OpenVault, pack: &Sha256) -> Result<Option<Affected>, SourceError> {
    let inventory = Inventory::take(&*vault.objects, vault.tenant, vault.vault)?;
    let snapshots = Snapshots::read(vault, &inventory);
    let mut ignored = Report::default();
    let wanted = Wanted::of(vault, &snapshots, &mut ignored);
    let ids = IdKeys::of(&vault.keys);
    let Some(target) = wanted.packs.values().find(|needed| needed.pack.sha256 == *pack) else {
        return Ok(None);
    };
    let seen = packs::look(vault, &ids, &Task::of(target, &inventory), Depth::Data);
    let loss = match (&seen.open, seen.bad.len() as u64) {
        (None, _) => Loss::Everything,
        (Some(_), 0) => Loss::Nothing,
        (Some(_), bad) => Loss::Frames(bad),
    };
    let bad: HashSet<(Sha256, u32)> = seen.bad.iter().map(|frame| (*pack, *frame)).collect();
    let faults = seen.faults.iter().map(|(_, words)| words.clone()).collect();
    let mut shelf = directories(vault, &inventory, &wanted);
    shelf.put(*pack, seen);
    // Of a sound or a wholly lost pack every user is told: it is left out of the sets.
    let keep = |sha256: &Sha256| sha256 != pack || matches!(loss, Loss::Frames(_));
    let mut affected = Affected { loss, faults, snapshots: Vec::new(), unlisted: 0 };
    for found in &wanted.whole {
        let Ok(set) = snapshots.packs(found) else { continue };
        if !set.iter().any(|named| named.sha256 == *pack) {
            continue;
        }
        let reader = reader(vault, found, set, &shelf, &keep);
        let report = TreeCheck::new(&reader, &bad).run();
        let suffers = |problem: &TreeProblem| {
            !matches!(problem, TreeProblem::Usage { .. } | TreeProblem::Boundaries)
        };
        let problems: Vec<_> = report.problems.into_iter().filter(suffers).collect();
        affected.unlisted += report.unlisted;
        if !problems.is_empty() {
            affected.snapshots.push((found.name(), problems));
        }
    }
    Ok(Some(affected))
}

/// The directories of all packs, whatever their frames are.
fn directories(vault: &OpenVault, inventory: &Inventory, wanted: &Wanted<'_>) -> packs::Shelf {
    let tasks: Vec<_> = wanted.packs.values().map(|needed| Task::of(needed, inventory)).collect();
    let options = Options { depth: Depth::Structure, workers: READERS, ..Options::default() };
    let seen = packs::look_at_all(vault, &tasks, &options, |_| ());
    let mut shelf = packs::Shelf::default();
    tasks.iter().zip(seen).for_each(|(task, seen)| shelf.put(task.sha256, seen));
    shelf
}

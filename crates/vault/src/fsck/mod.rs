//! The checker that trusts nothing the writer wrote.
//!
//! Owns what "sound" means for a whole vault: signatures, names against bytes, both copies of every directory, every
//! frame, every id, the tree's order and boundaries, every reference, the exact list of used frames, and that no salt
//! was used twice. Invariant: it derives everything again from the bytes and compares; a clean report means that every
//! snapshot that was not forgotten can be restored bit for bit, as far as `Depth` looked. Nothing is written.

mod affected;
mod packs;
mod report;
mod tree;

use std::{collections::BTreeMap, sync::Arc};

use domain::PackId;

pub use affected::{Affected, Loss, affected};
pub(crate) use report::finding;
pub use report::{Coverage, Finding, Report, Severity, What};
pub use tree::{TreeCheck, TreeProblem, TreeReport};

use crate::{
    id::Sha256,
    layout::{Name, ObjectKind},
    manifest::{PackRef, PackSet},
    rescue::{Found, Inventory, OpenVault, Snapshots, Standing},
    snapshot::{Frames, Reader, SourceError},
};
use packs::Shelf;

/// How far a check looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Everything but the frames of data packs: those are opened by both ends.
    Structure,
    /// Every byte of every object, those included that no snapshot names.
    Data,
}

/// What a check is told while it runs.
#[derive(Debug, Clone, Copy)]
pub enum Progress {
    /// Packs done, of how many; bytes read.
    Packs { done: u64, of: u64, bytes: u64 },
    /// Snapshots done, of how many.
    Snapshots { done: u64, of: u64 },
}

/// How to check.
pub struct Options<'a> {
    pub depth: Depth,
    /// Packs in work at once; each takes its own length of memory.
    pub workers: usize,
    /// Bytes of directories of packs that are kept; those beyond are read again for each snapshot.
    pub directories: usize,
    pub progress: &'a (dyn Fn(Progress) + Sync),
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { depth: Depth::Data, workers: 2, directories: 256 << 20, progress: &|_| () }
    }
}

/// Checks one vault.
///
/// # Errors
/// Only when the bucket cannot be listed: everything else is a finding.
pub fn check(vault: &OpenVault, options: &Options<'_>) -> Result<Report, SourceError> {
    let inventory = Inventory::take(&*vault.objects, vault.tenant, vault.vault)?;
    let mut report = Report::default();
    let snapshots = Snapshots::read(vault, &inventory);
    report.manifests = snapshots.found.len() as u64;
    report.findings.clone_from(&snapshots.findings);
    strays(&inventory, &mut report);
    let wanted = Wanted::of(vault, &snapshots, &mut report);
    let shelf = packs::check(vault, &inventory, &wanted, options, &mut report);
    let total = wanted.whole.len() as u64;
    for (done, found) in (0..).zip(&wanted.whole) {
        (options.progress)(Progress::Snapshots { done, of: total });
        // It could be told before, and the manifests are the same.
        let Ok(set) = snapshots.packs(found) else { continue };
        snapshot(vault, found, set, &shelf, &mut report);
    }
    report.finish();
    Ok(report)
}

fn strays(inventory: &Inventory, report: &mut Report) {
    for key in &inventory.stray {
        let said = "no object of a vault is called so";
        report.push(finding(Severity::Suspicious, What::Stray, key.clone(), said));
    }
    let more = inventory.stray_count.saturating_sub(inventory.stray.len() as u64);
    report.unlisted += more;
}

/// What the snapshots that count need. Their sets of packs are not kept: with many snapshots of a large vault each has
/// most of all packs.
struct Wanted<'a> {
    /// Those whose set of packs is known.
    whole: Vec<&'a Found>,
    packs: BTreeMap<PackId, Needed>,
}

/// A pack, as the first manifest describes it that names it.
struct Needed {
    pack: PackRef,
    /// Who names it: places in [`Wanted::whole`].
    by: Vec<u32>,
}

impl<'a> Wanted<'a> {
    fn of(vault: &OpenVault, snapshots: &'a Snapshots, report: &mut Report) -> Self {
        let mut wanted = Self { whole: Vec::new(), packs: BTreeMap::new() };
        for found in &snapshots.found {
            // Its packs may be gone by right; its manifest counted as a link of others.
            if found.is_forgotten() || vault.objects.is_mere_link(found.signed.id) {
                report.forgotten += 1;
                continue;
            }
            report.snapshots += 1;
            report.unconfirmed += u64::from(found.standing == Standing::Unconfirmed);
            match snapshots.packs(found) {
                Ok(set) => wanted.add(vault, found, set, report),
                Err(why) => {
                    let signed = &found.signed;
                    let name = Name::Object(ObjectKind::Manifest, signed.sha256, signed.id);
                    let key = name.key(vault.tenant, vault.vault);
                    let bad = finding(Severity::Damage, What::Chain, key, why.to_string());
                    report.push(bad.of_snapshot(found.name()));
                }
            }
        }
        wanted
    }

    fn add(&mut self, vault: &OpenVault, found: &'a Found, set: PackSet, report: &mut Report) {
        let place = self.whole.len() as u32;
        self.whole.push(found);
        let facts = |pack: &PackRef| {
            (pack.kind, pack.sha256, pack.length, pack.frames, pack.version_id.clone())
        };
        for (id, pack) in set.0 {
            let said = facts(&pack);
            let known = self.packs.entry(id).or_insert_with(|| Needed { pack, by: Vec::new() });
            known.by.push(place);
            if facts(&known.pack) != said {
                let name = Name::Object(said.0.object(), said.1, id);
                let key = name.key(vault.tenant, vault.vault);
                let said = "two manifests describe this pack differently";
                let bad = finding(Severity::Damage, What::Contradiction, key, said);
                report.push(bad.of_snapshot(found.name()));
            }
        }
    }

    /// Names of the snapshots that need a pack.
    fn names(&self, needed: &Needed) -> impl Iterator<Item = String> {
        let named = needed.by.iter().filter_map(|place| self.whole.get(*place as usize));
        named.map(|found| found.name())
    }
}

/// The tree of one snapshot against its packs.
fn snapshot(vault: &OpenVault, found: &Found, set: PackSet, shelf: &Shelf, report: &mut Report) {
    let reader = reader(vault, found, set, shelf, &|_| true);
    let sizes = vault.descriptor.nodes;
    let tree = TreeCheck::new(&reader, &shelf.bad).with_boundaries(sizes).run();
    report.entries += tree.entries;
    report.source_bytes = report.source_bytes.saturating_add(tree.source_bytes);
    report.unlisted += tree.unlisted;
    let name = found.name();
    for problem in tree.problems {
        report.push(Finding::of_tree(problem).of_snapshot(name.clone()));
    }
}

/// A reader that knows only the packs that could be opened and that `keep` lets through: what is missing is known to
/// be missing at once, without asking the store again.
fn reader(
    vault: &OpenVault,
    found: &Found,
    mut set: PackSet,
    shelf: &Shelf,
    keep: &dyn Fn(&Sha256) -> bool,
) -> Reader {
    set.0.retain(|_, pack| shelf.open.contains_key(&pack.sha256) && keep(&pack.sha256));
    let keys = Arc::clone(&vault.keys);
    let manifest = &found.signed.manifest;
    let reader = Reader::open(manifest, &set, keys, vault.packs(), None);
    adopt(reader.frames(), shelf);
    reader
}

fn adopt(frames: &Frames, shelf: &Shelf) {
    for pack in frames.packs() {
        if let Some(Some(open)) = shelf.open.get(&pack.sha256) {
            frames.adopt(pack.sha256, open);
        }
    }
}

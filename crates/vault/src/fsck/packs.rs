//! Packs: names against bytes, both copies of the directory, every frame, every salt.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use domain::PackId;

use super::{Depth, Finding, Needed, Options, Progress, Report, Severity, Wanted, What, finding};
use crate::{
    id::{IdKeys, Sha256},
    layout::{Name, ObjectKind},
    manifest::PackRef,
    pack::{OpenPack, PackError, PackKind},
    rescue::{Inventory, OpenVault, in_parallel},
    snapshot::SourceError,
};

/// No pack of format 1 is larger; whoever says so wants memory.
const MAX_PACK_BYTES: u64 = 256 << 20;

/// Packs that opened, and what of them is no good.
#[derive(Default)]
pub(super) struct Shelf {
    /// With their directories, as far as there was room for them.
    pub open: HashMap<Sha256, Option<Arc<OpenPack>>>,
    /// Frames that do not open or are not what their id says.
    pub bad: HashSet<(Sha256, u32)>,
}

impl Shelf {
    pub fn put(&mut self, pack: Sha256, seen: Seen) {
        if seen.salt.is_some() {
            self.bad.extend(seen.bad.iter().map(|frame| (pack, *frame)));
            self.open.insert(pack, seen.open);
        }
    }
}

/// One pack to look at.
pub(super) struct Task<'a> {
    pub kind: PackKind,
    pub sha256: Sha256,
    pub id: PackId,
    /// As listed; `None`: not there.
    pub listed: Option<u64>,
    /// What manifests say of it; `None`: none does.
    pub wanted: Option<&'a Needed>,
}

impl<'a> Task<'a> {
    /// A pack that a snapshot needs.
    pub fn of(needed: &'a Needed, inventory: &Inventory) -> Self {
        let PackRef { kind, sha256, id, .. } = needed.pack;
        let listed = inventory.objects.get(&(kind.object(), sha256, id)).copied();
        Self { kind, sha256, id, listed, wanted: Some(needed) }
    }
}

/// What was seen of one pack.
#[derive(Default)]
pub(super) struct Seen {
    /// Its salt, if it opened.
    pub salt: Option<[u8; 32]>,
    /// Its directory, if there was room for it.
    pub open: Option<Arc<OpenPack>>,
    pub bad: Vec<u32>,
    pub faults: Vec<(What, String)>,
    pub bytes: u64,
    pub frames: u64,
    pub whole: bool,
}

pub(super) fn check(
    vault: &OpenVault,
    inventory: &Inventory,
    wanted: &Wanted<'_>,
    options: &Options<'_>,
    report: &mut Report,
) -> Shelf {
    let tasks = tasks(inventory, wanted, options.depth, report);
    let (done, read) = (AtomicU64::new(0), AtomicU64::new(0));
    let of = tasks.len() as u64;
    let seen = look_at_all(vault, &tasks, options, |seen| {
        let bytes = read.fetch_add(seen.bytes, Ordering::Relaxed) + seen.bytes;
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        (options.progress)(Progress::Packs { done, of, bytes });
    });
    let mut shelf = Shelf::default();
    let mut salts: HashMap<[u8; 32], Name> = HashMap::new();
    for (task, seen) in tasks.iter().zip(seen) {
        note(vault, wanted, task, &seen, report);
        let Some(salt) = seen.salt else { continue };
        let name = Name::Object(task.kind.object(), task.sha256, task.id);
        let key = name.key(vault.tenant, vault.vault);
        match salts.insert(salt, name) {
            Some(other) if !same_bytes(&other, &name) => {
                let said = format!("its salt is that of {}", other.key(vault.tenant, vault.vault));
                report.push(finding(Severity::Damage, What::SaltReused, key, said));
            }
            Some(_) => {
                let said = "the same pack is there under another name";
                report.push(finding(Severity::Suspicious, What::Replayed, key, said));
            }
            None => {}
        }
        shelf.put(task.sha256, seen);
    }
    shelf
}

/// Looks at packs side by side. Directories are kept as far as there is room; of the others it is known that they open.
pub(super) fn look_at_all(
    vault: &OpenVault,
    tasks: &[Task<'_>],
    options: &Options<'_>,
    told: impl Fn(&Seen) + Sync,
) -> Vec<Seen> {
    let ids = IdKeys::of(&vault.keys);
    let held = AtomicUsize::new(0);
    in_parallel(tasks, options.workers.max(1), |task| {
        let mut seen = look(vault, &ids, task, options.depth);
        // What opened by another length than the manifest's is opened again as a restore would.
        let is_right = seen.faults.iter().all(|(what, _)| *what != What::WrongLength);
        if let Some(open) = seen.open.take().filter(|_| is_right && task.wanted.is_some()) {
            let bytes = open.held();
            let has_room = held.fetch_add(bytes, Ordering::Relaxed) + bytes <= options.directories;
            seen.open = has_room.then_some(open);
        }
        told(&seen);
        seen
    })
}

fn same_bytes(a: &Name, b: &Name) -> bool {
    matches!((a, b), (Name::Object(_, a, _), Name::Object(_, b, _)) if a == b)
}

/// Every pack that is named, and, in depth, every other that is there.
fn tasks<'a>(
    inventory: &Inventory,
    wanted: &'a Wanted<'_>,
    depth: Depth,
    report: &mut Report,
) -> Vec<Task<'a>> {
    let needed = wanted.packs.values();
    let mut tasks: Vec<_> = needed.map(|needed| Task::of(needed, inventory)).collect();
    let named = |kind: PackKind, sha256: Sha256, id: PackId| {
        let known = wanted.packs.get(&id).map(|needed| &needed.pack);
        known.is_some_and(|pack| pack.kind == kind && pack.sha256 == sha256)
    };
    for (place, length) in &inventory.objects {
        let (kind, sha256, id) = *place;
        let kind = match kind {
            ObjectKind::Data => PackKind::Data,
            ObjectKind::Meta => PackKind::Meta,
            ObjectKind::Manifest => continue,
        };
        if named(kind, sha256, id) {
            continue;
        }
        report.unreferenced += 1;
        if depth == Depth::Data {
            tasks.push(Task { kind, sha256, id, listed: Some(*length), wanted: None });
        }
    }
    tasks
}

fn note(vault: &OpenVault, wanted: &Wanted<'_>, task: &Task<'_>, seen: &Seen, report: &mut Report) {
    report.coverage.packs += 1;
    report.coverage.packs_whole += u64::from(seen.whole);
    report.coverage.bytes += seen.bytes;
    report.coverage.frames += seen.frames;
    let key = || {
        let name = Name::Object(task.kind.object(), task.sha256, task.id);
        name.key(vault.tenant, vault.vault)
    };
    let severity = if task.wanted.is_some() { Severity::Damage } else { Severity::Suspicious };
    for (what, detail) in &seen.faults {
        let bad = finding(severity, *what, key(), detail.clone());
        let Some(needed) = task.wanted else {
            report.push(bad);
            continue;
        };
        for snapshot in wanted.names(needed) {
            report.push(bad.clone().of_snapshot(snapshot));
        }
    }
    if task.wanted.is_none() && seen.faults.is_empty() {
        let said =
            "no snapshot names it: of a backup under way, one that never ended, or a forgotten one";
        report.push(finding(Severity::Note, What::Unreferenced, key(), said));
    }
}

/// Looks at one pack as far as `depth` says; metadata always to the last byte.
pub(super) fn look(vault: &OpenVault, ids: &IdKeys, task: &Task<'_>, depth: Depth) -> Seen {
    let mut seen = Seen::default();
    let Some(length) = task.listed else {
        seen.faults.push((What::Missing, "it is not there".to_owned()));
        return seen;
    };
    let wanted = task.wanted.map(|needed| &needed.pack);
    if let Some(wanted) = wanted
        && wanted.length != length
    {
        let said = format!("it has {length} bytes instead of {}", wanted.length);
        seen.faults.push((What::WrongLength, said));
    }
    if length > MAX_PACK_BYTES {
        seen.faults.push((What::Damaged, format!("{length} bytes are more than a pack can have")));
        return seen;
    }
    if depth == Depth::Data || task.kind == PackKind::Meta {
        whole(vault, ids, task, length, &mut seen);
    } else {
        ends(vault, task, length, &mut seen);
    }
    let name = Name::Object(task.kind.object(), task.sha256, task.id);
    if let Some(told) = vault.objects.told_length(&name.key(vault.tenant, vault.vault))
        && told != length
    {
        let said = format!("the object has {told} bytes, its pack ends after {length}");
        seen.faults.push((What::WrongLength, said));
    }
    let frames = seen.open.as_ref().map(|open| open.directory.len());
    if let (Some(frames), Some(wanted)) = (frames, wanted)
        && frames != wanted.frames
    {
        let said = format!("it has {frames} frames instead of {}", wanted.frames);
        seen.faults.push((What::Damaged, said));
        // Frame numbers of the manifest mean nothing in it.
        seen.open = None;
    }
    seen.salt = seen.open.as_ref().map(|open| open.header.salt);
    seen
}

fn read(vault: &OpenVault, task: &Task<'_>, range: Range<u64>) -> Result<Bytes, SourceError> {
    let name = Name::Object(task.kind.object(), task.sha256, task.id);
    let version = task.wanted.map(|needed| needed.pack.version_id.as_str());
    let wanted = range.end.saturating_sub(range.start);
    let bytes = vault.objects.read(&name.key(vault.tenant, vault.vault), version, range)?;
    if bytes.len() as u64 == wanted {
        Ok(bytes)
    } else {
        Err(SourceError::Failed("fewer bytes came than were asked for".into()))
    }
}

fn fault(error: &SourceError) -> (What, String) {
    let what = match error {
        SourceError::Missing => What::Missing,
        SourceError::Wrong => What::WrongHash,
        SourceError::Failed(_) => What::Unreadable,
    };
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    (what, format!("{error}{}", cause.unwrap_or_default()))
}

fn whole(vault: &OpenVault, ids: &IdKeys, task: &Task<'_>, length: u64, seen: &mut Seen) {
    let bytes = match read(vault, task, 0..length) {
        Ok(bytes) => bytes,
        Err(error) => return seen.faults.push(fault(&error)),
    };
    seen.bytes += length;
    seen.whole = true;
    if Sha256::of(&bytes) != task.sha256 {
        seen.faults.push((What::WrongHash, "its bytes are not what its name says".to_owned()));
    }
    let part = |range: Range<u64>| -> Result<Bytes, PackError> {
        let fits = range.start <= range.end && range.end <= length;
        if !fits {
            return Err(PackError::Short);
        }
        Ok(bytes.slice(range.start as usize..range.end as usize))
    };
    let keys = &vault.keys;
    let open = match OpenPack::check_ends(keys, task.kind, length, part) {
        Ok(open) => open,
        Err(why) => {
            seen.faults.push((What::Damaged, why.to_string()));
            // One copy of the directory may still tell which files suffer.
            let Ok(open) = OpenPack::open(keys, task.kind, length, None, part) else { return };
            open
        }
    };
    for index in 0..open.directory.len() {
        let frame = open.range(index).and_then(part);
        let good = frame.and_then(|sealed| open.check_frame(ids, index, &sealed));
        seen.frames += 1;
        if let Err(why) = good {
            seen.bad.push(index);
            seen.faults.push((What::Damaged, format!("frame {index}: {why}")));
        }
    }
    seen.open = Some(Arc::new(open));
}

enum Opening {
    Pack(PackError),
    Source(SourceError),
}

impl From<PackError> for Opening {
    fn from(error: PackError) -> Self {
        Self::Pack(error)
    }
}

fn ends(vault: &OpenVault, task: &Task<'_>, length: u64, seen: &mut Seen) {
    let bytes = AtomicU64::new(0);
    let part = |range: Range<u64>| {
        bytes.fetch_add(range.end.saturating_sub(range.start), Ordering::Relaxed);
        read(vault, task, range).map_err(Opening::Source)
    };
    let open = OpenPack::check_ends(&vault.keys, task.kind, length, part).or_else(|why| {
        seen.faults.push(match &why {
            Opening::Pack(why) => (What::Damaged, why.to_string()),
            Opening::Source(error) => fault(error),
        });
        OpenPack::open(&vault.keys, task.kind, length, None, part)
    });
    seen.bytes += bytes.load(Ordering::Relaxed);
    seen.open = open.ok().map(Arc::new);
}

impl Finding {
    /// Whether this is about the pack with this hash.
    pub fn is_of(&self, pack: &Sha256) -> bool {
        self.object.as_ref().is_some_and(|key| key.contains(&pack.to_string()))
    }
}

//! Repack: the live frames of half-dead packs, moved into new packs.
//!
//! Owns the choice of packs by their frame bitmaps and the moving. Invariants: ids are of the plaintext, so the tree,
//! its root and its summary stay what they were and only the pack set changes; a frame is moved only after it was
//! authenticated and its keyed id compared; frames nobody uses are not read; nothing is written in place and nothing is
//! let go here: old packs go when no snapshot names them. It must not know sessions, locks or uploads.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
};

use domain::{IdGen, PackId};

use crate::{
    backup::{BackupContext, BackupError, FinishedSnapshot, PackSink, Stats},
    compress::Compressor,
    descriptor::VaultDescriptor,
    id::{ChunkId, FrameKind},
    keys::VaultKeys,
    manifest::{FrameBitmap, Manifest, PackRef, PackSet, PackUsage},
    pack::{Header, OpenPack, PackBuilder, PackKind},
    snapshot::{Frames, PackSource, ReadError},
};

/// Neighbouring live frames are read together up to this many bytes.
const WINDOW: u64 = 8 << 20;

/// How much of one pack a snapshot still uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// Frames in use.
    pub live: u32,
    /// Frames that could be in use: all but the padding.
    pub frames: u32,
    /// Length of the object.
    pub length: u64,
}

impl Liveness {
    /// Of one pack of a set.
    pub fn of(pack: &PackRef) -> Self {
        Self::counted(&pack.used, pack.frames, pack.length)
    }
    /// Of a pack of `frames` frames, the padding among them, of which these are used.
    pub fn counted(used: &FrameBitmap, frames: u32, length: u64) -> Self {
        Self { live: used.count(), frames: frames.saturating_sub(1).max(1), length }
    }
    /// Less than half of the frames are in use.
    pub fn is_half_dead(&self) -> bool {
        u64::from(self.live) * 2 < u64::from(self.frames)
    }
    /// Bytes nobody needs: an estimate, because only the sealed directory knows lengths.
    pub fn dead_bytes(&self) -> u64 {
        let dead = u128::from(self.frames.saturating_sub(self.live));
        let bytes = u128::from(self.length) * dead / u128::from(self.frames.max(1));
        u64::try_from(bytes).unwrap_or(self.length)
    }
}

/// The half-dead packs of a set, those with most to gain first, as long as their live part adds up to at most
/// `budget` bytes to move.
pub fn half_dead(set: &PackSet, budget: u64) -> BTreeSet<PackId> {
    let mut found: Vec<(u64, u64, PackId)> = set
        .iter()
        .map(|pack| (Liveness::of(pack), pack))
        .filter(|(liveness, _)| liveness.is_half_dead())
        .map(|(liveness, pack)| {
            let dead = liveness.dead_bytes();
            (dead, pack.length.saturating_sub(dead), pack.id)
        })
        .collect();
    found.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.2.cmp(&b.2)));
    let mut left = budget;
    let affordable = |(_, live, id): (u64, u64, PackId)| {
        left = left.checked_sub(live)?;
        Some(id)
    };
    found.into_iter().map_while(affordable).collect()
}

/// The packs could not be moved. Nothing is committed, so nothing is lost.
#[derive(Debug, thiserror::Error)]
pub enum RepackError {
    #[error("pack {0} is not one of the snapshot")]
    Unknown(PackId),
    #[error("a frame of an old pack could not be read; repair the pack before it is repacked")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] BackupError),
}

/// Where to write, and with what.
pub struct Repack<'a> {
    pub context: BackupContext,
    pub keys: Arc<VaultKeys>,
    pub descriptor: &'a VaultDescriptor,
    pub source: Arc<dyn PackSource>,
    pub sink: &'a dyn PackSink,
    pub ids: &'a dyn IdGen,
}

impl Repack<'_> {
    /// Moves every frame that `parent` uses out of `victims`. Gives the same tree over the other packs of `set` (the
    /// parent's full one) and the new ones; of its `stats`, the bytes and packs written, the rest is zero: nothing
    /// was read from any source.
    pub fn run(
        self,
        parent: &Manifest,
        set: &PackSet,
        victims: &BTreeSet<PackId>,
    ) -> Result<FinishedSnapshot, RepackError> {
        self.descriptor.check().map_err(BackupError::from)?;
        if let Some(unknown) = victims.iter().find(|id| !set.0.contains_key(id)) {
            return Err(RepackError::Unknown(*unknown));
        }
        let frames = Frames::new(self.keys.clone(), set, self.source.clone(), None);
        let mut mover = Mover {
            keys: &self.keys,
            context: self.context,
            descriptor: self.descriptor,
            sink: self.sink,
            ids: self.ids,
            next_seq: self.context.first_seq,
            open: BTreeMap::new(),
            moved: HashMap::new(),
            done: Vec::new(),
            compressor: Compressor::default(),
        };
        for pack in set.iter().filter(|pack| victims.contains(&pack.id)) {
            mover.drain(&frames, pack)?;
        }
        let (mut usage, next_seq) = mover.finish()?;
        let stats = Stats {
            packs: usage.len() as u64,
            stored_bytes: usage.iter().map(|pack| pack.length).sum(),
            ..Stats::default()
        };
        let kept = set.iter().filter(|pack| !victims.contains(&pack.id));
        usage.extend(kept.map(|pack| PackUsage {
            kind: pack.kind,
            sha256: pack.sha256,
            length: pack.length,
            frames: pack.frames,
            used: pack.used.clone(),
        }));
        usage.sort_by_key(|pack| pack.sha256);
        Ok(FinishedSnapshot { root: parent.root, summary: parent.summary, usage, next_seq, stats })
    }
}

/// New packs being filled, one of each kind.
struct Mover<'a> {
    keys: &'a VaultKeys,
    context: BackupContext,
    descriptor: &'a VaultDescriptor,
    sink: &'a dyn PackSink,
    ids: &'a dyn IdGen,
    next_seq: u64,
    open: BTreeMap<PackKind, PackBuilder>,
    /// What was moved already: two victims may hold the same chunk.
    moved: HashMap<ChunkId, FrameKind>,
    done: Vec<PackUsage>,
    compressor: Compressor,
}

impl Mover<'_> {
    /// Moves the used frames of one pack, in their order.
    fn drain(&mut self, frames: &Frames, pack: &PackRef) -> Result<(), RepackError> {
        let open = frames.open(pack)?;
        let live: Vec<u32> = (0..pack.frames).filter(|at| pack.used.contains(*at)).collect();
        for (window, numbers) in windows(pack, &open, &live)? {
            let bytes = frames.read(pack, window.clone())?;
            for at in numbers {
                let info = open.info(at).map_err(|error| damaged(pack, error))?.clone();
                if self.moved.contains_key(&info.id) {
                    continue;
                }
                let raw = frames.decode(pack, &open, at, &bytes, window.start)?;
                self.moved.insert(info.id, info.kind);
                self.put(pack.kind, info.kind, info.id, info.parts, &raw)?;
            }
        }
        Ok(())
    }

    fn put(
        &mut self,
        home: PackKind,
        kind: FrameKind,
        id: ChunkId,
        parts: Vec<crate::pack::Part>,
        raw: &[u8],
    ) -> Result<(), BackupError> {
        let levels = self.descriptor.levels;
        let level = match (home, kind) {
            (PackKind::Meta, _) => levels.meta,
            (PackKind::Data, FrameKind::Bundle) => levels.bundle,
            (PackKind::Data, _) => levels.data,
        };
        if !self.open.contains_key(&home) {
            let builder = self.start(home)?;
            self.open.insert(home, builder);
        }
        let Some(builder) = self.open.get_mut(&home) else { return Err(BackupError::Worker) };
        let (codec, payload) = self.compressor.compress(level, raw);
        let ticket = builder.reserve(kind, id, parts, payload.len());
        builder.place(ticket.seal(codec, payload, raw)?);
        let sizes = self.descriptor.packs;
        let full = builder.reserved_bytes() >= u64::from(sizes.target)
            || builder.frames() + 1 >= sizes.max_frames;
        if full && let Some(builder) = self.open.remove(&home) {
            self.hand_over(builder)?;
        }
        Ok(())
    }

    fn start(&mut self, kind: PackKind) -> Result<PackBuilder, BackupError> {
        let header = Header {
            kind,
            tenant: self.descriptor.tenant,
            vault: self.descriptor.vault,
            epoch: self.context.key_epoch,
            agent: self.context.agent,
            session: self.context.session,
            seq: self.next_seq,
            salt: [0; 32],
            commitment: [0; 32],
        };
        self.next_seq += 1;
        Ok(PackBuilder::new(header, self.keys.epoch(self.context.key_epoch)?, self.ids))
    }

    fn hand_over(&mut self, builder: PackBuilder) -> Result<(), BackupError> {
        let pack = builder.finish()?;
        let mut used = FrameBitmap::default();
        // All but the padding, which is last.
        (0..pack.directory.len().saturating_sub(1)).for_each(|at| used.insert(at));
        self.done.push(PackUsage {
            kind: pack.kind,
            sha256: pack.sha256,
            length: pack.bytes.len() as u64,
            frames: pack.directory.len(),
            used,
        });
        self.sink.emit(pack)?;
        Ok(())
    }

    fn finish(mut self) -> Result<(Vec<PackUsage>, u64), BackupError> {
        for (_, builder) in std::mem::take(&mut self.open) {
            self.hand_over(builder)?;
        }
        Ok((self.done, self.next_seq))
    }
}

fn damaged(pack: &PackRef, source: crate::pack::PackError) -> ReadError {
    crate::snapshot::damaged(pack, source)
}

/// A stretch of a pack to read, and the live frames in it.
type Window = (Range<u64>, Vec<u32>);

/// The stretches that hold the live frames.
fn windows(pack: &PackRef, open: &OpenPack, live: &[u32]) -> Result<Vec<Window>, ReadError> {
    let mut windows: Vec<Window> = Vec::new();
    for at in live {
        let range = open.range(*at).map_err(|error| damaged(pack, error))?;
        match windows.last_mut() {
            Some((window, numbers))
                if window.end == range.start && range.end - window.start <= WINDOW =>
            {
                window.end = range.end;
                numbers.push(*at);
            }
            _ => windows.push((range, vec![*at])),
        }
    }
    Ok(windows)
}

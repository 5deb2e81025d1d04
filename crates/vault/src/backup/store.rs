//! Frames of one backup: stored once, found again, and counted as used.
//!
//! Invariant: an id that was given out is in the index or on its way through the pool.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    BackupError,
    pool::{Handed, Job, Packed, Pool},
};
use crate::{
    id::{ChunkId, FrameKind, IdKeys},
    index::ChunkIndex,
    manifest::{FrameBitmap, PackUsage},
    pack::Part,
    tree::NodeSink,
};

/// What a backup stored and used.
pub(super) struct FrameStore {
    pub ids: IdKeys,
    pub index: Arc<ChunkIndex>,
    pool: Pool,
    fresh: HashSet<ChunkId>,
    /// Frames of known packs that this snapshot uses, by the number of the pack in the index.
    used: HashMap<u32, FrameBitmap>,
    /// Stored for a file that could not be read to its end, and not used by another since.
    abandoned: HashSet<ChunkId>,
    pub new_bytes: u64,
}

/// The packs of a finished backup.
pub(super) struct Stored {
    pub usage: Vec<PackUsage>,
    pub next_seq: u64,
    pub packs: u64,
    pub stored_bytes: u64,
}

impl FrameStore {
    pub fn new(ids: IdKeys, index: Arc<ChunkIndex>, pool: Pool) -> Self {
        Self {
            ids,
            index,
            pool,
            fresh: HashSet::new(),
            used: HashMap::new(),
            abandoned: HashSet::new(),
            new_bytes: 0,
        }
    }

    /// Whether a frame with this id can be referred to.
    pub fn knows(&self, id: &ChunkId, kind: FrameKind) -> bool {
        self.fresh.contains(id) || self.index.chunk(id).is_some_and(|place| place.kind == kind)
    }

    /// Counts a frame as used, if it is known.
    pub fn take(&mut self, id: &ChunkId, kind: FrameKind) -> bool {
        if self.fresh.contains(id) {
            self.abandoned.remove(id);
            return true;
        }
        let place = self.index.chunk(id).filter(|place| place.kind == kind);
        if let Some(place) = place {
            self.used.entry(place.pack).or_default().insert(place.frame);
        }
        place.is_some()
    }

    /// Names a frame and stores it unless it is known. True: it was new.
    pub fn put(
        &mut self,
        kind: FrameKind,
        raw: &[u8],
        parts: Vec<Part>,
    ) -> Result<(ChunkId, bool), BackupError> {
        let id = self.ids.chunk(kind, raw);
        if self.take(&id, kind) {
            return Ok((id, false));
        }
        self.pool.submit(Job { kind, id, raw: raw.to_vec(), parts })?;
        self.fresh.insert(id);
        Ok((id, true))
    }

    /// These were stored for nothing.
    pub fn abandon(&mut self, ids: impl IntoIterator<Item = ChunkId>) {
        self.abandoned.extend(ids);
    }

    /// Waits for the pool and adds up the usage.
    pub fn finish(self) -> Result<Stored, BackupError> {
        let Self { pool, used, abandoned, index, .. } = self;
        let Packed { mut handed, places, next_seq } = pool.finish()?;
        handed.sort_by_key(|pack| pack.seq);
        let mut bitmaps: BTreeMap<u64, FrameBitmap> = BTreeMap::new();
        for (_, (seq, frame)) in places.iter().filter(|(id, _)| !abandoned.contains(*id)) {
            bitmaps.entry(*seq).or_default().insert(*frame);
        }
        let stored_bytes = handed.iter().map(|pack| pack.length).sum();
        let packs = handed.len() as u64;
        let mut usage = Vec::new();
        for Handed { kind, seq, sha256, length, frames } in handed {
            // A pack of abandoned frames alone is uploaded and named by nobody; the catalog lets it go.
            if let Some(used) = bitmaps.remove(&seq) {
                usage.push(PackUsage { kind, sha256, length, frames, used });
            }
        }
        for (number, used) in used {
            let pack = index.pack(number).ok_or(BackupError::Unlocated)?;
            let (kind, sha256, length) = (pack.kind, pack.sha256, pack.length);
            usage.push(PackUsage { kind, sha256, length, frames: pack.directory.len(), used });
        }
        usage.sort_by_key(|pack| pack.sha256);
        Ok(Stored { usage, next_seq, packs, stored_bytes })
    }
}

impl NodeSink for FrameStore {
    type Error = BackupError;
    fn store(&mut self, node: Vec<u8>) -> Result<ChunkId, BackupError> {
        self.put(FrameKind::Node, &node, Vec::new()).map(|(id, _)| id)
    }
}

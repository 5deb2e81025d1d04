//! Frames of one backup: stored once, found again, and counted as used.
//!
//! Invariant: an id that was given out is in flight or in the index, unless the index lost it to a full disk; then
//! the frame is stored again. Memory does not grow with the number of frames: a bit for each, by pack.

use std::{collections::HashMap, sync::Arc};

use super::{
    BackupError,
    flight::{Flight, IdLog},
    pool::{Handed, Job, Packed, Pool},
};
use crate::{
    id::{ChunkId, FileId, FrameKind, IdKeys},
    index::{ChunkIndex, FilePlace, Place},
    manifest::{FrameBitmap, PackUsage},
    pack::{FrameInfo, Part},
    tree::NodeSink,
};

/// Places remembered: files that come one after the other are in the same bundle.
const RECENT: usize = 1024;

/// What a backup stored and used.
pub(super) struct FrameStore {
    pub ids: IdKeys,
    pub index: Arc<ChunkIndex>,
    flight: Arc<Flight>,
    pool: Pool,
    /// Frames that this snapshot uses beyond those that came with a pack, by the number of the pack in the index.
    used: HashMap<u32, FrameBitmap>,
    /// Stored for a file that could not be read to its end, in packs that are finished.
    abandoned: HashMap<u32, FrameBitmap>,
    recent: Vec<Option<(ChunkId, Place)>>,
    pub new_bytes: u64,
    /// For whoever reads a large file: kept, because making it costs as much as hashing.
    pub scratch: Vec<u8>,
}

/// The packs of a finished backup.
pub(super) struct Stored {
    pub usage: Vec<PackUsage>,
    pub next_seq: u64,
    pub packs: u64,
    pub stored_bytes: u64,
}

impl FrameStore {
    pub fn new(ids: IdKeys, index: Arc<ChunkIndex>, flight: Arc<Flight>, pool: Pool) -> Self {
        Self {
            ids,
            index,
            flight,
            pool,
            used: HashMap::new(),
            abandoned: HashMap::new(),
            recent: vec![None; RECENT],
            new_bytes: 0,
            scratch: Vec::new(),
        }
    }

    /// Whether a frame with this id can be referred to.
    pub fn knows(&mut self, id: &ChunkId, kind: FrameKind) -> bool {
        // In flight first: what is not there any more is in the index.
        self.flight.has(id) || self.place(id).is_some_and(|place| place.kind == kind)
    }

    fn place(&mut self, id: &ChunkId) -> Option<Place> {
        let at = usize::from(u16::from_be_bytes([id.0[30], id.0[31]])) % RECENT;
        if let Some((_, place)) = self.recent[at].filter(|(known, _)| known == id) {
            return Some(place);
        }
        let place = self.index.chunk(id)?;
        self.recent[at] = Some((*id, place));
        Some(place)
    }

    /// Where a small file is that was stored before.
    pub fn file(&self, id: &FileId) -> Option<FilePlace> {
        self.flight.file(id).or_else(|| self.index.file(id))
    }

    /// Counts a frame as used, if it is known.
    pub fn take(&mut self, id: &ChunkId, kind: FrameKind) -> bool {
        if self.flight.take(id) {
            return true;
        }
        let place = self.place(id).filter(|place| place.kind == kind);
        if let Some(place) = place {
            self.used.entry(place.pack).or_default().insert(place.frame);
        }
        place.is_some()
    }

    /// Names a frame and stores it unless it is known. True: it was new.
    pub fn put(
        &mut self,
        kind: FrameKind,
        raw: impl AsRef<[u8]> + Into<Vec<u8>>,
        parts: Vec<Part>,
    ) -> Result<(ChunkId, bool), BackupError> {
        let id = self.ids.chunk(kind, raw.as_ref());
        if self.take(&id, kind) {
            return Ok((id, false));
        }
        self.flight.start(id, &parts);
        self.pool.submit(Job { kind, id, raw: raw.into(), parts })?;
        Ok((id, true))
    }

    /// Stores a frame of another pack, whose id was compared when it was read, unless it is known; nobody uses it yet.
    pub fn carry(&mut self, frame: &FrameInfo, raw: &[u8]) -> Result<(), BackupError> {
        self.keep(frame.kind, frame.id, raw, &frame.parts)
    }

    /// Names a frame and stores it unless it is known; nobody uses it yet.
    pub fn note(&mut self, kind: FrameKind, raw: Vec<u8>) -> Result<ChunkId, BackupError> {
        let id = self.ids.chunk(kind, &raw);
        self.keep(kind, id, raw, &[]).map(|()| id)
    }

    fn keep(
        &mut self,
        kind: FrameKind,
        id: ChunkId,
        raw: impl Into<Vec<u8>>,
        parts: &[Part],
    ) -> Result<(), BackupError> {
        if self.knows(&id, kind) {
            return Ok(());
        }
        self.flight.start(id, parts);
        // Before its pack can land: whoever takes it makes it used.
        self.flight.abandon(&id);
        self.pool.submit(Job { kind, id, raw: raw.into(), parts: parts.to_vec() })
    }

    /// Hands over open packs early.
    pub fn checkpoint(&self) -> Result<(), BackupError> {
        self.pool.checkpoint()
    }

    /// These were stored for nothing, by the one file that was being read.
    pub fn abandon(&mut self, ids: IdLog) {
        ids.each(|id| {
            if self.flight.abandon(&id) {
                return;
            }
            if let Some(Place { pack, frame, .. }) = self.index.chunk(&id) {
                // That file may have used it more than once.
                if let Some(used) = self.used.get_mut(&pack) {
                    used.remove(frame);
                }
                self.abandoned.entry(pack).or_default().insert(frame);
            }
        });
    }

    /// Waits for the pool and adds up the usage.
    pub fn finish(self) -> Result<Stored, BackupError> {
        let Self { pool, mut used, abandoned, index, .. } = self;
        let Packed { mut handed, next_seq } = pool.finish()?;
        handed.sort_by_key(|pack| pack.seq);
        let stored_bytes = handed.iter().map(|pack| pack.length).sum();
        let packs = handed.len() as u64;
        let mut usage = Vec::new();
        for Handed { kind, sha256, length, frames, number, used: mut here, .. } in handed {
            if let Some(abandoned) = abandoned.get(&number) {
                (0..frames).filter(|at| abandoned.contains(*at)).for_each(|at| here.remove(at));
            }
            here.union(&used.remove(&number).unwrap_or_default());
            // A pack of abandoned frames alone is uploaded and named by nobody; the catalog lets it go.
            if !here.is_empty() {
                usage.push(PackUsage { kind, sha256, length, frames, used: here });
            }
        }
        for (number, used) in used.into_iter().filter(|(_, used)| !used.is_empty()) {
            let pack = index.pack(number).ok_or(BackupError::Unlocated)?;
            let (kind, sha256, length) = (pack.kind, pack.sha256, pack.length);
            usage.push(PackUsage { kind, sha256, length, frames: pack.frames, used });
        }
        usage.sort_by_key(|pack| pack.sha256);
        Ok(Stored { usage, next_seq, packs, stored_bytes })
    }
}

impl NodeSink for FrameStore {
    type Error = BackupError;
    fn store(&mut self, node: Vec<u8>) -> Result<ChunkId, BackupError> {
        self.put(FrameKind::Node, node, Vec::new()).map(|(id, _)| id)
    }
}

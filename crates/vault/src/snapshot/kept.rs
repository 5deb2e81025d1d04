//! What is kept while a snapshot is read: open packs, places of frames, frames.
//!
//! Invariant: each of them is held up to a fixed number of bytes; places beyond that go to files of the temporary folder,
//! and stay in memory where that takes none. It must not know how anything is read.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::ReadError;
use crate::{
    id::ChunkId,
    index::Places,
    pack::{FrameInfo, OpenPack},
};

/// Decoded frames kept, in bytes.
const CACHE: usize = 16 << 20;
/// Memory for places of frames.
const PLACES: usize = 16 << 20;
/// Open packs kept, in bytes of their directories.
const OPEN: usize = 16 << 20;

/// Everything that is kept.
pub(super) struct State {
    pub open: Open,
    /// By number: packs that somebody else opened, and keeps.
    pub adopted: HashMap<u32, Arc<OpenPack>>,
    /// Places in the packs that the index does not know, and in all that were searched.
    pub located: Places,
    /// Small files in the packs of other snapshots.
    pub files: Places,
    /// By number: the pack's directory is in `located`.
    seen: Vec<bool>,
    /// Numbers of the other packs, once somebody asked, and a few that were seen since.
    unseen: Option<Vec<u32>>,
    /// The index was wrong once: it is not asked again.
    pub doubted: bool,
    /// Packs whose directory could not be had lately: until when that stands, and why.
    pub lost: HashMap<u32, (Instant, ReadError)>,
    pub cache: Cache,
}

impl Default for State {
    fn default() -> Self {
        Self {
            open: Open::default(),
            adopted: HashMap::new(),
            located: Places::new(Some(&std::env::temp_dir()), PLACES),
            files: Places::new(Some(&std::env::temp_dir()), PLACES),
            seen: Vec::new(),
            unseen: None,
            doubted: false,
            lost: HashMap::new(),
            cache: Cache::default(),
        }
    }
}

impl State {
    /// Keeps the places of a pack's frames, and of its small files if that is asked for; there are so many packs.
    pub fn learn(&mut self, number: u32, packs: usize, frames: &[FrameInfo], files: bool) {
        if self.is_seen(number) {
            return;
        }
        let insert = |state: &Self| {
            state.located.insert(number, frames);
            if files {
                state.files.insert_files(number, frames);
            }
        };
        insert(self);
        if self.mend() {
            insert(self);
        }
        self.seen.resize(packs, false);
        self.seen.get_mut(number as usize).into_iter().for_each(|seen| *seen = true);
    }

    /// A pack whose directory is in memory.
    pub fn opened(&mut self, number: u32) -> Option<Arc<OpenPack>> {
        self.adopted.get(&number).cloned().or_else(|| self.open.get(number))
    }

    /// What was learned may be less than was put there: everything is learned anew, in memory.
    pub fn mend(&mut self) -> bool {
        let is_broken = self.located.is_broken() || self.files.is_broken();
        if is_broken {
            self.located = Places::new(None, PLACES);
            self.files = Places::new(None, PLACES);
            self.seen.clear();
            self.unseen = None;
        }
        is_broken
    }
    pub fn lost(&mut self, number: u32) -> Option<ReadError> {
        let (until, error) = self.lost.get(&number)?;
        if Instant::now() < *until {
            return Some(error.again());
        }
        self.lost.remove(&number);
        None
    }
    /// Numbers of the packs whose directories are not in `located`, of so many. Whoever asks for one frame after another
    /// does not go through all packs for each.
    pub fn unseen(&mut self, packs: usize) -> &[u32] {
        let seen = &self.seen;
        let unseen = self.unseen.get_or_insert_with(|| (0..packs as u32).collect());
        unseen.retain(|number| !seen.get(*number as usize).copied().unwrap_or(false));
        unseen
    }
    pub fn is_seen(&self, number: u32) -> bool {
        self.seen.get(number as usize).copied().unwrap_or(false)
    }
}

/// Open packs; those not used longest go first.
#[derive(Default)]
pub(super) struct Open {
    pub packs: HashMap<u32, Held>,
    bytes: usize,
    uses: u64,
}

pub(super) struct Held {
    pack: Arc<OpenPack>,
    bytes: usize,
    used: u64,
}

impl Open {
    pub fn get(&mut self, number: u32) -> Option<Arc<OpenPack>> {
        self.uses += 1;
        let held = self.packs.get_mut(&number)?;
        held.used = self.uses;
        Some(Arc::clone(&held.pack))
    }
    pub fn insert(&mut self, number: u32, pack: Arc<OpenPack>) {
        self.uses += 1;
        let bytes = pack.held();
        let held = Held { pack, bytes, used: self.uses };
        self.bytes += bytes;
        self.bytes -= self.packs.insert(number, held).map_or(0, |before| before.bytes);
        while self.bytes > OPEN && self.packs.len() > 1 {
            let Some(oldest) = self.packs.iter().min_by_key(|(_, held)| held.used) else { return };
            let oldest = *oldest.0;
            self.bytes -= self.packs.remove(&oldest).map_or(0, |held| held.bytes);
        }
    }
}

/// Frames in order of arrival; the oldest go first.
#[derive(Default)]
pub(super) struct Cache {
    pub frames: HashMap<ChunkId, Arc<Vec<u8>>>,
    order: VecDeque<ChunkId>,
    bytes: usize,
}

impl Cache {
    pub fn insert(&mut self, id: ChunkId, frame: Arc<Vec<u8>>) {
        let length = frame.len();
        if self.frames.insert(id, frame).is_some() {
            return;
        }
        self.order.push_back(id);
        self.bytes += length;
        while self.bytes > CACHE {
            let Some(oldest) = self.order.pop_front() else { return };
            self.bytes -= self.frames.remove(&oldest).map_or(0, |frame| frame.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::FrameKind;

    fn frames(pack: u32) -> Vec<FrameInfo> {
        let id = |at: u32| {
            let mut id = [7; ChunkId::LEN];
            id[..4].copy_from_slice(&at.to_be_bytes());
            id[8..12].copy_from_slice(&pack.to_be_bytes());
            ChunkId(id)
        };
        let frame = |at| FrameInfo {
            kind: FrameKind::Chunk,
            id: id(at),
            sealed_len: 0,
            raw_len: 0,
            parts: Vec::new(),
        };
        (0..100).map(frame).collect()
    }

    #[test]
    fn places_that_the_disk_does_not_take_stay_in_memory() {
        let nowhere = std::path::Path::new("/nonexistent/folder");
        let located = Places::new(Some(nowhere), 8_192);
        let mut state = State { located, ..State::default() };
        for pack in 0..20 {
            state.learn(pack, 20, &frames(pack), true);
        }
        for pack in 0..20 {
            assert!(state.is_seen(pack));
            for (at, frame) in (0_u32..).zip(frames(pack)) {
                let found = state.located.find(&frame.id, |pack, at| Some((pack, at)));
                assert_eq!(found, Some((pack, at)));
            }
        }
    }
}

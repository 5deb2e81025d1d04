//! Places of frames, learned while a snapshot is read, within a fixed memory.
//!
//! For whoever reads without an index: the directories it opened, 24 bytes a frame, in runs without names. Invariant:
//! memory stays within its limit while the folder takes files, and takes all where it does not; what cannot be read
//! again is told ([`Places::is_broken`]), and a place is a hint like any of an index.

use std::{path::Path, sync::Arc};

use super::{
    Fields, fill,
    records::{Records, Yard},
};
use crate::{id::ChunkId, pack::FrameInfo};

const KEY: usize = 16;
const RECORD: usize = KEY + 4 + 4;

/// Pack and frame by the first half of a chunk's id.
pub(crate) struct Places {
    records: Records<RECORD, KEY>,
}

impl Places {
    /// Beyond `bytes` of memory in files of `folder`, or all in memory.
    pub fn new(folder: Option<&Path>, bytes: usize) -> Self {
        let yard = Arc::new(Yard::nameless(folder, bytes / 4));
        Self { records: Records::empty(&yard, bytes / 4 * 3) }
    }

    /// Adds the frames of a pack.
    pub fn insert(&self, pack: u32, frames: &[FrameInfo]) {
        let records = (0_u32..).zip(frames).map(|(at, frame)| {
            let mut record = [0; RECORD];
            fill(&mut record, &[half(&frame.id), &pack.to_be_bytes(), &at.to_be_bytes()]);
            record
        });
        self.records.insert(records, &|_| true);
    }

    /// The first place of a frame whose id begins so that `fits`.
    pub fn find<T>(&self, id: &ChunkId, mut fits: impl FnMut(u32, u32) -> Option<T>) -> Option<T> {
        let key: &[u8; KEY] = half(id).first_chunk()?;
        self.records.find(key, |record| {
            let mut input = Fields(&record[KEY..]);
            fits(input.u32()?, input.u32()?)
        })
    }

    /// Something that was inserted may not be found.
    pub fn is_broken(&self) -> bool {
        self.records.is_broken()
    }
    /// Bytes of memory held.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.records.held()
    }
}

fn half(id: &ChunkId) -> &[u8] {
    &id.0[..KEY]
}

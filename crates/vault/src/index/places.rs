//! Places of frames, or of small files, learned while a snapshot is read, within a fixed memory.
//!
//! For whoever reads without an index: the directories it opened, 24 bytes a place, in runs without names. Invariant:
//! memory stays within its limit while the folder takes files, and takes all where it does not; what cannot be read
//! again is told ([`Places::is_broken`]), and a place is a hint like any of an index.

use std::{path::Path, sync::Arc};

use super::{
    Fields, fill,
    records::{Records, Yard},
};
use crate::{
    id::{ChunkId, FileId},
    pack::FrameInfo,
};

const KEY: usize = 16;
const RECORD: usize = KEY + 4 + 4;

/// Pack and frame by the first half of a chunk's id, or by the id of a small file.
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
        let records = (0_u32..).zip(frames).map(|(at, frame)| record(half(&frame.id), pack, at));
        self.records.insert(records, &|_| true);
    }

    /// Adds the small files of a pack's bundles, each with its bundle.
    pub fn insert_files(&self, pack: u32, frames: &[FrameInfo]) {
        let parts = |(at, frame): (u32, &FrameInfo)| {
            let files: Vec<FileId> = frame.parts.iter().map(|part| part.file).collect();
            files.into_iter().map(move |file| record(&file.0, pack, at))
        };
        self.records.insert((0_u32..).zip(frames).flat_map(parts), &|_| true);
    }

    /// The first place of a frame whose id begins so that `fits`.
    pub fn find<T>(&self, id: &ChunkId, fits: impl FnMut(u32, u32) -> Option<T>) -> Option<T> {
        self.find_key(half(id).first_chunk()?, fits)
    }

    /// The first bundle with a small file that `fits`.
    pub fn find_file<T>(&self, id: &FileId, fits: impl FnMut(u32, u32) -> Option<T>) -> Option<T> {
        self.find_key(&id.0, fits)
    }

    fn find_key<T>(
        &self,
        key: &[u8; KEY],
        mut fits: impl FnMut(u32, u32) -> Option<T>,
    ) -> Option<T> {
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

fn record(key: &[u8], pack: u32, frame: u32) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    fill(&mut record, &[key, &pack.to_be_bytes(), &frame.to_be_bytes()]);
    record
}

fn half(id: &ChunkId) -> &[u8] {
    &id.0[..KEY]
}

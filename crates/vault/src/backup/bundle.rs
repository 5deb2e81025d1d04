//! Bundles: small files one after the other in one chunk.
//!
//! Invariant: where a bundle ends depends on the files in it alone, so the same run of new files makes the same
//! bundles wherever it begins to be the same.

use std::collections::HashMap;

use crate::{descriptor::Bundling, id::FileId, pack::Part};

/// A bundle lists at most this many files.
const MAX_FILES: usize = 16_384;

/// The bundle being filled.
#[derive(Default)]
pub(super) struct OpenBundle {
    pub bytes: Vec<u8>,
    pub parts: Vec<Part>,
    here: HashMap<FileId, u32>,
}

impl OpenBundle {
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
    /// Offset of a file that is in the bundle already.
    pub fn find(&self, file: &FileId) -> Option<u32> {
        self.here.get(file).copied()
    }
    /// Appends a file; gives its offset.
    pub fn append(&mut self, file: FileId, content: &[u8]) -> u32 {
        // Both fit: bundles are closed far below 16 MiB.
        let offset = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(content);
        self.parts.push(Part { file, length });
        self.here.insert(file, offset);
        offset
    }
    /// Whether the bundle ends after its last file: a keyed coin, weighted by the file's length.
    pub fn ends(&self, sizes: Bundling) -> bool {
        let Some(last) = self.parts.last() else { return false };
        let length = self.bytes.len();
        if length >= sizes.max as usize || self.parts.len() >= MAX_FILES {
            return true;
        }
        let mut coin = [0; 4];
        coin.copy_from_slice(&last.file.0[..4]);
        let span = u64::from(sizes.target - sizes.min);
        length >= sizes.min as usize
            && u64::from(u32::from_le_bytes(coin)) * span < u64::from(last.length) << 32
    }
}

//! Frames between the writer and a finished pack.
//!
//! Owns what the index cannot know yet: ids that were given out and whose pack is still open. Invariant: an id is
//! here until the index has it, so whoever asks here first and the index then misses none. Bounded by what open
//! packs and the pool's queue can hold.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    id::{ChunkId, FileId, FrameKind},
    index::FilePlace,
    manifest::FrameBitmap,
    pack::{Directory, Part},
};

/// What is on its way.
#[derive(Default)]
pub(super) struct Flight(Mutex<Aloft>);

#[derive(Default)]
struct Aloft {
    /// True: stored for a file that could not be read to its end, and not used by another since.
    frames: HashMap<ChunkId, bool>,
    files: HashMap<FileId, FilePlace>,
}

impl Flight {
    fn aloft(&self) -> MutexGuard<'_, Aloft> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame is on its way.
    pub fn start(&self, id: ChunkId, parts: &[Part]) {
        let mut aloft = self.aloft();
        aloft.frames.insert(id, false);
        let mut offset = 0;
        for part in parts {
            let place = FilePlace { bundle: id, offset, length: part.length };
            aloft.files.entry(part.file).or_insert(place);
            offset += part.length;
        }
    }
    pub fn has(&self, id: &ChunkId) -> bool {
        self.aloft().frames.contains_key(id)
    }
    pub fn file(&self, id: &FileId) -> Option<FilePlace> {
        self.aloft().files.get(id).copied()
    }
    /// The frame is used, if it is here.
    pub fn take(&self, id: &ChunkId) -> bool {
        self.aloft().frames.get_mut(id).map(|abandoned| *abandoned = false).is_some()
    }
    /// The frame was stored for nothing, if it is here.
    pub fn abandon(&self, id: &ChunkId) -> bool {
        self.aloft().frames.get_mut(id).map(|abandoned| *abandoned = true).is_some()
    }
    /// A pack is finished and in the index; gives the frames of it that are used.
    pub fn land(&self, directory: &Directory) -> FrameBitmap {
        let mut used = FrameBitmap::default();
        let mut aloft = self.aloft();
        for (at, frame) in (0_u32..).zip(&directory.frames) {
            for part in &frame.parts {
                if aloft.files.get(&part.file).is_some_and(|place| place.bundle == frame.id) {
                    aloft.files.remove(&part.file);
                }
            }
            let abandoned = aloft.frames.remove(&frame.id).unwrap_or(false);
            if frame.kind != FrameKind::Pad && !abandoned {
                used.insert(at);
            }
        }
        used
    }
}

/// Ids kept in memory before they go to a file: 1 MiB.
const LOGGED: usize = 32_768;

/// What one file has stored, in case it was for nothing: a list that does not grow with the file.
#[derive(Default)]
pub(super) struct IdLog {
    ids: Vec<ChunkId>,
    /// Without a name: it goes with the process.
    file: Option<File>,
    folder: Option<PathBuf>,
}

impl IdLog {
    /// Beyond its memory the log goes to `folder`; without one it grows.
    pub fn new(folder: Option<&Path>) -> Self {
        Self { folder: folder.map(Path::to_path_buf), ..Self::default() }
    }

    pub fn push(&mut self, id: ChunkId) {
        self.ids.push(id);
        if self.ids.len() >= LOGGED && self.folder.is_some() {
            // A log that cannot be written forgets: the frames count as used, which costs their space.
            drop(self.spill());
            self.ids.clear();
        }
    }

    fn spill(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.file = self.folder.as_deref().map(crate::index::nameless).transpose()?;
        }
        let bytes: Vec<u8> = self.ids.iter().flat_map(|id| id.0).collect();
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(&bytes))
    }

    /// Shows every id, as far as they can be read back.
    pub fn each(mut self, mut seen: impl FnMut(ChunkId)) {
        let ids = std::mem::take(&mut self.ids);
        if let Some(mut file) = self.file.take().filter(|file| (&*file).rewind().is_ok()) {
            let mut id = ChunkId([0; 32]);
            let mut input = io::BufReader::new(&mut file);
            while input.read_exact(&mut id.0).is_ok() {
                seen(id);
            }
        }
        ids.into_iter().for_each(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_gives_back_every_id_and_keeps_its_memory() {
        let folder = tempfile::tempdir().unwrap();
        let id = |n: usize| ChunkId(*blake3::hash(&n.to_be_bytes()).as_bytes());
        for (count, home) in [(10, None), (100_000, None), (100_000, Some(folder.path()))] {
            let mut log = IdLog::new(home);
            (0..count).for_each(|n| log.push(id(n)));
            assert!(home.is_none() || log.ids.capacity() <= LOGGED);
            let mut back = 0;
            log.each(|got| {
                assert!(got == id(back));
                back += 1;
            });
            assert_eq!(back, count);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

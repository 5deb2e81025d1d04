//! A shelf: values by number, for one backup or restore, within a fixed memory.
//!
//! For what must be remembered of hard links. Values go to a file without a name, their places to records like
//! those of the index. Invariant: the newest value of a number or nothing, never an older or torn one; what a disk
//! loses is asked for in vain, and told ([`Shelf::is_broken`]). A temporary one keeps in memory what a full disk does not
//! take.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Fields, fill,
    records::{Records, Yard},
};

const KEY: usize = 16;
const RECORD: usize = KEY + 4 + 8 + 4;

/// Values by number.
pub struct Shelf {
    places: Records<RECORD, KEY>,
    folder: Option<PathBuf>,
    file: Option<File>,
    /// What comes after the file's bytes.
    recent: Vec<u8>,
    written: u64,
    limit: usize,
    /// What cannot be written stays in memory: nobody could make it again.
    keeps: bool,
}

impl Shelf {
    /// One beside no index: what is beyond `bytes` of memory goes to files of `folder` that have no names.
    pub fn temporary(folder: &Path, bytes: usize) -> Self {
        Self::new(&Arc::new(Yard::nameless(Some(folder), bytes / 4)), bytes / 4 * 3)
    }

    pub(super) fn new(yard: &Arc<Yard>, bytes: usize) -> Self {
        Self {
            places: Records::empty(yard, bytes / 4 * 3),
            folder: yard.folder.clone(),
            file: None,
            recent: Vec::new(),
            written: 0,
            limit: bytes / 8,
            keeps: !yard.named,
        }
    }

    /// Puts a value in the place of the one before.
    pub fn put(&mut self, number: u64, value: &[u8]) {
        let Ok(length) = u32::try_from(value.len()) else { return };
        if !self.recent.is_empty() && self.recent.len() + value.len() > self.limit {
            self.spill();
        }
        let offset = self.written + self.recent.len() as u64;
        self.recent.extend_from_slice(value);
        let mut record = [0; RECORD];
        let fields: [&[u8]; 4] =
            [&key(number), &[0; 4], &offset.to_be_bytes(), &length.to_be_bytes()];
        fill(&mut record, &fields);
        self.places.insert(std::iter::once(record), &|_| true);
    }

    /// The newest value of a number.
    pub fn get(&self, number: u64) -> Option<Vec<u8>> {
        let mut newest = None;
        let none: Option<()> = self.places.find(&key(number), |record| {
            let mut input = Fields(&record[KEY + 4..]);
            newest = newest.max(Some((input.u64()?, input.u32()?)));
            None
        });
        debug_assert!(none.is_none());
        let (offset, length) = newest.filter(|_| !self.places.is_broken())?;
        let Some(at) = offset.checked_sub(self.written) else {
            let mut value = vec![0; length as usize];
            let read = self.file.as_ref()?.read_exact_at(&mut value, offset);
            return read.map_err(|error| self.places.break_by(&error)).ok().map(|()| value);
        };
        let from = usize::try_from(at).ok()?;
        self.recent.get(from..from + length as usize).map(<[u8]>::to_vec)
    }

    /// Something was lost: a number without a value may have had one.
    pub fn is_broken(&self) -> bool {
        self.places.is_broken()
    }
    /// Bytes of memory held.
    pub fn held(&self) -> usize {
        self.places.held() + self.recent.capacity()
    }

    /// Writes what is recent, if that can be.
    fn spill(&mut self) {
        let Some(folder) = &self.folder else { return };
        let file = match self.file.take().map_or_else(|| nameless(folder), Ok) {
            Ok(file) => self.file.insert(file),
            Err(_) => return,
        };
        if let Err(error) = file.write_all_at(&self.recent, self.written) {
            if self.keeps {
                self.folder = None;
                return;
            }
            // The places of what was lost lead to bytes that are not there.
            self.places.break_by(&error);
        }
        self.written += self.recent.len() as u64;
        self.recent.clear();
    }
}

fn key(number: u64) -> [u8; KEY] {
    let mut key = [0; KEY];
    key.copy_from_slice(&blake3::hash(&number.to_be_bytes()).as_bytes()[..KEY]);
    key
}

/// A file in `folder` that has no name and goes with the process.
pub(crate) fn nameless(folder: &Path) -> io::Result<File> {
    faults::point("scratch: create")?;
    tempfile::tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_cannot_be_read_again_is_no_number_without_a_value() {
        let dir = tempfile::tempdir().unwrap();
        let mut shelf = Shelf::temporary(dir.path(), 64 << 10);
        for number in 0..5_000 {
            shelf.put(number, b"what is known of it");
        }
        assert!(shelf.get(0).is_some() && !shelf.is_broken());
        shelf.file.as_ref().unwrap().set_len(0).unwrap();
        assert!(shelf.get(0).is_none() && shelf.is_broken());
    }
}

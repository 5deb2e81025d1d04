//! Bundles: small files one after the other in one chunk.
//!
//! Invariant: where a bundle ends depends on the files in it alone, so the same run of new files makes the same
//! bundles wherever it begins to be the same.

use std::{
    collections::HashMap,
    io::{self, Read},
};

use crate::{descriptor::Bundling, id::FileId, pack::Part};

/// A bundle lists at most this many files.
const MAX_FILES: usize = 16_384;

/// The bundle being filled.
#[derive(Default)]
pub(super) struct OpenBundle {
    /// The files in it, and behind them perhaps one that was read and is not.
    bytes: Vec<u8>,
    /// Bytes of the files in it.
    length: usize,
    parts: Vec<Part>,
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
    /// Reads a file of at most `most` bytes to where it will be, should it be appended; gives its content.
    pub fn read(&mut self, data: &mut dyn Read, most: u64, sizes: Bundling) -> io::Result<&[u8]> {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(sizes.max as usize + sizes.below as usize);
        }
        self.bytes.truncate(self.length);
        data.take(most).read_to_end(&mut self.bytes)?;
        Ok(&self.bytes[self.length..])
    }
    /// Appends the file that was read last; gives its offset.
    pub fn append(&mut self, file: FileId) -> u32 {
        // Both fit: bundles are closed far below 16 MiB.
        let offset = u32::try_from(self.length).unwrap_or(u32::MAX);
        let length = u32::try_from(self.bytes.len() - self.length).unwrap_or(u32::MAX);
        self.length = self.bytes.len();
        self.parts.push(Part { file, length });
        self.here.insert(file, offset);
        offset
    }
    /// The files in it, as one, and what they are.
    pub fn close(mut self) -> (Vec<u8>, Vec<Part>) {
        self.bytes.truncate(self.length);
        (self.bytes, self.parts)
    }
    /// Whether the bundle ends after its last file: a keyed coin, weighted by the file's length.
    pub fn ends(&self, sizes: Bundling) -> bool {
        let Some(last) = self.parts.last() else { return false };
        let length = self.length;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives some bytes, then fails.
    struct Torn<'a>(&'a [u8]);

    impl Read for Torn<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            self.0.read(buffer)
        }
    }

    #[test]
    fn only_files_that_were_appended_are_in_the_bundle() {
        let sizes = Bundling { below: 64, min: 64, target: 128, max: 256 };
        let id = |n: u8| FileId([n; 16]);
        let mut bundle = OpenBundle::default();
        assert_eq!(
            bundle.read(&mut &b"known elsewhere"[..], 64, sizes).unwrap(),
            b"known elsewhere"
        );
        assert!(bundle.is_empty());
        assert_eq!(bundle.read(&mut &b"grown while read"[..], 5, sizes).unwrap(), b"grown");
        assert_eq!(bundle.append(id(1)), 0);
        assert!(bundle.read(&mut Torn(b"torn"), 64, sizes).is_err());
        assert_eq!(bundle.read(&mut &b"two"[..], 64, sizes).unwrap(), b"two");
        assert_eq!(bundle.append(id(2)), 5);
        assert!(bundle.read(&mut Torn(b"torn"), 64, sizes).is_err());
        assert_eq!((bundle.find(&id(2)), bundle.find(&id(3))), (Some(5), None));
        let (bytes, parts) = bundle.close();
        assert_eq!(bytes, b"growntwo");
        let parts: Vec<_> = parts.iter().map(|part| (part.file, part.length)).collect();
        assert_eq!(parts, [(id(1), 5), (id(2), 3)]);
    }
}

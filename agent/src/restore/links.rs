//! What a restore remembers of files with several names, however many there are.
//!
//! Owns what is known of each group. Invariant: a further name is linked only to a name that is the snapshot's file;
//! what cannot be read again from the temporary folder is told, and nothing is linked to it.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use vault::index::Shelf;

/// Memory for groups; what is beyond goes to files without names.
const MEMORY: usize = 8 << 20;

/// Device and inode.
pub type Identity = (u64, u64);

/// What became of the name of a group that came first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// It is being restored, or could not be.
    Begun,
    /// It was there from before, and is the snapshot's.
    Kept { path: Vec<u8> },
    /// It was made now.
    Made { path: Vec<u8>, identity: Identity },
}

/// First names by group.
pub struct Links(Mutex<Shelf>);

impl Links {
    /// Nothing is known; `folder` is for temporary files.
    pub fn new(folder: &Path) -> Self {
        Self(Mutex::new(Shelf::temporary(folder, MEMORY)))
    }
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, group: u64) -> Option<First> {
        known(&self.shelf(), group)
    }
    /// True: it is the first name of its group.
    pub fn begin(&self, group: u64) -> bool {
        let mut shelf = self.shelf();
        let is_first = known(&shelf, group).is_none();
        if is_first {
            shelf.put(group, &First::Begun.encode());
        }
        is_first
    }
    pub fn keep(&self, group: u64, path: Vec<u8>) {
        let mut shelf = self.shelf();
        if matches!(known(&shelf, group), None | Some(First::Begun)) {
            shelf.put(group, &First::Kept { path }.encode());
        }
    }
    pub fn made(&self, group: u64, path: Vec<u8>, identity: Identity) {
        self.shelf().put(group, &First::Made { path, identity }.encode());
    }
    /// Names of one file may be files of their own now, or not be there.
    pub fn is_broken(&self) -> bool {
        self.shelf().is_broken()
    }
}

fn known(shelf: &Shelf, group: u64) -> Option<First> {
    First::decode(&shelf.get(group)?)
}

impl First {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Begun => vec![0],
            Self::Kept { path } => [&[1], path.as_slice()].concat(),
            Self::Made { path, identity: (dev, ino) } => {
                [&[2], &dev.to_le_bytes()[..], &ino.to_le_bytes(), path].concat()
            }
        }
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        Some(match kind {
            0 => Self::Begun,
            1 => Self::Kept { path: rest.to_vec() },
            _ => {
                let (dev, rest) = rest.split_first_chunk()?;
                let (ino, path) = rest.split_first_chunk()?;
                let identity = (u64::from_le_bytes(*dev), u64::from_le_bytes(*ino));
                Self::Made { path: path.to_vec(), identity }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_counts_more_than_what_was_there_and_that_more_than_what_was_begun() {
        let dir = tempfile::tempdir().expect("tempdir");
        let links = Links::new(dir.path());
        let kept = First::Kept { path: b"kept".to_vec() };
        let made = First::Made { path: b"made".to_vec(), identity: (1, u64::MAX) };
        assert!(links.begin(7) && !links.begin(7));
        assert_eq!(links.get(7), Some(First::Begun));
        links.keep(7, b"kept".to_vec());
        links.keep(7, b"later".to_vec());
        assert_eq!(links.get(7), Some(kept));
        assert!(!links.begin(7));
        links.made(7, b"made".to_vec(), (1, u64::MAX));
        links.keep(7, b"kept".to_vec());
        assert_eq!(links.get(7), Some(made));
        assert_eq!(links.get(8), None);
    }
}

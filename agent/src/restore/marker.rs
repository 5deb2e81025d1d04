//! The note in the target that a restore is under way, and what an interrupted one left.
//!
//! Invariant: while a restore runs, or after it was interrupted, the marker is in the target; after it
//! ended, it is not. A marker whose lock is held belongs to a restore that is alive: its temporaries
//! stay. It must not know snapshots.

use std::fs::File;

use rustix::{
    fs::{Dir, FlockOperation, flock},
    io::Errno,
};

use super::safe_root::{Access, Folder, Refused, SafeRoot};
use crate::sources::Kind;

const MARKER: &[u8] = b".everhold-restoring";
const PREFIX: &[u8] = b".everhold-";
const PART: &[u8] = b".part";
const ASIDE: &[u8] = b".was";
const RANDOM: usize = 10;
const WORDS: &[u8] = b"A restore into this folder is under way or was interrupted. \
Restore again to finish it; this file goes with it.\n";

/// Held while a restore runs.
pub struct Marker {
    /// With the lock; `None` when another restore into this target is alive, or nothing can be written.
    held: Option<File>,
    /// An earlier restore did not end.
    pub resumed: bool,
}

impl Marker {
    /// Sets the marker, or takes over that of an interrupted restore. A target that takes no marker
    /// costs the next restore its knowledge, not this one.
    pub fn set(root: &SafeRoot) -> Self {
        let none = Self { held: None, resumed: false };
        let Ok(top) = root.folder(b"") else { return none };
        match top.create_file(MARKER) {
            Ok(mut file) => {
                let _ = faults::write_all("restore: marker: write", &mut file, WORDS);
                let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
                Self { held: Some(file), resumed: false }
            }
            Err(Refused::System(Errno::EXIST)) => {
                let Ok(file) = top.open_file(MARKER, Access::Write) else { return none };
                if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
                {
                    return none;
                }
                let _ = sweep(&top, Leavings::Temporaries);
                Self { held: Some(file), resumed: true }
            }
            Err(_) => none,
        }
    }

    /// The restore came to its end.
    pub fn remove(self, root: &SafeRoot) {
        if self.held.is_some()
            && let Err(error) = root.folder(b"").and_then(|top| top.remove(MARKER))
        {
            tracing::warn!(%error, "the restore's marker could not be removed from the target");
        }
    }
}

/// A name nothing else has.
pub fn temporary(random: [u8; RANDOM]) -> Vec<u8> {
    [PREFIX, hex::encode(random).as_bytes()].concat()
}

/// The name under which the large file `name` grows: the same every time, so that a restore after an
/// interrupted one finds what is there of it.
pub fn part(name: &[u8]) -> Vec<u8> {
    known(name, PART)
}

/// The name under which the file `name`, which was there before, is changed. It is somebody's file and never removed:
/// it gets its name back.
pub fn aside(name: &[u8]) -> Vec<u8> {
    known(name, ASIDE)
}

fn known(name: &[u8], suffix: &[u8]) -> Vec<u8> {
    let hash = vault::id::Sha256::of(name);
    let short = hash.0.get(..RANDOM).unwrap_or_default();
    [PREFIX, hex::encode(short).as_bytes(), suffix].concat()
}

/// Whether an interrupted restore left it, and it is nobody's file.
pub fn is_leaving(name: &[u8]) -> bool {
    name == MARKER || is_temporary(name) || name.strip_suffix(PART).is_some_and(is_temporary)
}

fn is_temporary(name: &[u8]) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| {
        rest.len() == RANDOM * 2
            && rest.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Which leavings to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leavings {
    /// All but parts of large files, which are taken up again.
    Temporaries,
    /// Parts nobody took up.
    Parts,
}

/// Removes what an interrupted restore left in a folder; what cannot be removed harms nobody. Gives the names of files
/// that it had set aside.
pub fn sweep(folder: &Folder, leavings: Leavings) -> Vec<Vec<u8>> {
    let Ok(listing) = Dir::read_from(folder.handle()) else { return Vec::new() };
    let names = listing.filter_map(Result::ok).map(|entry| entry.file_name().to_bytes().to_vec());
    let ends = |name: &[u8], suffix| name.strip_suffix(suffix).is_some_and(is_temporary);
    let is_wanted = |name: &[u8]| match leavings {
        Leavings::Temporaries => is_temporary(name),
        Leavings::Parts => ends(name, PART),
    };
    let names = names.filter(|name| is_wanted(name) || ends(name, ASIDE));
    let (aside, names): (Vec<_>, Vec<_>) = names.partition(|name| ends(name, ASIDE));
    for name in names {
        let file = folder.stat(&name).ok().flatten();
        if file.is_some_and(|stat| stat.kind != Kind::Directory) {
            let _ = folder.remove(&name);
        }
    }
    aside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_temporaries_are_taken_for_such() {
        assert!(is_temporary(&temporary([0xab; RANDOM])));
        for name in [
            MARKER,
            b".everhold-",
            b".everhold-0123456789abcdef012",
            b"x",
            b".everhold-0123456789ABCDEF0123",
            &part(b"x"),
        ] {
            assert!(!is_temporary(name));
        }
    }
}

//! What a backup remembers of files with several names, however many there are.
//!
//! Invariant: two inodes never share a group, or they would be restored as one file; what a full disk forgets makes
//! files of their own instead.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};
use vault::{index::Shelf, tree::FileTime};

use crate::sources::{Kind, Moment, Stat};

/// Numbers for groups of hard links: the inode number, or one drawn by hash where two devices collide.
pub struct LinkGroups {
    /// Device and inode by group.
    owners: Shelf,
    /// Inodes whose later names are a group of their own: files written to while they were backed up.
    renumbered: HashMap<(u64, u64), u64>,
}

impl LinkGroups {
    /// No groups; `owners` is empty.
    pub fn new(owners: Shelf) -> Self {
        Self { owners, renumbered: HashMap::new() }
    }

    /// The group of an inode with several names; `None` for one with a single name, for folders, and when it can no
    /// longer be told whose a number is.
    pub fn of(&mut self, stat: &Stat) -> Option<u64> {
        if stat.links < 2 || stat.kind == Kind::Directory {
            return None;
        }
        if let Some(group) = self.renumbered.get(&stat.identity()) {
            return Some(*group);
        }
        self.number(stat)
    }

    /// From here on the names of this inode are another file: its content is not what its first names have.
    pub fn split(&mut self, stat: &Stat) {
        if self.of(stat).is_none() {
            return;
        }
        let mine = owner(stat);
        let free = (1..).map(|n| candidate(&mine, n)).find(|n| self.owners.get(*n).is_none());
        if let Some(group) = free {
            self.owners.put(group, &mine);
            self.renumbered.insert(stat.identity(), group);
        }
    }

    fn number(&mut self, stat: &Stat) -> Option<u64> {
        let mine = owner(stat);
        for group in (0..).map(|n| if n == 0 { stat.ino } else { candidate(&mine, n) }) {
            match self.owners.get(group) {
                Some(other) if other == mine => return Some(group),
                Some(_) => {}
                None if self.owners.is_broken() => return None,
                None => {
                    self.owners.put(group, &mine);
                    return Some(group);
                }
            }
        }
        None
    }
}

/// The `n`th number to try: the same in every backup, and not the neighbour's, or two devices with inodes one after
/// the other would try them all.
fn candidate(owner: &[u8; 16], n: u64) -> u64 {
    let hash = Sha256::new().chain_update(owner).chain_update(n.to_be_bytes()).finalize();
    hash.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

fn owner(stat: &Stat) -> [u8; 16] {
    let mut owner = [0; 16];
    owner[..8].copy_from_slice(&stat.dev.to_be_bytes());
    owner[8..].copy_from_slice(&stat.ino.to_be_bytes());
    owner
}

/// The first reading of a file with several names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    owner: [u8; 16],
    size: u64,
    mtime: Moment,
    changed: Moment,
    /// `None`: too fresh to be relied on.
    pub ctime: Option<FileTime>,
}

impl Reading {
    /// Nothing happened to the file since.
    pub fn same_content(&self, later: &Stat) -> bool {
        self.owner == owner(later) && !self.is_written(later) && self.changed == later.ctime
    }
    /// It was written since, as far as size and time of the last write tell.
    pub fn is_written(&self, later: &Stat) -> bool {
        self.size != later.size || self.mtime != later.mtime
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = self.owner.to_vec();
        out.extend_from_slice(&self.size.to_be_bytes());
        let ctime = self.ctime.map(|time| Moment { secs: time.secs, nanos: time.nanos });
        for moment in [Some(self.mtime), Some(self.changed), ctime].into_iter().flatten() {
            out.extend_from_slice(&moment.secs.to_be_bytes());
            out.extend_from_slice(&moment.nanos.to_be_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (owner, rest) = bytes.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let moment = |rest: &mut &[u8]| {
            let (secs, after) = rest.split_first_chunk()?;
            let (nanos, after) = after.split_first_chunk()?;
            *rest = after;
            Some(Moment { secs: i64::from_be_bytes(*secs), nanos: u32::from_be_bytes(*nanos) })
        };
        let mut rest = rest;
        let (mtime, changed) = (moment(&mut rest)?, moment(&mut rest)?);
        let ctime = moment(&mut rest).map(|at| FileTime { secs: at.secs, nanos: at.nanos });
        Some(Self { owner: *owner, size: u64::from_be_bytes(*size), mtime, changed, ctime })
    }
}

/// First readings by group.
pub struct Readings(Shelf);

impl Readings {
    /// None yet; `shelf` is empty.
    pub const fn new(shelf: Shelf) -> Self {
        Self(shelf)
    }
    pub fn of(&self, group: u64) -> Option<Reading> {
        Reading::decode(&self.0.get(group)?)
    }
    pub fn remember(&mut self, group: u64, stat: &Stat, ctime: Option<FileTime>) {
        let (size, mtime, changed) = (stat.size, stat.mtime, stat.ctime);
        let reading = Reading { owner: owner(stat), size, mtime, changed, ctime };
        self.0.put(group, &reading.encode());
    }
}

#[cfg(test)]
mod tests {
    use domain::VaultId;
    use vault::index::{Budget, ChunkIndex};

    use super::*;

    fn stat(dev: u64, ino: u64, links: u64) -> Stat {
        Stat {
            kind: Kind::File,
            dev,
            ino,
            links,
            mode: 0o644,
            uid: 1,
            gid: 2,
            size: ino * 3,
            blocks: 8,
            mtime: Moment { secs: -5, nanos: 7 },
            ctime: Moment { secs: 5, nanos: 8 },
        }
    }

    #[test]
    fn equal_inode_numbers_of_two_devices_are_two_groups() {
        let index = ChunkIndex::new(VaultId::from_bytes([1; 16]));
        let mut groups = LinkGroups::new(index.shelf());
        let first = groups.of(&stat(1, 10, 2));
        let other = groups.of(&stat(2, 10, 2));
        assert_ne!(first, other);
        assert_eq!(groups.of(&stat(1, 10, 2)), first);
        assert_eq!(groups.of(&stat(2, 10, 2)), other);
        assert_eq!(groups.of(&stat(3, 11, 1)), None);
        groups.split(&stat(1, 10, 2));
        let split = groups.of(&stat(1, 10, 2));
        assert!(split.is_some() && split != first && split != other);
    }

    #[test]
    fn many_links_are_remembered_in_little_memory() {
        let dir = tempfile::tempdir().expect("tempdir");
        let vault = VaultId::from_bytes([1; 16]);
        let budget = Budget { bytes: 3 << 20 };
        let index = ChunkIndex::open(dir.path(), vault, 1, budget).expect("opens");
        let (mut groups, mut readings) =
            (LinkGroups::new(index.shelf()), Readings::new(index.shelf()));
        let numbers = |n: u64| (n % 2, n / 2);
        for n in 0..12_000 {
            let (dev, ino) = numbers(n);
            let group = groups.of(&stat(dev, ino, 2)).expect("a group");
            let ctime = (n % 3 == 0).then_some(FileTime { secs: n.cast_signed(), nanos: 1 });
            readings.remember(group, &stat(dev, ino, 2), None);
            readings.remember(group, &stat(dev, ino, 2), ctime);
        }
        let mut seen = std::collections::HashSet::new();
        for n in 0..12_000 {
            let (dev, ino) = numbers(n);
            let group = groups.of(&stat(dev, ino, 2)).expect("a group");
            assert!(seen.insert(group), "two inodes in one group");
            let reading = readings.of(group).expect("a reading");
            assert!(reading.same_content(&stat(dev, ino, 2)));
            assert!(!reading.same_content(&stat(dev, ino + 1, 2)));
            assert_eq!(
                reading.ctime.map(|time| time.secs),
                (n % 3 == 0).then_some(n.cast_signed())
            );
        }
        assert_eq!(readings.of(u64::MAX), None);
        assert!(groups.owners.held() + readings.0.held() < 300 << 10);
    }
}

//! Between what a file system says and what a snapshot keeps, both ways.

use rustix::fs::{major, makedev, minor};
use vault::tree::{Content, Entry, EntryKind, FileTime, Xattr};

use crate::{
    restore::apply::Attributes,
    sources::{Found, Kind, Meta, Moment, Stat},
};

/// An entry for the tree; a file's size as seen at open, its content still to come.
pub fn to_entry(found: Found, hardlink: Option<u64>) -> Entry {
    let Found { path, meta } = found;
    let Meta { stat, user, group, link_target, xattrs, incomplete } = meta;
    let kind = match stat.kind {
        Kind::File => EntryKind::File { size: stat.size, content: Content::Empty },
        Kind::Directory => EntryKind::Directory,
        Kind::Symlink => EntryKind::Symlink { target: link_target.unwrap_or_default() },
        Kind::Fifo => EntryKind::Fifo,
        Kind::Socket => EntryKind::Socket,
        Kind::CharDevice { rdev } => {
            EntryKind::CharDevice { major: major(rdev), minor: minor(rdev) }
        }
        Kind::BlockDevice { rdev } => {
            EntryKind::BlockDevice { major: major(rdev), minor: minor(rdev) }
        }
    };
    let mut entry = Entry::new(path, kind);
    fill(&mut entry, &stat);
    entry.user = user.map(String::into_bytes);
    entry.group = group.map(String::into_bytes);
    entry.hardlink = hardlink;
    // The next run looks again, and confesses again.
    entry.flags = if incomplete { Entry::INCOMPLETE } else { 0 };
    entry.xattrs = xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect();
    entry
}

/// What a stat alone tells, for comparing with the parent before anything is opened.
pub fn from_stat(path: Vec<u8>, stat: &Stat) -> Entry {
    let kind = EntryKind::File { size: stat.size, content: Content::Empty };
    let mut entry = Entry::new(path, kind);
    fill(&mut entry, stat);
    entry
}

fn fill(entry: &mut Entry, stat: &Stat) {
    entry.mode = stat.mode;
    entry.uid = stat.uid;
    entry.gid = stat.gid;
    entry.mtime = time(stat.mtime);
    entry.ctime = Some(time(stat.ctime));
    entry.inode = stat.ino;
    entry.device = stat.dev;
}

const fn time(moment: Moment) -> FileTime {
    FileTime { secs: moment.secs, nanos: moment.nanos }
}

/// The kind in the words of a file system.
pub fn kind_of(entry: &Entry) -> Kind {
    match &entry.kind {
        EntryKind::File { .. } => Kind::File,
        EntryKind::Directory => Kind::Directory,
        EntryKind::Symlink { .. } => Kind::Symlink,
        EntryKind::Fifo => Kind::Fifo,
        EntryKind::Socket => Kind::Socket,
        EntryKind::CharDevice { major, minor } => {
            Kind::CharDevice { rdev: makedev(*major, *minor) }
        }
        EntryKind::BlockDevice { major, minor } => {
            Kind::BlockDevice { rdev: makedev(*major, *minor) }
        }
    }
}

/// What is put back on a restored entry.
pub fn attributes(entry: &Entry) -> Attributes {
    let xattrs = entry.xattrs.iter().map(|xattr| (xattr.name.clone(), xattr.value.clone()));
    Attributes {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: Moment { secs: entry.mtime.secs, nanos: entry.mtime.nanos },
        xattrs: xattrs.collect(),
    }
}

#[cfg(test)]
mod tests {
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
            size: 3,
            blocks: 8,
            mtime: Moment { secs: -5, nanos: 7 },
            ctime: Moment { secs: 5, nanos: 8 },
        }
    }

    #[test]
    fn an_entry_carries_what_the_stat_said() {
        let entry = from_stat(b"a/b".to_vec(), &stat(1, 10, 1));
        assert_eq!(entry.size(), 3);
        assert_eq!(entry.mtime, FileTime { secs: -5, nanos: 7 });
        assert_eq!((entry.device, entry.inode), (1, 10));
        assert!(entry.looks_unchanged(&from_stat(b"a/b".to_vec(), &stat(1, 10, 1))));
        assert!(!entry.looks_unchanged(&from_stat(b"a/b".to_vec(), &stat(1, 11, 1))));
    }

    #[test]
    fn another_device_number_means_another_file_only_where_times_are_coarse() {
        for (nanos, same) in [(8, true), (123_456_789, true), (0, false), (3_000_000, false)] {
            let at = |dev| {
                let ctime = Moment { secs: 5, nanos };
                from_stat(b"a/b".to_vec(), &Stat { ctime, ..stat(dev, 10, 1) })
            };
            assert_eq!(at(1).looks_unchanged(&at(2)), same, "{nanos} ns");
        }
    }
}

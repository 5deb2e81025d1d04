//! Metadata of one entry as Linux tells it, complete enough to make it again.

use std::time::Duration;

use domain::Timestamp;
use rustix::fs::{FileType, Stat as RawStat};

use super::xattr::Xattrs;

/// Kernels tick every 1 to 10 ms: changes so close may carry the same stamp.
const FINE: Duration = Duration::from_millis(100);
/// Some file systems keep whole seconds, or every other one.
const COARSE: Duration = Duration::from_secs(3);

/// Seconds since 1970 (may be negative) and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment {
    pub secs: i64,
    pub nanos: u32,
}

/// What an entry is. Devices carry their number; nothing but files and directories is ever opened for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice { rdev: u64 },
    BlockDevice { rdev: u64 },
}

/// One `fstat`, in our words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    pub dev: u64,
    pub ino: u64,
    pub links: u64,
    /// Permission bits with setuid, setgid and sticky: 0o7777.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// 512-byte blocks allocated.
    pub blocks: u64,
    pub mtime: Moment,
    pub ctime: Moment,
}

impl Stat {
    /// `None` for a file type we do not know.
    pub fn from_raw(raw: &RawStat) -> Option<Self> {
        let rdev = raw.st_rdev;
        let kind = match FileType::from_raw_mode(raw.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => Kind::CharDevice { rdev },
            FileType::BlockDevice => Kind::BlockDevice { rdev },
            FileType::Unknown => return None,
        };
        let moment = |secs, nanos: u64| Moment { secs, nanos: u32::try_from(nanos).unwrap_or(0) };
        Some(Self {
            kind,
            dev: raw.st_dev,
            ino: raw.st_ino,
            links: raw.st_nlink,
            mode: raw.st_mode & 0o7777,
            uid: raw.st_uid,
            gid: raw.st_gid,
            size: u64::try_from(raw.st_size).unwrap_or(0),
            blocks: u64::try_from(raw.st_blocks).unwrap_or(0),
            mtime: moment(raw.st_mtime, raw.st_mtime_nsec),
            ctime: moment(raw.st_ctime, raw.st_ctime_nsec),
        })
    }

    /// Identity of the inode on this machine, now.
    pub const fn identity(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// Fewer blocks than bytes: worth asking for holes.
    pub const fn may_have_holes(&self) -> bool {
        self.blocks.saturating_mul(512) < self.size
    }

    /// Whole seconds look like a file system that keeps no fractions.
    pub const fn has_coarse_times(&self) -> bool {
        self.ctime.nanos == 0
    }

    /// Whether a change after `at` could leave this very time stamp.
    pub fn is_racy(&self, at: Timestamp) -> bool {
        let window = if self.has_coarse_times() { COARSE } else { FINE };
        let horizon = (at - window).to_offset();
        let horizon = Moment { secs: horizon.unix_timestamp(), nanos: horizon.nanosecond() };
        self.ctime >= horizon
    }

    /// Whether `later` is the same file, untouched since.
    pub fn same_content(&self, later: &Self) -> bool {
        self.identity() == later.identity()
            && self.size == later.size
            && self.mtime == later.mtime
            && self.ctime == later.ctime
    }
}

/// An entry's metadata: its stat and what only extra calls tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    pub stat: Stat,
    pub user: Option<String>,
    pub group: Option<String>,
    /// Where a symlink points, verbatim.
    pub link_target: Option<Vec<u8>>,
    pub xattrs: Xattrs,
    /// Some attributes could not be read.
    pub incomplete: bool,
}

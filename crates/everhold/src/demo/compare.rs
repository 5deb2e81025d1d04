//! Two trees compared entry by entry: content, type, owner, mode, times, links, extended attributes.
//!
//! Written apart from the agent's own code on purpose: a mistake there must not hide itself here.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, File, Metadata},
    io::Read as _,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use anyhow::{Context as _, Result};

/// At most this many differences are told.
const TOLD: usize = 20;

/// What was compared, and what differs.
#[derive(Debug, Default)]
pub struct Compared {
    pub entries: u64,
    pub bytes: u64,
    pub xattrs: u64,
    pub hard_links: u64,
    pub differences: Vec<String>,
    owners: bool,
}

impl Compared {
    pub fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.xattrs += other.xattrs;
        self.hard_links += other.hard_links;
        self.owners = other.owners;
        self.differences.extend(other.differences.iter().cloned());
    }

    /// Which attributes were compared, in words.
    pub fn attributes(&self) -> String {
        let owners = if self.owners { "owners, " } else { "" };
        format!(
            "types, modes, {owners}times, links ({} hard), {} extended attributes",
            self.hard_links, self.xattrs
        )
    }

    fn differs(&mut self, path: &Path, what: &str) {
        if self.differences.len() < TOLD {
            self.differences.push(format!("{}: {what}", path.display()));
        }
    }
}

/// Compares two trees. Owners are compared when this process may give files away (root).
///
/// # Errors
/// When one of them cannot be read; a difference is no error.
pub fn trees(original: &Path, restored: &Path) -> Result<Compared> {
    let mut walk = Walk {
        seen: Compared { owners: rustix::process::geteuid().is_root(), ..Compared::default() },
        groups: BTreeMap::new(),
    };
    walk.entry(original, restored)?;
    Ok(walk.seen)
}

struct Walk {
    seen: Compared,
    /// Original inode → restored inode, for files with several names.
    groups: BTreeMap<(u64, u64), (u64, u64)>,
}

impl Walk {
    fn entry(&mut self, a: &Path, b: &Path) -> Result<()> {
        let left = fs::symlink_metadata(a).with_context(|| format!("look at {}", a.display()))?;
        let Ok(right) = fs::symlink_metadata(b) else {
            self.seen.differs(a, "was not restored");
            return Ok(());
        };
        self.seen.entries += 1;
        if kind(&left) != kind(&right) {
            self.seen.differs(a, "has another type");
            return Ok(());
        }
        self.attributes(a, b, &left, &right)?;
        if left.is_dir() {
            self.folder(a, b)?;
        } else if left.is_file() {
            self.content(a, b)?;
        } else if left.is_symlink() && fs::read_link(a)? != fs::read_link(b)? {
            self.seen.differs(a, "links elsewhere");
        }
        Ok(())
    }

    fn folder(&mut self, a: &Path, b: &Path) -> Result<()> {
        let (left, right) = (names(a)?, names(b)?);
        for extra in right.difference(&left) {
            self.seen.differs(&a.join(extra), "is only in the restored tree");
        }
        for name in &left {
            self.entry(&a.join(name), &b.join(name))?;
        }
        Ok(())
    }

    fn attributes(&mut self, a: &Path, b: &Path, left: &Metadata, right: &Metadata) -> Result<()> {
        if left.mode() != right.mode() && !left.is_symlink() {
            self.seen.differs(a, &format!("mode {:o} became {:o}", left.mode(), right.mode()));
        }
        if self.seen.owners && (left.uid(), left.gid()) != (right.uid(), right.gid()) {
            self.seen.differs(a, "has another owner");
        }
        if (left.mtime(), left.mtime_nsec()) != (right.mtime(), right.mtime_nsec()) {
            self.seen.differs(a, "has another modification time");
        }
        if !left.is_dir() && left.size() != right.size() {
            self.seen.differs(a, &format!("size {} became {}", left.size(), right.size()));
        }
        if left.is_file() && left.nlink() > 1 {
            self.hard_link(a, left, right);
        }
        let (left, right) = (xattrs(a)?, xattrs(b)?);
        self.seen.xattrs += left.len() as u64;
        if left != right {
            self.seen.differs(a, "has other extended attributes");
        }
        Ok(())
    }

    fn hard_link(&mut self, a: &Path, left: &Metadata, right: &Metadata) {
        let restored = (right.dev(), right.ino());
        self.seen.hard_links += 1;
        if *self.groups.entry((left.dev(), left.ino())).or_insert(restored) != restored {
            self.seen.differs(a, "is no longer the same file as its other names");
        }
    }

    fn content(&mut self, a: &Path, b: &Path) -> Result<()> {
        let (mut left, mut right) = (File::open(a)?, File::open(b)?);
        let (mut left_part, mut right_part) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            let read = left.read(&mut left_part)?;
            if read == 0 {
                if right.read(&mut right_part)? != 0 {
                    self.seen.differs(a, "is longer when restored");
                }
                return Ok(());
            }
            self.seen.bytes += read as u64;
            let same = right.read_exact(&mut right_part[..read]).is_ok()
                && left_part[..read] == right_part[..read];
            if !same {
                self.seen.differs(a, "has other content");
                return Ok(());
            }
        }
    }
}

fn names(dir: &Path) -> Result<BTreeSet<OsString>> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    Ok(entries.map(|entry| entry.map(|e| e.file_name())).collect::<Result<_, _>>()?)
}

fn kind(meta: &Metadata) -> &'static str {
    let kind = meta.file_type();
    if kind.is_dir() {
        "folder"
    } else if kind.is_file() {
        "file"
    } else if kind.is_symlink() {
        "link"
    } else if kind.is_fifo() {
        "fifo"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_char_device() {
        "character device"
    } else {
        "block device"
    }
}

fn xattrs(path: &Path) -> Result<BTreeMap<OsString, Vec<u8>>> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut list = vec![0_u8; 1 << 16];
    let length = match rustix::fs::llistxattr(path, &mut list) {
        Ok(length) => length,
        // The file system has none: nothing to compare.
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => {
            return Err(error).with_context(|| format!("list attributes of {}", path.display()));
        }
    };
    let mut found = BTreeMap::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = OsString::from_vec(name.to_vec());
        let mut value = vec![0_u8; 1 << 16];
        let length = rustix::fs::lgetxattr(path, &name, &mut value)?;
        value.truncate(length);
        found.insert(name, value);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
        let dir = tempfile::tempdir().expect("temp");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for tree in [&a, &b] {
            fs::create_dir(tree).expect("mkdir");
            fs::write(tree.join("file"), "content").expect("write");
            fs::hard_link(tree.join("file"), tree.join("same")).expect("link");
            let time = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
            File::open(tree.join("file")).and_then(|f| f.set_times(time)).expect("times");
            File::open(tree).and_then(|f| f.set_times(time)).expect("times");
        }
        (dir, a, b)
    }

    fn differences(change: impl Fn(&Path)) -> Vec<String> {
        let (_dir, a, b) = pair();
        change(&b);
        trees(&a, &b).expect("readable").differences
    }

    #[test]
    fn equal_trees_have_no_difference() {
        assert_eq!(differences(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_change_is_seen() {
        let set_mode = |path: &Path, mode| {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
        };
        assert!(!differences(|b| fs::write(b.join("file"), "cXntent").expect("write")).is_empty());
        assert!(!differences(|b| fs::write(b.join("extra"), "").expect("write")).is_empty());
        assert!(!differences(|b| fs::remove_file(b.join("same")).expect("rm")).is_empty());
        assert!(!differences(|b| set_mode(&b.join("file"), 0o600)).is_empty());
        let unlinked = differences(|b| {
            fs::remove_file(b.join("same")).expect("rm");
            fs::copy(b.join("file"), b.join("same")).expect("copy");
        });
        assert!(unlinked.iter().any(|d| d.contains("no longer the same file")), "{unlinked:?}");
    }
}

//! Compares a restored tree with its origin: byte for byte, attribute for attribute.
//!
//! Its own code, sharing nothing with the agent: a comparer that used the agent's idea of metadata would agree
//! with its mistakes. Type, permission bits, size, content, modification time in nanoseconds, link target, device
//! number, hard-link groups, extended attributes (ACLs among them); owners when run as root, who alone can restore
//! them.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// What was compared, and what differs (the first 20 differences).
#[derive(Debug, Default)]
pub struct Comparison {
    pub entries: u64,
    pub files: u64,
    pub bytes: u64,
    pub differences: Vec<String>,
}

impl Comparison {
    fn differs(&mut self, path: &Path, what: &str) {
        if self.differences.len() < 20 {
            self.differences.push(format!("{}: {what}", path.display()));
        }
    }
}

/// Compares two trees. Blocks.
pub fn trees(origin: &Path, restored: &Path) -> anyhow::Result<Comparison> {
    let mut comparison = Comparison::default();
    let mut links = LinkGroups::default();
    let as_root = rustix::process::geteuid().is_root();
    let mut folders = vec![PathBuf::new()];
    entry(&mut comparison, &mut links, origin, restored, as_root)?;
    while let Some(folder) = folders.pop() {
        let left = names(&origin.join(&folder))?;
        let right = names(&restored.join(&folder))?;
        for name in right.difference(&left) {
            comparison.differs(&folder.join(name), "is only in the restored tree");
        }
        for name in &left {
            let path = folder.join(name);
            if !right.contains(name) {
                comparison.differs(&path, "is missing in the restored tree");
                continue;
            }
            let (a, b) = (origin.join(&path), restored.join(&path));
            if entry(&mut comparison, &mut links, &a, &b, as_root)? {
                folders.push(path);
            }
        }
    }
    Ok(comparison)
}

/// Sorted, so that membership is a binary search away and order is the same on both sides.
fn names(folder: &Path) -> anyhow::Result<std::collections::BTreeSet<OsString>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    Ok(entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<_>>()?)
}

/// Compares one entry; true when both are folders to go into.
fn entry(
    comparison: &mut Comparison,
    links: &mut LinkGroups,
    a: &Path,
    b: &Path,
    as_root: bool,
) -> anyhow::Result<bool> {
    let (left, right) = (fs::symlink_metadata(a)?, fs::symlink_metadata(b)?);
    comparison.entries += 1;
    let kind = left.file_type();
    if kind != right.file_type() {
        comparison.differs(a, "is of another type");
        return Ok(false);
    }
    if !kind.is_symlink() && left.mode() != right.mode() {
        comparison.differs(a, &format!("mode {:o} became {:o}", left.mode(), right.mode()));
    }
    if as_root && (left.uid(), left.gid()) != (right.uid(), right.gid()) {
        comparison.differs(a, "has another owner");
    }
    if mtime(&left) != mtime(&right) {
        comparison.differs(a, "has another modification time");
    }
    if kind.is_symlink() && fs::read_link(a)? != fs::read_link(b)? {
        comparison.differs(a, "points elsewhere");
    }
    if (kind.is_char_device() || kind.is_block_device()) && left.rdev() != right.rdev() {
        comparison.differs(a, "is another device");
    }
    if attributes(a)? != attributes(b)? {
        comparison.differs(a, "has other extended attributes");
    }
    if kind.is_file() {
        if !links.agree(&left, &right) {
            comparison.differs(a, "is linked to other files");
        }
        comparison.files += 1;
        comparison.bytes += left.len();
        if left.len() != right.len() || !same_content(a, b)? {
            comparison.differs(a, "has other content");
        }
    }
    Ok(kind.is_dir())
}

fn mtime(facts: &Metadata) -> (i64, i64) {
    (facts.mtime(), facts.mtime_nsec())
}

fn same_content(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut left, mut right) = (File::open(a)?, File::open(b)?);
    let (mut x, mut y) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    loop {
        let n = left.read(&mut x)?;
        if n == 0 {
            return Ok(right.read(&mut y[..1])? == 0);
        }
        if right.read_exact(&mut y[..n]).is_err() || x[..n] != y[..n] {
            return Ok(false);
        }
    }
}

/// Names and values, without following a link. A file system without attributes has none.
fn attributes(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut list = vec![0; 64 * 1_024];
    let length = match rustix::fs::llistxattr(path, &mut list) {
        Ok(length) => length,
        Err(error) if error == rustix::io::Errno::OPNOTSUPP => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let mut all = BTreeMap::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 * 1_024];
        let length = rustix::fs::lgetxattr(path, name, &mut value)?;
        value.truncate(length);
        all.insert(name.to_vec(), value);
    }
    Ok(all)
}

/// Which inodes of one side stand for which of the other. Links leaving the tree make a group smaller on one
/// side only, so the pairing is compared and not the count.
#[derive(Default)]
struct LinkGroups {
    there: BTreeMap<(u64, u64), (u64, u64)>,
    back: BTreeMap<(u64, u64), (u64, u64)>,
}

impl LinkGroups {
    fn agree(&mut self, left: &Metadata, right: &Metadata) -> bool {
        let (a, b) = ((left.dev(), left.ino()), (right.dev(), right.ino()));
        *self.there.entry(a).or_insert(b) == b && *self.back.entry(b).or_insert(a) == a
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::PermissionsExt as _,
        time::{Duration, SystemTime},
    };

    use super::*;

    fn tree(dir: &Path) {
        fs::create_dir_all(dir.join("sub")).expect("folder");
        fs::write(dir.join("a"), "content").expect("file");
        fs::write(dir.join("sub/b"), "more").expect("file");
        fs::hard_link(dir.join("a"), dir.join("linked")).expect("link");
        std::os::unix::fs::symlink("a", dir.join("pointer")).expect("link");
        for path in ["a", "sub/b", "sub", ""] {
            let moment = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
            File::open(dir.join(path)).expect("open").set_modified(moment).expect("time");
        }
        rustix::fs::utimensat(
            rustix::fs::CWD,
            dir.join("pointer"),
            &rustix::fs::Timestamps {
                last_access: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 2 },
                last_modification: rustix::fs::Timespec { tv_sec: 3, tv_nsec: 4 },
            },
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        )
        .expect("time");
        File::open(dir).expect("open").set_modified(SystemTime::UNIX_EPOCH).expect("time");
    }

    fn differences(break_it: impl FnOnce(&Path)) -> Vec<String> {
        let dir = tempfile::tempdir().expect("folder");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        tree(&a);
        tree(&b);
        break_it(&b);
        trees(&a, &b).expect("compared").differences
    }

    #[test]
    fn equal_trees_are_equal() {
        let none: Vec<String> = Vec::new();
        assert_eq!(differences(|_| ()), none);
    }

    #[test]
    fn every_kind_of_difference_is_seen() {
        let found = |differences: Vec<String>, what: &str| {
            assert!(differences.iter().any(|d| d.contains(what)), "{what}: {differences:?}");
        };
        found(differences(|b| fs::write(b.join("sub/b"), "Nore").expect("write")), "other content");
        found(differences(|b| fs::remove_file(b.join("sub/b")).expect("remove")), "missing");
        found(
            differences(|b| fs::write(b.join("new"), "").expect("write")),
            "only in the restored",
        );
        let chmod = |b: &Path| {
            fs::set_permissions(b.join("a"), fs::Permissions::from_mode(0o600)).expect("mode");
        };
        found(differences(chmod), "mode");
        let touch = |b: &Path| {
            let file = File::open(b.join("sub")).expect("open");
            file.set_modified(SystemTime::UNIX_EPOCH).expect("time");
        };
        found(differences(touch), "modification time");
        let unlink = |b: &Path| {
            fs::remove_file(b.join("linked")).expect("remove");
            fs::copy(b.join("a"), b.join("linked")).expect("copy");
        };
        found(differences(unlink), "linked to other files");
        let retarget = |b: &Path| {
            fs::remove_file(b.join("pointer")).expect("remove");
            std::os::unix::fs::symlink("sub", b.join("pointer")).expect("link");
        };
        found(differences(retarget), "points elsewhere");
        let retype = |b: &Path| {
            fs::remove_file(b.join("sub/b")).expect("remove");
            fs::create_dir(b.join("sub/b")).expect("folder");
        };
        found(differences(retype), "another type");
    }
}

//! Metadata, put back last: owner, then mode, then attributes and ACLs, then times.
//!
//! The order matters: a change of owner clears setuid and capabilities, an ACL sets the group bits, and
//! everything touches times. What cannot be put back (no right to, no support) is told in words; the
//! rest is still done.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use rustix::{
    fs::{
        AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat,
        fchmod, fchown, fremovexattr, fsetxattr, fstat, fstatvfs, futimens, setxattr, utimensat,
    },
    io::Errno,
};

use super::safe_root::point;
use crate::sources::{Kind, Moment, Xattrs, xattr};

/// Fault points.
const OWNER: &str = "restore: owner";
const MODE: &str = "restore: mode";
const ATTRIBUTE: &str = "restore: attribute";
const TIME: &str = "restore: time";

/// What to put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Moment,
    pub xattrs: Xattrs,
}

/// The time of what is not finished: the next restore, which knows a finished entry by its time, takes it up again
/// whatever it is to overwrite. One nanosecond past the beginning: the beginning itself is what some tools give to all.
pub const UNFINISHED: Moment = Moment { secs: 0, nanos: 1 };

/// Words for everything that could not be put back; empty when all is well.
pub type Shortfalls = Vec<String>;

/// What an entry may have that nobody gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inherited {
    /// It was just made in a folder that hands nothing down.
    Nothing,
    Perhaps,
}

/// Of an open file or folder.
pub fn to_handle(handle: BorrowedFd<'_>, wanted: &Attributes, inherited: Inherited) -> Shortfalls {
    let mut short = Vec::new();
    let mut finished = true;
    let now = fstat(handle).ok();
    // A restore sets what is right already in most of its files: asking is cheaper than setting.
    let owned = now.is_some_and(|now| (now.st_uid, now.st_gid) == (wanted.uid, wanted.gid))
        || owner(
            wanted,
            |uid, gid| point(OWNER).and_then(|()| fchown(handle, uid, gid)),
            &mut short,
            &mut finished,
        );
    let mode = safe_mode(wanted.mode, owned, &mut short);
    if inherited == Inherited::Perhaps {
        clear_inherited(handle, &wanted.xattrs);
    }
    if inherited == Inherited::Perhaps || now.is_none_or(|now| now.st_mode & 0o7777 != mode) {
        let set = point(MODE).and_then(|()| fchmod(handle, Mode::from_raw_mode(mode)));
        finished &= mode_is_settled(set, &mut short);
    }
    for (name, value) in &wanted.xattrs {
        let set = point(ATTRIBUTE)
            .and_then(|()| fsetxattr(handle, name.as_slice(), value, XattrFlags::empty()));
        finished &= attribute_is_settled(set, name, handle, &mut short);
    }
    let mtime = last_time(wanted, finished, &mut short);
    let set = point(TIME).and_then(|()| futimens(handle, &times(mtime)));
    note(&mut short, "modification time", set);
    short
}

/// Of a link, FIFO, socket or device, pinned by an `O_PATH` handle.
pub fn to_pinned(pinned: BorrowedFd<'_>, kind: Kind, wanted: &Attributes) -> Shortfalls {
    let mut short = Vec::new();
    let mut finished = true;
    let this = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    let give = |uid, gid| point(OWNER).and_then(|()| chownat(pinned, "", uid, gid, this));
    let owned = owner(wanted, give, &mut short, &mut finished);
    // The handle's own name under /proc reaches the pinned inode, not whatever has its name by now.
    let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    if kind != Kind::Symlink {
        let mode = Mode::from_raw_mode(safe_mode(wanted.mode, owned, &mut short));
        let set = point(MODE)
            .and_then(|()| chmodat(rustix::fs::CWD, path.as_str(), mode, AtFlags::empty()));
        finished &= mode_is_settled(set, &mut short);
    }
    for (key, value) in &wanted.xattrs {
        let set = point(ATTRIBUTE)
            .and_then(|()| setxattr(path.as_str(), key.as_slice(), value, XattrFlags::empty()));
        finished &= attribute_is_settled(set, key, pinned, &mut short);
    }
    let mtime = last_time(wanted, finished, &mut short);
    let set = point(TIME).and_then(|()| utimensat(pinned, "", &times(mtime), this));
    note(&mut short, "modification time", set);
    short
}

/// Gives the owner back; `false` when it is not (wholly) the wanted one. `finished` says whether trying once more would
/// change nothing.
fn owner(
    wanted: &Attributes,
    chown: impl Fn(Option<Uid>, Option<Gid>) -> Result<(), Errno>,
    short: &mut Shortfalls,
    finished: &mut bool,
) -> bool {
    // All ones means "leave alone" to the kernel and is nobody's number.
    if wanted.uid == u32::MAX || wanted.gid == u32::MAX {
        short.push(format!("owner: {}:{} is no valid owner", wanted.uid, wanted.gid));
        return false;
    }
    let (uid, gid) = (Uid::from_raw(wanted.uid), Gid::from_raw(wanted.gid));
    match chown(Some(uid), Some(gid)) {
        Ok(()) => true,
        Err(Errno::PERM | Errno::INVAL) => {
            // The group alone may still be ours to give.
            let group = chown(None, Some(gid)).is_ok();
            let left = if group { "owner" } else { "owner and group" };
            let pair = format!("{}:{}", wanted.uid, wanted.gid);
            short.push(format!("{left} {pair}: only root can give files away; restore as root"));
            false
        }
        Err(errno) => {
            short.push(format!("owner: {}", std::io::Error::from(errno)));
            *finished &= !may_pass(errno);
            false
        }
    }
}

/// Setuid and setgid are for the owner they were given with, and nobody else.
fn safe_mode(mode: u32, owned: bool, short: &mut Shortfalls) -> u32 {
    if owned || mode & 0o6000 == 0 {
        return mode & 0o7777;
    }
    short.push("setuid and setgid: left out because the owner could not be given".to_owned());
    mode & 0o1777
}

/// A target folder's default ACL marks new entries; the snapshot's word counts instead.
fn clear_inherited(handle: BorrowedFd<'_>, wanted: &Xattrs) {
    for (name, _) in xattr::read(handle.as_fd()).unwrap_or_default() {
        let ours = name.starts_with(b"system.posix_acl_")
            || name.starts_with(b"user.")
            || name == b"security.capability";
        if ours && !wanted.iter().any(|(other, _)| *other == name) {
            // Best effort: what stays is compared and told by nobody else, but harms nothing.
            let _ = point(ATTRIBUTE).and_then(|()| fremovexattr(handle, name.as_slice()));
        }
    }
}

/// As the system takes it; the access time stays as it is.
pub fn times(mtime: Moment) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: mtime.secs,
            tv_nsec: i64::from(mtime.nanos.min(999_999_999)),
        },
    }
}

fn last_time(wanted: &Attributes, finished: bool, short: &mut Shortfalls) -> Moment {
    if finished {
        return wanted.mtime;
    }
    short.push("modification time: 1970, so that the same restore again takes this up".into());
    UNFINISHED
}

fn note(short: &mut Shortfalls, what: &str, done: Result<(), Errno>) {
    if let Err(errno) = done {
        short.push(format!("{what}: {}", std::io::Error::from(errno)));
    }
}

/// Whether trying once more would change nothing: it is set, or it never can be.
fn mode_is_settled(done: Result<(), Errno>, short: &mut Shortfalls) -> bool {
    note(short, "mode", done);
    !done.is_err_and(may_pass)
}

/// Whether the same may succeed another time.
const fn may_pass(errno: Errno) -> bool {
    matches!(errno, Errno::IO | Errno::NOMEM | Errno::DQUOT | Errno::NOSPC)
}

/// As for the mode, but no space may mean for ever: that its file has no room for one more.
fn attribute_is_settled(
    done: Result<(), Errno>,
    name: &[u8],
    handle: BorrowedFd<'_>,
    short: &mut Shortfalls,
) -> bool {
    note(short, &format!("attribute {}", String::from_utf8_lossy(name)), done);
    match done {
        Err(Errno::IO | Errno::NOMEM | Errno::DQUOT) => false,
        Err(Errno::NOSPC) => has_space(handle),
        _ => true,
    }
}

/// Whether its file system has 1 MiB left; those without a limit say that they have no blocks at all.
fn has_space(handle: BorrowedFd<'_>) -> bool {
    fstatvfs(handle).is_ok_and(|space| {
        space.f_blocks == 0 || space.f_bavail.saturating_mul(space.f_frsize) >= 1 << 20
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn wanted(xattrs: Xattrs) -> Attributes {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let mtime = Moment { secs: 1_000_000_000, nanos: 5 };
        Attributes { mode: 0o640, uid: uid.as_raw(), gid: gid.as_raw(), mtime, xattrs }
    }

    fn time_of(path: &std::path::Path) -> (i64, i64) {
        let now = std::fs::symlink_metadata(path).expect("stat");
        (now.mtime(), now.mtime_nsec())
    }

    #[test]
    fn what_never_fits_leaves_a_finished_file() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("file");
        let file = std::fs::File::create(&path).expect("file");
        // The most the kernel takes; ext4 has room for less than 4096 bytes.
        let wanted = wanted(vec![(b"user.large".to_vec(), vec![1; 65_536])]);
        let short = to_handle(file.as_fd(), &wanted, Inherited::Nothing);
        assert_eq!(time_of(&path), (1_000_000_000, 5), "{short:?}");
        assert!(short.iter().all(|words| words.starts_with("attribute user.large: ")), "{short:?}");
    }

    #[test]
    fn what_may_succeed_another_time_leaves_an_unfinished_one() {
        let dir = tempfile::tempdir().expect("dir");
        let handle = std::fs::File::open(dir.path()).expect("dir");
        let mut short = Vec::new();
        for errno in [Errno::IO, Errno::NOMEM, Errno::DQUOT] {
            assert!(!mode_is_settled(Err(errno), &mut short));
            assert!(!attribute_is_settled(Err(errno), b"user.a", handle.as_fd(), &mut short));
        }
        assert!(!mode_is_settled(Err(Errno::NOSPC), &mut short));
        for errno in [Errno::PERM, Errno::NOTSUP, Errno::TOOBIG, Errno::ROFS] {
            assert!(mode_is_settled(Err(errno), &mut short));
            assert!(attribute_is_settled(Err(errno), b"user.a", handle.as_fd(), &mut short));
        }
        assert_eq!(short.len(), 15);
        let given = |errno| {
            let mut finished = true;
            assert!(!owner(&wanted(vec![]), |_, _| Err(errno), &mut Vec::new(), &mut finished));
            finished
        };
        assert!(given(Errno::PERM) && given(Errno::INVAL) && given(Errno::ROFS));
        assert!([Errno::IO, Errno::NOMEM, Errno::DQUOT, Errno::NOSPC].iter().all(|e| !given(*e)));
        assert_eq!(last_time(&wanted(vec![]), false, &mut short), UNFINISHED);
    }

    #[test]
    fn room_is_seen_and_no_limit_is_room() {
        let dir = tempfile::tempdir().expect("dir");
        let handle = std::fs::File::open(dir.path()).expect("dir");
        assert!(has_space(handle.as_fd()), "a test that runs has a mebibyte");
        // /proc has no blocks and no limit.
        assert!(has_space(std::fs::File::open("/proc").expect("proc").as_fd()));
    }
}

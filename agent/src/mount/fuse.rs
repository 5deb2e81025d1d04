//! The only user of the FUSE crate: requests in, answers out.
//!
//! Owns the session with the kernel: what it may cache (all of a snapshot, for nothing in it changes), how many
//! threads answer, and that it is asked to let go when it holds too many inodes. Invariant: read-only, no devices, no
//! set-user-ids; where others may look, the kernel checks modes and ACLs.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant, SystemTime},
};

use fuser::{
    AccessFlags, BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, Notifier,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request, Session, SessionACL,
};
use vault::tree::FileTime;

use super::{
    content::Seek,
    directory::Stream,
    nodes::{Nodes, Place},
    point,
    view::{Attributes, Kind, Listed, Trouble, View},
};

/// Nothing in a snapshot ever changes.
const LONG: Duration = Duration::from_secs(24 * 3_600);
/// New snapshots show after this long.
const SHORT: Duration = Duration::from_secs(5);
/// Inodes the kernel may hold before it is asked to let go of the oldest.
const CROWD: usize = 200_000;
/// As many at a time.
const LEAVING: usize = 10_000;
/// How long the threads may take to notice that it is unmounted.
const ENDING: Duration = Duration::from_secs(5);
/// Threads that answer.
const THREADS: usize = 6;

/// The file system does not mount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error(
        "mounting at {0} is not permitted: run as root, or install fuse3 (it has fusermount3); in a container \
         give it /dev/fuse and CAP_SYS_ADMIN. Without mounting: everhold-agent ls, find, restore"
    )]
    Denied(PathBuf),
    #[error("cannot mount at {0}: {1}")]
    Failed(PathBuf, #[source] io::Error),
}

/// A mounted file system. Dropping it unmounts.
pub struct Mounted {
    session: Option<BackgroundSession>,
    point: PathBuf,
}

/// Mounts `view` at a prepared point. `allow_other`: every user of the machine may look, as far as modes and ACLs let
/// them; otherwise only the mounting user, and everything.
///
/// # Errors
/// See [`MountError`].
pub fn mount(view: View, point: &Path, allow_other: bool) -> Result<Mounted, MountError> {
    let (crowded, crowd) = sync_channel(1);
    let files = Arc::new(Files {
        nodes: Nodes::new(view.root()),
        view,
        folders: Mutex::default(),
        next: AtomicU64::new(1),
        crowded,
    });
    let mut options = vec![
        MountOption::RO,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoAtime,
        MountOption::FSName(point::SOURCE.to_owned()),
    ];
    let mut config = Config::default();
    if allow_other {
        options.push(MountOption::DefaultPermissions);
        config.acl = SessionACL::All;
    }
    config.mount_options = options;
    config.n_threads = Some(THREADS);
    let handler = Handler { files: Arc::clone(&files), allow_other, without_open: false };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound => {
            MountError::Denied(point.to_path_buf())
        }
        _ => MountError::Failed(point.to_path_buf(), error),
    };
    let session = Session::new(handler, point, &config).map_err(failed)?;
    let notifier = session.notifier();
    let weak = Arc::downgrade(&files);
    std::thread::spawn(move || thin_out(&weak, &crowd, &notifier));
    let session = session.spawn().map_err(failed)?;
    Ok(Mounted { session: Some(session), point: point.to_path_buf() })
}

/// How an unmount went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Unmounted,
    /// Somebody is still in it: it is gone from the tree, and for them when they leave or this process ends.
    Detached,
}

impl Mounted {
    /// Whether somebody else has unmounted it.
    pub fn has_ended(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.guard.is_finished())
    }

    /// Unmounts, under those who still look if there are any.
    ///
    /// # Errors
    /// When it stays mounted.
    pub fn leave(mut self) -> Result<Left, io::Error> {
        let left = if self.has_ended() || point::unmount(&self.point, false).is_ok() {
            Left::Unmounted
        } else {
            point::unmount(&self.point, true)?;
            Left::Detached
        };
        if let Some(session) = self.session.take() {
            let until = Instant::now() + ENDING;
            while left == Left::Unmounted && !session.guard.is_finished() && Instant::now() < until
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            // Dropped, it would unmount a second time, perhaps somebody else's mount; its threads end with the last user
            // or with this process.
            std::mem::forget(session);
        }
        Ok(left)
    }
}

/// Asks the kernel to forget what it met first, whenever it holds too much.
fn thin_out(files: &std::sync::Weak<Files>, crowd: &Receiver<()>, notifier: &Notifier) {
    while crowd.recv().is_ok() {
        let Some(oldest) = files.upgrade().map(|files| files.nodes.oldest(LEAVING)) else { return };
        for (parent, name) in oldest {
            // In use, or gone already: both are fine.
            let _ = notifier.inval_entry(INodeNo(parent), OsStr::from_bytes(&name));
        }
    }
}

struct Files {
    view: View,
    nodes: Nodes,
    folders: Mutex<HashMap<u64, Arc<Mutex<Stream>>>>,
    next: AtomicU64,
    crowded: SyncSender<()>,
}

struct Handler {
    files: Arc<Files>,
    allow_other: bool,
    /// The kernel opens files without asking.
    without_open: bool,
}

const fn errno(trouble: Trouble) -> Errno {
    match trouble {
        Trouble::NotFound => Errno::ENOENT,
        Trouble::NotAFolder => Errno::ENOTDIR,
        Trouble::NotALink | Trouble::NotAFile => Errno::EINVAL,
        Trouble::NoAttribute => Errno::ENODATA,
        Trouble::Beyond => Errno::ENXIO,
        Trouble::Unreadable => Errno::EIO,
    }
}

const fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Folder => FileType::Directory,
        Kind::Link => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// As the system knows it; times beyond its reach become 1970.
fn system_time(time: FileTime) -> SystemTime {
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let second = if time.secs < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    second
        .and_then(|second| second.checked_add(Duration::from_nanos(time.nanos.into())))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The kernel's own way of writing a device number.
const fn device_number((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

fn file_attr(number: u64, known: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(number),
        size: known.size,
        blocks: known.allocated.div_ceil(512),
        atime: system_time(known.atime),
        mtime: system_time(known.mtime),
        ctime: system_time(known.ctime),
        crtime: SystemTime::UNIX_EPOCH,
        kind: file_type(known.kind),
        perm: u16::try_from(known.mode & 0o7777).unwrap_or(0),
        nlink: known.names,
        uid: known.uid,
        gid: known.gid,
        rdev: device_number(known.device),
        blksize: 128 << 10,
        flags: 0,
    }
}

/// How long the kernel may believe what it was told of something in `folder`.
const fn life(folder: &Place) -> Duration {
    match folder {
        Place::Shelf | Place::Latest => SHORT,
        Place::Entry { .. } => LONG,
    }
}

impl Files {
    fn place(&self, number: INodeNo) -> Result<Arc<Place>, Errno> {
        self.nodes.place(number.0).ok_or(Errno::ENOENT)
    }

    /// Number and attributes of something the kernel is told of, held until it forgets it.
    fn introduce(&self, parent: INodeNo, listed: &Listed) -> Result<FileAttr, Errno> {
        let known = self.view.attributes(&listed.place, Some(listed)).map_err(errno)?;
        let number = self.nodes.remember(listed.place.clone(), parent.0, &listed.name);
        if self.nodes.count() > CROWD {
            let _ = self.crowded.try_send(());
        }
        Ok(file_attr(number, &known))
    }

    fn attr(&self, number: INodeNo) -> Result<FileAttr, Errno> {
        let known = self.view.attributes(&*self.place(number)?, None).map_err(errno)?;
        Ok(file_attr(number.0, &known))
    }

    fn stream(&self, handle: FileHandle) -> Result<Arc<Mutex<Stream>>, Errno> {
        let folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        folders.get(&handle.0).map(Arc::clone).ok_or(Errno::EBADF)
    }

    /// Entries after a cookie, to `each`, which says when there is no more room. `.` and `..` are told by their
    /// cookies alone.
    fn list(
        &self,
        number: INodeNo,
        handle: FileHandle,
        cookie: u64,
        mut each: impl FnMut(u64, Option<&Listed>) -> bool,
    ) -> Result<(), Errno> {
        for dot in cookie + 1..=2 {
            if each(dot, None) {
                return Ok(());
            }
        }
        let (place, stream) = (self.place(number)?, self.stream(handle)?);
        let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        let page = |after: Option<&[u8]>, most| self.view.page(&place, after, most);
        stream.read(cookie, page, |own, listed| each(own, Some(listed))).map_err(errno)
    }
}

/// Answers with what was found, or with the error.
macro_rules! answer {
    ($reply:ident, $found:expr, |$value:ident| $good:expr) => {
        match $found {
            Ok($value) => $good,
            Err(error) => $reply.error(error),
        }
    };
}

impl Filesystem for Handler {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let offered = config.capabilities();
        let wanted = InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_ASYNC_READ;
        let _ = config.add_capabilities(wanted & offered);
        if self.allow_other {
            // Modes alone would give the owning group what the ACL's mask gives others.
            config.add_capabilities(InitFlags::FUSE_POSIX_ACL).map_err(|_| {
                io::Error::other("this kernel cannot check ACLs here: mount without --allow-other")
            })?;
        }
        self.without_open = offered.contains(InitFlags::FUSE_NO_OPEN_SUPPORT);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.files.place(parent).and_then(|folder| {
            let listed = self.files.view.lookup(&folder, name.as_bytes()).map_err(errno)?;
            Ok((life(&folder), self.files.introduce(parent, &listed)?))
        });
        answer!(reply, found, |found| reply.entry(&found.0, &found.1, Generation(0)));
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        self.files.nodes.forget(number.0, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let life = self.files.place(number).map_or(SHORT, |place| life(&place));
        answer!(reply, self.files.attr(number), |attr| reply.attr(&life, &attr));
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let found = self.files.place(number);
        let found = found.and_then(|place| self.files.view.readlink(&place).map_err(errno));
        answer!(reply, found, |target| reply.data(&target));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.without_open {
            // The kernel asks no more: it saves two questions per file.
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let found = self.files.place(number);
        let found =
            found.and_then(|place| self.files.view.read(&place, offset, size).map_err(errno));
        answer!(reply, found, |bytes| reply.data(bytes.as_slice()));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let found = self.files.place(number);
        answer!(reply, found, |place| {
            let handle = self.files.next.fetch_add(1, Ordering::Relaxed);
            let mut folders = self.files.folders.lock().unwrap_or_else(PoisonError::into_inner);
            folders.insert(handle, Arc::default());
            let unchanging = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
            let flags = if *place == Place::Shelf { FopenFlags::empty() } else { unchanging };
            reply.opened(FileHandle(handle), flags);
        });
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        cookie: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.files.list(number, handle, cookie, |own, listed| match listed {
            None => {
                let name = if own == 1 { "." } else { ".." };
                reply.add(number, own, FileType::Directory, name)
            }
            Some(listed) => {
                let child = INodeNo(listed.place.number());
                let name = OsStr::from_bytes(&listed.name);
                reply.add(child, own, file_type(listed.kind), name)
            }
        });
        answer!(reply, listed, |_done| reply.ok());
    }

    fn readdirplus(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        cookie: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let own = match self.files.attr(number) {
            Ok(own) => own,
            Err(error) => return reply.error(error),
        };
        let life = self.files.place(number).map_or(SHORT, |place| life(&place));
        let (mut failed, mut introduced) = (None, 0);
        let listed = self.files.list(number, handle, cookie, |cookie, listed| {
            let Some(listed) = listed else {
                let name = if cookie == 1 { "." } else { ".." };
                return reply.add(number, cookie, name, &life, &own, Generation(0));
            };
            match self.files.introduce(number, listed) {
                Ok(attr) => {
                    let name = OsStr::from_bytes(&listed.name);
                    let full = reply.add(attr.ino, cookie, name, &life, &attr, Generation(0));
                    if full {
                        self.files.nodes.forget(attr.ino.0, 1);
                    } else {
                        introduced += 1;
                    }
                    full
                }
                Err(error) => {
                    failed = Some(error);
                    true
                }
            }
        });
        // What was introduced already must reach the kernel, or it would never be forgotten; an error comes with the
        // next question.
        match (listed, failed) {
            (Err(error), _) | (Ok(()), Some(error)) if introduced == 0 => reply.error(error),
            _ => reply.ok(),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let mut folders = self.files.folders.lock().unwrap_or_else(PoisonError::into_inner);
        folders.remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (bytes, entries) = self.files.view.extent();
        reply.statfs(bytes.div_ceil(4_096), 0, 0, entries, 0, 4_096, 255, 4_096);
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let found = self.files.place(number);
        let found =
            found.and_then(|place| self.files.view.xattr(&place, name.as_bytes()).map_err(errno));
        answer!(reply, found, |value| sized(&value, size, reply));
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let found = self.files.place(number);
        let found = found.and_then(|place| self.files.view.xattr_names(&place).map_err(errno));
        answer!(reply, found, |names| sized(&names, size, reply));
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn lseek(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        // SEEK_DATA and SEEK_HOLE; the kernel answers the others itself.
        let what = match whence {
            3 => Seek::Data,
            4 => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(from) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        let found = self.files.place(number);
        let found = found.and_then(|place| self.files.view.seek(&place, from, what).map_err(errno));
        answer!(reply, found, |at| reply.offset(i64::try_from(at).unwrap_or(i64::MAX)));
    }
}

/// The size when nothing else was asked for, the value when there is room for it.
fn sized(value: &[u8], room: u32, reply: ReplyXattr) {
    match u32::try_from(value.len()) {
        Ok(length) if room == 0 => reply.size(length),
        Ok(length) if length <= room => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_devices_with_large_numbers_are_written_as_the_kernel_reads_them() {
        let old = system_time(FileTime { secs: -1, nanos: 123_456_789 });
        let before = SystemTime::UNIX_EPOCH.duration_since(old).expect("before 1970");
        assert_eq!(before, Duration::new(0, 876_543_211));
        assert_eq!(
            system_time(FileTime { secs: i64::MIN, nanos: 0 }),
            system_time(FileTime { secs: i64::MIN, nanos: 0 })
        );
        assert_eq!(device_number((1, 3)), 0x103);
        assert_eq!(device_number((259, 0x12345)), 0x1231_0345);
    }
}

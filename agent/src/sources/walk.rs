//! The walk: every entry below the roots, in the tree's key order (a folder's children first, then what
//! lies below each of them), by directory handles.
//!
//! Invariant: below a root nothing is opened by more than one path component, and never through a
//! link; a device, FIFO or socket is never opened for reading. What cannot be read becomes an
//! exception and the walk goes on. At most [`OPEN_FOLDERS`] handles are held, whatever the depth, beside those of
//! files that wait to be visited.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use domain::source::{ExceptionKind, RunException};
use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags, fstat, fstatfs, openat, readlinkat, statat},
    io::Errno,
};

use super::{
    ahead::{self, Event, Outbox},
    exception,
    exclude::{Excluded, Excludes, virtual_by_magic, virtual_by_path},
    file::OpenFile,
    listing::{Later, Lister, Listing},
    meta::{Kind, Meta, Stat},
    names::Names,
    refused,
    roots::{Parts, Roots},
    xattr::{self, Xattrs},
};

/// Folder handles kept open; shallower ones are reopened through `..` and checked.
const OPEN_FOLDERS: usize = 128;

const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// An entry and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Bytes, absolute, without the leading slash.
    pub path: Vec<u8>,
    pub meta: Meta,
}

/// Who is told what the walk finds. An error of the visitor ends the walk.
pub trait Visitor {
    type Error;

    /// A regular file whose stat is known but which was not opened yet. `true`: it is taken over
    /// unchanged from the parent snapshot and need not be read.
    ///
    /// # Errors
    /// Ends the walk.
    fn take_unchanged(&mut self, path: &[u8], stat: &Stat) -> Result<bool, Self::Error>;
    /// A regular file, to be read now.
    ///
    /// # Errors
    /// Ends the walk.
    fn file(&mut self, found: Found, content: OpenFile) -> Result<(), Self::Error>;
    /// Anything that is not a regular file.
    ///
    /// # Errors
    /// Ends the walk.
    fn entry(&mut self, found: Found) -> Result<(), Self::Error>;
    /// Something that is not (wholly) in the snapshot though it was asked for.
    fn exception(&mut self, exception: RunException);
    /// Something left out on purpose.
    fn excluded(&mut self, path: &[u8], why: Excluded);
}

/// What to leave out and how to call users.
#[derive(Debug, Clone, Default)]
pub struct WalkOptions {
    pub excludes: Excludes,
    pub names: Names,
}

/// A folder being gone through: first all its names, then the folders among them, as the tree has it.
struct Folder {
    /// `None`: closed to save handles; reopened through `..` of the folder below.
    handle: Option<Arc<OwnedFd>>,
    identity: (u64, u64),
    names: Listing,
    /// Folders among them that lead to roots, or are roots.
    leading: VecDeque<Child>,
    /// The others.
    below: Later,
    path_length: usize,
    /// Present above the roots: which names matter here.
    parts: Option<Parts>,
    /// Device of the root this belongs to.
    device: u64,
}

impl Folder {
    fn go_later(&mut self, child: Child) {
        if self.parts.is_some() {
            self.leading.push_back(child);
        } else {
            let numbers = [child.identity.0, child.identity.1, child.device];
            let mut record: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
            record.extend_from_slice(&child.name);
            self.below.push(&record);
        }
    }

    fn next_below(&mut self) -> io::Result<Option<Child>> {
        if let Some(child) = self.leading.pop_front() {
            return Ok(Some(child));
        }
        let Some(record) = self.below.pop()? else { return Ok(None) };
        let (numbers, name) = record.split_at_checked(24).ok_or(io::ErrorKind::InvalidData)?;
        let mut numbers = numbers.as_chunks().0.iter().map(|n| u64::from_le_bytes(*n));
        let mut number = || numbers.next().unwrap_or_default();
        let identity = (number(), number());
        Ok(Some(Child { name: name.to_vec(), identity, parts: None, device: number() }))
    }
}

/// A folder seen among its siblings, to be gone into after them.
struct Child {
    name: Vec<u8>,
    identity: (u64, u64),
    parts: Option<Parts>,
    device: u64,
}

/// One walk over the roots.
pub struct Walk<'a> {
    options: &'a WalkOptions,
    out: Outbox,
    path: Vec<u8>,
}

impl<'a> Walk<'a> {
    /// Walks all roots in the tree's key order and tells the visitor what there is. The walk is on a thread of its own,
    /// a little ahead; the visitor is called on this one.
    ///
    /// # Errors
    /// The visitor's.
    pub fn run<V: Visitor>(
        roots: &Roots,
        options: &'a WalkOptions,
        visitor: &mut V,
    ) -> Result<(), V::Error> {
        std::thread::scope(|scope| {
            let (out, inbox) = ahead::channel();
            let walk = Self { options, out, path: Vec::new() };
            scope.spawn(move || walk.all(roots));
            inbox.tell(options, visitor)
        })
    }

    fn all(mut self, roots: &Roots) {
        let opened = open_folder(rustix::fs::CWD, b"/", OFlags::empty());
        let top = opened.and_then(|handle| self.enter(handle, Some(roots.parts()), 0));
        match top {
            Ok(top) => self.descend(top),
            Err(errno) => self.except(refused(b"", errno)),
        }
        self.out.flush();
    }

    /// Depth first, without recursion: depth is somebody else's choice.
    fn descend(&mut self, top: Folder) {
        let mut stack = vec![top];
        while let Some(mut folder) = stack.pop()
            && !self.out.is_gone()
        {
            self.path.truncate(folder.path_length);
            if let Some(name) = self.told(folder.names.next()) {
                push(&mut self.path, &name);
                if let Some(child) = self.visit_in(&mut folder, name) {
                    folder.go_later(child);
                }
                stack.push(folder);
            } else if let Some(child) = self.told(folder.next_below()) {
                push(&mut self.path, &child.name);
                let below = self.open_child(&folder, child);
                stack.push(folder);
                stack.extend(below);
                let deep = stack.len().checked_sub(OPEN_FOLDERS + 1);
                if let Some(old) = deep.and_then(|at| stack.get_mut(at)) {
                    old.handle = None;
                }
            } else {
                reopen_parent(&mut stack, &folder);
            }
        }
    }

    /// What is next of a folder; that the rest of it is lost is told.
    fn told<T>(&mut self, next: io::Result<Option<T>>) -> Option<T> {
        next.unwrap_or_else(|error| {
            let detail = format_args!(
                "its list in a temporary file cannot be read back ({error}): the rest of this folder is missing; check the disk that temporary files are on"
            );
            self.except(exception(&self.path, ExceptionKind::Unreadable, detail));
            None
        })
    }

    fn visit_in(&mut self, folder: &mut Folder, name: Vec<u8>) -> Option<Child> {
        let Some(handle) = folder.handle.clone() else {
            self.lost_folder();
            return None;
        };
        let device = folder.device;
        match folder.parts.as_mut().and_then(|parts| parts.remove(&name)) {
            // Above a root: named by a person, so links on the way are theirs to follow.
            Some(parts) if !parts.is_leaf() => self.visit_parent(handle.as_fd(), name, parts),
            Some(_) => self.visit(&handle, &name, None),
            None => self.visit(&handle, &name, Some(device)),
        }
    }

    fn lost_folder(&mut self) {
        let detail = "its folder was moved while it was walked";
        self.except(exception(&self.path, ExceptionKind::Vanished, detail));
    }

    fn open_child(&mut self, folder: &Folder, child: Child) -> Option<Folder> {
        let Some(parent) = &folder.handle else {
            self.lost_folder();
            return None;
        };
        let follow = if child.parts.is_some() { OFlags::empty() } else { OFlags::NOFOLLOW };
        let opened = open_folder(parent.as_fd(), &child.name, follow).and_then(|handle| {
            let raw = fstat(&handle)?;
            let same = (raw.st_dev, raw.st_ino) == child.identity;
            if same { Ok(handle) } else { Err(Errno::STALE) }
        });
        match opened.and_then(|handle| self.enter(handle, child.parts, child.device)) {
            Ok(folder) => Some(folder),
            Err(errno) => {
                self.except(refused(&self.path, errno));
                None
            }
        }
    }

    /// A folder on the way to a root: its metadata is kept, of its content only what leads there.
    fn visit_parent(
        &mut self,
        parent: BorrowedFd<'_>,
        name: Vec<u8>,
        parts: Parts,
    ) -> Option<Child> {
        let opened = open_folder(parent, &name, OFlags::empty())
            .and_then(|handle| Ok((Stat::from_raw(&fstat(&handle)?).ok_or(Errno::INVAL)?, handle)));
        match opened {
            Ok((stat, handle)) => {
                self.tell_folder(handle.as_fd());
                let identity = stat.identity();
                Some(Child { name, identity, parts: Some(parts), device: stat.dev })
            }
            Err(errno) => {
                self.except(refused(&self.path, errno));
                None
            }
        }
    }

    /// One entry; a folder to go into is given back. `device`: of the root above, `None` for a root.
    fn visit(&mut self, parent: &Arc<OwnedFd>, name: &[u8], device: Option<u64>) -> Option<Child> {
        if device.is_some() && self.options.excludes.patterns.matches(&self.path) {
            self.exclude(Excluded::Pattern);
            return None;
        }
        let stat = match stat_of(parent.as_fd(), name) {
            Ok(stat) => stat?,
            Err(errno) => {
                self.except(refused(&self.path, errno));
                return None;
            }
        };
        match stat.kind {
            Kind::File => {
                let (path, name_at) = (self.path.clone(), self.path.len() - name.len());
                self.out.push(Event::File { folder: parent.clone(), path, name_at, stat });
                None
            }
            Kind::Directory => self.visit_folder(parent.as_fd(), name, &stat, device),
            Kind::Symlink
            | Kind::Fifo
            | Kind::Socket
            | Kind::CharDevice { .. }
            | Kind::BlockDevice { .. } => {
                self.visit_other(parent.as_fd(), name);
                None
            }
        }
    }

    fn visit_folder(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
        device: Option<u64>,
    ) -> Option<Child> {
        if self.options.excludes.agent_home == Some(stat.identity()) {
            self.exclude(Excluded::AgentHome);
            return None;
        }
        let handle = match open_folder(parent, name, OFlags::NOFOLLOW) {
            Ok(handle) => handle,
            Err(errno) => {
                // The folder itself is kept, so that its place and rights come back.
                self.except(refused(&self.path, errno));
                self.tell(stat.clone(), (Vec::new(), false), None);
                return None;
            }
        };
        let stat = match stat_of_handle(handle.as_fd()) {
            Ok(stat) => stat,
            Err(errno) => {
                self.except(refused(&self.path, errno));
                return None;
            }
        };
        self.tell_folder(handle.as_fd());
        if let Some(why) = device.and_then(|device| self.reason_to_stay_out(&handle, &stat, device))
        {
            self.exclude(why);
            return None;
        }
        let device = device.unwrap_or(stat.dev);
        Some(Child { name: name.to_vec(), identity: stat.identity(), parts: None, device })
    }

    fn reason_to_stay_out(&self, handle: &OwnedFd, stat: &Stat, device: u64) -> Option<Excluded> {
        if let Some(name) = virtual_by_path(&self.path) {
            return Some(Excluded::Virtual(name));
        }
        if stat.dev == device {
            return None;
        }
        let magic = fstatfs(handle).map_or(0, |fs| fs.f_type);
        if let Some(name) = virtual_by_magic(magic) {
            return Some(Excluded::Virtual(name));
        }
        self.options.excludes.one_file_system.then_some(Excluded::OtherFileSystem)
    }

    fn visit_other(&mut self, parent: BorrowedFd<'_>, name: &[u8]) {
        // A handle that cannot read pins the inode: stat, target and xattrs are of one and the same.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let read = openat(parent, name, flags, Mode::empty()).and_then(|handle| {
            let stat = Stat::from_raw(&fstat(&handle)?).ok_or(Errno::INVAL)?;
            let target = match stat.kind {
                Kind::Symlink => Some(readlinkat(&handle, "", Vec::new())?.into_bytes()),
                _ => None,
            };
            Ok((stat, target, xattr::read_by_path_handle(&handle)))
        });
        match read {
            Ok((stat, _, _)) if matches!(stat.kind, Kind::File | Kind::Directory) => {
                let swapped = "it became another kind of entry while it was looked at";
                let swapped = exception(&self.path, ExceptionKind::ChangedWhileRead, swapped);
                self.except(swapped);
            }
            Ok((stat, target, xattrs)) => {
                let xattrs = self.xattrs(xattrs);
                self.tell(stat, xattrs, target);
            }
            Err(errno) => self.except(refused(&self.path, errno)),
        }
    }

    fn except(&mut self, exception: RunException) {
        self.out.push(Event::Exception(exception));
    }

    fn exclude(&mut self, why: Excluded) {
        self.out.push(Event::Excluded(self.path.clone(), why));
    }

    fn tell_folder(&mut self, handle: BorrowedFd<'_>) {
        match stat_of_handle(handle) {
            Ok(stat) => {
                let xattrs = self.xattrs(xattr::read_most(handle));
                self.tell(stat, xattrs, None);
            }
            Err(errno) => self.except(refused(&self.path, errno)),
        }
    }

    fn tell(&mut self, stat: Stat, xattrs: (Xattrs, bool), target: Option<Vec<u8>>) {
        let found = found(self.options, self.path.clone(), stat, xattrs, target);
        self.out.push(Event::Entry(found));
    }

    fn enter(
        &mut self,
        handle: OwnedFd,
        parts: Option<Parts>,
        device: u64,
    ) -> Result<Folder, Errno> {
        let raw = fstat(&handle)?;
        // A root that is the whole file system has no parts left to lead to.
        let parts = parts.filter(|parts| !parts.is_leaf());
        let device = if device == 0 { raw.st_dev } else { device };
        let names = match &parts {
            Some(parts) => Listing::of(parts.names().iter().map(Vec::as_slice)),
            None => self.list(&handle)?,
        };
        Ok(Folder {
            handle: Some(Arc::new(handle)),
            identity: (raw.st_dev, raw.st_ino),
            names,
            leading: VecDeque::new(),
            below: Later::default(),
            path_length: self.path.len(),
            parts,
            device,
        })
    }

    fn list(&mut self, handle: &OwnedFd) -> Result<Listing, Errno> {
        let (names, has_tag) = read_names(handle)?;
        if self.options.excludes.caches && has_tag && is_tagged_cache(handle.as_fd()) {
            self.exclude(Excluded::Cache);
            return Ok(Listing::of([CACHE_TAG]));
        }
        Ok(names)
    }

    /// The attributes, and whether some are missing.
    fn xattrs(&mut self, read: xattr::Most) -> (Xattrs, bool) {
        xattr::told(&self.path, read, |told| self.out.push(Event::Exception(told)))
    }
}

/// An entry with the names of its owners.
pub(super) fn found(
    options: &WalkOptions,
    path: Vec<u8>,
    stat: Stat,
    (xattrs, incomplete): (Xattrs, bool),
    link_target: Option<Vec<u8>>,
) -> Found {
    let user = options.names.user(stat.uid).map(str::to_owned);
    let group = options.names.group(stat.gid).map(str::to_owned);
    let meta = Meta { stat, user, group, link_target, xattrs, incomplete };
    Found { path, meta }
}

/// `..` is no link; that it is still the folder we came from is checked by its identity.
fn reopen_parent(stack: &mut [Folder], done: &Folder) {
    let Some(parent) = stack.last_mut().filter(|parent| parent.handle.is_none()) else {
        return;
    };
    let Some(here) = &done.handle else { return };
    let Ok(handle) = open_folder(here.as_fd(), b"..", OFlags::NOFOLLOW) else { return };
    let same = fstat(&handle).is_ok_and(|raw| (raw.st_dev, raw.st_ino) == parent.identity);
    parent.handle = same.then(|| Arc::new(handle));
}

fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

fn stat_of(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>, Errno> {
    // NO_AUTOMOUNT: a backup must not mount what nobody uses.
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    statat(parent, name, flags).map(|raw| Stat::from_raw(&raw))
}

fn stat_of_handle(handle: BorrowedFd<'_>) -> Result<Stat, Errno> {
    Stat::from_raw(&fstat(handle)?).ok_or(Errno::INVAL)
}

/// Opens without touching the access time where that is allowed (owner or privileged).
fn open_quietly(parent: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
    match openat(parent, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(parent, name, flags, Mode::empty()),
        other => other,
    }
}

fn open_folder(parent: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    open_quietly(parent, name, flags | OFlags::DIRECTORY)
}

/// `NONBLOCK`: should a FIFO have taken the file's place since it was looked at, open returns at once.
pub(super) fn open_file(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(File, Stat), Errno> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let handle = match open_quietly(parent, name, flags) {
        Err(Errno::AGAIN) => open_leased(parent, name)?,
        other => other?,
    };
    let stat = Stat::from_raw(&fstat(&handle)?).ok_or(Errno::INVAL)?;
    // What was swapped in is gone as the file we listed: vanished, not read.
    if stat.kind == Kind::File { Ok((File::from(handle), stat)) } else { Err(Errno::STALE) }
}

/// Somebody holds a lease on the file: an open that may block waits until it is given back. What is pinned
/// and looked at first is a regular file, so nothing else can make it wait.
fn open_leased(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pinned = openat(parent, name, flags, Mode::empty())?;
    if stat_of_handle(pinned.as_fd())?.kind != Kind::File {
        return Err(Errno::STALE);
    }
    let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    open_quietly(rustix::fs::CWD, path.as_bytes(), OFlags::NOCTTY)
}

/// The names in a folder, and whether [`CACHE_TAG`] is one.
fn read_names(handle: &OwnedFd) -> Result<(Listing, bool), Errno> {
    let (mut names, mut has_tag) = (Lister::default(), false);
    // A duplicate of our own quiet handle: opening "." anew would touch the access time.
    for entry in Dir::new(rustix::io::fcntl_dupfd_cloexec(handle, 3)?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && !name.is_empty() {
            has_tag |= name == CACHE_TAG;
            names.push(name);
        }
    }
    Ok((names.sorted(), has_tag))
}

fn is_tagged_cache(folder: BorrowedFd<'_>) -> bool {
    let Ok((file, _)) = open_file(folder, CACHE_TAG) else { return false };
    let mut head = [0; CACHE_SIGNATURE.len()];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut head, 0).is_ok()
        && head == CACHE_SIGNATURE
}

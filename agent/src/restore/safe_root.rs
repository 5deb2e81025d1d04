//! The only door to the file system for a restore: every path operation is beneath one folder handle.
//!
//! Names come from a snapshot and are hostile input. Invariant: no operation here follows a link or
//! reaches outside the target, whatever a name says and whoever swaps entries meanwhile. Folders are
//! reached by `openat2` (`RESOLVE_BENEATH | NO_SYMLINKS | NO_MAGICLINKS`; where the kernel lacks it, by
//! one `O_NOFOLLOW` step per component), everything else is one component beside a folder handle.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{
        AtFlags, Dev, FileType, Mode, OFlags, RenameFlags, ResolveFlags, fstat, linkat, mkdirat,
        mknodat, openat, openat2, renameat, renameat_with, statat, symlinkat, unlinkat,
    },
    io::Errno,
};

use crate::sources::{Kind, Stat};

/// Why an operation did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `..`, `.`, empty, with a slash or a NUL: no name of anything inside a folder.
    #[error("the name would leave the target or is no name at all")]
    HostileName,
    /// A link or a file stands where a folder must be; links are never followed.
    #[error("a link or a file stands where a folder must be")]
    NotAFolder,
    #[error("{}", io::Error::from(*.0))]
    System(Errno),
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::LOOP | Errno::NOTDIR | Errno::XDEV => Self::NotAFolder,
            errno => Self::System(errno),
        }
    }
}

impl Refused {
    pub fn is_not_found(self) -> bool {
        self == Self::System(Errno::NOENT)
    }
}

type Result<T> = std::result::Result<T, Refused>;

/// Whether an existing entry of that name gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// The name must be free.
    Never,
    /// A file, link or device gives way; a folder never does.
    Existing,
}

/// The target of a restore.
#[derive(Debug)]
pub struct SafeRoot {
    top: OwnedFd,
    /// False once the kernel said it has no `openat2`.
    has_openat2: AtomicBool,
}

/// A folder somewhere beneath the target (or the target itself).
#[derive(Debug)]
pub struct Folder(OwnedFd);

/// One path component, checked.
#[derive(Debug, Clone, Copy)]
struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    fn check(name: &'a [u8]) -> Result<Self> {
        let hostile =
            matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, 0 | b'/'));
        if hostile { Err(Refused::HostileName) } else { Ok(Self(name)) }
    }
}

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// `openat2` takes paths up to 4 KiB; longer ones go in several steps.
const STEP: usize = 2048;

impl SafeRoot {
    /// Opens the target, making it when it is missing. The target's own path is the user's word and may
    /// go through links.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(target: &Path) -> io::Result<Self> {
        faults::point("restore: make target")?;
        std::fs::create_dir_all(target)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::open(target, flags, Mode::empty())?;
        Ok(Self { top, has_openat2: AtomicBool::new(true) })
    }

    /// An existing folder. The empty path is the target itself.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn folder(&self, path: &[u8]) -> Result<Folder> {
        let mut at = open_step(self.top.as_fd(), b".")?;
        for group in groups(path)? {
            at = self.beneath(at.as_fd(), group)?;
        }
        Ok(Folder(at))
    }

    /// A folder and all above it, made (0700) where missing. Tells each made one's path length.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn make_folders(&self, path: &[u8]) -> Result<Folder> {
        match self.folder(path) {
            Err(refused) if refused.is_not_found() => {}
            other => return other,
        }
        let mut at = Folder(open_step(self.top.as_fd(), b".")?);
        for name in path.split(|byte| *byte == b'/').filter(|_| !path.is_empty()) {
            at = at.make_folder(name)?;
        }
        Ok(at)
    }

    fn beneath(&self, at: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
        if self.has_openat2.load(Ordering::Relaxed) {
            let resolve =
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            match openat2(at, path, FOLDER, Mode::empty(), resolve) {
                // Old kernels, and sandboxes that do not know the call.
                Err(Errno::NOSYS | Errno::PERM) => self.has_openat2.store(false, Ordering::Relaxed),
                // A rename raced with the resolution: once more, then give up with the error.
                Err(Errno::AGAIN) => {
                    return Ok(openat2(at, path, FOLDER, Mode::empty(), resolve)?);
                }
                other => return Ok(other?),
            }
        }
        step_by_step(at, path)
    }
}

/// Without `openat2`: one component at a time, none of them through a link. Components were checked.
fn step_by_step(at: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let mut at = open_step(at, b".")?;
    for name in path.split(|byte| *byte == b'/') {
        at = open_step(at.as_fd(), name)?;
    }
    Ok(at)
}

fn open_step(at: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    Ok(openat(at, name, FOLDER, Mode::empty())?)
}

/// Cuts a path into pieces the kernel takes, checking every component.
fn groups(path: &[u8]) -> Result<Vec<&[u8]>> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let (mut found, mut start, mut end) = (Vec::new(), 0, 0);
    for name in path.split(|byte| *byte == b'/') {
        Name::check(name)?;
        let next = if end == start { start + name.len() } else { end + 1 + name.len() };
        if next - start > STEP && end > start {
            found.extend(path.get(start..end));
            start = end + 1;
            end = start + name.len();
        } else {
            end = next;
        }
    }
    found.extend(path.get(start..end));
    Ok(found)
}

impl Folder {
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The folder `name`, made (0700) when missing.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn make_folder(&self, name: &[u8]) -> Result<Self> {
        let name = Name::check(name)?;
        point("restore: make folder")?;
        match mkdirat(&self.0, name.0, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(Self(open_step(self.0.as_fd(), name.0)?))
    }

    /// Makes the folder `name` (0700); `false` when something of that name is there.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn add_folder(&self, name: &[u8]) -> Result<bool> {
        let name = Name::check(name)?;
        point("restore: make folder")?;
        match mkdirat(&self.0, name.0, Mode::from_raw_mode(0o700)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What `name` is; `None` when there is nothing of that name.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn stat(&self, name: &[u8]) -> Result<Option<Stat>> {
        let name = Name::check(name)?;
        match statat(&self.0, name.0, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(raw) => Ok(Stat::from_raw(&raw)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// A new file of our own (0600), never an existing one.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn create_file(&self, name: &[u8]) -> Result<File> {
        let name = Name::check(name)?;
        point("restore: create file")?;
        let flags = OFlags::RDWR
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC
            | OFlags::NOCTTY;
        Ok(File::from(openat(&self.0, name.0, flags, Mode::from_raw_mode(0o600))?))
    }

    /// An existing regular file, for reading and comparing, or (`writable`) to go on writing it.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn open_file(&self, name: &[u8], access: Access) -> Result<File> {
        let name = Name::check(name)?;
        let access = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
        };
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let handle = openat(&self.0, name.0, flags, Mode::empty())?;
        let stat = Stat::from_raw(&fstat(&handle)?);
        if stat.is_some_and(|stat| stat.kind == Kind::File) {
            Ok(File::from(handle))
        } else {
            Err(Refused::System(Errno::INVAL))
        }
    }

    /// A handle that pins whatever `name` is, without reading or following it.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn pin(&self, name: &[u8]) -> Result<OwnedFd> {
        let name = Name::check(name)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.0, name.0, flags, Mode::empty())?)
    }

    /// A link with this very text as its target; nothing is resolved.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn symlink(&self, target: &[u8], name: &[u8]) -> Result<()> {
        let name = Name::check(name)?;
        if target.is_empty() || target.contains(&0) {
            return Err(Refused::HostileName);
        }
        point("restore: make link")?;
        Ok(symlinkat(target, &self.0, name.0)?)
    }

    /// A FIFO, socket or device (0600 until its mode is set).
    ///
    /// # Errors
    /// See [`Refused`]; anything that is none of the four is `EINVAL`.
    pub fn make_node(&self, kind: Kind, name: &[u8]) -> Result<()> {
        let name = Name::check(name)?;
        let (file_type, rdev) = match kind {
            Kind::Fifo => (FileType::Fifo, 0),
            Kind::Socket => (FileType::Socket, 0),
            Kind::CharDevice { rdev } => (FileType::CharacterDevice, rdev),
            Kind::BlockDevice { rdev } => (FileType::BlockDevice, rdev),
            Kind::File | Kind::Directory | Kind::Symlink => {
                return Err(Refused::System(Errno::INVAL));
            }
        };
        let rdev: Dev = rdev;
        point("restore: make node")?;
        Ok(mknodat(&self.0, name.0, file_type, Mode::from_raw_mode(0o600), rdev)?)
    }

    /// A second name for `from_name` of another folder; never through a link.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn hard_link(&self, from: &Self, from_name: &[u8], name: &[u8]) -> Result<()> {
        let (from_name, name) = (Name::check(from_name)?, Name::check(name)?);
        point("restore: make hard link")?;
        Ok(linkat(&from.0, from_name.0, &self.0, name.0, AtFlags::empty())?)
    }

    /// Gives `from` its final name.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn rename(&self, from: &[u8], to: &[u8], replace: Replace) -> Result<()> {
        let (from, to) = (Name::check(from)?, Name::check(to)?);
        point("restore: rename")?;
        match replace {
            Replace::Existing => renameat(&self.0, from.0, &self.0, to.0)?,
            Replace::Never => {
                let exclusive =
                    renameat_with(&self.0, from.0, &self.0, to.0, RenameFlags::NOREPLACE);
                match exclusive {
                    // A file system without NOREPLACE: a link is as exclusive.
                    Err(Errno::INVAL) => {
                        linkat(&self.0, from.0, &self.0, to.0, AtFlags::empty())?;
                        unlinkat(&self.0, from.0, AtFlags::empty())?;
                    }
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// Removes a file, link or device; never a folder.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn remove(&self, name: &[u8]) -> Result<()> {
        let name = Name::check(name)?;
        point("restore: remove")?;
        Ok(unlinkat(&self.0, name.0, AtFlags::empty())?)
    }
}

/// A fault point, with errors as the system's own.
pub(super) fn point(name: &'static str) -> std::result::Result<(), Errno> {
    faults::point(name).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// For what a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// Folder and last component of a path.
///
/// # Errors
/// [`Refused::HostileName`] when there is no last component.
pub fn split(path: &[u8]) -> Result<(&[u8], &[u8])> {
    let at = path.iter().rposition(|byte| *byte == b'/');
    let (folder, name) = match at {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (&b""[..], path),
    };
    Name::check(name)?;
    if at == Some(0) {
        // An absolute path has no business in a snapshot.
        return Err(Refused::HostileName);
    }
    Ok((folder, name))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use proptest::prelude::*;

    use super::*;

    struct Place {
        _dir: tempfile::TempDir,
        outside: std::path::PathBuf,
        root: SafeRoot,
    }

    /// A target with a sentinel beside it.
    fn place() -> Place {
        let dir = tempfile::tempdir().expect("tempdir");
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).expect("outside");
        fs::write(outside.join("sentinel"), b"untouched").expect("sentinel");
        let root = SafeRoot::create(&dir.path().join("target")).expect("target");
        Place { outside, root, _dir: dir }
    }

    impl Place {
        fn assert_untouched(&self) {
            let names: Vec<_> = fs::read_dir(&self.outside).expect("list").collect();
            assert_eq!(names.len(), 1);
            assert_eq!(fs::read(self.outside.join("sentinel")).expect("read"), b"untouched");
        }
        fn target(&self) -> std::path::PathBuf {
            self.outside.with_file_name("target")
        }
    }

    #[test]
    fn hostile_names_are_refused_by_every_operation() {
        let place = place();
        let top = place.root.folder(b"").expect("top");
        for name in [&b""[..], b".", b"..", b"a/b", b"/a", b"a\0b", b"../outside/x"] {
            let hostile = Some(Refused::HostileName);
            assert_eq!(top.make_folder(name).err(), hostile);
            assert_eq!(top.create_file(name).err(), hostile);
            assert_eq!(top.stat(name).err(), hostile);
            assert_eq!(top.open_file(name, Access::Write).err(), hostile);
            assert_eq!(top.pin(name).err(), hostile);
            assert_eq!(top.symlink(b"t", name).err(), hostile);
            assert_eq!(top.make_node(Kind::Fifo, name).err(), hostile);
            assert_eq!(top.hard_link(&top, name, b"ok").err(), hostile);
            assert_eq!(top.hard_link(&top, b"ok", name).err(), hostile);
            assert_eq!(top.rename(name, b"ok", Replace::Existing).err(), hostile);
            assert_eq!(top.rename(b"ok", name, Replace::Never).err(), hostile);
            assert_eq!(top.remove(name).err(), hostile);
        }
        for path in [&b"../outside"[..], b"a/../../outside", b"/etc", b"a//b", b"a/./b", b"a/"] {
            assert_eq!(place.root.make_folders(path).err(), Some(Refused::HostileName));
        }
        place.assert_untouched();
    }

    #[test]
    fn a_link_in_the_middle_is_not_followed() {
        let place = place();
        symlink(&place.outside, place.target().join("door")).expect("link");
        fs::create_dir(place.target().join("a")).expect("dir");
        symlink("../../outside", place.target().join("a/door")).expect("link");
        for path in [&b"door"[..], b"door/x", b"a/door", b"a/door/y"] {
            assert_eq!(place.root.folder(path).err(), Some(Refused::NotAFolder));
            assert_eq!(place.root.make_folders(path).err(), Some(Refused::NotAFolder));
        }
        place.assert_untouched();
    }

    #[test]
    fn a_link_swapped_in_after_the_folder_was_opened_changes_nothing() {
        let place = place();
        let folder = place.root.make_folders(b"victim").expect("folder");
        fs::rename(place.target().join("victim"), place.target().join("moved")).expect("move");
        symlink(&place.outside, place.target().join("victim")).expect("swap");
        folder.create_file(b"sentinel").expect("goes where the handle is");
        place.assert_untouched();
        assert!(place.target().join("moved/sentinel").exists());
    }

    #[test]
    fn a_link_in_place_of_a_file_is_neither_opened_nor_written_through() {
        let place = place();
        symlink(place.outside.join("sentinel"), place.target().join("file")).expect("link");
        let top = place.root.folder(b"").expect("top");
        assert!(top.open_file(b"file", Access::Write).is_err());
        assert!(top.create_file(b"file").is_err());
        top.create_file(b"temp").expect("temp");
        top.rename(b"temp", b"file", Replace::Existing).expect("the link itself is replaced");
        place.assert_untouched();
        let meta = fs::symlink_metadata(place.target().join("file")).expect("stat");
        assert!(meta.is_file());
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn without_openat2_the_same_holds() {
        let place = place();
        place.root.has_openat2.store(false, Ordering::Relaxed);
        symlink(&place.outside, place.target().join("door")).expect("link");
        assert_eq!(place.root.folder(b"door/x").err(), Some(Refused::NotAFolder));
        place.root.make_folders(b"a/b/c").expect("folders");
        assert!(place.target().join("a/b/c").is_dir());
        place.assert_untouched();
    }

    #[test]
    fn never_replacing_means_never() {
        let place = place();
        let top = place.root.folder(b"").expect("top");
        fs::write(place.target().join("kept"), b"mine").expect("write");
        top.create_file(b"temp").expect("temp");
        let refused = top.rename(b"temp", b"kept", Replace::Never).err();
        assert_eq!(refused, Some(Refused::System(Errno::EXIST)));
        assert_eq!(fs::read(place.target().join("kept")).expect("read"), b"mine");
    }

    #[test]
    fn paths_longer_than_the_kernel_takes_are_walked_in_steps() {
        let place = place();
        let path = vec![&b"a_long_folder_name_to_get_there_soon"[..]; 200].join(&b'/');
        assert!(path.len() > 4096);
        let folder = place.root.make_folders(&path).expect("deep");
        folder.create_file(b"file").expect("file");
        let again = place.root.folder(&path).expect("found again");
        assert!(again.stat(b"file").expect("stat").is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_path_whatsoever_leaves_the_target(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just(b"..".to_vec()), Just(b".".to_vec()), Just(Vec::new()), Just(b"door".to_vec()),
                    Just(b"up".to_vec()), Just(b"a".to_vec()), proptest::collection::vec(any::<u8>(), 0..5),
                ],
                0..6,
            )
        ) {
            let place = place();
            symlink(&place.outside, place.target().join("door")).expect("link");
            symlink("..", place.target().join("up")).expect("link");
            let path = parts.join(&b'/');
            if let Ok(folder) = place.root.make_folders(&path) {
                let _ = folder.create_file(b"made");
            }
            if let Ok((folder, name)) = split(&path)
                && let Ok(folder) = place.root.make_folders(folder)
            {
                let _ = folder.create_file(name);
                let _ = folder.symlink(b"../..", name);
            }
            place.assert_untouched();
        }
    }
}

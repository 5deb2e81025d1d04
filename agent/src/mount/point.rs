//! The place in the machine's tree: whether it can be mounted on, what a dead mount left there, and unmounting.
//!
//! Invariant: only what this program mounted is ever taken away.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::{
    io::Errno,
    mount::{UnmountFlags, unmount as system_unmount},
};

/// What our mounts call themselves in the system's list.
pub const SOURCE: &str = "everhold";
const DEVICE: &str = "/dev/fuse";

/// The folder cannot be mounted on.
#[derive(Debug, thiserror::Error)]
pub enum PointError {
    #[error(
        "{DEVICE} is missing: load the module (modprobe fuse), or give the container the device \
         (--device {DEVICE} --cap-add SYS_ADMIN). Without mounting: everhold-agent ls, find, restore"
    )]
    NoDevice,
    #[error(
        "{DEVICE} cannot be opened ({0}): run as root or ask for access to it. Without mounting: everhold-agent ls, \
         find, restore"
    )]
    Device(#[source] io::Error),
    #[error("{0} does not exist: mkdir {0}")]
    Missing(PathBuf),
    #[error("{0} is no folder")]
    NotAFolder(PathBuf),
    #[error("{0} is not empty: what is in it would be hidden; choose an empty folder")]
    NotEmpty(PathBuf),
    #[error("{0} has snapshots mounted already: end that agent, or umount {0}")]
    Mounted(PathBuf),
    #[error("{0} is a dead mount of another program: umount -l {0}, then try again")]
    Dead(PathBuf),
    #[error(
        "{0} has a dead mount of a killed agent that cannot be taken away ({1}): umount -l {0}"
    )]
    Stuck(PathBuf, #[source] io::Error),
    #[error("{0} cannot be looked at: {1}")]
    Unreadable(PathBuf, #[source] io::Error),
}

/// A folder to mount on.
#[derive(Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Without links.
    pub path: PathBuf,
    /// A mount of a killed agent was taken away.
    pub cleaned: bool,
}

/// Checks everything that can be known before, and takes a dead mount of ours away.
///
/// # Errors
/// See [`PointError`].
pub fn prepare(folder: &Path) -> Result<Prepared, PointError> {
    match OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(_) => {}
        Err(error) if is_any(&error, &[Errno::NOENT, Errno::NXIO, Errno::NODEV]) => {
            return Err(PointError::NoDevice);
        }
        Err(error) => return Err(PointError::Device(error)),
    }
    let shown = folder.to_path_buf();
    let path = resolve(folder)?;
    let mut cleaned = false;
    let mut found = look(&path);
    // A killed agent may have been followed by another killed one.
    while found.as_ref().is_err_and(|error| is_any(error, &[Errno::NOTCONN, Errno::CONNABORTED])) {
        if !is_ours(&path) {
            return Err(PointError::Dead(path));
        }
        unmount(&path, true).map_err(|error| PointError::Stuck(path.clone(), error))?;
        cleaned = true;
        found = look(&path);
    }
    let mut entries = found.map_err(|error| match error.kind() {
        io::ErrorKind::NotADirectory => PointError::NotAFolder(shown),
        io::ErrorKind::NotFound => PointError::Missing(shown),
        _ => PointError::Unreadable(shown, error),
    })?;
    if is_ours(&path) {
        return Err(PointError::Mounted(path));
    }
    if entries.next().is_some() {
        return Err(PointError::NotEmpty(path));
    }
    Ok(Prepared { path, cleaned })
}

/// Opens the folder: attributes of a dead mount may still be answered by the kernel's memory.
fn look(path: &Path) -> io::Result<fs::ReadDir> {
    fs::read_dir(path)
}

fn is_any(error: &io::Error, numbers: &[Errno]) -> bool {
    let number = error.raw_os_error();
    numbers.iter().any(|wanted| number == Some(wanted.raw_os_error()))
}

/// The folder without links; its own name is not followed when it is dead.
fn resolve(folder: &Path) -> Result<PathBuf, PointError> {
    let unreadable = |error| PointError::Unreadable(folder.to_path_buf(), error);
    match fs::canonicalize(folder) {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(PointError::Missing(folder.to_path_buf()))
        }
        Err(_) => {
            let path = std::path::absolute(folder).map_err(unreadable)?;
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Ok(path);
            };
            Ok(fs::canonicalize(parent).map_err(unreadable)?.join(name))
        }
    }
}

/// Whether the topmost mount there is one of this program.
fn is_ours(path: &Path) -> bool {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    topmost(&mounts, path).is_some_and(|(kind, source)| {
        (kind == "fuse" || kind.starts_with("fuse.")) && source == SOURCE
    })
}

/// File system and source of the last mount at `path` in the text of mountinfo.
fn topmost(mounts: &[u8], path: &Path) -> Option<(String, String)> {
    let mut found = None;
    for line in mounts.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-");
        let (Some(point), Some(dash)) = (fields.get(4), dash) else { continue };
        if unescaped(point).as_bytes() != path.as_os_str().as_bytes() {
            continue;
        }
        let text = |at: usize| {
            let field = fields.get(at).copied().unwrap_or_default();
            unescaped(field).to_string_lossy().into_owned()
        };
        found = Some((text(dash + 1), text(dash + 2)));
    }
    found
}

/// `\040` and its like are blanks and their like.
fn unescaped(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if *first == b'\\' => {
                plain.push(code);
                rest = &after[3..];
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(plain)
}

/// Unmounts; `lazily`: also under those who still use it.
///
/// # Errors
/// What the system says; `fusermount` is asked where the system does not let us.
pub fn unmount(path: &Path, lazily: bool) -> io::Result<()> {
    let flags = if lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match system_unmount(path, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => by_helper(path, lazily),
        Err(error) => Err(error.into()),
    }
}

fn by_helper(path: &Path, lazily: bool) -> io::Result<()> {
    let mut last = io::Error::from(io::ErrorKind::PermissionDenied);
    for helper in ["fusermount3", "fusermount"] {
        let mut command = Command::new(helper);
        command.arg("-u").arg("-q");
        if lazily {
            command.arg("-z");
        }
        command.arg("--").arg(path).stdin(Stdio::null()).stderr(Stdio::null());
        match command.status() {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => last = io::Error::other(format!("{helper} ended with {status}")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_mount_of_a_point_is_found_and_blanks_are_read() {
        let text = b"25 1 0:2 / / rw - ext4 /dev/vda rw\n\
            80 25 0:50 / /mnt/a\\040b ro,nosuid - fuse sshfs rw,user_id=0\n\
            81 80 0:51 / /mnt/a\\040b ro,nosuid shared:1 - fuse everhold rw,user_id=0\n";
        let found = topmost(text, Path::new("/mnt/a b"));
        assert_eq!(found, Some(("fuse".to_owned(), "everhold".to_owned())));
        assert_eq!(topmost(text, Path::new("/mnt")), None);
    }

    #[test]
    fn what_cannot_be_mounted_on_is_told_with_what_to_do() {
        if !Path::new(DEVICE).exists()
            || OpenOptions::new().read(true).write(true).open(DEVICE).is_err()
        {
            assert!(matches!(
                prepare(Path::new("/")),
                Err(PointError::NoDevice | PointError::Device(_))
            ));
            return;
        }
        let dir = tempfile::tempdir().expect("tempdir");
        let missing = prepare(&dir.path().join("nothing")).expect_err("missing").to_string();
        assert!(missing.contains("mkdir"), "{missing}");
        fs::write(dir.path().join("file"), "x").expect("write");
        assert!(matches!(prepare(&dir.path().join("file")), Err(PointError::NotAFolder(_))));
        assert!(matches!(prepare(dir.path()), Err(PointError::NotEmpty(_))));
        fs::create_dir(dir.path().join("empty")).expect("mkdir");
        let path = fs::canonicalize(dir.path().join("empty")).expect("path");
        let prepared = prepare(&dir.path().join("empty")).expect("fine");
        assert_eq!(prepared, Prepared { path, cleaned: false });
    }
}

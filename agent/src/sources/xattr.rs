//! Extended attributes, ACLs among them (`system.posix_acl_*`), as raw name and value.
//!
//! Files and directories are asked by their handle. Everything else has only an `O_PATH` handle, which
//! xattr calls refuse; its `/proc/self/fd` name reaches the very same inode without a path race.

use std::os::fd::{AsFd, AsRawFd as _};

use domain::source::{ExceptionKind, RunException};
use rustix::{
    fs::{fgetxattr, flistxattr, getxattr, listxattr},
    io::Errno,
};

use super::exception;

/// Attributes sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The kernel's own limit for a value and for a list of names.
const MOST: usize = 64 * 1024;

/// What could be read, and why the rest could not.
pub type Most = (Xattrs, Option<Errno>);

/// The attributes, and whether some are missing, which `tell` is told.
pub fn told(path: &[u8], (read, failed): Most, tell: impl FnOnce(RunException)) -> (Xattrs, bool) {
    if let Some(errno) = failed {
        let detail = format!("extended attributes: {}", std::io::Error::from(errno));
        tell(exception(path, ExceptionKind::MetadataIncomplete, detail));
    }
    (read, failed.is_some())
}

/// All of an open file or directory.
pub fn read(handle: impl AsFd) -> Result<Xattrs, Errno> {
    match read_most(handle) {
        (found, None) => Ok(found),
        (_, Some(errno)) => Err(errno),
    }
}

/// Of an open file or directory.
pub fn read_most(handle: impl AsFd) -> Most {
    let handle = handle.as_fd();
    collect(|list| flistxattr(handle, list), |name, value| fgetxattr(handle, name, value))
}

/// Of anything held by an `O_PATH` handle.
pub fn read_by_path_handle(handle: impl AsFd) -> Most {
    let path = format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd());
    collect(
        |list| listxattr(path.as_str(), list),
        |name, value| getxattr(path.as_str(), name, value),
    )
}

fn collect(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> Most {
    let names = match with_room(&list) {
        Ok(names) => names,
        // A file system without attributes has none.
        Err(Errno::NOTSUP) => return (Vec::new(), None),
        Err(error) => return (Vec::new(), Some(error)),
    };
    let (mut found, mut failed) = (Vec::new(), None);
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match with_room(|value| get(name, value)) {
            Ok(value) => found.push((name.to_vec(), value)),
            // Gone between list and get, or listed but not offered (some file systems do).
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => failed = Some(error),
        }
    }
    found.sort_unstable();
    (found, failed)
}

/// Most lists and values are tiny; the kernel's maximum is asked for only when they are not.
fn with_room(fill: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0_u8; 512];
    match fill(&mut small) {
        Ok(length) => Ok(small.get(..length).unwrap_or_default().to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0_u8; MOST];
            let length = fill(&mut large)?;
            large.truncate(length);
            Ok(large)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_attribute_that_cannot_be_read_does_not_cost_the_others() {
        let list = |room: &mut [u8]| {
            let names = b"user.b\0user.bad\0user.a\0";
            room.get_mut(..names.len()).ok_or(Errno::RANGE)?.copy_from_slice(names);
            Ok(names.len())
        };
        let get = |name: &[u8], _: &mut [u8]| {
            if name == b"user.bad" { Err(Errno::IO) } else { Ok(0) }
        };
        let (found, failed) = collect(list, get);
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_slice()).collect();
        assert_eq!(names, [b"user.a", b"user.b"]);
        assert_eq!(failed, Some(Errno::IO));
    }
}

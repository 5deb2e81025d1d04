//! Folders for what need not outlive a test: in memory where there is room.
//!
//! A file system on a disk takes ever longer to create files after thousands were deleted, and the tests delete
//! thousands: two thirds of their CPU went there. What is about files as such belongs on a disk, and is not for here.

use std::{
    fs, io, os::unix::fs::DirBuilderExt as _, os::unix::fs::MetadataExt as _, path::Path,
    path::PathBuf,
};

use rustix::fs::statvfs;
use tempfile::TempDir;

const MEMORY: &str = "/dev/shm";
/// Bytes that make it worth while: a run takes a tenth of it.
const ROOM: u64 = 4 << 30;

/// A folder that goes when it is dropped.
pub fn scratch() -> TempDir {
    let has_room = |stat: &rustix::fs::StatVfs| stat.f_bavail * stat.f_frsize >= ROOM;
    let made = match statvfs(MEMORY) {
        Ok(stat) if has_room(&stat) => tempfile::tempdir_in(MEMORY),
        _ => tempfile::tempdir(),
    };
    made.expect("a folder for scratch")
}

/// The folder of this name in memory, ours alone; the same for every process of a run. `None` where memory is not for
/// files, or too small.
pub(crate) fn in_memory(name: &str) -> Option<PathBuf> {
    let stat = statvfs(MEMORY).ok()?;
    let dir = Path::new(MEMORY).join(name);
    // By its size, not by what is free: everybody must come to the same answer.
    if stat.f_blocks * stat.f_frsize < ROOM {
        return None;
    }
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return None,
        _ => {}
    }
    let meta = dir.symlink_metadata().ok()?;
    let is_ours = meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw();
    is_ours.then_some(dir)
}

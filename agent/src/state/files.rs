//! Private files, replaced whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// Makes a folder (and those above it) 0700; an existing one is narrowed to that.
pub fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let permissions = fs::metadata(path)?.permissions();
    if permissions.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Replaces `path` (0600): written beside it, synced, renamed, and the folder synced.
///
/// # Errors
/// What the system says; the old file is then still whole.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_beside(path, bytes, true)?;
    sync_parent(path)
}

/// The same for what is only a cache and is not believed without proof: nothing is forced onto the disk.
///
/// # Errors
/// What the system says; the old file is then still whole.
pub fn write_cached(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_beside(path, bytes, false)
}

fn write_beside(path: &Path, bytes: &[u8], lasting: bool) -> io::Result<()> {
    // Its own name: other processes of this home may be writing the same file.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}-{number}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let _ = fs::remove_file(&beside);
    let replaced = replace(&beside, path, bytes, lasting);
    if replaced.is_err() && faults::point("home: remove").is_ok() {
        let _ = fs::remove_file(&beside);
    }
    replaced
}

static WRITTEN: AtomicU64 = AtomicU64::new(0);

fn replace(beside: &Path, path: &Path, bytes: &[u8], lasting: bool) -> io::Result<()> {
    let [create, write, rename] = if lasting {
        ["home: create", "home: write", "home: rename"]
    } else {
        ["cache: create", "cache: write", "cache: rename"]
    };
    faults::point(create)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    faults::write_all(write, &mut file, bytes)?;
    if lasting {
        faults::point("home: fsync")?;
        file.sync_all()?;
    }
    faults::point(rename)?;
    fs::rename(beside, path)
}

/// Makes a new file (0600), never over an existing one.
///
/// # Errors
/// `AlreadyExists`, or what the system says.
pub fn create_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a kit is worse than none.
        let _ = fs::remove_file(path);
    }
    written?;
    sync_parent(path)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    faults::point("home: fsync of the folder")?;
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_writers_of_one_file_leave_one_whole_file() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("file");
        std::thread::scope(|scope| {
            for seed in 0..4_u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        write_private(path, &[seed; 4096]).expect("writes");
                    }
                });
            }
        });
        let bytes = fs::read(&path).expect("read");
        assert!(bytes.len() == 4096 && bytes.iter().all(|byte| Some(byte) == bytes.first()));
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }
}

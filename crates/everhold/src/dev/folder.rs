//! The state folder: looked at before anything is written, held by one process.
//!
//! It may hold other things; ours are `postgres/`, `store/`, `secrets/`, `lock`, `ports.json` and `dev.json`.

use std::{
    fs::File,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rustix::fs::FlockOperation;

/// A state folder this process holds until it is dropped.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    /// Never read: the lock ends with it, also when the process is killed.
    _lock: File,
}

/// The folder is held by another process.
#[derive(Debug, thiserror::Error)]
#[error("another `everhold dev` is using {0}; stop it, or choose another state folder")]
pub struct InUse(pub PathBuf);

impl StateFolder {
    /// Makes the folder if needed and takes it.
    pub fn take(path: &Path) -> anyhow::Result<Self> {
        if path.as_os_str().is_empty() {
            bail!("name a state folder");
        }
        if path.exists() && !path.is_dir() {
            bail!("the state folder {} is not a folder", path.display());
        }
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot make the state folder {}", path.display()))?;
        let path = path.canonicalize()?;
        let system =
            ["/", "/etc", "/usr", "/bin", "/lib", "/boot", "/dev", "/proc", "/sys", "/var"];
        if system.iter().any(|folder| path == Path::new(folder)) || path.starts_with("/proc") {
            bail!("{} is no place for a state folder", path.display());
        }
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .with_context(|| format!("the state folder {} is not writable", path.display()))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Err(InUse(path).into()),
            Err(error) => Err(error).context("the state folder cannot be locked"),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
    pub fn postgres(&self) -> PathBuf {
        self.path.join("postgres")
    }
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }
    pub fn secrets(&self) -> PathBuf {
        self.path.join("secrets")
    }
    /// Whether an earlier start left data that its secrets belong to.
    pub fn has_data(&self) -> bool {
        self.postgres().join("data").exists() || self.store().join("store.redb").exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_and_a_folder_with_other_things_is_accepted() {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::write(dir.path().join("notes.txt"), "mine").expect("file");
        let first = StateFolder::take(dir.path()).expect("free");
        let second = StateFolder::take(dir.path()).expect_err("held");
        assert!(second.to_string().contains("another `everhold dev`"));
        drop(first);
        StateFolder::take(dir.path()).expect("free again");
    }

    #[test]
    fn nonsense_is_refused_with_words() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("file");
        for path in
            [Path::new(""), &file, &file.join("below"), Path::new("/proc/self"), Path::new("/")]
        {
            assert!(StateFolder::take(path).is_err(), "{}", path.display());
        }
    }
}

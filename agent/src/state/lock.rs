//! One run per home: a lock the kernel releases with its holder, however that ends.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// Held as long as this lives.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

/// The lock is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum Busy {
    #[error(
        "another run of this agent is under way (process {holder}); wait for it, or stop it with: kill {holder}"
    )]
    Held { holder: String },
    #[error("the lock {path} cannot be used: {source}")]
    Io { path: String, source: io::Error },
}

pub fn acquire(path: &Path) -> Result<RunLock, Busy> {
    let io = |source| Busy::Io { path: path.display().to_string(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    faults::point("home: lock").map_err(io)?;
    let mut file = options.open(path).map_err(io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // For the message only; the lock itself is the kernel's.
            let told = file.set_len(0).and_then(|()| file.rewind());
            told.and_then(|()| write!(file, "{}", std::process::id())).map_err(io)?;
            Ok(RunLock { _file: file })
        }
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            if holder.is_empty() {
                holder.push('?');
            }
            Err(Busy::Held { holder })
        }
        Err(errno) => Err(io(errno.into())),
    }
}

//! Reads `postmaster.pid`, which outlives a killed server.
//!
//! A pid in a file says nothing by itself: after a crash or a reboot it may belong to any program. It counts
//! only if that process is a PostgreSQL server of this very data folder.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// What a running (or killed) server wrote down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postmaster {
    pub pid: i32,
    /// Empty while the server is starting.
    pub socket: PathBuf,
}

impl Postmaster {
    pub fn read(data: &Path) -> anyhow::Result<Option<Self>> {
        match std::fs::read_to_string(data.join("postmaster.pid")) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("cannot read postmaster.pid"),
        }
    }

    /// Lines: pid, data folder, start time, port, socket folder, listen address, shared memory, status.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        let socket = lines.nth(3).unwrap_or_default().trim().into();
        Some(Self { pid, socket })
    }

    /// Whether the process exists and is a server of `data`.
    pub fn serves(&self, data: &Path) -> bool {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid) else { return false };
        if rustix::process::test_kill_process(pid).is_err() {
            return false;
        }
        let proc = PathBuf::from(format!("/proc/{}", self.pid));
        if !proc.exists() {
            // No /proc (macOS): the pid lives, and PostgreSQL itself judges the rest.
            return !Path::new("/proc/self").exists();
        }
        // The server's working folder is its data folder; a zombie has none.
        match std::fs::read_link(proc.join("cwd")) {
            Ok(cwd) => data.canonicalize().is_ok_and(|data| data == cwd),
            Err(_) => false,
        }
    }
}

pub fn remove(data: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(data.join("postmaster.pid")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("cannot remove a stale postmaster.pid")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_of_another_program_is_no_server() {
        let dir = tempfile::tempdir().expect("folder");
        let me = i32::try_from(std::process::id()).expect("small");
        let text = format!("{me}\n{}\n1\n5432\n/tmp/x\n\n1 2\nready\n", dir.path().display());
        std::fs::write(dir.path().join("postmaster.pid"), text).expect("written");
        let found = Postmaster::read(dir.path()).expect("readable").expect("there");
        assert_eq!(found.socket, Path::new("/tmp/x"));
        assert!(!found.serves(dir.path()));
        remove(dir.path()).expect("removed");
        assert_eq!(Postmaster::read(dir.path()).expect("readable"), None);
        remove(dir.path()).expect("removing twice is harmless");
    }
}

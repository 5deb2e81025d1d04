//! A private PostgreSQL cluster inside the state folder.
//!
//! Owns: making it, starting it, taking over one that a crashed `everhold dev` left running, clearing what a
//! crashed PostgreSQL left lying, stopping it. Invariant: fsync stays on, no TCP port is opened, and the
//! socket is reachable for this user alone (which is why its local logins need no password).
//! PostgreSQL refuses to run as root; root therefore runs it in a user namespace under another id, where no
//! file changes hands, or with `setpriv` where namespaces are not offered. It knows nothing of schemas.

mod find;
mod identity;
mod pidfile;

use std::{
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

pub use find::Binaries;
use identity::RunAs;
use pidfile::Postmaster;

/// Longest folder whose socket name still fits into `sun_path` (104 bytes on macOS).
const LONGEST_SOCKET_FOLDER: usize = 80;
/// Sum of the roles' pools with room for a person's psql.
const MAX_CONNECTIONS: u32 = 160;
const START_TIMEOUT_S: u32 = 60;
const STOP_TIMEOUT_S: u32 = 10;

/// How [`Cluster::start`] found things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// The cluster was made just now.
    Fresh,
    /// It existed and was started.
    Again,
    /// It was still running from an earlier process, and was taken over.
    Adopted,
}

/// A cluster in a folder. Cheap to clone; all methods block.
#[derive(Debug, Clone)]
pub struct Cluster {
    folder: PathBuf,
    socket: PathBuf,
    binaries: Binaries,
    run_as: RunAs,
}

impl Cluster {
    /// Looks at (and makes) `folder`, an absolute path; starts nothing.
    pub fn open(folder: &Path, pg_bin: Option<&Path>) -> anyhow::Result<Self> {
        private_folder(folder)?;
        let data = folder.join("data");
        let wanted = match std::fs::read_to_string(data.join("PG_VERSION")) {
            Ok(text) => Some(text.trim().parse().context("data/PG_VERSION is not a number")?),
            Err(_) => None,
        };
        let binaries = find::find(pg_bin, folder, wanted)?;
        let run_as = RunAs::choose(&data, &binaries)?;
        let socket = socket_folder(folder)?;
        Ok(Self { folder: folder.to_owned(), socket, binaries, run_as })
    }

    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// URL of a database for a login role, over the socket.
    pub fn url(&self, role: &str, database: &str) -> String {
        let mut host = String::new();
        for byte in self.socket.to_string_lossy().bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                    host.push(char::from(byte));
                }
                other => host.push_str(&format!("%{other:02X}")),
            }
        }
        format!("postgres://{role}@localhost/{database}?host={host}")
    }

    /// Starts the cluster, or takes over the one that still runs.
    pub fn start(&self) -> anyhow::Result<Started> {
        let fresh = !self.data().join("PG_VERSION").exists();
        if fresh {
            self.init()?;
        }
        match Postmaster::read(&self.data())? {
            Some(running) if running.serves(&self.data()) => {
                if running.socket == self.socket && self.wait_ready(Duration::from_secs(20)) {
                    return Ok(Started::Adopted);
                }
                // It runs, but elsewhere or without answering: a folder that was moved, a stuck start.
                self.stop()?;
            }
            Some(_) => pidfile::remove(&self.data())?,
            None => {}
        }
        self.launch()?;
        Ok(if fresh { Started::Fresh } else { Started::Again })
    }

    /// Whether the postmaster's process is there; cheap enough to ask every second.
    pub fn is_running(&self) -> bool {
        matches!(Postmaster::read(&self.data()), Ok(Some(running)) if running.serves(&self.data()))
    }

    /// Ends every connection and stops; falls back to an immediate stop, which costs only a recovery.
    pub fn stop(&self) -> anyhow::Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        for mode in ["fast", "immediate"] {
            let status = self
                .as_owner("pg_ctl")
                .args(["stop", "-s", "-w", "-m", mode, "-t", &STOP_TIMEOUT_S.to_string()])
                .arg("-D")
                .arg(self.data())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()?;
            if status.success() || !self.is_running() {
                return Ok(());
            }
        }
        bail!("PostgreSQL in {} does not stop", self.folder.display())
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }

    /// Makes the cluster beside its place and renames it there, so that a crash leaves no half of one.
    fn init(&self) -> anyhow::Result<()> {
        let half = self.folder.join("data.new");
        if half.exists() {
            std::fs::remove_dir_all(&half).context("cannot clear an unfinished cluster")?;
        }
        self.run_as.give(&self.folder)?;
        let output = self
            .as_owner("initdb")
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--data-checksums"])
            .arg("-D")
            .arg(&half)
            .stdin(Stdio::null())
            .output()
            .context("cannot run initdb")?;
        if !output.status.success() {
            bail!("initdb failed: {}", tail(&String::from_utf8_lossy(&output.stderr)));
        }
        std::fs::rename(&half, self.data())?;
        Ok(())
    }

    fn launch(&self) -> anyhow::Result<()> {
        self.run_as.give(&self.folder)?;
        if self.socket != self.folder {
            self.run_as.give(&self.socket)?;
        }
        let options = format!(
            "-c listen_addresses='' -c unix_socket_directories='{}' -c unix_socket_permissions=0700 \
             -c fsync=on -c max_connections={MAX_CONNECTIONS} -c log_checkpoints=off",
            self.socket.display()
        );
        let mut attempts_left = 3;
        loop {
            let status = self
                .as_owner("pg_ctl")
                .args(["start", "-s", "-w", "-t", &START_TIMEOUT_S.to_string(), "-o", &options])
                .arg("-D")
                .arg(self.data())
                .arg("-l")
                .arg(self.log())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .context("cannot run pg_ctl")?;
            if status.success() {
                return Ok(());
            }
            attempts_left -= 1;
            if attempts_left == 0 {
                let log = std::fs::read_to_string(self.log()).unwrap_or_default();
                bail!("PostgreSQL does not start; its log ends: {}", tail(&log));
            }
            // The children of a killed postmaster hold its shared memory until they notice.
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// `pg_ctl status` does not say whether it answers, `pg_isready` is not in every wheel: try the socket.
    fn wait_ready(&self, at_most: Duration) -> bool {
        let socket = self.socket.join(".s.PGSQL.5432");
        let step = Duration::from_millis(100);
        let mut waited = Duration::ZERO;
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            if waited >= at_most {
                return false;
            }
            std::thread::sleep(step);
            waited += step;
        }
        true
    }

    fn as_owner(&self, tool: &str) -> Command {
        let mut command = self.run_as.command(&self.binaries.tool(tool));
        // The working folder of the caller may be closed to the server's id.
        command.env("LC_ALL", "C").current_dir("/");
        command
    }
}

/// Makes `folder` with mode 0700, or checks that nobody else may look into it.
pub fn private_folder(folder: &Path) -> anyhow::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot make {}", folder.display()));
        }
    }
    let facts = std::fs::symlink_metadata(folder)?;
    if !facts.is_dir() {
        bail!("{} is not a folder", folder.display());
    }
    if facts.mode() & 0o077 != 0 {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
            .with_context(|| format!("{} belongs to somebody else", folder.display()))?;
    }
    Ok(())
}

/// The cluster's own folder, or a short one below `/tmp` named after it when a socket name would not fit.
fn socket_folder(folder: &Path) -> anyhow::Result<PathBuf> {
    let plain = folder.to_str().is_some_and(|text| !text.contains(['\'', ',', '"', '\\', ' ']));
    if plain && folder.as_os_str().len() <= LONGEST_SOCKET_FOLDER {
        return Ok(folder.to_owned());
    }
    let name = hex::encode(&Sha256::digest(folder.as_os_str().as_encoded_bytes())[..8]);
    let short = PathBuf::from(format!("/tmp/everhold-{name}"));
    private_folder(&short)?;
    // Somebody else's folder of that name would let them sit between us and the database.
    let owner = std::fs::symlink_metadata(&short)?.uid();
    let ours = rustix::process::geteuid().as_raw();
    if owner != ours && owner != identity::NOBODY {
        bail!(
            "{} belongs to user {owner}; remove it or use a shorter state folder",
            short.display()
        );
    }
    Ok(short)
}

/// The last lines of a log, in one line.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(6)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_too_deep_for_a_socket_gets_a_short_one() {
        let deep = PathBuf::from(format!("/{}", "x".repeat(120)));
        let short = socket_folder(&deep).expect("folder");
        assert!(short.as_os_str().len() < LONGEST_SOCKET_FOLDER);
        assert_eq!(socket_folder(&deep).expect("again"), short);
        std::fs::remove_dir(&short).expect("ours");
        let plain = PathBuf::from("/srv/everhold/pg");
        assert_eq!(socket_folder(&plain).expect("folder"), plain);
    }

    #[test]
    fn a_cluster_survives_stop_crash_and_a_lost_supervisor() {
        let dir = tempfile::tempdir().expect("folder");
        let cluster = Cluster::open(&dir.path().join("pg"), None).expect("found");
        assert_eq!(cluster.start().expect("starts"), Started::Fresh);
        // A second supervisor (the first one was killed) finds it running.
        let second = Cluster::open(&dir.path().join("pg"), None).expect("found");
        assert_eq!(second.start().expect("adopts"), Started::Adopted);
        // The server itself is killed: its pid file is stale.
        let running = Postmaster::read(&second.data()).expect("readable").expect("there");
        let pid = rustix::process::Pid::from_raw(running.pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
        while second.is_running() {
            std::thread::yield_now();
        }
        assert_eq!(second.start().expect("starts"), Started::Again);
        second.stop().expect("stops");
        assert!(!second.is_running());
        second.stop().expect("stopping twice is harmless");
    }
}

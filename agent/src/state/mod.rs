//! The agent's own folder: who it is, its keys, its journal and cache.
//!
//! Invariants: the folder is 0700 and every file 0600; a file is replaced whole (written beside, synced,
//! renamed) or not at all; one process at a time changes a vault (a lock on `lock`). Secrets are in
//! `agent.keys` alone; everything else may be read by support.

mod files;
mod lock;

use std::{
    io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::{AgentId, RunId, SnapshotId, TenantId, Timestamp, VaultId, WorkloadId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use vault::keys::AgentKeys;
use zeroize::Zeroizing;

pub use files::{create_private, write_cached, write_private};
pub use lock::{Busy, RunLock};

const IDENTITY: &str = "agent.json";
const KEYS: &str = "agent.keys";
const VAULT: &str = "vault.json";
const RECEIPT: &str = "last-receipt.json";
const RUNNING: &str = "running.json";

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
    #[error("{path} is damaged; restore it from a copy, or move {home} away and enrol again")]
    Damaged { path: String, home: String },
    #[error(
        "this agent is not enrolled (no {IDENTITY} in {home}); run: everhold-agent enroll --server URL --token TOKEN"
    )]
    NotEnrolled { home: String },
    #[error(
        "the enrolment in {home} was interrupted; run the same everhold-agent enroll command again to finish it"
    )]
    Unfinished { home: String },
}

/// How far enrolment came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The server knows this agent; its vault is not made yet.
    Enrolled,
    /// Keys and wraps are made and stored here; the server may or may not have them.
    VaultMade,
    Ready,
}

/// Who this agent is. No secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub version: u32,
    pub stage: Stage,
    pub server: String,
    pub tenant_id: TenantId,
    pub tenant_name: String,
    pub agent_id: AgentId,
    pub name: String,
    pub vault_id: VaultId,
    pub workload_id: WorkloadId,
    pub enrolled_at: Timestamp,
    /// Who may sign rosters, pinned at enrolment (base64).
    pub platform_roster_key: Option<String>,
    pub kit_roster_key: Option<String>,
    /// Ed25519 key of the platform's receipts (base64).
    pub receipt_key: Option<String>,
    /// Where the recovery kit was written, if one was.
    pub kit_file: Option<PathBuf>,
}

/// The public parts of the vault, as stored on the key server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultFile {
    /// Base64 each.
    pub descriptor: String,
    pub roster: Option<String>,
    pub wraps: Vec<String>,
}

/// What the last commit was answered with: the rollback guard, and what `status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCommit {
    pub snapshot_id: SnapshotId,
    pub committed_at: Timestamp,
    /// Base64.
    pub receipt: String,
}

/// The run under way. Found by a later process that holds the run lock: that run's process died.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub run_id: RunId,
    pub epoch: u64,
}

/// The agent's folder.
#[derive(Debug, Clone)]
pub struct Home {
    path: PathBuf,
}

impl Home {
    /// Names the folder; nothing is touched yet.
    pub const fn at(path: PathBuf) -> Self {
        Self { path }
    }
    pub fn path(&self) -> &Path {
        &self.path
    }
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }
    pub fn cache(&self) -> PathBuf {
        self.path.join("cache")
    }

    /// Makes the folder and those inside, private to their owner.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub fn prepare(&self) -> Result<(), StateError> {
        for folder in [self.path.clone(), self.journal(), self.cache()] {
            files::private_folder(&folder).map_err(|source| io_error(&folder, source))?;
        }
        Ok(())
    }

    /// Device and inode, so that a walk can leave it out whatever it is called.
    pub fn fingerprint(&self) -> Option<(u64, u64)> {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(&self.path).ok().map(|meta| (meta.dev(), meta.ino()))
    }

    /// One run at a time.
    ///
    /// # Errors
    /// [`Busy`] names who holds it.
    pub fn lock_for_run(&self) -> Result<RunLock, Busy> {
        lock::acquire(&self.path.join("lock"))
    }

    /// The identity of a finished enrolment.
    ///
    /// # Errors
    /// Not enrolled, unfinished or damaged.
    pub fn identity(&self) -> Result<Identity, StateError> {
        let home = self.path.display().to_string();
        let found = self.identity_if_any()?;
        let identity = found.ok_or_else(|| StateError::NotEnrolled { home: home.clone() })?;
        if identity.stage == Stage::Ready {
            Ok(identity)
        } else {
            Err(StateError::Unfinished { home })
        }
    }
    /// The identity at whatever stage.
    ///
    /// # Errors
    /// Damaged or unreadable.
    pub fn identity_if_any(&self) -> Result<Option<Identity>, StateError> {
        self.read_json(IDENTITY)
    }
    /// # Errors
    /// What the system says.
    pub fn save_identity(&self, identity: &Identity) -> Result<(), StateError> {
        self.write_json(IDENTITY, identity)
    }

    /// The agent's secret keys, if made.
    ///
    /// # Errors
    /// Damaged or unreadable.
    pub fn keys_if_any(&self) -> Result<Option<AgentKeys>, StateError> {
        let path = self.path.join(KEYS);
        let Some(text) = self.read(KEYS)? else { return Ok(None) };
        let text = Zeroizing::new(text);
        let bytes = BASE64.decode(text.trim_ascii()).map(Zeroizing::new);
        let keys = bytes.ok().and_then(|bytes| {
            let bytes: &[u8; 64] = bytes.as_slice().try_into().ok()?;
            Some(AgentKeys::from_bytes(bytes))
        });
        keys.map(Some).ok_or_else(|| self.damaged(&path))
    }
    /// # Errors
    /// Missing, damaged or unreadable.
    pub fn keys(&self) -> Result<AgentKeys, StateError> {
        let missing = || StateError::NotEnrolled { home: self.path.display().to_string() };
        self.keys_if_any()?.ok_or_else(missing)
    }
    /// # Errors
    /// What the system says.
    pub fn save_keys(&self, keys: &AgentKeys) -> Result<(), StateError> {
        let bytes = keys.to_bytes();
        let text = Zeroizing::new(BASE64.encode(bytes.as_slice()));
        self.write(KEYS, text.as_bytes())
    }

    /// # Errors
    /// Damaged or unreadable.
    pub fn vault_if_any(&self) -> Result<Option<VaultFile>, StateError> {
        self.read_json(VAULT)
    }
    /// # Errors
    /// What the system says.
    pub fn save_vault(&self, vault: &VaultFile) -> Result<(), StateError> {
        self.write_json(VAULT, vault)
    }

    /// The last commit, if it is known. Advice to the server, so damage costs nothing but that: the file is
    /// put aside for support.
    pub fn last_commit(&self) -> Option<LastCommit> {
        match self.read_json(RECEIPT) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the last receipt cannot be read and is put aside");
                let damaged = matches!(error, StateError::Damaged { .. });
                if damaged && faults::point("home: put aside").is_ok() {
                    let path = self.path.join(RECEIPT);
                    let _ = std::fs::rename(&path, path.with_extension("json.damaged"));
                }
                None
            }
        }
    }
    /// # Errors
    /// What the system says.
    pub fn save_last_commit(&self, commit: &LastCommit) -> Result<(), StateError> {
        self.write_json(RECEIPT, commit)
    }

    /// The run a dead process left; a damaged note counts as none.
    pub fn running(&self) -> Option<Running> {
        self.read_json(RUNNING).ok().flatten()
    }
    /// # Errors
    /// What the system says.
    pub fn save_running(&self, running: &Running) -> Result<(), StateError> {
        self.write_json(RUNNING, running)
    }
    /// The run ended, however it did.
    pub fn forget_running(&self) {
        // Should it stay, the next run finishes an ended one, which does nothing.
        if faults::point("home: remove").is_ok() {
            let _ = std::fs::remove_file(self.path.join(RUNNING));
        }
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error(&path, source)),
        }
    }
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.path.join(name);
        write_private(&path, bytes).map_err(|source| io_error(&path, source))
    }
    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|_| self.damaged(&self.path.join(name)))
    }
    fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let path = self.path.join(name);
        let text = serde_json::to_vec_pretty(value)
            .map_err(|error| io_error(&path, io::Error::other(error)))?;
        self.write(name, &text)
    }
    fn damaged(&self, path: &Path) -> StateError {
        let home = self.path.display().to_string();
        StateError::Damaged { path: path.display().to_string(), home }
    }
}

fn io_error(path: &Path, source: io::Error) -> StateError {
    StateError::Io { path: path.display().to_string(), source }
}

/// Where the state lies when nobody says: as root in `/var/lib`, otherwise in the XDG state folder.
pub fn default_home(is_root: bool, xdg_state: Option<&Path>, home: Option<&Path>) -> PathBuf {
    if is_root {
        return PathBuf::from("/var/lib/everhold-agent");
    }
    let state = xdg_state.filter(|path| path.is_absolute()).map(Path::to_path_buf);
    let state = state.or_else(|| home.map(|home| home.join(".local/state")));
    state.unwrap_or_else(|| PathBuf::from("/var/lib")).join("everhold-agent")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use domain::SystemIds;

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().expect("tempdir");
        let home = Home::at(dir.path().join("state"));
        home.prepare().expect("prepare");
        (dir, home)
    }

    #[test]
    fn keys_come_back_and_only_their_owner_reads_them() {
        let (_dir, home) = home();
        let keys = AgentKeys::generate(&SystemIds);
        home.save_keys(&keys).expect("save");
        let again = home.keys().expect("read");
        assert_eq!(again.verify_key(), keys.verify_key());
        let mode =
            |path: &Path| std::fs::metadata(path).expect("stat").permissions().mode() & 0o777;
        assert_eq!(mode(&home.path().join(KEYS)), 0o600);
        assert_eq!(mode(home.path()), 0o700);
    }

    #[test]
    fn without_enrolment_the_error_says_how_to_enrol() {
        let (_dir, home) = home();
        let error = home.identity().expect_err("none").to_string();
        assert!(error.contains("everhold-agent enroll"), "{error}");
    }

    #[test]
    fn damage_is_named_and_not_guessed_around() {
        let (_dir, home) = home();
        home.write(IDENTITY, b"{").expect("write");
        assert!(matches!(home.identity(), Err(StateError::Damaged { .. })));
        home.write(KEYS, b"AAAA").expect("write");
        assert!(matches!(home.keys(), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn a_damaged_receipt_is_put_aside_and_hinders_nothing() {
        let (_dir, home) = home();
        for damage in [&b""[..], b"{\"snapshot"] {
            home.write(RECEIPT, damage).expect("write");
            assert_eq!(home.last_commit(), None);
            assert!(!home.path().join(RECEIPT).exists());
            let aside = home.path().join("last-receipt.json.damaged");
            assert_eq!(std::fs::read(aside).expect("kept"), damage);
        }
    }

    #[test]
    fn two_runs_at_a_time_are_refused() {
        let (_dir, home) = home();
        let held = home.lock_for_run().expect("first");
        let busy = home.lock_for_run().expect_err("second");
        assert!(busy.to_string().contains(&std::process::id().to_string()));
        drop(held);
        home.lock_for_run().expect("free again");
    }

    #[test]
    fn the_default_place_depends_on_who_asks() {
        let root = default_home(true, Some(Path::new("/x")), None);
        assert_eq!(root, Path::new("/var/lib/everhold-agent"));
        let xdg = default_home(false, Some(Path::new("/x")), Some(Path::new("/home/me")));
        assert_eq!(xdg, Path::new("/x/everhold-agent"));
        let plain = default_home(false, None, Some(Path::new("/home/me")));
        assert_eq!(plain, Path::new("/home/me/.local/state/everhold-agent"));
    }
}

//! The installation's secrets: made once, kept in `DIR/secrets` (0700) for as long as the data.
//!
//! Invariant: a secret is never made anew while data exists that needs the old one, and the file is complete or
//! absent (written beside, synced, renamed). Nothing here is ever logged.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::IdGen;
use serde::{Deserialize, Serialize};

use super::postgres::private_folder;

/// An access key of the embedded store.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreKey {
    pub access_key: String,
    pub secret_key: String,
}

/// Everything random about this installation but the platform's `KeyWrapper`, which has its own file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// Ed25519 seeds, base64.
    pub access: String,
    pub service: String,
    pub receipt: String,
    pub roster: String,
    pub store_admin: StoreKey,
    pub store_ingest: StoreKey,
    pub store_restore: StoreKey,
    pub store_steward: StoreKey,
    pub store_reaper: StoreKey,
    pub store_key_keeper: StoreKey,
    /// Passwords of the four accounts.
    pub admin_password: String,
    pub msp_password: String,
    pub tenant_password: String,
    pub other_tenant_password: String,
}

impl Secrets {
    /// Reads what is there, or makes it. `has_data`: something exists already that old secrets belong to.
    pub fn load_or_make(folder: &Path, ids: &dyn IdGen, has_data: bool) -> anyhow::Result<Self> {
        private_folder(folder)?;
        let file = folder.join("secrets.json");
        match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| {
                anyhow::anyhow!("{} is damaged: restore it from a copy", file.display())
            }),
            Err(error) if error.kind() == ErrorKind::NotFound && has_data => bail!(
                "{} is missing, but there is data that needs it: restore the file, or start with an empty state \
                 folder",
                file.display()
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let made = Self::make(ids);
                write_private(&file, &serde_json::to_vec_pretty(&made)?)?;
                Ok(made)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    fn make(ids: &dyn IdGen) -> Self {
        let seed = || BASE64.encode(random::<32>(ids));
        let key = |job: &str| StoreKey {
            access_key: format!("everhold-{job}-{}", hex::encode(random::<4>(ids))),
            secret_key: hex::encode(random::<24>(ids)),
        };
        let password = || hex::encode(random::<12>(ids));
        Self {
            access: seed(),
            service: seed(),
            receipt: seed(),
            roster: seed(),
            store_admin: key("admin"),
            store_ingest: key("ingest"),
            store_restore: key("restore"),
            store_steward: key("steward"),
            store_reaper: key("reaper"),
            store_key_keeper: key("keys"),
            admin_password: password(),
            msp_password: password(),
            tenant_password: password(),
            other_tenant_password: password(),
        }
    }
}

fn random<const N: usize>(ids: &dyn IdGen) -> [u8; N] {
    let mut bytes = [0; N];
    ids.fill(&mut bytes);
    bytes
}

/// Writes `bytes` under `path` with mode 0600, whole or not at all, durably.
pub fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    let beside = path.with_extension("new");
    // A leftover could have another mode, which opening would not change.
    let _ = std::fs::remove_file(&beside);
    let write = || -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use domain::SeededIds;

    use super::*;

    #[test]
    fn secrets_stay_what_they_were_and_only_their_owner_reads_them() {
        let dir = tempfile::tempdir().expect("folder");
        let folder = dir.path().join("secrets");
        let made = Secrets::load_or_make(&folder, &SeededIds::new(1), false).expect("made");
        let again = Secrets::load_or_make(&folder, &SeededIds::new(2), true).expect("read");
        assert_eq!(made.admin_password, again.admin_password);
        assert_ne!(made.admin_password, made.msp_password);
        let mode =
            |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("secrets.json")), 0o600);
    }

    #[test]
    fn secrets_are_not_made_anew_beside_old_data() {
        let dir = tempfile::tempdir().expect("folder");
        let folder = dir.path().join("secrets");
        assert!(Secrets::load_or_make(&folder, &SeededIds::new(1), true).is_err());
        std::fs::write(folder.join("secrets.json"), "{}").expect("written");
        assert!(Secrets::load_or_make(&folder, &SeededIds::new(1), false).is_err());
    }
}

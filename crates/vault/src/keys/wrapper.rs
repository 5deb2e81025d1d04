//! The platform's side of managed vaults: something that can open wraps, a KMS or a key in a file.

use std::{io, path::Path};

use domain::IdGen;
use zeroize::Zeroizing;

use super::{Recipient, RecipientKind, VaultKeys, Wrap, WrapError, wrap::public_of};

/// The wrapper cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum KeyWrapperError {
    #[error("the platform key file cannot be used")]
    Io(#[from] io::Error),
    #[error("the platform key file has the wrong size or is readable by others")]
    BadFile,
    #[error(transparent)]
    Wrap(#[from] WrapError),
}

/// Opens the platform's wraps of managed vaults. A seam: a file today, a KMS in production.
pub trait KeyWrapper: Send + Sync {
    /// To whom agents wrap.
    fn recipient(&self) -> Recipient;
    /// The keys of a vault out of its wraps.
    fn unwrap_keys(&self, wraps: &[Wrap]) -> Result<VaultKeys, KeyWrapperError>;
}

/// X25519 secret in a file that only its owner can read.
pub struct FileKeyWrapper {
    secret: Zeroizing<[u8; 32]>,
}

impl FileKeyWrapper {
    /// Reads the file, or makes it (mode 0600, never over an existing one).
    pub fn open_or_create(path: &Path, ids: &dyn IdGen) -> Result<Self, KeyWrapperError> {
        match Self::open(path) {
            Err(KeyWrapperError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                create(path, ids)?;
                Self::open(path)
            }
            other => other,
        }
    }
    /// Reads the file; refuses one that others can read.
    pub fn open(path: &Path) -> Result<Self, KeyWrapperError> {
        use std::os::unix::fs::PermissionsExt as _;
        let bytes = Zeroizing::new(std::fs::read(path)?);
        let mode = std::fs::metadata(path)?.permissions().mode();
        let secret: [u8; 32] = bytes.as_slice().try_into().map_err(|_| KeyWrapperError::BadFile)?;
        if mode & 0o077 != 0 {
            return Err(KeyWrapperError::BadFile);
        }
        Ok(Self { secret: Zeroizing::new(secret) })
    }
}

fn create(path: &Path, ids: &dyn IdGen) -> Result<(), io::Error> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut secret = Zeroizing::new([0; 32]);
    ids.fill(secret.as_mut_slice());
    // Written beside and linked into place: a crash must not leave half a key under the real name.
    let temporary = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(secret.as_slice())?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(&temporary)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

impl KeyWrapper for FileKeyWrapper {
    fn recipient(&self) -> Recipient {
        Recipient::keyed(RecipientKind::Platform, public_of(&self.secret))
    }
    fn unwrap_keys(&self, wraps: &[Wrap]) -> Result<VaultKeys, KeyWrapperError> {
        Ok(VaultKeys::open(wraps, &self.recipient(), &self.secret)?)
    }
}

//! Folders of the target that are being written into, by path.
//!
//! Files of a folder come one after the other, so a few handles save most look-ups. Invariant: a handle was
//! opened beneath the target and pins its folder; whoever swaps a name meanwhile gains nothing.

use std::sync::{Arc, Mutex, PoisonError};

use super::{
    apply::Inherited,
    safe_root::{Folder, Refused, SafeRoot},
};
use crate::sources::xattr;

const KEPT: usize = 32;

/// An open folder.
pub struct Seat {
    pub folder: Folder,
    /// Whether new entries get attributes from it.
    pub inherited: Inherited,
}

/// The last few of them.
pub struct Seats {
    root: Arc<SafeRoot>,
    kept: Mutex<Vec<(Vec<u8>, Arc<Seat>)>>,
}

impl Seats {
    pub const fn new(root: Arc<SafeRoot>) -> Self {
        Self { root, kept: Mutex::new(Vec::new()) }
    }

    /// The folder at `path`, made with all above it where missing.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn at(&self, path: &[u8]) -> Result<Arc<Seat>, Refused> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().rposition(|(known, _)| known == path)
            && let Some((_, seat)) = kept.get(at)
        {
            let seat = Arc::clone(seat);
            if at + KEPT / 2 < kept.len() {
                let recent = kept.remove(at);
                kept.push(recent);
            }
            return Ok(seat);
        }
        drop(kept);
        let folder = self.root.make_folders(path)?;
        let attributes = xattr::read(folder.handle());
        let inherited = match attributes {
            Ok(found) if !found.iter().any(|(name, _)| name == b"system.posix_acl_default") => {
                Inherited::Nothing
            }
            _ => Inherited::Perhaps,
        };
        let seat = Arc::new(Seat { folder, inherited });
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((path.to_vec(), Arc::clone(&seat)));
        Ok(seat)
    }
}

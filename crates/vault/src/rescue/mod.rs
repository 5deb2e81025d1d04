//! A vault without its control plane: bucket, key store and recovery kit are enough.
//!
//! Owns the way from a kit to keys, from a listing to manifests that may be believed, and from a pack's name to its
//! bytes. Invariant: nothing is believed because of where it lies; a roster counts under a key of the kit, a
//! manifest under a member of such a roster, a receipt under the kit's receipt key, and every object only under its
//! hash. The bucket is hostile input: what is wrong is told as a [`Finding`] and passed over, nothing panics.
//! It must not know S3: objects come through [`Objects`].

mod folder;
mod inventory;
mod objects;
mod open;
mod snapshots;

pub use folder::Folder;
pub use inventory::{Inventory, MAX_STRAY};
pub use objects::{Listed, ObjectPacks, Objects};
pub use open::{Bucket, Closed, OpenVault, Opened, open_kit};
pub use snapshots::{Found, Snapshots, Standing};

pub use crate::fsck::{Finding, Severity, What};

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// Runs `work` over `items` on up to `workers` threads; results in the order of the items.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    workers: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..workers.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    let result = work(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

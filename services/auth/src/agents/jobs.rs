//! Forgets nonces that no signature can use any more.

use std::time::Duration;

use pg::{OperationalReason, SystemReason, SystemTx};
use runtime::{Platform, Worker};

use super::store;

const PAUSE: Duration = Duration::from_secs(60);
/// A request dated as far ahead as is believed stays valid for twice the window; this is far beyond.
const KEEP: Duration = Duration::from_secs(600);
const _: () = assert!(KEEP.as_secs() > 2 * api::signature::WINDOW_S);

/// Forgets, every minute.
pub fn worker(platform: &Platform) -> Worker {
    let platform = platform.clone();
    Worker::every("nonce_expiry", PAUSE, move || {
        let platform = platform.clone();
        async move { prune(&platform).await.map(|_| false) }
    })
}

/// Removes nonces past their use, of every tenant; says how many.
///
/// # Errors
/// See [`pg::Error`].
pub async fn prune(platform: &Platform) -> Result<u64, pg::Error> {
    let mut tx = SystemTx::begin(&platform.db, SystemReason::NonceExpiry).await?;
    let gone = store::delete_stale_nonces(&mut tx, platform.clock.now() - KEEP).await?;
    tx.commit_operational(OperationalReason::Cleanup).await?;
    Ok(gone)
}

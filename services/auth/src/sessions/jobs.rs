//! Forgets sessions that ended by age.

use std::time::Duration;

use pg::{OperationalReason, SystemReason, SystemTx};
use runtime::{Platform, Worker};

use super::store;

const PAUSE: Duration = Duration::from_secs(3_600);
/// Kept this long after their end, for whoever looks into an incident.
const KEEP: Duration = Duration::from_secs(7 * 86_400);

/// Forgets, every hour.
pub fn worker(platform: &Platform) -> Worker {
    let platform = platform.clone();
    Worker::every("token_expiry", PAUSE, move || {
        let platform = platform.clone();
        async move { prune(&platform).await.map(|_| false) }
    })
}

/// Removes sessions past their use, of every tenant; says how many.
///
/// # Errors
/// See [`pg::Error`].
pub async fn prune(platform: &Platform) -> Result<u64, pg::Error> {
    let mut tx = SystemTx::begin(&platform.db, SystemReason::TokenExpiry).await?;
    let gone = store::delete_expired_families(&mut tx, platform.clock.now() - KEEP).await?;
    tx.commit_operational(OperationalReason::Cleanup).await?;
    Ok(gone)
}

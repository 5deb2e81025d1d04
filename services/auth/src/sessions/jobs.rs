//! Forgets sessions that ended by age.

use std::{sync::Arc, time::Duration};

use domain::Clock;
use pg::{Db, OperationalReason, SystemReason, SystemTx};
use runtime::{Platform, Worker};

use super::store;

const PAUSE: Duration = Duration::from_secs(3_600);
/// Kept this long after their end, for whoever looks into an incident.
const KEEP: Duration = Duration::from_secs(7 * 86_400);

/// Forgets, every hour.
pub fn worker(platform: &Platform) -> Worker {
    let (db, clock) = (platform.db.clone(), platform.clock.clone());
    Worker::every("token_expiry", PAUSE, move || {
        let (db, clock) = (db.clone(), clock.clone());
        async move { prune(&db, &clock).await.map(|_| false) }
    })
}

/// Removes what is past its use; says how many sessions went.
///
/// # Errors
/// See [`pg::Error`].
pub async fn prune(db: &Db, clock: &Arc<dyn Clock>) -> Result<u64, pg::Error> {
    let mut tx = SystemTx::begin(db, SystemReason::TokenExpiry).await?;
    let gone = store::delete_expired_families(&mut tx, clock.now() - KEEP).await?;
    tx.commit_operational(OperationalReason::Cleanup).await?;
    Ok(gone)
}

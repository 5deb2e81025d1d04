//! Receipts: signed in the commit's transaction, written into the bucket, locked, right after it.

use std::time::Duration;

use bytes::Bytes;
use domain::{SnapshotId, TenantId, Timestamp};
use pg::{OperationalReason, SystemReason, SystemTx, TenantTx};
use vault::{layout, receipt::Receipt};

use super::store;
use crate::{
    error::Error, packs::locks, place, round::Round, sessions::commit_store, state::Catalog,
};

/// Lock of a receipt whose own is over before it reaches the bucket.
const LATE: Duration = Duration::from_secs(86_400);

/// Signs and keeps the receipt in the transaction of its snapshot. Gives its bytes.
pub async fn write(
    app: &Catalog,
    tx: &mut TenantTx,
    receipt: &Receipt,
    locked_until: Timestamp,
) -> Result<Vec<u8>, Error> {
    let bytes = receipt.sign(app.receipt_key());
    let key = layout::receipt_key(receipt.tenant, receipt.vault, receipt.snapshot);
    let until = locks::covering(locked_until);
    commit_store::insert_receipt(tx, receipt.snapshot, &bytes, &key, until).await?;
    Ok(bytes)
}

/// One round of the writer: receipts of any tenant that the bucket does not have yet.
pub async fn round(app: &Catalog) -> Result<bool, Error> {
    let mut tx = SystemTx::begin(&app.db, SystemReason::LockSteward).await?;
    let waiting = store::list_unstored_receipts(&mut tx).await?;
    drop(tx);
    let mut round = Round::default();
    for (tenant, snapshot) in &waiting {
        round.note("receipt", put(app, *tenant, *snapshot).await);
    }
    round.end(!waiting.is_empty())
}

async fn put(app: &Catalog, tenant: TenantId, snapshot: SnapshotId) -> Result<(), Error> {
    let scope = crate::reconciler_scope(tenant);
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    let found = store::find_unstored_receipt(&mut tx, snapshot).await?;
    drop(tx);
    let Some(row) = found else { return Ok(()) };
    // A store takes no lock that is over; a receipt that late is still proof for a day.
    let until = Timestamp::from(row.lock_until).max(app.clock.now() + LATE);
    let bytes = Bytes::from(row.receipt);
    let placed = place::put(&app.store, &row.object_key, &bytes, until).await?;
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    store::set_receipt_stored(&mut tx, snapshot, &placed.version, app.clock.now()).await?;
    Ok(tx.commit_operational(OperationalReason::JobState).await?)
}

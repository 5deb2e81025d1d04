//! Restore grants: presigned reads of the packs of one snapshot, by version id, never of the vault.

pub mod http;

use std::time::Duration;

use api::{
    catalog::{ReadGrant, RequestRestoreGrants, RestoreGrants},
    problem::Code,
};
use authz::{Permit, actions::SnapshotRestore};
use domain::{PackId, SnapshotId, WorkloadId};
use pg::TenantTx;
use runtime::Cx;
use uuid::Uuid;

use crate::{
    collection::expiry_store,
    error::Error,
    objects,
    packs::store::PackRow,
    snapshots::{self, store},
    state::Catalog,
};

/// Packs in one request.
const MAX_PACKS: usize = 256;
/// How long a read may be begun.
const LIFE: Duration = Duration::from_secs(3_600);
/// How long after that the snapshot counts as being read.
const READING: Duration = Duration::from_secs(86_400);

/// Grants reads of the manifest chain and of the named packs, all of which must belong to the snapshot.
///
/// # Errors
/// `not_found` also when a pack is not of this snapshot; `validation`.
pub async fn grant(
    app: &Catalog,
    cx: &Cx,
    permit: &Permit<SnapshotRestore>,
    id: SnapshotId,
    body: &RequestRestoreGrants,
) -> Result<RestoreGrants, Error> {
    if body.packs.len() > MAX_PACKS {
        return Err(Error::field("packs", format!("at most {MAX_PACKS}")));
    }
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let row = snapshots::find(&mut tx, permit, id).await?;
    let workload = WorkloadId::from_uuid(row.workload_id);
    let manifests = store::list_manifests(&mut tx, workload, row.seq).await?;
    let mut ids: Vec<Uuid> = body.packs.iter().copied().map(PackId::uuid).collect();
    ids.sort_unstable();
    ids.dedup();
    let packs = store::find_packs(&mut tx, workload, row.seq, &ids).await?;
    if packs.len() != ids.len() {
        return Err(Error::not_found());
    }
    let reply = RestoreGrants {
        manifests: sign(app, cx, &manifests).await?,
        packs: sign(app, cx, &packs).await?,
    };
    // From here on it does not expire under whoever restores, verifies or mounts it.
    if !expiry_store::set_in_use(&mut tx, id, cx.now() + LIFE + READING).await? {
        return Err(Error::not_found());
    }
    let event = cx
        .event("restore.granted", "snapshot", &id)
        .detail("packs", packs.len())
        .detail("manifests", manifests.len());
    tx.commit(event).await?;
    Ok(reply)
}

async fn sign(app: &Catalog, cx: &Cx, rows: &[PackRow]) -> Result<Vec<ReadGrant>, Error> {
    let mut grants = Vec::with_capacity(rows.len());
    for row in rows {
        let version =
            row.version_id.as_deref().ok_or_else(|| Error::refused(Code::PackUnusable))?;
        let get = app.store.presign_get(&row.object_key, version, LIFE).await?;
        grants.push(ReadGrant { pack: row.facts(), get: objects::presigned(get, cx.now() + LIFE) });
    }
    Ok(grants)
}

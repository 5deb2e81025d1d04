//! Restore grants: presigned reads of the packs of one snapshot, by version id, never of the vault.

pub mod http;

use std::{collections::HashMap, time::Duration};

use api::{
    catalog::{ReadGrant, RequestRestoreGrants, RestoreGrants},
    problem::Code,
};
use authz::{Permit, actions::SnapshotRestore};
use domain::{PackId, SnapshotId, VaultId, WorkloadId};
use pg::TenantTx;
use runtime::Cx;
use uuid::Uuid;
use vault::store::S3Store;

use crate::{
    collection::expiry_store,
    error::Error,
    objects,
    packs::store::PackRow,
    replica,
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
/// `not_found` also when a pack is not of this snapshot, or there is none that it completes; `validation`.
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
    if let Some(other) = body.completes {
        snapshots::find(&mut tx, permit, other).await?;
    }
    let workload = WorkloadId::from_uuid(row.workload_id);
    let manifests = store::list_manifests(&mut tx, workload, row.seq).await?;
    let mut ids: Vec<Uuid> = body.packs.iter().copied().map(PackId::uuid).collect();
    ids.sort_unstable();
    ids.dedup();
    let packs = store::find_packs(&mut tx, workload, row.seq, &ids).await?;
    if packs.len() != ids.len() {
        return Err(Error::not_found());
    }
    let second =
        seconds(app, &mut tx, VaultId::from_uuid(row.vault_id), &manifests, &packs).await?;
    let reply = RestoreGrants {
        manifests: sign(app, cx, &manifests, second.as_ref()).await?,
        packs: sign(app, cx, &packs, second.as_ref()).await?,
    };
    // From here on it does not expire under whoever restores, verifies or mounts it.
    if !expiry_store::set_in_use(&mut tx, id, cx.now() + LIFE + READING).await? {
        return Err(Error::not_found());
    }
    let mut event = cx
        .event("restore.granted", "snapshot", &id)
        .detail("packs", packs.len())
        .detail("manifests", manifests.len());
    if let Some(other) = body.completes {
        event = event.detail("completes", other.to_string());
    }
    tx.commit(event).await?;
    Ok(reply)
}

/// Versions by pack at the vault's second store.
type Seconds = (S3Store, HashMap<Uuid, String>);

/// Where the vault's second copy has these. A copy that is configured wrongly is no reason to refuse the first.
async fn seconds(
    app: &Catalog,
    tx: &mut TenantTx,
    vault: VaultId,
    manifests: &[PackRow],
    packs: &[PackRow],
) -> Result<Option<Seconds>, Error> {
    let second = match replica::find(app, tx, vault).await {
        Ok(Some(second)) => second,
        Ok(None) => return Ok(None),
        Err(error @ Error::Database(_)) => return Err(error),
        Err(error) => {
            tracing::warn!(%error, "a second copy cannot be granted");
            return Ok(None);
        }
    };
    let ids: Vec<Uuid> = manifests.iter().chain(packs).map(|row| row.id).collect();
    let copies = replica::store::find_copies(tx, &ids).await?;
    let versions = copies.into_iter().map(|copy| (copy.pack_id, copy.version_id)).collect();
    Ok(Some((second.store, versions)))
}

async fn sign(
    app: &Catalog,
    cx: &Cx,
    rows: &[PackRow],
    second: Option<&Seconds>,
) -> Result<Vec<ReadGrant>, Error> {
    let mut grants = Vec::with_capacity(rows.len());
    for row in rows {
        let version =
            row.version_id.as_deref().ok_or_else(|| Error::refused(Code::PackUnusable))?;
        let get = app.store.presign_get(&row.object_key, version, LIFE).await?;
        let there = second.and_then(|(store, known)| Some((store, known.get(&row.id)?)));
        let second = match there {
            Some((store, version)) => {
                let get = store.presign_get(&row.object_key, version, LIFE).await?;
                Some(objects::presigned(get, cx.now() + LIFE))
            }
            None => None,
        };
        let get = objects::presigned(get, cx.now() + LIFE);
        grants.push(ReadGrant { pack: row.facts(), get, second });
    }
    Ok(grants)
}

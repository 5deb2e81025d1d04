//! Collection, as functions nobody calls on a schedule yet: nothing is deleted outside tests before audit
//! anchors exist.
//!
//! Invariants (R4): a pack is condemned only when no committed snapshot needs it; it is deleted only by a
//! warrant out of a transaction that held its row lock, after grace and lock, when no session that was
//! open before the condemning is open still; while a tenant is frozen none of it happens. What lets snapshots go
//! is [`letting_go`]; what "needed" means is the view `catalog.pack_needs` and nothing else.

pub mod expiry_store;
pub mod http;
pub mod letting_go;
pub mod repack;
pub mod store;

use std::time::Duration;

use api::{
    catalog::{PackKind, RetainedPack},
    page::{Page, PageQuery},
};
use authz::{Permit, Scope, actions::VaultRead};
use domain::{EventId, PackId, Timestamp, VaultId};
use pg::{AuditEvent, OperationalReason, TenantTx};
use vault::{
    guard::{self, CondemnedProof, DeleteWarrant, ProvenState},
    store::Deletion,
};

use crate::{
    error::Error,
    freezes,
    paging::{self, after, page_limit},
    state::Catalog,
    vaults,
};

/// How long a pack stays condemned.
pub const GRACE: Duration = Duration::from_secs(7 * 86_400);
/// A deletion that was begun and not recorded as done is taken up again after this.
pub const UNFINISHED_AFTER: Duration = Duration::from_secs(3_600);
/// Rows handled in one transaction.
const BATCH: i64 = 500;

/// Why collection does nothing.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A rollback is suspected; a person has to look first.
    #[error("collection is frozen for this tenant")]
    Frozen,
    #[error(transparent)]
    Catalog(#[from] Error),
}

impl From<pg::Error> for CollectError {
    fn from(error: pg::Error) -> Self {
        Self::Catalog(error.into())
    }
}

/// A transaction for a step of collection. Whoever deletes asks again before each object.
///
/// # Errors
/// `Frozen`; the database's.
pub(crate) async fn begin(app: &Catalog, scope: Scope) -> Result<TenantTx, CollectError> {
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    if freezes::store::is_frozen(&mut tx).await? {
        tx.rollback().await?;
        return Err(CollectError::Frozen);
    }
    Ok(tx)
}

fn event(app: &Catalog, now: Timestamp, action: &'static str, vault: VaultId) -> AuditEvent {
    let actor = crate::reconciler();
    AuditEvent::new(EventId::fresh(&*app.ids, now), now, &actor, action, "vault", &vault)
}

/// Condemns packs of a vault that nothing needs. Gives them.
///
/// # Errors
/// [`CollectError`].
pub async fn condemn(
    app: &Catalog,
    scope: Scope,
    vault: VaultId,
) -> Result<Vec<PackId>, CollectError> {
    let now = app.clock.now();
    let mut tx = begin(app, scope).await?;
    let candidates = store::lock_condemnable(&mut tx, vault, BATCH).await?;
    let condemned = store::set_condemned(&mut tx, &candidates, now).await?;
    if condemned.is_empty() {
        tx.rollback().await?;
        return Ok(Vec::new());
    }
    tx.commit(event(app, now, "packs.condemned", vault).detail("packs", condemned.len())).await?;
    Ok(condemned.into_iter().map(PackId::from_uuid).collect())
}

/// Claims condemned packs whose every protection is over, and gives the warrants to delete them. Once this
/// has committed no commit can name them any more.
///
/// # Errors
/// [`CollectError`].
pub async fn begin_delete(
    app: &Catalog,
    scope: Scope,
    vault: VaultId,
) -> Result<Vec<DeleteWarrant>, CollectError> {
    let now = app.clock.now();
    let mut tx = begin(app, scope).await?;
    let mut candidates = store::lock_deletable(&mut tx, vault, now - GRACE, now, BATCH).await?;
    candidates.extend(store::lock_unfinished(&mut tx, vault, now - UNFINISHED_AFTER, BATCH).await?);
    let claimed = store::set_deleting(&mut tx, &candidates, now).await?;
    let proofs = store::list_proofs(&mut tx, &claimed).await?;
    let warrants = proofs
        .into_iter()
        .map(|row| guard::warrant(proof(row), now))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|why| Error::broken("a pack was claimed for deletion against its proof", why))?;
    if warrants.is_empty() {
        tx.rollback().await?;
        return Ok(Vec::new());
    }
    tx.commit(event(app, now, "packs.deleting", vault).detail("packs", warrants.len())).await?;
    Ok(warrants)
}

fn proof(row: store::ProofRow) -> CondemnedProof {
    CondemnedProof {
        pack: PackId::from_uuid(row.id),
        key: row.object_key,
        version_id: row.version_id.unwrap_or_default(),
        state: if row.state == "deleting" { ProvenState::Deleting } else { ProvenState::Other },
        // Without a date it counts as locked for ever.
        lock_until: row.lock_until.map_or_else(far, Timestamp::from),
        condemned_at: row.condemned_at.map_or_else(far, Timestamp::from),
        grace: GRACE,
        live_references: row.live_references.unsigned_abs(),
        older_sessions: row.older_sessions.unsigned_abs(),
    }
}

/// Later than any lock.
pub(crate) fn far() -> Timestamp {
    Timestamp::from_unix_secs(253_402_300_000).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Carries out one warrant and records what the store said. Not while the tenant is frozen.
///
/// # Errors
/// [`CollectError`]; the pack stays `deleting` and is taken up again later.
pub async fn finish_delete(
    app: &Catalog,
    scope: Scope,
    warrant: &DeleteWarrant,
) -> Result<Deletion, CollectError> {
    begin(app, scope).await?.rollback().await?;
    let outcome = app.store.delete_version(warrant).await.map_err(Error::from)?;
    let now = app.clock.now();
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    match outcome {
        Deletion::Deleted => {
            store::set_deleted(&mut tx, warrant.pack(), now).await?;
            tx.commit_operational(OperationalReason::PackBookkeeping).await?;
        }
        Deletion::Retained { until } => {
            tracing::error!(pack = %warrant.pack(), "the store refused a delete: its lock is longer than ours");
            // Held without a date: looked at again after a grace.
            let again = until.unwrap_or(now + GRACE);
            store::set_retained(&mut tx, warrant.pack(), again).await?;
            let id = EventId::fresh(&*app.ids, now);
            let actor = crate::reconciler();
            let event = AuditEvent::new(id, now, &actor, "pack.retained", "pack", &warrant.pack());
            tx.commit(event.detail("again_at", again)).await?;
        }
    }
    Ok(outcome)
}

/// Declares packs lost: no commit names them again, and commits under way start over. With the version somebody looked
/// at: a pack that was repaired meanwhile has another and is left. Gives those that are lost now.
///
/// # Errors
/// [`CollectError`].
pub async fn declare_lost(
    app: &Catalog,
    scope: Scope,
    vault: VaultId,
    packs: &[(PackId, Option<String>)],
) -> Result<Vec<PackId>, CollectError> {
    let now = app.clock.now();
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    let lost = store::set_lost(&mut tx, vault, packs).await?;
    tx.commit(event(app, now, "packs.lost", vault).detail("packs", lost.len())).await?;
    Ok(lost)
}

/// Packs of a vault that the store did not give up, each with the date it is tried again at.
///
/// # Errors
/// `not_found` for a vault the caller does not see; `validation` for a bad cursor.
pub async fn list_retained(
    app: &Catalog,
    permit: &Permit<VaultRead>,
    vault: VaultId,
    query: &PageQuery,
) -> Result<Page<RetainedPack>, Error> {
    let limit = page_limit(query.limit);
    let after = after(query.cursor.as_deref())?;
    vaults::get(app, permit, vault).await?;
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let rows = store::list_retained(&mut tx, vault, after, i64::from(limit) + 1).await?;
    let page = paging::page(rows, limit, |row| PackId::from_uuid(row.id).to_string());
    Ok(page.map(|row| RetainedPack {
        id: PackId::from_uuid(row.id),
        kind: PackKind::parse(&row.kind).unwrap_or(PackKind::Data),
        length: row.length.unsigned_abs(),
        key: row.object_key,
        condemned_at: row.condemned_at.map(Timestamp::from),
        retained_until: row.lock_until.map_or_else(far, Timestamp::from),
    }))
}

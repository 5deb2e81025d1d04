//! How long what is at second stores stays: locks as the plan says, deletions as the first store had them.
//!
//! Invariants: a lock over there is never shorter than the first store's, and follows the plan even where the first
//! store can no longer be asked; a version is deleted there only after the first store confirmed that its own is gone,
//! after this one's lock, by a warrant. Deletions are functions nobody calls on a schedule yet, as at the first store.

use authz::Scope;
use domain::{EventId, PackId, SnapshotId, TenantId, Timestamp, VaultId};
use pg::{AuditEvent, SystemReason, SystemTx, TenantTx};
use vault::{
    guard::{self, CondemnedProof, ProvenState},
    store::Deletion,
};

use super::{
    Second,
    keep_store::{self as sql, GoneRow},
    store,
};
use crate::{
    collection::{self, CollectError, GRACE, expiry_store::WithExpired, letting_go},
    error::Error,
    round::Round,
    state::Catalog,
    steward::{self, extend, store::ShortRow},
};

/// Objects of one vault that one round extends.
const BUDGET: usize = 2_000;
/// The same, and one more that says whether something is left over.
const LIMIT: i64 = 2_001;

/// One round over the second copies of every tenant. True: a budget was used up.
///
/// # Errors
/// The first copy's that failed; the others went on.
pub async fn round(app: &Catalog) -> Result<bool, Error> {
    let mut tx = SystemTx::begin(&app.db, SystemReason::LockSteward).await?;
    // Locks are kept beside whoever copies: the two do not touch each other's columns.
    let all = store::list_free(&mut tx, collection::far()).await?;
    tx.rollback().await?;
    let (mut round, mut left) = (Round::default(), false);
    for (tenant, vault) in all {
        let kept = keep(app, tenant, vault).await;
        left |= kept.as_ref().is_ok_and(|kept| kept.left_over && kept.extended > 0);
        round.note("locks of a second copy", kept.map(drop));
    }
    round.end(left)
}

/// What was done for one vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    pub extended: usize,
    pub failed: usize,
    pub left_over: bool,
}

/// Extends the locks of a vault's second copy.
///
/// # Errors
/// The database's, the configuration's; what a store refuses is an alarm.
pub async fn keep(app: &Catalog, tenant: TenantId, vault: VaultId) -> Result<Kept, Error> {
    let (now, scope) = (app.clock.now(), crate::reconciler_scope(tenant));
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    let Some(second) = super::find(app, &mut tx, vault).await? else {
        tx.rollback().await?;
        return Ok(Kept::default());
    };
    let mut short = sql::list_shorter_than_first(&mut tx, vault, &second.row.store, LIMIT).await?;
    for workload in store::list_workloads(&mut tx, vault).await? {
        let (rows, plan) = letting_go::plan(app, &mut tx, workload, WithExpired::No, now).await?;
        let staying = steward::staying(&plan, now);
        let wants = rows.iter().filter_map(|row| {
            let id = SnapshotId::from_uuid(row.id);
            Some((row.seq, id, *staying.get(&id)?))
        });
        let wanted: Vec<_> = wants.collect();
        let due = now + steward::DUE;
        let of_plan = sql::list_shorter_than_planned(
            &mut tx,
            workload,
            &wanted,
            due,
            (&second.row.store, LIMIT),
        )
        .await?;
        short.extend(of_plan);
    }
    tx.rollback().await?;
    for row in &mut short {
        row.wanted = second.term(row.wanted.into(), now).into();
    }
    let left_over = extend::soonest(&mut short, BUDGET, now);
    let mut kept = Kept { left_over, ..Kept::default() };
    for batch in short.chunks(extend::BATCH) {
        extend(app, &second, batch, now, &mut kept).await?;
    }
    Ok(kept)
}

async fn extend(
    app: &Catalog,
    second: &Second,
    batch: &[ShortRow],
    now: Timestamp,
    kept: &mut Kept,
) -> Result<(), Error> {
    let answers = extend::ask(&second.store, batch).await;
    let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(second.tenant)).await?;
    let answers = batch.iter().zip(answers);
    let told = extend::tell(app, &mut tx, Some(&second.row.store), answers, now).await?;
    let extended = told.extended.iter();
    let locks: Vec<_> = extended
        .map(|(row, until)| (row.object_key.as_str(), row.version_id.as_str(), *until))
        .collect();
    sql::set_locks(&mut tx, &locks).await?;
    extend::commit(tx, told.events).await?;
    kept.extended += locks.len();
    kept.failed += batch.len() - locks.len();
    Ok(())
}

/// Deletes copies of packs that are gone from the first store, each after its own lock. Not while the tenant is frozen.
///
/// # Errors
/// [`CollectError`]; what was deleted is recorded.
pub async fn reap(
    app: &Catalog,
    scope: Scope,
    vault: VaultId,
) -> Result<Vec<(PackId, Deletion)>, CollectError> {
    let now = app.clock.now();
    let mut tx = collection::begin(app, scope).await?;
    let second = super::find(app, &mut tx, vault).await?;
    let gone = sql::list_gone(&mut tx, vault, now, LIMIT).await?;
    tx.rollback().await?;
    let Some(second) = second else { return Ok(Vec::new()) };
    let mut deletions = Vec::new();
    for row in gone {
        let (pack, key, version) =
            (PackId::from_uuid(row.pack_id), row.object_key.clone(), row.version_id.clone());
        let warrant = guard::warrant(proof(row), now)
            .map_err(|why| Error::broken("a second copy is to go against its proof", why))?;
        collection::begin(app, scope).await?.rollback().await?;
        let outcome = second.store.delete_version(&warrant).await.map_err(Error::from)?;
        let mut tx = TenantTx::begin(&app.db, scope).await?;
        match outcome {
            Deletion::Deleted => sql::set_deleted(&mut tx, pack, &version, now).await?,
            // Longer than we thought: looked at again when that is over.
            Deletion::Retained { until } => {
                sql::set_locks(&mut tx, &[(&key, &version, until.unwrap_or(now + GRACE))]).await?;
            }
        }
        let event = AuditEvent::new(
            EventId::fresh(&*app.ids, now),
            now,
            &crate::reconciler(),
            if outcome == Deletion::Deleted { "pack.copy_deleted" } else { "pack.copy_retained" },
            "pack",
            &pack,
        );
        tx.commit(event.detail("version", version)).await?;
        deletions.push((pack, outcome));
    }
    Ok(deletions)
}

fn proof(row: GoneRow) -> CondemnedProof {
    CondemnedProof {
        pack: PackId::from_uuid(row.pack_id),
        key: row.object_key,
        version_id: row.version_id,
        state: ProvenState::Deleted,
        lock_until: row.lock_until.into(),
        // A pack that was never condemned is not deleted.
        condemned_at: row.condemned_at.map_or_else(collection::far, Timestamp::from),
        grace: GRACE,
        live_references: row.live_references.unsigned_abs(),
        older_sessions: row.older_sessions.unsigned_abs(),
    }
}

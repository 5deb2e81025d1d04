//! How long what is at second stores stays: locks as the plan says, deletions as the first store had them.
//!
//! Invariants: a lock over there is never shorter than the first store's, and follows the plan even where the first
//! store can no longer be asked; a version is deleted there only after the first store confirmed that its own is gone,
//! after this one's lock, by a warrant. Deletions are functions nobody calls on a schedule yet, as at the first store.

use std::{collections::BTreeMap, time::Duration};

use authz::Scope;
use domain::{EventId, PackId, SnapshotId, TenantId, Timestamp, VaultId};
use futures::{FutureExt as _, StreamExt as _};
use pg::{AuditEvent, OperationalReason, SystemReason, SystemTx, TenantTx};
use vault::{
    guard::{self, CondemnedProof, ProvenState},
    store::{Deletion, StoreError},
};

use super::{
    Second,
    keep_store::{self as sql, GoneRow, ShortRow},
    store,
};
use crate::{
    collection::{
        self, CollectError, GRACE,
        expiry_store::{self, WithExpired},
        letting_go,
    },
    error::Error,
    round::Round,
    state::Catalog,
    steward::{
        self,
        alarms::{self, About, Trouble},
    },
};

/// Objects of one vault that one round extends.
const BUDGET: i64 = 2_000;
const BATCH: usize = 128;
const PARALLEL: usize = 16;
/// From here on a store that does not answer is an alarm.
const LATE: Duration = Duration::from_secs(3 * 86_400);

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
    let mut short = sql::list_shorter_than_first(&mut tx, vault, BUDGET + 1).await?;
    for workload in store::list_workloads(&mut tx, vault).await? {
        let rows = expiry_store::list_candidates(&mut tx, workload, WithExpired::No).await?;
        let candidates: Vec<_> = rows.iter().map(letting_go::candidate).collect();
        let plan = domain::retention::plan(&app.retention, &candidates, now);
        let staying = steward::staying(&plan, now);
        let wants = rows.iter().filter_map(|row| {
            let id = SnapshotId::from_uuid(row.id);
            Some((row.seq, id, *staying.get(&id)?))
        });
        let wanted: Vec<_> = wants.collect();
        let due = now + steward::DUE;
        let of_plan =
            sql::list_shorter_than_planned(&mut tx, workload, &wanted, due, BUDGET + 1).await?;
        short.extend(of_plan);
    }
    tx.rollback().await?;
    let (short, left_over) = soonest(short);
    let mut kept = Kept { left_over, ..Kept::default() };
    for batch in short.chunks(BATCH) {
        extend(app, &second, batch, now, &mut kept).await?;
    }
    Ok(kept)
}

/// One line per object, the longest date wanted, those whose lock ends first, as many as the budget has.
fn soonest(rows: Vec<ShortRow>) -> (Vec<ShortRow>, bool) {
    let mut by_key: BTreeMap<String, ShortRow> = BTreeMap::new();
    for row in rows {
        let kept = by_key.entry(row.object_key.clone()).or_insert_with(|| row.clone());
        kept.wanted = kept.wanted.max(row.wanted);
    }
    let mut rows: Vec<ShortRow> = by_key.into_values().collect();
    rows.sort_by_key(|row| row.lock_until);
    let budget = usize::try_from(BUDGET).unwrap_or(usize::MAX);
    let over = rows.len() > budget;
    rows.truncate(budget);
    (rows, over)
}

async fn extend(
    app: &Catalog,
    second: &Second,
    batch: &[ShortRow],
    now: Timestamp,
    kept: &mut Kept,
) -> Result<(), Error> {
    let until = |row: &ShortRow| second.term(row.wanted.into(), now);
    let calls: Vec<_> = batch
        .iter()
        .map(|row| second.store.extend_lock(&row.object_key, &row.version_id, until(row)).boxed())
        .collect();
    let done: Vec<_> = futures::stream::iter(calls).buffered(PARALLEL).collect().await;
    let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(second.tenant)).await?;
    let (mut locks, mut keys, mut events) = (Vec::new(), Vec::new(), Vec::new());
    for (row, outcome) in batch.iter().zip(done) {
        let wanted = until(row);
        // The alarm is about this copy, not about the object of the same key at the first store.
        let key = format!("{}/{}", second.row.store, row.object_key);
        let (trouble, detail) = match outcome {
            Ok(reported) if reported >= wanted => {
                locks.push((row.object_key.clone(), reported));
                keys.push(key);
                continue;
            }
            Ok(reported) => {
                (Trouble::Short, format!("asked for {wanted}, the second store reports {reported}"))
            }
            Err(StoreError::NotFound) => {
                (Trouble::Missing, "the second store has no such version".to_owned())
            }
            Err(error) if error.retryable() && Timestamp::from(row.lock_until) >= now + LATE => {
                kept.failed += 1;
                continue;
            }
            Err(error) if error.retryable() => (Trouble::Unreached, error.to_string()),
            Err(error) => (Trouble::Refused, error.to_string()),
        };
        kept.failed += 1;
        let about = About {
            vault: second.vault,
            subject: ("replica_object", row.object_key.clone()),
            key: &key,
            version: &row.version_id,
            wanted,
        };
        events.extend(alarms::raise(app, &mut tx, &about, trouble, &detail).await?);
    }
    kept.extended += locks.len();
    sql::set_locks(&mut tx, &locks).await?;
    let over = [Trouble::Refused, Trouble::Unreached, Trouble::Short, Trouble::Missing];
    events.extend(alarms::clear(app, &mut tx, &keys, &over).await?);
    if events.is_empty() {
        tx.commit_operational(OperationalReason::PackBookkeeping).await?;
    } else {
        tx.commit_all(events).await?;
    }
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
    let gone = sql::list_gone(&mut tx, vault, now, BUDGET).await?;
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
                sql::set_locks(&mut tx, &[(key, until.unwrap_or(now + GRACE))]).await?;
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

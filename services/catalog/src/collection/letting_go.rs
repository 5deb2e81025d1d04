//! How a snapshot goes: softly by the plan, with two weeks to take it back, then for good, with a signed record.
//!
//! Invariants: only what `retention::plan` gives up expires; nothing is forgotten before its undo is over and the
//! plan was asked again; a snapshot counts as needed until its record lies in the bucket, locked for longer than its
//! receipt. Functions nobody calls on a schedule yet.

use std::{collections::BTreeSet, time::Duration};

use api::{catalog::Snapshot, problem::Code};
use authz::{Actor, Scope};
use bytes::Bytes;
use domain::{
    EventId, SnapshotId, TenantId, Timestamp, VaultId, WorkloadId,
    retention::{self, Candidate, Fate, Guard, Plan, Quality, Slot},
};
use pg::{AuditEvent, OperationalReason, SystemReason, SystemTx, TenantTx};
use vault::{id::Sha256, layout, receipt::ForgetRecord};

use super::{
    CollectError, begin,
    expiry_store::{self as sql, CandidateRow, ForgetRow, WithExpired},
};
use crate::{error::Error, packs::locks, place, round::Round, snapshots, state::Catalog};

/// How long a soft expiry can be taken back.
pub const UNDO: Duration = Duration::from_secs(14 * 86_400);
/// How much longer than everything that speaks for a snapshot its forget record is locked.
const OUTLAST: Duration = Duration::from_secs(60 * 86_400);

/// A row as the plan wants it.
fn candidate(row: &CandidateRow) -> Candidate<SnapshotId> {
    let slot = |name: &String| Slot::ALL.into_iter().find(|slot| slot.as_str() == name);
    let mut standing = BTreeSet::new();
    standing.extend(row.held.then_some(Guard::Held));
    standing.extend(row.built_on.then_some(Guard::BuiltOn));
    let quality = match row.status.as_str() {
        _ if row.damaged => Quality::Damaged,
        "succeeded" => Quality::Whole,
        _ => Quality::Partial,
    };
    Candidate {
        id: SnapshotId::from_uuid(row.id),
        seq: row.seq.unsigned_abs(),
        committed_at: row.committed_at.into(),
        slots: row.slots.iter().filter_map(slot).collect(),
        protect_until: row.protect_until.into(),
        keep_until: row.keep_until.map(Timestamp::from),
        in_use_until: row.in_use_until.map(Timestamp::from),
        quality,
        standing,
    }
}

/// A workload's snapshots, and what becomes of them now.
///
/// # Errors
/// The database's.
pub async fn plan(
    app: &Catalog,
    tx: &mut TenantTx,
    workload: WorkloadId,
    with_expired: WithExpired,
    now: Timestamp,
) -> Result<(Vec<CandidateRow>, Plan<SnapshotId>), pg::Error> {
    let rows = sql::list_candidates(tx, workload, with_expired).await?;
    let candidates: Vec<_> = rows.iter().map(candidate).collect();
    let plan = retention::plan(&app.retention, &candidates, now);
    Ok((rows, plan))
}

fn event(
    app: &Catalog,
    now: Timestamp,
    by: &Actor,
    action: &'static str,
    id: SnapshotId,
) -> AuditEvent {
    AuditEvent::new(EventId::fresh(&*app.ids, now), now, by, action, "snapshot", &id)
}

/// Softly expires what the plan of a workload gives up. Gives it.
///
/// # Errors
/// [`CollectError`].
pub async fn expire(
    app: &Catalog,
    scope: Scope,
    workload: WorkloadId,
) -> Result<Vec<SnapshotId>, CollectError> {
    let now = app.clock.now();
    let mut tx = begin(app, scope).await?;
    let (_, plan) = plan(app, &mut tx, workload, WithExpired::No, now).await?;
    let (mut expired, mut events) = (Vec::new(), Vec::new());
    for id in plan.expire {
        // Asked again under the row: a hold, a restore or a backup may have come since.
        if sql::set_expired(&mut tx, id, now).await? {
            expired.push(id);
            events.push(event(app, now, &crate::reconciler(), "snapshot.expired", id));
        }
    }
    if events.is_empty() {
        tx.rollback().await?;
    } else {
        tx.commit_all(events).await?;
    }
    Ok(expired)
}

/// Takes a soft expiry back; the plan leaves the snapshot alone for as long as an undo would have had time. False:
/// it is not expired, or gone for good.
///
/// # Errors
/// The database's.
pub async fn undo_expire(
    app: &Catalog,
    scope: Scope,
    by: &Actor,
    id: SnapshotId,
) -> Result<bool, Error> {
    let now = app.clock.now();
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    sql::lock_snapshot(&mut tx, id).await?;
    if !sql::set_unexpired(&mut tx, id, now + UNDO).await? {
        tx.rollback().await?;
        return Ok(false);
    }
    tx.commit(event(app, now, by, "snapshot.expiry_undone", id)).await?;
    Ok(true)
}

/// Takes a soft expiry back for somebody who asked. Of a snapshot that stands: nothing to do.
///
/// # Errors
/// `not_found`; `conflict` for a snapshot that was let go for good, with what is left to do.
pub async fn undo(
    app: &Catalog,
    scope: Scope,
    by: &Actor,
    id: SnapshotId,
) -> Result<Snapshot, Error> {
    undo_expire(app, scope, by, id).await?;
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    match snapshots::store::find(&mut tx, id, None).await? {
        Some(row) => Ok(row.into_dto()),
        None => Err(gone(&mut tx, id).await?),
    }
}

/// What is told about a snapshot that does not stand and cannot be made to.
///
/// # Errors
/// The database's.
pub async fn gone(tx: &mut TenantTx, id: SnapshotId) -> Result<Error, pg::Error> {
    let Some(at) = sql::find_forgotten_at(tx, id).await? else { return Ok(Error::not_found()) };
    let days = UNDO.as_secs() / 86_400;
    Ok(Error::because(
        Code::Conflict,
        format!(
            "the snapshot was let go for good on {at}, its {days} days to take it back were over, and nothing brings it back: restore from another snapshot of the workload, and place a hold on those that must stay"
        ),
    ))
}

/// Decides for good about what expired long enough ago. A snapshot the plan would keep by now, because newer ones
/// turned out damaged, comes back instead. Gives those that go.
///
/// # Errors
/// [`CollectError`].
pub async fn forget(
    app: &Catalog,
    scope: Scope,
    workload: WorkloadId,
) -> Result<Vec<SnapshotId>, CollectError> {
    let now = app.clock.now();
    let mut tx = begin(app, scope).await?;
    let due = sql::list_forgettable(&mut tx, workload, now - UNDO).await?;
    let (_, plan) = plan(app, &mut tx, workload, WithExpired::Yes, now).await?;
    let (mut gone, mut events) = (Vec::new(), Vec::new());
    for id in due {
        sql::lock_snapshot(&mut tx, id).await?;
        if plan.fate(&id) != Some(Fate::Expire) {
            if sql::set_unexpired(&mut tx, id, now + UNDO).await? {
                let back = event(app, now, &crate::reconciler(), "snapshot.expiry_undone", id);
                events.push(back.detail("reason", "it is among the last good ones again"));
            }
        } else if let Some(row) = sql::set_forgetting(&mut tx, id, now - UNDO, now).await? {
            let vault = VaultId::from_uuid(row.vault_id);
            sql::insert_forget(&mut tx, id, &record(app, scope, id, &row, now)?).await?;
            gone.push(id);
            events.push(
                event(app, now, &crate::reconciler(), "snapshot.forgotten", id)
                    .detail("vault_id", vault),
            );
        }
    }
    if events.is_empty() {
        tx.rollback().await?;
    } else {
        tx.commit_all(events).await?;
    }
    Ok(gone)
}

fn record(
    app: &Catalog,
    scope: Scope,
    snapshot: SnapshotId,
    row: &sql::ForgettingRow,
    now: Timestamp,
) -> Result<ForgetRow, Error> {
    let sha256 = row.manifest_sha256.clone().try_into();
    let sha256 =
        sha256.map_err(|_| Error::broken("a stored hash has another length", "manifest"))?;
    let (tenant, vault) = (scope.tenant(), VaultId::from_uuid(row.vault_id));
    let record = ForgetRecord {
        tenant,
        vault,
        snapshot,
        manifest: domain::PackId::from_uuid(row.manifest_id),
        manifest_sha256: Sha256(sha256),
        forgotten_at: now,
        by: "retention".into(),
        reason: "the rule does not keep it and the time to take it back is over".into(),
    };
    let outlast = row.outlast.map_or(now, Timestamp::from).max(now) + OUTLAST;
    Ok(ForgetRow {
        record: record.sign(app.receipt_key()),
        object_key: layout::forget_key(tenant, vault, snapshot),
        lock_until: locks::covering(outlast).into(),
    })
}

/// Writes records the bucket does not have yet; only then nothing is kept for their snapshots any more.
///
/// # Errors
/// The store's or the database's, of the first record that failed.
pub async fn write_round(app: &Catalog) -> Result<bool, Error> {
    let mut tx = SystemTx::begin(&app.db, SystemReason::SnapshotExpiry).await?;
    let waiting = sql::list_unstored_forgets(&mut tx).await?;
    drop(tx);
    let mut round = Round::default();
    for (tenant, snapshot) in &waiting {
        round.note("forget record", write(app, *tenant, *snapshot).await);
    }
    round.end(!waiting.is_empty())
}

async fn write(app: &Catalog, tenant: TenantId, snapshot: SnapshotId) -> Result<(), Error> {
    let scope = crate::reconciler_scope(tenant);
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    let found = sql::find_unstored_forget(&mut tx, snapshot).await?;
    drop(tx);
    let Some(row) = found else { return Ok(()) };
    let (bytes, until) = (Bytes::from(row.record), row.lock_until.into());
    let placed = place::put(&app.store, &row.object_key, &bytes, until).await?;
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    sql::lock_snapshot(&mut tx, snapshot).await?;
    sql::set_forgotten(&mut tx, snapshot, &placed.version, app.clock.now()).await?;
    Ok(tx.commit_operational(OperationalReason::JobState).await?)
}

/// One round over every tenant: expires, then forgets. Not scheduled before the record of deletions has anchors.
///
/// # Errors
/// The first workload's; the others went on.
pub async fn round(app: &Catalog) -> Result<bool, Error> {
    let mut tx = SystemTx::begin(&app.db, SystemReason::SnapshotExpiry).await?;
    let due = sql::list_workloads_due(&mut tx, app.clock.now(), UNDO).await?;
    drop(tx);
    let mut round = Round::default();
    for (tenant, workload) in &due {
        round.note("retention of a workload", settle(app, *tenant, *workload).await);
    }
    round.end(false)
}

async fn settle(app: &Catalog, tenant: TenantId, workload: WorkloadId) -> Result<(), Error> {
    let scope = crate::reconciler_scope(tenant);
    let done = match expire(app, scope, workload).await {
        Ok(_) => forget(app, scope, workload).await.map(drop),
        Err(error) => Err(error),
    };
    match done {
        // Somebody looks at it already; the freeze itself is an event.
        Ok(()) | Err(CollectError::Frozen) => Ok(()),
        Err(CollectError::Catalog(error)) => Err(error),
    }
}

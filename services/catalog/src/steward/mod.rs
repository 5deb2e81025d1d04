//! The lock steward: what is kept longer than its lock stays locked (R3), and what a certificate says about it.
//!
//! Invariants: a run asks the store about no more objects than its budget, those whose lock ends first; what is refused
//! again and again has an alarm and a share of its own, so that it is in nobody's way; a lock is
//! only ever asked to be longer than it is; what was done is recorded before the next batch, so a run can stop
//! anywhere and the next goes on; a refusal is an alarm. It decides nothing about keeping: the plan does.

pub mod alarms;
pub mod certificate;
pub mod extend;
pub mod http;
pub mod store;

use std::{collections::BTreeMap, time::Duration};

use domain::{
    PackId, SnapshotId, TenantId, Timestamp, WorkloadId,
    retention::{Kept, Plan, Until},
};
use pg::{OperationalReason, SystemReason, SystemTx, TenantTx};
use uuid::Uuid;
use vault::store::StoreError;

use crate::{
    collection::{
        expiry_store::{CandidateRow, WithExpired},
        letting_go,
    },
    error::Error,
    packs::{self, locks, store::SeenLock},
    state::Catalog,
};
use extend::Outcome;
use store::ShortRow;

/// Objects one run asks the store about; each takes two calls.
pub const BUDGET: usize = 2_000;
/// A snapshot is looked at when its locks end within this.
pub const DUE: Duration = Duration::from_secs(14 * 86_400);
/// How far ahead a lock without a known end is moved, before rounding up to a step.
pub const AHEAD: Duration = Duration::from_secs(28 * 86_400);
const PAGE: i64 = 500;

/// What one run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    pub extended: usize,
    /// Alarms or not, these are no longer than before.
    pub failed: usize,
    /// The budget was used up: there may be more.
    pub left_over: bool,
}

/// A workload with snapshots to look at again after the extensions.
struct Due {
    tenant: TenantId,
    workload: WorkloadId,
    snapshots: Vec<Uuid>,
}

/// One run over every tenant.
///
/// # Errors
/// The database's, or the store's when it answers nothing at all; what was extended is recorded.
pub async fn round(app: &Catalog, budget: usize) -> Result<Report, Error> {
    let now = app.clock.now();
    let (mut rows, mut due, mut report) = (Vec::new(), Vec::new(), Report::default());
    let mut after = None;
    loop {
        let mut tx = SystemTx::begin(&app.db, SystemReason::LockSteward).await?;
        let page = store::list_due(&mut tx, now + DUE, after, PAGE).await?;
        drop(tx);
        let Some(last) = page.last() else { break };
        after = Some(*last);
        for (tenant, workload) in page {
            let (short, snapshots) = look_at(app, tenant, workload, now, budget).await?;
            rows.extend(short);
            due.push(Due { tenant, workload, snapshots });
            if rows.len() > budget.saturating_mul(2) {
                report.left_over |= extend::soonest(&mut rows, budget, now);
            }
        }
    }
    report.left_over |= extend::soonest(&mut rows, budget, now);
    let outcome = extend_all(app, &rows, now, &mut report).await;
    for due in &due {
        let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(due.tenant)).await?;
        store::refresh_locked_until(&mut tx, due.workload, &due.snapshots).await?;
        tx.commit_operational(OperationalReason::PackBookkeeping).await?;
    }
    let mut tx = SystemTx::begin(&app.db, SystemReason::Metrics).await?;
    app.lock_figures.set_standing(store::count_alarms(&mut tx).await?);
    drop(tx);
    outcome.map(|()| report)
}

/// Which objects of a workload are locked for less long than its plan keeps their snapshots, and which snapshots
/// that concerns.
async fn look_at(
    app: &Catalog,
    tenant: TenantId,
    workload: WorkloadId,
    now: Timestamp,
    budget: usize,
) -> Result<(Vec<ShortRow>, Vec<Uuid>), Error> {
    let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(tenant)).await?;
    let (rows, plan) = letting_go::plan(app, &mut tx, workload, WithExpired::No, now).await?;
    let wanted = wanted(&plan, &rows, now);
    // One more than the budget, so that a run knows whether something is left over.
    let limit = i64::try_from(budget.saturating_add(1)).unwrap_or(i64::MAX);
    let mut short = store::list_short(&mut tx, workload, &wanted, limit).await?;
    tx.rollback().await?;
    for row in &mut short {
        row.wanted = locks::covering(row.wanted.into()).into();
    }
    Ok((short, wanted.into_iter().map(|(_, id, _)| id.uuid()).collect()))
}

/// The dates wanted for those snapshots that stay longer than they are locked and whose lock ends soon. Pure.
fn wanted(
    plan: &Plan<SnapshotId>,
    rows: &[CandidateRow],
    now: Timestamp,
) -> Vec<(i64, SnapshotId, Timestamp)> {
    let staying = staying(plan, now);
    let wants = |row: &CandidateRow| {
        let id = SnapshotId::from_uuid(row.id);
        let locked = Timestamp::from(row.locked_until);
        let until = *staying.get(&id)?;
        (locked < now + DUE && locked < until).then_some((row.seq, id, until))
    };
    rows.iter().filter_map(wants).collect()
}

/// Until when what stays is to be locked: as far as the plan says, and not further ahead than [`AHEAD`]. Pure.
pub fn staying(plan: &Plan<SnapshotId>, now: Timestamp) -> BTreeMap<SnapshotId, Timestamp> {
    let horizon = now + AHEAD;
    let date = |kept: &Kept<SnapshotId>| match kept.until {
        Until::At(end) => end.min(horizon),
        Until::Open => horizon,
    };
    plan.staying().map(|kept| (kept.id, date(kept))).collect()
}

async fn extend_all(
    app: &Catalog,
    rows: &[ShortRow],
    now: Timestamp,
    report: &mut Report,
) -> Result<(), Error> {
    for batch in rows.chunks(extend::BATCH) {
        let outcomes = extend::ask(&app.store, batch).await;
        let answered = outcomes.iter().any(|o| !matches!(o, Outcome::Unreachable(_)));
        let mut by_tenant: BTreeMap<TenantId, Vec<(&ShortRow, Outcome)>> = BTreeMap::new();
        for (row, outcome) in batch.iter().zip(outcomes) {
            by_tenant.entry(row.tenant()).or_default().push((row, outcome));
        }
        let mut silent = None;
        for (tenant, answers) in by_tenant {
            let asked = answers.len();
            let (extended, error) = record(app, tenant, answers, now).await?;
            report.extended += extended;
            report.failed += asked - extended;
            silent = error.or(silent);
        }
        // Nobody there: the next run tries again, with all of them.
        if let Some(error) = silent.filter(|_| !answered) {
            return Err(error.into());
        }
    }
    Ok(())
}

/// Writes down what the store said. Gives how many locks are longer now, and an error of a store that did not answer.
async fn record(
    app: &Catalog,
    tenant: TenantId,
    answers: Vec<(&ShortRow, Outcome)>,
    now: Timestamp,
) -> Result<(usize, Option<StoreError>), Error> {
    let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(tenant)).await?;
    let told = extend::tell(app, &mut tx, None, answers, now).await?;
    let (mut of_packs, mut of_receipts) = (Vec::new(), Vec::new());
    for (row, until) in &told.extended {
        if row.is_receipt {
            of_receipts.push((SnapshotId::from_uuid(row.id), *until));
        } else {
            let (pack, version) = (PackId::from_uuid(row.id), row.version_id.clone());
            of_packs.push(SeenLock { pack, version, until: *until });
        }
    }
    packs::store::set_locks(&mut tx, &of_packs).await?;
    store::set_receipt_locks(&mut tx, &of_receipts).await?;
    extend::commit(tx, told.events).await?;
    Ok((told.extended.len(), told.silent))
}

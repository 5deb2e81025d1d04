//! The lock steward: what is kept longer than its lock stays locked (R3), and what a certificate says about it.
//!
//! Invariants: a run asks the store about no more objects than its budget, those whose lock ends first; a lock is
//! only ever asked to be longer than it is; what was done is recorded before the next batch, so a run can stop
//! anywhere and the next goes on; a refusal is an alarm. It decides nothing about keeping: the plan does.

pub mod alarms;
pub mod certificate;
pub mod http;
pub mod store;

use std::{collections::BTreeMap, time::Duration};

use domain::{
    PackId, SnapshotId, TenantId, Timestamp, VaultId, WorkloadId,
    retention::{Kept, Plan, Until},
};
use futures::{FutureExt as _, StreamExt as _};
use pg::{OperationalReason, SystemReason, SystemTx, TenantTx};
use uuid::Uuid;
use vault::store::StoreError;

use crate::{
    collection::{
        expiry_store::{self, CandidateRow, WithExpired},
        letting_go,
    },
    error::Error,
    packs::{self, locks},
    state::Catalog,
};
use alarms::{About, Trouble};

/// Objects one run asks the store about; each takes two calls.
pub const BUDGET: usize = 2_000;
/// A snapshot is looked at when its locks end within this.
pub const DUE: Duration = Duration::from_secs(14 * 86_400);
/// How far ahead a lock without a known end is moved, before rounding up to a step.
pub const AHEAD: Duration = Duration::from_secs(28 * 86_400);
/// From here on a store that does not answer is an alarm.
const LATE: Duration = Duration::from_secs(3 * 86_400);
const PAGE: i64 = 500;
const BATCH: usize = 128;
const PARALLEL: usize = 16;

/// What one run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    pub extended: usize,
    /// Alarms or not, these are no longer than before.
    pub failed: usize,
    /// The budget was used up: there may be more.
    pub left_over: bool,
}

/// One lock to extend.
#[derive(Debug, Clone)]
struct Task {
    tenant: TenantId,
    row: store::ShortRow,
}

impl Task {
    fn ends(&self) -> (Timestamp, &str) {
        (self.row.lock_until.into(), &self.row.object_key)
    }
    fn wanted(&self) -> Timestamp {
        locks::covering(self.row.wanted.into())
    }
    fn about(&self) -> About<'_> {
        let subject = if self.row.is_receipt {
            ("snapshot", SnapshotId::from_uuid(self.row.id).to_string())
        } else {
            ("pack", PackId::from_uuid(self.row.id).to_string())
        };
        About {
            vault: VaultId::from_uuid(self.row.vault_id),
            subject,
            key: &self.row.object_key,
            version: &self.row.version_id,
            wanted: self.wanted(),
        }
    }
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
    let (mut tasks, mut due, mut report) = (Vec::new(), Vec::new(), Report::default());
    let mut after = None;
    loop {
        let mut tx = SystemTx::begin(&app.db, SystemReason::LockSteward).await?;
        let page = store::list_due(&mut tx, now + DUE, after, PAGE).await?;
        drop(tx);
        let Some(last) = page.last() else { break };
        after = Some(*last);
        for (tenant, workload) in page {
            let (short, snapshots) = look_at(app, tenant, workload, now, budget).await?;
            tasks.extend(short.into_iter().map(|row| Task { tenant, row }));
            due.push(Due { tenant, workload, snapshots });
            if tasks.len() > budget.saturating_mul(2) {
                report.left_over |= soonest(&mut tasks, budget);
            }
        }
    }
    report.left_over |= soonest(&mut tasks, budget);
    let outcome = extend_all(app, tasks, now, &mut report).await;
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

/// Keeps those whose lock ends first, one task per object. True: some were left out.
fn soonest(tasks: &mut Vec<Task>, budget: usize) -> bool {
    let mut by_key: BTreeMap<(TenantId, String), Task> = BTreeMap::new();
    for task in tasks.drain(..) {
        let entry = by_key.entry((task.tenant, task.row.object_key.clone()));
        let kept = entry.or_insert_with(|| task.clone());
        // Several snapshots may want it: the longest wins.
        kept.row.wanted = kept.row.wanted.max(task.row.wanted);
    }
    tasks.extend(by_key.into_values());
    tasks.sort_by(|a, b| a.ends().cmp(&b.ends()));
    let over = tasks.len() > budget;
    tasks.truncate(budget);
    over
}

/// Which objects of a workload are locked for less long than its plan keeps their snapshots, and which snapshots
/// that concerns.
async fn look_at(
    app: &Catalog,
    tenant: TenantId,
    workload: WorkloadId,
    now: Timestamp,
    budget: usize,
) -> Result<(Vec<store::ShortRow>, Vec<Uuid>), Error> {
    let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(tenant)).await?;
    let rows = expiry_store::list_candidates(&mut tx, workload, WithExpired::No).await?;
    let candidates: Vec<_> = rows.iter().map(letting_go::candidate).collect();
    let plan = domain::retention::plan(&app.retention, &candidates, now);
    let wanted = wanted(&plan, &rows, now);
    // One more than the budget, so that a run knows whether something is left over.
    let limit = i64::try_from(budget.saturating_add(1)).unwrap_or(i64::MAX);
    let short = store::list_short(&mut tx, workload, &wanted, limit).await?;
    tx.rollback().await?;
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

/// How one extension went.
enum Outcome {
    Extended(Timestamp),
    Trouble(Trouble, String),
    Unreachable(StoreError),
}

async fn extend_all(
    app: &Catalog,
    tasks: Vec<Task>,
    now: Timestamp,
    report: &mut Report,
) -> Result<(), Error> {
    for batch in tasks.chunks(BATCH) {
        let calls: Vec<_> = batch.iter().map(|task| extend(app, task).boxed()).collect();
        let outcomes: Vec<_> = futures::stream::iter(calls).buffered(PARALLEL).collect().await;
        let mut by_tenant: BTreeMap<TenantId, Vec<(&Task, Outcome)>> = BTreeMap::new();
        for (task, outcome) in batch.iter().zip(outcomes) {
            by_tenant.entry(task.tenant).or_default().push((task, outcome));
        }
        let (mut answered, mut silent) = (false, None);
        for (tenant, outcomes) in by_tenant {
            let extended = outcomes.iter().filter(|(_, o)| matches!(o, Outcome::Extended(_)));
            report.extended += extended.count();
            let failed = outcomes.iter().filter(|(_, o)| !matches!(o, Outcome::Extended(_)));
            report.failed += failed.count();
            answered |= outcomes.iter().any(|(_, o)| !matches!(o, Outcome::Unreachable(_)));
            silent = record(app, tenant, outcomes, now).await?.or(silent);
        }
        // Nobody there: the next run tries again, with all of them.
        if let Some(error) = silent.filter(|_| !answered) {
            return Err(error.into());
        }
    }
    Ok(())
}

async fn extend(app: &Catalog, task: &Task) -> Outcome {
    let (row, wanted) = (&task.row, task.wanted());
    match app.store.extend_lock(&row.object_key, &row.version_id, wanted).await {
        Ok(reported) if reported >= wanted => Outcome::Extended(reported),
        Ok(reported) => Outcome::Trouble(
            Trouble::Short,
            format!("asked for {wanted}, the store reports {reported}"),
        ),
        Err(StoreError::NotFound) => {
            Outcome::Trouble(Trouble::Missing, "the store has no such version".into())
        }
        Err(error) if error.retryable() => Outcome::Unreachable(error),
        Err(error) => Outcome::Trouble(Trouble::Refused, error.to_string()),
    }
}

/// Writes down what the store said, with its alarms. Gives an error of a store that did not answer.
async fn record(
    app: &Catalog,
    tenant: TenantId,
    outcomes: Vec<(&Task, Outcome)>,
    now: Timestamp,
) -> Result<Option<StoreError>, Error> {
    let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(tenant)).await?;
    let (mut of_packs, mut of_receipts, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    let (mut events, mut silent) = (Vec::new(), None);
    for (task, outcome) in outcomes {
        let (trouble, detail) = match outcome {
            Outcome::Extended(until) if task.row.is_receipt => {
                of_receipts.push((SnapshotId::from_uuid(task.row.id), until));
                keys.push(task.row.object_key.clone());
                continue;
            }
            Outcome::Extended(until) => {
                of_packs.push((PackId::from_uuid(task.row.id), until));
                keys.push(task.row.object_key.clone());
                continue;
            }
            Outcome::Trouble(trouble, detail) => (trouble, detail),
            Outcome::Unreachable(error) => {
                let late = Timestamp::from(task.row.lock_until) < now + LATE;
                let detail = error.to_string();
                silent = Some(error);
                if !late {
                    continue;
                }
                (Trouble::Unreached, detail)
            }
        };
        events.extend(alarms::raise(app, &mut tx, &task.about(), trouble, &detail).await?);
    }
    packs::store::set_locks(&mut tx, &of_packs).await?;
    store::set_receipt_locks(&mut tx, &of_receipts).await?;
    let over = [Trouble::Refused, Trouble::Unreached, Trouble::Short, Trouble::Missing];
    events.extend(alarms::clear(app, &mut tx, &keys, &over).await?);
    if events.is_empty() {
        tx.commit_operational(OperationalReason::PackBookkeeping).await?;
    } else {
        tx.commit_all(events).await?;
    }
    Ok(silent)
}

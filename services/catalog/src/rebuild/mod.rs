//! The catalog, made again from a bucket and its key store after the database was lost.
//!
//! Owns the way back: rosters that verify → manifests they vouch for → rows (R6). Manifests with a receipt are
//! committed, those with a forget record forgotten, all others unconfirmed: their packs are kept as uploaded ones, and
//! the tenant is frozen until a person has decided. Invariants: nothing is believed that is not signed; locks are
//! written as the store reports them; a vault is written in one transaction, and writing it twice changes nothing; the
//! bucket is only read.

mod gather;
mod objects;
mod plan;
mod store;

use domain::{EventId, SnapshotId, TenantId, VaultId};
use pg::{AuditEvent, TenantTx};
use serde::Serialize;

use plan::Rows;
use store::Written;

use crate::{error::Error, state::Catalog};

/// Whether to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    DryRun,
    Apply,
}

/// What was found of one vault, and what was written.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub vault_id: VaultId,
    pub members: usize,
    pub wraps: usize,
    pub workloads: usize,
    pub sessions: usize,
    pub packs: usize,
    /// Packs that a snapshot names and the store does not have.
    pub lost_packs: usize,
    pub committed: usize,
    pub forgotten: usize,
    /// Manifests nobody confirmed: their packs are kept, and collection stands still until a person decides.
    pub unconfirmed: Vec<String>,
    pub references: usize,
    /// What was not believed or could not be kept, in words.
    pub findings: Vec<String>,
    /// Rows that were not there before, or said that something stands that was forgotten; 0 in a dry run.
    pub written: u64,
}

/// Finds every vault of a tenant in its key store, and makes its rows again.
///
/// # Errors
/// The store's and the database's. What is wrong with single objects is in the reports.
pub async fn rebuild(
    app: &Catalog,
    tenant: TenantId,
    only: Option<VaultId>,
    mode: Mode,
) -> Result<Vec<Report>, Error> {
    let mut reports = Vec::new();
    for vault in gather::find_vaults(app, tenant).await? {
        if only.is_some_and(|only| only != vault) {
            continue;
        }
        let facts = gather::read_vault(app, tenant, vault).await?;
        // From the numbers that are given to the last row nothing else is committed here.
        let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(tenant)).await?;
        let known = store::lock_known(&mut tx, vault).await?;
        let rows = plan::plan((tenant, vault), facts, &known, app.clock.now());
        let mut report = report(vault, &rows);
        if mode == Mode::Apply && rows.keys.is_some() {
            let written = write(app, tx, vault, &rows).await?;
            report.written = written.rows;
            report.findings.extend(written.held.iter().map(held));
        } else {
            tx.rollback().await?;
        }
        reports.push(report);
    }
    Ok(reports)
}

fn held(id: &SnapshotId) -> String {
    format!(
        "{id}: the bucket says that it was forgotten, and it is under hold here: it stands as before; look whether its packs are there (scrub), release the hold if it is over, and repeat"
    )
}

fn report(vault: VaultId, rows: &Rows) -> Report {
    let count = |state: &str| rows.snapshots.iter().filter(|row| row.state == state).count();
    Report {
        vault_id: vault,
        members: rows.keys.as_ref().map_or(0, |keys| keys.members),
        wraps: rows.keys.as_ref().map_or(0, |keys| keys.wraps.len()),
        workloads: rows.workloads.len(),
        sessions: rows.sessions.len(),
        packs: rows.packs.len(),
        lost_packs: rows.packs.iter().filter(|pack| pack.state == "lost").count(),
        committed: count("committed"),
        forgotten: count("forgotten"),
        unconfirmed: rows.undecided.iter().map(ToString::to_string).collect(),
        references: rows.references.len(),
        findings: rows.findings.clone(),
        written: 0,
    }
}

async fn write(
    app: &Catalog,
    mut tx: TenantTx,
    vault: VaultId,
    rows: &Rows,
) -> Result<Written, Error> {
    let now = app.clock.now();
    let written = store::write(&mut tx, vault, rows, &*app.ids, now).await?;
    let actor = crate::reconciler();
    let fresh = || EventId::fresh(&*app.ids, now);
    let of_one = |id: &SnapshotId| {
        AuditEvent::new(fresh(), now, &actor, "snapshot.forgotten", "snapshot", id)
            .detail("vault_id", vault)
            .detail("reason", "a rebuild found its signed forget record in the bucket")
    };
    let mut events: Vec<AuditEvent> = written.forgotten.iter().map(of_one).collect();
    let event = AuditEvent::new(fresh(), now, &actor, "catalog.rebuilt", "vault", &vault)
        .detail("rows", written.rows)
        .detail("snapshots", rows.snapshots.len())
        .detail("packs", rows.packs.len())
        .detail("unconfirmed", rows.undecided.len());
    events.push(event);
    tx.commit_all(events).await?;
    Ok(written)
}

//! The catalog's word about commits and new workloads, delivered at least once.
//!
//! A fact is applied to what the run is when it arrives ([`settle::committed`](crate::runs::settle::committed)),
//! which makes a second delivery harmless without a list of what was received.

pub mod http;

use api::internal::{SnapshotCommitted, WorkloadCreated};
use pg::{OperationalReason, Scope, ScopeReason, TenantTx};

use crate::{
    runs::{self, Error, settle, settle::Outcome, store},
    state::Scheduler,
};

impl Scheduler {
    /// Takes a commit to its run. An unknown run is reported and taken as delivered: repeating it for ever
    /// would hold up every fact behind it.
    pub async fn snapshot_committed(&self, fact: &SnapshotCommitted) -> Result<(), Error> {
        let scope = Scope::without_permit(fact.tenant_id, ScopeReason::FactDelivery);
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        let id = fact.run_id;
        store::lock_run(tx.conn(), fact.tenant_id, id).await?;
        let Some(stored) = store::find_run(tx.conn(), fact.tenant_id, id).await? else {
            tracing::warn!(run = %id, "a snapshot was committed for a run that is not known here");
            return Ok(());
        };
        let outcome = settle::committed(stored.standing(), fact.snapshot_id, fact.exceptions);
        if outcome == Outcome::Nothing {
            return Ok(());
        }
        let now = self.clock.now();
        let ended = runs::apply(&mut tx, &stored.run, outcome, now).await?;
        if ended {
            let run = store::find_run(tx.conn(), fact.tenant_id, id).await?;
            let run = run.ok_or(Error::NotFound)?.run;
            tx.commit(runs::own_event(self, runs::ending(&stored.run), &run, now)).await?;
        } else {
            tx.commit_operational(OperationalReason::FactIngest).await?;
        }
        self.hub.wake(id.uuid());
        self.hub.wake(stored.run.agent_id.uuid());
        Ok(())
    }

    /// Takes a new workload to its policy. One that ran before this arrived is known already.
    pub async fn workload_created(&self, fact: &WorkloadCreated) -> Result<(), Error> {
        let scope = Scope::without_permit(fact.tenant_id, ScopeReason::FactDelivery);
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        let now = self.clock.now();
        runs::name_workload(&mut tx, fact.workload_id, fact.agent_id, None, now).await?;
        tx.commit_operational(OperationalReason::FactIngest).await?;
        Ok(())
    }
}

//! The reconciler of leases: a run whose lease is over is lost, one nobody fetched is missed.

use std::{sync::Arc, time::Duration};

use domain::{RunId, TenantId, Timestamp, run::RunState};
use pg::{OperationalReason, Scope, ScopeReason, SystemReason, SystemTx, TenantTx};
use runtime::Worker;

use super::{Error, own_event, store};
use crate::{policies, state::Scheduler};

const LOOK_EVERY: Duration = Duration::from_secs(5);

/// While the platform was down no agent could renew, so nothing is judged before every agent had a whole
/// lease's time to be heard again.
pub fn expire_leases(state: Arc<Scheduler>) -> Worker {
    let first = state.clock.now() + state.config.lease;
    Worker::every("expire_leases", LOOK_EVERY, move || {
        let state = state.clone();
        async move {
            let now = state.clock.now();
            if now < first { Ok(false) } else { state.expire(now).await.map(|ended| ended > 0) }
        }
    })
}

impl Scheduler {
    /// Ends what is overdue at `now`; says how many runs that were.
    pub async fn expire(&self, now: Timestamp) -> Result<usize, Error> {
        let mut system = SystemTx::begin(&self.db, SystemReason::LeaseExpiry).await?;
        let stale = now - self.config.missed_after;
        let due = store::list_overdue(system.conn(), now, stale).await?;
        drop(system);
        let mut ended = 0;
        for (tenant, id) in due {
            match self.expire_one(tenant, id, now).await {
                Ok(is_ended) => ended += usize::from(is_ended),
                // One that cannot be ended holds up nobody else's.
                Err(error) => {
                    tracing::error!(%tenant, run = %id, %error, "an overdue run was not ended");
                }
            }
        }
        Ok(ended)
    }

    async fn expire_one(&self, tenant: TenantId, id: RunId, now: Timestamp) -> Result<bool, Error> {
        let scope = Scope::without_permit(tenant, ScopeReason::Reconcile);
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        store::lock_run(tx.conn(), tenant, id).await?;
        let Some(stored) = store::find_run(tx.conn(), tenant, id).await? else { return Ok(false) };
        // Between the two looks the agent may have been heard.
        let due = match stored.run.state {
            RunState::Running => stored.lease_until.is_none_or(|until| until <= now),
            RunState::Queued => match stored.run.start_by {
                Some(until) => until <= now,
                None => {
                    !stored.run.trigger.is_planned()
                        && stored.run.created_at + self.config.missed_after <= now
                }
            },
            _ => false,
        };
        if !due {
            return Ok(false);
        }
        if stored.run.state == RunState::Queued
            && stored.run.trigger.is_planned()
            && let Some((start_after, start_by)) =
                policies::next_start(&mut tx, stored.run.workload_id, now).await?
        {
            store::set_start(tx.conn(), tenant, id, start_after, start_by).await?;
            tx.commit_operational(OperationalReason::JobState).await?;
            return Ok(false);
        }
        let run = self.lose(&mut tx, &stored, now).await?;
        let action = if run.state == RunState::Missed { "run.missed" } else { "run.lost" };
        tx.commit(own_event(self, action, &run, now)).await?;
        tracing::info!(run = %run.id, state = %run.state, "run.overdue");
        Ok(true)
    }
}

//! The scheduler: policies, runs and their leases.
//!
//! Owns when a workload is due, which run an agent may execute, until when, and how it ended. Invariants: a workload has at most one
//! running run, every lease of a workload carries a higher epoch than the one before, and a run succeeds only
//! when a snapshot is proven. It must not know packs, vaults or keys: who owns a workload is decided by the
//! catalog, and a commit reaches it as a receipt or as a fact.

mod crowd;
mod facts;
mod hub;
mod policies;
mod runs;
mod state;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use domain::{RunId, SnapshotId, TenantId};
use runtime::{Check, Platform, Role, RoleName, Worker};

use state::Scheduler;

/// A seam to the engine's receipts, which this crate may not know: the binary that links both fills it.
pub trait ReceiptVerifier: Send + Sync {
    /// What a receipt proves; `None` when the platform's key did not sign it.
    fn verify(&self, receipt: &[u8]) -> Option<ProvenCommit>;
}

/// The catalog committed this snapshot for this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvenCommit {
    pub tenant_id: TenantId,
    pub run_id: RunId,
    pub snapshot_id: SnapshotId,
}

/// How the role behaves.
#[derive(Clone)]
pub struct SchedulerConfig {
    pub receipts: Arc<dyn ReceiptVerifier>,
    /// How long a lease lasts without a heartbeat. Agents are told to renew at a third of it.
    pub lease: Duration,
    /// How long a running run may stay silent when its own agent wants to start another one. Agents that live
    /// beat every few seconds.
    pub knock: Duration,
    /// A queued run nobody fetched for so long is missed.
    pub missed_after: Duration,
}

impl SchedulerConfig {
    /// A minute of silence ends a lease, a day in the queue a run.
    pub fn new(receipts: Arc<dyn ReceiptVerifier>) -> Self {
        Self {
            receipts,
            lease: Duration::from_secs(60),
            knock: Duration::from_secs(10),
            missed_after: Duration::from_secs(24 * 3_600),
        }
    }
}

/// The role, ready to be served.
pub fn role(platform: &Platform, config: SchedulerConfig) -> Role {
    role_of(platform, Arc::new(Scheduler::new(platform, config)))
}

fn role_of(platform: &Platform, state: Arc<Scheduler>) -> Role {
    Role::new(RoleName::Scheduler)
        .public(runs::http::router(state.clone()).merge(policies::http::router(state.clone())))
        .internal(facts::http::router(state.clone()))
        .workers(runtime::relay_workers(platform))
        .worker(runs::jobs::expire_leases(state.clone()))
        .worker(policies::jobs::dispatch_due(state.clone()))
        .worker(policies::jobs::watch_objectives(state.clone()))
        .worker(end_waiting(state))
        .ready_when(Check::database(&platform.db))
}

/// Long polls and event streams end when the process stops, instead of holding it up.
fn end_waiting(state: Arc<Scheduler>) -> Worker {
    Worker::new("end_waiting", move |stop| async move {
        stop.cancelled().await;
        state.stopping.cancel();
    })
}

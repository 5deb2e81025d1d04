//! The reconcilers of policies: what is due is queued, and a breached objective is said.
//!
//! Invariant: the run and the workload's next due moment are one transaction, under the workload's row, so that a tick
//! makes one run whichever replica sees it, and none is lost with the replica that died.

use std::{collections::HashMap, sync::Arc, time::Duration};

use api::{
    policy::Schedule,
    scheduler::{RunSource, Trigger},
};
use domain::{Id, RunId, TenantId, Timestamp, WorkloadId, run::RunState};
use pg::{AuditEvent, Scope, ScopeReason, SystemReason, SystemTx, TenantTx};
use runtime::Worker;

use super::{
    standing::{self, Dispatch},
    store::{self, Due},
    timetable::Timetable,
};
use crate::{
    runs::{self, Error, store::NewRun},
    state::Scheduler,
};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Of one tenant in one transaction, and tenants in one look.
const BATCH: i64 = 200;
const TENANTS: i64 = 100;

pub fn dispatch_due(state: Arc<Scheduler>) -> Worker {
    Worker::every("dispatch_due", LOOK_EVERY, move || {
        let state = state.clone();
        async move { state.dispatch(state.clock.now()).await.map(|done| done > 0) }
    })
}

pub fn watch_objectives(state: Arc<Scheduler>) -> Worker {
    Worker::every("watch_objectives", LOOK_EVERY * 15, move || {
        let state = state.clone();
        async move { state.say_breaches(state.clock.now()).await.map(|said| said > 0) }
    })
}

/// How long a plan that cannot be read is left alone.
const UNREADABLE_AGAIN: Duration = Duration::from_secs(300);

impl Due {
    /// What a run of it reads: what the plan says, or what the last run read.
    fn source(&self) -> Option<RunSource> {
        let planned = self.standing.plan.as_ref().and_then(|plan| plan.settings.source.clone());
        planned.or_else(|| self.source.clone())
    }
}

/// Many workloads follow one policy: its schedule is read once a batch.
#[derive(Default)]
struct Tables(HashMap<String, Option<Arc<Timetable>>>);

impl Tables {
    fn get(&mut self, schedule: &Schedule) -> Option<Arc<Timetable>> {
        let key = serde_json::to_string(schedule).unwrap_or_default();
        let read = || Timetable::parse(schedule).ok().map(Arc::new);
        self.0.entry(key).or_insert_with(read).clone()
    }
}

impl Scheduler {
    /// Queues what is due at `now`, of every tenant in turn; says how many workloads that were.
    pub async fn dispatch(&self, now: Timestamp) -> Result<usize, Error> {
        let mut system = SystemTx::begin(&self.db, SystemReason::Dispatch).await?;
        let tenants = store::list_tenants_due(system.conn(), now, TENANTS).await?;
        drop(system);
        let mut done = 0;
        for tenant in tenants {
            // One batch each: a tenant with ten thousand machines does not hold up one with three, and one in which it
            // fails holds up nobody.
            match self.dispatch_in(tenant, now).await {
                Ok(taken) => done += taken,
                Err(error) => {
                    tracing::error!(%tenant, %error, "due runs of a tenant were not queued");
                }
            }
        }
        Ok(done)
    }

    async fn dispatch_in(&self, tenant: TenantId, now: Timestamp) -> Result<usize, Error> {
        let mut tx = TenantTx::begin(&self.db, reconcile(tenant)).await?;
        let due = store::take_due(tx.conn(), tenant, now, BATCH).await?;
        let (mut events, mut wake, mut tables) = (Vec::new(), Vec::new(), Tables::default());
        let taken = due.len();
        for mut one in due {
            let schedule =
                one.standing.plan.as_ref().and_then(|plan| plan.settings.schedule.clone());
            let table = schedule.and_then(|schedule| tables.get(&schedule));
            let Some(table) = table else {
                // Written by a newer version, or by hand: looked at again later, and left as it is.
                one.standing.due_at = one.standing.due_at.map(|_| now + UNREADABLE_AGAIN);
                store::set_standing(tx.conn(), tenant, &one.standing).await?;
                continue;
            };
            let waiting = store::find_waiting(tx.conn(), tenant, one.standing.workload_id).await?;
            if waiting.is_some_and(|waiting| {
                !waiting.is_planned && Some(&waiting.source) != one.source().as_ref()
            }) {
                // Somebody asked for a run that reads something else: this one comes after it.
                one.standing.due_at = Some(now + LOOK_EVERY * 10);
                store::set_standing(tx.conn(), tenant, &one.standing).await?;
                continue;
            }
            let (due_at, is_retry) = (one.standing.due_at, one.standing.is_retry);
            let dispatch = standing::dispatch(&mut one.standing, &table, now);
            let queued = self.make_run(&mut tx, &one, dispatch, due_at, is_retry, now).await?;
            if let Some((_, false)) = queued
                && dispatch != Dispatch::Missed
            {
                // It failed before it began: nobody said what to read.
                one.standing.failures = one.standing.failures.saturating_add(1);
            }
            store::set_standing(tx.conn(), tenant, &one.standing).await?;
            if let Some((event, is_waiting)) = queued {
                events.push(event);
                wake.extend(is_waiting.then_some(one.agent_id));
            }
        }
        if events.is_empty() {
            tx.commit_operational(pg::OperationalReason::JobState).await?;
        } else {
            tx.commit_all(events).await?;
        }
        for agent in wake {
            self.hub.wake(agent.uuid());
        }
        Ok(taken)
    }

    /// The run of a tick, queued or ended before it began; none when one waits already, which does for both.
    async fn make_run(
        &self,
        tx: &mut TenantTx,
        due: &Due,
        dispatch: Dispatch,
        due_at: Option<Timestamp>,
        is_retry: bool,
        now: Timestamp,
    ) -> Result<Option<(AuditEvent, bool)>, Error> {
        let tenant = tx.tenant();
        let source = due.source();
        let (start_after, start_by) = match dispatch {
            Dispatch::Queue(start) => start,
            Dispatch::Missed => (None, None),
        };
        let empty = RunSource::default();
        let run = NewRun {
            id: RunId::fresh(self.ids.as_ref(), now),
            workload_id: due.standing.workload_id,
            agent_id: due.agent_id,
            trigger: if is_retry { Trigger::Retry } else { Trigger::Schedule },
            source: source.as_ref().unwrap_or(&empty),
            now,
            request: None,
            policy_id: due.standing.plan.as_ref().map(|plan| plan.policy_id),
            due_at,
            start_after,
            start_by,
        };
        if !runs::store::insert_waiting(tx.conn(), tenant, &run).await? {
            return Ok(None);
        }
        let end = match (dispatch, source.is_some()) {
            (Dispatch::Missed, _) => Some((
                RunState::Missed,
                "it could not be started in its time, because the platform was not running then; the schedule does \
                 not make up for missed runs (run_if_missed)",
            )),
            (_, false) => Some((
                RunState::Failed,
                "nothing is chosen to back up: name paths in the policy's source, or start the first backup on the \
                 machine itself",
            )),
            _ => None,
        };
        let action = match end {
            Some((state, words)) => {
                runs::store::end_unstarted(tx.conn(), tenant, run.id, state, words, now).await?;
                if state == RunState::Missed { "run.missed" } else { "run.finished" }
            }
            None => "run.queued",
        };
        let made =
            runs::store::find_run(tx.conn(), tenant, run.id).await?.ok_or(Error::NotFound)?.run;
        Ok(Some((runs::own_event(self, action, &made, now), end.is_none())))
    }

    /// Says of workloads whose newest good backup is older than their objective allows that it is; how many.
    pub async fn say_breaches(&self, now: Timestamp) -> Result<usize, Error> {
        let mut system = SystemTx::begin(&self.db, SystemReason::Objectives).await?;
        let breached = store::list_breached(system.conn(), now, 500).await?;
        drop(system);
        let mut said = 0;
        for (tenant, workload) in breached {
            match self.say_breach(tenant, workload, now).await {
                Ok(is_said) => said += usize::from(is_said),
                Err(error) => {
                    tracing::error!(%tenant, %workload, %error, "a breached objective was not said");
                }
            }
        }
        Ok(said)
    }

    async fn say_breach(
        &self,
        tenant: TenantId,
        workload: WorkloadId,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let mut tx = TenantTx::begin(&self.db, reconcile(tenant)).await?;
        let Some(mut standing) = store::lock_standing(tx.conn(), tenant, workload).await? else {
            return Ok(false);
        };
        // Between the two looks a run may have succeeded.
        let still = standing.rpo_due_at.is_some_and(|due| due <= now);
        if !still || standing.rpo_breached_at.is_some() {
            return Ok(false);
        }
        standing.rpo_breached_at = standing.rpo_due_at;
        store::set_standing(tx.conn(), tenant, &standing).await?;
        let actor = authz::Actor::Service { name: "scheduler".to_owned() };
        let id = Id::fresh(self.ids.as_ref(), now);
        let event = AuditEvent::new(id, now, &actor, "rpo.breached", "workload", &workload)
            .detail("since", standing.rpo_due_at)
            .detail("protected_at", standing.protected_at);
        tx.commit(event).await?;
        Ok(true)
    }
}

const fn reconcile(tenant: TenantId) -> Scope {
    Scope::without_permit(tenant, ScopeReason::Reconcile)
}

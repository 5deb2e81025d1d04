//! Handing out leases: to an agent that starts a run itself, and to one that polls for queued ones.
//!
//! The workload's row is held while a lease is handed out, so that of two takers one waits and then sees
//! what the other did. The epoch is raised before the lease leaves: a paused agent that wakes later must
//! lose the race when it opens its session.

use std::time::Duration;

use api::scheduler::{Assignment, CreateRun, Run, Trigger};
use domain::{AgentId, RunId, Timestamp, WorkloadId, run::RunState};
use pg::{AuditEvent, Scope, TenantTx};
use runtime::{Cx, LeaseClaims};
use tokio::time::Instant;

use super::{
    Error, Request, apply, event, name_workload, overlapping, own_event, replayed, require, settle,
    settle::Outcome,
    store::{self, Grant, NewRun, Stored},
    validate,
};
use crate::state::Scheduler;

/// Between two looks at the database while an agent waits: another replica may have queued something.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A running run in the way, and its lease as it was seen: a heartbeat changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Busy {
    run: RunId,
    until: Timestamp,
}

enum Way {
    Clear(Vec<AuditEvent>),
    Busy(Busy),
}

enum Local {
    Started(Box<Assignment>),
    Busy(Busy),
}

impl Scheduler {
    /// An agent's own run, leased to it at once.
    ///
    /// A workload runs once at a time. If a run of it is running already, the door is knocked at: an agent that
    /// lives beats every few seconds, and the caller is told of the conflict; one that was killed does not, and
    /// its run is ended, so that the backup after a crash does not have to wait for the lease.
    pub async fn start_local(
        &self,
        cx: &Cx,
        scope: Scope,
        agent: AgentId,
        body: &CreateRun,
        key: Option<&str>,
    ) -> Result<Assignment, Error> {
        body.source.as_ref().map_or(Ok(()), validate::source)?;
        let request = Request::new(cx, body, key)?;
        let answer_by = Instant::now() + self.config.knock;
        let mut seen = None;
        loop {
            // Only silence for the whole time is silence: a wake may tell of something else than a heartbeat, or
            // of one that came before the lease was read.
            let silent = seen.filter(|_| Instant::now() >= answer_by);
            match self.try_local(cx, scope, agent, body, request.as_ref(), silent).await? {
                Local::Started(assignment) => return Ok(*assignment),
                Local::Busy(busy) if seen.is_none_or(|earlier| earlier == busy) => {
                    seen = Some(busy);
                    let place = self.hub.watch(busy.run.uuid());
                    let _ = tokio::time::timeout_at(answer_by, place.notified()).await;
                }
                Local::Busy(busy) => {
                    return Err(Error::Conflict(format!(
                        "run {} of this workload is running; wait for it, or cancel it (unless its agent is \
                         heard again, its lease ends at {})",
                        busy.run, busy.until
                    )));
                }
            }
        }
    }

    async fn try_local(
        &self,
        cx: &Cx,
        scope: Scope,
        agent: AgentId,
        body: &CreateRun,
        request: Option<&Request>,
        silent: Option<Busy>,
    ) -> Result<Local, Error> {
        let (tenant, now) = (scope.tenant(), cx.now());
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        if let Some(earlier) = replayed(&mut tx, request).await? {
            return Ok(Local::Started(Box::new(self.assignment(earlier, now)?)));
        }
        if let Some(source) = &body.source {
            name_workload(&mut tx, body.workload_id, agent, Some(source), now).await?;
        }
        let known = store::lock_workload(tx.conn(), tenant, body.workload_id).await?;
        let workload = known.ok_or(Error::NoSources)?;
        if workload.agent_id != agent {
            return Err(Error::NotFound);
        }
        let mut events = match self.clear_way(&mut tx, body.workload_id, now, silent).await? {
            Way::Clear(events) => events,
            Way::Busy(busy) => return Ok(Local::Busy(busy)),
        };
        let source = body.source.as_ref().or(workload.source.as_ref()).ok_or(Error::NoSources)?;
        store::set_workload_source(tx.conn(), tenant, body.workload_id, source).await?;
        let grant = self.grant(&mut tx, body.workload_id, now).await?;
        let run = NewRun {
            id: cx.id(),
            workload_id: body.workload_id,
            agent_id: agent,
            trigger: Trigger::Local,
            source,
            now,
            request: request.map(|r| (r.key.as_str(), r.digest.as_slice())),
            policy_id: None,
            due_at: None,
            start_after: None,
            start_by: None,
        };
        store::insert_run(tx.conn(), tenant, &run, Some(grant)).await.map_err(overlapping)?;
        let stored = require(&mut tx, run.id).await?;
        events.push(event(cx, "run.started", &stored.run).detail("epoch", stored.epoch));
        tx.commit_all(events).await?;
        Ok(Local::Started(Box::new(self.assignment(stored, now)?)))
    }

    /// Waits up to `wait` for a queued run of this agent.
    pub async fn poll(
        &self,
        cx: &Cx,
        scope: Scope,
        agent: AgentId,
        wait: Duration,
    ) -> Result<Option<Assignment>, Error> {
        let until = tokio::time::Instant::now() + wait;
        let place = self.hub.watch(agent.uuid());
        loop {
            let woken = place.notified();
            tokio::pin!(woken);
            // Before looking, so that what is queued while we look wakes us.
            woken.as_mut().enable();
            if let Some(assignment) = self.take(cx, scope, agent).await? {
                return Ok(Some(assignment));
            }
            let now = tokio::time::Instant::now();
            if now >= until || self.stopping.is_cancelled() {
                return Ok(None);
            }
            tokio::select! {
                () = woken => {}
                () = self.stopping.cancelled() => {}
                () = tokio::time::sleep_until(until.min(now + LOOK_EVERY)) => {}
            }
        }
    }

    /// One look: the oldest queued run of this agent that nobody else takes at this moment.
    async fn take(
        &self,
        cx: &Cx,
        scope: Scope,
        agent: AgentId,
    ) -> Result<Option<Assignment>, Error> {
        let (tenant, now) = (scope.tenant(), cx.now());
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        let Some((id, workload)) = store::take_queued(tx.conn(), tenant, agent, now).await? else {
            return Ok(None);
        };
        store::lock_workload(tx.conn(), tenant, workload).await?;
        let Way::Clear(mut events) = self.clear_way(&mut tx, workload, now, None).await? else {
            // A local run started between our two looks: this one stays in the queue.
            tx.rollback().await?;
            return Ok(None);
        };
        let grant = self.grant(&mut tx, workload, now).await?;
        if store::start_run(tx.conn(), tenant, id, grant, now).await? == 0 {
            tx.rollback().await?;
            return Ok(None);
        }
        let stored = require(&mut tx, id).await?;
        events.push(event(cx, "run.started", &stored.run).detail("epoch", stored.epoch));
        tx.commit_all(events).await?;
        self.hub.wake(id.uuid());
        self.assignment(stored, now).map(Some)
    }

    /// No other run of the workload may be running. One whose lease is over, or that did not answer a knock, is
    /// ended here.
    async fn clear_way(
        &self,
        tx: &mut TenantTx,
        workload: WorkloadId,
        now: Timestamp,
        silent: Option<Busy>,
    ) -> Result<Way, Error> {
        let tenant = tx.tenant();
        let Some(run) = store::find_running(tx.conn(), tenant, workload).await? else {
            return Ok(Way::Clear(Vec::new()));
        };
        let stored = require(tx, run).await?;
        if let Some(until) = stored.lease_until.filter(|until| *until > now) {
            let busy = Busy { run, until };
            if silent != Some(busy) {
                return Ok(Way::Busy(busy));
            }
        }
        let run = self.lose(tx, &stored, now).await?;
        Ok(Way::Clear(vec![own_event(self, "run.lost", &run, now)]))
    }

    /// Ends a run whose lease is over, or that was never fetched. Its row is held by the caller.
    pub(super) async fn lose(
        &self,
        tx: &mut TenantTx,
        stored: &Stored,
        now: Timestamp,
    ) -> Result<Run, Error> {
        let state = match stored.run.state {
            RunState::Queued => RunState::Missed,
            _ => settle::lease_over(stored.standing()),
        };
        let end = Outcome::End { state, snapshot: stored.run.snapshot_id };
        apply(tx, &stored.run, end, now).await?;
        self.hub.wake(stored.run.id.uuid());
        Ok(require(tx, stored.run.id).await?.run)
    }

    async fn grant(
        &self,
        tx: &mut TenantTx,
        workload: WorkloadId,
        now: Timestamp,
    ) -> Result<Grant, Error> {
        let tenant = tx.tenant();
        let epoch = store::next_epoch(tx.conn(), tenant, workload).await?;
        Ok(Grant { epoch, until: now + self.config.lease })
    }

    /// What the agent gets: the run and the token that opens the catalog's session.
    fn assignment(&self, stored: Stored, now: Timestamp) -> Result<Assignment, Error> {
        let running = stored.lease_until.filter(|_| stored.run.state == RunState::Running);
        let Some(lease_until) = running else {
            return Err(Error::Conflict(format!("the run is {} already", stored.run.state)));
        };
        let claims = LeaseClaims {
            tenant: stored.run.tenant_id,
            agent: stored.run.agent_id,
            workload: stored.run.workload_id,
            run: stored.run.id,
            epoch: stored.epoch,
            lease_until,
        };
        let lease_token = self.keys.sign_lease(&claims, now)?;
        Ok(Assignment { run: stored.run, epoch: stored.epoch, lease_until, lease_token })
    }
}

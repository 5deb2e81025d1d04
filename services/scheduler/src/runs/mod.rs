//! Runs: asked for, leased, kept alive, ended.
//!
//! Use cases only; what ends how is decided in [`settle`], what may enter in [`validate`].

pub mod http;
pub mod jobs;
mod lease;
pub mod settle;
pub mod store;
pub(crate) mod validate;

use api::{
    Page, Problem,
    scheduler::{
        CreateRun, FinishRun, HeartbeatReply, Run, RunHeartbeat, RunQuery, RunSource, Trigger,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::{AgentId, Id, RunId, SnapshotId, TenantId, Timestamp, WorkloadId, run::RunState};
use pg::{AuditEvent, OperationalReason, Scope, TenantTx};
use runtime::{Cx, idempotency};
use sha2::{Digest as _, Sha256};

use crate::{policies, state::Scheduler};
use settle::Outcome;
use store::{Grant, NewRun, Stored};

const QUEUED_KEY: &str = "runs_tenant_id_workload_id_queued_key";
const RUNNING_KEY: &str = "runs_tenant_id_workload_id_running_key";
const REQUEST_KEY: &str = "runs_tenant_id_request_key_key";

/// Why a use case did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not there, or not the caller's.
    #[error("there is no such run or workload")]
    NotFound,
    /// The state does not allow it; says what to do.
    #[error("{0}")]
    Conflict(String),
    #[error("nothing is chosen to back up yet")]
    NoSources,
    #[error("{0}")]
    LeaseLost(String),
    #[error("agents start their runs by local-runs")]
    AgentsStartLocally,
    #[error("the request is not acceptable")]
    Invalid(Problem),
    #[error("the database did not do it")]
    Database(#[from] pg::Error),
    #[error("the catalog did not answer")]
    Catalog(#[from] api::client::Error),
    #[error("the lease token cannot be signed")]
    Token(#[from] runtime::TokenError),
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Invalid(problem)
    }
}

/// Who asked for a run under which idempotency key.
struct Request {
    key: String,
    digest: Vec<u8>,
}

impl Request {
    fn new(cx: &Cx, body: &CreateRun, key: Option<&str>) -> Result<Option<Self>, Error> {
        let Some(key) = key else { return Ok(None) };
        idempotency::check(key)?;
        let text = serde_json::to_vec(body).unwrap_or_default();
        let key = format!("{}:{key}", cx.actor.id());
        Ok(Some(Self { key, digest: Sha256::digest(text).to_vec() }))
    }
}

impl Scheduler {
    /// A person's "run now": queued until the workload's agent fetches it.
    pub async fn queue_run(
        &self,
        cx: &Cx,
        scope: Scope,
        body: &CreateRun,
        key: Option<&str>,
    ) -> Result<Run, Error> {
        if cx.actor.agent_id().is_some() {
            return Err(Error::AgentsStartLocally);
        }
        body.source.as_ref().map_or(Ok(()), validate::source)?;
        let request = Request::new(cx, body, key)?;
        let tenant = scope.tenant();
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        if let Some(earlier) = replayed(&mut tx, request.as_ref()).await? {
            return Ok(earlier.run);
        }
        drop(tx);
        let now = cx.now();
        self.learn_workload(scope, body.workload_id, now).await?;
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        let known = store::lock_workload(tx.conn(), tenant, body.workload_id).await?;
        let workload = known.ok_or(Error::NotFound)?;
        let planned = policies::store::find_source(tx.conn(), tenant, body.workload_id).await?;
        let source = body.source.as_ref().or(planned.as_ref()).or(workload.source.as_ref());
        let source = source.ok_or(Error::NoSources)?;
        if let Some(waiting) =
            policies::store::find_waiting(tx.conn(), tenant, body.workload_id).await?
            && waiting.is_planned
            && waiting.source == *source
        {
            // It waits for its window, or for its machine: now is what was asked for.
            let start_by = Some(now + self.config.missed_after);
            store::set_start(tx.conn(), tenant, waiting.id, None, start_by).await?;
            let run = require(&mut tx, waiting.id).await?.run;
            tx.commit(event(cx, "run.advanced", &run)).await?;
            self.hub.wake(run.agent_id.uuid());
            return Ok(run);
        }
        let run = NewRun {
            id: cx.id(),
            workload_id: body.workload_id,
            agent_id: workload.agent_id,
            trigger: Trigger::Manual,
            source,
            now,
            request: request.as_ref().map(|r| (r.key.as_str(), r.digest.as_slice())),
            policy_id: None,
            due_at: None,
            start_after: None,
            start_by: Some(now + self.config.missed_after),
        };
        store::insert_run(tx.conn(), tenant, &run, None).await.map_err(overlapping)?;
        if body.source.is_some() {
            store::set_workload_source(tx.conn(), tenant, run.workload_id, source).await?;
        }
        let made = require(&mut tx, run.id).await?.run;
        tx.commit(event(cx, "run.queued", &made)).await?;
        self.hub.wake(made.agent_id.uuid());
        Ok(made)
    }

    /// Makes a workload known that only the catalog knows so far, and plans it. The catalog is asked outside of any
    /// transaction.
    pub async fn learn_workload(
        &self,
        scope: Scope,
        id: WorkloadId,
        now: Timestamp,
    ) -> Result<(), Error> {
        let tenant = scope.tenant();
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        if store::knows_workload(tx.conn(), tenant, id).await? {
            return Ok(());
        }
        drop(tx);
        let found = self.workload_of_catalog(tenant, id).await?.ok_or(Error::NotFound)?;
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        name_workload(&mut tx, found.id, found.agent_id, None, now).await?;
        tx.commit_operational(OperationalReason::FactIngest).await?;
        Ok(())
    }

    /// One run. People of the tenant see every one, an agent (`reader`) its own: paths and names of files of
    /// other machines are not its business.
    pub async fn get_run(
        &self,
        scope: Scope,
        reader: Option<AgentId>,
        id: RunId,
    ) -> Result<Run, Error> {
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        let stored = match reader {
            Some(agent) => own(&mut tx, agent, id).await?,
            None => require(&mut tx, id).await?,
        };
        Ok(stored.run)
    }

    /// Newest first; for an agent its own.
    pub async fn list_runs(
        &self,
        scope: Scope,
        reader: Option<AgentId>,
        query: &RunQuery,
    ) -> Result<Page<Run>, Error> {
        let limit = query.limit.unwrap_or(100).clamp(1, 1_000);
        let before = match &query.cursor {
            Some(text) => Some(text.parse::<RunId>().map_err(|_| {
                Problem::validation("cursor", "hand back next_cursor as it was given")
            })?),
            None => None,
        };
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        let one_more = i64::from(limit) + 1;
        let tenant = scope.tenant();
        let mut found =
            store::list_runs(tx.conn(), tenant, reader, query.workload_id, before, one_more)
                .await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = found.len() > limit;
        found.truncate(limit);
        let items: Vec<Run> = found.into_iter().map(|stored| stored.run).collect();
        let next_cursor = items.last().filter(|_| more).map(|run| run.id.to_string());
        Ok(Page { items, next_cursor })
    }

    /// Renews the lease; the agent learns whether to stop.
    pub async fn heartbeat(
        &self,
        cx: &Cx,
        scope: Scope,
        agent: AgentId,
        id: RunId,
        body: &RunHeartbeat,
    ) -> Result<HeartbeatReply, Error> {
        validate::progress(&body.progress)?;
        let grant = Grant { epoch: epoch(body.epoch), until: cx.now() + self.config.lease };
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        let tenant = scope.tenant();
        let renewed =
            store::renew_lease(tx.conn(), tenant, id, agent, grant, &body.progress).await?;
        let Some(cancel) = renewed else {
            let stored = own(&mut tx, agent, id).await?;
            return Err(lease_lost(&stored, body.epoch));
        };
        tx.commit_operational(OperationalReason::Heartbeat).await?;
        self.hub.wake(id.uuid());
        Ok(HeartbeatReply { lease_until: grant.until, cancel })
    }

    /// The agent's report. Success needs proof; without a receipt the run waits for the catalog's word.
    pub async fn finish(
        &self,
        cx: &Cx,
        scope: Scope,
        agent: AgentId,
        id: RunId,
        mut body: FinishRun,
    ) -> Result<Run, Error> {
        validate::progress(&body.progress)?;
        // Listed is skipped, whatever the figures say.
        let listed = u64::try_from(body.exceptions.len()).unwrap_or(u64::MAX);
        body.progress.exceptions = body.progress.exceptions.max(listed);
        if !body.state.is_final() || matches!(body.state, RunState::Missed | RunState::Lost) {
            let words = "succeeded, succeeded_with_exceptions, failed or canceled";
            return Err(Problem::validation("state", words).into());
        }
        let proof = self.proof(scope.tenant(), id, &body)?;
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        let tenant = scope.tenant();
        store::lock_run(tx.conn(), tenant, id).await?;
        let stored = own(&mut tx, agent, id).await?;
        if stored.epoch != body.epoch {
            return Err(lease_lost(&stored, body.epoch));
        }
        let outcome =
            settle::finish(stored.standing(), body.state, body.progress.exceptions, proof)
                .map_err(|refused| match refused {
                    settle::Refused::NotLeased => lease_lost(&stored, body.epoch),
                    settle::Refused::Ended(_) => Error::Conflict(refused.to_string()),
                })?;
        if outcome == Outcome::Nothing {
            return Ok(stored.run);
        }
        let exceptions = validate::exceptions(body.exceptions);
        let error = body.error.as_deref().map(validate::error_text);
        store::set_report(tx.conn(), tenant, id, &body.progress, &exceptions, error.as_deref())
            .await?;
        let ended = apply(&mut tx, &stored.run, outcome, cx.now()).await?;
        let run = require(&mut tx, id).await?.run;
        if ended {
            tx.commit(event(cx, ending(&stored.run), &run)).await?;
        } else {
            tx.commit_operational(OperationalReason::Progress).await?;
        }
        self.hub.wake(id.uuid());
        // The next queued run of the workload may start now.
        self.hub.wake(agent.uuid());
        Ok(run)
    }

    /// What a receipt proves about this run, if one was handed in.
    fn proof(
        &self,
        tenant: TenantId,
        id: RunId,
        body: &FinishRun,
    ) -> Result<Option<SnapshotId>, Problem> {
        let Some(text) = &body.receipt else { return Ok(None) };
        let wrong = |detail: &str| Problem::validation("receipt", detail);
        let bytes = BASE64.decode(text).map_err(|_| wrong("must be base64"))?;
        let proven = self.config.receipts.verify(&bytes);
        let proven = proven.ok_or_else(|| wrong("is not signed by this platform"))?;
        if proven.tenant_id != tenant || proven.run_id != id {
            return Err(wrong("is of another run"));
        }
        if body.snapshot_id.is_some_and(|named| named != proven.snapshot_id) {
            return Err(Problem::validation("snapshot_id", "is not the one of the receipt"));
        }
        Ok(Some(proven.snapshot_id))
    }

    /// A queued run ends at once; a running one is told at its next heartbeat.
    pub async fn cancel(&self, cx: &Cx, scope: Scope, id: RunId) -> Result<Run, Error> {
        let mut tx = TenantTx::begin(&self.db, scope).await?;
        let tenant = scope.tenant();
        store::lock_run(tx.conn(), tenant, id).await?;
        let stored = require(&mut tx, id).await?;
        let action = match stored.run.state {
            RunState::Queued => {
                let end = Outcome::End { state: RunState::Canceled, snapshot: None };
                apply(&mut tx, &stored.run, end, cx.now()).await?;
                "run.canceled"
            }
            RunState::Running if !stored.run.cancel_requested => {
                store::set_cancel_requested(tx.conn(), tenant, id).await?;
                "run.cancel_requested"
            }
            RunState::Running | RunState::Canceled => return Ok(stored.run),
            ended => return Err(Error::Conflict(format!("the run has ended as {ended}"))),
        };
        let run = require(&mut tx, id).await?.run;
        tx.commit(event(cx, action, &run)).await?;
        self.hub.wake(id.uuid());
        Ok(run)
    }
}

/// Makes a workload known and, if it was not, plans it: the tenant's default policy may hold for it.
pub(crate) async fn name_workload(
    tx: &mut TenantTx,
    id: WorkloadId,
    agent: AgentId,
    source: Option<&RunSource>,
    now: Timestamp,
) -> Result<(), Error> {
    let tenant = tx.tenant();
    if store::knows_workload(tx.conn(), tenant, id).await? {
        return Ok(());
    }
    // A policy that is being saved does not see this workload yet, nor we the policy: one of the two waits. Before
    // the row is made: whoever holds policies may be about to make it too.
    policies::store::lock(tx.conn(), tenant).await?;
    if store::insert_workload(tx.conn(), tenant, id, agent, source, now).await? {
        policies::plan_new(tx, id, now).await?;
    }
    Ok(())
}

/// The run an earlier request under the same key made.
async fn replayed(tx: &mut TenantTx, request: Option<&Request>) -> Result<Option<Stored>, Error> {
    let Some(request) = request else { return Ok(None) };
    let tenant = tx.tenant();
    let Some(id) = store::find_request(tx.conn(), tenant, &request.key).await? else {
        return Ok(None);
    };
    let earlier = require(tx, id).await?;
    if earlier.request_digest.as_ref() != Some(&request.digest) {
        return Err(Error::Conflict(idempotency::USED_UP.to_owned()));
    }
    Ok(Some(earlier))
}

async fn require(tx: &mut TenantTx, id: RunId) -> Result<Stored, Error> {
    let tenant = tx.tenant();
    store::find_run(tx.conn(), tenant, id).await?.ok_or(Error::NotFound)
}

/// The run, if it is this agent's; another agent's does not exist.
async fn own(tx: &mut TenantTx, agent: AgentId, id: RunId) -> Result<Stored, Error> {
    let stored = require(tx, id).await?;
    if stored.run.agent_id == agent { Ok(stored) } else { Err(Error::NotFound) }
}

/// Writes an outcome down; true when the run ended by it. The run's row is held by the caller.
pub(crate) async fn apply(
    tx: &mut TenantTx,
    run: &Run,
    outcome: Outcome,
    now: Timestamp,
) -> Result<bool, Error> {
    let tenant = tx.tenant();
    match outcome {
        Outcome::Nothing => Ok(false),
        Outcome::Remember { claimed, snapshot } => {
            store::set_claim(tx.conn(), tenant, run.id, claimed, snapshot).await?;
            Ok(false)
        }
        Outcome::End { state, snapshot } => {
            store::end_run(tx.conn(), tenant, run.id, run.state, state, snapshot, now).await?;
            policies::run_ended(tx, run, state, now).await?;
            Ok(true)
        }
    }
}

/// An event of a request about a run: figures, never paths.
fn event(cx: &Cx, action: &'static str, run: &Run) -> AuditEvent {
    describe(cx.event(action, "run", &run.id), run)
}

/// An event of the role itself: nobody asked, a lease ran out or the catalog spoke.
pub(crate) fn own_event(
    state: &Scheduler,
    action: &'static str,
    run: &Run,
    now: Timestamp,
) -> AuditEvent {
    let actor = authz::Actor::Service { name: "scheduler".to_owned() };
    let id = Id::fresh(state.ids.as_ref(), now);
    describe(AuditEvent::new(id, now, &actor, action, "run", &run.id), run)
}

/// What an end of this run is called: its first one, or the correction of a success.
pub(crate) fn ending(before: &Run) -> &'static str {
    if before.state == RunState::Succeeded { "run.corrected" } else { "run.finished" }
}

fn describe(event: AuditEvent, run: &Run) -> AuditEvent {
    let event = event
        .detail("workload_id", run.workload_id)
        .detail("agent_id", run.agent_id)
        .detail("state", run.state)
        .detail("trigger", run.trigger);
    if !run.state.is_final() {
        return event;
    }
    event
        .detail("files", run.progress.files)
        .detail("source_bytes", run.progress.source_bytes)
        .detail("exceptions", run.progress.exceptions)
        .detail("snapshot_id", run.snapshot_id)
}

fn overlapping(error: pg::Error) -> Error {
    let words = if error.violates(QUEUED_KEY) {
        "a run of this workload waits in the queue already"
    } else if error.violates(RUNNING_KEY) {
        "a run of this workload is running already"
    } else if error.violates(REQUEST_KEY) {
        "the same request is being answered at this moment; ask again"
    } else {
        return Error::Database(error);
    };
    Error::Conflict(words.to_owned())
}

fn lease_lost(stored: &Stored, epoch: u64) -> Error {
    let state = stored.run.state;
    Error::LeaseLost(if stored.epoch == epoch {
        format!("the run is {state}")
    } else {
        format!("the lease's epoch is not {epoch} (the run is {state})")
    })
}

/// An epoch of the wire; one beyond the column's range matches no row.
fn epoch(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(-1)
}

//! SQL of runs and their workloads. Every statement names its tenant beside what row security adds.

use api::scheduler::{Progress, Run, RunSource, Trigger};
use domain::{
    AgentId, PolicyId, RunId, SnapshotId, TenantId, Timestamp, WorkloadId, run::RunState,
};
use pg::ExpectRows as _;
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::settle::Standing;

type Result<T> = std::result::Result<T, pg::Error>;

/// A run as stored: what the world sees, and its lease.
#[derive(Clone)]
pub struct Stored {
    pub run: Run,
    pub epoch: u64,
    pub lease_until: Option<Timestamp>,
    pub claimed: Option<RunState>,
    /// SHA-256 of the request that made it, if that carried a key.
    pub request_digest: Option<Vec<u8>>,
}

impl Stored {
    pub const fn standing(&self) -> Standing {
        Standing {
            state: self.run.state,
            claimed: self.claimed,
            snapshot: self.run.snapshot_id,
            exceptions: self.run.progress.exceptions,
        }
    }
}

/// What the scheduler knows of a workload.
pub struct Workload {
    pub agent_id: AgentId,
    /// What its last run read; `None`: it never ran.
    pub source: Option<RunSource>,
}

/// A run to be inserted.
pub struct NewRun<'a> {
    pub id: RunId,
    pub workload_id: WorkloadId,
    pub agent_id: AgentId,
    pub trigger: Trigger,
    pub source: &'a RunSource,
    pub now: Timestamp,
    /// Who asked under which key, and the digest of what was asked.
    pub request: Option<(&'a str, &'a [u8])>,
    pub policy_id: Option<PolicyId>,
    pub due_at: Option<Timestamp>,
    /// A queued run starts within these.
    pub start_after: Option<Timestamp>,
    pub start_by: Option<Timestamp>,
}

/// The right to execute: the epoch and its end.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    pub epoch: i64,
    pub until: Timestamp,
}

struct Row {
    tenant_id: Uuid,
    id: Uuid,
    workload_id: Uuid,
    agent_id: Uuid,
    trigger: String,
    state: String,
    source: Json<RunSource>,
    created_at: OffsetDateTime,
    started_at: Option<OffsetDateTime>,
    ended_at: Option<OffsetDateTime>,
    epoch: i64,
    lease_until: Option<OffsetDateTime>,
    cancel_requested: bool,
    files: i64,
    source_bytes: i64,
    new_bytes: i64,
    stored_bytes: i64,
    exception_count: i64,
    phase: String,
    exceptions: Json<Vec<domain::source::RunException>>,
    error: Option<String>,
    claimed: Option<String>,
    snapshot_id: Option<Uuid>,
    request_digest: Option<Vec<u8>>,
    policy_id: Option<Uuid>,
    due_at: Option<OffsetDateTime>,
    start_after: Option<OffsetDateTime>,
    start_by: Option<OffsetDateTime>,
}

impl From<Row> for Stored {
    fn from(row: Row) -> Self {
        let count = |n: i64| n.unsigned_abs();
        let run = Run {
            id: RunId::from_uuid(row.id),
            tenant_id: TenantId::from_uuid(row.tenant_id),
            workload_id: WorkloadId::from_uuid(row.workload_id),
            agent_id: AgentId::from_uuid(row.agent_id),
            // As with the states.
            trigger: Trigger::parse(&row.trigger).unwrap_or(Trigger::Manual),
            // A check constraint holds the list of states; one unknown here is a newer server's.
            state: RunState::parse(&row.state).unwrap_or(RunState::Failed),
            source: row.source.0,
            created_at: row.created_at.into(),
            started_at: row.started_at.map(Into::into),
            ended_at: row.ended_at.map(Into::into),
            cancel_requested: row.cancel_requested,
            progress: Progress {
                files: count(row.files),
                source_bytes: count(row.source_bytes),
                new_bytes: count(row.new_bytes),
                stored_bytes: count(row.stored_bytes),
                exceptions: count(row.exception_count),
                phase: row.phase,
            },
            snapshot_id: row.snapshot_id.map(SnapshotId::from_uuid),
            exceptions: row.exceptions.0,
            error: row.error,
            policy_id: row.policy_id.map(PolicyId::from_uuid),
            due_at: row.due_at.map(Into::into),
            start_after: row.start_after.map(Into::into),
            start_by: row.start_by.map(Into::into),
        };
        Self {
            run,
            epoch: count(row.epoch),
            lease_until: row.lease_until.map(Into::into),
            claimed: row.claimed.as_deref().and_then(RunState::parse),
            request_digest: row.request_digest,
        }
    }
}

pub async fn find_run(
    db: &mut PgConnection,
    tenant: TenantId,
    id: RunId,
) -> Result<Option<Stored>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT tenant_id, id, workload_id, agent_id, trigger, state, source AS "source: Json<RunSource>",
               created_at, started_at, ended_at, epoch, lease_until, cancel_requested, files, source_bytes,
               new_bytes, stored_bytes, exception_count, phase,
               exceptions AS "exceptions: Json<Vec<domain::source::RunException>>", error, claimed,
               snapshot_id, request_digest, policy_id, due_at, start_after, start_by
           FROM scheduler.runs WHERE tenant_id = $1 AND id = $2"#,
        tenant.uuid(),
        id.uuid()
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Stored::from))
}

/// Holds the run's workload and then the run until the transaction ends; false when there is none. Everybody who holds
/// both takes them in this order.
pub async fn lock_run(db: &mut PgConnection, tenant: TenantId, id: RunId) -> Result<bool> {
    sqlx::query_scalar!(
        "SELECT id FROM scheduler.workloads
         WHERE tenant_id = $1 AND id = (SELECT workload_id FROM scheduler.runs WHERE tenant_id = $1 AND id = $2)
         FOR UPDATE",
        tenant.uuid(),
        id.uuid()
    )
    .fetch_optional(&mut *db)
    .await?;
    let found = sqlx::query_scalar!(
        "SELECT id FROM scheduler.runs WHERE tenant_id = $1 AND id = $2 FOR UPDATE",
        tenant.uuid(),
        id.uuid()
    )
    .fetch_optional(db)
    .await?;
    Ok(found.is_some())
}

/// Newest first, below `before`; with an `agent` its own only.
pub async fn list_runs(
    db: &mut PgConnection,
    tenant: TenantId,
    agent: Option<AgentId>,
    workload: Option<WorkloadId>,
    before: Option<RunId>,
    limit: i64,
) -> Result<Vec<Stored>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT tenant_id, id, workload_id, agent_id, trigger, state, source AS "source: Json<RunSource>",
               created_at, started_at, ended_at, epoch, lease_until, cancel_requested, files, source_bytes,
               new_bytes, stored_bytes, exception_count, phase,
               exceptions AS "exceptions: Json<Vec<domain::source::RunException>>", error, claimed,
               snapshot_id, request_digest, policy_id, due_at, start_after, start_by
           FROM scheduler.runs
           WHERE tenant_id = $1 AND ($2::uuid IS NULL OR workload_id = $2) AND ($3::uuid IS NULL OR id < $3)
             AND ($5::uuid IS NULL OR agent_id = $5)
           ORDER BY id DESC LIMIT $4"#,
        tenant.uuid(),
        workload.map(WorkloadId::uuid),
        before.map(RunId::uuid),
        limit,
        agent.map(AgentId::uuid)
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Stored::from).collect())
}

pub async fn find_request(
    db: &mut PgConnection,
    tenant: TenantId,
    request_key: &str,
) -> Result<Option<RunId>> {
    let found = sqlx::query_scalar!(
        "SELECT id FROM scheduler.runs WHERE tenant_id = $1 AND request_key = $2",
        tenant.uuid(),
        request_key
    )
    .fetch_optional(db)
    .await?;
    Ok(found.map(RunId::from_uuid))
}

/// The workload, with its row held until the transaction ends: leases of one workload are handed out one
/// after the other.
pub async fn lock_workload(
    db: &mut PgConnection,
    tenant: TenantId,
    id: WorkloadId,
) -> Result<Option<Workload>> {
    let row = sqlx::query!(
        r#"SELECT agent_id, source AS "source: Json<RunSource>"
           FROM scheduler.workloads WHERE tenant_id = $1 AND id = $2 FOR UPDATE"#,
        tenant.uuid(),
        id.uuid()
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Workload {
        agent_id: AgentId::from_uuid(row.agent_id),
        source: row.source.map(|source| source.0),
    }))
}

pub async fn knows_workload(
    db: &mut PgConnection,
    tenant: TenantId,
    id: WorkloadId,
) -> Result<bool> {
    let found = sqlx::query_scalar!(
        "SELECT id FROM scheduler.workloads WHERE tenant_id = $1 AND id = $2",
        tenant.uuid(),
        id.uuid()
    )
    .fetch_optional(db)
    .await?;
    Ok(found.is_some())
}

/// Makes the workload known, and says whether it was not; whoever named it first stays.
pub async fn insert_workload(
    db: &mut PgConnection,
    tenant: TenantId,
    id: WorkloadId,
    agent: AgentId,
    source: Option<&RunSource>,
    now: Timestamp,
) -> Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO scheduler.workloads (tenant_id, id, agent_id, source, named_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (tenant_id, id) DO NOTHING",
        tenant.uuid(),
        id.uuid(),
        agent.uuid(),
        source.map(Json) as _,
        now.to_offset()
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn set_workload_source(
    db: &mut PgConnection,
    tenant: TenantId,
    id: WorkloadId,
    source: &RunSource,
) -> Result<()> {
    sqlx::query!(
        "UPDATE scheduler.workloads SET source = $3 WHERE tenant_id = $1 AND id = $2",
        tenant.uuid(),
        id.uuid(),
        Json(source) as _
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Raises the workload's epoch and gives the new one.
pub async fn next_epoch(db: &mut PgConnection, tenant: TenantId, id: WorkloadId) -> Result<i64> {
    let epoch = sqlx::query_scalar!(
        "UPDATE scheduler.workloads SET epoch = epoch + 1 WHERE tenant_id = $1 AND id = $2 RETURNING epoch",
        tenant.uuid(),
        id.uuid()
    )
    .fetch_one(db)
    .await?;
    Ok(epoch)
}

/// A queued run, or with a grant a running one.
pub async fn insert_run(
    db: &mut PgConnection,
    tenant: TenantId,
    run: &NewRun<'_>,
    grant: Option<Grant>,
) -> Result<()> {
    let state = if grant.is_some() { RunState::Running } else { RunState::Queued };
    sqlx::query!(
        "INSERT INTO scheduler.runs (tenant_id, id, workload_id, agent_id, trigger, state, source, created_at,
             started_at, epoch, lease_until, request_key, request_digest, policy_id, due_at, start_after, start_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        tenant.uuid(),
        run.id.uuid(),
        run.workload_id.uuid(),
        run.agent_id.uuid(),
        run.trigger.as_str(),
        state.as_str(),
        Json(run.source) as _,
        run.now.to_offset(),
        grant.map(|_| run.now.to_offset()),
        grant.map_or(0, |g| g.epoch),
        grant.map(|g| g.until.to_offset()),
        run.request.map(|(key, _)| key),
        run.request.map(|(_, digest)| digest),
        run.policy_id.map(PolicyId::uuid),
        run.due_at.map(Timestamp::to_offset),
        run.start_after.map(Timestamp::to_offset),
        run.start_by.map(Timestamp::to_offset)
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A queued run, unless one of the workload waits already: false.
pub async fn insert_waiting(
    db: &mut PgConnection,
    tenant: TenantId,
    run: &NewRun<'_>,
) -> Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO scheduler.runs (tenant_id, id, workload_id, agent_id, trigger, state, source, created_at,
             policy_id, due_at, start_after, start_by)
         VALUES ($1, $2, $3, $4, $5, 'queued', $6, $7, $8, $9, $10, $11)
         ON CONFLICT (tenant_id, workload_id) WHERE state = 'queued' DO NOTHING",
        tenant.uuid(),
        run.id.uuid(),
        run.workload_id.uuid(),
        run.agent_id.uuid(),
        run.trigger.as_str(),
        Json(run.source) as _,
        run.now.to_offset(),
        run.policy_id.map(PolicyId::uuid),
        run.due_at.map(Timestamp::to_offset),
        run.start_after.map(Timestamp::to_offset),
        run.start_by.map(Timestamp::to_offset)
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends a queued run before it began, and says why.
pub async fn end_unstarted(
    db: &mut PgConnection,
    tenant: TenantId,
    id: RunId,
    state: RunState,
    error: &str,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "UPDATE scheduler.runs SET state = $3, error = $4, ended_at = $5
         WHERE tenant_id = $1 AND id = $2 AND state = 'queued'",
        tenant.uuid(),
        id.uuid(),
        state.as_str(),
        error,
        now.to_offset()
    )
    .execute(db)
    .await?
    .expect_rows(1)
}

/// Lets a queued run wait for other times.
pub async fn set_start(
    db: &mut PgConnection,
    tenant: TenantId,
    id: RunId,
    start_after: Option<Timestamp>,
    start_by: Option<Timestamp>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE scheduler.runs SET start_after = $3, start_by = $4
         WHERE tenant_id = $1 AND id = $2 AND state = 'queued'",
        tenant.uuid(),
        id.uuid(),
        start_after.map(Timestamp::to_offset),
        start_by.map(Timestamp::to_offset)
    )
    .execute(db)
    .await?
    .expect_rows(1)
}

/// The oldest queued run of this agent that may start now and whose workload nobody else works on at this moment; the
/// workload's row is held, and with it all of its runs.
pub async fn take_queued(
    db: &mut PgConnection,
    tenant: TenantId,
    agent: AgentId,
    now: Timestamp,
) -> Result<Option<(RunId, WorkloadId)>> {
    let row = sqlx::query!(
        "SELECT r.id, r.workload_id FROM scheduler.runs r
         JOIN scheduler.workloads w ON w.tenant_id = r.tenant_id AND w.id = r.workload_id
         WHERE r.tenant_id = $1 AND r.agent_id = $2 AND r.state = 'queued'
           AND (r.start_after IS NULL OR r.start_after <= $3) AND (r.start_by IS NULL OR r.start_by > $3)
           AND NOT EXISTS (SELECT FROM scheduler.runs o
               WHERE o.tenant_id = $1 AND o.workload_id = r.workload_id AND o.state = 'running'
                 AND o.lease_until > $3)
         ORDER BY r.created_at, r.id LIMIT 1
         FOR UPDATE OF w SKIP LOCKED",
        tenant.uuid(),
        agent.uuid(),
        now.to_offset()
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (RunId::from_uuid(row.id), WorkloadId::from_uuid(row.workload_id))))
}

/// The workload's running run, if any.
pub async fn find_running(
    db: &mut PgConnection,
    tenant: TenantId,
    workload: WorkloadId,
) -> Result<Option<RunId>> {
    let found = sqlx::query_scalar!(
        "SELECT id FROM scheduler.runs WHERE tenant_id = $1 AND workload_id = $2 AND state = 'running'
         FOR UPDATE",
        tenant.uuid(),
        workload.uuid()
    )
    .fetch_optional(db)
    .await?;
    Ok(found.map(RunId::from_uuid))
}

pub async fn start_run(
    db: &mut PgConnection,
    tenant: TenantId,
    id: RunId,
    grant: Grant,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query!(
        "UPDATE scheduler.runs SET state = 'running', epoch = $3, lease_until = $4, started_at = $5
         WHERE tenant_id = $1 AND id = $2 AND state = 'queued'",
        tenant.uuid(),
        id.uuid(),
        grant.epoch,
        grant.until.to_offset(),
        now.to_offset()
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Renews the lease and writes the figures; 0 rows: the lease is no longer this agent's.
pub async fn renew_lease(
    db: &mut PgConnection,
    tenant: TenantId,
    id: RunId,
    agent: AgentId,
    grant: Grant,
    progress: &Progress,
) -> Result<Option<bool>> {
    let cancel = sqlx::query_scalar!(
        "UPDATE scheduler.runs SET lease_until = $5, files = $6, source_bytes = $7, new_bytes = $8,
             stored_bytes = $9, exception_count = $10, phase = $11
         WHERE tenant_id = $1 AND id = $2 AND agent_id = $3 AND epoch = $4 AND state = 'running'
         RETURNING cancel_requested",
        tenant.uuid(),
        id.uuid(),
        agent.uuid(),
        grant.epoch,
        grant.until.to_offset(),
        count(progress.files),
        count(progress.source_bytes),
        count(progress.new_bytes),
        count(progress.stored_bytes),
        count(progress.exceptions),
        progress.phase
    )
    .fetch_optional(db)
    .await?;
    Ok(cancel)
}

/// Writes an agent's last words: figures, exceptions, error.
pub async fn set_report(
    db: &mut PgConnection,
    tenant: TenantId,
    id: RunId,
    progress: &Progress,
    exceptions: &[domain::source::RunException],
    error: Option<&str>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE scheduler.runs SET files = $3, source_bytes = $4, new_bytes = $5, stored_bytes = $6,
             exception_count = $7, phase = '', exceptions = $8, error = $9
         WHERE tenant_id = $1 AND id = $2",
        tenant.uuid(),
        id.uuid(),
        count(progress.files),
        count(progress.source_bytes),
        count(progress.new_bytes),
        count(progress.stored_bytes),
        count(progress.exceptions),
        Json(exceptions) as _,
        error
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Remembers a claim or the catalog's word for later.
pub async fn set_claim(
    db: &mut PgConnection,
    tenant: TenantId,
    id: RunId,
    claimed: RunState,
    snapshot: Option<SnapshotId>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE scheduler.runs SET claimed = $3, snapshot_id = COALESCE(snapshot_id, $4)
         WHERE tenant_id = $1 AND id = $2",
        tenant.uuid(),
        id.uuid(),
        claimed.as_str(),
        snapshot.map(SnapshotId::uuid)
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Ends the run, or corrects a success, which keeps its time; 0 rows: it was not in `from` any more.
pub async fn end_run(
    db: &mut PgConnection,
    tenant: TenantId,
    id: RunId,
    from: RunState,
    to: RunState,
    snapshot: Option<SnapshotId>,
    now: Timestamp,
) -> Result<u64> {
    let done = sqlx::query!(
        "UPDATE scheduler.runs SET state = $4, snapshot_id = COALESCE(snapshot_id, $5),
             ended_at = CASE state WHEN 'succeeded' THEN ended_at ELSE $6 END
         WHERE tenant_id = $1 AND id = $2 AND state = $3",
        tenant.uuid(),
        id.uuid(),
        from.as_str(),
        to.as_str(),
        snapshot.map(SnapshotId::uuid),
        now.to_offset()
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

pub async fn set_cancel_requested(
    db: &mut PgConnection,
    tenant: TenantId,
    id: RunId,
) -> Result<()> {
    sqlx::query!(
        "UPDATE scheduler.runs SET cancel_requested = true WHERE tenant_id = $1 AND id = $2",
        tenant.uuid(),
        id.uuid()
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Running runs whose lease ended before `now`, and queued ones whose time to start is over, of all tenants (system
/// role). A run that a person queued at a replica of before policies says no time: it is over when it is older than
/// `stale`.
pub async fn list_overdue(
    db: &mut PgConnection,
    now: Timestamp,
    stale: Timestamp,
) -> Result<Vec<(TenantId, RunId)>> {
    let rows = sqlx::query!(
        "SELECT tenant_id, id FROM scheduler.runs
         WHERE (state = 'running' AND lease_until <= $1) OR (state = 'queued' AND start_by <= $1)
            OR (state = 'queued' AND start_by IS NULL AND trigger = 'manual' AND created_at <= $2)
         ORDER BY tenant_id, id LIMIT 500",
        now.to_offset(),
        stale.to_offset()
    )
    .fetch_all(db)
    .await?;
    let ids = |tenant, id| (TenantId::from_uuid(tenant), RunId::from_uuid(id));
    Ok(rows.into_iter().map(|row| ids(row.tenant_id, row.id)).collect())
}

/// Figures are validated to be below 2^53 before they come here.
fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

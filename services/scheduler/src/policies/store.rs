//! SQL of policies and of what workloads owe them. Every statement names its tenant beside what row security adds.

use api::policy::{PolicySettings, Setting};
use domain::{PolicyId, TenantId, Timestamp, WorkloadId};
use pg::ExpectRows as _;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

type Result<T> = std::result::Result<T, pg::Error>;

/// A policy as stored.
#[derive(Debug, Clone)]
pub struct PolicyRow {
    pub id: PolicyId,
    pub name: String,
    pub extends: Option<PolicyId>,
    pub settings: PolicySettings,
    pub protected: Vec<Setting>,
    pub is_default: bool,
    pub is_paused: bool,
    pub revision: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

struct Raw {
    id: Uuid,
    name: String,
    extends_id: Option<Uuid>,
    settings: Json<PolicySettings>,
    protected: Json<Vec<Setting>>,
    is_default: bool,
    is_paused: bool,
    revision: i64,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl From<Raw> for PolicyRow {
    fn from(raw: Raw) -> Self {
        Self {
            id: PolicyId::from_uuid(raw.id),
            name: raw.name,
            extends: raw.extends_id.map(PolicyId::from_uuid),
            settings: raw.settings.0,
            protected: raw.protected.0,
            is_default: raw.is_default,
            is_paused: raw.is_paused,
            revision: raw.revision.unsigned_abs(),
            created_at: raw.created_at.into(),
            updated_at: raw.updated_at.into(),
        }
    }
}

/// All policies of the tenant, by id. They are few ([`super::MOST_POLICIES`]).
pub async fn list(db: &mut PgConnection, tenant: TenantId) -> Result<Vec<PolicyRow>> {
    let rows = sqlx::query_as!(
        Raw,
        r#"SELECT id, name, extends_id, settings AS "settings: Json<PolicySettings>",
                  protected AS "protected: Json<Vec<Setting>>", is_default, is_paused, revision, created_at,
                  updated_at
           FROM scheduler.policies WHERE tenant_id = $1 ORDER BY id"#,
        tenant.uuid()
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// Of all who change policies of a tenant one works at a time: a chain is checked as it will be.
pub async fn lock(db: &mut PgConnection, tenant: TenantId) -> Result<()> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('scheduler.policies ' || $1::uuid::text, 0))",
        tenant.uuid()
    )
    .execute(db)
    .await?;
    Ok(())
}

/// # Errors
/// Unique violation of `policies_tenant_id_name_key_key` or `policies_tenant_id_default_key`.
pub async fn insert(db: &mut PgConnection, tenant: TenantId, policy: &PolicyRow) -> Result<()> {
    sqlx::query!(
        "INSERT INTO scheduler.policies (tenant_id, id, name, name_key, extends_id, settings, protected, is_default,
             is_paused, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)",
        tenant.uuid(),
        policy.id.uuid(),
        policy.name,
        api::names::key(&policy.name),
        policy.extends.map(PolicyId::uuid),
        Json(&policy.settings) as _,
        Json(&policy.protected) as _,
        policy.is_default,
        policy.is_paused,
        policy.created_at.to_offset()
    )
    .execute(db)
    .await?;
    Ok(())
}

/// # Errors
/// As [`insert`].
pub async fn update(db: &mut PgConnection, tenant: TenantId, policy: &PolicyRow) -> Result<()> {
    sqlx::query!(
        "UPDATE scheduler.policies SET name = $3, name_key = $4, extends_id = $5, settings = $6, protected = $7,
             is_default = $8, is_paused = $9, revision = revision + 1, updated_at = $10
         WHERE tenant_id = $1 AND id = $2",
        tenant.uuid(),
        policy.id.uuid(),
        policy.name,
        api::names::key(&policy.name),
        policy.extends.map(PolicyId::uuid),
        Json(&policy.settings) as _,
        Json(&policy.protected) as _,
        policy.is_default,
        policy.is_paused,
        policy.updated_at.to_offset()
    )
    .execute(db)
    .await?
    .expect_rows(1)
}

pub async fn delete(db: &mut PgConnection, tenant: TenantId, id: PolicyId) -> Result<()> {
    sqlx::query!(
        "DELETE FROM scheduler.policies WHERE tenant_id = $1 AND id = $2",
        tenant.uuid(),
        id.uuid()
    )
    .execute(db)
    .await?
    .expect_rows(1)
}

/// How many workloads were given each policy; under `None` those that take the default.
pub async fn count_workloads(
    db: &mut PgConnection,
    tenant: TenantId,
) -> Result<Vec<(Option<PolicyId>, u64)>> {
    let rows = sqlx::query!(
        r#"SELECT policy_id, count(*) AS "workloads!" FROM scheduler.workloads WHERE tenant_id = $1
           GROUP BY policy_id"#,
        tenant.uuid()
    )
    .fetch_all(db)
    .await?;
    let count = |n: i64| n.unsigned_abs();
    Ok(rows
        .into_iter()
        .map(|row| (row.policy_id.map(PolicyId::from_uuid), count(row.workloads)))
        .collect())
}

/// What a workload follows since it was last planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The policy that holds: given to it, or the tenant's default.
    pub policy_id: PolicyId,
    /// What is in force by it.
    pub settings: PolicySettings,
}

/// What a workload's plan says is to be read.
pub async fn find_source(
    db: &mut PgConnection,
    tenant: TenantId,
    id: WorkloadId,
) -> Result<Option<api::scheduler::RunSource>> {
    let plan = sqlx::query_scalar!(
        r#"SELECT plan AS "plan: Json<serde_json::Value>" FROM scheduler.workloads WHERE tenant_id = $1 AND id = $2"#,
        tenant.uuid(),
        id.uuid()
    )
    .fetch_optional(db)
    .await?;
    let plan = plan.flatten().and_then(|plan| read_plan(id.uuid(), plan.0));
    Ok(plan.and_then(|plan| plan.settings.source))
}

/// One workload whose plan a newer version wrote, or somebody by hand, must not stop those beside it.
fn read_plan(workload: Uuid, plan: serde_json::Value) -> Option<Plan> {
    let read = serde_json::from_value(plan);
    read.inspect_err(
        |error| tracing::error!(%workload, %error, "the plan of a workload cannot be read"),
    )
    .ok()
}

/// How a workload stands.
#[derive(Debug, Clone)]
pub struct Standing {
    pub workload_id: WorkloadId,
    /// Given to it; otherwise the default holds.
    pub policy: Option<PolicyId>,
    pub plan: Option<Plan>,
    /// It has a plan that this version cannot read, and that stays as it is until it is planned again.
    pub is_unreadable: bool,
    pub due_at: Option<Timestamp>,
    /// Not started by then, the due run is missed, or made up for.
    pub due_by: Option<Timestamp>,
    /// What is due is another attempt.
    pub is_retry: bool,
    /// Planned runs that failed since the last tick or success.
    pub attempts: u32,
    /// Runs that failed since the last success.
    pub failures: u32,
    pub protected_at: Option<Timestamp>,
    pub rpo_due_at: Option<Timestamp>,
    pub rpo_breached_at: Option<Timestamp>,
}

struct RawStanding {
    id: Uuid,
    policy_id: Option<Uuid>,
    plan: Option<Json<serde_json::Value>>,
    due_at: Option<OffsetDateTime>,
    due_by: Option<OffsetDateTime>,
    is_retry: bool,
    attempts: i32,
    failures: i32,
    protected_at: Option<OffsetDateTime>,
    rpo_due_at: Option<OffsetDateTime>,
    rpo_breached_at: Option<OffsetDateTime>,
}

impl From<RawStanding> for Standing {
    fn from(raw: RawStanding) -> Self {
        let time = |at: Option<OffsetDateTime>| at.map(Timestamp::from);
        let has_plan = raw.plan.is_some();
        let plan = raw.plan.and_then(|plan| read_plan(raw.id, plan.0));
        Self {
            workload_id: WorkloadId::from_uuid(raw.id),
            policy: raw.policy_id.map(PolicyId::from_uuid),
            is_unreadable: has_plan && plan.is_none(),
            plan,
            due_at: time(raw.due_at),
            due_by: time(raw.due_by),
            is_retry: raw.is_retry,
            attempts: raw.attempts.unsigned_abs(),
            failures: raw.failures.unsigned_abs(),
            protected_at: time(raw.protected_at),
            rpo_due_at: time(raw.rpo_due_at),
            rpo_breached_at: time(raw.rpo_breached_at),
        }
    }
}

/// How the workload stands, its row held until the transaction ends.
pub async fn lock_standing(
    db: &mut PgConnection,
    tenant: TenantId,
    id: WorkloadId,
) -> Result<Option<Standing>> {
    let row = sqlx::query_as!(
        RawStanding,
        r#"SELECT id, policy_id, plan AS "plan: Json<serde_json::Value>", due_at, due_by, is_retry, attempts, failures, protected_at,
                  rpo_due_at, rpo_breached_at
           FROM scheduler.workloads WHERE tenant_id = $1 AND id = $2 FOR UPDATE"#,
        tenant.uuid(),
        id.uuid()
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Into::into))
}

/// How workloads stand, in the order of their ids.
pub async fn list_standings(
    db: &mut PgConnection,
    tenant: TenantId,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Standing>> {
    let rows = sqlx::query_as!(
        RawStanding,
        r#"SELECT id, policy_id, plan AS "plan: Json<serde_json::Value>", due_at, due_by, is_retry, attempts, failures, protected_at,
                  rpo_due_at, rpo_breached_at
           FROM scheduler.workloads WHERE tenant_id = $1 AND ($2::uuid IS NULL OR id > $2)
           ORDER BY id LIMIT $3"#,
        tenant.uuid(),
        after,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// Workloads that were given one of `policies`, and with `defaults` those that were given none; their rows held.
pub async fn lock_standings_of(
    db: &mut PgConnection,
    tenant: TenantId,
    policies: &[PolicyId],
    defaults: bool,
) -> Result<Vec<Standing>> {
    let ids: Vec<Uuid> = policies.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query_as!(
        RawStanding,
        r#"SELECT id, policy_id, plan AS "plan: Json<serde_json::Value>", due_at, due_by, is_retry, attempts, failures, protected_at,
                  rpo_due_at, rpo_breached_at
           FROM scheduler.workloads
           WHERE tenant_id = $1 AND (policy_id = ANY ($2) OR ($3 AND policy_id IS NULL))
           ORDER BY id FOR UPDATE"#,
        tenant.uuid(),
        &ids,
        defaults
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// Writes down how a workload stands; its row is held by the caller.
pub async fn set_standing(
    db: &mut PgConnection,
    tenant: TenantId,
    standing: &Standing,
) -> Result<()> {
    let time = |at: Option<Timestamp>| at.map(Timestamp::to_offset);
    sqlx::query!(
        "UPDATE scheduler.workloads SET policy_id = $3, plan = CASE WHEN $13 THEN plan ELSE $4 END, due_at = $5,
             due_by = $6, is_retry = $7, attempts = $8, failures = $9, protected_at = $10, rpo_due_at = $11,
             rpo_breached_at = $12
         WHERE tenant_id = $1 AND id = $2",
        tenant.uuid(),
        standing.workload_id.uuid(),
        standing.policy.map(PolicyId::uuid),
        standing.plan.as_ref().map(Json) as _,
        time(standing.due_at),
        time(standing.due_by),
        standing.is_retry,
        i32::try_from(standing.attempts).unwrap_or(i32::MAX),
        i32::try_from(standing.failures).unwrap_or(i32::MAX),
        time(standing.protected_at),
        time(standing.rpo_due_at),
        time(standing.rpo_breached_at),
        standing.is_unreadable
    )
    .execute(db)
    .await?
    .expect_rows(1)
}

/// A workload whose run is due, its row held.
pub struct Due {
    pub standing: Standing,
    pub agent_id: domain::AgentId,
    /// What its last run read.
    pub source: Option<api::scheduler::RunSource>,
}

/// Workloads of the tenant that are due and that nobody else is looking at, the longest due first; their rows held.
pub async fn take_due(
    db: &mut PgConnection,
    tenant: TenantId,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Due>> {
    let rows = sqlx::query!(
        r#"SELECT id, agent_id, source AS "source: Json<api::scheduler::RunSource>", policy_id,
                  plan AS "plan: Json<serde_json::Value>", due_at, due_by, is_retry, attempts, failures, protected_at, rpo_due_at,
                  rpo_breached_at
           FROM scheduler.workloads WHERE tenant_id = $1 AND due_at <= $2
           ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED"#,
        tenant.uuid(),
        now.to_offset(),
        limit
    )
    .fetch_all(db)
    .await?;
    let due = rows.into_iter().map(|row| Due {
        agent_id: domain::AgentId::from_uuid(row.agent_id),
        source: row.source.map(|source| source.0),
        standing: RawStanding {
            id: row.id,
            policy_id: row.policy_id,
            plan: row.plan,
            due_at: row.due_at,
            due_by: row.due_by,
            is_retry: row.is_retry,
            attempts: row.attempts,
            failures: row.failures,
            protected_at: row.protected_at,
            rpo_due_at: row.rpo_due_at,
            rpo_breached_at: row.rpo_breached_at,
        }
        .into(),
    });
    Ok(due.collect())
}

/// A run of the workload that waits already.
pub struct Waiting {
    pub id: domain::RunId,
    pub is_planned: bool,
    pub source: api::scheduler::RunSource,
}

/// The workload's queued run; the workload's row is held by the caller.
pub async fn find_waiting(
    db: &mut PgConnection,
    tenant: TenantId,
    workload: WorkloadId,
) -> Result<Option<Waiting>> {
    let row = sqlx::query!(
        r#"SELECT id, trigger, source AS "source: Json<api::scheduler::RunSource>" FROM scheduler.runs
           WHERE tenant_id = $1 AND workload_id = $2 AND state = 'queued'"#,
        tenant.uuid(),
        workload.uuid()
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Waiting {
        id: domain::RunId::from_uuid(row.id),
        is_planned: api::scheduler::Trigger::parse(&row.trigger)
            .is_some_and(api::scheduler::Trigger::is_planned),
        source: row.source.0,
    }))
}

/// Tenants in which something is due (system role).
pub async fn list_tenants_due(
    db: &mut PgConnection,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<TenantId>> {
    let ids = sqlx::query_scalar!(
        "SELECT tenant_id FROM scheduler.workloads WHERE due_at <= $1
         GROUP BY tenant_id ORDER BY min(due_at) LIMIT $2",
        now.to_offset(),
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(ids.into_iter().map(TenantId::from_uuid).collect())
}

/// Workloads whose objective is breached and not yet said to be (system role).
pub async fn list_breached(
    db: &mut PgConnection,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<(TenantId, WorkloadId)>> {
    let rows = sqlx::query!(
        "SELECT tenant_id, id FROM scheduler.workloads WHERE rpo_due_at <= $1 AND rpo_breached_at IS NULL
         ORDER BY rpo_due_at LIMIT $2",
        now.to_offset(),
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (TenantId::from_uuid(row.tenant_id), WorkloadId::from_uuid(row.id)))
        .collect())
}

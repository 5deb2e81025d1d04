//! SQL of the record. Numbers are given while the tenant's head row is locked, so they have no gaps.

use api::audit::{AuditEvent, EventActor, RecordedEvent};
use domain::{EventId, TenantId, Timestamp};
use pg::{Error, ExpectRows as _, TenantTx};
use time::OffsetDateTime;

/// Locks the tenant's head and gives the last number used.
pub(super) async fn lock_head(tx: &mut TenantTx) -> Result<i64, Error> {
    let tenant = tx.tenant().uuid();
    sqlx::query!(
        "INSERT INTO audit.heads (tenant_id, last_seq) VALUES ($1, 0) ON CONFLICT DO NOTHING",
        tenant
    )
    .execute(tx.conn())
    .await?;
    let last = sqlx::query_scalar!(
        "SELECT last_seq FROM audit.heads WHERE tenant_id = $1 FOR UPDATE",
        tenant
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(last)
}

pub(super) async fn set_head(tx: &mut TenantTx, last_seq: i64) -> Result<(), Error> {
    let tenant = tx.tenant().uuid();
    sqlx::query!("UPDATE audit.heads SET last_seq = $2 WHERE tenant_id = $1", tenant, last_seq)
        .execute(tx.conn())
        .await?
        .expect_rows(1)?;
    Ok(())
}

/// Appends one event with this number; false when it was recorded before.
pub(super) async fn insert_event(
    tx: &mut TenantTx,
    seq: i64,
    event: &AuditEvent,
    now: Timestamp,
) -> Result<bool, Error> {
    let details = serde_json::Value::Object(event.details.clone());
    let done = sqlx::query!(
        "INSERT INTO audit.events (tenant_id, id, seq, recorded_at, occurred_at, action, actor_kind, \
         actor_id, home_tenant_id, subject_kind, subject_id, request_id, details) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
         ON CONFLICT (tenant_id, id) DO NOTHING",
        tx.tenant().uuid(),
        event.id.uuid(),
        seq,
        OffsetDateTime::from(now),
        OffsetDateTime::from(event.occurred_at),
        event.action,
        event.actor.kind,
        event.actor.id,
        event.actor.home_tenant_id.map(TenantId::uuid),
        event.subject_kind,
        event.subject_id,
        event.request_id,
        details,
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Events below `before`, newest first.
pub(super) async fn list_events(
    tx: &mut TenantTx,
    before: i64,
    limit: i64,
) -> Result<Vec<RecordedEvent>, Error> {
    let tenant = tx.tenant();
    let rows = sqlx::query!(
        "SELECT id, seq, recorded_at, occurred_at, action, actor_kind, actor_id, home_tenant_id, \
         subject_kind, subject_id, request_id, details \
         FROM audit.events WHERE tenant_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3",
        tenant.uuid(),
        before,
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    let recorded = rows.into_iter().map(|row| RecordedEvent {
        seq: row.seq.unsigned_abs(),
        recorded_at: row.recorded_at.into(),
        event: AuditEvent {
            id: EventId::from_uuid(row.id),
            tenant_id: tenant,
            action: row.action,
            actor: EventActor {
                kind: row.actor_kind,
                id: row.actor_id,
                home_tenant_id: row.home_tenant_id.map(TenantId::from_uuid),
            },
            subject_kind: row.subject_kind,
            subject_id: row.subject_id,
            occurred_at: row.occurred_at.into(),
            request_id: row.request_id,
            details: match row.details {
                serde_json::Value::Object(details) => details,
                _ => serde_json::Map::new(),
            },
        },
    });
    Ok(recorded.collect())
}

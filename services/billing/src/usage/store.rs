//! SQL of metered facts.

use api::billing::{MeterEvent, UsageLine};
use domain::{Timestamp, WorkloadId};
use pg::{Error, TenantTx};
use time::OffsetDateTime;

/// Appends one fact; one that was recorded before stays as it is.
pub(super) async fn insert_meter_event(
    tx: &mut TenantTx,
    event: &MeterEvent,
    quantity: i64,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO billing.meter_events \
         (tenant_id, id, meter, quantity, workload_id, occurred_at, recorded_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant_id, id) DO NOTHING",
        tx.tenant().uuid(),
        event.id.uuid(),
        event.meter,
        quantity,
        event.workload_id.map(WorkloadId::uuid),
        OffsetDateTime::from(event.occurred_at),
        OffsetDateTime::from(now),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Sums per meter in `[from, until)`, by name.
pub(super) async fn list_usage(
    tx: &mut TenantTx,
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<UsageLine>, Error> {
    let rows = sqlx::query!(
        r#"SELECT meter, count(*) AS "events!", LEAST(sum(quantity), 9223372036854775807)::bigint AS "quantity!"
           FROM billing.meter_events
           WHERE tenant_id = $1 AND occurred_at >= $2 AND occurred_at < $3
           GROUP BY meter ORDER BY meter"#,
        tx.tenant().uuid(),
        OffsetDateTime::from(from),
        OffsetDateTime::from(until),
    )
    .fetch_all(tx.conn())
    .await?;
    let line = |meter, events: i64, quantity: i64| UsageLine {
        meter,
        events: events.unsigned_abs(),
        quantity: quantity.unsigned_abs(),
    };
    Ok(rows.into_iter().map(|row| line(row.meter, row.events, row.quantity)).collect())
}

//! Facts a commit hands over through the outbox: what was used, and that the run has its snapshot.

use api::{billing::MeterEvent, internal::SnapshotCommitted};
use domain::EventId;
use pg::TenantTx;
use runtime::Cx;

use super::commit_store::NewSnapshot;
use crate::error::Error;

/// Writes them into the commit's own transaction.
pub async fn publish(tx: &mut TenantTx, cx: &Cx, new: &NewSnapshot<'_>) -> Result<(), Error> {
    let figures = [
        ("source_bytes", new.stats.source_bytes),
        ("stored_bytes", new.stored_bytes),
        ("snapshots", 1),
    ];
    for (meter, quantity) in figures {
        let event = MeterEvent {
            id: EventId::fresh(&*cx.ids, new.committed_at),
            tenant_id: tx.tenant(),
            meter: meter.to_owned(),
            quantity,
            workload_id: Some(new.session.workload()),
            occurred_at: new.committed_at,
        };
        tx.publish("meter", &event).await?;
    }
    let fact = SnapshotCommitted {
        event_id: EventId::fresh(&*cx.ids, new.committed_at),
        tenant_id: tx.tenant(),
        run_id: new.session.run(),
        snapshot_id: new.id,
        exceptions: new.stats.exceptions,
        committed_at: new.committed_at,
    };
    tx.publish("snapshot_committed", &fact).await?;
    Ok(())
}

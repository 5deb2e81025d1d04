//! The record of one tenant: events appended in the order of delivery, read newest first.
//!
//! Invariant: numbers are gapless from 1, an event is recorded once. Reading the record is itself an event,
//! which arrives here by audit's own outbox like any other.

pub(crate) mod http;
mod store;

use std::collections::BTreeMap;

use api::audit::{AuditEvent, RecordedEvent};
use authz::{Scope, ScopeReason};
use domain::{TenantId, Timestamp};
use pg::{Db, OperationalReason, TenantTx};

/// What can go wrong with the record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the cursor is not one of ours")]
    Cursor,
    #[error("the record cannot be reached")]
    Database(#[from] pg::Error),
}

/// Records delivered events; those recorded before are passed over. All of one tenant's or none.
pub(crate) async fn record(db: &Db, events: Vec<AuditEvent>, now: Timestamp) -> Result<(), Error> {
    let mut by_tenant: BTreeMap<TenantId, Vec<AuditEvent>> = BTreeMap::new();
    for event in events {
        by_tenant.entry(event.tenant_id).or_default().push(event);
    }
    for (tenant, events) in by_tenant {
        let scope = Scope::without_permit(tenant, ScopeReason::FactDelivery);
        let mut tx = TenantTx::begin(db, scope).await?;
        let mut last = store::lock_head(&mut tx).await?;
        for event in &events {
            if store::insert_event(&mut tx, last.saturating_add(1), event, now).await? {
                last = last.saturating_add(1);
            }
        }
        store::set_head(&mut tx, last).await?;
        tx.commit_operational(OperationalReason::FactIngest).await?;
    }
    Ok(())
}

/// One page, newest first; `cursor` is the last number of the page before. `read` is the event of reading.
pub(crate) async fn list(
    db: &Db,
    scope: Scope,
    cursor: Option<&str>,
    limit: u32,
    read: pg::AuditEvent,
) -> Result<(Vec<RecordedEvent>, Option<String>), Error> {
    let before = match cursor {
        Some(text) => text.parse().map_err(|_| Error::Cursor)?,
        None => i64::MAX,
    };
    let mut tx = TenantTx::begin(db, scope).await?;
    let mut items = store::list_events(&mut tx, before, i64::from(limit) + 1).await?;
    tx.commit(read).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = if more { items.last().map(|last| last.seq.to_string()) } else { None };
    Ok((items, next))
}

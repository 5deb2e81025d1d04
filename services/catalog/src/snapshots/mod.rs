//! Snapshots: the list, one of them, what it needs.
//!
//! Invariant: an agent sees its own snapshots only; expired ones are not there, but in a list of their own.

pub mod http;
pub mod manifests;
pub mod receipts;
pub mod store;

use api::{
    catalog::{ExpiredSnapshot, Snapshot, SnapshotPacks, SnapshotQuery},
    page::Page,
};
use authz::{Action, Permit, Scope};
use domain::{AgentId, SnapshotId, Timestamp};
use pg::TenantTx;

use crate::{
    collection::letting_go,
    error::Error,
    paging::{self, after, bad_cursor, page_limit},
    state::Catalog,
};
use store::{Filter, SnapshotRow, Which};

fn place(parts: &str) -> Result<(Timestamp, SnapshotId), Error> {
    let (at, id) = parts.split_once(' ').ok_or_else(bad_cursor)?;
    Ok((at.parse().map_err(|_| bad_cursor())?, id.parse().map_err(|_| bad_cursor())?))
}

/// A page of snapshots, newest first; of one agent only, when one asks.
async fn page(
    app: &Catalog,
    scope: Scope,
    agent: Option<AgentId>,
    query: &SnapshotQuery,
    which: Which,
) -> Result<Page<SnapshotRow>, Error> {
    let limit = page_limit(query.limit);
    let filter = Filter {
        workload: query.workload_id,
        agent,
        which,
        after: after::<String>(query.cursor.as_deref())?.as_deref().map(place).transpose()?,
    };
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    let rows = store::list(&mut tx, filter, i64::from(limit) + 1).await?;
    let place = |row: &SnapshotRow| format!("{} {}", Timestamp::from(row.committed_at), row.id());
    Ok(paging::page(rows, limit, place))
}

/// Committed snapshots, newest first.
///
/// # Errors
/// `validation` for a bad cursor.
pub async fn list<A: Action>(
    app: &Catalog,
    permit: &Permit<A>,
    query: &SnapshotQuery,
) -> Result<Page<Snapshot>, Error> {
    let (scope, agent) = (permit.scope(), permit.actor().agent_id());
    let Page { items, next_cursor } = page(app, scope, agent, query, Which::Committed).await?;
    Ok(Page { items: items.into_iter().map(SnapshotRow::into_dto).collect(), next_cursor })
}

/// Softly expired snapshots, newest first; of one agent only, when one asks.
///
/// # Errors
/// `validation` for a bad cursor.
pub async fn list_expired(
    app: &Catalog,
    scope: Scope,
    agent: Option<AgentId>,
    query: &SnapshotQuery,
) -> Result<Page<ExpiredSnapshot>, Error> {
    let Page { items, next_cursor } = page(app, scope, agent, query, Which::Expired).await?;
    let items = items.into_iter().filter_map(|row| {
        let expired_at = Timestamp::from(row.expired_at?);
        let undo_until = expired_at + letting_go::UNDO;
        Some(ExpiredSnapshot { snapshot: row.into_dto(), expired_at, undo_until })
    });
    Ok(Page { items: items.collect(), next_cursor })
}

/// One committed snapshot the caller may see.
///
/// # Errors
/// `not_found`.
pub async fn find<A: Action>(
    tx: &mut TenantTx,
    permit: &Permit<A>,
    id: SnapshotId,
) -> Result<SnapshotRow, Error> {
    store::find(tx, id, permit.actor().agent_id()).await?.ok_or_else(Error::not_found)
}

/// Everything the snapshot needs, manifests included, by pages.
///
/// # Errors
/// `not_found`, `validation` for a bad cursor.
pub async fn packs<A: Action>(
    app: &Catalog,
    permit: &Permit<A>,
    id: SnapshotId,
    cursor: Option<&str>,
    limit: Option<u32>,
) -> Result<SnapshotPacks, Error> {
    let limit = page_limit(limit);
    let after = after(cursor)?;
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let row = find(&mut tx, permit, id).await?;
    let workload = domain::WorkloadId::from_uuid(row.workload_id);
    let rows = store::list_packs(&mut tx, workload, row.seq, after, i64::from(limit) + 1).await?;
    let Page { items, next_cursor } =
        paging::page(rows, limit, |row| row.id().to_string()).map(|row| row.facts());
    Ok(SnapshotPacks { items, next_cursor })
}

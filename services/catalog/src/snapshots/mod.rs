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
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::{AgentId, PackId, SnapshotId, Timestamp};
use pg::TenantTx;

use crate::{collection::letting_go, error::Error, state::Catalog};
use store::{Filter, SnapshotRow, Which};

/// A page's size as asked for.
pub fn page_limit(asked: Option<u32>) -> u32 {
    asked.unwrap_or(100).clamp(1, 1_000)
}

/// Opaque text out of what the next page starts after.
pub fn cursor(parts: &str) -> String {
    URL_SAFE_NO_PAD.encode(parts)
}

/// What a cursor holds.
///
/// # Errors
/// `validation` for anything we did not make.
pub fn read_cursor(text: &str) -> Result<String, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    let found = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    found.ok_or_else(bad_cursor)
}

pub fn bad_cursor() -> Error {
    Error::field("cursor", "hand back `next_cursor` as it came")
}

fn after(text: &str) -> Result<(Timestamp, SnapshotId), Error> {
    let parts = read_cursor(text)?;
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
        after: query.cursor.as_deref().map(after).transpose()?,
    };
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    let mut items = store::list(&mut tx, filter, i64::from(limit) + 1).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let last = items.last().filter(|_| more);
    let next_cursor =
        last.map(|row| cursor(&format!("{} {}", Timestamp::from(row.committed_at), row.id())));
    Ok(Page { items, next_cursor })
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
    after: Option<&str>,
    limit: Option<u32>,
) -> Result<SnapshotPacks, Error> {
    let limit = page_limit(limit);
    let parse = |text: &str| read_cursor(text)?.parse::<PackId>().map_err(|_| bad_cursor());
    let after = after.map(parse).transpose()?;
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let row = find(&mut tx, permit, id).await?;
    let workload = domain::WorkloadId::from_uuid(row.workload_id);
    let mut rows =
        store::list_packs(&mut tx, workload, row.seq, after, i64::from(limit) + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| more).map(|row| cursor(&row.id().to_string()));
    Ok(SnapshotPacks {
        items: rows.iter().map(crate::packs::store::PackRow::facts).collect(),
        next_cursor,
    })
}

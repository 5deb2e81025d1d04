//! Sessions: one writer's stay in a vault, from the raised fence (B0) to the receipt (B6).
//!
//! Invariants: at most one session of a workload is open; whoever carries an older fence is told so and
//! changes nothing; an ended session never opens again, but what it uploaded is adopted by the next.

mod bounds;
pub mod commit;
pub mod commit_store;
mod facts;
pub mod http;
mod job_store;
pub mod jobs;
pub mod manifest;
pub mod store;

use api::{
    Page,
    catalog::{OpenSession, PackFacts, Session, SnapshotSource},
    page::PageQuery,
    problem::Code,
};
use authz::{Permit, actions::SessionWrite};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::{AgentId, EventId, PackId, SessionId, VaultId, WorkloadId};
use pg::{AuditEvent, OperationalReason, TenantTx};
use runtime::Cx;
use vault::receipt::Receipt;

use crate::{
    collection::expiry_store,
    error::Error,
    freezes, packs,
    paging::{self, after, page_limit},
    snapshots,
    state::{Catalog, Lease},
    vaults, workloads,
};
pub use store::{End, NewSession, SessionRow};

/// How often an agent says that it is still there.
pub const HEARTBEAT_S: u32 = 60;
/// How long after its upload a condemned pack can still be adopted: no longer than a session may last.
const ADOPTABLE: std::time::Duration = jobs::LONGEST;
/// Packs outside the parent that a session is told about.
const MAX_KNOWN: i64 = 10_000;
/// A parent that lost more packs than this is none: its list would be longer than what it saves.
const MAX_LOST: usize = 10_000;

/// The agent behind the permit. Only agents hold one for sessions.
pub fn agent_of<A: authz::Action>(permit: &Permit<A>) -> Result<AgentId, Error> {
    permit.actor().agent_id().ok_or_else(|| Error::refused(Code::Forbidden))
}

/// The caller's own session.
pub async fn find_own(
    tx: &mut TenantTx,
    permit: &Permit<SessionWrite>,
    id: SessionId,
) -> Result<SessionRow, Error> {
    store::find(tx, agent_of(permit)?, id).await?.ok_or_else(Error::not_found)
}

/// Open, and not overtaken.
///
/// # Errors
/// `fenced` when a newer session took over, `session_ended` when it ended otherwise.
pub fn check_open(session: &SessionRow, fence: u64) -> Result<(), Error> {
    if faults::planted(faults::Bug::SkipEpochCheck) {
        return Ok(());
    }
    if session.ended_by.as_deref() == Some("taken_over") || session.fence.cast_unsigned() != fence {
        return Err(Error::refused(Code::Fenced));
    }
    if session.state != "open" {
        return Err(Error::refused(Code::SessionEnded));
    }
    Ok(())
}

/// B0: checks the lease, raises the fence, ends what was open, and says what there is to build on.
///
/// # Errors
/// `lease_lost`, `not_found`, `store_unavailable` while the vault's keys are not in the key store yet.
pub async fn open(
    app: &Catalog,
    cx: &Cx,
    permit: &Permit<SessionWrite>,
    body: &OpenSession,
) -> Result<Session, Error> {
    let (agent, now) = (agent_of(permit)?, cx.now());
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let raised = workloads::store::raise_fence(&mut tx, body.workload_id, agent).await?;
    let (fence, vault) = raised.ok_or_else(Error::not_found)?;
    let lease = app.lease(&body.lease_token, now)?;
    let holds = lease.tenant == permit.tenant()
        && lease.agent == agent
        && lease.workload == body.workload_id;
    if !holds {
        return Err(Error::refused(Code::LeaseLost));
    }
    check_epoch(&mut tx, &lease).await?;
    let core = keyed_vault(&mut tx, vault).await?;
    store::end_open(&mut tx, body.workload_id, now).await?;
    let parent = find_parent(&mut tx, body.workload_id).await?;
    let new = NewSession {
        id: SessionId::fresh(&*cx.ids, now),
        vault,
        workload: body.workload_id,
        agent,
        run: lease.run,
        lease_epoch: lease.epoch,
        fence,
        key_epoch: core.key_epoch,
        parent: parent.as_ref().map(|parent| parent.row.id()),
    };
    store::insert(&mut tx, &new, now).await?;
    let built_on = parent.as_ref().map(|parent| (body.workload_id, parent.row.seq));
    let known = packs::store::list_known(&mut tx, vault, built_on, MAX_KNOWN).await?;
    let parent = match parent {
        Some(parent) => Some(source(&mut tx, parent).await?),
        None => None,
    };
    // Whoever condemned them since counts this session as older: they stay while it is open.
    expiry_store::restart_grace(&mut tx, vault, agent, now - ADOPTABLE, now).await?;
    let frozen = guard_rollback(app, cx, &mut tx, body.last_receipt.as_deref()).await?;
    match frozen {
        Some(event) => tx.commit(event).await?,
        None => tx.commit_operational(OperationalReason::SessionBookkeeping).await?,
    }
    Ok(Session {
        id: new.id,
        vault_id: vault,
        run_id: lease.run,
        fence: fence.cast_unsigned(),
        key_epoch: core.key_epoch.cast_unsigned(),
        parent,
        known: known.iter().map(packs::store::PackRow::facts).collect(),
        heartbeat_interval_s: HEARTBEAT_S,
        content_md5: app.store.config().capabilities.needs_md5(),
    })
}

/// What the agent's earlier sessions uploaded and did not commit, page by page: usable as it is.
///
/// # Errors
/// `validation` for a cursor that is none, `session_ended`.
pub async fn adopted(
    app: &Catalog,
    permit: &Permit<SessionWrite>,
    id: SessionId,
    query: &PageQuery,
) -> Result<Page<PackFacts>, Error> {
    let limit = page_limit(query.limit);
    let after = after(query.cursor.as_deref())?;
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let session = find_own(&mut tx, permit, id).await?;
    check_open(&session, session.fence.cast_unsigned())?;
    let rows = packs::store::list_adoptable(&mut tx, id, after, i64::from(limit) + 1).await?;
    Ok(paging::page(rows, limit, |row| row.id().to_string()).map(|row| row.facts()))
}

/// A lease of a workload that was handed to somebody later is worth nothing, whatever run it was for.
async fn check_epoch(tx: &mut TenantTx, lease: &Lease) -> Result<(), Error> {
    let highest = store::highest_lease_epoch(tx, lease.workload).await?;
    if highest.is_some_and(|seen| seen.cast_unsigned() > lease.epoch) {
        return Err(Error::refused(Code::LeaseLost));
    }
    Ok(())
}

/// The vault, once its keys are durable in the key store: the first pack of an epoch must never come before.
async fn keyed_vault(tx: &mut TenantTx, id: VaultId) -> Result<vaults::store::VaultCore, Error> {
    let core = vaults::store::find_core(tx, id).await?.ok_or_else(Error::not_found)?;
    let roster = vaults::store::find_newest_roster(tx, id).await?;
    let wraps = vaults::store::list_wraps(tx, id).await?;
    let stored = core.descriptor_stored_at.is_some()
        && roster.is_some_and(|roster| roster.stored_at.is_some())
        && wraps.iter().all(|wrap| wrap.stored_at.is_some());
    if stored {
        Ok(core)
    } else {
        Err(Error::because(Code::StoreUnavailable, "the vault's keys are not in the key store yet"))
    }
}

/// What a session builds on.
struct Parent {
    row: snapshots::store::SnapshotRow,
    /// Packs it needs and nobody can name any more.
    lost: Vec<PackId>,
}

/// The newest committed snapshot whose manifests can be read. What else of it is lost is told, not hidden: the agent
/// then reads again what was in it, and only that.
async fn find_parent(tx: &mut TenantTx, workload: WorkloadId) -> Result<Option<Parent>, Error> {
    let Some(row) = snapshots::store::newest_locked(tx, workload).await? else { return Ok(None) };
    let most = i64::try_from(MAX_LOST + 1).unwrap_or(i64::MAX);
    let lost = snapshots::store::list_lost(tx, workload, row.seq, most).await?;
    Ok((lost.len() <= MAX_LOST).then_some(Parent { row, lost }))
}

async fn source(tx: &mut TenantTx, parent: Parent) -> Result<SnapshotSource, Error> {
    let Parent { row, lost } = parent;
    let ids = [row.manifest_id];
    let found = packs::store::find_in_vault(tx, VaultId::from_uuid(row.vault_id), &ids).await?;
    let manifest = found.first().ok_or_else(Error::not_found)?.facts();
    Ok(SnapshotSource { snapshot_id: row.id(), manifest, lost })
}

/// The rollback guard: a receipt we signed and do not know means that this database went back in time.
/// Nothing is collected for the tenant until somebody has looked.
async fn guard_rollback(
    app: &Catalog,
    cx: &Cx,
    tx: &mut TenantTx,
    presented: Option<&str>,
) -> Result<Option<AuditEvent>, Error> {
    let Some(bytes) = presented.and_then(|text| BASE64.decode(text).ok()) else {
        return Ok(None);
    };
    // Not signed by us: says nothing about our past, and must not be a way to stop collection.
    let Ok(receipt) = Receipt::open(&bytes, &app.receipt_public()) else {
        tracing::warn!("a presented receipt is not ours");
        return Ok(None);
    };
    let ours = receipt.tenant == tx.tenant();
    if !ours || snapshots::store::was_committed(tx, receipt.snapshot).await? {
        return Ok(None);
    }
    let id = EventId::fresh(&*cx.ids, cx.now());
    let evidence = receipt.snapshot.to_string();
    let reason = freezes::Reason::UnknownReceipt;
    if !freezes::store::insert_freeze(tx, id, reason, &evidence, cx.now()).await? {
        return Ok(None);
    }
    tracing::error!("a receipt is unknown to the database: collection is frozen for its tenant");
    let event = cx.event("collection.frozen", "snapshot", &receipt.snapshot);
    Ok(Some(event.detail("committed_at", receipt.committed_at).detail("reason", "unknown_receipt")))
}

/// # Errors
/// `fenced`, `session_ended`.
pub async fn heartbeat(
    app: &Catalog,
    cx: &Cx,
    permit: &Permit<SessionWrite>,
    id: SessionId,
    fence: u64,
) -> Result<(), Error> {
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let session = find_own(&mut tx, permit, id).await?;
    check_open(&session, fence)?;
    if !store::set_heartbeat(&mut tx, id, cx.now()).await? {
        return Err(Error::refused(Code::SessionEnded));
    }
    Ok(tx.commit_operational(OperationalReason::Heartbeat).await?)
}

/// Ends the session without a snapshot. Repeating it is harmless.
///
/// # Errors
/// `fenced`, `session_ended` when it was committed.
pub async fn abort(
    app: &Catalog,
    cx: &Cx,
    permit: &Permit<SessionWrite>,
    id: SessionId,
    fence: u64,
) -> Result<(), Error> {
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let session = find_own(&mut tx, permit, id).await?;
    if session.state == "aborted" && session.ended_by.as_deref() == Some("agent") {
        return Ok(());
    }
    check_open(&session, fence)?;
    if !store::set_ended(&mut tx, id, End::AbortedByAgent, cx.now()).await? {
        // A commit, a takeover or the reconciler was faster.
        return Err(Error::refused(Code::SessionEnded));
    }
    Ok(tx.commit_operational(OperationalReason::SessionBookkeeping).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn session(state: &str, ended_by: Option<&str>) -> SessionRow {
        SessionRow {
            id: Uuid::nil(),
            vault_id: Uuid::nil(),
            workload_id: Uuid::nil(),
            agent_id: Uuid::nil(),
            run_id: Uuid::nil(),
            fence: 3,
            key_epoch: 1,
            parent_id: None,
            state: state.into(),
            ended_by: ended_by.map(Into::into),
        }
    }

    #[test]
    fn only_an_open_session_with_its_own_fence_goes_on() {
        let code = |row: &SessionRow, fence| check_open(row, fence).map_err(|e| e.code());
        assert_eq!(code(&session("open", None), 3), Ok(()));
        assert_eq!(code(&session("open", None), 2), Err(Code::Fenced));
        assert_eq!(code(&session("aborted", Some("taken_over")), 3), Err(Code::Fenced));
        assert_eq!(code(&session("aborted", Some("agent")), 3), Err(Code::SessionEnded));
        assert_eq!(code(&session("expired", Some("silence")), 3), Err(Code::SessionEnded));
        assert_eq!(code(&session("committed", None), 3), Err(Code::SessionEnded));
    }
}

//! B4 to B6: from an uploaded manifest to a snapshot, in one transaction.
//!
//! Invariants: the references come from the signed manifest alone, read back by version id; every pack it
//! needs is locked at least until `protect_until` before the transaction starts, and the transaction
//! checks that again under row locks; committing twice gives the same snapshot. A crash anywhere before the
//! transaction's end leaves packs and longer locks, never a snapshot.

use std::collections::BTreeSet;

use api::{
    catalog::{CommitReply, CommitSession, PackKind, PackState},
    problem::Code,
};
use authz::{Permit, actions::SessionWrite};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::{
    PackId, SessionId, SnapshotId, Timestamp,
    retention::{self, Protection},
};
use pg::{OperationalReason, TenantTx};
use runtime::Cx;
use uuid::Uuid;
use vault::{id::Sha256, keys::Roster, manifest::SignedManifest, receipt::Receipt};

use super::{
    End, check_open,
    commit_store::{self as sql, NewManifest, NewSnapshot},
    manifest::{self, Expected, Needs},
    store::{self, SessionRow},
};
use crate::{
    error::Error,
    packs::{self, state::may_be_referenced, store::PackRow},
    replica, snapshots,
    state::Catalog,
    vaults,
};

/// How often a transaction that lost against another one is tried again.
const ATTEMPTS: u32 = 5;

/// What the database knew before the manifest was read.
struct Gathered {
    session: SessionRow,
    fence: u64,
    manifest: PackRow,
    roster: Roster,
    damage_epoch: i64,
    /// Manifests of the parent, newest first.
    parent_chain: Vec<PackRow>,
    /// When the workload's newest snapshot was committed.
    last_commit: Option<Timestamp>,
}

/// Everything the transaction writes, decided before it starts.
struct Decided<'a> {
    gathered: &'a Gathered,
    body: &'a CommitSession,
    signed: &'a SignedManifest,
    needs: &'a Needs,
    protection: Protection,
    now: Timestamp,
    snapshot: SnapshotId,
}

/// Commits the session; idempotent.
///
/// # Errors
/// `validation`, `fenced`, `session_ended`, `pack_not_confirmed`, `manifest_rejected`, `pack_unusable`, `store_unavailable`.
pub async fn commit(
    app: &Catalog,
    cx: &Cx,
    permit: &Permit<SessionWrite>,
    id: SessionId,
    body: &CommitSession,
) -> Result<CommitReply, Error> {
    super::bounds::check(body)?;
    match make(app, cx, permit, id, body).await {
        // Ended since we looked: by the same commit sent twice, its answer is that commit's.
        Err(error) if error.code() == Code::SessionEnded => {
            let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
            let session = super::find_own(&mut tx, permit, id).await?;
            if session.state == "committed" {
                replay(&mut tx, &session, body).await
            } else {
                Err(error)
            }
        }
        other => other,
    }
}

async fn make(
    app: &Catalog,
    cx: &Cx,
    permit: &Permit<SessionWrite>,
    id: SessionId,
    body: &CommitSession,
) -> Result<CommitReply, Error> {
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let session = super::find_own(&mut tx, permit, id).await?;
    if session.state == "committed" {
        return replay(&mut tx, &session, body).await;
    }
    let gathered = gather(app, &mut tx, session, body).await?;
    drop(tx);
    let turn = app.manifests.turn().await?;
    let signed = read_back(app, &gathered).await?;
    let needs = derive(app, permit, &gathered, &signed).await?;
    drop(turn);
    let now = cx.now();
    let protection = retention::protect(&app.retention, gathered.last_commit, now);
    cover(app, permit, &gathered, &needs, &protection).await?;
    let snapshot = SnapshotId::fresh(&*cx.ids, now);
    let decided = Decided {
        gathered: &gathered,
        body,
        signed: &signed,
        needs: &needs,
        protection,
        now,
        snapshot,
    };
    let reply = retried(app, cx, permit, &decided).await?;
    app.receipts_waiting.notify_one();
    Ok(reply)
}

/// The answer to a commit that happened already.
async fn replay(
    tx: &mut TenantTx,
    session: &SessionRow,
    body: &CommitSession,
) -> Result<CommitReply, Error> {
    let found = snapshots::store::find_by_session(tx, session.id()).await?;
    let row = found.ok_or_else(Error::not_found)?;
    if row.manifest_id != body.manifest_id.uuid() {
        return Err(Error::because(
            Code::Conflict,
            "this session was committed with another manifest",
        ));
    }
    let receipt = snapshots::store::find_receipt(tx, row.id()).await?;
    let receipt =
        receipt.ok_or_else(|| Error::broken("a snapshot has no receipt", row.id().to_string()))?;
    Ok(CommitReply { snapshot: row.into_dto(), receipt: BASE64.encode(receipt) })
}

async fn gather(
    app: &Catalog,
    tx: &mut TenantTx,
    session: SessionRow,
    body: &CommitSession,
) -> Result<Gathered, Error> {
    check_open(&session, body.fence)?;
    let rows = packs::store::find_in_session(tx, session.id(), &[body.manifest_id.uuid()]).await?;
    let manifest =
        rows.into_iter().next().ok_or_else(|| rejected("the manifest is not of this session"))?;
    if manifest.kind() != PackKind::Manifest {
        return Err(rejected("that pack is not a manifest"));
    }
    if manifest.state() == PackState::Allocated {
        return Err(Error::refused(Code::PackNotConfirmed));
    }
    let core = vaults::store::find_core(tx, session.vault()).await?.ok_or_else(Error::not_found)?;
    let roster = vaults::newest_roster(app, tx, session.vault()).await?;
    let parent_chain = match session.parent() {
        Some(parent) => parent_manifests(tx, &session, parent).await?,
        None => Vec::new(),
    };
    let last_commit = snapshots::store::last_commit_at(tx, session.workload()).await?;
    let damage_epoch = core.damage_epoch;
    let fence = body.fence;
    Ok(Gathered { session, fence, manifest, roster, damage_epoch, parent_chain, last_commit })
}

async fn parent_manifests(
    tx: &mut TenantTx,
    session: &SessionRow,
    parent: SnapshotId,
) -> Result<Vec<PackRow>, Error> {
    let row = snapshots::store::find(tx, parent, None).await?.ok_or_else(gone)?;
    Ok(snapshots::store::list_manifests(tx, session.workload(), row.seq).await?)
}

/// B4: the manifest as the store has it, by version id, signed by a member for this very session.
async fn read_back(app: &Catalog, gathered: &Gathered) -> Result<SignedManifest, Error> {
    let signed = app.manifests.read(app, &gathered.manifest).await?;
    let session = &gathered.session;
    let expected = Expected {
        tenant: gathered.roster.tenant,
        vault: session.vault(),
        workload: session.workload(),
        agent: session.agent(),
        session: session.id(),
        fence: gathered.fence,
        key_epoch: session.key_epoch.cast_unsigned(),
        parent: gathered.parent_chain.first().map(PackRow::id),
    };
    manifest::check(&signed, &gathered.roster, &expected)
        .map_err(|why| rejected(why.to_string()))?;
    Ok(signed)
}

/// The packs the manifest needs, each compared with the row the store's confirmation wrote.
async fn derive(
    app: &Catalog,
    permit: &Permit<SessionWrite>,
    gathered: &Gathered,
    signed: &SignedManifest,
) -> Result<Needs, Error> {
    let depth = usize::from(signed.manifest.depth);
    let mut chain = vec![signed.clone()];
    for row in gathered.parent_chain.iter().take(depth) {
        chain.push(app.manifests.read(app, row).await?);
    }
    let needs = Needs::of(&chain).map_err(|why| rejected(why.to_string()))?;
    let ids: Vec<Uuid> = needs.packs.iter().map(|pack| pack.id.uuid()).collect();
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let rows = packs::store::find_in_vault(&mut tx, gathered.session.vault(), &ids).await?;
    if rows.len() != ids.len() {
        // Also what a pack of another vault or tenant looks like from here.
        return Err(rejected("the manifest names a pack this vault does not have"));
    }
    let other = |row: &PackRow| {
        let named = needs.packs.0.get(&row.id())?.version_id.as_str();
        (Some(named) != row.version_id.as_deref()).then_some((row.id(), named))
    };
    // A pack that was repaired since its manifest was written has another version: the one named was its.
    let others: Vec<_> = rows.iter().filter_map(other).collect();
    let former = replica::repair::former(&mut tx, &others).await?;
    for row in &rows {
        let named = needs.packs.0.get(&row.id()).ok_or_else(gone)?;
        let same = named.sha256.0[..] == row.sha256[..]
            && named.length == row.length()
            && named.kind.as_str() == row.kind
            && (Some(named.version_id.as_str()) == row.version_id.as_deref()
                || former.contains(&row.id()));
        match row.state() {
            PackState::Allocated => return Err(Error::refused(Code::PackNotConfirmed)),
            state if !may_be_referenced(state) => return Err(gone()),
            _ if !same => {
                return Err(rejected("the manifest describes a pack otherwise than the store did"));
            }
            _ => {}
        }
    }
    Ok(needs)
}

/// B3: every needed pack that is locked too short is extended; durable before the transaction starts.
async fn cover(
    app: &Catalog,
    permit: &Permit<SessionWrite>,
    gathered: &Gathered,
    needs: &Needs,
    protection: &Protection,
) -> Result<(), Error> {
    let ids: Vec<Uuid> = needs.ids().into_iter().map(PackId::uuid).collect();
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let rows = packs::store::find_in_vault(&mut tx, gathered.session.vault(), &ids).await?;
    drop(tx);
    let until = protection.protect_until;
    let short: Vec<PackRow> =
        rows.into_iter().filter(|row| row.lock_until().is_none_or(|lock| lock < until)).collect();
    for batch in short.chunks(packs::EXTEND_BATCH) {
        let (locks, failed) = packs::extend(app, batch, until).await;
        let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
        packs::store::set_locks(&mut tx, &locks).await?;
        tx.commit_operational(OperationalReason::PackBookkeeping).await?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(())
}

async fn retried(
    app: &Catalog,
    cx: &Cx,
    permit: &Permit<SessionWrite>,
    decided: &Decided<'_>,
) -> Result<CommitReply, Error> {
    let mut attempt = 1;
    loop {
        match transaction(app, cx, permit, decided).await {
            Err(Error::Database(pg::Error::Serialization(_))) if attempt < ATTEMPTS => attempt += 1,
            other => return other,
        }
    }
}

/// B5. The only place where a backup becomes a snapshot (R5).
async fn transaction(
    app: &Catalog,
    cx: &Cx,
    permit: &Permit<SessionWrite>,
    decided: &Decided<'_>,
) -> Result<CommitReply, Error> {
    let session = &decided.gathered.session;
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let seq = lock_chain(&mut tx, decided).await? + 1;
    let added = lock_added(&mut tx, decided).await?;
    sql::set_live(&mut tx, &added).await?;
    refer(&mut tx, decided, seq).await?;
    let until = decided.protection.protect_until;
    let coverage = sql::count_coverage(&mut tx, session.workload(), until).await?;
    let (packs, earliest) = (coverage.packs, coverage.earliest.map(Timestamp::from));
    let locked_until = earliest.filter(|_| coverage.unfit == 0).ok_or_else(gone)?;
    let stored_bytes = sql::sum_stored_bytes(&mut tx, session.id(), &added).await?;
    let new = NewSnapshot {
        id: decided.snapshot,
        session,
        parent: decided.signed.manifest.parent.as_ref().and(session.parent_id),
        seq,
        manifest: decided.signed.id,
        committed_at: decided.now,
        paths: &decided.body.paths,
        tags: serde_json::to_value(&decided.body.tags).map_err(|e| Error::broken("tags", e))?,
        stats: &decided.body.stats,
        stored_bytes,
        slots: decided.protection.slots.iter().map(|slot| slot.as_str().to_owned()).collect(),
        protect_until: until,
        locked_until,
    };
    sql::insert_snapshot(&mut tx, &new).await?;
    record(&mut tx, decided, packs).await?;
    sql::set_last_seq(&mut tx, session.workload(), seq).await?;
    store::set_ended(&mut tx, session.id(), End::Committed, decided.now).await?;
    let receipt =
        snapshots::receipts::write(app, &mut tx, &receipt(permit, decided), locked_until).await?;
    super::facts::publish(&mut tx, cx, &new).await?;
    let stored = snapshots::store::find_by_session(&mut tx, session.id()).await?;
    let snapshot = stored.ok_or_else(gone)?.into_dto();
    let event = cx
        .event("snapshot.committed", "snapshot", &decided.snapshot)
        .detail("workload_id", session.workload())
        .detail("vault_id", session.vault())
        .detail("run_id", session.run())
        .detail("packs", packs)
        .detail("stored_bytes", stored_bytes)
        .detail("protect_until", until)
        .detail("locked_until", locked_until);
    tx.commit(event).await?;
    Ok(CommitReply { snapshot, receipt: BASE64.encode(receipt) })
}

/// Locks workload, session, vault and parent, in this order, and checks that nothing overtook us. Gives the
/// newest place in the chain.
async fn lock_chain(tx: &mut TenantTx, decided: &Decided<'_>) -> Result<i64, Error> {
    let gathered = decided.gathered;
    let session = &gathered.session;
    let workload =
        sql::lock_workload(tx, session.workload()).await?.ok_or_else(Error::not_found)?;
    let current = store::lock(tx, session.id()).await?.ok_or_else(Error::not_found)?;
    check_open(&current, gathered.fence)?;
    let is_checked = !faults::planted(faults::Bug::SkipEpochCheck);
    if is_checked && workload.fence != current.fence {
        return Err(Error::refused(Code::Fenced));
    }
    let damage = sql::lock_damage_epoch(tx, session.vault()).await?;
    if damage != Some(gathered.damage_epoch) {
        return Err(gone());
    }
    if let Some(parent) = session.parent()
        && sql::lock_parent(tx, parent).await?.as_deref() != Some("committed")
    {
        return Err(gone());
    }
    Ok(workload.last_seq)
}

/// Locks, in id order, the rows of every pack the parent does not already keep alive, and requires each to be
/// usable. Gives their ids.
async fn lock_added(tx: &mut TenantTx, decided: &Decided<'_>) -> Result<Vec<Uuid>, Error> {
    let session = &decided.gathered.session;
    let inherited: BTreeSet<Uuid> = match session.parent() {
        Some(parent) => {
            let seq = sql::find_seq(tx, parent).await?.ok_or_else(gone)?;
            sql::list_at(tx, session.workload(), seq).await?.into_iter().collect()
        }
        None => BTreeSet::new(),
    };
    let needed = decided.needs.ids().into_iter().map(PackId::uuid);
    let added: Vec<Uuid> = needed.filter(|id| !inherited.contains(id)).collect();
    let locked = sql::lock_packs(tx, session.vault(), &added).await?;
    let usable = locked.iter().filter(|pack| {
        let state = PackState::parse(&pack.state).unwrap_or(PackState::Lost);
        let lock = pack.lock_until.map(Timestamp::from);
        may_be_referenced(state)
            && lock.is_some_and(|lock| lock >= decided.protection.protect_until)
    });
    if usable.count() != added.len() {
        return Err(gone());
    }
    Ok(added)
}

/// Writes the references: only what the chain's open end gains or loses.
async fn refer(tx: &mut TenantTx, decided: &Decided<'_>, seq: i64) -> Result<(), Error> {
    let workload = decided.gathered.session.workload();
    let open: BTreeSet<Uuid> = sql::list_open(tx, workload).await?.into_iter().collect();
    let needed: BTreeSet<Uuid> = decided.needs.ids().into_iter().map(PackId::uuid).collect();
    let dropped: Vec<Uuid> = open.difference(&needed).copied().collect();
    let gained: Vec<Uuid> = needed.difference(&open).copied().collect();
    sql::close_references(tx, workload, seq - 1, &dropped).await?;
    sql::insert_references(tx, workload, seq, &gained).await?;
    Ok(())
}

async fn record(tx: &mut TenantTx, decided: &Decided<'_>, packs: i64) -> Result<(), Error> {
    let manifest = &decided.signed.manifest;
    let new = NewManifest {
        pack: decided.signed.id,
        snapshot: decided.snapshot,
        key_epoch: manifest.key_epoch,
        full_list: manifest.depth == 0,
        packs: packs.unsigned_abs(),
        set_hash: manifest.set_hash.0,
    };
    Ok(sql::insert_manifest(tx, &new).await?)
}

fn receipt(permit: &Permit<SessionWrite>, decided: &Decided<'_>) -> Receipt {
    let session = &decided.gathered.session;
    Receipt {
        tenant: permit.tenant(),
        vault: session.vault(),
        workload: session.workload(),
        agent: session.agent(),
        run: session.run(),
        session: session.id(),
        fence: decided.gathered.fence,
        snapshot: decided.snapshot,
        manifest: decided.signed.id,
        manifest_sha256: Sha256(decided.signed.sha256.0),
        manifest_version: decided.gathered.manifest.version_id.clone().unwrap_or_default(),
        committed_at: decided.now,
        protect_until: decided.protection.protect_until,
    }
}

fn rejected(why: impl Into<String>) -> Error {
    Error::because(Code::ManifestRejected, why)
}

fn gone() -> Error {
    Error::refused(Code::PackUnusable)
}

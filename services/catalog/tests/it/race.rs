//! THE race: commits against condemning and deleting, on real Postgres.
//!
//! Clients commit references to packs a collector condemns and deletes at the same time, through the
//! production SQL. A reference of a committed, unexpired snapshot to a pack on its way out is lost data. The
//! same run with a commit that reads the states without locking the rows must show such references, or the
//! test proves nothing. That variant may also deadlock, because its writers meet the rows in no order: the database
//! ends one of them, whichever it catches, and its work did not happen. Production's locks are taken in id order, and a
//! deadlock there fails the test.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use authz::{Scope, ScopeReason};
use catalog::{
    collection::{self, expiry_store},
    sessions::commit_store,
};
use domain::{SnapshotId, TenantId, Timestamp, VaultId, WorkloadId};
use pg::{OperationalReason, Schema, TenantTx};
use testkit::TestApp;
use uuid::Uuid;

const CLIENTS: usize = 8;
const PACKS: usize = 60;
const COMMITS: usize = 120;

/// The one difference between the two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commit {
    /// As in production.
    LocksRows,
    /// The planted bug: the same check without the row locks.
    OnlyReads,
}

struct Arena {
    db: pg::Db,
    scope: Scope,
    vault: VaultId,
    session: Uuid,
    /// Packs clients believe in.
    pool: Mutex<Vec<Uuid>>,
    now: Timestamp,
    over: AtomicBool,
    commits: AtomicU64,
    deleted: AtomicU64,
    lost: AtomicU64,
    /// Transactions the database ended.
    ended: AtomicU64,
}

impl Arena {
    async fn tx(&self) -> TenantTx {
        TenantTx::begin(&self.db, self.scope).await.expect("transaction")
    }

    async fn new(app: &TestApp) -> Arc<Self> {
        let mut config = app.database().config(Schema::Catalog);
        config.max_connections = 12;
        let db = pg::Db::connect(Schema::Catalog, &config).await.expect("pool");
        let tenant: TenantId = app.tenant();
        let scope = Scope::without_permit(tenant, ScopeReason::Reconcile);
        let arena = Self {
            db,
            scope,
            vault: app.id(),
            session: Uuid::from_u128(1),
            pool: Mutex::default(),
            now: app.now(),
            over: AtomicBool::new(false),
            commits: AtomicU64::new(0),
            deleted: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        };
        let mut superuser = app.database().superuser().await.expect("superuser");
        let sql = "WITH v AS (INSERT INTO catalog.vaults VALUES ($1, $2, $1, 'v', 'managed', '', 1, false, 0, now(), now()) RETURNING id),
             w AS (INSERT INTO catalog.workloads (tenant_id, id, agent_id, vault_id, kind, name, created_at)
                   SELECT $1, $1, $1, $2, 'files', 'w', now() RETURNING id)
             INSERT INTO catalog.sessions VALUES ($1, $3, $2, $1, $1, $1, 1, 0, 1, NULL, 'aborted', now(), now(), 0, now(), 'agent')";
        sqlx::query(sql)
            .bind(tenant.uuid())
            .bind(arena.vault.uuid())
            .bind(arena.session)
            .execute(&mut superuser)
            .await
            .expect("vault");
        let arena = Arc::new(arena);
        let mut tx = arena.tx().await;
        for seq in 0..PACKS {
            let id = arena.insert_pack(&mut tx, seq as i64).await.expect("pack");
            arena.pool.lock().expect("lock").push(id);
        }
        tx.commit_operational(OperationalReason::PackBookkeeping).await.expect("packs");
        arena
    }

    /// What a step came to; none, if the database ended it. By a deadlock only where the planted bug may be why.
    fn survived<T>(&self, how: Commit, outcome: Result<T, pg::Error>) -> Option<T> {
        match outcome {
            Ok(done) => Some(done),
            Err(pg::Error::Serialization(_)) if how == Commit::OnlyReads => {
                self.ended.fetch_add(1, Ordering::Relaxed);
                None
            }
            // A busy machine.
            Err(pg::Error::Unavailable(_)) => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// A pack that is live and could be deleted the moment nothing refers to it.
    async fn insert_pack(&self, tx: &mut TenantTx, seq: i64) -> Result<Uuid, pg::Error> {
        let id = Uuid::from_u128(u128::from(rand_u64()) << 64 | u128::from(rand_u64()));
        sqlx::query(
            "INSERT INTO catalog.packs (tenant_id, id, vault_id, session_id, seq, kind, state, sha256, md5, length,
                 object_key, granted_lock_until, grant_expires_at, version_id, lock_until, allocated_at)
             VALUES ($1, $2, $3, $4, $5, 'data', 'live', $6, $7, 1, $2::text, 'epoch', 'epoch', 'v', 'epoch', 'epoch')",
        )
        .bind(tx.tenant().uuid())
        .bind(id)
        .bind(self.vault.uuid())
        .bind(self.session)
        .bind(seq)
        .bind(vec![0_u8; 32])
        .bind(vec![0_u8; 16])
        .execute(tx.conn())
        .await?;
        Ok(id)
    }
}

/// Randomness good enough to shuffle.
fn rand_u64() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// One client: a workload whose newest snapshot stands until the next one is committed.
async fn client(arena: Arc<Arena>, how: Commit) {
    let workload = WorkloadId::from_uuid(Uuid::from_u128(u128::from(rand_u64())));
    let mut tx = arena.tx().await;
    let sql =
        "INSERT INTO catalog.workloads (tenant_id, id, agent_id, vault_id, kind, name, created_at)
               VALUES ($1, $2, $1, $3, 'files', 'w', now())";
    sqlx::query(sql)
        .bind(tx.tenant().uuid())
        .bind(workload.uuid())
        .bind(arena.vault.uuid())
        .execute(tx.conn())
        .await
        .expect("workload");
    tx.commit_operational(OperationalReason::SessionBookkeeping).await.expect("workload");
    let mut standing: Option<SnapshotId> = None;
    for seq in 1..=COMMITS as i64 {
        let outcome = commit(&arena, workload, seq, how).await;
        let Some(snapshot) = arena.survived(how, outcome).flatten() else { continue };
        if let Some(old) = standing.replace(snapshot) {
            arena.survived(how, retire(&arena, old).await);
        }
    }
    if let Some(last) = standing {
        arena.survived(how, retire(&arena, last).await);
    }
}

/// None: a pack is on its way out already, and nothing was committed.
async fn commit(
    arena: &Arena,
    workload: WorkloadId,
    seq: i64,
    how: Commit,
) -> Result<Option<SnapshotId>, pg::Error> {
    let mut ids: Vec<Uuid> = {
        let pool = arena.pool.lock().expect("lock");
        (0..4).map(|_| pool[(rand_u64() % pool.len() as u64) as usize]).collect()
    };
    ids.sort_unstable();
    ids.dedup();
    let mut tx = arena.tx().await;
    let states: Vec<String> = match how {
        Commit::LocksRows => {
            let rows = commit_store::lock_packs(&mut tx, arena.vault, &ids).await?;
            rows.into_iter().map(|row| row.state).collect()
        }
        Commit::OnlyReads => sqlx::query_scalar(
            "SELECT state FROM catalog.packs WHERE tenant_id = $1 AND vault_id = $2 AND id = ANY($3)")
            .bind(tx.tenant().uuid()).bind(arena.vault.uuid()).bind(&ids)
            .fetch_all(tx.conn()).await?,
    };
    let usable = |state: &&String| matches!(state.as_str(), "uploaded" | "live" | "condemned");
    if states.iter().filter(usable).count() != ids.len() {
        return Ok(None);
    }
    commit_store::set_live(&mut tx, &ids).await?;
    // Both runs: the window a busy server has between its check and its commit.
    sqlx::query("SELECT pg_sleep(0.002)").execute(tx.conn()).await?;
    let snapshot = SnapshotId::from_uuid(Uuid::from_u128(u128::from(rand_u64())));
    let open = commit_store::list_open(&mut tx, workload).await?;
    let dropped: Vec<Uuid> = open.iter().filter(|id| !ids.contains(id)).copied().collect();
    let gained: Vec<Uuid> = ids.iter().filter(|id| !open.contains(id)).copied().collect();
    commit_store::close_references(&mut tx, workload, seq - 1, &dropped).await?;
    commit_store::insert_references(&mut tx, workload, seq, &gained).await?;
    insert_snapshot(&mut tx, arena, workload, snapshot, seq, ids[0]).await?;
    tx.commit_operational(OperationalReason::SessionBookkeeping).await?;
    arena.commits.fetch_add(1, Ordering::Relaxed);
    Ok(Some(snapshot))
}

async fn insert_snapshot(
    tx: &mut TenantTx,
    arena: &Arena,
    workload: WorkloadId,
    id: SnapshotId,
    seq: i64,
    any_pack: Uuid,
) -> Result<(), pg::Error> {
    let session = Uuid::from_u128(u128::from(rand_u64()));
    let tenant = tx.tenant().uuid();
    sqlx::query("INSERT INTO catalog.sessions VALUES ($1, $2, $3, $4, $1, $1, 1, $5, 1, NULL, 'committed', $6, $6, 0, $6, NULL)")
        .bind(tenant).bind(session).bind(arena.vault.uuid()).bind(workload.uuid()).bind(seq)
        .bind(time::OffsetDateTime::from(arena.now)).execute(tx.conn()).await?;
    sqlx::query(
        "INSERT INTO catalog.snapshots (tenant_id, id, vault_id, workload_id, agent_id, run_id, session_id, seq, manifest_id,
             committed_at, status, paths, tags, files, directories, others, source_bytes, new_bytes, stored_bytes,
             exceptions, duration_ms, slots, protect_until, locked_until)
         VALUES ($1, $2, $3, $4, $1, $1, $5, $6, $7, $8, 'succeeded', '{}', '{}', 0, 0, 0, 0, 0, 0, 0, 0, '{}', 'epoch', 'epoch')")
        .bind(tenant).bind(id.uuid()).bind(arena.vault.uuid()).bind(workload.uuid()).bind(session).bind(seq).bind(any_pack)
        .bind(time::OffsetDateTime::from(arena.now)).execute(tx.conn()).await?;
    Ok(())
}

/// Looks whether everything a still valid snapshot needs is still there, then lets it go.
async fn retire(arena: &Arena, id: SnapshotId) -> Result<(), pg::Error> {
    let mut tx = arena.tx().await;
    let lost: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM catalog.snapshots s JOIN catalog.snapshot_packs r ON r.tenant_id = s.tenant_id
             AND r.workload_id = s.workload_id AND s.seq >= r.first_seq AND (r.last_seq IS NULL OR s.seq <= r.last_seq)
         JOIN catalog.packs p ON p.tenant_id = r.tenant_id AND p.id = r.pack_id
         WHERE s.tenant_id = $1 AND s.id = $2 AND p.state IN ('deleting', 'deleted')")
        .bind(tx.tenant().uuid()).bind(id.uuid()).fetch_one(tx.conn()).await?;
    arena.lost.fetch_add(lost.unsigned_abs(), Ordering::Relaxed);
    expiry_store::set_expired(&mut tx, id, arena.now).await?;
    expiry_store::set_forgetting(&mut tx, id, arena.now, arena.now).await?;
    expiry_store::set_forgotten(&mut tx, id, "v", arena.now).await?;
    tx.commit_operational(OperationalReason::SessionBookkeeping).await
}

/// The collector, with the production SQL and no grace.
async fn collector(arena: Arc<Arena>, number: i64, how: Commit) {
    let mut seq = (number + 1) * 1_000_000;
    while !arena.over.load(Ordering::Relaxed) {
        let outcome = collect(&arena, &mut seq).await;
        arena.survived(how, outcome);
    }
}

async fn collect(arena: &Arena, seq: &mut i64) -> Result<(), pg::Error> {
    let later = arena.now + std::time::Duration::from_secs(1);
    let mut tx = arena.tx().await;
    let rows = collection::store::lock_condemnable(&mut tx, arena.vault, 20).await?;
    collection::store::set_condemned(&mut tx, &rows, arena.now).await?;
    tx.commit_operational(OperationalReason::PackBookkeeping).await?;
    let mut tx = arena.tx().await;
    let rows = collection::store::lock_deletable(&mut tx, arena.vault, later, later, 10).await?;
    let gone = collection::store::set_deleting(&mut tx, &rows, arena.now).await?;
    let mut fresh = Vec::new();
    for _ in &gone {
        *seq += 1;
        fresh.push(arena.insert_pack(&mut tx, *seq).await?);
    }
    tx.commit_operational(OperationalReason::PackBookkeeping).await?;
    arena.deleted.fetch_add(gone.len() as u64, Ordering::Relaxed);
    let mut pool = arena.pool.lock().expect("lock");
    pool.retain(|id| !gone.contains(id));
    pool.extend(fresh);
    Ok(())
}

async fn run(how: Commit) -> (u64, u64, u64) {
    let app = TestApp::builder().start().await.expect("app");
    let arena = Arena::new(&app).await;
    let collectors: Vec<_> =
        (0..2).map(|n| tokio::spawn(collector(arena.clone(), n, how))).collect();
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(client(arena.clone(), how))).collect();
    for client in clients {
        client.await.expect("client");
    }
    arena.over.store(true, Ordering::Relaxed);
    for collector in collectors {
        collector.await.expect("collector");
    }
    arena.db.close().await;
    let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
    let figures = (read(&arena.commits), read(&arena.deleted), read(&arena.lost));
    println!(
        "{how:?}: {} commits, {} deletions, {} lost references, {} ended by the database",
        figures.0,
        figures.1,
        figures.2,
        read(&arena.ended)
    );
    figures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_commit_ever_refers_to_a_pack_on_its_way_out() {
    let (commits, deleted, lost) = run(Commit::LocksRows).await;
    assert!(
        commits > 100 && deleted > 100,
        "{commits} commits, {deleted} deletions: no race took place"
    );
    assert_eq!(lost, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_the_row_locks_the_same_race_loses_data() {
    let (_, _, lost) = run(Commit::OnlyReads).await;
    assert!(lost > 0, "the planted bug was not seen: the race test cannot fail");
}

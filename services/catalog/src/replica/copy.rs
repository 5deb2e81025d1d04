//! Copying, in an order that can stop anywhere: key objects, forget records, then snapshot by snapshot, the oldest
//! first: its packs, the manifests of its chain from the oldest on, its receipt.
//!
//! So a manifest that is at the second store implies its packs there, and a receipt implies all of it. One exception is
//! said aloud: where the first store has lost a pack, the manifest of that snapshot may come as a link in a later one's
//! chain, without a receipt. Invariant: what is not recorded yet is found there when it is put again.

use bytes::Bytes;
use domain::{PackId, SnapshotId, TenantId, Timestamp, VaultId};
use futures::{FutureExt as _, StreamExt as _};
use pg::{OperationalReason, TenantTx};
use uuid::Uuid;
use vault::layout;

use super::{
    Second,
    store::{self, RecordRow, There, UncopiedRow},
};
use crate::{error::Error, packs::store::PackRow, place, state::Catalog, vaults};

/// Objects one turn copies at most.
pub const BUDGET: usize = 512;
/// Objects recorded at once, and the lease kept with them.
const BATCH: usize = 8;
/// Objects in memory at once, of 80 MiB at most.
const AT_ONCE: usize = 2;
/// Snapshots looked at together.
const PAGE: i64 = 16;
/// So many errors in a row are a store that does not answer, not objects it cannot give.
const ERRORS: usize = 3;
/// How long somebody who stopped keeps others from going on. A batch takes this long below a megabyte a second.
pub const LEASE: std::time::Duration = std::time::Duration::from_secs(900);

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Turn {
    /// Objects that count as copied now.
    pub copied: usize,
    /// Objects the first store does not have, or not intact.
    pub failed: usize,
    /// The budget was used up.
    pub left_over: bool,
}

impl Turn {
    /// Everything there was to copy is there.
    const fn is_whole(self) -> bool {
        self.failed == 0 && !self.left_over
    }
}

/// Copies what a vault's second store lacks, up to a budget. Nothing, when somebody else is at it.
///
/// # Errors
/// A store's or the database's; what was copied is recorded, and why it stopped is in the status.
pub async fn turn(
    app: &Catalog,
    tenant: TenantId,
    vault: VaultId,
    budget: usize,
) -> Result<Turn, Error> {
    let scope = crate::reconciler_scope(tenant);
    let (now, lease) = (app.clock.now(), app.ids.uuid(app.clock.now()));
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    // A transaction that only skipped a lock is ended at once: dropped, it would hold others up.
    if !store::claim(&mut tx, vault, lease, now, now + LEASE).await? {
        tx.rollback().await?;
        return Ok(Turn::default());
    }
    let row = store::find(&mut tx, vault).await?.ok_or_else(Error::not_found)?;
    tx.commit_operational(OperationalReason::JobState).await?;
    let mut work = Work {
        app,
        tenant,
        vault,
        lease,
        left: budget,
        turn: Turn::default(),
        errors: 0,
        trouble: None,
    };
    let outcome = match Second::of(app, tenant, row) {
        Ok(second) => work.run(&second).await,
        Err(error) => Err(error),
    };
    let trouble = match &outcome {
        Err(error) => Some(words(error)),
        Ok(()) => work.trouble.take(),
    };
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    // Counting looks at every pack of the vault; after a turn that came to its end there is nothing to count.
    let behind = match &outcome {
        Ok(()) if work.turn.is_whole() => store::Behind::default(),
        Ok(()) | Err(_) => store::count_behind(&mut tx, vault).await?,
    };
    store::release(&mut tx, vault, lease, &behind, trouble.as_deref(), app.clock.now()).await?;
    tx.commit_operational(OperationalReason::JobState).await?;
    outcome.map(|()| work.turn)
}

/// An error with its causes, for the status.
pub fn words(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text.chars().take(1_000).collect()
}

/// A turn under way.
struct Work<'a> {
    app: &'a Catalog,
    tenant: TenantId,
    vault: VaultId,
    lease: Uuid,
    left: usize,
    turn: Turn,
    /// Objects in a row for which a store answered with an error.
    errors: usize,
    /// The first that was in the way and did not end the turn.
    trouble: Option<String>,
}

impl Work<'_> {
    async fn begin(&self) -> Result<TenantTx, Error> {
        Ok(TenantTx::begin(&self.app.db, crate::reconciler_scope(self.tenant)).await?)
    }

    async fn run(&mut self, second: &Second) -> Result<(), Error> {
        self.keys(second).await?;
        self.forgets(second).await?;
        let mut after: Option<UncopiedRow> = None;
        loop {
            let mut tx = self.begin().await?;
            let page = store::list_uncopied(&mut tx, self.vault, after.as_ref(), PAGE).await?;
            tx.rollback().await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(*last);
            for snapshot in &page {
                if self.left == 0 || !self.snapshot(second, snapshot).await? {
                    self.turn.left_over = true;
                    return Ok(());
                }
            }
        }
    }

    /// Descriptor, rosters and wraps, into the key bucket over there: a copy that cannot be opened is none.
    async fn keys(&self, second: &Second) -> Result<(), Error> {
        let (tenant, vault) = (self.tenant, self.vault);
        let mut tx = self.begin().await?;
        let core = vaults::store::find_core(&mut tx, vault).await?.ok_or_else(Error::not_found)?;
        let rosters = store::list_rosters(&mut tx, vault).await?;
        let wraps = vaults::store::list_wraps(&mut tx, vault).await?;
        tx.rollback().await?;
        let mut objects = vec![(layout::descriptor_key(tenant, vault), core.descriptor)];
        for (generation, roster) in rosters {
            objects.push((layout::roster_key(tenant, vault, generation.unsigned_abs()), roster));
        }
        for row in wraps {
            objects.push((vaults::jobs::wrap_key(tenant, vault, &row)?, row.wrap));
        }
        let count = i64::try_from(objects.len()).unwrap_or(i64::MAX);
        if count == second.row.keys_copied {
            return Ok(());
        }
        for (key, bytes) in objects {
            second.store.put_key_object(&key, Bytes::from(bytes)).await?;
        }
        let mut tx = self.begin().await?;
        store::set_keys_copied(&mut tx, vault, count).await?;
        Ok(tx.commit_operational(OperationalReason::JobState).await?)
    }

    /// Before any manifest: a chain may need one whose own snapshot was let go, and nobody should take it for standing.
    async fn forgets(&mut self, second: &Second) -> Result<(), Error> {
        loop {
            let mut tx = self.begin().await?;
            let page = store::list_missing_forgets(&mut tx, self.vault, 100).await?;
            tx.rollback().await?;
            if page.is_empty() {
                return Ok(());
            }
            for record in page {
                self.record(second, record).await?;
            }
        }
    }

    /// False: the budget was used up before the snapshot was whole.
    async fn snapshot(&mut self, second: &Second, of: &UncopiedRow) -> Result<bool, Error> {
        let (mut after, failed_before) = (None, self.turn.failed);
        loop {
            let limit = i64::try_from(self.left.min(BATCH)).unwrap_or(1);
            if limit == 0 {
                return Ok(false);
            }
            let mut tx = self.begin().await?;
            let page = store::list_missing_packs(&mut tx, of, after, limit).await?;
            tx.rollback().await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            self.packs(second, &page).await?;
        }
        if self.turn.failed > failed_before {
            // The others go on; this one waits for a repair of the first store.
            return Ok(true);
        }
        let mut tx = self.begin().await?;
        let manifests = store::list_missing_manifests(&mut tx, of).await?;
        let receipt = store::find_receipt(&mut tx, SnapshotId::from_uuid(of.id)).await?;
        tx.rollback().await?;
        for manifest in manifests {
            // One after the other: a child never comes before its parent.
            self.packs(second, std::slice::from_ref(&manifest)).await?;
            if self.turn.failed > failed_before {
                return Ok(true);
            }
        }
        if let Some(receipt) = receipt {
            self.record(second, receipt).await?;
        }
        Ok(true)
    }

    /// Some packs; those the first store cannot give are counted and told.
    async fn packs(&mut self, second: &Second, rows: &[PackRow]) -> Result<(), Error> {
        let app = self.app;
        let calls: Vec<_> = rows.iter().map(|row| pack(app, second, row).boxed()).collect();
        let done: Vec<_> = futures::stream::iter(calls).buffered(AT_ONCE).collect().await;
        let (mut there, mut silent) = (Vec::new(), None);
        for outcome in done {
            let why = match outcome {
                Ok(Ok(object)) => {
                    self.errors = 0;
                    there.push(object);
                    continue;
                }
                Ok(Err(why)) => why,
                Err(error) => {
                    self.errors += 1;
                    let why = words(&error);
                    silent = (self.errors >= ERRORS).then_some(error);
                    why
                }
            };
            self.turn.failed += 1;
            self.trouble.get_or_insert(why);
        }
        self.left = self.left.saturating_sub(rows.len());
        self.note(&there).await?;
        silent.map_or(Ok(()), Err)
    }

    /// A receipt or forget record, whose bytes the database has.
    async fn record(&mut self, second: &Second, row: RecordRow) -> Result<(), Error> {
        let until = second.term(row.lock_until.into(), self.app.clock.now());
        let bytes = Bytes::from(row.bytes);
        let placed = place::put(&second.store, &row.object_key, &bytes, until).await?;
        let object = There {
            key: row.object_key,
            pack: None,
            snapshot: Some(SnapshotId::from_uuid(row.snapshot_id)),
            version: placed.version,
            lock_until: placed.lock_until,
        };
        self.left = self.left.saturating_sub(1);
        self.note(&[object]).await
    }

    /// Writes down what is there, and keeps the lease.
    async fn note(&mut self, there: &[There]) -> Result<(), Error> {
        let now = self.app.clock.now();
        let mut tx = self.begin().await?;
        if !store::renew(&mut tx, self.vault, self.lease, now + LEASE).await? {
            return Err(Error::broken("somebody else took over this copying", "its lease ran out"));
        }
        for object in there {
            store::insert_object(&mut tx, self.vault, object, now).await?;
        }
        tx.commit_operational(OperationalReason::PackBookkeeping).await?;
        self.turn.copied += there.len();
        Ok(())
    }
}

/// One pack, from the version the catalog knows to a locked version over there.
async fn pack(
    app: &Catalog,
    second: &Second,
    row: &PackRow,
) -> Result<Result<There, String>, Error> {
    let version = row.version_id.as_deref().unwrap_or_default();
    let bytes = match place::get(&app.store, &row.object_key, version, &row.sha256).await? {
        Ok(bytes) => bytes,
        Err(why) => return Ok(Err(format!("the first store: {why}"))),
    };
    let first = row.lock_until().unwrap_or(Timestamp::UNIX_EPOCH);
    let until = second.term(first, app.clock.now());
    let placed = place::put(&second.store, &row.object_key, &bytes, until).await?;
    Ok(Ok(There {
        key: row.object_key.clone(),
        pack: Some(PackId::from_uuid(row.id)),
        snapshot: None,
        version: placed.version,
        lock_until: placed.lock_until,
    }))
}

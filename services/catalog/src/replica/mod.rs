//! The second copy of a vault: another store holds what the vault's snapshots need, under locks of its own.
//!
//! Invariants: a row in `replica_objects` means that the second store was seen to hold exactly those bytes under a
//! COMPLIANCE lock; a receipt is there only after everything its snapshot needs; keys are never needed, bytes are
//! compared with the hash the catalog recorded before they are sent; nothing is deleted there that is not deleted at
//! the first store. It decides nothing about keeping: the plan does ([`keep`]).

pub mod copy;
pub mod http;
pub mod keep;
mod keep_store;
pub mod repair;
pub mod store;

use api::{catalog::VaultReplica, problem::Code};
use authz::{Permit, actions::VaultRead};
use domain::{EventId, TenantId, Timestamp, VaultId};
use pg::{AuditEvent, SystemReason, SystemTx, TenantTx};
use prometheus::IntGauge;
use vault::store::{
    S3Store, StoreConfig,
    probe::{self, Outcome, Report},
};

use crate::{error::Error, round::Round, state::Catalog, vaults};
use store::{NewReplica, ReplicaRow};

/// A vault's second copy, with the store it is in.
pub struct Second {
    pub tenant: TenantId,
    pub vault: VaultId,
    pub row: ReplicaRow,
    pub store: S3Store,
}

impl Second {
    /// The second copy as configured.
    ///
    /// # Errors
    /// `conflict` when the configuration has no store of that name, or means another bucket by it.
    pub fn of(app: &Catalog, tenant: TenantId, row: ReplicaRow) -> Result<Self, Error> {
        let store = named(app, &row.store)?;
        if endpoint(store.config()) != row.endpoint || store.config().bucket != row.bucket {
            return Err(Error::because(
                Code::Conflict,
                format!(
                    "the vault's second copy is in bucket {} at {}, and the configuration means another place by copies.{}: give that place a name of its own",
                    row.bucket, row.endpoint, row.store
                ),
            ));
        }
        let vault = VaultId::from_uuid(row.vault_id);
        Ok(Self { tenant, vault, store: store.clone(), row })
    }

    /// Until when something is locked there that the first store locks until `first`: as long at least, and for the
    /// copy's own term.
    pub fn term(&self, first: Timestamp, now: Timestamp) -> Timestamp {
        let days = u64::from(self.row.lock_days.unsigned_abs());
        let own = now + std::time::Duration::from_secs(days * 86_400);
        crate::packs::locks::covering(first.max(own))
    }
}

fn named<'a>(app: &'a Catalog, name: &str) -> Result<&'a S3Store, Error> {
    app.copies.get(name).ok_or_else(|| {
        Error::because(
            Code::Conflict,
            format!("the configuration has no store copies.{name}: add it, with its keys"),
        )
    })
}

/// What is written down about where a store is.
fn endpoint(config: &StoreConfig) -> String {
    config.endpoint.as_ref().map_or_else(|| format!("aws:{}", config.region), ToString::to_string)
}

/// The second copy of a vault, if it has one.
///
/// # Errors
/// As [`Second::of`].
pub async fn find(
    app: &Catalog,
    tx: &mut TenantTx,
    vault: VaultId,
) -> Result<Option<Second>, Error> {
    let row = store::find(tx, vault).await?;
    row.map(|row| Second::of(app, tx.tenant(), row)).transpose()
}

/// Looks at what the store of that name really enforces: the evidence [`configure`] wants.
///
/// # Errors
/// `conflict` for a name the configuration does not have; the store's, when it cannot be asked at all.
pub async fn look_at(app: &Catalog, name: &str) -> Result<Report, Error> {
    let place = named(app, name)?.config();
    Ok(probe::run(place, app.clock.clone(), app.ids.clone()).await?)
}

/// Gives a vault a second copy in the store of that name, or changes its term. A copy cannot move.
///
/// # Errors
/// `validation` for a place that does not keep locks, the vault's own bucket, a term that is none; `conflict` for a
/// vault whose copy is elsewhere; `not_found`.
pub async fn configure(
    app: &Catalog,
    tenant: TenantId,
    vault: VaultId,
    name: &str,
    lock_days: u16,
    evidence: &Report,
) -> Result<VaultReplica, Error> {
    let place = named(app, name)?.config();
    check_place(place, evidence)?;
    let own = app.store.config();
    if (endpoint(own), &own.bucket) == (endpoint(place), &place.bucket) {
        return Err(Error::field("store", "that is the vault's own bucket; name another place"));
    }
    if !(1..=36_500).contains(&lock_days) {
        return Err(Error::field("lock_days", "1 to 36500 days"));
    }
    let scope = crate::reconciler_scope(tenant);
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    let known = store::find(&mut tx, vault).await?;
    vaults::store::find_core(&mut tx, vault).await?.ok_or_else(Error::not_found)?;
    tx.rollback().await?;
    if let Some(known) = known
        && (&known.endpoint, &known.bucket) != (&endpoint(place), &place.bucket)
    {
        return Err(Error::because(
            Code::Conflict,
            format!(
                "this vault's second copy is in bucket {} at {}; a copy cannot move",
                known.bucket, known.endpoint
            ),
        ));
    }
    let now = app.clock.now();
    let new = NewReplica {
        vault,
        store: name,
        endpoint: &endpoint(place),
        bucket: &place.bucket,
        lock_days: i32::from(lock_days),
    };
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    store::upsert(&mut tx, &new, now).await?;
    let event = event(app, "vault.replica_set", vault, now).detail("bucket", &place.bucket);
    tx.commit(event.detail("store", name).detail("lock_days", lock_days)).await?;
    status(app, tenant, vault).await
}

/// A second copy without enforced locks would be one that whoever has its keys can delete.
fn check_place(place: &StoreConfig, report: &Report) -> Result<(), Error> {
    if report.bucket != place.bucket {
        return Err(Error::field("store", "the probe was of another bucket"));
    }
    let failed: Vec<String> = report
        .cases
        .iter()
        .filter(|case| case.outcome == Outcome::Fail)
        .map(|case| format!("{} ({})", case.name, case.detail))
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::field(
        "store",
        format!(
            "bucket {} does not keep what it is given under lock: {} of {} checks failed, first {}. Make the bucket with Object Lock, give its keys their rights, and look with: everhold store probe",
            place.bucket,
            failed.len(),
            report.cases.len(),
            failed.first().map_or("", String::as_str),
        ),
    ))
}

fn event(app: &Catalog, action: &'static str, vault: VaultId, now: Timestamp) -> AuditEvent {
    let id = EventId::fresh(&*app.ids, now);
    AuditEvent::new(id, now, &crate::reconciler(), action, "vault", &vault)
}

/// Where the second copy is and how far behind, counted now.
///
/// # Errors
/// `not_found` for a vault without one.
pub async fn status(
    app: &Catalog,
    tenant: TenantId,
    vault: VaultId,
) -> Result<VaultReplica, Error> {
    let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(tenant)).await?;
    count(&mut tx, vault).await
}

async fn count(tx: &mut TenantTx, vault: VaultId) -> Result<VaultReplica, Error> {
    let row = store::find(tx, vault).await?.ok_or_else(Error::not_found)?;
    let copied = store::count_copied(tx, vault).await?;
    let behind = store::count_behind(tx, vault).await?;
    Ok(VaultReplica {
        vault_id: vault,
        store: row.store,
        endpoint: row.endpoint,
        bucket: row.bucket,
        lock_days: row.lock_days.unsigned_abs(),
        created_at: row.created_at.into(),
        packs_copied: copied.packs.unsigned_abs(),
        bytes_copied: copied.bytes.unsigned_abs(),
        packs_behind: behind.packs.unsigned_abs(),
        bytes_behind: behind.bytes.unsigned_abs(),
        snapshots_behind: behind.snapshots.unsigned_abs(),
        oldest_uncopied_at: behind.oldest.map(Timestamp::from),
        locked_until: copied.locked_until.map(Timestamp::from),
        looked_at: row.looked_at.map(Timestamp::from),
        trouble: row.trouble,
    })
}

/// The second copy of a vault the caller sees.
///
/// # Errors
/// `not_found`.
pub async fn get(
    app: &Catalog,
    permit: &Permit<VaultRead>,
    vault: VaultId,
) -> Result<VaultReplica, Error> {
    vaults::get(app, permit, vault).await?;
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    count(&mut tx, vault).await
}

/// Figures of all second copies, without a tenant.
#[derive(Clone)]
pub struct Figures {
    bytes_behind: IntGauge,
    oldest_s: IntGauge,
}

impl Figures {
    /// # Errors
    /// When a name is no metric's: a bug.
    pub fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            bytes_behind: IntGauge::new(
                "everhold_replica_bytes_behind",
                "Bytes that second copies do not have yet",
            )?,
            oldest_s: IntGauge::new(
                "everhold_replica_oldest_uncopied_seconds",
                "Age of the oldest snapshot that is not whole at its second store",
            )?,
        })
    }
    /// For the process's registry.
    pub fn collectors(&self) -> Vec<Box<dyn prometheus::core::Collector>> {
        vec![Box::new(self.bytes_behind.clone()), Box::new(self.oldest_s.clone())]
    }
}

/// One round over every tenant: each second copy gets a turn of bounded length. True: there is more to do.
///
/// # Errors
/// The first copy's that failed; the others had their turn.
pub async fn round(app: &Catalog) -> Result<bool, Error> {
    let now = app.clock.now();
    let mut tx = SystemTx::begin(&app.db, SystemReason::LockSteward).await?;
    let free = store::list_free(&mut tx, now).await?;
    tx.rollback().await?;
    let (mut round, mut left) = (Round::default(), false);
    for (tenant, vault) in free {
        let turn = copy::turn(app, tenant, vault, copy::BUDGET).await;
        left |= turn.as_ref().is_ok_and(|turn| turn.left_over && turn.copied > 0);
        round.note("second copy of a vault", turn.map(drop));
    }
    let mut tx = SystemTx::begin(&app.db, SystemReason::Metrics).await?;
    let (bytes, oldest) = store::sum_behind(&mut tx).await?;
    tx.rollback().await?;
    let age = oldest.map_or(0, |oldest| app.clock.now().since(oldest).as_secs());
    app.replica_figures.bytes_behind.set(bytes);
    app.replica_figures.oldest_s.set(i64::try_from(age).unwrap_or(i64::MAX));
    round.end(left)
}

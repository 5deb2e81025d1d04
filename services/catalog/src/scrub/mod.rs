//! Scrub: is what the store holds still what was put there? By ciphertext hash, without any key.
//!
//! Owns the reading, the comparison and the report. Invariants: a finding changes nothing: a pack is declared lost only
//! by [`declare`], which looks at it again first; a store that does not answer, or answers with an error, is no proof
//! of damage.

mod store;

use std::time::Duration;

use api::catalog::PackState;
use domain::{EventId, PackId, SnapshotId, TenantId, Timestamp, VaultId};
use futures::StreamExt as _;
use pg::{AuditEvent, TenantTx};
use serde::Serialize;
use uuid::Uuid;
use vault::{
    id::Sha256,
    scrub::{Candidate, Sample, choose, miss_chance, packs_of},
    store::{S3Store, StoreError},
};

use crate::{collection, error::Error, packs::store::PackRow, replica, state::Catalog};

/// Packs in memory at once.
const AT_ONCE: usize = 4;
/// Shares of damaged packs whose chance of being missed is reported, in hundredths of a percent.
const DAMAGE: [u32; 4] = [1, 10, 100, 500];

/// What is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The store says it is not there.
    Missing,
    /// Its bytes are not what its name says.
    WrongHash,
    /// It could not be read; it may be sound.
    Unreadable,
}

/// Which copy of the vault is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Where {
    First,
    Second,
}

impl Where {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
        }
    }
}

/// One bad object.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub pack_id: PackId,
    pub kind: String,
    pub object_key: String,
    pub version_id: Option<String>,
    pub what: What,
    pub detail: String,
    /// Snapshots that need it.
    pub snapshots: Vec<SnapshotId>,
}

/// If so large a part of the packs were damaged, this is the chance that none of them was read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Confidence {
    pub damaged_percent: f64,
    pub damaged_packs: u64,
    pub chance_of_missing: f64,
}

/// The result of one scrub.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub vault_id: VaultId,
    pub at: Where,
    pub seed: u64,
    pub begun_at: Timestamp,
    pub duration_ms: u64,
    pub packs: u64,
    pub bytes: u64,
    /// Those the store could not be asked about are not among them.
    pub packs_read: u64,
    pub bytes_read: u64,
    /// Share of the bytes that were read, in percent.
    pub coverage_percent: f64,
    pub confidence: Vec<Confidence>,
    pub findings: Vec<Finding>,
}

impl Report {
    pub const fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Reads a sample of a vault's objects, manifests among them, and compares each with its hash.
///
/// # Errors
/// The database's; everything the store says is in the report.
pub async fn scrub(
    app: &Catalog,
    tenant: TenantId,
    vault: VaultId,
    sample: Sample,
    seed: u64,
) -> Result<Report, Error> {
    scrub_at(app, tenant, vault, Where::First, sample, seed).await
}

/// [`scrub`] of either copy of the vault.
///
/// # Errors
/// `not_found` for a second copy of a vault that has none; the database's.
pub async fn scrub_at(
    app: &Catalog,
    tenant: TenantId,
    vault: VaultId,
    at: Where,
    sample: Sample,
    seed: u64,
) -> Result<Report, Error> {
    let begun = app.clock.now();
    let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(tenant)).await?;
    let (place, rows) = match at {
        Where::First => (app.store.clone(), store::list_scrubbable(&mut tx, vault).await?),
        Where::Second => {
            let second = replica::find(app, &mut tx, vault).await?.ok_or_else(Error::not_found)?;
            (second.store, replica::store::list_copied(&mut tx, vault).await?)
        }
    };
    tx.rollback().await?;
    let place = &place;
    let candidates: Vec<Candidate> =
        rows.iter().map(|row| Candidate { id: row.id(), length: row.length() }).collect();
    let chosen: std::collections::BTreeSet<PackId> =
        choose(&candidates, sample, seed).into_iter().collect();
    let (mut bytes_read, mut bad) = (0_u64, Vec::new());
    let wanted = rows.iter().filter(|row| chosen.contains(&row.id()));
    let mut looks = futures::stream::iter(wanted)
        .map(|row| async move { (row, look(place, row).await) })
        .buffer_unordered(AT_ONCE);
    while let Some((row, seen)) = looks.next().await {
        match seen {
            Ok(()) => bytes_read = bytes_read.saturating_add(row.length()),
            Err(why) => bad.push((row, why)),
        }
    }
    drop(looks);
    let unreadable = bad.iter().filter(|(_, (what, _))| *what == What::Unreadable).count();
    let packs_read = (chosen.len() - unreadable) as u64;
    let mut report = Report {
        vault_id: vault,
        at,
        seed,
        begun_at: begun,
        duration_ms: 0,
        packs: rows.len() as u64,
        bytes: candidates.iter().map(|pack| pack.length).sum(),
        packs_read,
        bytes_read,
        coverage_percent: 0.0,
        confidence: confidence(rows.len() as u64, packs_read),
        findings: Vec::new(),
    };
    report.coverage_percent = percent(report.bytes_read, report.bytes);
    conclude(app, tenant, &mut report, bad).await?;
    Ok(report)
}

/// Names the snapshots that need what is bad, and writes the audit event.
async fn conclude(
    app: &Catalog,
    tenant: TenantId,
    report: &mut Report,
    mut bad: Vec<(&PackRow, (What, String))>,
) -> Result<(), Error> {
    bad.sort_by_key(|(row, _)| row.id);
    let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(tenant)).await?;
    let ids: Vec<Uuid> = bad.iter().map(|(row, _)| row.id).collect();
    let users = store::list_users(&mut tx, &ids).await?;
    for (row, (what, detail)) in bad {
        let of = users.iter().filter(|user| user.pack_id == row.id);
        report.findings.push(Finding {
            pack_id: row.id(),
            kind: row.kind.clone(),
            object_key: row.object_key.clone(),
            version_id: row.version_id.clone(),
            what,
            detail,
            snapshots: of.map(|user| SnapshotId::from_uuid(user.snapshot_id)).collect(),
        });
    }
    let now = app.clock.now();
    let took: Duration = now.since(report.begun_at);
    report.duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let event = AuditEvent::new(
        EventId::fresh(&*app.ids, now),
        now,
        &crate::reconciler(),
        "vault.scrubbed",
        "vault",
        &report.vault_id,
    );
    let event = event
        .detail("at", report.at.as_str())
        .detail("packs", report.packs)
        .detail("packs_read", report.packs_read)
        .detail("bytes_read", report.bytes_read)
        .detail("findings", report.findings.len());
    Ok(tx.commit(event).await?)
}

fn confidence(total: u64, read: u64) -> Vec<Confidence> {
    let of = |permyriad: u32| {
        let damaged_packs = packs_of(total, permyriad);
        Confidence {
            damaged_percent: f64::from(permyriad) / 100.0,
            damaged_packs,
            chance_of_missing: miss_chance(total, read, damaged_packs),
        }
    };
    DAMAGE.into_iter().map(of).collect()
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 100.0;
    }
    let permyriad = u128::from(part) * 1_000_000 / u128::from(whole);
    f64::from(u32::try_from(permyriad).unwrap_or(1_000_000)) / 10_000.0
}

/// The object by its version, against its hash.
async fn look(place: &S3Store, row: &PackRow) -> Result<(), (What, String)> {
    let version = row.version_id.as_deref().unwrap_or_default();
    match place.get(&row.object_key, version).await {
        Ok(bytes) if Sha256::of(&bytes).0[..] == row.sha256[..] => Ok(()),
        Ok(bytes) => {
            let detail =
                format!("{} bytes with another hash; {} were stored", bytes.len(), row.length());
            Err((What::WrongHash, detail))
        }
        Err(error @ StoreError::NotFound) => Err((What::Missing, error.to_string())),
        Err(error) => Err((What::Unreadable, error.to_string())),
    }
}

/// What became of an object somebody wants to declare lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Declared {
    pub pack_id: PackId,
    /// Why it is lost now; `None`: it is sound, unreadable at the moment, changed while it was looked at, or none of this
    /// vault, and stays as it is.
    pub lost: Option<String>,
    pub detail: String,
}

/// Declares packs lost that are missing or damaged when looked at once more. No commit names
/// them again.
///
/// # Errors
/// The database's.
pub async fn declare(
    app: &Catalog,
    tenant: TenantId,
    vault: VaultId,
    packs: &[PackId],
) -> Result<Vec<Declared>, collection::CollectError> {
    let ids: Vec<Uuid> = packs.iter().copied().map(PackId::uuid).collect();
    let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(tenant)).await?;
    let rows = crate::packs::store::find_in_vault(&mut tx, vault, &ids).await?;
    drop(tx);
    let (mut declared, mut lost) = (Vec::new(), Vec::new());
    for pack_id in packs.iter().copied() {
        let Some(row) = rows.iter().find(|row| row.id() == pack_id) else {
            let detail = "the vault has no such pack".to_owned();
            declared.push(Declared { pack_id, lost: None, detail });
            continue;
        };
        declared.push(match look(&app.store, row).await {
            Ok(()) => Declared { pack_id, lost: None, detail: "it is sound".to_owned() },
            Err((What::Unreadable, detail)) => Declared { pack_id, lost: None, detail },
            Err((what, detail)) => {
                // Who repeats it is told the same.
                if row.state() != PackState::Lost {
                    lost.push((pack_id, row.version_id.clone()));
                }
                let word = if what == What::Missing { "missing" } else { "damaged" };
                Declared { pack_id, lost: Some(word.to_owned()), detail }
            }
        });
    }
    if !lost.is_empty() {
        let scope = crate::reconciler_scope(tenant);
        let done = collection::declare_lost(app, scope, vault, &lost).await?;
        let changed = |id: PackId| lost.iter().any(|(one, _)| *one == id) && !done.contains(&id);
        for one in declared.iter_mut().filter(|one| changed(one.pack_id)) {
            one.lost = None;
            one.detail = format!("{}, and it was changed meanwhile; look again", one.detail);
        }
    }
    Ok(declared)
}

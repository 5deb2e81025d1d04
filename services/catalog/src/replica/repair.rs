//! Repair: what one store lost or spoiled is written anew from the other, as a new version under a lock of its own.
//!
//! Invariants: the bytes are compared with the catalog's hash before they are written; the damaged version is left to its
//! lock, nothing is deleted; the catalog points to the new version only when the store was seen to hold it. Manifests
//! go on naming the version before: `packs.former_versions` remembers it.

use domain::{EventId, PackId, TenantId, Timestamp, VaultId};
use pg::{AuditEvent, TenantTx};
use serde::Serialize;
use vault::store::S3Store;

use super::{Second, keep_store as sql, store};
use crate::{
    error::Error,
    packs::{self, locks, store::PackRow},
    place,
    scrub::{Finding, What, Where},
    state::Catalog,
};

/// What became of one bad object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repaired {
    pub pack_id: PackId,
    /// The version that is there now; `None`: it is as it was.
    pub version_id: Option<String>,
    /// Why it could not be repaired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// Writes what a scrub found missing or damaged anew from the vault's other copy.
///
/// # Errors
/// `not_found` for a vault without a second copy; the database's. What a store says is in the answer.
pub async fn repair(
    app: &Catalog,
    tenant: TenantId,
    vault: VaultId,
    at: Where,
    findings: &[Finding],
) -> Result<Vec<Repaired>, Error> {
    let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(tenant)).await?;
    let second = super::find(app, &mut tx, vault).await?.ok_or_else(Error::not_found)?;
    tx.rollback().await?;
    let mut repaired = Vec::new();
    for finding in findings {
        let pack_id = finding.pack_id;
        let outcome = if finding.what == What::Unreadable {
            Ok(Err("the store answered with an error: nothing is proven, try later".to_owned()))
        } else {
            one(app, &second, vault, at, pack_id).await
        };
        let outcome = outcome.unwrap_or_else(|error| Err(super::copy::words(&error)));
        let (version_id, why_not) = match outcome {
            Ok(version) => (Some(version), None),
            Err(why) => (None, Some(why)),
        };
        repaired.push(Repaired { pack_id, version_id, why_not });
    }
    Ok(repaired)
}

/// The two copies of a pack as they are recorded.
struct Both {
    first: PackRow,
    second: store::CopyRow,
}

async fn find(
    app: &Catalog,
    second: &Second,
    vault: VaultId,
    pack: PackId,
) -> Result<Option<Both>, Error> {
    let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(second.tenant)).await?;
    let first = packs::store::find_in_vault(&mut tx, vault, &[pack.uuid()]).await?.pop();
    let copy = store::find_copies(&mut tx, &[pack.uuid()]).await?.pop();
    tx.rollback().await?;
    Ok(first.zip(copy).map(|(first, second)| Both { first, second }))
}

/// One pack: read there, compare, write here, look, record. What is recorded of it is read when its turn comes: a repair
/// of many takes hours, and locks grow meanwhile.
async fn one(
    app: &Catalog,
    second: &Second,
    vault: VaultId,
    at: Where,
    pack: PackId,
) -> Result<Result<String, String>, Error> {
    let Some(both) = find(app, second, vault, pack).await? else {
        return Ok(Err("the vault's second copy does not have it".to_owned()));
    };
    let (now, key) = (app.clock.now(), &both.first.object_key);
    let first_version = both.first.version_id.as_deref().unwrap_or_default();
    let second_version = both.second.version_id.as_str();
    let (from, good, to, bad): (&S3Store, _, &S3Store, _) = match at {
        Where::First => (&second.store, second_version, &app.store, first_version),
        Where::Second => (&app.store, first_version, &second.store, second_version),
    };
    let bytes = match place::get(from, key, good, &both.first.sha256).await? {
        Ok(bytes) => bytes,
        Err(why) => return Ok(Err(format!("the other copy is no better: {why}"))),
    };
    let first_lock = both.first.lock_until().unwrap_or(Timestamp::UNIX_EPOCH);
    let until = match at {
        Where::First => locks::covering(first_lock.max(locks::initial(now))),
        Where::Second => second.term(first_lock.max(both.second.lock_until.into()), now),
    };
    let placed = place::put_anew(to, key, &bytes, until).await?;
    let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(second.tenant)).await?;
    let recorded = match at {
        Where::First => sql::set_first_version(&mut tx, pack, bad, &placed).await?,
        Where::Second => sql::set_second_version(&mut tx, pack, bad, &placed, now).await?,
    };
    if !recorded {
        tx.rollback().await?;
        return Ok(Err("its row changed meanwhile; scrub again".to_owned()));
    }
    let id = EventId::fresh(&*app.ids, now);
    let event = AuditEvent::new(id, now, &crate::reconciler(), "pack.repaired", "pack", &pack);
    let event = event.detail("at", at.as_str()).detail("before", bad.to_owned());
    tx.commit(event.detail("version", placed.version.clone())).await?;
    Ok(Ok(placed.version))
}

/// Which of the named versions are former ones of their packs.
///
/// # Errors
/// The database's.
pub async fn former(tx: &mut TenantTx, named: &[(PackId, &str)]) -> Result<Vec<PackId>, pg::Error> {
    if named.is_empty() { Ok(Vec::new()) } else { sql::list_former(tx, named).await }
}

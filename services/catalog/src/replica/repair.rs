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
    let ids: Vec<_> = findings.iter().map(|finding| finding.pack_id.uuid()).collect();
    let rows = packs::store::find_in_vault(&mut tx, vault, &ids).await?;
    let copies = store::find_copies(&mut tx, &ids).await?;
    tx.rollback().await?;
    let mut repaired = Vec::new();
    for finding in findings {
        let pack_id = finding.pack_id;
        let row = rows.iter().find(|row| row.id() == pack_id);
        let copy = copies.iter().find(|copy| copy.pack_id == pack_id.uuid());
        let outcome = match (row, copy, finding.what) {
            (_, _, What::Unreadable) => {
                Ok(Err("the store answered with an error: nothing is proven, try later".to_owned()))
            }
            (Some(row), Some(copy), _) => {
                let both = Both { first: row, second: copy };
                one(app, &second, at, &both).await
            }
            _ => Ok(Err("the vault's second copy does not have it".to_owned())),
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
struct Both<'a> {
    first: &'a PackRow,
    second: &'a store::CopyRow,
}

/// One pack: read there, compare, write here, look, record.
async fn one(
    app: &Catalog,
    second: &Second,
    at: Where,
    both: &Both<'_>,
) -> Result<Result<String, String>, Error> {
    let (now, key, pack) = (app.clock.now(), &both.first.object_key, both.first.id());
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

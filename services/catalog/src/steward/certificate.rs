//! A snapshot's immutability certificate, made from what the store says about each object.
//!
//! Invariants: it is signed only when every pack and manifest was found at the store within the last day, by
//! version id, with its size and checksum, under a COMPLIANCE lock at least as long as recorded, and no violation
//! stands; a check asks about no more objects than its budget and the next goes on where it stopped.

use std::time::Duration;

use api::catalog::{LockStanding, LockViolation};
use authz::{Action, Permit, actions::SnapshotCertify};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::{PackId, SnapshotId, TenantId, Timestamp, VaultId, WorkloadId};
use futures::{FutureExt as _, StreamExt as _};
use pg::TenantTx;
use runtime::Cx;
use vault::{
    certificate::{LockCertificate, LockedObject, objects_hash},
    id::Sha256,
    store::{LockMode, ObjectFacts},
};

use super::{
    alarms::{self, About, Trouble},
    store,
};
use crate::{
    error::Error,
    packs::{
        self,
        store::{PackRow, SeenLock},
    },
    snapshots::{self, store::SnapshotRow},
    state::Catalog,
};

/// Objects one check asks the store about.
pub const BUDGET: usize = 1_000;
/// How old an answer of the store may be.
pub const FRESH: Duration = Duration::from_secs(86_400);
const PARALLEL: usize = 16;
const MAX_VIOLATIONS: i64 = 1_000;
const PAGE: i64 = 10_000;

/// What is known, and the certificate if that suffices.
///
/// # Errors
/// `not_found`.
pub async fn standing<A: Action>(
    app: &Catalog,
    cx: &Cx,
    permit: &Permit<A>,
    id: SnapshotId,
) -> Result<LockStanding, Error> {
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let row = snapshots::find(&mut tx, permit, id).await?;
    describe(app, &mut tx, permit.tenant(), &row, cx.now()).await
}

async fn describe(
    app: &Catalog,
    tx: &mut TenantTx,
    tenant: TenantId,
    row: &SnapshotRow,
    now: Timestamp,
) -> Result<LockStanding, Error> {
    let workload = WorkloadId::from_uuid(row.workload_id);
    let counted = store::count_standing(tx, workload, row.seq, now - FRESH).await?;
    let violations = store::list_violations(tx, workload, row.seq, MAX_VIOLATIONS).await?;
    let whole = counted.checked == counted.objects && counted.objects > 0 && violations.is_empty();
    let certificate =
        if whole { Some(sign(app, tx, tenant, row, &counted, now).await?) } else { None };
    Ok(LockStanding {
        snapshot_id: row.id(),
        objects: counted.objects.unsigned_abs(),
        checked: counted.checked.unsigned_abs(),
        protect_until: row.protect_until.into(),
        locked_until: counted.locked_until.unwrap_or(row.locked_until).into(),
        violations: violations.into_iter().map(violation).collect(),
        certificate: certificate.map(|bytes| BASE64.encode(bytes)),
    })
}

fn violation(row: store::ViolationRow) -> LockViolation {
    LockViolation {
        pack_id: PackId::from_uuid(row.pack_id),
        key: row.object_key,
        version_id: row.version_id,
        kind: row.kind,
        detail: row.detail,
        since: row.raised_at.into(),
    }
}

async fn sign(
    app: &Catalog,
    tx: &mut TenantTx,
    tenant: TenantId,
    row: &SnapshotRow,
    counted: &store::Standing,
    now: Timestamp,
) -> Result<Vec<u8>, Error> {
    let workload = WorkloadId::from_uuid(row.workload_id);
    let (mut objects, mut manifest, mut after) = (Vec::new(), None, None);
    loop {
        let page = snapshots::store::list_packs(tx, workload, row.seq, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id());
        for pack in page {
            if pack.id == row.manifest_id {
                manifest = <[u8; 32]>::try_from(&pack.sha256[..]).ok();
            }
            let locked_until = pack.lock_until().ok_or_else(|| broken(&pack))?;
            let version_id = pack.version_id.clone().ok_or_else(|| broken(&pack))?;
            objects.push(LockedObject { key: pack.object_key, version_id, locked_until });
        }
    }
    let count = objects.len() as u64;
    let earliest = objects.iter().map(|object| object.locked_until).min();
    let sha256 = manifest
        .ok_or_else(|| Error::broken("a snapshot lacks its manifest", row.id().to_string()))?;
    let certificate = LockCertificate {
        tenant,
        vault: VaultId::from_uuid(row.vault_id),
        snapshot: row.id(),
        manifest: PackId::from_uuid(row.manifest_id),
        manifest_sha256: Sha256(sha256),
        objects: count,
        objects_hash: objects_hash(objects),
        locked_until: earliest.unwrap_or(now),
        checked_from: counted.oldest_check.map_or(now, Timestamp::from),
        checked_to: counted.newest_check.map_or(now, Timestamp::from),
        issued_at: now,
    };
    Ok(certificate.sign(app.receipt_key()))
}

fn broken(pack: &PackRow) -> Error {
    Error::broken("a pack of a snapshot was never confirmed", pack.id().to_string())
}

/// Asks the store about up to `budget` objects not checked within the last day.
///
/// # Errors
/// `not_found`; `store_unavailable`, after what was answered was recorded.
pub async fn check(
    app: &Catalog,
    cx: &Cx,
    permit: &Permit<SnapshotCertify>,
    id: SnapshotId,
    budget: usize,
) -> Result<LockStanding, Error> {
    let now = cx.now();
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let row = snapshots::find(&mut tx, permit, id).await?;
    let workload = WorkloadId::from_uuid(row.workload_id);
    let limit = i64::try_from(budget).unwrap_or(i64::MAX);
    let rows = store::list_unchecked(&mut tx, workload, row.seq, now - FRESH, limit).await?;
    tx.rollback().await?;
    // Boxed one by one: a closure over borrowed rows is not general enough for the router.
    let asked: Vec<_> = rows.iter().map(|pack| ask(app, pack).boxed()).collect();
    let answers: Vec<_> = futures::stream::iter(asked).buffered(PARALLEL).collect().await;
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let (mut good, mut keys, mut events, mut silent) = (Vec::new(), Vec::new(), Vec::new(), None);
    for (pack, answer) in rows.iter().zip(answers) {
        match answer {
            Ok(Ok(until)) => {
                let version = pack.version_id.clone().unwrap_or_default();
                good.push(SeenLock { pack: pack.id(), version, until });
                keys.push(pack.object_key.clone());
            }
            Ok(Err((trouble, detail))) => {
                events.extend(alarms::raise(app, &mut tx, &about(pack), trouble, &detail).await?);
            }
            Err(error) => silent = Some(error),
        }
    }
    packs::store::set_locks(&mut tx, &good).await?;
    store::set_checked(&mut tx, &good, now).await?;
    let over = [Trouble::Missing, Trouble::Unlocked, Trouble::Short, Trouble::Altered];
    events.extend(alarms::clear(app, &mut tx, &keys, &over).await?);
    let done = cx.event("snapshot.locks_checked", "snapshot", &id);
    events.push(done.detail("asked", rows.len()).detail("as_recorded", good.len()));
    tx.commit_all(events).await?;
    match silent {
        Some(error) => Err(error),
        None => standing(app, cx, permit, id).await,
    }
}

fn about(pack: &PackRow) -> About<'_> {
    About {
        vault: VaultId::from_uuid(pack.vault_id),
        subject: ("pack", pack.id().to_string()),
        key: &pack.object_key,
        version: pack.version_id.as_deref().unwrap_or_default(),
        wanted: pack.lock_until().unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

type Verdict = Result<Timestamp, (Trouble, String)>;

async fn ask(app: &Catalog, pack: &PackRow) -> Result<Verdict, Error> {
    let version = pack.version_id.as_deref().ok_or_else(|| broken(pack))?;
    Ok(judge(pack, app.store.head(&pack.object_key, Some(version)).await?))
}

/// Is this the object we recorded, locked as we recorded? Gives the date the store reports. Pure.
fn judge(pack: &PackRow, facts: Option<ObjectFacts>) -> Verdict {
    let Some(facts) = facts else {
        return Err((Trouble::Missing, "the store has no such version".into()));
    };
    // What either side does not know cannot differ.
    let differs = |known: Option<&[u8]>, ours: Option<&[u8]>| {
        known.zip(ours).is_some_and(|(known, ours)| known != ours)
    };
    if facts.length != pack.length()
        || differs(facts.sha256.as_ref().map(|h| &h[..]), Some(&pack.sha256))
        || differs(facts.md5.as_ref().map(|h| &h[..]), pack.md5.as_deref())
    {
        return Err((Trouble::Altered, "size or checksum differ from what was confirmed".into()));
    }
    let (Some(LockMode::Compliance), Some(until)) = (facts.lock_mode, facts.lock_until) else {
        return Err((Trouble::Unlocked, "no COMPLIANCE lock is on it".into()));
    };
    match pack.lock_until() {
        Some(recorded) if until < recorded => {
            Err((Trouble::Short, format!("recorded {recorded}, the store reports {until}")))
        }
        _ => Ok(until),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::OffsetDateTime;

    fn pack(until: Timestamp) -> PackRow {
        PackRow {
            id: uuid::Uuid::nil(),
            vault_id: uuid::Uuid::nil(),
            session_id: uuid::Uuid::nil(),
            seq: 0,
            kind: "data".into(),
            state: "live".into(),
            sha256: vec![1; 32],
            md5: Some(vec![2; 16]),
            length: 10,
            object_key: "k".into(),
            granted_lock_until: OffsetDateTime::UNIX_EPOCH,
            version_id: Some("v".into()),
            lock_until: Some(until.into()),
        }
    }

    #[test]
    fn only_the_recorded_object_under_a_compliance_lock_as_long_as_recorded_passes() {
        let at = |day: u64| Timestamp::from_unix_millis(day * 86_400_000);
        let facts = ObjectFacts {
            version_id: "v".into(),
            length: 10,
            sha256: Some([1; 32]),
            md5: Some([2; 16]),
            lock_mode: Some(LockMode::Compliance),
            lock_until: Some(at(9)),
            legal_hold: false,
        };
        let verdict = |facts: ObjectFacts| judge(&pack(at(9)), Some(facts)).map_err(|(why, _)| why);
        assert_eq!(verdict(facts.clone()), Ok(at(9)));
        assert_eq!(verdict(ObjectFacts { lock_until: Some(at(12)), ..facts.clone() }), Ok(at(12)));
        assert_eq!(verdict(ObjectFacts { sha256: None, ..facts.clone() }), Ok(at(9)));
        let wrong = [
            (ObjectFacts { length: 11, ..facts.clone() }, Trouble::Altered),
            (ObjectFacts { sha256: Some([3; 32]), ..facts.clone() }, Trouble::Altered),
            (ObjectFacts { md5: Some([3; 16]), ..facts.clone() }, Trouble::Altered),
            (ObjectFacts { lock_mode: None, ..facts.clone() }, Trouble::Unlocked),
            (
                ObjectFacts { lock_mode: Some(LockMode::Governance), ..facts.clone() },
                Trouble::Unlocked,
            ),
            (ObjectFacts { lock_until: None, ..facts.clone() }, Trouble::Unlocked),
            (ObjectFacts { lock_until: Some(at(8)), ..facts }, Trouble::Short),
        ];
        for (facts, why) in wrong {
            assert_eq!(verdict(facts), Err(why));
        }
        assert_eq!(judge(&pack(at(9)), None).map_err(|(why, _)| why), Err(Trouble::Missing));
    }
}

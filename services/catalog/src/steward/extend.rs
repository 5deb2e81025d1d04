//! Longer locks, asked of a store, and what its answers mean: the same at a vault's first store and at its second.
//!
//! Invariant: every answer but the lock asked for is an alarm; only a store that does not answer is none as long as the
//! lock lasts for days.

use std::{collections::BTreeMap, time::Duration};

use domain::{PackId, SnapshotId, Timestamp, VaultId};
use futures::{FutureExt as _, StreamExt as _};
use pg::{AuditEvent, OperationalReason, TenantTx};
use vault::{
    id::Sha256,
    store::{S3Store, StoreError},
};

use super::{
    alarms::{self, About, Trouble},
    store::ShortRow,
};
use crate::state::Catalog;

/// Objects asked about, and recorded, together.
pub const BATCH: usize = 128;
const PARALLEL: usize = 16;
/// From here on a store that does not answer is an alarm.
const LATE: Duration = Duration::from_secs(3 * 86_400);

/// Of a budget, what goes to objects with a standing alarm: one in so many.
const FOR_ALARMED: usize = 8;

/// Keeps those whose lock ends first, one row per object; of those with an alarm, which would come first every time and
/// leave nothing for others, a few, other ones each time. True: some were left out.
pub fn soonest(rows: &mut Vec<ShortRow>, budget: usize, now: Timestamp) -> bool {
    let mut by_key: BTreeMap<String, ShortRow> = BTreeMap::new();
    for row in rows.drain(..) {
        let kept = by_key.entry(row.object_key.clone()).or_insert_with(|| row.clone());
        // Several snapshots may want it: the longest wins.
        kept.wanted = kept.wanted.max(row.wanted);
    }
    let (mut alarmed, fresh): (Vec<_>, Vec<_>) =
        by_key.into_values().partition(|row| row.is_alarmed);
    rows.extend(fresh);
    rows.sort_by_key(|row| row.lock_until);
    let share = budget.div_ceil(FOR_ALARMED);
    let over = rows.len() > budget || alarmed.len() > share;
    rows.truncate(budget);
    alarmed.sort_by_cached_key(|row| Sha256::of(format!("{now} {}", row.object_key).as_bytes()));
    rows.extend(alarmed.into_iter().take(share));
    over
}

/// How one extension went.
pub enum Outcome {
    Extended(Timestamp),
    Trouble(Trouble, String),
    Unreachable(StoreError),
}

/// Asks for the date each row wants. The answers, in order.
pub async fn ask(store: &S3Store, rows: &[ShortRow]) -> Vec<Outcome> {
    let calls: Vec<_> = rows.iter().map(|row| one(store, row).boxed()).collect();
    futures::stream::iter(calls).buffered(PARALLEL).collect().await
}

async fn one(store: &S3Store, row: &ShortRow) -> Outcome {
    let wanted = Timestamp::from(row.wanted);
    match store.extend_lock(&row.object_key, &row.version_id, wanted).await {
        Ok(reported) if reported >= wanted => Outcome::Extended(reported),
        Ok(reported) => Outcome::Trouble(
            Trouble::Short,
            format!("asked for {wanted}, the store reports {reported}"),
        ),
        Err(StoreError::NotFound) => {
            Outcome::Trouble(Trouble::Missing, "the store has no such version".into())
        }
        Err(error) if error.retryable() => Outcome::Unreachable(error),
        Err(error) => Outcome::Trouble(Trouble::Refused, error.to_string()),
    }
}

/// What answers came to.
#[derive(Default)]
pub struct Told<'a> {
    /// With the dates the store reported.
    pub extended: Vec<(&'a ShortRow, Timestamp)>,
    /// Alarms that began and ended.
    pub events: Vec<AuditEvent>,
    /// Of a store that did not answer.
    pub silent: Option<StoreError>,
}

/// Raises alarms and ends them. `second`: name of the second store; none is the vault's own.
///
/// # Errors
/// The database's.
pub async fn tell<'a>(
    app: &Catalog,
    tx: &mut TenantTx,
    second: Option<&str>,
    answers: impl IntoIterator<Item = (&'a ShortRow, Outcome)>,
    now: Timestamp,
) -> Result<Told<'a>, pg::Error> {
    let (mut told, mut keys) = (Told::default(), Vec::new());
    for (row, outcome) in answers {
        let key = alarm_key(row, second);
        let (trouble, detail) = match outcome {
            Outcome::Extended(until) => {
                told.extended.push((row, until));
                keys.push(key);
                continue;
            }
            Outcome::Trouble(trouble, detail) => (trouble, detail),
            Outcome::Unreachable(error) => {
                let detail = error.to_string();
                told.silent = Some(error);
                if Timestamp::from(row.lock_until) >= now + LATE {
                    continue;
                }
                (Trouble::Unreached, detail)
            }
        };
        let about = About {
            vault: VaultId::from_uuid(row.vault_id),
            subject: subject(row, second),
            key: &key,
            version: &row.version_id,
            wanted: row.wanted.into(),
        };
        told.events.extend(alarms::raise(app, tx, &about, trouble, &detail).await?);
    }
    let over = [Trouble::Refused, Trouble::Unreached, Trouble::Short, Trouble::Missing];
    told.events.extend(alarms::clear(app, tx, &keys, &over).await?);
    Ok(told)
}

/// An alarm about a copy is not one about the object of the same key at the first store.
fn alarm_key(row: &ShortRow, second: Option<&str>) -> String {
    second.map_or_else(|| row.object_key.clone(), |store| format!("{store}/{}", row.object_key))
}

fn subject(row: &ShortRow, second: Option<&str>) -> (&'static str, String) {
    match second {
        Some(_) => ("replica_object", row.object_key.clone()),
        None if row.is_receipt => ("snapshot", SnapshotId::from_uuid(row.id).to_string()),
        None => ("pack", PackId::from_uuid(row.id).to_string()),
    }
}

/// Ends a batch's transaction: bookkeeping, unless an alarm began or ended.
///
/// # Errors
/// The database's.
pub async fn commit(tx: TenantTx, events: Vec<AuditEvent>) -> Result<(), pg::Error> {
    if events.is_empty() {
        tx.commit_operational(OperationalReason::PackBookkeeping).await
    } else {
        tx.commit_all(events).await
    }
}

//! Which packs of a vault are worth repacking: half-dead ones whose lock the next promises would buy again.
//!
//! Invariant: computed from signed manifests alone, without keys; it names packs and moves nothing. The agent's next
//! session does that, through the ordinary path.

use std::{collections::BTreeMap, time::Duration};

use api::catalog::{RepackCandidate, RepackCandidates};
use authz::{Permit, actions::VaultRead};
use domain::{PackId, Timestamp, VaultId, retention};
use pg::TenantTx;
use uuid::Uuid;
use vault::{
    manifest::{self, FrameBitmap, SignedManifest},
    repack::Liveness,
};

use super::{GRACE, expiry_store, letting_go::UNDO};
use crate::{
    error::Error,
    packs::{self, store::PackRow},
    snapshots,
    state::Catalog,
    vaults,
};

/// Packs named at most.
const MAX: usize = 1_000;

/// What a pack is worth moving: byte-seconds its dead part would be kept for once more, minus those its live part lies
/// twice. Positive: move it. `horizon` is the date the next promise reaches. Pure.
pub fn gain(liveness: Liveness, lock_until: Timestamp, now: Timestamp, horizon: Timestamp) -> i128 {
    let dead = i128::from(liveness.dead_bytes());
    let live = i128::from(liveness.length) - dead;
    let bought = i128::from(horizon.since(lock_until).as_secs());
    let twice: Duration = lock_until.since(now) + UNDO + GRACE;
    dead * bought - live * i128::from(twice.as_secs())
}

/// Half-dead packs of the newest snapshots of a vault's workloads, those with most to gain first.
///
/// # Errors
/// `not_found`; the store's, when a manifest cannot be read.
pub async fn candidates(
    app: &Catalog,
    permit: &Permit<VaultRead>,
    vault: VaultId,
    now: Timestamp,
) -> Result<RepackCandidates, Error> {
    vaults::get(app, permit, vault).await?;
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let newest = expiry_store::list_newest(&mut tx, vault).await?;
    let mut chains: Vec<Vec<PackRow>> = Vec::new();
    for (workload, seq) in newest {
        chains.push(snapshots::store::list_manifests(&mut tx, workload, seq).await?);
    }
    tx.rollback().await?;
    let used = used_frames(app, &chains).await?;
    let ids: Vec<Uuid> = used.keys().map(|id| id.uuid()).collect();
    let mut tx = TenantTx::begin(&app.db, permit.scope()).await?;
    let rows = packs::store::find_in_vault(&mut tx, vault, &ids).await?;
    tx.rollback().await?;
    // As long as the longest promise the rule can make.
    let horizon = retention::protect(&app.retention, None, now).protect_until;
    let mut found: Vec<(i128, RepackCandidate)> = Vec::new();
    for row in rows.into_iter().filter(|row| packs::state::may_be_referenced(row.state())) {
        let (Some((frames, bitmap)), Some(lock)) = (used.get(&row.id()), row.lock_until()) else {
            continue;
        };
        let liveness = Liveness::counted(bitmap, *frames, row.length());
        let gain = gain(liveness, lock, now, horizon);
        if liveness.is_half_dead() && gain > 0 {
            let candidate = RepackCandidate {
                pack: row.facts(),
                live_frames: liveness.live,
                frames: liveness.frames,
                dead_bytes: liveness.dead_bytes(),
            };
            found.push((gain, candidate));
        }
    }
    found.sort_by_key(|(gain, candidate)| (std::cmp::Reverse(*gain), candidate.pack.id));
    found.truncate(MAX);
    Ok(RepackCandidates { items: found.into_iter().map(|(_, candidate)| candidate).collect() })
}

/// Frames of each pack that any of the newest snapshots uses.
async fn used_frames(
    app: &Catalog,
    chains: &[Vec<PackRow>],
) -> Result<BTreeMap<PackId, (u32, FrameBitmap)>, Error> {
    let mut used: BTreeMap<PackId, (u32, FrameBitmap)> = BTreeMap::new();
    for chain in chains {
        let turn = app.manifests.turn().await?;
        let mut links: Vec<SignedManifest> = Vec::with_capacity(chain.len());
        for row in chain {
            links.push(app.manifests.read(app, row).await?);
        }
        let set = manifest::resolve(&links)
            .map_err(|why| Error::broken("a committed manifest does not resolve", why))?;
        drop(turn);
        for pack in set.iter() {
            let entry =
                used.entry(pack.id).or_insert_with(|| (pack.frames, FrameBitmap::default()));
            entry.1.union(&pack.used);
        }
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn at(day: u64) -> Timestamp {
        Timestamp::from_unix_millis(day * DAY * 1_000)
    }
    fn pack(live: u32) -> Liveness {
        Liveness { live, frames: 100, length: 32 << 20 }
    }

    #[test]
    fn a_pack_is_moved_when_the_next_promise_buys_more_dead_time_than_moving_doubles_live_time() {
        let (now, year) = (at(1_000), at(1_000 + 372));
        // Nearly unlocked, nine tenths dead, and another year of it ahead.
        assert!(gain(pack(10), at(1_007), now, year) > 0);
        // Locked for most of the year anyway: moving it now only doubles it.
        assert!(gain(pack(10), at(1_000 + 365), now, year) < 0);
        // Half dead with half of the year to go: not yet.
        assert!(gain(pack(49), at(1_000 + 200), now, year) < 0);
        // A rule that promises a week never buys enough.
        assert!(gain(pack(40), at(1_006), now, at(1_007)) < 0);
    }

    #[test]
    fn the_deader_and_the_sooner_free_gain_more() {
        let (now, year) = (at(1_000), at(1_372));
        assert!(gain(pack(5), at(1_010), now, year) > gain(pack(30), at(1_010), now, year));
        assert!(gain(pack(5), at(1_010), now, year) > gain(pack(5), at(1_100), now, year));
    }
}

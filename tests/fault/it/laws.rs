//! What must hold after every fault, without faults and without hands.
//!
//! Invariant of all: what was committed before and after is all there, is locked as promised, passes fsck and restores
//! bit for bit; the next backup works; no key was used twice; nothing locked was asked to go.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use catalog::{
    replica::{self, copy},
    scrub,
};
use domain::SnapshotId;
use vault::{layout, scrub::Sample};

use crate::{
    acts::{
        Act, DAY, Scene, collect, declare, forget, keep_copy, reap_copy, records, repair,
        replicate, steward,
    },
    machine::{Machine, describe, differ},
    world::World,
};

impl Act {
    /// What must hold after it, whatever became of it.
    pub async fn check(self, world: &World, scene: &mut Scene) -> Result<(), String> {
        let there = take_stock(self, world, scene).await?;
        if matches!(self, Self::Restore | Self::RestoreOver) {
            check_restored(world, scene).await?;
        }
        if self == Self::Repair {
            finish_repair(world, &scene.machine).await?;
        }
        if self == Self::Heal {
            return finish_healing(world, scene).await;
        }
        check_all(world, &scene.machine, &there).await?;
        match self {
            Self::Forget => finish_forgetting(world, scene).await?,
            Self::Collect => finish_collection(world, scene).await?,
            Self::Steward => finish_extension(world, scene).await?,
            Self::Replicate | Self::KeepCopy => finish_copy(world, &scene.machine, &there).await?,
            Self::ReapCopy => {
                finish_reaping(world, &scene.machine, &there).await?;
                finish_copy(world, &scene.machine, &there).await?;
            }
            _ => {}
        }
        next_backup(world, scene).await?;
        world.check_store()?;
        world.check_keys().map(drop)
    }
}

/// The snapshots the server has. One that was committed is among them; one whose commit took effect unheard counts.
async fn take_stock(act: Act, world: &World, scene: &mut Scene) -> Result<Vec<SnapshotId>, String> {
    let machine = &mut scene.machine;
    let there = machine.snapshots(world).await?;
    let known: Vec<SnapshotId> = machine.committed.keys().copied().collect();
    for id in known.into_iter().filter(|id| !there.contains(id)) {
        let lets_go = matches!(act, Act::Forget | Act::Collect | Act::ReapCopy);
        let may_go = lets_go && scene.goes == Some(id);
        if !may_go {
            return Err(format!("{id} was committed and is gone"));
        }
        machine.committed.remove(&id);
    }
    let now = describe(&machine.source);
    for id in &there {
        machine.committed.entry(*id).or_insert_with(|| now.clone());
    }
    Ok(there)
}

async fn check_all(world: &World, machine: &Machine, there: &[SnapshotId]) -> Result<(), String> {
    machine.check_locks(world).await?;
    machine.fsck(world, there).await?;
    for id in there {
        machine.check_restore(world, *id).await?;
    }
    Ok(())
}

/// It succeeds without warnings, and then all is well again.
async fn next_backup(world: &World, scene: &mut Scene) -> Result<(), String> {
    let machine = &mut scene.machine;
    machine.change();
    let next = machine.back_up_cleanly(world).await;
    let next = next.map_err(|why| format!("the next backup: {why}"));
    let next = next?;
    machine.check_locks(world).await?;
    machine.fsck(world, &[next]).await?;
    machine.check_restore(world, next).await?;
    // Records that a fault kept back arrive in the next round.
    records(world).await.map_err(|error| format!("the next round of records: {error}"))
}

/// Nothing wrong under a final name, and the same restore once more brings the rest.
async fn check_restored(world: &World, scene: &Scene) -> Result<(), String> {
    let machine = &scene.machine;
    let id = scene.wanted.ok_or("no snapshot")?;
    let expected = &machine.committed[&id];
    let hash = |text: &str| text.rsplit(' ').next().unwrap_or_default().to_owned();
    for (path, got) in describe(&machine.arrived(&scene.target)) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(".everhold-") || !got.contains(" bytes, ") {
            continue;
        }
        let wanted = expected.get(&path).is_some_and(|text| hash(text) == hash(&got));
        let older = scene.before.get(&path).is_some_and(|text| hash(text) == hash(&got));
        // A file changed in part that could not be finished has a time nobody takes for finished.
        let told = scene.before.contains_key(&path) && got.contains(" 0.000000001 ");
        if !(wanted || older || told) {
            return Err(format!("{} was restored with other bytes", path.display()));
        }
    }
    let problems = machine.restore(world, id, &scene.target).await?;
    if !problems.is_empty() {
        return Err(format!("the second restore: {problems:?}"));
    }
    let got = describe(&machine.arrived(&scene.target));
    // Files of before that the snapshot does not have stay.
    let got = got
        .into_iter()
        .filter(|(path, _)| expected.contains_key(path) || !scene.before.contains_key(path));
    let difference = differ(expected, &got.collect());
    difference.map_or(Ok(()), |what| Err(format!("the second restore: {what}")))
}

/// What a fault kept from its end comes to it.
async fn finish_forgetting(world: &World, scene: &mut Scene) -> Result<(), String> {
    // Whoever read a snapshot a moment ago may go on.
    world.advance(2 * DAY);
    let machine = &mut scene.machine;
    forget(world, machine).await.map_err(|why| format!("forgetting goes on: {why}"))?;
    let there = machine.snapshots(world).await?;
    let gone = scene.goes.ok_or("no snapshot")?;
    if there.contains(&gone) {
        return Err(format!("{gone} was never forgotten"));
    }
    machine.committed.remove(&gone);
    check_all(world, machine, &there).await
}

async fn finish_collection(world: &World, scene: &mut Scene) -> Result<(), String> {
    let machine = &scene.machine;
    // The second pass takes up what the first one had begun.
    for _ in 0..2 {
        collect(world, machine).await.map_err(|why| format!("collection goes on: {why}"))?;
    }
    let there = machine.snapshots(world).await?;
    check_all(world, machine, &there).await
}

async fn finish_extension(world: &World, scene: &Scene) -> Result<(), String> {
    steward(world).await.map_err(|why| format!("the next run of the steward: {why}"))?;
    let ends = scene.machine.lock_ends(world).await?;
    let soon = ends.iter().find(|(_, end)| **end < world.now() + 14 * DAY);
    match soon {
        None => Ok(()),
        Some((key, end)) => Err(format!("{key} stays and is locked until {end} only")),
    }
}

/// The second copy was in order when it stopped, comes to its end, keeps what it has as long as the first store, and
/// gives every snapshot back alone.
async fn finish_copy(world: &World, machine: &Machine, ids: &[SnapshotId]) -> Result<(), String> {
    let prefix = layout::vault_prefix(machine.tenant, machine.vault);
    let second = &world.second.straight;
    let listed = second.list_versions(&prefix, None).await.map_err(words)?;
    let there: BTreeSet<String> = listed.versions.into_iter().map(|version| version.key).collect();
    for id in ids {
        let missing: Vec<String> = machine
            .needs(world, *id)
            .await?
            .into_iter()
            .filter(|key| !there.contains(key))
            .collect();
        let receipt = layout::receipt_key(machine.tenant, machine.vault, *id);
        if there.contains(&receipt) && !missing.is_empty() {
            return Err(format!("the copy has a receipt of {id} and lacks {missing:?}"));
        }
    }
    // Who died at it keeps others away so long.
    world.advance(copy::LEASE + DAY);
    // The second round takes up what the first one met too late.
    for _ in 0..2 {
        replicate(world).await.map_err(|why| format!("copying goes on: {why}"))?;
        keep_copy(world).await.map_err(|why| format!("the copy's locks go on: {why}"))?;
    }
    let status = replica::status(&world.catalog, machine.tenant, machine.vault).await;
    let status = status.map_err(words)?;
    if (status.packs_behind, status.snapshots_behind) != (0, 0) || status.trouble.is_some() {
        return Err(format!("the copy never came to its end: {status:?}"));
    }
    for (key, first) in machine.lock_ends(world).await? {
        let facts = second.head(&key, None).await.map_err(words)?;
        let end = facts.and_then(|facts| facts.lock_until);
        if end.is_none_or(|end| end < first) {
            return Err(format!("{key} is locked until {first} and its copy until {end:?}"));
        }
    }
    world.first.down.store(true, Ordering::SeqCst);
    machine.forget_cache()?;
    for id in ids {
        let restored = machine.check_restore(world, *id).await;
        restored.map_err(|why| format!("from the copy alone: {why}"))?;
    }
    world.first.down.store(false, Ordering::SeqCst);
    Ok(())
}

/// The second copy keeps the packs that snapshots need, and no others.
async fn finish_reaping(
    world: &World,
    machine: &Machine,
    ids: &[SnapshotId],
) -> Result<(), String> {
    reap_copy(world, machine).await.map_err(|why| format!("letting go goes on: {why}"))?;
    let mut needed = BTreeSet::new();
    for id in ids {
        needed.extend(machine.needs(world, *id).await?);
    }
    let prefix = layout::vault_prefix(machine.tenant, machine.vault);
    let listed = world.second.straight.list_versions(&prefix, None).await.map_err(words)?;
    let is_pack = |key: &String| key.contains("/data/") || key.contains("/meta/");
    needed.retain(is_pack);
    let there: BTreeSet<String> =
        listed.versions.into_iter().map(|version| version.key).filter(is_pack).collect();
    match (needed.difference(&there).next(), there.difference(&needed).next()) {
        (None, None) => Ok(()),
        (Some(lacks), _) => Err(format!("the copy lacks {lacks}")),
        (None, Some(keeps)) => Err(format!("the copy keeps {keeps}")),
    }
}

/// The next scrub repairs what a fault left, and then there is nothing to be found.
async fn finish_repair(world: &World, machine: &Machine) -> Result<(), String> {
    repair(world, machine).await.map_err(|why| format!("repair goes on: {why}"))?;
    machine.forget_cache()?;
    let (tenant, vault) = (machine.tenant, machine.vault);
    let report = scrub::scrub(&world.catalog, tenant, vault, Sample::Full, 2).await;
    let report = report.map_err(words)?;
    if report.is_clean() { Ok(()) } else { Err(format!("after a repair: {:?}", report.findings)) }
}

/// What was spoiled and is still at the source is stored anew by the next backup, and the older snapshot has it from
/// there.
async fn finish_healing(world: &World, scene: &mut Scene) -> Result<(), String> {
    let spoiled = scene.spoiled.ok_or("nothing is spoiled")?;
    declare(world, &scene.machine, spoiled).await?;
    let machine = &mut scene.machine;
    let healed = machine.back_up_cleanly(world).await;
    let healed = healed.map_err(|why| format!("the backup that heals: {why}"))?;
    machine.check_locks(world).await?;
    machine.fsck(world, &[healed]).await?;
    let older = scene.wanted.ok_or("no snapshot")?;
    for id in machine.committed.keys().filter(|id| **id != older) {
        machine.check_restore(world, *id).await?;
    }
    machine.forget_cache()?;
    let target = machine.fresh(world);
    machine.restore(world, older, &target).await?;
    let (then, now) = (&machine.committed[&older], &machine.committed[&healed]);
    let got = describe(&machine.arrived(&target));
    let is_file = |text: &str| text.contains(" bytes, ");
    let wrong = got
        .iter()
        .find(|(path, text)| is_file(text) && then.get(*path).is_some_and(|then| then != *text));
    if let Some((path, text)) = wrong {
        return Err(format!("{} came back as {text}", path.display()));
    }
    let lacks = then.iter().find(|(path, text)| {
        is_file(text) && now.get(*path) == Some(text) && got.get(*path) != Some(text)
    });
    if let Some((path, _)) = lacks {
        return Err(format!("{} is at the source and lost to {older}", path.display()));
    }
    next_backup(world, scene).await?;
    world.check_store()?;
    world.check_keys().map(drop)
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

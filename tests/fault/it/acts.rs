//! The operations whose every change of state is broken: how each is set up and carried out.
//!
//! Invariant: an act runs the same way each time, so that an operation counted once is met again. What must hold
//! afterwards is in [`crate::laws`].

use std::time::Duration;

use catalog::{
    collection::{self, letting_go},
    replica::{self, copy, keep},
    scrub::{self, Where},
    sessions, snapshots, steward, vaults,
};
use domain::{PackId, SnapshotId};
use vault::{scrub::Sample, store::probe::Report};

use crate::{
    machine::{Described, Machine, describe, machine},
    plan::{Fault, Op, Point, Seam},
    world::{SECOND, World},
};

pub const DAY: Duration = Duration::from_secs(86_400);

/// One operation. A new one needs its scene ([`Act::prepare`]), its deed ([`Act::run`]), a test in `runner.rs`, and a
/// law of its own where it promises something the others do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The first backup of a vault.
    FirstBackup,
    /// A backup on top of another, with changes.
    Backup,
    /// A first backup that goes on where another broke off, with a checkpoint after every file.
    Resume,
    /// Into an empty folder.
    Restore,
    /// Over the files of an older snapshot: what differs is changed in place.
    RestoreOver,
    /// Receipts and key objects on their way to the bucket.
    Records,
    /// Locks of packs whose session is open for days.
    SessionLocks,
    /// Locks of snapshots that stay beyond their promise.
    Steward,
    /// Expire by rule, forget, write the record.
    Forget,
    /// Condemn, wait, delete by warrant.
    Collect,
    /// A backup that carries the live frames of half-dead packs over.
    Repack,
    /// What snapshots need goes to the vault's second store, under locks there.
    Replicate,
    /// Its locks, when the first store's were made longer.
    KeepCopy,
    /// What is gone from the first store goes from there.
    ReapCopy,
    /// What the first store spoiled is written anew from there.
    Repair,
    /// Without a second copy: what is spoiled is declared lost, and the next backup stores it anew.
    Heal,
}

/// What an act works with, made without faults.
pub struct Scene {
    pub machine: Machine,
    /// The snapshot the rule lets go.
    pub goes: Option<SnapshotId>,
    /// What a restore is to bring.
    pub wanted: Option<SnapshotId>,
    pub target: std::path::PathBuf,
    /// What was in the target before.
    pub before: Described,
    /// What the first store spoiled.
    pub spoiled: Option<PackId>,
}

impl Act {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstBackup => "first backup",
            Self::Backup => "backup",
            Self::Resume => "backup taken up again",
            Self::Restore => "restore",
            Self::RestoreOver => "restore over an older state",
            Self::Records => "receipts and key objects",
            Self::SessionLocks => "extend: locks of an open session",
            Self::Steward => "extend: locks of standing snapshots",
            Self::Forget => "forget",
            Self::Collect => "prune: condemn, delete by warrant",
            Self::Repack => "repack",
            Self::Replicate => "replicate",
            Self::KeepCopy => "extend: locks of the second copy",
            Self::ReapCopy => "prune: the second copy",
            Self::Repair => "repair from the second copy",
            Self::Heal => "declare lost, back up anew",
        }
    }

    pub async fn prepare(self, world: &World, seed: u64) -> Scene {
        let machine = machine(world, seed).await;
        let target = machine.fresh(world);
        let before = Described::new();
        let mut scene = Scene { machine, goes: None, wanted: None, target, before, spoiled: None };
        if matches!(self, Self::FirstBackup | Self::Resume) {
            if self == Self::Resume {
                faults::make_eager(true);
                scene.machine.write_large();
                // Some of a large file is stored by now, and not all.
                broken_off(world, &mut scene, Seam::AgentStore, "PUT data", 3).await;
                faults::make_eager(false);
            }
            return scene;
        }
        scene.wanted = Some(scene.back_up(world).await);
        match self {
            Self::Backup => {
                scene.machine.change();
                // Far enough that what is inherited needs longer locks.
                world.advance(10 * DAY);
            }
            Self::RestoreOver => scene.fill_target(world).await,
            Self::SessionLocks => {
                // A backup under way for days: its packs are uploaded, and nothing is committed.
                scene.machine.change();
                broken_off(world, &mut scene, Seam::Api, "POST sessions/…/commit", 1).await;
                world.advance(10 * DAY);
            }
            Self::Steward => {
                records(world).await.expect("records without faults");
                world.advance(365 * DAY);
            }
            Self::Forget | Self::Collect | Self::ReapCopy => {
                // The first of its day stays, and the newest.
                scene.machine.change();
                scene.goes = Some(scene.back_up(world).await);
                scene.machine.change();
                scene.back_up(world).await;
                records(world).await.expect("records without faults");
                if self == Self::ReapCopy {
                    second_copy(world, &scene.machine).await;
                    replicate(world).await.expect("copied without faults");
                }
                world.advance(30 * DAY);
                if self != Self::Forget {
                    forget(world, &scene.machine).await.expect("forgotten without faults");
                }
                if self == Self::ReapCopy {
                    collect(world, &scene.machine).await.expect("collected without faults");
                    world.advance(90 * DAY);
                }
            }
            Self::Repack => {
                scene.machine.stack();
                scene.back_up(world).await;
                scene.machine.thin_out();
                scene.back_up(world).await;
                records(world).await.expect("records without faults");
                // The next promise would buy what is dead for as long again.
                let ends = scene.machine.lock_ends(world).await.expect("locked as promised");
                let soonest = ends.values().min().expect("packs");
                world.advance(soonest.since(world.now()).saturating_sub(DAY));
            }
            Self::Replicate | Self::KeepCopy => {
                scene.machine.change();
                scene.back_up(world).await;
                records(world).await.expect("records without faults");
                second_copy(world, &scene.machine).await;
                if self == Self::KeepCopy {
                    replicate(world).await.expect("copied without faults");
                    world.advance(365 * DAY);
                    steward(world).await.expect("extended without faults");
                }
            }
            Self::Repair | Self::Heal => {
                records(world).await.expect("records without faults");
                if self == Self::Repair {
                    second_copy(world, &scene.machine).await;
                    replicate(world).await.expect("copied without faults");
                }
                let wanted = scene.wanted.expect("a first snapshot");
                scene.spoiled = Some(scene.machine.spoil_a_bundle(world, wanted).await);
                if self == Self::Heal {
                    let target = scene.machine.fresh(world);
                    let lacks = scene.machine.restore(world, wanted, &target).await;
                    assert!(lacks.is_ok_and(|lacks| lacks.len() > 5), "nothing is lost");
                    // Some files of its bundles are others by now.
                    scene.machine.change();
                }
            }
            Self::FirstBackup | Self::Resume | Self::Restore | Self::Records => {}
        }
        scene
    }

    /// The operation itself. `Err` says why it did not come to its end.
    pub async fn run(self, world: &World, scene: &mut Scene) -> Result<(), String> {
        match self {
            Self::FirstBackup | Self::Backup | Self::Repack => {
                scene.machine.back_up(world).await.map(drop)
            }
            Self::Resume => {
                faults::make_eager(true);
                let done = scene.machine.back_up(world).await.map(drop);
                faults::make_eager(false);
                done
            }
            Self::Restore | Self::RestoreOver => {
                let id = scene.wanted.ok_or("no snapshot")?;
                let problems = scene.machine.restore(world, id, &scene.target).await?;
                if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
            }
            Self::Records => on_server(world, records(world)).await,
            Self::SessionLocks => {
                on_server(world, async {
                    let done = sessions::jobs::steward_round(&world.catalog).await;
                    done.map(drop).map_err(|error| error.to_string())
                })
                .await
            }
            Self::Steward => on_server(world, steward(world)).await,
            Self::Forget => on_server(world, forget(world, &scene.machine)).await,
            Self::Collect => on_server(world, collect(world, &scene.machine)).await,
            Self::Replicate => on_server(world, replicate(world)).await,
            Self::KeepCopy => on_server(world, keep_copy(world)).await,
            Self::ReapCopy => on_server(world, reap_copy(world, &scene.machine)).await,
            Self::Repair => on_server(world, repair(world, &scene.machine)).await,
            Self::Heal => {
                let spoiled = scene.spoiled.ok_or("nothing is spoiled")?;
                on_server(world, declare(world, &scene.machine, spoiled)).await?;
                scene.machine.back_up(world).await.map(drop)
            }
        }
    }
}

impl Scene {
    /// Without faults, and noted.
    async fn back_up(&mut self, world: &World) -> SnapshotId {
        self.machine.back_up_cleanly(world).await.expect("a backup without faults")
    }

    /// The target gets the older snapshot, then there is a newer one to be had.
    async fn fill_target(&mut self, world: &World) {
        let first = self.wanted.expect("a first snapshot");
        let problems = self.machine.restore(world, first, &self.target).await.expect("restores");
        assert!(problems.is_empty(), "{problems:?}");
        self.before = describe(&self.machine.arrived(&self.target));
        self.machine.change();
        self.wanted = Some(self.back_up(world).await);
    }
}

/// A backup dies at a point that is there for sure.
async fn broken_off(world: &World, scene: &mut Scene, seam: Seam, name: &str, nth: u32) {
    let op = Op { seam, name: name.to_owned() };
    world.plan.arm(Some(Point { op, nth, fault: Fault::Kill }));
    assert!(scene.machine.back_up(world).await.is_err(), "it died and committed");
    assert!(world.plan.was_hit(), "{name} no. {nth} did not come");
    world.plan.arm(None);
}

/// Work of the server, that dies with it.
async fn on_server(
    world: &World,
    work: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    world.on_server(work).await.unwrap_or(Err("the server died".to_owned()))
}

/// Key objects and receipts.
pub async fn records(world: &World) -> Result<(), String> {
    let keys = vaults::jobs::round(&world.catalog).await;
    let receipts = snapshots::receipts::round(&world.catalog).await;
    keys.and(receipts).map(drop).map_err(|error| error.to_string())
}

/// One run of the steward; what it could not extend is no success.
pub async fn steward(world: &World) -> Result<(), String> {
    let report = steward::round(&world.catalog, steward::BUDGET).await;
    let report = report.map_err(|error| error.to_string())?;
    if report.failed == 0 { Ok(()) } else { Err(format!("{} locks failed", report.failed)) }
}

/// The vault gets a second copy.
async fn second_copy(world: &World, machine: &Machine) {
    static EVIDENCE: tokio::sync::OnceCell<Report> = tokio::sync::OnceCell::const_new();
    let evidence = EVIDENCE.get_or_init(async || {
        let looked = replica::look_at(&world.catalog, SECOND).await;
        let mut evidence = looked.expect("the second store answers");
        // Answers are dated by the machine's clock, and this world has another.
        evidence.cases.retain(|case| case.name != "clock_skew");
        evidence
    });
    let (tenant, vault) = (machine.tenant, machine.vault);
    let set = replica::configure(&world.catalog, tenant, vault, SECOND, 30, evidence.await).await;
    set.expect("a second copy");
}

/// One round of copying.
pub async fn replicate(world: &World) -> Result<(), String> {
    replica::round(&world.catalog).await.map(drop).map_err(|error| copy::words(&error))
}

/// One round over the locks of second copies.
pub async fn keep_copy(world: &World) -> Result<(), String> {
    keep::round(&world.catalog).await.map(drop).map_err(|error| copy::words(&error))
}

/// One pass over what is gone from the first store.
pub async fn reap_copy(world: &World, machine: &Machine) -> Result<(), String> {
    let gone = keep::reap(&world.catalog, machine.scope(), machine.vault).await;
    gone.map(drop).map_err(|error| error.to_string())
}

/// All of the first store is read, and what is wrong there written anew.
pub async fn repair(world: &World, machine: &Machine) -> Result<(), String> {
    let (catalog, tenant, vault) = (&world.catalog, machine.tenant, machine.vault);
    let words = |error: catalog::error::Error| copy::words(&error);
    let report = scrub::scrub(catalog, tenant, vault, Sample::Full, 1).await.map_err(words)?;
    let done = replica::repair::repair(catalog, tenant, vault, Where::First, &report.findings);
    let left = done.await.map_err(words)?.into_iter().find_map(|one| one.why_not);
    left.map_or(Ok(()), Err)
}

/// A pack that is spoiled is declared lost.
pub async fn declare(world: &World, machine: &Machine, pack: PackId) -> Result<(), String> {
    let declared = scrub::declare(&world.catalog, machine.tenant, machine.vault, &[pack]).await;
    let declared = declared.map_err(|error| error.to_string())?;
    match declared.first() {
        Some(one) if one.lost.is_some() => Ok(()),
        other => Err(format!("not declared lost: {other:?}")),
    }
}

/// One pass of everything that lets a snapshot go, through all waiting times.
pub async fn forget(world: &World, machine: &Machine) -> Result<(), String> {
    let words = |error: collection::CollectError| error.to_string();
    letting_go::expire(&world.catalog, machine.scope(), machine.workload).await.map_err(words)?;
    world.advance(letting_go::UNDO + DAY);
    letting_go::forget(&world.catalog, machine.scope(), machine.workload).await.map_err(words)?;
    letting_go::write_round(&world.catalog).await.map(drop).map_err(|error| error.to_string())
}

/// One pass of everything that lets packs go, through all waiting times.
pub async fn collect(world: &World, machine: &Machine) -> Result<(), String> {
    let (catalog, vault) = (&world.catalog, machine.vault);
    let words = |error: collection::CollectError| error.to_string();
    collection::condemn(catalog, machine.scope(), vault).await.map_err(words)?;
    world.advance(collection::GRACE + DAY);
    let warrants = collection::begin_delete(catalog, machine.scope(), vault).await;
    for warrant in &warrants.map_err(words)? {
        collection::finish_delete(catalog, machine.scope(), warrant).await.map_err(words)?;
    }
    Ok(())
}

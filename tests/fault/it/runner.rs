//! Points of an act, a fixed choice of them, and the figures.
//!
//! Invariant: every point has a world and a machine of its own, so that none sees what another left.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use domain::{IdGen as _, SeededIds};
use serde::Serialize;

use crate::{
    acts::Act,
    plan::{Fault, Op, Point},
    world::world,
};

/// Points of each act in the short run, and in the long one.
const SAMPLE: usize = 6;
const LONG: usize = 120;
/// As many failures are told in full.
const TOLD: usize = 12;

/// What an act's run comes to, for `docs/reliability.md`.
#[derive(Serialize)]
struct Figures {
    act: &'static str,
    long: bool,
    operations: u32,
    /// How many points there are: the changes of state, each with every fault that makes sense there.
    all: usize,
    points: usize,
    /// Seam and fault → points met, and how many of them the run itself survived.
    met: BTreeMap<String, (u32, u32)>,
    missed: Vec<String>,
    failures: Vec<String>,
    packs: usize,
    seconds: f64,
}

/// One point by its words, to look at it alone.
fn only() -> Option<String> {
    crate::asked("FAULT_ONLY")
}

fn points(counts: &BTreeMap<Op, u32>) -> Vec<Point> {
    let mut all = Vec::new();
    for (op, count) in counts {
        for nth in 1..=*count {
            for fault in Fault::at(op) {
                all.push(Point { op: op.clone(), nth, fault });
            }
        }
    }
    all
}

/// A fixed choice: every kind gets its turn before one gets a second.
fn choose(all: Vec<Point>, count: usize, kind: impl Fn(&Point) -> String) -> Vec<Point> {
    let ids = SeededIds::new(7);
    let mut shuffled: Vec<([u8; 8], Point)> = all
        .into_iter()
        .map(|point| {
            let mut random = [0; 8];
            ids.fill(&mut random);
            (random, point)
        })
        .collect();
    shuffled.sort();
    let mut turns: BTreeMap<String, u32> = BTreeMap::new();
    let mut drawn: Vec<(u32, [u8; 8], Point)> = Vec::new();
    for (random, point) in shuffled {
        let turn = turns.entry(kind(&point)).or_default();
        *turn += 1;
        drawn.push((*turn, random, point));
    }
    drawn.sort();
    drawn.into_iter().take(count).map(|(_, _, point)| point).collect()
}

fn chosen(all: Vec<Point>) -> Vec<Point> {
    match only() {
        Some(words) => all.into_iter().filter(|point| point.to_string().contains(&words)).collect(),
        // Every fault at every kind of operation first, however many they are, then more of each.
        None if crate::long() => {
            let kind = |point: &Point| format!("{} {}", point.op, point.fault.as_str());
            let count = match crate::asked("FAULT_POINTS") {
                Some(text) => text.parse().expect("a number"),
                None => all.iter().map(kind).collect::<BTreeSet<_>>().len().max(LONG),
            };
            choose(all, count, kind)
        }
        None => choose(all, SAMPLE, |point| format!("{:?} {:?}", point.op.seam, point.fault)),
    }
}

async fn enumerate(act: Act) {
    let started = Instant::now();
    let counts = count(act).await;
    let all = points(&counts);
    let mut figures = Figures {
        act: act.as_str(),
        long: crate::long(),
        operations: counts.values().sum(),
        all: all.len(),
        points: 0,
        met: BTreeMap::new(),
        missed: Vec::new(),
        failures: Vec::new(),
        packs: 0,
        seconds: 0.0,
    };
    let name: String =
        figures.act.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    for point in chosen(all) {
        one(act, &point, &mut figures).await;
        figures.seconds = started.elapsed().as_secs_f64();
        // Point by point: a run that is ended early has its figures too.
        crate::keep(&name, figures.long, &figures);
    }
    println!(
        "{}: {} operations, {} of {} points met, {} not met, {} failures, {:.1} s",
        figures.act,
        figures.operations,
        figures.points,
        figures.all,
        figures.missed.len(),
        figures.failures.len(),
        figures.seconds
    );
    let told: Vec<&String> = figures.failures.iter().take(TOLD).collect();
    assert!(figures.failures.is_empty(), "{} failures: {told:#?}", figures.failures.len());
}

/// What happens in the act when nothing is broken.
async fn count(act: Act) -> BTreeMap<Op, u32> {
    let world = world().await;
    let mut scene = act.prepare(&world, 1).await;
    world.plan.arm(None);
    act.run(&world, &mut scene).await.expect("the act without faults");
    let counts = world.plan.counts();
    act.check(&world, &mut scene).await.expect("the act without faults");
    for (op, count) in &counts {
        println!("{count:4} × {op}");
    }
    let happened = |name| counts.keys().any(|op| op.name.starts_with(name));
    let deletes = matches!(act, Act::Collect | Act::ReapCopy);
    assert!(!deletes || happened("DELETE"), "nothing was deleted");
    assert!(act != Act::Repair || happened("PUT data"), "nothing was stored anew");
    assert!(act != Act::Repack || happened("GET data"), "nothing was carried over");
    counts
}

async fn one(act: Act, point: &Point, figures: &mut Figures) {
    let world = world().await;
    let mut scene = act.prepare(&world, 1).await;
    world.plan.arm(Some(point.clone()));
    let done = act.run(&world, &mut scene).await;
    let met = world.plan.was_hit();
    world.plan.arm(None);
    let mut outcome = act.check(&world, &mut scene).await;
    if point.fault == Fault::Delay && done.is_err() && outcome.is_ok() {
        outcome = Err(format!("a delay alone ended it: {done:?}"));
    }
    if met {
        figures.points += 1;
        let key = format!("{}|{}", point.op.seam.as_str(), point.fault.as_str());
        let (count, survived) = figures.met.entry(key).or_default();
        *count += 1;
        *survived += u32::from(done.is_ok());
    } else {
        figures.missed.push(point.to_string());
    }
    if let Err(why) = outcome {
        println!("{point}: {why} (the run: {done:?})");
        figures.failures.push(format!("{point}: {why} (the run: {done:?})"));
    }
    figures.packs += world.check_keys().unwrap_or_default();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_backup_may_be_broken_anywhere() {
    enumerate(Act::FirstBackup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_may_be_broken_anywhere() {
    enumerate(Act::Backup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_taken_up_again_may_be_broken_anywhere() {
    enumerate(Act::Resume).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_may_be_broken_anywhere() {
    enumerate(Act::Restore).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_over_an_older_state_may_be_broken_anywhere() {
    enumerate(Act::RestoreOver).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_on_their_way_to_the_bucket_may_be_broken_anywhere() {
    enumerate(Act::Records).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_of_an_open_sessions_locks_may_be_broken_anywhere() {
    enumerate(Act::SessionLocks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_of_standing_snapshots_locks_may_be_broken_anywhere() {
    enumerate(Act::Steward).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgetting_may_be_broken_anywhere() {
    enumerate(Act::Forget).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_may_be_broken_anywhere() {
    enumerate(Act::Collect).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repack_may_be_broken_anywhere() {
    enumerate(Act::Repack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copying_to_a_second_store_may_be_broken_anywhere() {
    enumerate(Act::Replicate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_of_the_second_copys_locks_may_be_broken_anywhere() {
    enumerate(Act::KeepCopy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letting_go_at_the_second_store_may_be_broken_anywhere() {
    enumerate(Act::ReapCopy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_may_be_broken_anywhere() {
    enumerate(Act::Repair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healing_may_be_broken_anywhere() {
    enumerate(Act::Heal).await;
}

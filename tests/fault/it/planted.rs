//! Single faults with one right answer each: what the planted bugs get wrong.

use std::fs;

use crate::{
    acts::Act,
    plan::{Fault, Op, Point, Seam},
    world::world,
};

fn for_ever(name: &str) -> Option<Point> {
    let op = Op { seam: Seam::ServerStore, name: name.to_owned() };
    Some(Point { op, nth: 1, fault: Fault::FailForever })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_never_promises_a_lock_the_store_refused() {
    let world = world().await;
    let mut scene = Act::Backup.prepare(&world, 1).await;
    world.plan.arm(for_ever("PUT retention of data"));
    let done = Act::Backup.run(&world, &mut scene).await;
    assert!(world.plan.was_hit());
    world.plan.arm(None);
    assert!(done.is_err(), "committed although a lock was not extended");
    assert_eq!(scene.machine.snapshots(&world).await.expect("list").len(), 1);
    Act::Backup.check(&world, &mut scene).await.expect("goes on when the store does");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_that_cannot_say_whether_a_pack_is_gone_has_not_deleted_it() {
    let world = world().await;
    let mut scene = Act::Collect.prepare(&world, 1).await;
    world.plan.arm(for_ever("HEAD data"));
    let done = Act::Collect.run(&world, &mut scene).await;
    assert!(world.plan.was_hit());
    world.plan.arm(None);
    assert!(done.is_err(), "an error of the store was taken for an absence");
    Act::Collect.check(&world, &mut scene).await.expect("goes on when the store does");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_rotted_in_the_cache_is_fetched_anew() {
    let world = world().await;
    let mut scene = Act::Restore.prepare(&world, 1).await;
    let mut rotten = 0;
    for entry in fs::read_dir(scene.machine.home.cache()).expect("a cache").flatten() {
        let path = entry.path();
        let mut bytes = fs::read(&path).expect("cached");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).expect("rots");
        rotten += 1;
    }
    assert!(rotten > 0, "nothing is cached");
    Act::Restore.run(&world, &mut scene).await.expect("restores from the store");
    Act::Restore.check(&world, &mut scene).await.expect("bit for bit");
}

//! Single faults with one right answer each: what the planted bugs get wrong.

use std::fs;

use crate::{
    acts::Act,
    machine::machine,
    plan::{Fault, Op, Point, Seam},
    world::world,
};

fn for_ever(seam: Seam, name: &str) -> Option<Point> {
    let op = Op { seam, name: name.to_owned() };
    Some(Point { op, nth: 1, fault: Fault::FailForever })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_never_promises_a_lock_the_store_refused() {
    let world = world().await;
    let mut scene = Act::Backup.prepare(&world, 1).await;
    world.plan.arm(for_ever(Seam::ServerStore, "PUT retention of data"));
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
    world.plan.arm(for_ever(Seam::ServerStore, "HEAD data"));
    let done = Act::Collect.run(&world, &mut scene).await;
    assert!(world.plan.was_hit());
    world.plan.arm(None);
    assert!(done.is_err(), "an error of the store was taken for an absence");
    Act::Collect.check(&world, &mut scene).await.expect("goes on when the store does");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_that_cannot_write_its_cache_sees_all_damaged_metadata() {
    let world = world().await;
    // Whichever of them is looked at first, the other is the one.
    for spoiled in 0..2 {
        let mut machine = machine(&world, 1).await;
        machine.crowd();
        machine.back_up_cleanly(&world).await.expect("a snapshot");
        machine.change();
        let newest = machine.back_up_cleanly(&world).await.expect("a second snapshot");
        machine.spoil_metadata(&world, newest, spoiled).await;
        world.plan.arm(for_ever(Seam::Disk, "cache: create"));
        let healed = machine.back_up_cleanly(&world).await.expect("does without it");
        assert!(world.plan.was_hit());
        world.plan.arm(None);
        machine.check_restore(&world, healed).await.expect("bit for bit");
    }
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

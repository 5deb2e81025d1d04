//! Where the name of a receipt or forget record is taken: it counts only as the bytes that were signed, in the version
//! that is recorded, locked for as long as it must be.

use bytes::Bytes;
use catalog::{
    collection::letting_go::{self, UNDO},
    snapshots::receipts,
};
use domain::Timestamp;
use time::OffsetDateTime;
use vault::store::LockMode;

use crate::support::{DAY, World, world};

/// What has the name before the catalog writes.
#[derive(Debug, Clone, Copy)]
enum Before {
    /// Under a lock that would be long enough.
    OtherBytes,
    ShortLock,
    NoLock,
}

/// A document as the database has it.
struct Signed {
    key: String,
    bytes: Bytes,
    until: Timestamp,
    version: Option<String>,
}

const RECEIPT: &str = "SELECT object_key, receipt, lock_until, version_id FROM catalog.receipts";
const FORGET: &str = "SELECT object_key, record, lock_until, version_id FROM catalog.forgets";

async fn signed(world: &World, sql: &'static str) -> Signed {
    let mut connection = world.app.database().superuser().await.expect("superuser");
    let (key, bytes, until, version): (String, Vec<u8>, OffsetDateTime, Option<String>) =
        sqlx::query_as(sql).fetch_one(&mut connection).await.expect("one");
    Signed { key, bytes: bytes.into(), until: until.into(), version }
}

async fn plant(world: &World, sql: &'static str, before: Before) {
    let Signed { key, bytes, until, version } = signed(world, sql).await;
    assert_eq!(version, None, "not written yet");
    let (other, soon) = (Bytes::from_static(b"not what was signed"), world.now() + DAY);
    match before {
        Before::OtherBytes => drop(world.store.put_locked(&key, other, until).await.expect("put")),
        Before::ShortLock => drop(world.store.put_locked(&key, bytes, soon).await.expect("put")),
        Before::NoLock => world.put_unlocked(&key, bytes).await,
    }
}

async fn check(world: &World, sql: &'static str) {
    let Signed { key, bytes, until, version } = signed(world, sql).await;
    let version = version.expect("written");
    assert_eq!(world.store.get(&key, &version).await.expect("bytes"), bytes);
    let facts = world.store.head(&key, Some(&version)).await.expect("head").expect("there");
    assert_eq!(facts.lock_mode, Some(LockMode::Compliance));
    assert!(facts.lock_until >= Some(until), "{:?} is short of {until}", facts.lock_until);
}

async fn receipt_over(before: Before) {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    world.backup(&agent, &mut Vec::new(), 1, &[]).await;
    plant(&world, RECEIPT, before).await;
    assert!(receipts::round(&world.catalog).await.expect("written"));
    check(&world, RECEIPT).await;
}

async fn forget_record_over(before: Before) {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    for _ in 0..4 {
        world.backup(&agent, &mut chain, 1, &[]).await;
        world.advance(DAY);
    }
    world.advance(500 * DAY);
    letting_go::expire(&world.catalog, agent.scope(), agent.workload).await.expect("expired");
    world.advance(UNDO);
    letting_go::forget(&world.catalog, agent.scope(), agent.workload).await.expect("for good");
    plant(&world, FORGET, before).await;
    assert!(letting_go::write_round(&world.catalog).await.expect("written"));
    check(&world, FORGET).await;
    let forgotten = "SELECT count(*) FROM catalog.snapshots WHERE state = 'forgotten'";
    assert_eq!(world.count(forgotten).await, 1);
}

#[tokio::test]
async fn a_receipt_whose_name_something_else_has_is_written_beside_it() {
    receipt_over(Before::OtherBytes).await;
}

#[tokio::test]
async fn a_receipt_that_is_there_and_locked_too_short_gets_its_lock() {
    receipt_over(Before::ShortLock).await;
    receipt_over(Before::NoLock).await;
}

#[tokio::test]
async fn a_forget_record_whose_name_something_else_has_is_written_beside_it() {
    forget_record_over(Before::OtherBytes).await;
}

#[tokio::test]
async fn a_forget_record_that_is_there_and_locked_too_short_gets_its_lock() {
    forget_record_over(Before::ShortLock).await;
    forget_record_over(Before::NoLock).await;
}

//! Locks that outlive their promise, refusals, and certificates, against the real store.

use std::collections::BTreeMap;

use api::{Code, catalog::LockStanding};
use authz::Role;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use catalog::steward::{self, AHEAD, Report, alarms::Trouble, certificate};
use domain::{PackId, SnapshotId, Timestamp};
use vault::certificate::{LockCertificate, LockedObject, objects_hash};

use crate::support::{Agent, DAY, World, code_of, world};

async fn objects(world: &World, agent: &Agent, id: SnapshotId) -> Vec<api::catalog::PackFacts> {
    let page: api::catalog::SnapshotPacks =
        agent.get(&format!("snapshots/{id}/packs?limit=1000")).await.expect("packs");
    assert!(page.next_cursor.is_none() && world.now() > Timestamp::UNIX_EPOCH);
    page.items
}

/// The dates the store itself reports.
async fn locks(world: &World, agent: &Agent, id: SnapshotId) -> BTreeMap<PackId, Timestamp> {
    let mut locks = BTreeMap::new();
    for pack in objects(world, agent, id).await {
        let facts = world.store.head(&pack.key, pack.version_id.as_deref()).await.expect("head");
        locks.insert(pack.id, facts.expect("there").lock_until.expect("locked"));
    }
    locks
}

/// A backup whose receipt is in the bucket.
async fn backup(world: &World, agent: &Agent, packs: u64) -> SnapshotId {
    let id = world.backup(agent, &mut Vec::new(), packs, &[]).await.snapshot.id;
    while catalog::snapshots::receipts::round(&world.catalog).await.expect("receipts") {}
    id
}

#[tokio::test]
async fn the_last_good_snapshot_stays_locked_for_years_step_by_step() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let id = backup(&world, &agent, 3).await;
    assert_eq!(steward::round(&world.catalog, 100).await.expect("run"), Report::default());
    world.advance(360 * DAY);
    let mut before = locks(&world, &agent, id).await;
    let mut extensions = 0;
    for _ in 0..30 {
        world.advance(6 * DAY);
        extensions += steward::round(&world.catalog, 100).await.expect("run").extended;
        // Twice is once.
        assert_eq!(steward::round(&world.catalog, 100).await.expect("run").extended, 0);
        let after = locks(&world, &agent, id).await;
        for (pack, until) in &after {
            assert!(*until >= before[pack], "never shorter");
            assert!(*until > world.now() + 6 * DAY, "always ahead");
            assert!(*until <= world.now() + AHEAD + 7 * DAY, "and no further than a step beyond");
        }
        before = after;
    }
    // Three packs, the manifest and the receipt over 180 days: two or three weeks a time.
    assert!((5 * 8..=5 * 14).contains(&extensions), "{extensions} extensions");
    let snapshot: api::catalog::Snapshot = agent.get(&format!("snapshots/{id}")).await.expect("it");
    assert!(snapshot.locked_until > world.now());
}

#[tokio::test]
async fn a_small_budget_takes_the_earliest_ends_first_and_the_next_run_goes_on() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let id = backup(&world, &agent, 6).await;
    world.hold(&agent, id).await;
    world.advance(370 * DAY);
    // One of them is needed soonest.
    let before = locks(&world, &agent, id).await;
    let late = *before.keys().next().expect("packs");
    let others: Vec<_> = objects(&world, &agent, id).await;
    for pack in others.iter().filter(|pack| pack.id != late) {
        let version = pack.version_id.as_deref().expect("version");
        let longer = before[&pack.id] + 7 * DAY;
        let reported = world.store.extend_lock(&pack.key, version, longer).await.expect("extended");
        let mut tx = pg::TenantTx::begin(&world.catalog.db, agent.scope()).await.expect("tx");
        let seen = catalog::packs::store::SeenLock {
            pack: pack.id,
            version: version.to_owned(),
            until: reported,
        };
        catalog::packs::store::set_locks(&mut tx, &[seen]).await.expect("recorded");
        tx.commit_operational(pg::OperationalReason::PackBookkeeping).await.expect("commit");
    }
    let first = steward::round(&world.catalog, 1).await.expect("run");
    assert_eq!(first, Report { extended: 1, failed: 0, left_over: true });
    let now = locks(&world, &agent, id).await;
    assert!(now[&late] > before[&late], "the earliest end goes first");
    let mut extended = 1;
    for _ in 0..20 {
        let report = steward::round(&world.catalog, 2).await.expect("run");
        assert!(report.extended <= 2);
        extended += report.extended;
        if !report.left_over {
            break;
        }
    }
    assert_eq!(extended, 8, "six packs, the manifest and the receipt, each once");
    assert!(locks(&world, &agent, id).await.values().all(|until| *until > world.now() + 20 * DAY));
}

/// The store has lost what one tenant needs first, more than the budget: it is alarmed once, and others have their turn.
#[tokio::test]
async fn what_cannot_be_extended_is_in_nobodys_way() {
    let world = world().await;
    let poor = world.agent(world.app.tenant()).await;
    backup(&world, &poor, 9).await;
    world.execute("UPDATE catalog.packs SET version_id = 'gone'").await;
    world.advance(DAY);
    let other = world.agent(world.app.tenant()).await;
    let id = backup(&world, &other, 2).await;
    world.advance(361 * DAY);
    let before = locks(&world, &other, id).await;
    let standing = "SELECT count(*) FROM catalog.lock_alarms WHERE kind = 'missing'";
    for _ in 0..6 {
        steward::round(&world.catalog, 4).await.expect("run");
    }
    assert_eq!(world.count(standing).await, 10, "nine packs and the manifest");
    let after = locks(&world, &other, id).await;
    assert!(after.iter().all(|(pack, until)| *until > before[pack]), "the other's are longer");
    // Once they are there again, they have their turn too.
    let report = steward::round(&world.catalog, 4).await.expect("run");
    assert_eq!((report.extended, report.failed, report.left_over), (0, 1, true));
}

#[tokio::test]
async fn what_the_rule_lets_go_is_not_extended() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    for _ in 0..5 {
        backup(&world, &agent, 1).await;
        world.advance(DAY);
    }
    world.advance(500 * DAY);
    // Of five days with a backup each, the last three stay: a pack, a manifest and a receipt each.
    let report = steward::round(&world.catalog, 100).await.expect("run");
    assert_eq!(report, Report { extended: 9, failed: 0, left_over: false });
}

#[tokio::test]
async fn a_refused_extension_is_an_alarm_until_it_succeeds() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let id = backup(&world, &agent, 1).await;
    world.advance(360 * DAY);
    let powerless = world.without_steward().await;
    let before = locks(&world, &agent, id).await;
    let report = steward::round(&powerless, 100).await.expect("the run itself goes well");
    assert_eq!((report.extended, report.failed), (0, 3));
    assert_eq!(locks(&world, &agent, id).await, before);
    let standing =
        "SELECT count(*) FROM catalog.lock_alarms WHERE kind = 'refused' AND cleared_at IS NULL";
    let events =
        "SELECT count(*) FROM catalog.outbox WHERE payload->>'action' = 'lock.alarm_raised'";
    assert_eq!((world.count(standing).await, world.count(events).await), (3, 3));
    assert_eq!(powerless.lock_figures.raised(Trouble::Refused), 3);
    // It stands once, however often it is refused, and nothing recorded became longer.
    steward::round(&powerless, 100).await.expect("run");
    assert_eq!((world.count(standing).await, world.count(events).await), (3, 3));
    let snapshot: api::catalog::Snapshot = agent.get(&format!("snapshots/{id}")).await.expect("it");
    assert_eq!(snapshot.locked_until, *before.values().min().expect("some"));
    let seen: LockStanding = agent.get(&format!("snapshots/{id}/certificate")).await.expect("seen");
    assert_eq!(seen.violations.len(), 2, "pack and manifest");
    assert!(seen.violations.iter().all(|violation| violation.kind == "refused"));
    let report = steward::round(&world.catalog, 100).await.expect("run");
    assert_eq!((report.extended, report.failed), (3, 0));
    assert_eq!(world.count(standing).await, 0);
}

#[tokio::test]
async fn a_certificate_is_signed_once_every_object_was_found_locked_and_not_before() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let id = backup(&world, &agent, 4).await;
    let path = format!("snapshots/{id}/certificate");
    let fresh: LockStanding = agent.get(&path).await.expect("standing");
    assert_eq!((fresh.objects, fresh.checked, fresh.certificate), (5, 0, None));
    let (cx, permit) = {
        let admin = authz::Actor::User(authz::User {
            id: world.app.id(),
            home: agent.tenant,
            tenant: agent.tenant,
            kind: authz::TenantKind::Tenant,
            roles: vec![Role::TenantAdmin],
        });
        let resource = authz::Resource { tenant: agent.tenant };
        let permit = authz::Permit::decide(admin.clone(), resource).expect("admins may");
        (runtime::Cx { actor: admin, ..world.cx(&agent) }, permit)
    };
    let part = certificate::check(&world.catalog, &cx, &permit, id, 2).await.expect("two");
    assert_eq!((part.checked, part.certificate), (2, None));
    let part = certificate::check(&world.catalog, &cx, &permit, id, 2).await.expect("four");
    assert_eq!((part.checked, part.certificate), (4, None));
    let whole = certificate::check(&world.catalog, &cx, &permit, id, 2).await.expect("all");
    assert_eq!((whole.checked, whole.violations.len()), (5, 0));
    let bytes = BASE64.decode(whole.certificate.expect("signed")).expect("base64");
    let certificate = LockCertificate::open(&bytes, &world.catalog.receipt_public()).expect("ours");
    let stored = locks(&world, &agent, id).await;
    assert_eq!(certificate.locked_until, *stored.values().min().expect("some"));
    assert!(certificate.locked_until >= whole.protect_until);
    // Anybody can compute the hash from what the store lists.
    let listed = objects(&world, &agent, id).await.into_iter().map(|pack| LockedObject {
        key: pack.key,
        version_id: pack.version_id.expect("version"),
        locked_until: stored[&pack.id],
    });
    assert_eq!(certificate.objects_hash, objects_hash(listed.collect()));
    assert_eq!((certificate.snapshot, certificate.objects), (id, 5));
    // Yesterday's answers certify nothing today.
    world.advance(certificate::FRESH + DAY);
    let old: LockStanding = agent.get(&path).await.expect("standing");
    assert_eq!((old.checked, old.certificate), (0, None));
}

#[tokio::test]
async fn an_object_that_is_not_as_recorded_is_listed_and_nothing_is_signed() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let id = backup(&world, &agent, 3).await;
    // As if a database of another time said so: a longer lock, another checksum, another version.
    world
        .execute(
            "UPDATE catalog.packs SET lock_until = lock_until + interval '70 days' WHERE seq = 0;
             UPDATE catalog.packs SET sha256 = decode(repeat('00', 32), 'hex') WHERE seq = 1;
             UPDATE catalog.packs SET version_id = (SELECT version_id FROM catalog.packs WHERE seq = 0) WHERE seq = 2",
        )
        .await;
    let admin = world.app.user(agent.tenant, Role::TenantAdmin);
    let path = agent.path(&format!("snapshots/{id}/certificate"));
    let found: LockStanding =
        admin.call(http::Method::POST, &path, None::<&()>).await.expect("checked");
    let mut kinds: Vec<&str> = found.violations.iter().map(|v| v.kind.as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["altered", "missing", "short"]);
    assert_eq!((found.checked, found.certificate), (1, None));
    let events =
        "SELECT count(*) FROM catalog.outbox WHERE payload->>'action' = 'lock.alarm_raised'";
    assert_eq!(world.count(events).await, 3);
    // Mended: the next check takes the alarms back and signs.
    world
        .execute(
            "ALTER TABLE catalog.packs DISABLE TRIGGER packs_guard;
             UPDATE catalog.packs SET lock_until = lock_until - interval '70 days' WHERE seq = 0;
             ALTER TABLE catalog.packs ENABLE TRIGGER packs_guard;
             UPDATE catalog.packs SET sha256 = decode(split_part(split_part(object_key, '/', 5), '-', 1), 'hex') WHERE seq = 1",
        )
        .await;
    let found: LockStanding =
        admin.call(http::Method::POST, &path, None::<&()>).await.expect("checked");
    assert_eq!((found.checked, found.violations.len()), (3, 1));
}

#[tokio::test]
async fn agents_read_a_certificate_and_do_not_make_the_store_work() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let id = backup(&world, &agent, 1).await;
    let path = format!("snapshots/{id}/certificate");
    let refused =
        agent.client.call::<(), LockStanding>(http::Method::POST, &agent.path(&path), None).await;
    assert_eq!(code_of(&refused), Some(Code::Forbidden));
    agent.get::<LockStanding>(&path).await.expect("reads");
    let stranger = world.agent(world.app.tenant()).await;
    assert_eq!(code_of(&stranger.get::<LockStanding>(&path).await), Some(Code::NotFound));
}

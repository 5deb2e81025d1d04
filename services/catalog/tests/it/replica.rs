//! The second copy: order, kills, wrong bytes, locks, deletion and repair, against two real stores.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::pin,
    task::Poll,
};

use api::{
    Code,
    catalog::{
        PackFacts, PackKind, RequestRestoreGrants, RestoreGrants, SnapshotPacks, VaultReplica,
    },
};
use bytes::Bytes;
use catalog::{
    collection::{CollectError, GRACE, begin_delete, condemn, finish_delete},
    packs::store::{SeenLock, set_locks},
    replica::{
        self,
        copy::{self, Turn},
        keep, repair,
    },
    scrub::{self, Where},
};
use domain::{PackId, SnapshotId, Timestamp};
use pg::{OperationalReason, TenantTx};
use vault::{
    layout,
    scrub::Sample,
    store::{Deletion, ListedVersion, S3Store, probe::Outcome},
};

use crate::support::{Agent, DAY, World, world};

async fn set(world: &World, agent: &Agent, lock_days: u16) -> VaultReplica {
    configure(world, agent, "second", lock_days).await.expect("a second copy")
}

async fn configure(
    world: &World,
    agent: &Agent,
    name: &str,
    lock_days: u16,
) -> Result<VaultReplica, catalog::error::Error> {
    let mut evidence = replica::look_at(&world.catalog, name).await?;
    // Answers are dated by the machine's clock, and this world has another.
    let skew = evidence.cases.iter_mut().find(|case| case.name == "clock_skew");
    skew.expect("a case").outcome = Outcome::Pass;
    let (app, vault) = (&world.catalog, agent.vault);
    replica::configure(app, agent.tenant, vault, name, lock_days, &evidence).await
}

async fn turn(world: &World, agent: &Agent, budget: usize) -> Turn {
    copy::turn(&world.catalog, agent.tenant, agent.vault, budget).await.expect("a turn")
}

async fn status(agent: &Agent) -> VaultReplica {
    agent.get(&format!("vaults/{}/replica", agent.vault)).await.expect("status")
}

async fn backup(world: &World, agent: &Agent, packs: u64) -> SnapshotId {
    let id = world.backup(agent, &mut Vec::new(), packs, &[]).await.snapshot.id;
    while catalog::snapshots::receipts::round(&world.catalog).await.expect("receipts") {}
    id
}

async fn needs(agent: &Agent, id: SnapshotId) -> Vec<PackFacts> {
    let page: SnapshotPacks =
        agent.get(&format!("snapshots/{id}/packs?limit=1000")).await.expect("packs");
    page.items
}

async fn versions(store: &S3Store, agent: &Agent) -> Vec<ListedVersion> {
    let prefix = layout::vault_prefix(agent.tenant, agent.vault);
    let page = store.list_versions(&prefix, None).await.expect("list");
    assert!(page.next.is_none());
    page.versions
}

/// What must hold at the second store whenever copying stops: a manifest implies its packs, a receipt all of it. The
/// snapshots in order of their chain.
async fn check_order(world: &World, agent: &Agent, snapshots: &[SnapshotId]) {
    let there: BTreeSet<String> =
        versions(&world.second, agent).await.into_iter().map(|version| version.key).collect();
    let mut parents = BTreeSet::new();
    for id in snapshots {
        let packs = needs(agent, *id).await;
        let missing: Vec<_> = packs.iter().filter(|pack| !there.contains(&pack.key)).collect();
        let receipt = layout::receipt_key(agent.tenant, agent.vault, *id);
        assert!(!there.contains(&receipt) || missing.is_empty(), "a receipt before {missing:?}");
        // The manifest of its own is the one those before it do not have.
        for pack in packs.iter().filter(|pack| pack.kind == PackKind::Manifest) {
            let is_own = parents.insert(pack.id);
            let may_be = !is_own || !there.contains(&pack.key) || missing.is_empty();
            assert!(may_be, "a manifest before {missing:?}");
        }
    }
}

/// What the last turn wrote down, and the figures are made from, is what is counted now.
async fn check_figures(world: &World, agent: &Agent) {
    let mut connection = world.app.database().superuser().await.expect("superuser");
    let (bytes, oldest): (i64, Option<time::OffsetDateTime>) = sqlx::query_as(
        "SELECT bytes_behind, oldest_uncopied_at FROM catalog.replicas WHERE vault_id = $1",
    )
    .bind(agent.vault.uuid())
    .fetch_one(&mut connection)
    .await
    .expect("a replica");
    let now = status(agent).await;
    assert_eq!(bytes.unsigned_abs(), now.bytes_behind);
    assert_eq!(oldest.map(Timestamp::from), now.oldest_uncopied_at);
}

/// Polls a future so many times and then drops it, as a kill at that point would.
async fn killed_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let (mut future, mut left) = (pin!(future), polls);
    std::future::poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

#[tokio::test]
async fn everything_snapshots_need_gets_there_once_and_is_granted() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    let mut snapshots = Vec::new();
    for count in [5, 2, 0] {
        snapshots.push(world.backup(&agent, &mut chain, count, &[]).await.snapshot.id);
        world.advance(DAY / 24);
    }
    let missing = agent.get::<VaultReplica>(&format!("vaults/{}/replica", agent.vault)).await;
    assert_eq!(crate::support::code_of(&missing), Some(Code::NotFound));
    let begun = set(&world, &agent, 30).await;
    assert_eq!((begun.packs_copied, begun.packs_behind, begun.snapshots_behind), (0, 10, 3));
    let done = turn(&world, &agent, 1_000).await;
    // Seven packs, three manifests, three receipts.
    assert_eq!(done, Turn { copied: 13, failed: 0, left_over: false });
    assert_eq!(turn(&world, &agent, 1_000).await, Turn::default(), "twice is once");
    let now = status(&agent).await;
    assert_eq!((now.packs_copied, now.packs_behind, now.snapshots_behind), (10, 0, 0));
    assert_eq!((now.oldest_uncopied_at, now.trouble), (None, None));
    let mut keys = BTreeSet::new();
    for version in versions(&world.second, &agent).await {
        assert!(keys.insert(version.key.clone()), "one version of each");
        let first = world.store.head(&version.key, None).await.expect("head");
        let facts = world.second.head(&version.key, Some(&version.version_id)).await.expect("head");
        let facts = facts.expect("there");
        if let Some(first) = first {
            assert!(facts.lock_until >= first.lock_until, "locked as long as the first at least");
            assert_eq!(facts.sha256, first.sha256);
        }
        assert!(facts.lock_until >= Some(world.now() + 29 * DAY), "and for the copy's own term");
    }
    assert_eq!(keys.len(), 13);
    // Key objects too: a copy that nobody can open is none.
    let prefix = format!("{}/", layout::vault_prefix(agent.tenant, agent.vault));
    let mut first = world.store.list_key_objects(&prefix).await.expect("keys");
    let mut second = world.second.list_key_objects(&prefix).await.expect("keys");
    first.sort();
    second.sort();
    assert_eq!((first.len(), &first), (4, &second));
    // And an agent that asks for the first is told where the second is.
    let id = snapshots[1];
    let pack = needs(&agent, id).await.into_iter().find(|p| p.kind == PackKind::Data).expect("one");
    let body = RequestRestoreGrants { packs: vec![pack.id], completes: None };
    let path = format!("snapshots/{id}/restore-grants");
    let grants: RestoreGrants = agent.post(&path, &body).await.expect("grants");
    assert!(grants.manifests.iter().all(|grant| grant.second.is_some()));
    let get = grants.packs[0].second.as_ref().expect("granted");
    let bytes = reqwest::get(&get.url).await.expect("answer").bytes().await.expect("bytes");
    assert_eq!(vault::id::Sha256::of(&bytes).to_string(), pack.sha256);
    assert!(get.url.contains(world.second_config.endpoint.as_ref().expect("url").as_str()));
}

#[tokio::test]
async fn copying_that_is_killed_anywhere_keeps_the_order_and_goes_on() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    let mut snapshots = Vec::new();
    for _ in 0..4 {
        snapshots.push(world.backup(&agent, &mut chain, 3, &[]).await.snapshot.id);
    }
    set(&world, &agent, 30).await;
    let (mut kills, mut polls) = (0, 1);
    loop {
        let going = copy::turn(&world.catalog, agent.tenant, agent.vault, 1_000);
        let ended = killed_after(polls, going).await;
        check_order(&world, &agent, &snapshots).await;
        if ended.is_some_and(|turn| turn.expect("a turn") == Turn::default())
            && status(&agent).await.snapshots_behind == 0
        {
            break;
        }
        kills += 1;
        polls += 2;
        // Whoever was killed keeps the lease until it runs out.
        world.advance(copy::LEASE);
    }
    assert!(kills > 10, "only {kills} kills");
    let mut by_key: BTreeMap<String, usize> = BTreeMap::new();
    for version in versions(&world.second, &agent).await {
        *by_key.entry(version.key).or_default() += 1;
    }
    // Twelve packs, four manifests, four receipts: what was put and not recorded was found again.
    assert_eq!(by_key.len(), 20);
    assert!(by_key.values().all(|count| *count == 1), "{by_key:?}");
}

#[tokio::test]
async fn a_turn_that_uses_up_its_budget_leaves_the_rest_in_order() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    let mut snapshots = Vec::new();
    for _ in 0..3 {
        snapshots.push(world.backup(&agent, &mut chain, 3, &[]).await.snapshot.id);
    }
    set(&world, &agent, 30).await;
    let mut turns = 0;
    while status(&agent).await.snapshots_behind > 0 {
        turn(&world, &agent, 1).await;
        check_order(&world, &agent, &snapshots).await;
        check_figures(&world, &agent).await;
        turns += 1;
        assert!(turns < 50, "it goes on");
    }
    assert!(turns > 5);
}

#[tokio::test]
async fn several_services_at_once_do_it_once() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    backup(&world, &agent, 8).await;
    set(&world, &agent, 30).await;
    let turns = (0..6).map(|_| copy::turn(&world.catalog, agent.tenant, agent.vault, 1_000));
    let turns = futures::future::join_all(turns).await;
    let copied: usize = turns.into_iter().map(|turn| turn.expect("a turn").copied).sum();
    assert_eq!(copied, 10);
    assert_eq!(versions(&world.second, &agent).await.len(), 10);
}

#[tokio::test]
async fn bytes_that_are_not_what_their_name_says_are_not_copied() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let spoiled = backup(&world, &agent, 3).await;
    let packs = needs(&agent, spoiled).await;
    let pack = packs.iter().find(|pack| pack.kind == PackKind::Data).expect("a pack");
    let version = pack.version_id.as_deref().expect("version");
    let bytes = world.store.get(&pack.key, version).await.expect("bytes");
    let sound = world.agent(world.app.tenant()).await;
    let other = backup(&world, &sound, 2).await;
    world.spoil("store", &bytes);
    set(&world, &agent, 30).await;
    set(&world, &sound, 30).await;
    let done = turn(&world, &agent, 1_000).await;
    assert_eq!(done, Turn { copied: 2, failed: 1, left_over: false });
    let there = versions(&world.second, &agent).await;
    assert!(there.iter().all(|version| version.key != pack.key), "nothing of it");
    let kinds: Vec<bool> = there.iter().map(|version| version.key.contains("/manifest/")).collect();
    assert_eq!(kinds, [false, false], "and no manifest that would promise it");
    let told = status(&agent).await;
    assert!(told.trouble.expect("told").contains(&pack.key));
    assert_eq!((told.snapshots_behind, told.packs_behind), (1, 2));
    check_figures(&world, &agent).await;
    // Others do not wait for it.
    assert_eq!(turn(&world, &sound, 1_000).await.copied, 4);
    check_order(&world, &sound, &[other]).await;
    assert_eq!(status(&sound).await.snapshots_behind, 0);
}

#[tokio::test]
async fn what_is_there_under_the_name_and_wrong_gets_a_newer_version() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let id = backup(&world, &agent, 1).await;
    let pack = needs(&agent, id).await.into_iter().find(|p| p.kind == PackKind::Data).expect("one");
    let until = world.now() + 9 * DAY;
    let planted = Bytes::from(vec![7; 512]);
    world.second.put_locked(&pack.key, planted, until).await.expect("planted");
    set(&world, &agent, 30).await;
    assert_eq!(turn(&world, &agent, 1_000).await.copied, 3);
    let there = versions(&world.second, &agent).await;
    let of_it: Vec<_> = there.iter().filter(|version| version.key == pack.key).collect();
    assert_eq!(of_it.len(), 2);
    let report = scrub(&world, &agent, Where::Second).await;
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test]
async fn what_is_there_under_the_name_and_locked_too_short_gets_its_lock() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let id = backup(&world, &agent, 1).await;
    let pack = needs(&agent, id).await.into_iter().find(|p| p.kind == PackKind::Data).expect("one");
    let version = pack.version_id.as_deref().expect("version");
    let bytes = world.store.get(&pack.key, version).await.expect("bytes");
    world.second.put_locked(&pack.key, bytes, world.now() + DAY).await.expect("planted");
    set(&world, &agent, 30).await;
    assert_eq!(turn(&world, &agent, 1_000).await.copied, 3);
    assert_eq!(versions(&world.second, &agent).await.len(), 3, "one version of each");
    assert!(locks(&world, &agent).await.into_iter().all(|until| until > world.now() + 29 * DAY));
}

#[tokio::test]
async fn a_place_without_object_lock_or_the_vaults_own_is_refused() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let refused = async |name: &str, days: u16| match configure(&world, &agent, name, days)
        .await
        .expect_err("refused")
    {
        catalog::error::Error::Refused(problem) => format!("{problem} {:?}", problem.fields),
        other => panic!("{other}"),
    };
    let said = refused("unlocked", 30).await;
    assert!(said.contains("Object Lock") && said.contains("store probe"), "{said}");
    assert!(refused("nowhere", 30).await.contains("copies.nowhere"));
    assert!(refused("second", 0).await.contains("lock_days"));
    set(&world, &agent, 30).await;
    assert_eq!(set(&world, &agent, 60).await.lock_days, 60);
}

async fn locks(world: &World, agent: &Agent) -> Vec<Timestamp> {
    let mut locks = Vec::new();
    for version in versions(&world.second, agent).await {
        let facts = world.second.head(&version.key, Some(&version.version_id)).await.expect("head");
        locks.push(facts.expect("there").lock_until.expect("locked"));
    }
    locks
}

#[tokio::test]
async fn locks_follow_the_plan_even_when_the_first_store_is_lost() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let id = backup(&world, &agent, 2).await;
    set(&world, &agent, 7).await;
    turn(&world, &agent, 1_000).await;
    world.hold(&agent, id).await;
    // Nobody extends anything at the first store, whose locks come to their end on the way: the plan alone keeps these.
    world.advance(340 * DAY);
    for _ in 0..12 {
        world.advance(35 * DAY / 2);
        keep::round(&world.catalog).await.expect("round");
        let again = keep::keep(&world.catalog, agent.tenant, agent.vault).await.expect("again");
        assert_eq!(again.extended, 0, "twice is once");
        assert!(locks(&world, &agent).await.into_iter().all(|until| until > world.now()));
    }
    for version in versions(&world.store, &agent).await {
        let facts = world.store.head(&version.key, Some(&version.version_id)).await.expect("head");
        assert!(facts.expect("there").lock_until < Some(world.now()), "not what kept the copy");
    }
    // And where the first store is kept, the second is never shorter.
    world.advance(200 * DAY);
    catalog::steward::round(&world.catalog, 100).await.expect("first");
    keep::round(&world.catalog).await.expect("round");
    let shorter =
        "SELECT count(*) FROM catalog.replica_objects o JOIN catalog.packs p ON p.id = o.pack_id
                   WHERE o.lock_until < p.lock_until";
    assert_eq!(world.count(shorter).await, 0);
    assert!(locks(&world, &agent).await.into_iter().all(|until| until > world.now() + 20 * DAY));
    assert_eq!(world.count("SELECT count(*) FROM catalog.lock_alarms").await, 0);
}

#[tokio::test]
async fn what_the_rule_lets_go_is_not_extended_at_the_second_store() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    for _ in 0..5 {
        backup(&world, &agent, 1).await;
        world.advance(DAY);
    }
    set(&world, &agent, 7).await;
    assert_eq!(turn(&world, &agent, 1_000).await.copied, 15);
    world.advance(500 * DAY);
    // Of five days with a backup each, the last three stay: a pack, a manifest and a receipt each.
    let kept = keep::keep(&world.catalog, agent.tenant, agent.vault).await.expect("kept");
    assert_eq!((kept.extended, kept.failed, kept.left_over), (9, 0, false));
    let ahead = locks(&world, &agent).await.into_iter().filter(|until| *until > world.now());
    assert_eq!(ahead.count(), 9);
}

#[tokio::test]
async fn a_refusal_of_the_second_store_is_an_alarm_of_its_own_until_it_succeeds() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    backup(&world, &agent, 1).await;
    set(&world, &agent, 7).await;
    turn(&world, &agent, 1_000).await;
    world.advance(360 * DAY);
    let powerless = world.without_steward().await;
    let before = locks(&world, &agent).await;
    let standing =
        "SELECT count(*) FROM catalog.lock_alarms WHERE kind = 'refused' AND cleared_at IS NULL
                      AND object_key LIKE 'second/%'";
    for _ in 0..2 {
        let kept =
            keep::keep(&powerless, agent.tenant, agent.vault).await.expect("itself goes well");
        assert_eq!((kept.extended, kept.failed, kept.left_over), (0, 3, false));
        assert_eq!((world.count(standing).await, locks(&world, &agent).await), (3, before.clone()));
    }
    // What is done at the first store ends no alarm about the second.
    assert_eq!(catalog::steward::round(&world.catalog, 100).await.expect("first").extended, 3);
    assert_eq!(world.count(standing).await, 3);
    let kept = keep::keep(&world.catalog, agent.tenant, agent.vault).await.expect("kept");
    assert_eq!((kept.extended, kept.failed), (3, 0));
    assert_eq!(
        world.count("SELECT count(*) FROM catalog.lock_alarms WHERE cleared_at IS NULL").await,
        0
    );
}

#[tokio::test]
async fn a_freeze_between_two_deletions_stops_the_second() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let first = world.backup(&agent, &mut Vec::new(), 2, &[]).await.snapshot.id;
    backup(&world, &agent, 1).await;
    set(&world, &agent, 1).await;
    assert_eq!(turn(&world, &agent, 1_000).await.copied, 7);
    world.advance(400 * DAY);
    world.let_go(&agent, first).await;
    condemn(&world.catalog, agent.scope(), agent.vault).await.expect("condemned");
    world.advance(GRACE + DAY);
    let scope = agent.scope();
    for warrant in begin_delete(&world.catalog, scope, agent.vault).await.expect("warrants") {
        finish_delete(&world.catalog, scope, &warrant).await.expect("deleted");
    }
    let before = versions(&world.second, &agent).await.len();
    // With the very statement that says of the first that it is gone: later might be after the second was asked for.
    world.execute(FREEZE_WITH_THE_FIRST).await;
    world
        .execute(
            "CREATE TRIGGER stop_here AFTER UPDATE OF deleted_at ON catalog.replica_objects
             FOR EACH STATEMENT EXECUTE FUNCTION public.stop_here()",
        )
        .await;
    let refused = keep::reap(&world.catalog, scope, agent.vault).await;
    assert!(matches!(refused, Err(CollectError::Frozen)), "{refused:?}");
    world.execute("DROP TRIGGER stop_here ON catalog.replica_objects").await;
    assert_eq!(versions(&world.second, &agent).await.len(), before - 1, "one went before it");
    world.execute("UPDATE catalog.guard_freezes SET lifted_at = now()").await;
    let gone = keep::reap(&world.catalog, scope, agent.vault).await.expect("goes on");
    assert_eq!((gone.len(), versions(&world.second, &agent).await.len()), (2, before - 3));
}

const FREEZE_WITH_THE_FIRST: &str =
    "CREATE FUNCTION public.stop_here() RETURNS trigger LANGUAGE plpgsql
     SECURITY DEFINER AS $$ BEGIN
         INSERT INTO catalog.guard_freezes (tenant_id, id, reason, evidence, frozen_at)
             SELECT tenant_id, id, 'unknown_receipt', 'x', now() FROM catalog.vaults;
         RETURN NULL;
     END $$";

#[tokio::test]
async fn the_second_copy_of_a_pack_goes_after_the_first_and_after_its_own_lock() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    let first = world.backup(&agent, &mut chain, 2, &[]).await.snapshot.id;
    let kept = backup(&world, &agent, 1).await;
    set(&world, &agent, 900).await;
    assert_eq!(turn(&world, &agent, 1_000).await.copied, 7);
    world.advance(400 * DAY);
    world.let_go(&agent, first).await;
    let condemned = condemn(&world.catalog, agent.scope(), agent.vault).await.expect("condemned");
    assert_eq!(condemned.len(), 3);
    world.advance(GRACE + DAY);
    let reap = async || keep::reap(&world.catalog, agent.scope(), agent.vault).await.expect("reap");
    assert!(reap().await.is_empty(), "the first store still has them");
    let warrants =
        begin_delete(&world.catalog, agent.scope(), agent.vault).await.expect("warrants");
    for warrant in &warrants {
        let gone = finish_delete(&world.catalog, agent.scope(), warrant).await.expect("deleted");
        assert_eq!(gone, Deletion::Deleted);
    }
    assert_eq!(warrants.len(), 3);
    assert!(reap().await.is_empty(), "their own lock lasts");
    let before = versions(&world.second, &agent).await.len();
    world.advance(500 * DAY);
    let gone = reap().await;
    let ids: BTreeSet<PackId> = gone.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, condemned.into_iter().collect());
    assert!(gone.iter().all(|(_, outcome)| *outcome == Deletion::Deleted));
    assert_eq!(versions(&world.second, &agent).await.len(), before - 3);
    assert!(reap().await.is_empty());
    check_order(&world, &agent, &[kept]).await;
    // What is gone there is not granted, and not copied again.
    assert_eq!(turn(&world, &agent, 1_000).await.failed, 0);
}

async fn scrub(world: &World, agent: &Agent, at: Where) -> scrub::Report {
    let report = scrub::scrub_at(&world.catalog, agent.tenant, agent.vault, at, Sample::Full, 1);
    report.await.expect("scrub")
}

#[tokio::test]
async fn either_copy_is_repaired_from_the_other_and_backups_go_on() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    let id = world.backup(&agent, &mut chain, 4, &[]).await.snapshot.id;
    set(&world, &agent, 30).await;
    turn(&world, &agent, 1_000).await;
    let packs = needs(&agent, id).await;
    for (folder, store, at, number) in
        [("store", &world.store, Where::First, 0), ("second", &world.second, Where::Second, 1)]
    {
        let pack = &packs[number];
        let newest = store.head(&pack.key, None).await.expect("head").expect("there").version_id;
        let bytes = store.get(&pack.key, &newest).await.expect("bytes");
        world.spoil(folder, &bytes);
        let report = scrub(&world, &agent, at).await;
        assert_eq!(report.findings.len(), 1);
        assert_eq!(report.findings[0].pack_id, pack.id);
        let done =
            repair::repair(&world.catalog, agent.tenant, agent.vault, at, &report.findings).await;
        let done = done.expect("repair");
        let version = done[0].version_id.clone().expect("repaired");
        assert_ne!(version, newest, "a new version; the damaged one is left to its lock");
        let facts = store.head(&pack.key, Some(&version)).await.expect("head").expect("there");
        assert!(facts.lock_until >= pack.lock_until, "locked as long as the damaged one was");
        assert!(scrub(&world, &agent, at).await.is_clean());
    }
    // Manifests name the version before the repair; the next backup may build on them.
    let next = world.backup(&agent, &mut chain, 1, &[]).await.snapshot;
    assert!(next.locked_until >= next.protect_until);
}

/// A lock that grows while a repair is on its way: what was promised of the version before is not believed of the new one.
#[tokio::test]
async fn a_repair_does_not_inherit_a_lock_its_version_does_not_have() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let id = backup(&world, &agent, 2).await;
    set(&world, &agent, 30).await;
    turn(&world, &agent, 1_000).await;
    for (folder, store, at, number, (table, column)) in [
        ("store", &world.store, Where::First, 0, ("packs", "id")),
        ("second", &world.second, Where::Second, 1, ("replica_objects", "pack_id")),
    ] {
        let pack = &needs(&agent, id).await[number];
        let before = store.head(&pack.key, None).await.expect("head").expect("there");
        world.spoil(folder, &store.get(&pack.key, &before.version_id).await.expect("bytes"));
        let findings = scrub(&world, &agent, at).await.findings;
        // Somebody extends the damaged version, to the end of his transaction.
        let mut other = world.app.database().superuser().await.expect("superuser");
        let sql = format!(
            "BEGIN; UPDATE catalog.{table} SET lock_until = lock_until + interval '1 year' WHERE {column} = '{}'",
            pack.id.uuid()
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut other).await.expect("extended");
        let catalog = world.catalog.clone();
        let (tenant, vault, found) = (agent.tenant, agent.vault, findings.clone());
        let first = tokio::spawn(async move {
            repair::repair(&catalog, tenant, vault, at, &found).await.expect("repair")
        });
        // Until it has written the new version and waits for the row.
        while store.head(&pack.key, None).await.expect("head").expect("there").version_id
            == before.version_id
        {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        sqlx::raw_sql("COMMIT").execute(&mut other).await.expect("commit");
        let done = first.await.expect("no panic");
        assert_eq!(done[0].version_id, None, "{done:?}");
        // Once more, with what is recorded now: the new version is locked as long.
        let done = repair::repair(&world.catalog, agent.tenant, agent.vault, at, &findings).await;
        let done = done.expect("repair");
        let version = done[0].version_id.as_deref().expect("repaired");
        let facts = store.head(&pack.key, Some(version)).await.expect("head").expect("there");
        let year = std::time::Duration::from_secs(365 * 86_400);
        assert!(facts.lock_until.expect("locked") >= before.lock_until.expect("locked") + year);
    }
}

/// What a store said of one version is not written down for another.
#[tokio::test]
async fn a_lock_is_recorded_for_the_version_it_was_seen_of() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let id = backup(&world, &agent, 1).await;
    let pack = needs(&agent, id).await.remove(0);
    let year = std::time::Duration::from_secs(365 * 86_400);
    let until = pack.lock_until.expect("locked") + year;
    for (version, taken) in [("another", false), (pack.version_id.as_deref().expect("one"), true)] {
        let seen = SeenLock { pack: pack.id, version: version.to_owned(), until };
        let mut tx = TenantTx::begin(&world.catalog.db, agent.scope()).await.expect("tx");
        set_locks(&mut tx, &[seen]).await.expect("recorded");
        tx.commit_operational(OperationalReason::PackBookkeeping).await.expect("commit");
        let now = needs(&agent, id).await.into_iter().find(|row| row.id == pack.id);
        assert_eq!(now.expect("there").lock_until == Some(until), taken, "{version}");
    }
}

#[tokio::test]
async fn a_pack_both_stores_spoiled_is_left_alone() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let id = backup(&world, &agent, 1).await;
    set(&world, &agent, 30).await;
    turn(&world, &agent, 1_000).await;
    let pack = needs(&agent, id).await.into_iter().find(|p| p.kind == PackKind::Data).expect("one");
    let version = pack.version_id.as_deref().expect("version");
    let bytes = world.store.get(&pack.key, version).await.expect("bytes");
    world.spoil("store", &bytes);
    world.spoil("second", &bytes);
    let report = scrub(&world, &agent, Where::First).await;
    let done =
        repair::repair(&world.catalog, agent.tenant, agent.vault, Where::First, &report.findings);
    let done = done.await.expect("repair");
    assert_eq!((done.len(), &done[0].version_id), (1, &None));
    assert!(done[0].why_not.as_deref().expect("told").contains("no better"));
    let all = versions(&world.store, &agent).await;
    assert_eq!(all.iter().filter(|v| v.key == pack.key).count(), 1, "nothing was written");
}

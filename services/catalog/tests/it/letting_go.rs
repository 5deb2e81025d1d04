//! How snapshots go, by time travel: by plan, softly, with an undo, then for good; and what stands in the way.

use api::{
    catalog::{ReadGrant, RequestRestoreGrants, RestoreGrants, RetainedPack, SessionHeartbeat},
    page::Page,
};
use catalog::collection::{
    self, CollectError, GRACE, UNFINISHED_AFTER, begin_delete, condemn, finish_delete,
    letting_go::{self, UNDO},
};
use domain::SnapshotId;
use vault::{layout, manifest::SignedManifest, receipt::ForgetRecord, store::Deletion};

use crate::support::{Agent, DAY, World, world};

/// One backup a day, each with a pack of its own that the next one drops.
pub async fn dailies(world: &World, agent: &Agent, count: usize) -> Vec<SnapshotId> {
    let mut chain: Vec<SignedManifest> = Vec::new();
    let mut made = Vec::new();
    let mut before = Vec::new();
    for _ in 0..count {
        let session = world.open(agent).await;
        let packs = world.upload_some(agent, &session, 0..1).await;
        let manifest = world.manifest(agent, &session, &mut chain, &packs, &before).await;
        let reply = agent.commit(&session, manifest.id()).await.expect("commit");
        before = packs.iter().map(crate::support::Made::id).collect();
        made.push(reply.snapshot.id);
        world.advance(DAY);
    }
    made
}

fn actor(agent: &Agent) -> authz::Actor {
    agent.actor()
}

pub async fn state(world: &World, id: SnapshotId) -> String {
    let mut connection = world.app.database().superuser().await.expect("superuser");
    sqlx::query_scalar("SELECT state FROM catalog.snapshots WHERE id = $1")
        .bind(id.uuid())
        .fetch_one(&mut connection)
        .await
        .expect("state")
}

#[tokio::test]
async fn what_the_plan_gives_up_goes_softly_then_for_good_and_leaves_a_signed_record() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let all = dailies(&world, &agent, 6).await;
    world.advance(500 * DAY);
    let scope = agent.scope();
    let expired = letting_go::expire(&world.catalog, scope, agent.workload).await.expect("plan");
    assert_eq!(expired, all[..3], "the first of each of the last three good days stay");
    assert!(
        letting_go::expire(&world.catalog, scope, agent.workload).await.expect("again").is_empty()
    );
    // Soft: nothing that an expired snapshot needs is condemned.
    assert!(condemn(&world.catalog, scope, agent.vault).await.expect("none").is_empty());
    world.advance(UNDO - DAY);
    assert!(
        letting_go::forget(&world.catalog, scope, agent.workload).await.expect("early").is_empty()
    );
    let by = actor(&agent);
    assert!(letting_go::undo_expire(&world.catalog, scope, &by, all[1]).await.expect("undone"));
    assert!(!letting_go::undo_expire(&world.catalog, scope, &by, all[1]).await.expect("once"));
    // The plan leaves it alone for a while.
    assert!(
        letting_go::expire(&world.catalog, scope, agent.workload).await.expect("left").is_empty()
    );
    world.advance(DAY);
    let gone = letting_go::forget(&world.catalog, scope, agent.workload).await.expect("for good");
    assert_eq!(gone, [all[0], all[2]]);
    assert!(!letting_go::undo_expire(&world.catalog, scope, &by, all[0]).await.expect("too late"));
    // Until the record is in the bucket the packs are needed.
    assert!(condemn(&world.catalog, scope, agent.vault).await.expect("none").is_empty());
    assert!(letting_go::write_round(&world.catalog).await.expect("written"));
    let key = layout::forget_key(agent.tenant, agent.vault, all[0]);
    let facts = world.store.head(&key, None).await.expect("head").expect("there");
    assert!(facts.lock_until.expect("locked") > world.now() + 59 * DAY);
    let bytes = world.store.get(&key, &facts.version_id).await.expect("record");
    let record = ForgetRecord::open(&bytes, &world.catalog.receipt_public()).expect("signed");
    assert_eq!((record.snapshot, record.forgotten_at), (all[0], world.now()));
    // Now exactly their own data packs are free: the second one's and the manifests of later chains are needed.
    let condemned = condemn(&world.catalog, scope, agent.vault).await.expect("condemned");
    assert_eq!(condemned.len(), 2);
    assert_eq!(state(&world, all[0]).await, "forgotten");
    // What was undone goes when its time is over.
    world.advance(UNDO);
    assert_eq!(
        letting_go::expire(&world.catalog, scope, agent.workload).await.expect("plan"),
        [all[1]]
    );
}

#[tokio::test]
async fn one_round_settles_every_tenant_and_a_frozen_one_is_left_alone() {
    let world = world().await;
    let one = world.agent(world.app.tenant()).await;
    let first = dailies(&world, &one, 4).await;
    let other = world.agent(world.app.tenant()).await;
    let second = dailies(&world, &other, 4).await;
    world.advance(500 * DAY);
    world
        .execute(
            "INSERT INTO catalog.guard_freezes (tenant_id, id, reason, evidence, frozen_at)
             SELECT tenant_id, id, 'unknown_receipt', 'x', now() FROM catalog.vaults ORDER BY created_at LIMIT 1",
        )
        .await;
    letting_go::round(&world.catalog).await.expect("round");
    assert_eq!(state(&world, first[0]).await, "committed", "its tenant is frozen");
    assert_eq!(state(&world, second[0]).await, "expired");
}

#[tokio::test]
async fn a_hold_and_a_reader_keep_what_the_rule_gives_up() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let all = dailies(&world, &agent, 6).await;
    world.advance(500 * DAY);
    let scope = agent.scope();
    let hold = world.hold(&agent, all[0]).await;
    let body = RequestRestoreGrants { packs: vec![], completes: None };
    let grants: RestoreGrants =
        agent.post(&format!("snapshots/{}/restore-grants", all[1]), &body).await.expect("grants");
    let _: Vec<ReadGrant> = grants.manifests;
    let expired = letting_go::expire(&world.catalog, scope, agent.workload).await.expect("plan");
    assert_eq!(expired, [all[2]]);
    // Straight at the row, too: the plan is not the only guard.
    assert!(!world.soft_expire(&agent, all[0]).await && !world.soft_expire(&agent, all[1]).await);
    // Holding one that is softly expired brings it back.
    world.hold(&agent, all[2]).await;
    assert_eq!(state(&world, all[2]).await, "committed");
    world.advance(2 * DAY);
    assert_eq!(
        letting_go::expire(&world.catalog, scope, agent.workload).await.expect("plan"),
        [all[1]]
    );
    world.release(&agent, hold).await;
    assert_eq!(
        letting_go::expire(&world.catalog, scope, agent.workload).await.expect("plan"),
        [all[0]]
    );
}

#[tokio::test]
async fn an_expired_snapshot_comes_back_when_the_newer_ones_are_damaged() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let all = dailies(&world, &agent, 4).await;
    world.advance(500 * DAY);
    let scope = agent.scope();
    let expired = letting_go::expire(&world.catalog, scope, agent.workload).await.expect("plan");
    assert_eq!(expired, [all[0]]);
    let newest: api::catalog::SnapshotPacks =
        agent.get(&format!("snapshots/{}/packs", all[3])).await.expect("packs");
    let data = newest.items.iter().find(|pack| pack.kind == api::catalog::PackKind::Data);
    let lost = [(data.expect("data").id, None)];
    collection::declare_lost(&world.catalog, scope, agent.vault, &lost).await.expect("lost");
    world.advance(UNDO);
    assert!(
        letting_go::forget(&world.catalog, scope, agent.workload).await.expect("none").is_empty()
    );
    assert_eq!(state(&world, all[0]).await, "committed");
}

#[tokio::test]
async fn a_condemned_pack_that_a_session_adopts_waits_for_that_session() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let first = world.open(&agent).await;
    let made = world.upload_some(&agent, &first, 0..1).await;
    let abort = SessionHeartbeat { fence: first.fence };
    agent.post::<()>(&format!("sessions/{}/abort", first.id), &abort).await.expect("aborted");
    let scope = agent.scope();
    assert_eq!(condemn(&world.catalog, scope, agent.vault).await.expect("one").len(), 1);
    world.advance(6 * DAY);
    let second = world.open(&agent).await;
    assert_eq!(agent.adopted(&second).await.len(), 1, "what was uploaded is not uploaded again");
    world.advance(20 * DAY);
    assert!(begin_delete(&world.catalog, scope, agent.vault).await.expect("held").is_empty());
    let manifest = world.manifest(&agent, &second, &mut Vec::new(), &made, &[]).await;
    agent.commit(&second, manifest.id()).await.expect("adopted packs commit");
}

#[tokio::test]
async fn a_deletion_that_stopped_half_way_is_taken_up_again_and_a_freeze_stops_it() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let made = world.upload_some(&agent, &session, 0..1).await;
    let abort = SessionHeartbeat { fence: session.fence };
    agent.post::<()>(&format!("sessions/{}/abort", session.id), &abort).await.expect("aborted");
    let scope = agent.scope();
    condemn(&world.catalog, scope, agent.vault).await.expect("condemned");
    world.advance(GRACE + 15 * DAY);
    let lost = begin_delete(&world.catalog, scope, agent.vault).await.expect("warrants");
    assert_eq!(lost.len(), 1);
    drop(lost);
    assert!(begin_delete(&world.catalog, scope, agent.vault).await.expect("too early").is_empty());
    world.advance(UNFINISHED_AFTER + DAY);
    let again = begin_delete(&world.catalog, scope, agent.vault).await.expect("warrants");
    assert_eq!(again[0].pack(), made[0].id());
    world
        .execute(
            "INSERT INTO catalog.guard_freezes (tenant_id, id, reason, evidence, frozen_at)
             SELECT tenant_id, id, 'unknown_receipt', 'x', now() FROM catalog.vaults",
        )
        .await;
    let refused = finish_delete(&world.catalog, scope, &again[0]).await;
    assert!(matches!(refused, Err(CollectError::Frozen)));
    let pack = made[0].facts.clone().expect("confirmed");
    let there = world.store.head(&pack.key, pack.version_id.as_deref()).await.expect("head");
    assert!(there.is_some(), "a frozen tenant's objects stay");
    world.execute("UPDATE catalog.guard_freezes SET lifted_at = now()").await;
    let done = finish_delete(&world.catalog, scope, &again[0]).await.expect("deleted");
    assert_eq!(done, Deletion::Deleted);
}

#[tokio::test]
async fn retained_packs_are_listed_with_the_date_they_are_tried_again_at() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let made = world.upload_some(&agent, &session, 0..2).await;
    let abort = SessionHeartbeat { fence: session.fence };
    agent.post::<()>(&format!("sessions/{}/abort", session.id), &abort).await.expect("aborted");
    condemn(&world.catalog, agent.scope(), agent.vault).await.expect("condemned");
    world.advance(20 * DAY);
    let longer = (world.now() + 10 * DAY).ceil_to_second();
    for pack in &made {
        let facts = pack.facts.clone().expect("confirmed");
        let version = facts.version_id.expect("version");
        world.store.extend_lock(&facts.key, &version, longer).await.expect("extended");
    }
    for warrant in begin_delete(&world.catalog, agent.scope(), agent.vault).await.expect("warrants")
    {
        finish_delete(&world.catalog, agent.scope(), &warrant).await.expect("refused");
    }
    let path = format!("vaults/{}/retained-packs?limit=1", agent.vault);
    let page: Page<RetainedPack> = agent.get(&path).await.expect("page");
    assert_eq!(page.items.len(), 1);
    assert_eq!(page.items[0].retained_until, longer);
    let next = format!("{path}&cursor={}", page.next_cursor.expect("more"));
    let rest: Page<RetainedPack> = agent.get(&next).await.expect("page");
    assert_eq!((rest.items.len(), rest.next_cursor), (1, None));
    assert_ne!(rest.items[0].id, page.items[0].id);
    let events = "SELECT count(*) FROM catalog.outbox WHERE payload->>'action' = 'pack.retained'";
    assert_eq!(world.count(events).await, 2);
    let stranger = world.agent(world.app.tenant()).await;
    let refused = stranger.get::<Page<RetainedPack>>(&path).await;
    assert_eq!(crate::support::code_of(&refused), Some(api::Code::NotFound));
}

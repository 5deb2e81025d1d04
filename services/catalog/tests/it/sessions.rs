//! Sessions: leases, adoption, silence, the rollback guard.

use std::time::Duration;

use api::{
    Code, Page,
    catalog::{PackFacts, SessionHeartbeat, SnapshotPacks},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use catalog::sessions::jobs;
use vault::receipt::Receipt;

use crate::support::{Agent, DAY, World, code_of, world};

#[tokio::test]
async fn a_lease_opens_only_its_own_agents_workload_and_never_at_an_older_epoch() {
    let world = world().await;
    let tenant = world.app.tenant();
    let (agent, other) = (world.agent(tenant).await, world.agent(tenant).await);
    world.try_open(&agent, 5, None).await.expect("session");
    assert_eq!(code_of(&world.try_open(&agent, 4, None).await), Some(Code::LeaseLost));
    world.try_open(&agent, 5, None).await.expect("the same epoch again");
    let stolen = api::catalog::OpenSession {
        workload_id: other.workload,
        lease_token: world.lease(&agent, 6),
        last_receipt: None,
    };
    assert_eq!(
        code_of(&other.post::<api::catalog::Session>("sessions", &stolen).await),
        Some(Code::LeaseLost)
    );
    let token = world.lease(&agent, 7);
    world.advance(Duration::from_secs(3_600));
    let late = api::catalog::OpenSession {
        workload_id: agent.workload,
        lease_token: token,
        last_receipt: None,
    };
    assert_eq!(
        code_of(&agent.post::<api::catalog::Session>("sessions", &late).await),
        Some(Code::LeaseLost)
    );
}

#[tokio::test]
async fn a_lost_lease_does_not_fence_the_session_that_works() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.try_open(&agent, 5, None).await.expect("session");
    assert!(world.try_open(&agent, 4, None).await.is_err());
    beat(&agent, &session).await.expect("still open");
}

async fn beat(agent: &Agent, session: &api::catalog::Session) -> Result<(), api::client::Error> {
    let body = SessionHeartbeat { fence: session.fence };
    agent.post(&format!("sessions/{}/heartbeat", session.id), &body).await
}

#[tokio::test]
async fn the_next_session_adopts_what_the_last_one_uploaded_and_can_commit_it() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let first = world.open(&agent).await;
    let uploaded = world.upload_some(&agent, &first, 0..3).await;
    let second = world.open(&agent).await;
    let mut adopted: Vec<_> = agent.adopted(&second).await.iter().map(|pack| pack.id).collect();
    adopted.sort_unstable();
    let mut expected: Vec<_> = uploaded.iter().map(crate::support::Made::id).collect();
    expected.sort_unstable();
    assert_eq!(adopted, expected);
    let unused = world.upload_some(&agent, &second, 3..4).await;
    let manifest = world.manifest(&agent, &second, &mut Vec::new(), &uploaded, &[]).await;
    let reply = agent.commit(&second, manifest.id()).await.expect("commit");
    let packs: SnapshotPacks =
        agent.get(&format!("snapshots/{}/packs", reply.snapshot.id)).await.expect("packs");
    assert_eq!(packs.items.len(), 4);
    let third = world.open(&agent).await;
    let adopted = agent.adopted(&third).await;
    assert!(adopted.is_empty(), "{} was not needed by who made it", unused[0].id());
    let stale = agent.get::<Page<PackFacts>>(&format!("sessions/{}/adopted", first.id)).await;
    assert_eq!(code_of(&stale), Some(Code::Fenced));
}

#[tokio::test]
async fn aborting_is_harmless_to_repeat_and_ends_the_session() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let (path, body) =
        (format!("sessions/{}/abort", session.id), SessionHeartbeat { fence: session.fence });
    agent.post::<()>(&path, &body).await.expect("aborted");
    agent.post::<()>(&path, &body).await.expect("again");
    assert_eq!(code_of(&beat(&agent, &session).await), Some(Code::SessionEnded));
}

/// Rounds of the reconciler as it would run, a minute's grain being enough at five.
async fn serve(world: &World, time: Duration) {
    let step = Duration::from_secs(300);
    for _ in 0..time.as_secs() / step.as_secs() {
        world.app.advance(step);
        while jobs::expire_round(&world.catalog).await.expect("round") {}
    }
}

#[tokio::test]
async fn three_days_of_silence_end_a_session_and_an_outage_of_ours_does_not() {
    let world = world().await;
    jobs::expire_round(&world.catalog).await.expect("first tick");
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    // We were down for a week: nobody could have reached us.
    world.app.advance(7 * DAY);
    jobs::expire_round(&world.catalog).await.expect("round");
    beat(&agent, &session).await.expect("still open");
    serve(&world, 3 * DAY - Duration::from_secs(600)).await;
    beat(&agent, &session).await.expect("still open, and heard");
    serve(&world, 3 * DAY - Duration::from_secs(600)).await;
    beat(&agent, &session).await.expect("still open");
    serve(&world, 3 * DAY + Duration::from_secs(600)).await;
    assert_eq!(code_of(&beat(&agent, &session).await), Some(Code::SessionEnded));
    let event = "SELECT count(*) FROM catalog.outbox WHERE payload->>'action' = 'session.expired'";
    assert_eq!(world.count(event).await, 1);
}

#[tokio::test]
async fn the_steward_keeps_packs_of_an_open_session_locked() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let mut made = world.upload_some(&agent, &session, 0..1).await;
    let pack = made.remove(0).facts.expect("confirmed");
    let first = pack.lock_until.expect("locked");
    world.advance(first.since(world.now()) - DAY);
    while jobs::steward_round(&world.catalog).await.expect("round") {}
    let facts = world
        .store
        .head(&pack.key, pack.version_id.as_deref())
        .await
        .expect("head")
        .expect("there");
    assert!(facts.lock_until.expect("locked") >= world.now() + 5 * DAY);
}

#[tokio::test]
async fn grants_nobody_used_are_given_up_after_a_day() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let pack = [agent.random_pack(0, api::catalog::PackKind::Data)];
    agent.allocate(&session, &pack).await.expect("grant");
    let abandoned = "SELECT count(*) FROM catalog.packs WHERE state = 'abandoned'";
    jobs::abandon_round(&world.catalog).await.expect("round");
    assert_eq!(world.count(abandoned).await, 0);
    world.advance(2 * DAY);
    jobs::abandon_round(&world.catalog).await.expect("round");
    assert_eq!(world.count(abandoned).await, 1);
}

#[tokio::test]
async fn a_receipt_the_database_does_not_know_freezes_collection_of_its_tenant_only() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let reply = world.backup(&agent, &mut Vec::new(), 1, &[]).await;
    world.try_open(&agent, 2, Some(reply.receipt.clone())).await.expect("a known one");
    let forged = BASE64.encode(b"not a receipt");
    world.try_open(&agent, 3, Some(forged)).await.expect("nonsense stops nothing");
    let frozen = "SELECT count(*) FROM catalog.guard_freezes";
    assert_eq!(world.count(frozen).await, 0);
    // Ours, of a snapshot this database never saw.
    let bytes = BASE64.decode(&reply.receipt).expect("base64");
    let mut receipt = Receipt::open(&bytes, &world.catalog.receipt_public()).expect("ours");
    receipt.snapshot = world.app.id();
    let unknown = BASE64.encode(receipt.sign(world.catalog.receipt_key()));
    for epoch in [4, 5] {
        world.try_open(&agent, epoch, Some(unknown.clone())).await.expect("the backup goes on");
    }
    assert_eq!(world.count(frozen).await, 1);
    let event =
        "SELECT count(*) FROM catalog.outbox WHERE payload->>'action' = 'collection.frozen'";
    assert_eq!(world.count(event).await, 1);
    let scope = |tenant| authz::Scope::without_permit(tenant, authz::ScopeReason::Reconcile);
    let condemned =
        catalog::collection::condemn(&world.catalog, scope(agent.tenant), agent.vault).await;
    assert!(matches!(condemned, Err(catalog::collection::CollectError::Frozen)));
    let expired = catalog::collection::letting_go::expire(
        &world.catalog,
        scope(agent.tenant),
        agent.workload,
    )
    .await;
    assert!(matches!(expired, Err(catalog::collection::CollectError::Frozen)));
    let other = world.agent(world.app.tenant()).await;
    catalog::collection::condemn(&world.catalog, scope(other.tenant), other.vault)
        .await
        .expect("not frozen");
}

#[tokio::test]
async fn a_lease_of_an_earlier_run_is_lost_once_the_workload_was_leased_again() {
    let world = world().await;
    let mut agent = world.agent(world.app.tenant()).await;
    let earlier = world.lease(&agent, 5);
    agent.run = world.app.id();
    let session = world.try_open(&agent, 6, None).await.expect("the later run");
    let stale = api::catalog::OpenSession {
        workload_id: agent.workload,
        lease_token: earlier,
        last_receipt: None,
    };
    let refused = agent.post::<api::catalog::Session>("sessions", &stale).await;
    assert_eq!(code_of(&refused), Some(Code::LeaseLost));
    beat(&agent, &session).await.expect("the later run goes on");
}

#[tokio::test]
async fn a_session_knows_the_live_packs_its_parent_does_not_need_and_can_commit_them() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    // One path set, then another that shares nothing with it.
    let first = world.open(&agent).await;
    assert!(first.known.is_empty());
    let one = world.upload_some(&agent, &first, 0..3).await;
    let manifest = world.manifest(&agent, &first, &mut Vec::new(), &one, &[]).await;
    agent.commit(&first, manifest.id()).await.expect("commit");
    let second = world.open(&agent).await;
    assert!(second.known.is_empty(), "all of it is the parent's");
    let two = world.upload_some(&agent, &second, 0..1).await;
    let manifest = world.manifest(&agent, &second, &mut Vec::new(), &two, &[]).await;
    agent.commit(&second, manifest.id()).await.expect("commit");
    // The first again: nothing has to be stored anew.
    let third = world.open(&agent).await;
    let known: Vec<_> = third.known.iter().map(|pack| pack.id).collect();
    let mut newest_first: Vec<_> = one.iter().map(crate::support::Made::id).collect();
    newest_first.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(known, newest_first);
    assert!(third.known.iter().all(|pack| pack.version_id.is_some()));
    let manifest = world.manifest(&agent, &third, &mut Vec::new(), &one, &[]).await;
    let reply = agent.commit(&third, manifest.id()).await.expect("known packs can be named");
    let packs: SnapshotPacks =
        agent.get(&format!("snapshots/{}/packs", reply.snapshot.id)).await.expect("packs");
    assert_eq!(packs.items.len(), 4);
    let neighbour = world.agent(agent.tenant).await;
    assert!(world.open(&neighbour).await.known.is_empty(), "of its own vault only");
}

#[tokio::test]
async fn an_abort_that_came_after_the_commit_says_so() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let (path, body) =
        (format!("sessions/{}/abort", session.id), SessionHeartbeat { fence: session.fence });
    // Somebody ends the session and has not committed yet when the abort looks.
    let mut other = world.app.database().superuser().await.expect("superuser");
    let end = "BEGIN; UPDATE catalog.sessions SET state = 'committed', ended_at = now()";
    sqlx::raw_sql(end).execute(&mut other).await.expect("ended");
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let commit = async {
        while world.count(waits).await == 0 {
            tokio::task::yield_now().await;
        }
        sqlx::raw_sql("COMMIT").execute(&mut other).await.expect("committed");
    };
    let (aborted, ()) = tokio::join!(agent.post::<()>(&path, &body), commit);
    assert_eq!(code_of(&aborted), Some(Code::SessionEnded));
}

#[tokio::test]
async fn one_pack_the_store_lost_does_not_stop_the_steward_for_other_tenants() {
    let world = world().await;
    let mut packs = Vec::new();
    for _ in 0..3 {
        let agent = world.agent(world.app.tenant()).await;
        let session = world.open(&agent).await;
        packs.extend(world.upload_some(&agent, &session, 0..1).await);
    }
    world
        .execute(
            "UPDATE catalog.packs SET version_id = 'gone'
             WHERE tenant_id = (SELECT tenant_id FROM catalog.packs ORDER BY tenant_id LIMIT 1)",
        )
        .await;
    let first = packs[0].facts.as_ref().expect("confirmed").lock_until.expect("locked");
    world.advance(first.since(world.now()) - DAY);
    let told = jobs::steward_round(&world.catalog).await.expect_err("the failure is told");
    assert_eq!(told.code(), Code::PackUnusable);
    let mut extended = 0;
    for pack in &packs {
        let facts = pack.facts.as_ref().expect("confirmed");
        let version = facts.version_id.as_deref();
        let there = world.store.head(&facts.key, version).await.expect("head").expect("there");
        extended += usize::from(there.lock_until.expect("locked") >= world.now() + 5 * DAY);
    }
    assert_eq!(extended, 2);
}

//! Condemning and deleting, by time travel.

use api::Code;
use catalog::collection::{GRACE, begin_delete, condemn, finish_delete};
use vault::store::Deletion;

use crate::support::{DAY, Made, code_of, world};

#[tokio::test]
async fn a_pack_nothing_needs_is_deleted_only_after_grace_and_lock() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let made: Vec<Made> = world.upload_some(&agent, &session, 0..1).await;
    let pack = made[0].facts.clone().expect("confirmed");
    // While a session of the vault is open its packs are not even condemned.
    assert!(condemn(&world.catalog, agent.scope(), agent.vault).await.expect("none").is_empty());
    let body = api::catalog::SessionHeartbeat { fence: session.fence };
    agent.post::<()>(&format!("sessions/{}/abort", session.id), &body).await.expect("aborted");
    assert_eq!(condemn(&world.catalog, agent.scope(), agent.vault).await.expect("one"), [pack.id]);
    assert!(
        begin_delete(&world.catalog, agent.scope(), agent.vault).await.expect("grace").is_empty()
    );
    world.advance(GRACE + DAY);
    let lock = pack.lock_until.expect("locked");
    if lock > world.now() {
        assert!(
            begin_delete(&world.catalog, agent.scope(), agent.vault)
                .await
                .expect("lock")
                .is_empty()
        );
        world.advance(lock.since(world.now()) + DAY);
    }
    let warrants =
        begin_delete(&world.catalog, agent.scope(), agent.vault).await.expect("warrants");
    assert_eq!(warrants.len(), 1);
    let gone = finish_delete(&world.catalog, agent.scope(), &warrants[0]).await.expect("deleted");
    assert_eq!(gone, Deletion::Deleted);
    assert_eq!(world.store.head(&pack.key, pack.version_id.as_deref()).await.expect("head"), None);
    assert_eq!(world.count("SELECT count(*) FROM catalog.packs WHERE state = 'deleted'").await, 1);
}

#[tokio::test]
async fn an_old_session_still_open_keeps_what_it_could_have_seen() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let first = world.open(&agent).await;
    let made = world.upload_some(&agent, &first, 0..1).await;
    let body = api::catalog::SessionHeartbeat { fence: first.fence };
    agent.post::<()>(&format!("sessions/{}/abort", first.id), &body).await.expect("aborted");
    condemn(&world.catalog, agent.scope(), agent.vault).await.expect("condemned");
    world.advance(30 * DAY);
    // A session opened after the condemning does not hold the pack, but a commit that names it does.
    let second = world.open(&agent).await;
    let manifest = world.manifest(&agent, &second, &mut Vec::new(), &made, &[]).await;
    agent.commit(&second, manifest.id()).await.expect("condemned packs can be named");
    assert!(
        begin_delete(&world.catalog, agent.scope(), agent.vault).await.expect("none").is_empty()
    );
    assert_eq!(world.count("SELECT count(*) FROM catalog.packs WHERE state = 'live'").await, 2);
}

#[tokio::test]
async fn a_session_open_since_before_the_condemning_stops_the_deletion() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    let first = world.backup(&agent, &mut chain, 1, &[]).await;
    world.backup(&agent, &mut Vec::new(), 0, &[]).await;
    world.advance(400 * DAY);
    world.let_go(&agent, first.snapshot.id).await;
    let session = world.try_open(&agent, 9, None).await.expect("session");
    let condemned = condemn(&world.catalog, agent.scope(), agent.vault).await.expect("condemned");
    assert_eq!(condemned.len(), 2);
    world.advance(GRACE + DAY);
    for _ in 0..100 {
        let held = begin_delete(&world.catalog, agent.scope(), agent.vault).await.expect("held");
        assert!(held.is_empty());
        // A look that found nothing to do holds nothing back from the next one.
        let free = "SELECT count(*) FROM (SELECT FROM catalog.packs WHERE state = 'condemned' FOR UPDATE SKIP LOCKED) p";
        assert_eq!(world.count(free).await, 2);
    }
    let body = api::catalog::SessionHeartbeat { fence: session.fence };
    agent.post::<()>(&format!("sessions/{}/abort", session.id), &body).await.expect("aborted");
    assert_eq!(
        begin_delete(&world.catalog, agent.scope(), agent.vault).await.expect("free").len(),
        2
    );
}

#[tokio::test]
async fn the_parent_of_an_open_backup_does_not_expire_and_nothing_does_before_its_promise() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    let first = world.backup(&agent, &mut chain, 2, &[]).await.snapshot;
    assert!(!world.soft_expire(&agent, first.id).await);
    world.advance(400 * DAY);
    let session = world.try_open(&agent, 9, None).await.expect("session");
    assert_eq!(session.parent.as_ref().expect("parent").snapshot_id, first.id);
    assert!(!world.soft_expire(&agent, first.id).await);
    let manifest = world.manifest(&agent, &session, &mut chain, &[], &[]).await;
    let second = agent.commit(&session, manifest.id()).await.expect("commit").snapshot;
    world.let_go(&agent, first.id).await;
    // What the second inherited stays; only nothing is left over.
    assert!(condemn(&world.catalog, agent.scope(), agent.vault).await.expect("none").is_empty());
    assert_eq!(
        code_of(&agent.get::<api::catalog::Snapshot>(&format!("snapshots/{}", first.id)).await),
        Some(Code::NotFound)
    );
    agent.get::<api::catalog::Snapshot>(&format!("snapshots/{}", second.id)).await.expect("there");
}

#[tokio::test]
async fn a_refused_delete_is_retained_and_tried_again_at_its_date() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let made = world.upload_some(&agent, &session, 0..1).await;
    let pack = made[0].facts.clone().expect("confirmed");
    let body = api::catalog::SessionHeartbeat { fence: session.fence };
    agent.post::<()>(&format!("sessions/{}/abort", session.id), &body).await.expect("aborted");
    condemn(&world.catalog, agent.scope(), agent.vault).await.expect("condemned");
    world.advance(15 * DAY);
    // Somebody extended it without telling us.
    let longer = world.now() + 10 * DAY;
    world
        .store
        .extend_lock(&pack.key, pack.version_id.as_deref().expect("version"), longer)
        .await
        .expect("extended");
    let warrants =
        begin_delete(&world.catalog, agent.scope(), agent.vault).await.expect("warrants");
    let outcome =
        finish_delete(&world.catalog, agent.scope(), &warrants[0]).await.expect("an outcome");
    assert!(matches!(outcome, Deletion::Retained { until: Some(_) }));
    assert!(
        begin_delete(&world.catalog, agent.scope(), agent.vault).await.expect("not yet").is_empty()
    );
    let next = world.open(&agent).await;
    let manifest = world.manifest(&agent, &next, &mut Vec::new(), &made, &[]).await;
    assert_eq!(code_of(&agent.commit(&next, manifest.id()).await), Some(Code::PackUnusable));
    let body = api::catalog::SessionHeartbeat { fence: next.fence };
    agent.post::<()>(&format!("sessions/{}/abort", next.id), &body).await.expect("aborted");
    world.advance(11 * DAY);
    let warrants =
        begin_delete(&world.catalog, agent.scope(), agent.vault).await.expect("warrants");
    let outcome =
        finish_delete(&world.catalog, agent.scope(), &warrants[0]).await.expect("an outcome");
    assert_eq!(outcome, Deletion::Deleted);
}

#[tokio::test]
async fn packs_in_use_do_not_keep_an_unneeded_one_from_being_condemned() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    world.backup(&agent, &mut Vec::new(), 1, &[]).await;
    // More than a batch of packs in use, and all of them before the one nothing needs.
    world
        .execute(
            "WITH made AS (
                 INSERT INTO catalog.packs (tenant_id, id, vault_id, session_id, seq, kind, state, sha256, md5, length,
                     object_key, granted_lock_until, grant_expires_at, version_id, lock_until, allocated_at)
                 SELECT tenant_id, lpad(to_hex(n), 32, '0')::uuid, vault_id, session_id, 2000000 + n, kind, 'live', sha256,
                     md5, length, object_key || n, granted_lock_until, grant_expires_at, version_id, lock_until,
                     allocated_at
                 FROM catalog.packs, generate_series(1, 600) AS n WHERE kind = 'data'
                 RETURNING tenant_id, id)
             INSERT INTO catalog.snapshot_packs (tenant_id, workload_id, pack_id, first_seq)
             SELECT made.tenant_id, w.id, made.id, 1 FROM made, catalog.workloads w",
        )
        .await;
    let session = world.open(&agent).await;
    let made: Vec<Made> = world.upload_some(&agent, &session, 0..1).await;
    let body = api::catalog::SessionHeartbeat { fence: session.fence };
    agent.post::<()>(&format!("sessions/{}/abort", session.id), &body).await.expect("aborted");
    let condemned = condemn(&world.catalog, agent.scope(), agent.vault).await.expect("condemned");
    assert_eq!(condemned, [made[0].id()]);
}

//! The catalog made again from the bucket, and what a person decides afterwards.

use api::{Code, catalog::SessionHeartbeat};
use catalog::{
    collection::{
        CollectError, condemn,
        letting_go::{self, UNDO},
    },
    freezes,
    rebuild::{Mode, rebuild},
    snapshots::receipts,
};
use domain::{EventId, SnapshotId};

use crate::{
    letting_go::{dailies, state},
    support::{Agent, DAY, World, world},
};

const ALL: &str = "TRUNCATE catalog.vaults, catalog.key_wraps, catalog.rosters, catalog.workloads, catalog.sessions,
    catalog.packs, catalog.snapshots, catalog.snapshot_packs, catalog.manifests, catalog.receipts, catalog.forgets,
    catalog.guard_freezes CASCADE";

/// Rows of a query that gives one text each, in its order.
async fn texts(world: &World, sql: &'static str) -> Vec<String> {
    let mut connection = world.app.database().superuser().await.expect("superuser");
    sqlx::query_scalar(sql).fetch_all(&mut connection).await.expect("rows")
}

/// Six backups a day apart, of which the first three were forgotten, their records in the bucket.
async fn forgotten(world: &World, agent: &Agent) -> Vec<SnapshotId> {
    dailies(world, agent, 6).await;
    assert!(receipts::round(&world.catalog).await.expect("receipts"));
    world.advance(500 * DAY);
    let scope = agent.scope();
    letting_go::expire(&world.catalog, scope, agent.workload).await.expect("expired");
    world.advance(UNDO);
    let gone = letting_go::forget(&world.catalog, scope, agent.workload).await.expect("forgotten");
    assert_eq!(gone.len(), 3);
    assert!(letting_go::write_round(&world.catalog).await.expect("records"));
    gone
}

#[tokio::test]
async fn what_was_forgotten_comes_back_as_forgotten_and_what_only_it_needed_may_go() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let scope = agent.scope();
    let gone = forgotten(&world, &agent).await;
    let rows = "SELECT row(s.id, seq, state, committed_at, forgotten_at, protect_until, parent_id, manifest_id,
                           f.record, f.object_key, f.version_id)::text
                FROM catalog.snapshots s LEFT JOIN catalog.forgets f ON f.snapshot_id = s.id ORDER BY seq";
    let was = texts(&world, rows).await;
    assert_eq!(was.iter().filter(|row| row.contains(",forgotten,")).count(), 3);

    world.execute(ALL).await;
    let reports = rebuild(&world.catalog, agent.tenant, None, Mode::Apply).await.expect("rebuilt");
    let report = &reports[0];
    assert_eq!((report.committed, report.forgotten), (3, 3), "{:?}", report.findings);
    assert_eq!((&report.findings, &report.unconfirmed), (&vec![], &vec![]));
    assert_eq!(texts(&world, rows).await, was);
    let by = agent.actor();
    for id in &gone {
        let undone = letting_go::undo_expire(&world.catalog, scope, &by, *id).await;
        assert!(!undone.expect("asked"), "a record in the bucket is the last word");
    }
    // Their data packs, and no other: the manifests are links of chains that stand.
    let condemned = condemn(&world.catalog, scope, agent.vault).await.expect("condemned");
    assert_eq!(condemned.len(), 3);
    let again = rebuild(&world.catalog, agent.tenant, None, Mode::Apply).await.expect("again");
    assert_eq!(again[0].written, 0);
}

#[tokio::test]
async fn over_a_database_of_an_earlier_day_what_was_forgotten_since_is_forgotten() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let gone = forgotten(&world, &agent).await;
    // The database as a copy from before the expiry has it; of one somebody thinks that it stands, and holds it.
    world
        .execute(
            "ALTER TABLE catalog.snapshots DISABLE TRIGGER snapshots_guard;
             UPDATE catalog.snapshots SET state = 'committed', expired_at = NULL, forgotten_at = NULL;
             ALTER TABLE catalog.snapshots ENABLE TRIGGER snapshots_guard;
             DELETE FROM catalog.forgets;
             DELETE FROM catalog.outbox",
        )
        .await;
    let hold = world.hold(&agent, gone[0]).await;
    let rebuilt = async |mode| {
        let reports = rebuild(&world.catalog, agent.tenant, None, mode).await.expect("rebuilt");
        (reports[0].written, reports[0].findings.join("\n"))
    };
    let standing = "SELECT count(*) FROM catalog.snapshots WHERE state = 'committed'";
    let told =
        "SELECT count(*) FROM catalog.outbox WHERE payload->>'action' = 'snapshot.forgotten'";
    assert_eq!(rebuilt(Mode::DryRun).await.0, 0);
    assert_eq!(world.count(standing).await, 6);
    let (written, findings) = rebuilt(Mode::Apply).await;
    // Two snapshots and their records.
    assert_eq!((written, world.count(standing).await, world.count(told).await), (4, 4, 2));
    assert!(
        findings.contains(&gone[0].to_string()) && findings.contains("under hold"),
        "{findings}"
    );
    assert_eq!(state(&world, gone[0]).await, "committed");
    assert_eq!(state(&world, gone[1]).await, "forgotten");
    assert_eq!(rebuilt(Mode::Apply).await.0, 0, "twice is once");
    // Their own data packs, and no other.
    let condemned = condemn(&world.catalog, agent.scope(), agent.vault).await.expect("condemned");
    assert_eq!(condemned.len(), 2);
    world.release(&agent, hold).await;
    assert_eq!(rebuilt(Mode::Apply).await, (2, String::new()));
    assert_eq!(state(&world, gone[0]).await, "forgotten");
}

/// The copy knows the first three of six; of them one manifest is damaged in the bucket since, and is in no chain.
#[tokio::test]
async fn over_a_database_of_an_earlier_day_numbers_that_were_given_stay_and_others_come_after() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut all = Vec::new();
    for _ in 0..6 {
        all.push(world.backup(&agent, &mut Vec::new(), 1, &[]).await.snapshot.id);
        world.advance(DAY);
    }
    while receipts::round(&world.catalog).await.expect("receipts") {}
    let rows = "SELECT row(id, seq)::text FROM catalog.snapshots ORDER BY seq";
    let was = texts(&world, rows).await;
    let needs = "SELECT count(*) FROM catalog.snapshots s JOIN catalog.snapshot_packs r
                 ON r.workload_id = s.workload_id AND r.first_seq <= s.seq
                 AND (r.last_seq IS NULL OR r.last_seq >= s.seq)";
    let needed = world.count(needs).await;
    let page: api::catalog::SnapshotPacks =
        agent.get(&format!("snapshots/{}/packs", all[1])).await.expect("packs");
    let mut items = page.items.iter();
    let pack = items.find(|pack| pack.kind == api::catalog::PackKind::Manifest).expect("manifest");
    let version = pack.version_id.as_deref().expect("version");
    world.spoil("store", &world.store.get(&pack.key, version).await.expect("bytes"));
    world
        .execute(
            "SET session_replication_role = replica;
             DELETE FROM catalog.manifests USING catalog.snapshots s WHERE s.id = snapshot_id AND seq > 3;
             DELETE FROM catalog.receipts USING catalog.snapshots s WHERE s.id = snapshot_id AND seq > 3;
             DELETE FROM catalog.snapshot_packs WHERE first_seq > 3;
             DELETE FROM catalog.sessions USING catalog.snapshots s WHERE s.session_id = sessions.id AND seq > 3;
             DELETE FROM catalog.packs WHERE NOT EXISTS (SELECT FROM catalog.sessions s WHERE s.id = session_id);
             DELETE FROM catalog.snapshots WHERE seq > 3;
             UPDATE catalog.workloads SET last_seq = 3",
        )
        .await;
    let reports = rebuild(&world.catalog, agent.tenant, None, Mode::Apply).await.expect("rebuilt");
    assert_eq!(reports[0].committed, 5, "{:?}", reports[0].findings);
    assert_eq!(texts(&world, rows).await, was);
    assert_eq!(world.count(needs).await, needed, "each needs what it needed");
    let again = rebuild(&world.catalog, agent.tenant, None, Mode::Apply).await.expect("again");
    assert_eq!(again[0].written, 0);
    world.backup(&agent, &mut Vec::new(), 1, &[]).await;
}

#[tokio::test]
async fn a_freeze_ends_when_a_person_says_why_and_does_not_come_back_for_the_same_thing() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let scope = agent.scope();
    let mut chain = Vec::new();
    world.backup(&agent, &mut chain, 1, &[]).await;
    assert!(receipts::round(&world.catalog).await.expect("receipts"));
    // A backup that never committed: its manifest is in the bucket, nobody's word for it is.
    let session = world.open(&agent).await;
    let packs = world.upload_some(&agent, &session, 0..1).await;
    let manifest = world.manifest(&agent, &session, &mut chain, &packs, &[]).await;
    let abort = SessionHeartbeat { fence: session.fence };
    agent.post::<()>(&format!("sessions/{}/abort", session.id), &abort).await.expect("aborted");
    world.execute(ALL).await;
    let reports = rebuild(&world.catalog, agent.tenant, None, Mode::Apply).await.expect("rebuilt");
    assert_eq!(reports[0].unconfirmed, [manifest.id().to_string()]);

    let standing = freezes::list(&world.catalog, agent.tenant).await.expect("list");
    assert_eq!(standing.len(), 1);
    assert_eq!(standing[0].reason, "unconfirmed_manifest");
    assert_eq!(standing[0].evidence, manifest.id().to_string());
    let frozen = condemn(&world.catalog, scope, agent.vault).await;
    assert!(matches!(frozen, Err(CollectError::Frozen)));
    let id = [standing[0].id];
    let lift = async |ids: &[EventId], why: &str| {
        freezes::lift(&world.catalog, agent.tenant, ids, why).await
    };
    for silent in ["", " \n", &"x".repeat(1_001)] {
        assert_eq!(lift(&id, silent).await.map_err(|e| e.code()), Err(Code::Validation));
    }
    assert_eq!(lift(&[world.app.id()], "no such").await.expect("none"), []);
    let other: domain::TenantId = world.app.id();
    let foreign = freezes::lift(&world.catalog, other, &id, "not ours").await.expect("none");
    assert_eq!(foreign, []);
    assert!(matches!(condemn(&world.catalog, scope, agent.vault).await, Err(CollectError::Frozen)));

    assert_eq!(lift(&id, "restored by hand").await.expect("lifted"), standing);
    assert_eq!(lift(&id, "twice").await.expect("once"), []);
    let event =
        "SELECT count(*) FROM catalog.outbox WHERE payload->>'action' = 'collection.unfrozen'
                 AND payload->'details'->>'reason' = 'restored by hand'";
    assert_eq!(world.count(event).await, 1);
    condemn(&world.catalog, scope, agent.vault).await.expect("goes on");
    rebuild(&world.catalog, agent.tenant, None, Mode::Apply).await.expect("again");
    assert_eq!(freezes::list(&world.catalog, agent.tenant).await.expect("list"), []);
}

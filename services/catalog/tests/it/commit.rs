//! B0 to B6, and what a commit refuses.

use std::time::Duration;

use api::{
    Code,
    catalog::{CommitReply, Snapshot, SnapshotPacks},
    page::Page,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use vault::{keys::AgentKeys, receipt::Receipt, store::LockMode};

use crate::support::{DAY, code_of, commit_body, world};

#[tokio::test]
async fn a_backup_becomes_a_snapshot_whose_packs_the_store_keeps_locked_as_promised() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let reply = world.backup(&agent, &mut Vec::new(), 3, &[]).await;
    let snapshot = &reply.snapshot;
    assert!(snapshot.protect_until >= world.now() + 372 * DAY);
    assert!(snapshot.locked_until >= snapshot.protect_until);
    let packs: SnapshotPacks =
        agent.get(&format!("snapshots/{}/packs", snapshot.id)).await.expect("packs");
    assert_eq!(packs.items.len(), 4);
    for pack in &packs.items {
        let facts = world
            .store
            .head(&pack.key, pack.version_id.as_deref())
            .await
            .expect("head")
            .expect("there");
        assert_eq!(facts.lock_mode, Some(LockMode::Compliance));
        assert!(facts.lock_until.expect("locked") >= snapshot.protect_until, "{}", pack.key);
    }
    let receipt = BASE64.decode(&reply.receipt).expect("base64");
    let opened = Receipt::open(&receipt, &world.catalog.receipt_public()).expect("signed by us");
    assert_eq!((opened.snapshot, opened.protect_until), (snapshot.id, snapshot.protect_until));
}

#[tokio::test]
async fn the_receipt_reaches_the_bucket_locked_as_long_as_the_snapshot() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let reply = world.backup(&agent, &mut Vec::new(), 1, &[]).await;
    assert!(catalog::snapshots::receipts::round(&world.catalog).await.expect("round"));
    let key = vault::layout::receipt_key(agent.tenant, agent.vault, reply.snapshot.id);
    let facts = world.store.head(&key, None).await.expect("head").expect("there");
    assert_eq!(facts.lock_mode, Some(LockMode::Compliance));
    assert!(facts.lock_until.expect("locked") >= reply.snapshot.locked_until);
    let stored = world.store.get(&key, &facts.version_id).await.expect("bytes");
    assert_eq!(BASE64.encode(stored), reply.receipt);
    assert!(!catalog::snapshots::receipts::round(&world.catalog).await.expect("nothing left"));
}

#[tokio::test]
async fn a_commit_leaves_its_event_and_its_facts_in_the_outbox() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    world.backup(&agent, &mut Vec::new(), 1, &[]).await;
    let event = "SELECT count(*) FROM catalog.outbox WHERE topic = 'audit' AND payload->>'action' = 'snapshot.committed'";
    assert_eq!(world.count(event).await, 1);
    assert_eq!(world.count("SELECT count(*) FROM catalog.outbox WHERE topic = 'meter'").await, 3);
    assert_eq!(
        world.count("SELECT count(*) FROM catalog.outbox WHERE topic = 'snapshot_committed'").await,
        1
    );
}

#[tokio::test]
async fn committing_twice_answers_the_same_snapshot() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let packs = world.upload_some(&agent, &session, 0..2).await;
    let manifest = world.manifest(&agent, &session, &mut Vec::new(), &packs, &[]).await;
    let first = agent.commit(&session, manifest.id()).await.expect("commit");
    let second = agent.commit(&session, manifest.id()).await.expect("again");
    assert_eq!((first.snapshot.id, first.receipt), (second.snapshot.id, second.receipt));
    let other = agent.commit(&session, packs[0].id()).await;
    assert_eq!(code_of(&other), Some(Code::Conflict));
    assert_eq!(world.count("SELECT count(*) FROM catalog.snapshots").await, 1);
}

#[tokio::test]
async fn two_commits_at_once_make_one_snapshot() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let packs = world.upload_some(&agent, &session, 0..2).await;
    let manifest = world.manifest(&agent, &session, &mut Vec::new(), &packs, &[]).await;
    let id = manifest.id();
    let (a, b, c) = tokio::join!(
        agent.commit(&session, id),
        agent.commit(&session, id),
        agent.commit(&session, id)
    );
    let done: Vec<CommitReply> =
        [a, b, c].into_iter().collect::<Result<_, _>>().expect("the losers are told the same");
    assert!(done.iter().all(|reply| reply.snapshot.id == done[0].snapshot.id));
    assert_eq!(agent.commit(&session, id).await.expect("later").snapshot.id, done[0].snapshot.id);
    assert_eq!(world.count("SELECT count(*) FROM catalog.snapshots").await, 1);
}

#[tokio::test]
async fn an_incremental_writes_references_only_for_what_changed() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    let first = world.backup(&agent, &mut chain, 20, &[]).await;
    let rows = "SELECT count(*) FROM catalog.snapshot_packs";
    assert_eq!(world.count(rows).await, 21);
    let gone = chain[0].manifest.packs.clone();
    let vault::manifest::PackList::Full(list) = gone else { panic!("the first is full") };
    let second = world.backup(&agent, &mut chain, 1, &[list[0].id]).await;
    // One new pack and one manifest; one interval closed.
    assert_eq!(world.count(rows).await, 23);
    assert_eq!(
        world.count("SELECT count(*) FROM catalog.snapshot_packs WHERE last_seq IS NOT NULL").await,
        1
    );
    for (snapshot, expected) in [(&first.snapshot, 21), (&second.snapshot, 22)] {
        let packs: SnapshotPacks =
            agent.get(&format!("snapshots/{}/packs", snapshot.id)).await.expect("packs");
        assert_eq!(packs.items.len(), expected);
    }
    assert_eq!(second.snapshot.parent_id, Some(first.snapshot.id));
}

#[tokio::test]
async fn a_full_list_ends_the_references_to_the_manifests_before_it() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    for _ in 0..3 {
        world.backup(&agent, &mut chain, 1, &[]).await;
    }
    let open =
        "SELECT count(*) FROM catalog.snapshot_packs r JOIN catalog.packs p ON p.id = r.pack_id
                WHERE r.last_seq IS NULL AND p.kind = 'manifest'";
    assert_eq!(world.count(open).await, 3);
    // An agent that lost its state starts afresh: a full list without a parent.
    let session = world.open(&agent).await;
    let packs = world.upload_some(&agent, &session, 0..1).await;
    let manifest = world.manifest(&agent, &session, &mut Vec::new(), &packs, &[]).await;
    let reply = agent.commit(&session, manifest.id()).await.expect("commit");
    assert_eq!(reply.snapshot.parent_id, None);
    assert_eq!(world.count(open).await, 1);
    assert_eq!(
        world.count("SELECT count(*) FROM catalog.snapshot_packs WHERE last_seq IS NULL").await,
        2
    );
}

#[tokio::test]
async fn a_stale_fence_is_fenced_everywhere() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let old = world.open(&agent).await;
    let mut packs = world.upload_some(&agent, &old, 0..1).await;
    let manifest = world.manifest(&agent, &old, &mut Vec::new(), &packs, &[]).await;
    let new = world.open(&agent).await;
    assert!(new.fence > old.fence);
    assert_eq!(code_of(&agent.commit(&old, manifest.id()).await), Some(Code::Fenced));
    assert_eq!(code_of(&agent.upload(&old, &mut packs).await), Some(Code::Fenced));
    let mut wrong = old.clone();
    wrong.id = new.id;
    assert_eq!(code_of(&agent.upload(&wrong, &mut packs).await), Some(Code::Fenced));
    assert_eq!(code_of(&agent.commit(&wrong, manifest.id()).await), Some(Code::Fenced));
    assert_eq!(world.count("SELECT count(*) FROM catalog.snapshots").await, 0);
}

#[tokio::test]
async fn packs_of_another_vault_or_tenant_cannot_be_named() {
    let world = world().await;
    let tenant = world.app.tenant();
    let (ours, neighbour) = (world.agent(tenant).await, world.agent(tenant).await);
    let stranger = world.agent(world.app.tenant()).await;
    for other in [&neighbour, &stranger] {
        let theirs = world.open(other).await;
        let foreign = world.upload_some(other, &theirs, 0..1).await;
        let session = world.open(&ours).await;
        let manifest = world.manifest(&ours, &session, &mut Vec::new(), &foreign, &[]).await;
        let refused = ours.commit(&session, manifest.id()).await;
        assert_eq!(code_of(&refused), Some(Code::ManifestRejected));
        // Nor can the session of somebody else be used.
        let body = commit_body(&theirs, manifest.id());
        let path = ours.path(&format!("sessions/{}/commit", theirs.id));
        let refused = ours.client.post::<_, CommitReply>(&path, &body).await;
        assert_eq!(code_of(&refused), Some(Code::NotFound));
    }
    assert_eq!(world.count("SELECT count(*) FROM catalog.snapshot_packs").await, 0);
}

#[tokio::test]
async fn a_manifest_signed_by_a_stranger_is_refused() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let packs = world.upload_some(&agent, &session, 0..1).await;
    let manifest = agent.build(&world, &session, &[], &packs, &[]);
    let stranger = AgentKeys::generate(&**world.app.ids());
    let made = agent.upload_manifest(&session, &manifest, &stranger).await;
    assert_eq!(code_of(&agent.commit(&session, made.id()).await), Some(Code::ManifestRejected));
}

#[tokio::test]
async fn a_manifest_for_another_session_or_with_another_set_is_refused() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    type Change = fn(&mut vault::manifest::Manifest);
    let changes: [(&str, Change); 5] = [
        ("fence", |m| m.fence += 1),
        ("session", |m| m.session = domain::SessionId::from_bytes([9; 16])),
        ("workload", |m| m.workload = domain::WorkloadId::from_bytes([9; 16])),
        ("key epoch", |m| m.key_epoch = 2),
        ("set hash", |m| m.set_hash = vault::id::Sha256([9; 32])),
    ];
    for (what, change) in changes {
        let session = world.open(&agent).await;
        let packs = world.upload_some(&agent, &session, 0..1).await;
        let mut manifest = agent.build(&world, &session, &[], &packs, &[]);
        change(&mut manifest);
        let made = agent.upload_manifest(&session, &manifest, &agent.keys).await;
        assert_eq!(
            code_of(&agent.commit(&session, made.id()).await),
            Some(Code::ManifestRejected),
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_manifest_that_names_an_unconfirmed_pack_waits() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let mut packs = world.upload_some(&agent, &session, 0..1).await;
    let lost = [agent.random_pack(7, api::catalog::PackKind::Data)];
    let grant = agent.allocate(&session, &lost).await.expect("allocated").grants.remove(0);
    let mut facts = grant.pack;
    facts.version_id = Some("guessed".into());
    packs.push(crate::support::Made { facts: Some(facts), ..lost[0].clone() });
    let manifest = world.manifest(&agent, &session, &mut Vec::new(), &packs, &[]).await;
    assert_eq!(code_of(&agent.commit(&session, manifest.id()).await), Some(Code::PackNotConfirmed));
}

#[tokio::test]
async fn a_lost_pack_is_never_committed_and_ends_commits_under_way() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let packs = world.upload_some(&agent, &session, 0..2).await;
    let manifest = world.manifest(&agent, &session, &mut Vec::new(), &packs, &[]).await;
    let scope = authz::Scope::without_permit(agent.tenant, authz::ScopeReason::Reconcile);
    let lost = [(packs[0].id(), None)];
    catalog::collection::declare_lost(&world.catalog, scope, agent.vault, &lost)
        .await
        .expect("lost");
    assert_eq!(code_of(&agent.commit(&session, manifest.id()).await), Some(Code::PackUnusable));
}

#[tokio::test]
async fn snapshots_are_listed_newest_first_in_pages_without_gaps() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    let mut made = Vec::new();
    for _ in 0..5 {
        made.insert(0, world.backup(&agent, &mut chain, 1, &[]).await.snapshot.id);
        world.advance(DAY);
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page: Page<Snapshot> =
            agent.get(&format!("snapshots?limit=2{cursor}")).await.expect("page");
        seen.extend(page.items.iter().map(|snapshot| snapshot.id));
        match page.next_cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, made);
    let bad = agent.get::<Page<Snapshot>>("snapshots?cursor=nonsense").await;
    assert_eq!(code_of(&bad), Some(Code::Validation));
}

#[tokio::test]
async fn packs_in_use_are_extended_once_per_step_and_not_once_per_backup() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    world.backup(&agent, &mut chain, 1, &[]).await;
    let long =
        world.count("SELECT count(*) FROM catalog.packs WHERE lock_until > '2027-01-01'").await;
    assert_eq!(long, 2);
    // A second backup the same day is promised a week, which the locks cover already.
    let second = world.backup(&agent, &mut chain, 0, &[]).await.snapshot;
    assert_eq!(second.slots, []);
    let short =
        world.count("SELECT count(*) FROM catalog.packs WHERE lock_until < '2026-02-01'").await;
    assert_eq!(short, 1, "only its own manifest, with the initial lock");
}

#[tokio::test]
async fn what_an_agent_says_about_its_commit_is_bounded() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let session = world.open(&agent).await;
    let packs = world.upload_some(&agent, &session, 0..1).await;
    let manifest = world.manifest(&agent, &session, &mut Vec::new(), &packs, &[]).await;
    type Change = fn(&mut api::catalog::CommitSession);
    let changes: [(&str, Change); 13] = [
        ("stats/files", |b| b.stats.files = 1 << 53),
        ("stats/directories", |b| b.stats.directories = u64::MAX),
        ("stats/others", |b| b.stats.others = 1 << 63),
        ("stats/source_bytes", |b| b.stats.source_bytes = 1 << 63),
        ("stats/new_bytes", |b| b.stats.new_bytes = 1 << 53),
        ("stats/stored_bytes", |b| b.stats.stored_bytes = 1 << 53),
        ("stats/exceptions", |b| b.stats.exceptions = 1 << 63),
        ("stats/duration_ms", |b| b.stats.duration_ms = 1 << 53),
        ("paths", |b| b.paths = vec!["/".into(); 1_001]),
        ("paths/1", |b| b.paths.push("x".repeat(4_097))),
        ("paths/1", |b| b.paths.push("a\0b".into())),
        ("tags", |b| b.tags = (0..65).map(|n| (n.to_string(), String::new())).collect()),
        ("tags", |b| drop(b.tags.insert("name".into(), "x".repeat(1_025)))),
    ];
    let path = format!("sessions/{}/commit", session.id);
    for (field, change) in changes {
        let mut body = commit_body(&session, manifest.id());
        change(&mut body);
        let answer = agent.post::<CommitReply>(&path, &body).await;
        let Err(api::client::Error::Problem(problem)) = answer else { panic!("{field}") };
        assert_eq!((problem.code, problem.fields[0].field.as_str()), (Code::Validation, field));
    }
    assert_eq!(world.count("SELECT count(*) FROM catalog.snapshots").await, 0);
    let mut body = commit_body(&session, manifest.id());
    body.stats.source_bytes = (1 << 53) - 1;
    let reply: CommitReply = agent.post(&path, &body).await.expect("the largest that fits");
    assert_eq!(reply.snapshot.stats.source_bytes, (1 << 53) - 1);
    let mut superuser = world.app.database().superuser().await.expect("superuser");
    let negative =
        sqlx::query("UPDATE catalog.snapshots SET source_bytes = -1").execute(&mut superuser).await;
    assert!(negative.is_err(), "nor does the table hold less than nothing");
}

#[tokio::test]
async fn a_receipt_whose_lock_is_over_before_it_is_written_still_reaches_the_bucket() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let reply = world.backup(&agent, &mut Vec::new(), 1, &[]).await;
    world.advance(1_000 * DAY);
    assert!(catalog::snapshots::receipts::round(&world.catalog).await.expect("round"));
    let key = vault::layout::receipt_key(agent.tenant, agent.vault, reply.snapshot.id);
    let facts = world.store.head(&key, None).await.expect("head").expect("there");
    assert!(facts.lock_until.expect("locked") >= world.now() + DAY - Duration::from_secs(1));
}

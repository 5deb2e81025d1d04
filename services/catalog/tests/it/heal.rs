//! What a backup builds on after packs were declared lost.

use api::{
    Code,
    catalog::{PackKind, RequestRestoreGrants, RestoreGrants},
};
use catalog::collection::declare_lost;
use domain::PackId;

use crate::support::{Agent, World, code_of, world};

async fn lose(world: &World, agent: &Agent, pack: PackId) {
    let lost = declare_lost(&world.catalog, agent.scope(), agent.vault, &[(pack, None)]).await;
    assert_eq!(lost.expect("declared"), [pack]);
}

/// Looking at many packs takes hours, and a repair may come first.
#[tokio::test]
async fn a_pack_that_has_another_version_by_now_is_not_lost() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    world.backup(&agent, &mut chain, 2, &[]).await;
    let packs = vault::manifest::resolve(&chain).expect("set");
    let looked_at: Vec<_> =
        packs.iter().map(|pack| (pack.id, Some(pack.version_id.clone()))).collect();
    let [first, second] = &looked_at[..] else { panic!("two packs") };
    let old = (first.0, Some("the version before".to_owned()));
    let declared = [old, second.clone()];
    let lost = declare_lost(&world.catalog, agent.scope(), agent.vault, &declared).await;
    assert_eq!(lost.expect("declared"), [second.0]);
}

#[tokio::test]
async fn a_session_is_told_what_of_its_parent_is_lost_and_commits_without_it() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    let first = world.backup(&agent, &mut chain, 3, &[]).await.snapshot;
    let packs = vault::manifest::resolve(&chain).expect("set");
    let ids: Vec<PackId> = packs.iter().map(|pack| pack.id).collect();
    lose(&world, &agent, ids[1]).await;

    let session = world.open(&agent).await;
    let parent = session.parent.clone().expect("its other packs are still worth building on");
    assert_eq!((parent.snapshot_id, &parent.lost), (first.id, &vec![ids[1]]));
    assert!(session.known.is_empty() && agent.adopted(&session).await.is_empty());
    let mut stale = chain.clone();
    let naming = world.manifest(&agent, &session, &mut stale, &[], &[]).await;
    assert_eq!(code_of(&agent.commit(&session, naming.id()).await), Some(Code::PackUnusable));

    let session = world.open(&agent).await;
    let anew = world.upload_some(&agent, &session, 0..1).await;
    let healed = world.manifest(&agent, &session, &mut chain, &anew, &[ids[1]]).await;
    let reply = agent.commit(&session, healed.id()).await.expect("commit");
    assert_eq!(reply.snapshot.parent_id, Some(first.id));
    let next = world.open(&agent).await.parent.expect("the healed one");
    assert_eq!((next.snapshot_id, next.lost), (reply.snapshot.id, vec![]));
}

#[tokio::test]
async fn a_snapshot_whose_manifest_is_lost_is_no_parent_and_the_chain_before_it_goes_on() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(world.backup(&agent, &mut chain, 1, &[]).await.snapshot.id);
    }
    // The newest starts afresh: the manifests before it are no part of it.
    let mut afresh = Vec::new();
    world.backup(&agent, &mut afresh, 1, &[]).await;
    lose(&world, &agent, afresh[0].id).await;

    let session = world.open(&agent).await;
    let parent = session.parent.clone().expect("the one before");
    assert_eq!((parent.snapshot_id, parent.manifest.id), (made[2], chain[0].id));
    assert!(parent.lost.is_empty());
    assert_eq!(session.known.iter().filter(|pack| pack.kind == PackKind::Data).count(), 1);
    let manifest = world.manifest(&agent, &session, &mut chain, &[], &[]).await;
    let reply = agent.commit(&session, manifest.id()).await.expect("commit");

    // Its chain is referenced from one place on; it is still read from the newest to the full list.
    let path = format!("snapshots/{}/restore-grants", reply.snapshot.id);
    let body = RequestRestoreGrants { packs: vec![], completes: None };
    let grants: RestoreGrants = agent.post(&path, &body).await.expect("grants");
    let given: Vec<PackId> = grants.manifests.iter().map(|grant| grant.pack.id).collect();
    let newest_first: Vec<PackId> = chain.iter().map(|link| link.id).collect();
    assert_eq!((given.len(), given), (4, newest_first));
}

#[tokio::test]
async fn with_every_manifest_lost_a_backup_starts_afresh() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    for _ in 0..3 {
        world.backup(&agent, &mut chain, 1, &[]).await;
    }
    // The full list all of them stand on.
    lose(&world, &agent, chain[2].id).await;
    let session = world.open(&agent).await;
    assert!(session.parent.is_none());
    assert_eq!(session.known.len(), 3, "what they hold is used again");
    let fresh = world.upload_some(&agent, &session, 0..1).await;
    let manifest = world.manifest(&agent, &session, &mut Vec::new(), &fresh, &[]).await;
    agent.commit(&session, manifest.id()).await.expect("commit");
}

//! A crash between any two steps: the next session succeeds, and nothing that is referenced is lost.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll},
};

use api::catalog::{ConfirmPack, PackKind, SnapshotPacks};
use authz::actions::SessionWrite;
use catalog::collection::condemn;

use crate::support::{Agent, World, commit_body, put_object, world};

/// After which step the agent's machine loses power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crash {
    Open,
    Allocate,
    Put,
    Confirm,
    ManifestAllocate,
    ManifestPut,
    ManifestConfirm,
    Commit,
}

const STEPS: [Crash; 8] = [
    Crash::Open,
    Crash::Allocate,
    Crash::Put,
    Crash::Confirm,
    Crash::ManifestAllocate,
    Crash::ManifestPut,
    Crash::ManifestConfirm,
    Crash::Commit,
];

/// A backup that stops after one step.
async fn crash(world: &World, agent: &Agent, at: Crash) {
    let session = world.open(agent).await;
    if at == Crash::Open {
        return;
    }
    let mut packs = [agent.random_pack(0, PackKind::Data), agent.random_pack(1, PackKind::Meta)];
    let grants = agent.allocate(&session, &packs).await.expect("grants").grants;
    if at == Crash::Allocate {
        return;
    }
    for (pack, grant) in packs.iter().zip(&grants) {
        put_object(grant.put.as_ref().expect("put"), pack.bytes.clone()).await;
    }
    if at == Crash::Put {
        return;
    }
    agent.upload(&session, &mut packs).await.expect("confirmed");
    if at == Crash::Confirm {
        return;
    }
    let manifest = agent.build(world, &session, &[], &packs, &[]);
    let bytes = manifest.sign(&agent.keys.signing_key()).into();
    let made = [crate::support::Made { seq: 9, kind: PackKind::Manifest, bytes, facts: None }];
    let grant = agent.allocate(&session, &made).await.expect("grant").grants.remove(0);
    if at == Crash::ManifestAllocate {
        return;
    }
    put_object(&grant.put.expect("put"), made[0].bytes.clone()).await;
    if at == Crash::ManifestPut {
        return;
    }
    let claim = ConfirmPack { id: grant.pack.id, version_id: None };
    agent.confirm(&session, vec![claim]).await.expect("confirmed");
    if at == Crash::ManifestConfirm {
        return;
    }
    agent.commit(&session, grant.pack.id).await.expect("committed, and the reply was lost");
}

#[tokio::test]
async fn after_a_crash_at_any_step_the_next_backup_succeeds_and_nothing_referenced_is_lost() {
    for at in STEPS {
        let world = world().await;
        let agent = world.agent(world.app.tenant()).await;
        let before = world.backup(&agent, &mut Vec::new(), 1, &[]).await.snapshot;
        crash(&world, &agent, at).await;
        let after = world.backup(&agent, &mut Vec::new(), 1, &[]).await.snapshot;
        condemn(&world.catalog, agent.scope(), agent.vault).await.expect("collected");
        for snapshot in [before, after] {
            let packs: SnapshotPacks =
                agent.get(&format!("snapshots/{}/packs", snapshot.id)).await.expect("packs");
            for pack in packs.items {
                assert_eq!(pack.state, api::catalog::PackState::Live, "{at:?}");
                let there =
                    world.store.head(&pack.key, pack.version_id.as_deref()).await.expect("head");
                assert!(
                    there.is_some_and(|facts| facts.lock_until >= Some(snapshot.protect_until)),
                    "{at:?}"
                );
            }
        }
    }
}

/// Polls at most `polls` times, then drops the future where it stands. True: it ended by itself.
async fn dropped_after<F: Future>(polls: usize, future: F) -> bool {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|cx: &mut Context<'_>| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        future.as_mut().poll(cx).map(|_| true)
    })
    .await
}

#[tokio::test]
async fn a_server_that_dies_anywhere_in_a_commit_leaves_all_or_nothing_and_the_repeat_succeeds() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let mut chain = Vec::new();
    let (mut polls, mut died, mut through) = (1, 0, 0);
    // How often the future has to wait depends on the machine: on a busy one every answer is there when it looks.
    while (died < 4 || through == 0) && through < 50 {
        let session = world.open(&agent).await;
        let packs = world.upload_some(&agent, &session, 0..2).await;
        let manifest = world.manifest(&agent, &session, &mut chain, &packs, &[]).await;
        let (cx, permit) = (world.cx(&agent), agent.permit::<SessionWrite>());
        let body = commit_body(&session, manifest.id());
        let commit =
            catalog::sessions::commit::commit(&world.catalog, &cx, &permit, session.id, &body);
        let ended = dropped_after(polls, commit).await;
        let half = world
            .count(
                "SELECT count(*) FROM catalog.snapshots s WHERE NOT EXISTS (SELECT FROM catalog.receipts r
                 WHERE r.snapshot_id = s.id) OR NOT EXISTS (SELECT FROM catalog.manifests m WHERE m.snapshot_id = s.id)
                 OR NOT EXISTS (SELECT FROM catalog.sessions c WHERE c.id = s.session_id AND c.state = 'committed')",
            )
            .await;
        assert_eq!(half, 0, "after {polls} polls");
        let reply = agent.commit(&session, manifest.id()).await.expect("the repeat succeeds");
        let packs: SnapshotPacks = agent
            .get(&format!("snapshots/{}/packs?limit=1000", reply.snapshot.id))
            .await
            .expect("packs");
        assert!(
            packs.items.iter().all(|pack| pack.lock_until >= Some(reply.snapshot.protect_until))
        );
        if ended {
            (polls, through) = (1, through + 1);
        } else {
            (polls, died) = (polls + 1, died + 1);
        }
    }
    assert!(died >= 4, "died in {died} places only");
    let snapshots = world.count("SELECT count(*) FROM catalog.snapshots").await;
    assert_eq!(snapshots, died + through);
}

//! Holds and undone expiries as people ask for them: what they keep, who may, what is told and recorded.

use std::{pin::pin, task::Poll};

use api::{
    Code,
    catalog::{ExpiredSnapshot, Hold, HoldState, PlaceHold, ReleaseHold, Snapshot},
    client::{Client, Error},
    page::Page,
};
use authz::Role;
use catalog::{
    collection::{
        GRACE, begin_delete, condemn, expiry_store,
        letting_go::{self, UNDO},
    },
    holds,
};
use domain::{HoldId, SnapshotId};
use http::Method;
use pg::{OperationalReason, TenantTx};

use crate::{
    letting_go::{dailies, state},
    support::{Agent, DAY, World, code_of, world},
};

async fn place(client: &Client, agent: &Agent, id: SnapshotId, why: &str) -> Result<Hold, Error> {
    let body = PlaceHold { reason: why.into() };
    client.post(&agent.path(&format!("snapshots/{id}/holds")), &body).await
}

async fn release(client: &Client, agent: &Agent, id: HoldId, why: &str) -> Result<Hold, Error> {
    let body = ReleaseHold { reason: why.into() };
    client.post(&agent.path(&format!("holds/{id}/release")), &body).await
}

async fn undo(client: &Client, agent: &Agent, id: SnapshotId) -> Result<Snapshot, Error> {
    let path = agent.path(&format!("snapshots/{id}/undo-expiry"));
    client.call(Method::POST, &path, None::<&()>).await
}

async fn list(client: &Client, agent: &Agent, query: &str) -> Page<Hold> {
    client.get(&agent.path(&format!("holds{query}"))).await.expect("holds")
}

async fn expired(client: &Client, agent: &Agent) -> Vec<ExpiredSnapshot> {
    let page: Page<ExpiredSnapshot> =
        client.get(&agent.path("expired-snapshots")).await.expect("expired");
    page.items
}

/// What every round does, without waiting: expire, forget, write the records, condemn, delete. How many packs went.
async fn collect(world: &World, agent: &Agent) -> usize {
    let (app, scope) = (&world.catalog, agent.scope());
    letting_go::expire(app, scope, agent.workload).await.expect("expired");
    letting_go::forget(app, scope, agent.workload).await.expect("forgotten");
    letting_go::write_round(app).await.expect("records");
    condemn(app, scope, agent.vault).await.expect("condemned");
    begin_delete(app, scope, agent.vault).await.expect("warrants").len()
}

#[tokio::test]
async fn a_hold_keeps_a_snapshot_from_every_step_of_going_until_its_last_one_is_released() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let all = dailies(&world, &agent, 5).await;
    // A token lives for minutes.
    let admin = || world.app.user(agent.tenant, Role::TenantAdmin);
    world.advance(500 * DAY);
    let first = place(&admin(), &agent, all[0], "lawsuit").await.expect("held");
    assert_eq!((first.state, first.snapshot_id), (HoldState::Standing, all[0]));
    letting_go::expire(&world.catalog, agent.scope(), agent.workload).await.expect("plan");
    assert_eq!(state(&world, all[1]).await, "expired", "the other one that the rule gives up");
    // One that was on its way comes back under its hold.
    let second = place(&admin(), &agent, all[1], "tax").await.expect("held");
    let third = place(&admin(), &agent, all[1], "lawsuit").await.expect("held twice");
    assert_eq!(state(&world, all[1]).await, "committed");
    for _ in 0..6 {
        world.advance(UNDO);
        assert_eq!(collect(&world, &agent).await, 0, "nothing goes");
        assert_eq!(state(&world, all[0]).await, "committed");
        assert_eq!(state(&world, all[1]).await, "committed");
        assert!(!world.soft_expire(&agent, all[0]).await, "not even straight at the row");
    }
    release(&admin(), &agent, second.id, "assessed").await.expect("released");
    world.advance(UNDO);
    assert_eq!(collect(&world, &agent).await, 0, "another hold stands");
    assert_eq!(state(&world, all[1]).await, "committed");
    for hold in [first.id, third.id] {
        let done = release(&admin(), &agent, hold, "settled").await.expect("released");
        assert_eq!((done.state, done.released_at), (HoldState::Released, Some(world.now())));
    }
    collect(&world, &agent).await;
    world.advance(UNDO);
    collect(&world, &agent).await;
    assert_eq!(state(&world, all[0]).await, "forgotten");
    world.advance(GRACE + DAY);
    assert_eq!(collect(&world, &agent).await, 2, "a pack of each");
}

#[tokio::test]
async fn a_hold_that_is_placed_while_the_plan_expires_the_snapshot_wins() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let all = dailies(&world, &agent, 4).await;
    world.advance(500 * DAY);
    let mut tx = TenantTx::begin(&world.catalog.db, agent.scope()).await.expect("tx");
    assert!(expiry_store::set_expired(&mut tx, all[0], world.now()).await.expect("expired"));
    let (scope, by) = (agent.scope(), agent.actor());
    let mut placing = pin!(holds::place(&world.catalog, scope, &by, all[0], "lawsuit", None));
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let early = loop {
        if let Poll::Ready(held) = futures::poll!(placing.as_mut()) {
            break Some(held);
        }
        if world.count(waiting).await > 0 {
            break None;
        }
    };
    tx.commit_operational(OperationalReason::JobState).await.expect("commit");
    match early {
        Some(held) => held.expect("held"),
        None => placing.await.expect("held"),
    };
    assert_eq!(state(&world, all[0]).await, "committed");
}

#[tokio::test]
async fn an_expiry_is_taken_back_while_it_can_be_and_later_it_is_told_what_is_left_to_do() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let all = dailies(&world, &agent, 6).await;
    // A token lives for minutes.
    let admin = || world.app.user(agent.tenant, Role::TenantAdmin);
    world.advance(500 * DAY);
    assert!(expired(&admin(), &agent).await.is_empty());
    letting_go::expire(&world.catalog, agent.scope(), agent.workload).await.expect("plan");
    let shown = expired(&admin(), &agent).await;
    let ids: Vec<SnapshotId> = shown.iter().map(|one| one.snapshot.id).collect();
    assert_eq!(ids, [all[2], all[1], all[0]], "newest first");
    assert_eq!(shown[0].undo_until, shown[0].expired_at + UNDO);
    let path = format!("snapshots/{}", all[1]);
    assert_eq!(code_of(&agent.get::<Snapshot>(&path).await), Some(Code::NotFound), "hidden");
    world.advance(UNDO - DAY);
    assert_eq!(undo(&admin(), &agent, all[1]).await.expect("undone").id, all[1]);
    assert_eq!(agent.get::<Snapshot>(&path).await.expect("there again").id, all[1]);
    // Asked again it changes nothing.
    undo(&admin(), &agent, all[1]).await.expect("it stands");
    let undone =
        "SELECT count(*) FROM catalog.outbox WHERE payload->>'action' = 'snapshot.expiry_undone'";
    assert_eq!(world.count(undone).await, 1);
    world.advance(DAY);
    letting_go::forget(&world.catalog, agent.scope(), agent.workload).await.expect("for good");
    for late in [all[0], all[2]] {
        let undone = undo(&admin(), &agent, late).await.map(|snapshot| snapshot.id);
        let held = place(&admin(), &agent, late, "lawsuit").await.map(|hold| hold.snapshot_id);
        for refused in [undone, held] {
            let Err(Error::Problem(problem)) = refused else { panic!("{refused:?}") };
            assert_eq!(problem.code, Code::Conflict);
            let told = problem.detail.expect("told");
            for word in ["for good", "14 days", "another snapshot", "place a hold"] {
                assert!(told.contains(word), "{told}");
            }
        }
    }
    assert!(expired(&admin(), &agent).await.is_empty(), "what is over is not offered");
    let unknown: SnapshotId = world.app.id();
    assert_eq!(code_of(&undo(&admin(), &agent, unknown).await), Some(Code::NotFound));
}

#[tokio::test]
async fn both_ends_of_a_hold_say_why_and_are_recorded_once() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let id = world.backup(&agent, &mut Vec::new(), 1, &[]).await.snapshot.id;
    // A token lives for minutes.
    let admin = || world.app.user(agent.tenant, Role::TenantAdmin);
    for silent in ["", " \n", &"x".repeat(1_001)] {
        let refused = place(&admin(), &agent, id, silent).await;
        assert_eq!(code_of(&refused), Some(Code::Validation));
    }
    let hold = place(&admin(), &agent, id, " lawsuit 7 ").await.expect("held");
    assert_eq!((hold.reason.as_str(), hold.placed_at), ("lawsuit 7", world.now()));
    assert!(hold.placed_by.as_deref().expect("who").starts_with("usr_"));
    assert_eq!(code_of(&release(&admin(), &agent, hold.id, " ").await), Some(Code::Validation));
    assert_eq!(list(&admin(), &agent, "?state=released").await.items, []);
    let released = release(&admin(), &agent, hold.id, "settled").await.expect("released");
    let again = release(&admin(), &agent, hold.id, "settled").await.expect("the same");
    assert_eq!((released.released_because.as_deref(), &again), (Some("settled"), &released));
    let other = release(&admin(), &agent, hold.id, "another reason").await;
    assert_eq!(code_of(&other), Some(Code::Conflict));
    let recorded = "SELECT count(*) FROM catalog.outbox WHERE topic = 'audit'
        AND (payload->>'action', payload->'details'->>'reason') IN
            (('snapshot.held', 'lawsuit 7'), ('snapshot.hold_released', 'settled'))
        AND payload->'details'->>'hold_id' IS NOT NULL";
    assert_eq!(world.count(recorded).await, 2);
    // Pages, newest first.
    world.advance(DAY);
    let next = place(&admin(), &agent, id, "tax").await.expect("held");
    let page = list(&admin(), &agent, &format!("?limit=1&snapshot_id={id}")).await;
    assert_eq!(page.items, std::slice::from_ref(&next));
    let cursor = page.next_cursor.expect("more");
    let rest = list(&admin(), &agent, &format!("?limit=1&cursor={cursor}")).await;
    assert_eq!((rest.items, rest.next_cursor), (vec![released], None));
    assert_eq!(list(&admin(), &agent, "?state=standing").await.items, [next]);
}

#[tokio::test]
async fn a_repeated_request_places_one_hold_and_its_key_is_for_that_request() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let id = world.backup(&agent, &mut Vec::new(), 1, &[]).await.snapshot.id;
    let (app, scope, by) = (&world.catalog, agent.scope(), agent.actor());
    let keyed =
        async |why: &str, key: &str| holds::place(app, scope, &by, id, why, Some(key)).await;
    let (one, two) = tokio::join!(keyed("lawsuit", "k-1"), keyed("lawsuit", "k-1"));
    let (one, two) = (one.expect("held"), two.expect("the same"));
    assert_eq!((&one, world.count("SELECT count(*) FROM catalog.snapshot_holds").await), (&two, 1));
    assert_eq!(keyed("tax", "k-1").await.map_err(|e| e.code()), Err(Code::Conflict));
    for wrong in ["", "two words", &"k".repeat(201)] {
        assert_eq!(keyed("lawsuit", wrong).await.map_err(|e| e.code()), Err(Code::Validation));
    }
    assert_ne!(keyed("lawsuit", "k-2").await.expect("another").id, one.id);
}

#[tokio::test]
async fn who_places_a_hold_may_not_always_release_it_and_agents_do_neither() {
    let world = world().await;
    let agent = world.agent(world.app.tenant()).await;
    let id = world.backup(&agent, &mut Vec::new(), 1, &[]).await.snapshot.id;
    let hold = world.hold(&agent, id).await;
    let operator = world.app.user(agent.tenant, Role::TenantOperator);
    place(&operator, &agent, id, "lawsuit").await.expect("keeps more");
    let msp = world.app.msp_user(world.app.tenant(), agent.tenant, Role::MspOwner);
    let auditor = world.app.user(agent.tenant, Role::Auditor);
    for client in [&operator, &msp, &auditor, &agent.client] {
        let refused = release(client, &agent, hold, "settled").await;
        assert_eq!(code_of(&refused), Some(Code::Forbidden));
    }
    assert_eq!(code_of(&place(&agent.client, &agent, id, "x").await), Some(Code::Forbidden));
    assert_eq!(code_of(&undo(&agent.client, &agent, id).await), Some(Code::Forbidden));
    assert_eq!(list(&auditor, &agent, "").await.items.len(), 2);
    let approver = world.app.user(agent.tenant, Role::TenantApprover);
    release(&approver, &agent, hold, "settled").await.expect("released");
    // Another tenant's admin: there is no such thing.
    let other = world.agent(world.app.tenant()).await;
    let stranger = world.app.user(other.tenant, Role::TenantAdmin);
    let theirs = list(&operator, &agent, "?state=standing").await.items[0].id;
    assert_eq!(code_of(&release(&stranger, &other, theirs, "x").await), Some(Code::NotFound));
    assert_eq!(code_of(&place(&stranger, &other, id, "x").await), Some(Code::NotFound));
    assert_eq!(code_of(&undo(&stranger, &other, id).await), Some(Code::NotFound));
    assert_eq!(list(&stranger, &other, "").await.items, []);
}

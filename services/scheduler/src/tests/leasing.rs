//! Leases: who gets one, who loses it.

use super::*;

#[tokio::test]
async fn of_many_pollers_exactly_one_gets_the_run() {
    let world = world().await;
    world.knows(world.workload);
    for round in 0..5 {
        let body = world.create(&["/srv"]);
        let run: Run = world.admin.post(&world.path("runs"), &body).await.expect("queued");
        let polls = futures::future::join_all((0..8).map(|_| world.poll(0))).await;
        let got: Vec<Assigned> = polls.into_iter().filter_map(|p| p.expect("polls")).collect();
        assert_eq!(got.len(), 1, "round {round}: {got:?}");
        assert_eq!(got[0].run(), run.id);
        assert_eq!(got[0].0.epoch, round + 1);
        let end = world.end(&got[0], RunState::Failed, None);
        world.finish(run.id, &end).await.expect("ends");
    }
}

#[tokio::test]
async fn a_waiting_agent_is_woken_by_a_queued_run() {
    let world = world().await;
    world.knows(world.workload);
    let queue = async {
        // The poll is waiting by the time its first look has found nothing.
        tokio::task::yield_now().await;
        let body = world.create(&["/srv"]);
        world.admin.post::<_, Run>(&world.path("runs"), &body).await.expect("queued")
    };
    let (polled, run) = tokio::join!(world.poll(30), queue);
    assert_eq!(polled.expect("polls").expect("leased").run(), run.id);
}

#[tokio::test]
async fn an_agent_waits_with_two_polls_and_no_third() {
    let world = world().await;
    world.knows(world.workload);
    let polls = futures::future::join_all((0..3).map(|_| world.poll(1))).await;
    let (waited, refused): (Vec<_>, Vec<_>) = polls.into_iter().partition(Result::is_ok);
    assert!(waited.into_iter().all(|poll| poll.expect("polls").is_none()));
    let refused: Vec<Code> = refused.into_iter().map(code).collect();
    assert_eq!(refused, [Code::TooManyRequests]);
    // Both seats are free again, and a look is no wait.
    let looks = futures::future::join_all((0..3).map(|_| world.poll(0))).await;
    assert!(looks.iter().all(Result::is_ok));
    let body = world.create(&["/srv"]);
    world.admin.post::<_, Run>(&world.path("runs"), &body).await.expect("queued");
    assert!(world.poll(30).await.expect("polls").is_some());
}

#[tokio::test]
async fn waiting_agents_keep_nobody_out() {
    // One for a request, one for what it asks another role.
    let limits = runtime::Limits { in_flight: 2, ..runtime::Limits::default() };
    let world = world_of(Duration::from_millis(20), limits).await;
    world.knows(world.workload);
    let waiting = world.poll(30);
    let work = async {
        let body = world.create(&["/srv"]);
        loop {
            // Refused only until the poll has given its slot back.
            match world.admin.post::<_, Run>(&world.path("runs"), &body).await {
                Ok(run) => break run,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            tokio::task::yield_now().await;
        }
    };
    let (polled, run) = tokio::join!(waiting, work);
    assert_eq!(polled.expect("polls").expect("leased").run(), run.id);
}

#[tokio::test]
async fn the_lease_token_says_who_holds_what_at_which_epoch() {
    let world = world().await;
    let got = world.start(&world.agent).await.expect("starts");
    let keys = &world.app.platform(RoleName::Catalog).service_keys;
    let claims = keys.verify_lease(&got.0.lease_token, world.app.now()).expect("signed");
    assert_eq!((claims.tenant, claims.agent), (world.tenant, world.agent.id));
    assert_eq!((claims.run, claims.workload), (got.run(), world.workload));
    assert_eq!(claims.epoch, got.0.epoch);
    world.app.advance(Duration::from_secs(70));
    assert!(keys.verify_lease(&got.0.lease_token, world.app.now()).is_err());
}

#[tokio::test]
async fn while_a_run_lives_a_second_one_of_its_workload_is_a_conflict() {
    let world = world_with(Duration::from_secs(30)).await;
    let first = world.start(&world.agent).await.expect("starts");
    let second = world.start(&world.agent);
    tokio::pin!(second);
    // The first one beats until the second one has been told.
    let refused = loop {
        tokio::select! {
            refused = &mut second => break refused,
            beat = world.beat(first.run(), first.0.epoch) => {
                beat.expect("alive");
                world.app.advance(Duration::from_millis(50));
            }
        }
    };
    let Err(Error::Problem(problem)) = refused else { panic!("started twice") };
    assert_eq!(problem.code, Code::Conflict);
    assert!(problem.detail.expect("words").contains(&first.run().to_string()));
    assert_eq!(world.get(first.run()).await.state, RunState::Running);
}

#[tokio::test]
async fn a_wake_that_changes_no_lease_is_not_silence() {
    let world = world_with(Duration::from_secs(30)).await;
    let first = world.start(&world.agent).await.expect("starts");
    let second = world.start(&world.agent);
    tokio::pin!(second);
    for _ in 0..3 {
        let beaten = async {
            while !world.state.hub.is_watched(first.run().uuid()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // At the very instant of the start: the lease ends when it ended before.
            world.beat(first.run(), first.0.epoch).await.expect("alive");
        };
        tokio::select! {
            told = &mut second => panic!("told after no silence: {told:?}"),
            () = beaten => {}
        }
    }
    world.app.advance(Duration::from_millis(50));
    let (second, beaten) = tokio::join!(second, world.beat(first.run(), first.0.epoch));
    beaten.expect("alive");
    assert_eq!(code(second), Code::Conflict);
    assert_eq!(world.get(first.run()).await.state, RunState::Running);
}

#[tokio::test]
async fn a_killed_agent_starts_again_without_waiting_for_its_lease() {
    let world = world().await;
    let killed = world.start(&world.agent).await.expect("starts");
    let next = world.start(&world.agent).await.expect("starts again");
    assert!(next.0.epoch > killed.0.epoch);
    assert_eq!(world.get(killed.run()).await.state, RunState::Lost);
    // The first one was only paused: it must not get back in.
    assert_eq!(code(world.beat(killed.run(), killed.0.epoch).await), Code::LeaseLost);
    assert_eq!(world.events().await, ["run.started", "run.lost", "run.started"]);
}

#[tokio::test]
async fn an_epoch_that_is_not_the_leases_is_refused() {
    let world = world().await;
    let got = world.start(&world.agent).await.expect("starts");
    for epoch in [0, got.0.epoch + 1, u64::MAX] {
        assert_eq!(code(world.beat(got.run(), epoch).await), Code::LeaseLost);
        let end = FinishRun { epoch, ..world.end(&got, RunState::Failed, None) };
        assert_eq!(code(world.finish(got.run(), &end).await), Code::LeaseLost);
    }
    assert_eq!(world.get(got.run()).await.state, RunState::Running);
}

#[tokio::test]
async fn heartbeats_keep_a_lease_and_silence_loses_it() {
    let world = world().await;
    let got = world.start(&world.agent).await.expect("starts");
    for _ in 0..3 {
        world.app.advance(Duration::from_secs(40));
        let reply = world.beat(got.run(), got.0.epoch).await.expect("alive");
        assert_eq!(reply.lease_until, world.app.now() + Duration::from_secs(60));
        assert_eq!(world.state.expire(world.app.now()).await.expect("looks"), 0);
    }
    assert_eq!(world.get(got.run()).await.progress, figures(5));
    world.app.advance(Duration::from_secs(60));
    assert_eq!(world.state.expire(world.app.now()).await.expect("looks"), 1);
    let run = world.get(got.run()).await;
    assert_eq!((run.state, run.ended_at), (RunState::Lost, Some(world.app.now())));
    assert_eq!(code(world.beat(got.run(), got.0.epoch).await), Code::LeaseLost);
}

#[tokio::test]
async fn a_queued_run_nobody_fetched_in_a_day_is_missed() {
    let world = world().await;
    world.knows(world.workload);
    let body = world.create(&["/srv"]);
    let run: Run = world.admin.post(&world.path("runs"), &body).await.expect("queued");
    world.app.advance(Duration::from_secs(24 * 3_600));
    assert_eq!(world.state.expire(world.app.now()).await.expect("looks"), 1);
    let admin = world.app.user(world.tenant, authz::Role::TenantAdmin);
    let found: Run = admin.get(&world.path(format_args!("runs/{}", run.id))).await.expect("there");
    assert_eq!(found.state, RunState::Missed);
    assert!(world.poll(0).await.expect("polls").is_none());
}

#[tokio::test]
async fn a_queued_run_waits_while_a_local_one_runs() {
    let world = world().await;
    let local = world.start(&world.agent).await.expect("starts");
    let body = CreateRun { workload_id: world.workload, source: None };
    let queued: Run = world.admin.post(&world.path("runs"), &body).await.expect("queued");
    assert!(world.poll(0).await.expect("polls").is_none());
    let end = world.end(&local, RunState::Canceled, None);
    world.finish(local.run(), &end).await.expect("ends");
    assert_eq!(world.poll(0).await.expect("polls").expect("leased").run(), queued.id);
}

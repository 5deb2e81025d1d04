//! How runs end: by report, by the catalog's word, by cancelling.

use domain::source::{ExceptionKind, RunException};
use http::Request;

use super::*;

#[tokio::test]
async fn a_receipt_proves_success_and_a_repeated_report_changes_nothing() {
    let world = world().await;
    let got = world.start(&world.agent).await.expect("starts");
    let snapshot = world.app.id();
    let mut end = world.end(&got, RunState::SucceededWithExceptions, Some(snapshot));
    end.exceptions = vec![RunException {
        path: "/srv/secret\nfile".into(),
        path_b64: None,
        kind: ExceptionKind::Unreadable,
        detail: "Permission denied".into(),
    }];
    for _ in 0..2 {
        let run = world.finish(got.run(), &end).await.expect("ends");
        assert_eq!(run.state, RunState::SucceededWithExceptions);
        assert_eq!((run.snapshot_id, run.exceptions.len()), (Some(snapshot), 1));
        assert_eq!((run.progress.files, run.progress.phase.as_str()), (7, ""));
    }
    let failed = world.end(&got, RunState::Failed, None);
    assert_eq!(code(world.finish(got.run(), &failed).await), Code::Conflict);
    world.commit(got.run(), snapshot, RoleName::Catalog).await.expect("taken");
    assert_eq!(world.events().await, ["run.started", "run.finished"]);
}

fn unreadable(path: &str) -> RunException {
    RunException {
        path: path.into(),
        path_b64: None,
        kind: ExceptionKind::Unreadable,
        detail: "Permission denied".into(),
    }
}

#[tokio::test]
async fn a_run_that_skipped_something_never_ends_as_plainly_succeeded() {
    let world = world().await;
    let snapshot = world.app.id();
    for counted in [true, false] {
        let got = world.start(&world.agent).await.expect("starts");
        let mut end = world.end(&got, RunState::Succeeded, Some(snapshot));
        if counted {
            end.progress.exceptions = 2;
        } else {
            end.exceptions = vec![unreadable("/srv/secret")];
        }
        let run = world.finish(got.run(), &end).await.expect("ends");
        assert_eq!(run.state, RunState::SucceededWithExceptions);
        assert_eq!(run.progress.exceptions, if counted { 2 } else { 1 });
    }
}

#[tokio::test]
async fn the_catalogs_word_about_exceptions_counts_before_and_after_the_report() {
    let world = world().await;
    let snapshot = world.app.id();
    let early = world.start(&world.agent).await.expect("starts");
    let told = world.commit_skipping(3, early.run(), snapshot, RoleName::Catalog).await;
    told.expect("taken");
    let end = world.end(&early, RunState::Succeeded, Some(snapshot));
    let run = world.finish(early.run(), &end).await.expect("ends");
    assert_eq!(run.state, RunState::SucceededWithExceptions);

    let snapshot = world.app.id();
    let late = world.start(&world.agent).await.expect("starts");
    let end = world.end(&late, RunState::Succeeded, Some(snapshot));
    let ended = world.finish(late.run(), &end).await.expect("ends");
    assert_eq!(ended.state, RunState::Succeeded);
    world.app.advance(Duration::from_secs(5));
    for _ in 0..2 {
        let told = world.commit_skipping(3, late.run(), snapshot, RoleName::Catalog).await;
        told.expect("taken");
    }
    let run = world.get(late.run()).await;
    assert_eq!(run.state, RunState::SucceededWithExceptions);
    assert_eq!(run.ended_at, ended.ended_at, "a correction is no second end");
    let events = world.events().await;
    assert_eq!(
        events[2..],
        ["run.started", "run.finished", "run.corrected"],
        "once, however often it is told"
    );
}

#[tokio::test]
async fn a_receipt_of_another_run_or_nobodys_proves_nothing() {
    let world = world().await;
    let got = world.start(&world.agent).await.expect("starts");
    let snapshot = world.app.id();
    let good = world.end(&got, RunState::Succeeded, Some(snapshot));
    let other = Some(world.receipt(world.app.id(), snapshot));
    for receipt in [other, Some("AAAA".into()), Some("not base64!".into())] {
        let end = FinishRun { receipt, ..good.clone() };
        assert_eq!(code(world.finish(got.run(), &end).await), Code::Validation);
    }
    let end = FinishRun { snapshot_id: Some(world.app.id()), ..good.clone() };
    assert_eq!(code(world.finish(got.run(), &end).await), Code::Validation);
    for state in [RunState::Lost, RunState::Running, RunState::Missed] {
        let end = FinishRun { state, ..good.clone() };
        assert_eq!(code(world.finish(got.run(), &end).await), Code::Validation);
    }
    assert_eq!(world.get(got.run()).await.state, RunState::Running);
}

#[tokio::test]
async fn success_without_a_receipt_waits_for_the_catalogs_word() {
    let world = world().await;
    let got = world.start(&world.agent).await.expect("starts");
    let end = world.end(&got, RunState::Succeeded, None);
    let run = world.finish(got.run(), &end).await.expect("taken");
    assert_eq!((run.state, run.snapshot_id), (RunState::Running, None));
    let snapshot = world.app.id();
    world.commit(got.run(), snapshot, RoleName::Catalog).await.expect("taken");
    let run = world.get(got.run()).await;
    assert_eq!((run.state, run.snapshot_id), (RunState::Succeeded, Some(snapshot)));
}

#[tokio::test]
async fn a_lost_run_whose_snapshot_committed_has_succeeded() {
    let world = world().await;
    let got = world.start(&world.agent).await.expect("starts");
    world.app.advance(Duration::from_secs(61));
    world.state.expire(world.app.now()).await.expect("looks");
    let snapshot = world.app.id();
    for _ in 0..2 {
        world.commit(got.run(), snapshot, RoleName::Catalog).await.expect("taken");
    }
    let run = world.get(got.run()).await;
    assert_eq!((run.state, run.snapshot_id), (RunState::Succeeded, Some(snapshot)));
    assert_eq!(world.events().await, ["run.started", "run.lost", "run.finished"]);
    // A fact about a run nobody knows does not hold up the ones behind it.
    world.commit(world.app.id(), snapshot, RoleName::Catalog).await.expect("taken");
}

#[tokio::test]
async fn an_agent_that_dies_after_its_commit_has_succeeded() {
    let world = world().await;
    let got = world.start(&world.agent).await.expect("starts");
    let snapshot = world.app.id();
    world.commit(got.run(), snapshot, RoleName::Catalog).await.expect("taken");
    assert_eq!(world.get(got.run()).await.state, RunState::Running);
    world.app.advance(Duration::from_secs(61));
    world.state.expire(world.app.now()).await.expect("looks");
    assert_eq!(world.get(got.run()).await.state, RunState::Succeeded);
}

#[tokio::test]
async fn only_the_catalog_is_believed_about_commits() {
    let world = world().await;
    let got = world.start(&world.agent).await.expect("starts");
    for role in [RoleName::Auth, RoleName::Audit, RoleName::Billing, RoleName::Scheduler] {
        let told = world.commit(got.run(), world.app.id(), role).await;
        assert_eq!(code(told), Code::Forbidden);
    }
}

#[tokio::test]
async fn a_queued_run_is_canceled_at_once_and_a_running_one_is_told() {
    let world = world().await;
    world.knows(world.workload);
    let body = world.create(&["/srv"]);
    let queued: Run = world.admin.post(&world.path("runs"), &body).await.expect("queued");
    for _ in 0..2 {
        assert_eq!(world.cancel(queued.id).await.expect("canceled").state, RunState::Canceled);
    }
    assert!(world.poll(0).await.expect("polls").is_none());

    let got = world.start(&world.agent).await.expect("starts");
    assert!(!world.beat(got.run(), got.0.epoch).await.expect("alive").cancel);
    let run = world.cancel(got.run()).await.expect("asked");
    assert_eq!((run.state, run.cancel_requested), (RunState::Running, true));
    assert!(world.beat(got.run(), got.0.epoch).await.expect("alive").cancel);
    let end = world.end(&got, RunState::Canceled, None);
    assert_eq!(world.finish(got.run(), &end).await.expect("ends").state, RunState::Canceled);
    let events =
        ["run.queued", "run.canceled", "run.started", "run.cancel_requested", "run.finished"];
    assert_eq!(world.events().await, events);
    let failed = world.start(&world.agent).await.expect("starts");
    world.finish(failed.run(), &world.end(&failed, RunState::Failed, None)).await.expect("ends");
    assert_eq!(code(world.cancel(failed.run()).await), Code::Conflict);
}

#[tokio::test]
async fn nobody_opens_streams_without_end() {
    let world = world().await;
    let got = world.start(&world.agent).await.expect("starts");
    let path = world.path(format_args!("runs/{}/events", got.run()));
    let open = async |user: &authz::User| {
        let request = Request::get(format!("http://everhold.test{path}"))
            .header("authorization", format!("Bearer {}", world.app.token(user)))
            .body(axum::body::Body::empty())
            .expect("request");
        let router = world.app.assembly().public.clone();
        tower::ServiceExt::oneshot(router, request).await.expect("infallible")
    };
    let user = |id| authz::User {
        id,
        home: world.tenant,
        tenant: world.tenant,
        kind: authz::TenantKind::Tenant,
        roles: vec![authz::Role::TenantOperator],
    };
    let (one, other) = (user(world.app.id()), user(world.app.id()));
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(open(&one).await);
    }
    assert!(streams.iter().all(|stream| stream.status() == 200));
    assert_eq!(open(&one).await.status(), 429);
    assert_eq!(open(&other).await.status(), 200, "another one's share is its own");
    streams.pop();
    assert_eq!(open(&one).await.status(), 200, "a closed stream makes room");
}

#[tokio::test]
async fn a_stream_shows_every_change_and_ends_with_the_run() {
    let world = world().await;
    let got = world.start(&world.agent).await.expect("starts");
    let user = authz::User {
        id: world.app.id(),
        home: world.tenant,
        tenant: world.tenant,
        kind: authz::TenantKind::Tenant,
        roles: vec![authz::Role::TenantOperator],
    };
    let path = world.path(format_args!("runs/{}/events", got.run()));
    let request = Request::get(format!("http://everhold.test{path}"))
        .header("authorization", format!("Bearer {}", world.app.token(&user)))
        .body(bytes::Bytes::new())
        .expect("request");
    let work = async {
        world.beat(got.run(), got.0.epoch).await.expect("alive");
        let end = world.end(&got, RunState::Failed, None);
        world.finish(got.run(), &end).await.expect("ends");
    };
    let (response, ()) = tokio::join!(world.app.raw(request), work);
    assert_eq!(response.headers()[http::header::CONTENT_TYPE], "text/event-stream");
    let text = String::from_utf8(response.body().to_vec()).expect("text");
    let last = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back();
    let run: Run = serde_json::from_str(last.expect("an event")).expect("a run");
    assert_eq!(run.state, RunState::Failed);
    assert!(text.starts_with("event: run\n"));
}

//! Asking for runs, finding them, borders.

use api::Page;
use http::{Request, StatusCode};

use super::*;

#[tokio::test]
async fn a_person_repeats_what_the_last_run_read() {
    let world = world().await;
    let first = world.start(&world.agent).await.expect("starts");
    let done = world.end(&first, RunState::Failed, None);
    world.finish(first.run(), &done).await.expect("ends");
    let body = CreateRun { workload_id: world.workload, source: None };
    let run: Run = world.admin.post(&world.path("runs"), &body).await.expect("queued");
    assert_eq!((run.state, run.source), (RunState::Queued, source(&["/srv"])));
    let again = world.admin.post::<_, Run>(&world.path("runs"), &body).await;
    assert_eq!(code(again), Code::Conflict);
    assert_eq!(world.events().await, ["run.started", "run.finished", "run.queued"]);
}

#[tokio::test]
async fn a_workload_nobody_has_run_is_looked_up_in_the_catalog() {
    let world = world().await;
    let path = world.path("runs");
    let without = CreateRun { workload_id: world.workload, source: None };
    assert_eq!(code(world.admin.post::<_, Run>(&path, &without).await), Code::NotFound);
    world.knows(world.workload);
    assert_eq!(code(world.admin.post::<_, Run>(&path, &without).await), Code::NoSources);
    let with = world.create(&["/home"]);
    let run: Run = world.admin.post(&path, &with).await.expect("queued");
    assert_eq!(run.agent_id, world.agent.id);
    assert_eq!(world.poll(0).await.expect("polls").expect("leased").run(), run.id);
}

#[tokio::test]
async fn wrong_sources_are_refused_with_every_field_named() {
    let world = world().await;
    let body = world.create(&["relative", "/bell\u{7}"]);
    let error = world.agent.client.post::<_, Assignment>(&world.path("local-runs"), &body).await;
    let Err(Error::Problem(problem)) = error else { panic!("accepted") };
    assert_eq!(problem.code, Code::Validation);
    let fields: Vec<&str> = problem.fields.iter().map(|field| field.field.as_str()).collect();
    assert_eq!(fields, ["source/paths/0", "source/paths/1"]);
    assert_eq!(code(world.poll(31).await), Code::Validation);
    let listed = world.admin.get::<Page<Run>>(&world.path("runs?cursor=nonsense")).await;
    assert_eq!(code(listed), Code::Validation);
    let unknown = serde_json::json!({ "workload_id": world.workload, "command": "rm" });
    let sent = world.agent.client.post::<_, Assignment>(&world.path("local-runs"), &unknown).await;
    assert_eq!(code(sent.map(|_| ())), Code::Validation);
}

#[tokio::test]
async fn nobody_and_the_wrong_role_are_refused() {
    let world = world().await;
    let run = world.start(&world.agent).await.expect("starts").run();
    let one = world.path(format_args!("runs/{run}"));
    assert_eq!(code(world.app.client().get::<Run>(&one).await), Code::Unauthenticated);
    let viewer = world.app.user(world.tenant, authz::Role::BillingViewer);
    assert_eq!(code(viewer.get::<Run>(&one).await), Code::Forbidden);
    let auditor = world.app.user(world.tenant, authz::Role::Auditor);
    auditor.get::<Run>(&one).await.expect("an auditor reads");
    let cancel = auditor.post::<_, Run>(&format!("{one}/cancel"), &serde_json::json!({})).await;
    assert_eq!(code(cancel), Code::Forbidden);
    let body = world.create(&["/srv"]);
    let local = world.admin.post::<_, Assignment>(&world.path("local-runs"), &body).await;
    assert_eq!(code(local.map(|_| ())), Code::Forbidden);
    let queued = world.agent.client.post::<_, Run>(&world.path("runs"), &body).await;
    assert_eq!(code(queued), Code::Forbidden);
}

#[tokio::test]
async fn what_belongs_to_another_tenant_does_not_exist() {
    let world = world().await;
    let run = world.start(&world.agent).await.expect("starts").run();
    let elsewhere = world.app.tenant();
    let stranger = world.app.user(elsewhere, authz::Role::TenantAdmin);
    let spy = world.app.agent(elsewhere);
    for path in [
        world.path(format_args!("runs/{run}")),
        format!("/v1/tenants/{elsewhere}/runs/{run}"),
        format!("/v1/tenants/{elsewhere}/runs/{run}/events"),
        format!("/v1/tenants/{elsewhere}/runs/run_nonsense"),
    ] {
        assert_eq!(code(stranger.get::<Run>(&path).await), Code::NotFound, "{path}");
    }
    let beat = RunHeartbeat { epoch: 1, progress: figures(1) };
    let path = format!("/v1/tenants/{elsewhere}/runs/{run}/heartbeat");
    assert_eq!(code(spy.client.post::<_, HeartbeatReply>(&path, &beat).await), Code::NotFound);
    let theirs = CreateRun { workload_id: world.workload, source: None };
    let path = format!("/v1/tenants/{elsewhere}/runs");
    assert_eq!(code(stranger.post::<_, Run>(&path, &theirs).await), Code::NotFound);
    let page: Page<Run> = stranger.get(&path).await.expect("lists");
    assert!(page.items.is_empty());
}

#[tokio::test]
async fn another_agent_of_the_tenant_cannot_touch_a_run_or_take_a_workload() {
    let world = world().await;
    let first = world.start(&world.agent).await.expect("starts");
    let other = world.app.agent(world.tenant);
    assert_eq!(code(world.start(&other).await), Code::NotFound);
    let beat = RunHeartbeat { epoch: first.0.epoch, progress: figures(1) };
    let path = world.path(format_args!("runs/{}/heartbeat", first.run()));
    assert_eq!(code(other.client.post::<_, HeartbeatReply>(&path, &beat).await), Code::NotFound);
    let end = world.end(&first, RunState::Failed, None);
    let path = world.path(format_args!("runs/{}/finish", first.run()));
    assert_eq!(code(other.client.post::<_, Run>(&path, &end).await), Code::NotFound);
}

#[tokio::test]
async fn an_agent_sees_its_own_runs_and_no_other_machines() {
    let world = world().await;
    let run = world.start(&world.agent).await.expect("starts").run();
    let other = world.app.agent(world.tenant);
    for rest in ["", "/events"] {
        let real = world.path(format_args!("runs/{run}{rest}"));
        let random = world.path(format_args!("runs/{}{rest}", world.app.id::<domain::id::Run>()));
        let mut answers = Vec::new();
        for path in [real, random] {
            let Err(Error::Problem(mut problem)) = other.client.get::<Run>(&path).await else {
                panic!("{path} is shown")
            };
            problem.request_id = None;
            answers.push(problem);
        }
        assert_eq!(answers[0].code, Code::NotFound);
        assert_eq!(answers[0], answers[1], "as if it did not exist");
    }
    let list = world.path("runs");
    let theirs: Page<Run> = other.client.get(&list).await.expect("lists");
    assert!(theirs.items.is_empty());
    let filtered = format!("{list}?workload_id={}", world.workload);
    assert!(other.client.get::<Page<Run>>(&filtered).await.expect("lists").items.is_empty());
    let own: Page<Run> = world.agent.client.get(&list).await.expect("lists");
    assert_eq!(own.items.iter().map(|run| run.id).collect::<Vec<_>>(), [run]);
    let one: Run =
        world.agent.client.get(&world.path(format_args!("runs/{run}"))).await.expect("its own");
    assert_eq!(one.id, run);
}

#[tokio::test]
async fn the_same_request_under_its_key_makes_one_run() {
    let world = world().await;
    world.knows(world.workload);
    let user = authz::User {
        id: world.app.id(),
        home: world.tenant,
        tenant: world.tenant,
        kind: authz::TenantKind::Tenant,
        roles: vec![authz::Role::TenantAdmin],
    };
    let token = world.app.token(&user);
    let send = async |paths: &[&str]| {
        let body = serde_json::to_vec(&world.create(paths)).expect("json");
        let request = Request::post(format!("http://everhold.test{}", world.path("runs")))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .header("idempotency-key", "press-1")
            .body(body.into())
            .expect("request");
        let response = world.app.raw(request).await;
        (
            response.status(),
            serde_json::from_slice::<serde_json::Value>(response.body()).expect("json"),
        )
    };
    let (status, first) = send(&["/srv"]).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, again) = send(&["/srv"]).await;
    assert_eq!((status, &again["id"]), (StatusCode::CREATED, &first["id"]));
    let (status, _) = send(&["/other"]).await;
    assert_eq!(status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn lists_page_by_key_newest_first() {
    let world = world().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        world.app.advance(Duration::from_secs(1));
        let run = world.start(&world.agent).await.expect("starts");
        world.finish(run.run(), &world.end(&run, RunState::Failed, None)).await.expect("ends");
        ids.push(run.run());
    }
    ids.reverse();
    let first: Page<Run> = world.admin.get(&world.path("runs?limit=2")).await.expect("lists");
    let cursor = first.next_cursor.expect("more");
    let path = world.path(format_args!("runs?limit=3&cursor={cursor}"));
    let rest: Page<Run> = world.admin.get(&path).await.expect("lists");
    assert_eq!(rest.next_cursor, None);
    let found: Vec<RunId> = first.items.iter().chain(&rest.items).map(|run| run.id).collect();
    assert_eq!(found, ids);
    let other: WorkloadId = world.app.id();
    let path = world.path(format_args!("runs?workload_id={other}"));
    assert!(world.admin.get::<Page<Run>>(&path).await.expect("lists").items.is_empty());
}

#[tokio::test]
async fn the_schema_keeps_the_rules_of_the_house() {
    let world = world().await;
    world.start(&world.agent).await.expect("starts");
    let database = world.app.database();
    world.write(&super::policies::policy("nightly")).await.expect("made");
    let violations =
        testkit::schema::violations(database, pg::Schema::Scheduler).await.expect("asked");
    assert_eq!(violations, Vec::<String>::new());
    for probed in testkit::schema::probe(database, pg::Schema::Scheduler).await.expect("probed") {
        assert!(probed.rows > 0, "{probed:?} proves nothing");
        assert!(probed.seen.is_none_or(|seen| seen == 0), "{probed:?}");
    }
}

//! The record: gapless, each event once, read newest first, and reading it is in it.
#![expect(clippy::unwrap_used, reason = "tests say what went wrong by panicking")]

use std::collections::BTreeSet;

use api::{
    Code, Page,
    audit::{AuditEvent, EventActor, RecordedEvent},
    client::{Client, Error},
    internal::{DeliverFacts, Fact},
};
use authz::Role;
use domain::TenantId;
use runtime::RoleName;
use testkit::TestApp;

async fn app() -> TestApp {
    let audit = |platform| audit::role(&platform);
    TestApp::builder().role(RoleName::Audit, audit).start().await.unwrap()
}

fn event(app: &TestApp, tenant_id: TenantId) -> AuditEvent {
    AuditEvent {
        id: app.id(),
        tenant_id,
        action: "snapshot.committed".into(),
        actor: EventActor { kind: "agent".into(), id: "agt_x".into(), home_tenant_id: None },
        subject_kind: "snapshot".into(),
        subject_id: "snp_x".into(),
        occurred_at: app.now(),
        request_id: Some("req_x".into()),
        details: serde_json::Map::new(),
    }
}

async fn deliver(app: &TestApp, events: &[AuditEvent]) -> Result<(), Error> {
    let facts = events.iter().cloned().map(Fact::Audit).collect();
    let catalog = app.service(RoleName::Catalog, RoleName::Audit);
    catalog.post("/internal/v1/outbox", &DeliverFacts { facts }).await
}

async fn page(reader: &Client, tenant: TenantId, query: &str) -> Page<RecordedEvent> {
    reader.get(&format!("/v1/tenants/{tenant}/audit/events{query}")).await.unwrap()
}

fn numbers(page: &Page<RecordedEvent>) -> Vec<u64> {
    page.items.iter().map(|item| item.seq).collect()
}

#[tokio::test]
async fn events_come_back_as_they_were_newest_first() {
    let app = app().await;
    let tenant = app.tenant();
    let events = [event(&app, tenant), event(&app, tenant)];
    deliver(&app, &events).await.unwrap();
    let page = page(&app.user(tenant, Role::Auditor), tenant, "").await;
    assert_eq!(numbers(&page), [2, 1]);
    assert_eq!(page.items[1].event, events[0]);
    assert_eq!(page.next_cursor, None);
}

#[tokio::test]
async fn an_event_delivered_twice_is_recorded_once_without_a_gap() {
    let app = app().await;
    let tenant = app.tenant();
    let (a, b) = (event(&app, tenant), event(&app, tenant));
    deliver(&app, &[a.clone(), a.clone()]).await.unwrap();
    deliver(&app, &[a, b.clone()]).await.unwrap();
    deliver(&app, &[b]).await.unwrap();
    let page = page(&app.user(tenant, Role::TenantAdmin), tenant, "").await;
    assert_eq!(numbers(&page), [2, 1]);
}

#[tokio::test]
async fn many_deliverers_at_once_leave_one_gapless_sequence() {
    let app = app().await;
    let (tenant, other) = (app.tenant(), app.tenant());
    let batches: Vec<Vec<AuditEvent>> = (0..8)
        .map(|_| (0..5).flat_map(|_| [event(&app, tenant), event(&app, other)]).collect())
        .collect();
    let mut under_way = tokio::task::JoinSet::new();
    for batch in &batches {
        // A client per batch, and each batch twice, as a relay that crashed would.
        for _ in 0..2 {
            let facts = batch.iter().cloned().map(Fact::Audit).collect();
            let catalog = app.service(RoleName::Catalog, RoleName::Audit);
            under_way.spawn(async move {
                catalog.post::<_, ()>("/internal/v1/outbox", &DeliverFacts { facts }).await
            });
        }
    }
    while let Some(done) = under_way.join_next().await {
        done.unwrap().unwrap();
    }
    for tenant in [tenant, other] {
        let page = page(&app.user(tenant, Role::Auditor), tenant, "?limit=1000").await;
        let numbers: BTreeSet<u64> = numbers(&page).into_iter().collect();
        assert_eq!(numbers, (1..=40).collect());
        assert_eq!(page.items.len(), 40);
    }
}

#[tokio::test]
async fn pages_join_without_a_gap_or_an_overlap() {
    let app = app().await;
    let tenant = app.tenant();
    let events: Vec<_> = (0..5).map(|_| event(&app, tenant)).collect();
    deliver(&app, &events).await.unwrap();
    let reader = app.user(tenant, Role::Auditor);
    let (mut query, mut all) = ("?limit=2".to_owned(), Vec::new());
    loop {
        let page = page(&reader, tenant, &query).await;
        all.extend(numbers(&page));
        match page.next_cursor {
            Some(cursor) => query = format!("?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(all, [5, 4, 3, 2, 1]);
}

#[tokio::test]
async fn reading_the_record_is_in_the_record() {
    let app = app().await;
    let tenant = app.tenant();
    let reader = app.user(tenant, Role::Auditor);
    assert!(page(&reader, tenant, "").await.items.is_empty());
    app.settle().await.unwrap();
    let after = page(&reader, tenant, "").await;
    assert_eq!(after.items[0].event.action, "audit.read");
    assert_eq!(after.items[0].event.actor.kind, "user");
    assert!(after.items[0].event.request_id.is_some());
}

#[tokio::test]
async fn who_may_not_read_is_told_so_and_foreign_records_do_not_exist() {
    let app = app().await;
    let (tenant, foreign) = (app.tenant(), app.tenant());
    deliver(&app, &[event(&app, foreign)]).await.unwrap();
    let answer = |client: Client, tenant: TenantId| async move {
        let path = format!("/v1/tenants/{tenant}/audit/events");
        let result = client.get::<serde_json::Value>(&path).await;
        testkit::code(&result)
    };
    assert_eq!(answer(app.client(), tenant).await, Some(Code::Unauthenticated));
    assert_eq!(answer(app.user(tenant, Role::TenantRestorer), tenant).await, Some(Code::Forbidden));
    assert_eq!(answer(app.agent(tenant).client, tenant).await, Some(Code::Forbidden));
    let admin = app.user(tenant, Role::TenantAdmin);
    assert_eq!(answer(admin.clone(), foreign).await, Some(Code::NotFound));
    assert_eq!(answer(admin, app.tenant()).await, Some(Code::NotFound));
}

#[tokio::test]
async fn a_cursor_of_somebody_elses_making_is_refused() {
    let app = app().await;
    let tenant = app.tenant();
    let reader = app.user(tenant, Role::Auditor);
    let path = format!("/v1/tenants/{tenant}/audit/events?cursor=x");
    let answer = reader.get::<serde_json::Value>(&path).await;
    assert_eq!(testkit::code(&answer), Some(Code::Validation));
}

#[tokio::test]
async fn nobody_can_change_or_remove_an_event_and_nothing_is_seen_without_a_context() {
    let app = app().await;
    let tenant = app.tenant();
    deliver(&app, &[event(&app, tenant)]).await.unwrap();
    page(&app.user(tenant, Role::Auditor), tenant, "").await;
    for login in [RoleName::Audit.login(), RoleName::Audit.system_login()] {
        let mut connection = app.database().login(login).await.unwrap();
        for statement in [
            "UPDATE audit.events SET action = 'x'",
            "DELETE FROM audit.events",
            "TRUNCATE audit.events",
            "DELETE FROM audit.heads",
        ] {
            let refused = sqlx::query(statement).execute(&mut connection).await.unwrap_err();
            let code = refused.as_database_error().unwrap().code().unwrap().into_owned();
            assert_eq!(code, "42501", "{login}: {statement}");
        }
    }
    let probed = testkit::schema::probe(app.database(), RoleName::Audit).await.unwrap();
    assert_eq!(probed.len(), 3);
    for table in probed {
        assert!(table.rows > 0, "{table:?} proves nothing");
        assert!(matches!(table.seen, None | Some(0)), "{table:?}");
    }
}

//! Usage: facts counted once, summed per meter and period, seen by their tenant alone.
#![expect(clippy::unwrap_used, reason = "tests say what went wrong by panicking")]

use std::time::Duration;

use api::{
    Code,
    billing::{MeterEvent, Usage},
    client::{Client, Error},
    internal::{DeliverFacts, Fact},
};
use authz::Role;
use domain::{TenantId, Timestamp};
use runtime::RoleName;
use testkit::TestApp;

async fn app() -> TestApp {
    let billing = |platform| billing::role(&platform);
    TestApp::builder().role(RoleName::Billing, billing).start().await.unwrap()
}

fn fact(
    app: &TestApp,
    tenant_id: TenantId,
    meter: &str,
    quantity: u64,
    at: Timestamp,
) -> MeterEvent {
    let id = app.id();
    MeterEvent { id, tenant_id, meter: meter.into(), quantity, workload_id: None, occurred_at: at }
}

async fn deliver(app: &TestApp, facts: &[MeterEvent]) -> Result<(), Error> {
    let facts = facts.iter().cloned().map(Fact::Meter).collect();
    let catalog = app.service(RoleName::Catalog, RoleName::Billing);
    catalog.post("/internal/v1/outbox", &DeliverFacts { facts }).await
}

async fn usage(reader: &Client, tenant: TenantId, query: &str) -> Result<Usage, Error> {
    reader.get(&format!("/v1/tenants/{tenant}/usage{query}")).await
}

fn lines(usage: &Usage) -> Vec<(&str, u64, u64)> {
    usage.lines.iter().map(|l| (l.meter.as_str(), l.events, l.quantity)).collect()
}

#[tokio::test]
async fn facts_are_summed_per_meter_and_count_once_however_often_delivered() {
    let app = app().await;
    let tenant = app.tenant();
    app.advance(Duration::from_secs(60));
    let at = app.now() - Duration::from_secs(1);
    let facts = [
        fact(&app, tenant, "stored_bytes", 10, at),
        fact(&app, tenant, "stored_bytes", 5, at),
        fact(&app, tenant, "snapshots", 1, at),
        fact(&app, app.tenant(), "snapshots", 100, at),
    ];
    deliver(&app, &facts).await.unwrap();
    deliver(&app, &facts).await.unwrap();
    let usage = usage(&app.user(tenant, Role::BillingViewer), tenant, "").await.unwrap();
    assert_eq!(lines(&usage), [("snapshots", 1, 1), ("stored_bytes", 2, 15)]);
    assert_eq!(
        (usage.until, usage.from),
        (app.now(), app.now() - Duration::from_secs(30 * 86_400))
    );
}

#[tokio::test]
async fn a_period_has_its_start_and_not_its_end() {
    let app = app().await;
    let tenant = app.tenant();
    let (start, end) = (app.now(), app.now() + Duration::from_secs(3_600));
    let facts = [
        fact(&app, tenant, "snapshots", 1, start - Duration::from_micros(1)),
        fact(&app, tenant, "snapshots", 2, start),
        fact(&app, tenant, "snapshots", 4, end - Duration::from_micros(1)),
        fact(&app, tenant, "snapshots", 8, end),
    ];
    deliver(&app, &facts).await.unwrap();
    let reader = app.user(tenant, Role::TenantAdmin);
    let period = usage(&reader, tenant, &format!("?from={start}&until={end}")).await.unwrap();
    assert_eq!(lines(&period), [("snapshots", 2, 6)]);
    for query in [format!("?from={end}&until={start}"), "?from=yesterday".into(), "?form=x".into()]
    {
        let refused = usage(&reader, tenant, &query).await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::Validation), "{query}");
    }
}

#[tokio::test]
async fn who_may_not_see_usage_is_told_so_and_foreign_usage_does_not_exist() {
    let app = app().await;
    let tenant = app.tenant();
    let code = |result: Result<Usage, Error>| result.unwrap_err().code().unwrap();
    assert_eq!(code(usage(&app.client(), tenant, "").await), Code::Unauthenticated);
    let operator = app.user(tenant, Role::TenantOperator);
    assert_eq!(code(usage(&operator, tenant, "").await), Code::Forbidden);
    let admin = app.user(tenant, Role::TenantAdmin);
    assert_eq!(code(usage(&admin, app.tenant(), "").await), Code::NotFound);
    let msp = app.msp_user(app.tenant(), tenant, Role::MspOwner);
    assert!(usage(&msp, tenant, "").await.unwrap().lines.is_empty());
}

#[tokio::test]
async fn facts_cannot_be_changed_and_are_not_seen_without_a_context() {
    let app = app().await;
    let tenant = app.tenant();
    deliver(&app, &[fact(&app, tenant, "snapshots", 1, app.now())]).await.unwrap();
    for login in [RoleName::Billing.login(), RoleName::Billing.system_login()] {
        let mut connection = app.database().login(login).await.unwrap();
        for statement in
            ["UPDATE billing.meter_events SET quantity = 0", "DELETE FROM billing.meter_events"]
        {
            let refused = sqlx::query(statement).execute(&mut connection).await.unwrap_err();
            let code = refused.as_database_error().unwrap().code().unwrap().into_owned();
            assert_eq!(code, "42501", "{login}: {statement}");
        }
    }
    let probed = testkit::schema::probe(app.database(), RoleName::Billing).await.unwrap();
    let facts = probed.iter().find(|p| p.table == "meter_events").unwrap();
    assert_eq!((facts.rows, facts.seen), (1, Some(0)));
    assert!(probed.iter().all(|p| matches!(p.seen, None | Some(0))));
}

#[tokio::test]
async fn a_quantity_no_column_holds_counts_as_the_most_it_holds_and_stops_nobody() {
    let app = app().await;
    let (tenant, other) = (app.tenant(), app.tenant());
    let at = app.now();
    app.advance(Duration::from_secs(1));
    let facts = [
        fact(&app, tenant, "source_bytes", u64::MAX, at),
        fact(&app, tenant, "source_bytes", 1 << 63, at),
        fact(&app, other, "source_bytes", 7, at),
    ];
    deliver(&app, &facts).await.unwrap();
    let most = i64::MAX.unsigned_abs();
    let reader = app.user(tenant, Role::BillingViewer);
    assert_eq!(
        lines(&usage(&reader, tenant, "").await.unwrap()),
        [("source_bytes", 2, most)],
        "the sum does not overflow either"
    );
    let reader = app.user(other, Role::BillingViewer);
    assert_eq!(lines(&usage(&reader, other, "").await.unwrap()), [("source_bytes", 1, 7)]);
}

#[tokio::test]
async fn a_fact_without_a_meters_name_is_refused_as_wrong_and_not_as_our_fault() {
    let app = app().await;
    for name in ["", "Source Bytes", &"x".repeat(41)] {
        let nameless = fact(&app, app.tenant(), name, 1, app.now());
        let refused = deliver(&app, &[nameless]).await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::Validation), "{name:?}: the relay parks it");
    }
}

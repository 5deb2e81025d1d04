//! What the three kinds of transaction let through.

use authz::{Actor, Scope, ScopeReason};
use domain::{Id, IdGen, SystemIds, TenantId, Timestamp};
use pg::{
    AuditEvent, Db, Error, ExpectRows as _, LookupTx, OperationalReason, Schema, SystemReason,
    SystemTx, TenantTx,
};
use testkit::TestDb;
use uuid::Uuid;

pub(crate) fn id() -> Uuid {
    SystemIds.uuid(Timestamp::UNIX_EPOCH)
}
pub(crate) fn tenant() -> TenantId {
    TenantId::from_uuid(id())
}
pub(crate) fn scope(tenant: TenantId) -> Scope {
    Scope::without_permit(tenant, ScopeReason::FactDelivery)
}
pub(crate) fn event() -> AuditEvent {
    let now = Timestamp::from_unix_millis(1_000);
    AuditEvent::new(Id::from_uuid(id()), now, &Actor::Anonymous, "thing.made", "thing", "x")
}

async fn insert(tx: &mut TenantTx, tenant: TenantId) -> Result<Uuid, Error> {
    let fact = id();
    sqlx::query(
        "INSERT INTO billing.meter_events (tenant_id, id, meter, quantity, occurred_at, recorded_at) \
         VALUES ($1, $2, 'snapshots', 1, now(), now())",
    )
    .bind(tenant.uuid())
    .bind(fact)
    .execute(tx.conn())
    .await?
    .expect_rows(1)?;
    Ok(fact)
}

async fn insert_one(db: &Db, tenant: TenantId) -> Uuid {
    let mut tx = TenantTx::begin(db, scope(tenant)).await.unwrap();
    let fact = insert(&mut tx, tenant).await.unwrap();
    tx.commit_operational(OperationalReason::FactIngest).await.unwrap();
    fact
}

async fn seen(db: &Db, tenant: TenantId) -> i64 {
    let mut tx = TenantTx::begin(db, scope(tenant)).await.unwrap();
    sqlx::query_scalar("SELECT count(*) FROM billing.meter_events")
        .fetch_one(tx.conn())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_tenants_transaction_sees_its_own_rows_and_no_other() {
    let database = TestDb::create().await.unwrap();
    let db = database.role(Schema::Billing).await.unwrap();
    let (here, there) = (tenant(), tenant());
    insert_one(&db, here).await;
    assert_eq!((seen(&db, here).await, seen(&db, there).await), (1, 0));
    let probed = testkit::schema::probe(&database, Schema::Billing).await.unwrap();
    let table = probed.iter().find(|p| p.table == "meter_events").unwrap();
    assert_eq!((table.rows, table.seen), (1, Some(0)), "without a context nothing is seen");
}

#[tokio::test]
async fn a_row_in_another_tenants_name_is_refused() {
    let database = TestDb::create().await.unwrap();
    let db = database.role(Schema::Billing).await.unwrap();
    let mut tx = TenantTx::begin(&db, scope(tenant())).await.unwrap();
    assert!(matches!(insert(&mut tx, tenant()).await, Err(Error::Denied(_))));
}

#[tokio::test]
async fn a_dropped_transaction_leaves_nothing_and_a_committed_one_leaves_its_event() {
    let database = TestDb::create().await.unwrap();
    let db = database.role(Schema::Billing).await.unwrap();
    let here = tenant();
    let mut tx = TenantTx::begin(&db, scope(here)).await.unwrap();
    insert(&mut tx, here).await.unwrap();
    drop(tx);
    assert_eq!(seen(&db, here).await, 0);

    let mut tx = TenantTx::begin(&db, scope(here)).await.unwrap();
    insert(&mut tx, here).await.unwrap();
    let event = event();
    let id = event.id.uuid();
    tx.commit(event).await.unwrap();
    let mut superuser = database.superuser().await.unwrap();
    let (topic, owner): (String, Uuid) =
        sqlx::query_as("SELECT topic, tenant_id FROM billing.outbox WHERE id = $1")
            .bind(id)
            .fetch_one(&mut superuser)
            .await
            .unwrap();
    assert_eq!((topic.as_str(), owner), ("audit", here.uuid()));
}

#[tokio::test]
async fn an_event_that_cannot_be_written_takes_the_effect_with_it() {
    let database = TestDb::create().await.unwrap();
    let db = database.role(Schema::Billing).await.unwrap();
    let here = tenant();
    let twice = event();
    let tx = TenantTx::begin(&db, scope(here)).await.unwrap();
    tx.commit(twice.clone()).await.unwrap();
    let mut tx = TenantTx::begin(&db, scope(here)).await.unwrap();
    insert(&mut tx, here).await.unwrap();
    assert!(matches!(tx.commit(twice).await, Err(Error::UniqueViolation { .. })));
    assert_eq!(seen(&db, here).await, 0);
}

#[tokio::test]
async fn the_events_stored_form_is_the_one_on_the_wire() {
    let database = TestDb::create().await.unwrap();
    let db = database.role(Schema::Billing).await.unwrap();
    let here = tenant();
    let event = event().detail("bytes", 7_u64).request_id("req_1");
    TenantTx::begin(&db, scope(here)).await.unwrap().commit(event.clone()).await.unwrap();
    let mut superuser = database.superuser().await.unwrap();
    let payload: serde_json::Value = sqlx::query_scalar("SELECT payload FROM billing.outbox")
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    let wire: api::audit::AuditEvent = serde_json::from_value(payload.clone()).unwrap();
    assert_eq!(serde_json::to_value(&wire).unwrap(), payload);
    assert_eq!(
        (wire.tenant_id, wire.id, wire.details["bytes"].as_u64()),
        (here, event.id, Some(7))
    );
}

/// The context a transaction without one finds on its connection, and which connection that is.
async fn context(db: &Db) -> (Option<String>, i32) {
    let mut tx = LookupTx::begin(db, "nobody").await.unwrap();
    sqlx::query_as("SELECT NULLIF(current_setting('app.tenant_id', true), ''), pg_backend_pid()")
        .fetch_one(tx.conn())
        .await
        .unwrap()
}

#[tokio::test]
async fn no_context_outlives_its_transaction() {
    let database = TestDb::create().await.unwrap();
    let db = database.role(Schema::Billing).await.unwrap();
    for _ in 0..10 {
        insert_one(&db, tenant()).await;
        drop(TenantTx::begin(&db, scope(tenant())).await.unwrap());
        assert_eq!(context(&db).await.0, None);
    }
}

#[tokio::test]
async fn a_connection_whose_context_leaked_is_never_used_again() {
    let database = TestDb::create().await.unwrap();
    let db = database.role(Schema::Billing).await.unwrap();
    let mut tx = TenantTx::begin(&db, scope(tenant())).await.unwrap();
    // What no code of ours may write: a setting for the session.
    let leaky: i32 = sqlx::query_scalar(
        "SELECT pg_backend_pid() FROM set_config('app.tenant_id', gen_random_uuid()::text, false)",
    )
    .fetch_one(tx.conn())
    .await
    .unwrap();
    tx.commit_operational(OperationalReason::Read).await.unwrap();
    for _ in 0..20 {
        let (tenant, connection) = context(&db).await;
        assert_eq!(tenant, None);
        assert_ne!(connection, leaky);
    }
}

#[tokio::test]
async fn a_lookup_cannot_write() {
    let database = TestDb::create().await.unwrap();
    let db = database.role(Schema::Billing).await.unwrap();
    let mut tx = LookupTx::begin(&db, "a@b").await.unwrap();
    let key: String =
        sqlx::query_scalar("SELECT app.lookup_key()").fetch_one(tx.conn()).await.unwrap();
    assert_eq!(key, "a@b");
    let written = sqlx::query("DELETE FROM billing.meter_events").execute(tx.conn()).await;
    assert!(written.is_err());
}

#[tokio::test]
async fn a_system_transaction_may_only_do_what_its_reason_names() {
    let database = TestDb::create().await.unwrap();
    let db = database.role(Schema::Billing).await.unwrap();
    TenantTx::begin(&db, scope(tenant())).await.unwrap().commit(event()).await.unwrap();
    let mark = "UPDATE billing.outbox SET delivered_at = now()";
    let mut tx = SystemTx::begin(&db, SystemReason::Metrics).await.unwrap();
    let met = sqlx::query(mark).execute(tx.conn()).await.unwrap();
    assert_eq!(met.rows_affected(), 0);
    let mut tx = SystemTx::begin(&db, SystemReason::OutboxRelay).await.unwrap();
    let met = sqlx::query(mark).execute(tx.conn()).await.unwrap();
    assert_eq!(met.rows_affected(), 1);
    // Tenants' own tables are closed to it.
    let read = sqlx::query("SELECT id FROM billing.meter_events").execute(tx.conn()).await;
    assert!(matches!(read.map_err(Error::from), Err(Error::Denied(_))));
}

#[tokio::test]
async fn refusals_are_told_apart_by_their_sqlstate() {
    let database = TestDb::create().await.unwrap();
    let db = database.role(Schema::Billing).await.unwrap();
    let here = tenant();
    let fact = insert_one(&db, here).await;
    let insert = "INSERT INTO billing.meter_events (tenant_id, id, meter, quantity, occurred_at, recorded_at) \
         VALUES ($1, $2, 'x', $3, now(), now())";
    for (id, quantity, constraint) in
        [(fact, 1_i64, "meter_events_pkey"), (id(), -1, "meter_events_quantity_check")]
    {
        let mut tx = TenantTx::begin(&db, scope(here)).await.unwrap();
        let bound = sqlx::query(insert).bind(here.uuid()).bind(id).bind(quantity);
        let error = Error::from(bound.execute(tx.conn()).await.unwrap_err());
        assert!(error.violates(constraint), "{error:?}");
        assert!(!error.is_retryable());
    }
    let mut tx = TenantTx::begin(&db, scope(here)).await.unwrap();
    let none = sqlx::query("UPDATE billing.meter_events SET quantity = 2").execute(tx.conn()).await;
    assert!(matches!(none.map_err(Error::from), Err(Error::Denied(_))), "append-only");
}

#[tokio::test]
async fn a_missing_database_is_worth_another_try_and_says_no_password() {
    let config = pg::DbConfig {
        url: "postgres://u:hunter2@127.0.0.1:1/x".into(),
        system_url: "postgres://u:hunter2@127.0.0.1:1/x".into(),
        max_connections: 2,
    };
    let db = Db::connect(Schema::Audit, &config).await.unwrap();
    let error = db.ping().await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    assert!(!format!("{config:?} {db:?} {error} {error:?}").contains("hunter2"));
}

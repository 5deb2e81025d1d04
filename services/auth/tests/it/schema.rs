//! What the database itself refuses, whatever the code above it does.

use std::collections::BTreeSet;

use pg::Schema;
use sqlx::Connection as _;
use testkit::schema;

use crate::app::{App, PASSWORD};

async fn filled() -> App {
    let app = App::start().await;
    for tenant in [app.places.tenant.tenant_id, app.places.other_tenant.tenant_id] {
        let agent = app.enrolled(tenant).await;
        app.send(agent.get("/v1/me", app.test.now())).await.refused(403, "forbidden");
    }
    for email in ["admin@praxis.example", "admin@kanzlei.example"] {
        app.sign_in(email, PASSWORD, None).await.expect(200);
    }
    app
}

#[tokio::test]
async fn the_schema_keeps_the_rules_of_the_house() {
    let app = App::start().await;
    let found = schema::violations(app.test.database(), Schema::Auth).await.expect("answers");
    assert_eq!(found, Vec::<String>::new());
}

#[tokio::test]
async fn without_a_tenant_the_login_role_sees_no_row_of_any_table() {
    let app = filled().await;
    let probed = schema::probe(app.test.database(), Schema::Auth).await.expect("answers");
    assert!(probed.len() >= 10, "{probed:?}");
    for table in probed {
        assert!(table.rows > 0, "{} is empty and proves nothing", table.table);
        assert!(matches!(table.seen, None | Some(0)), "{table:?}");
    }
}

#[tokio::test]
async fn in_one_tenant_the_login_role_sees_no_row_of_another() {
    let app = filled().await;
    let tables: Vec<String> = schema::probe(app.test.database(), Schema::Auth)
        .await
        .expect("answers")
        .into_iter()
        .filter(|table| table.seen.is_some())
        .map(|table| table.table)
        .collect();
    let mut login = app.test.database().login(Schema::Auth.login()).await.expect("login");
    let here = app.places.tenant.tenant_id.uuid();
    let mut tx = login.begin().await.expect("begin");
    sqlx::query("SELECT set_config('app.tenant_id', $1, true)")
        .bind(here.to_string())
        .execute(&mut *tx)
        .await
        .expect("context");
    for table in tables {
        let sql = format!("SELECT DISTINCT tenant_id FROM auth.{table}");
        let seen: Vec<uuid::Uuid> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *tx).await.expect("reads");
        assert_eq!(seen, [here], "{table}");
    }
}

#[tokio::test]
async fn a_lookup_sees_the_accounts_of_one_name_and_nothing_else() {
    let app = filled().await;
    let mut login = app.test.database().login(Schema::Auth.login()).await.expect("login");
    let mut tx = login.begin().await.expect("begin");
    sqlx::query("SELECT set_config('app.lookup_key', 'admin@praxis.example', true)")
        .execute(&mut *tx)
        .await
        .expect("context");
    let names: Vec<String> = sqlx::query_scalar("SELECT name_key FROM auth.signin_names")
        .fetch_all(&mut *tx)
        .await
        .expect("reads");
    assert_eq!(names, ["admin@praxis.example"]);
    for table in ["users", "tenants", "refresh_tokens", "agents"] {
        let sql = format!("SELECT count(*) FROM auth.{table}");
        let seen: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut *tx).await.expect("reads");
        assert_eq!(seen, 0, "{table}");
    }
}

#[tokio::test]
async fn the_system_role_sees_ages_for_its_reason_and_never_a_person() {
    let app = filled().await;
    let mut system = app.test.database().login(Schema::Auth.system_login()).await.expect("login");
    let mut allowed = BTreeSet::new();
    for reason in ["", "nonce_expiry", "token_expiry", "bootstrap", "metrics"] {
        for (table, column) in [
            ("agent_nonces", "seen_at"),
            ("agent_nonces", "nonce"),
            ("refresh_families", "expires_at"),
            ("refresh_families", "user_id"),
            ("refresh_tokens", "token_hash"),
            ("tenants", "id"),
            ("tenants", "name"),
            ("users", "email"),
            ("users", "password_hash"),
            ("signin_names", "name_key"),
            ("role_grants", "role"),
            ("enrolment_tokens", "id"),
            ("agents", "id"),
        ] {
            let mut tx = system.begin().await.expect("begin");
            sqlx::query("SELECT set_config('app.system_reason', $1, true)")
                .bind(reason)
                .execute(&mut *tx)
                .await
                .expect("context");
            let sql = format!("SELECT count({column}) FROM auth.{table}");
            let seen: Result<i64, _> =
                sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut *tx).await;
            if seen.is_ok_and(|seen| seen > 0) {
                allowed.insert(format!("{reason}: {table}.{column}"));
            }
        }
    }
    let expected = [
        "bootstrap: tenants.id",
        "nonce_expiry: agent_nonces.seen_at",
        "token_expiry: refresh_families.expires_at",
    ];
    assert_eq!(allowed.into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_tenant_is_held_but_never_changed() {
    let app = App::start().await;
    let mut login = app.test.database().login(Schema::Auth.login()).await.expect("login");
    for change in [false, true] {
        let mut tx = login.begin().await.expect("begin");
        sqlx::query("SELECT set_config('app.tenant_id', $1, true)")
            .bind(app.places.tenant.tenant_id.uuid().to_string())
            .execute(&mut *tx)
            .await
            .expect("context");
        let sql = if change {
            "UPDATE auth.tenants SET name = 'x'"
        } else {
            "SELECT id FROM auth.tenants FOR UPDATE"
        };
        let done = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut *tx).await;
        assert_eq!(done.is_err(), change, "{sql}: {done:?}");
    }
}

#[tokio::test]
async fn a_tenant_can_write_neither_a_sibling_nor_a_child_of_another() {
    let app = App::start().await;
    let mut login = app.test.database().login(Schema::Auth.login()).await.expect("login");
    let (root, msp) = (app.places.platform.tenant_id.uuid(), app.places.msp.tenant_id.uuid());
    let here = app.places.tenant.tenant_id.uuid();
    let fresh = uuid::Uuid::from_u128(99);
    // Made by the tenant itself, below the MSP; and with a path that leads past the parent.
    for (context, parent, path) in [
        (here, msp, vec![root, msp, fresh]),
        (here, msp, vec![root, here, fresh]),
        (msp, msp, vec![root, here, fresh]),
    ] {
        let mut tx = login.begin().await.expect("begin");
        sqlx::query("SELECT set_config('app.tenant_id', $1, true)")
            .bind(context.to_string())
            .execute(&mut *tx)
            .await
            .expect("context");
        let made = sqlx::query(
            "INSERT INTO auth.tenants (tenant_id, id, parent_id, kind, name, name_key, path, created_at)
             VALUES ($1, $1, $2, 'tenant', 'x', 'x', $3, now())",
        )
        .bind(fresh)
        .bind(parent)
        .bind(path)
        .execute(&mut *tx)
        .await;
        assert!(made.is_err());
    }
}

//! People and the roles they are given.

use authz::{Role, TenantKind};
use axum::http::{Method, header};
use domain::TenantId;
use serde_json::{Value, json};

use crate::app::{App, PASSWORD, request, send};

fn person(email: &str, roles: &[&str]) -> Value {
    json!({"email": email, "name": "Lena Hartmann", "password": "sechs Schwäne am Ufer", "roles": roles})
}

#[tokio::test]
async fn an_admin_makes_an_account_that_can_sign_in() {
    let app = App::start().await;
    app.advance(1);
    let body = person("lena@praxis.example", &["tenant.operator", "auditor", "auditor"]);
    let user = app.post(&app.path("users"), &app.admin(), body).await.expect(201);
    assert_eq!(user["roles"], json!(["tenant.operator", "auditor"]));
    assert!(!user.to_string().contains("argon2") && !user.to_string().contains("Schwäne"));
    app.sign_in("lena@praxis.example", "sechs Schwäne am Ufer", None).await.expect(200);
    let list = app.get(&app.path("users"), &app.admin()).await.expect(200);
    let emails: Vec<_> =
        list["items"].as_array().expect("items").iter().map(|u| u["email"].clone()).collect();
    assert_eq!(emails, [json!("admin@praxis.example"), json!("lena@praxis.example")]);
    let events = app.events(app.places.tenant.tenant_id).await;
    let made = events.iter().rfind(|event| event["action"] == "user.created").expect("event");
    assert_eq!(made["actor"]["id"], json!(app.places.tenant.user_id));
    assert_eq!(made["subject_id"], user["id"]);
    assert!(!made.to_string().contains("lena"), "personal data stays out of the record");
}

#[tokio::test]
async fn every_wrong_field_is_named_at_once() {
    let app = App::start().await;
    let body =
        json!({"email": "no address", "name": "a\u{7}b", "password": "short", "roles": ["root"]});
    let answer = app.post(&app.path("users"), &app.admin(), body).await;
    answer.refused(422, "validation");
    assert_eq!(answer.fields(), ["email", "name", "password", "roles/0"]);
    assert!(!answer.body.to_string().contains("short\""), "the password is not repeated");
}

#[tokio::test]
async fn each_wrong_field_is_refused_by_itself() {
    let app = App::start().await;
    let good = person("lena@praxis.example", &["tenant.operator"]);
    for (field, value) in [
        ("email", json!("lena@")),
        ("email", json!("")),
        ("email", json!("lena@praxis.example\n")),
        ("name", json!("")),
        ("name", json!("a\0b")),
        ("password", json!("elf Zeichen")),
        ("password", json!("Password1234")),
        ("password", json!("P@ssw0rd1234")),
        ("password", json!("lena@praxis.example")),
        ("password", json!("x".repeat(2_000))),
        ("roles", json!([])),
        ("roles/0", json!("")),
        ("roles/0", json!("agent")),
        ("roles/0", json!("service")),
        ("roles/0", json!("msp.owner")),
        ("roles/0", json!("platform.operator")),
    ] {
        let mut body = good.clone();
        match field {
            "roles/0" => body["roles"] = json!([value]),
            field => body[field] = value.clone(),
        }
        if field == "email" && value == "lena@praxis.example\n" {
            // Space around an address is a slip, not an attack: it is taken off.
            continue;
        }
        let answer = app.post(&app.path("users"), &app.admin(), body).await;
        answer.refused(422, "validation");
        assert_eq!(answer.fields(), [field], "{value}");
    }
    for body in [json!({}), json!({"email": "a@b.example"}), {
        let mut body = good.clone();
        body["id"] = json!("usr_00000000000000000000000000000001");
        body
    }] {
        app.post(&app.path("users"), &app.admin(), body).await.refused(422, "validation");
    }
    let mut typed = request(Method::POST, &app.path("users"), &app.admin(), Some(good));
    typed
        .headers_mut()
        .insert(header::CONTENT_TYPE, "application/x-www-form-urlencoded".parse().expect("v"));
    app.send(typed).await.refused(415, "unsupported_media_type");
}

#[tokio::test]
async fn a_name_is_taken_within_a_tenant_only() {
    let app = App::start().await;
    let again = app
        .post(&app.path("users"), &app.admin(), person("ADMIN@praxis.example", &["auditor"]))
        .await;
    again.refused(409, "already_exists");
    assert_eq!(again.fields(), ["email"]);
    // A name of the other tenant is free here: the answer tells nothing about it.
    app.post(&app.path("users"), &app.admin(), person("admin@kanzlei.example", &["auditor"]))
        .await
        .expect(201);
}

#[tokio::test]
async fn nobody_gives_more_than_is_theirs_to_give() {
    let app = App::start().await;
    let tenant = app.places.tenant.tenant_id;
    let owner = app.token_in(app.places.msp, tenant, TenantKind::Tenant, &[Role::MspOwner]);
    for role in
        ["key.custodian", "tenant.approver", "tenant.operator", "tenant.restorer", "tenant.admin"]
    {
        let refused = app
            .post(&app.path("users"), &owner, person("x@praxis.example", &["auditor", role]))
            .await;
        refused.refused(403, "forbidden");
    }
    app.post(
        &app.path("users"),
        &owner,
        person("x@praxis.example", &["auditor", "billing.viewer"]),
    )
    .await
    .expect(201);
    let path = format!("/v1/tenants/{}/users", app.places.platform.tenant_id);
    let security = person("s@platform.example", &["platform.security"]);
    app.post(&path, &app.operator(), security.clone()).await.refused(403, "forbidden");
    let officer = app.token(
        app.places.platform,
        TenantKind::Platform,
        &[Role::PlatformOperator, Role::PlatformSecurity],
    );
    app.post(&path, &officer, security).await.expect(201);
    // Nothing was half done.
    let emails: i64 = sqlx::query_scalar("SELECT count(*) FROM auth.users WHERE email LIKE 'x@%'")
        .fetch_one(&mut app.superuser().await)
        .await
        .expect("count");
    assert_eq!(emails, 1);
}

/// A fresh tenant below the first MSP.
async fn fresh_tenant(app: &App) -> TenantId {
    let path = format!("/v1/tenants/{}/children", app.places.msp.tenant_id);
    let made = app.post(&path, &app.owner(), json!({"name": "Bäckerei"})).await.expect(201);
    made["id"].as_str().expect("id").parse().expect("id")
}

#[tokio::test]
async fn an_msp_makes_the_first_administrator_of_a_tenant_and_no_second() {
    let app = App::start().await;
    let tenant = fresh_tenant(&app).await;
    let owner = app.token_in(app.places.msp, tenant, TenantKind::Tenant, &[Role::MspOwner]);
    let path = format!("/v1/tenants/{tenant}/users");
    for role in ["tenant.restorer", "tenant.operator", "key.custodian"] {
        let body = person("x@b.example", &["tenant.admin", role]);
        app.post(&path, &owner, body).await.refused(403, "forbidden");
    }
    // Of two at once one is the first.
    app.warm_up().await;
    let tries = ["one@b.example", "two@b.example", "three@b.example"].map(|email| {
        let body = person(email, &["tenant.admin"]);
        tokio::spawn(send(app.router.clone(), request(Method::POST, &path, &owner, Some(body))))
    });
    let mut made = 0;
    for answer in futures::future::join_all(tries).await {
        let answer = answer.expect("joins");
        if answer.status == 201 {
            made += 1;
        } else {
            answer.refused(403, "forbidden");
        }
    }
    assert_eq!(made, 1);
    assert_eq!(app.count_events(tenant, "tenant.first_admin_created").await, 1);
    app.post(&path, &owner, person("late@b.example", &["tenant.admin"]))
        .await
        .refused(403, "forbidden");
    app.post(&path, &owner, person("a@b.example", &["auditor"])).await.expect(201);
    assert_eq!(app.count_events(tenant, "tenant.first_admin_created").await, 1);
}

#[tokio::test]
async fn an_account_of_any_role_ends_the_right_to_make_the_first() {
    let app = App::start().await;
    let tenant = fresh_tenant(&app).await;
    let owner = app.token_in(app.places.msp, tenant, TenantKind::Tenant, &[Role::MspOwner]);
    let path = format!("/v1/tenants/{tenant}/users");
    app.post(&path, &owner, person("a@b.example", &["auditor"])).await.expect(201);
    let late = app.post(&path, &owner, person("x@b.example", &["tenant.admin"])).await;
    late.refused(403, "forbidden");
}

#[tokio::test]
async fn the_operator_makes_an_msps_first_owner_and_no_second() {
    let app = App::start().await;
    let msp = app.places.msp.tenant_id;
    let operator =
        app.token_in(app.places.platform, msp, TenantKind::Msp, &[Role::PlatformOperator]);
    let path = format!("/v1/tenants/{msp}/users");
    for role in ["msp.owner", "msp.tech"] {
        let body = person("x@msp.example", &[role]);
        app.post(&path, &operator, body).await.refused(403, "forbidden");
    }
    app.post(&path, &app.owner(), person("y@msp.example", &["msp.owner"])).await.expect(201);
    assert_eq!(app.count_events(msp, "tenant.first_admin_created").await, 0);
}

#[tokio::test]
async fn only_those_who_manage_people_see_or_make_accounts() {
    let app = App::start().await;
    for role in
        [Role::TenantOperator, Role::TenantRestorer, Role::BillingViewer, Role::KeyCustodian]
    {
        let token = app.token(app.places.tenant, TenantKind::Tenant, &[role]);
        app.get(&app.path("users"), &token).await.refused(403, "forbidden");
        let body = person("lena@praxis.example", &["tenant.admin"]);
        app.post(&app.path("users"), &token, body).await.refused(403, "forbidden");
    }
    app.get(&app.path("users"), "").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_disabled_account_neither_signs_in_nor_renews() {
    let app = App::start().await;
    let reply = app.sign_in("admin@praxis.example", PASSWORD, None).await.expect(200);
    sqlx::query("UPDATE auth.users SET disabled_at = now() WHERE email = 'admin@praxis.example'")
        .execute(&mut app.superuser().await)
        .await
        .expect("disables");
    app.sign_in("admin@praxis.example", PASSWORD, None).await.refused(401, "wrong_credentials");
    let token = reply["refresh_token"].as_str().expect("token");
    app.refresh(token).await.refused(401, "token_expired");
}

//! The tenant tree.

use std::collections::BTreeSet;

use authz::{Role, TenantKind};
use domain::TenantId;
use serde_json::{Value, json};

use crate::app::App;

fn children(tenant: TenantId) -> String {
    format!("/v1/tenants/{tenant}/children")
}

#[tokio::test]
async fn the_platform_makes_msps_and_an_msp_makes_tenants() {
    let app = App::start().await;
    let path = children(app.places.platform.tenant_id);
    let msp = app.post(&path, &app.operator(), json!({"name": " Südwind IT "})).await.expect(201);
    assert_eq!((&msp["kind"], &msp["name"]), (&json!("msp"), &json!("Südwind IT")));
    assert_eq!(msp["parent_id"], json!(app.places.platform.tenant_id));
    let path = children(app.places.msp.tenant_id);
    let tenant = app.post(&path, &app.owner(), json!({"name": "Bäckerei"})).await.expect(201);
    assert_eq!(
        (&tenant["kind"], &tenant["parent_id"]),
        (&json!("tenant"), &json!(app.places.msp.tenant_id))
    );
    // Its own making, the two of bootstrap, and this one.
    assert_eq!(app.count_events(app.places.msp.tenant_id, "tenant.created").await, 4);
    // A fresh MSP has nobody: the operator, acting there, makes its first owner.
    let id: TenantId = msp["id"].as_str().expect("id").parse().expect("id");
    let token = app.token_in(app.places.platform, id, TenantKind::Msp, &[Role::PlatformOperator]);
    let body = json!({"email": "owner@suedwind.example", "name": "Owner", "password": crate::app::PASSWORD,
        "roles": ["msp.owner"]});
    app.post(&format!("/v1/tenants/{id}/users"), &token, body).await.expect(201);
    assert_eq!(app.count_events(id, "tenant.first_admin_created").await, 1);
    // Its own record begins with its making, once.
    assert_eq!(app.events(id).await[0]["action"], json!("tenant.created"));
    assert_eq!(app.count_events(id, "tenant.created").await, 1);
}

#[tokio::test]
async fn a_tenant_has_no_tenants_below_it() {
    let app = App::start().await;
    let tenant = app.places.tenant.tenant_id;
    let owner = app.token_in(app.places.msp, tenant, TenantKind::Tenant, &[Role::MspOwner]);
    app.post(&children(tenant), &owner, json!({"name": "x"})).await.refused(409, "conflict");
    app.post(&children(tenant), &app.admin(), json!({"name": "x"})).await.refused(403, "forbidden");
}

#[tokio::test]
async fn names_are_unique_among_siblings_and_among_no_others() {
    let app = App::start().await;
    let path = children(app.places.msp.tenant_id);
    let taken = app.post(&path, &app.owner(), json!({"name": "PRAXIS hartmann"})).await;
    taken.refused(409, "already_exists");
    assert_eq!(taken.fields(), ["name"]);
    let recorded: i64 = sqlx::query_scalar(
        "SELECT count(DISTINCT tenant_id) FROM auth.outbox WHERE payload->>'action' = 'tenant.created'",
    )
    .fetch_one(&mut app.superuser().await)
    .await
    .expect("count");
    assert_eq!(recorded, 4, "a refused name leaves no record of a tenant that is none");
    // Another MSP's tenant of the same name is nobody's business.
    let above = children(app.places.platform.tenant_id);
    let rival = app.post(&above, &app.operator(), json!({"name": "Rival"})).await.expect(201);
    let rival: TenantId = rival["id"].as_str().expect("id").parse().expect("id");
    let owner = app.token_in(app.places.platform, rival, TenantKind::Msp, &[Role::MspOwner]);
    app.post(&children(rival), &owner, json!({"name": "Praxis Hartmann"})).await.expect(201);
}

#[tokio::test]
async fn bad_names_and_bodies_are_refused() {
    let app = App::start().await;
    let path = children(app.places.msp.tenant_id);
    for name in ["", "  ", "a\nb", "a\0b", "a\u{202e}b", &"x".repeat(201)] {
        let answer = app.post(&path, &app.owner(), json!({"name": name})).await;
        answer.refused(422, "validation");
        assert_eq!(answer.fields(), ["name"]);
    }
    for body in
        [json!({}), json!({"name": 1}), json!({"name": "x", "kind": "platform"}), Value::Null]
    {
        app.post(&path, &app.owner(), body).await.refused(422, "validation");
    }
    app.act(&path, &app.owner()).await.refused(415, "unsupported_media_type");
    app.post(&path, "", json!({"name": "x"})).await.refused(401, "unauthenticated");
    let tech = app.token(app.places.msp, TenantKind::Msp, &[Role::MspTech]);
    app.post(&path, &tech, json!({"name": "x"})).await.refused(403, "forbidden");
}

#[tokio::test]
async fn each_sees_itself_and_what_is_below() {
    let app = App::start().await;
    let places = app.places;
    let seen = |token: String| {
        let app = &app;
        async move {
            let page = app.get("/v1/tenants", &token).await.expect(200);
            assert!(page.get("next_cursor").is_none());
            let ids =
                page["items"].as_array().expect("items").iter().map(|item| item["id"].clone());
            // In a clock that stands still ids have no order.
            ids.map(|id| id.to_string()).collect::<BTreeSet<_>>()
        }
    };
    let [root, msp, one, two] = [places.platform, places.msp, places.tenant, places.other_tenant]
        .map(|place| json!(place.tenant_id).to_string());
    let (msp, one, two) = (&msp, &one, &two);
    assert_eq!(
        seen(app.operator()).await,
        BTreeSet::from([&root, msp, one, two].map(Clone::clone))
    );
    assert_eq!(seen(app.owner()).await, BTreeSet::from([msp, one, two].map(Clone::clone)));
    assert_eq!(seen(app.admin()).await, BTreeSet::from([one.clone()]));
    app.get("/v1/tenants", "").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let app = App::start().await;
    let first = app.get("/v1/tenants?limit=2", &app.operator()).await.expect(200);
    let cursor = first["next_cursor"].as_str().expect("a next page");
    let path = format!("/v1/tenants?limit=2&cursor={cursor}");
    let second = app.get(&path, &app.operator()).await.expect(200);
    assert_eq!(
        (first["items"].as_array().map(Vec::len), second["items"].as_array().map(Vec::len)),
        (Some(2), Some(2))
    );
    assert!(second.get("next_cursor").is_none());
    assert_ne!(first["items"], second["items"]);
    // Another tenant's cursor shows nothing of it.
    let other = app.get(&path, &app.admin()).await.expect(200);
    assert!(other["items"].as_array().expect("items").len() <= 1);
    app.get("/v1/tenants?cursor=%00", &app.operator()).await.refused(422, "validation");
    app.get("/v1/tenants?limit=many", &app.operator()).await.refused(422, "validation");
}

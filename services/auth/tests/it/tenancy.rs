//! Every operation with another tenant's ids answers as for ids nobody has.

use authz::{Role, TenantKind};
use axum::http::Method;
use domain::{AgentId, TenantId, TokenId};
use serde_json::{Value, json};
use utoipa::openapi::PathItem;

use crate::app::{Answer, App, PASSWORD};

/// The ids an operation's path may name.
struct Ids {
    tenant: TenantId,
    agent: AgentId,
    token: TokenId,
}

impl Ids {
    fn random(seed: u8) -> Self {
        Self {
            tenant: TenantId::from_bytes([seed; 16]),
            agent: AgentId::from_bytes([seed; 16]),
            token: TokenId::from_bytes([seed; 16]),
        }
    }
    fn fill(&self, path: &str) -> String {
        path.replace("{tenant_id}", &self.tenant.to_string())
            .replace("{agent_id}", &self.agent.to_string())
            .replace("{token_id}", &self.token.to_string())
    }
}

/// A body every POST of this role takes or ignores.
fn body_of(path: &str) -> Value {
    match path.rsplit('/').next() {
        Some("children") => json!({"name": "Neu"}),
        Some("users") => {
            json!({"email": "neu@x.example", "name": "Neu", "password": PASSWORD, "roles": ["auditor"]})
        }
        _ => json!({}),
    }
}

fn operations(app: &App) -> Vec<(Method, String)> {
    let has =
        |item: &PathItem| [(Method::GET, item.get.is_some()), (Method::POST, item.post.is_some())];
    let document = &app.test.assembly().openapi;
    let mut all = Vec::new();
    for (path, item) in document.paths.paths.iter().filter(|(path, _)| path.contains("{tenant_id}"))
    {
        assert!(
            item.put.is_none() && item.delete.is_none() && item.patch.is_none(),
            "{path}: extend this test"
        );
        all.extend(
            has(item)
                .into_iter()
                .filter(|(_, there)| *there)
                .map(|(method, _)| (method, path.clone())),
        );
    }
    all
}

async fn ask(app: &App, token: &str, method: &Method, path: &str) -> Answer {
    let body = (method == Method::POST).then(|| body_of(path));
    app.call(method.clone(), path, token, body).await
}

#[tokio::test]
async fn another_tenants_ids_answer_as_random_ones() {
    let app = App::start().await;
    let other = app.places.other_tenant.tenant_id;
    let theirs = app.enrolled(other).await;
    let path = format!("/v1/tenants/{other}/enrolment-tokens");
    let token = app.post(&path, &app.other_admin(), json!({})).await.expect(201);
    let foreign = Ids {
        tenant: other,
        agent: theirs.id(),
        token: token["id"].as_str().expect("id").parse().expect("id"),
    };
    let here = app.places.tenant.tenant_id;
    let operations = operations(&app);
    assert!(operations.len() >= 10, "{operations:?}");
    let actors = [
        app.admin(),
        app.token_in(app.places.msp, here, TenantKind::Tenant, &[Role::MspOwner]),
        app.token(app.places.tenant, TenantKind::Tenant, &[Role::BillingViewer]),
    ];
    for (method, path) in &operations {
        for actor in &actors {
            // All ids theirs; and theirs below one's own tenant.
            for tenant in [None, Some(here)] {
                let at = |ids: Ids| {
                    let tenant = tenant.unwrap_or(ids.tenant);
                    Ids { tenant, ..ids }.fill(path)
                };
                if tenant.is_some() && !path.contains("{agent_id}") && !path.contains("{token_id}")
                {
                    continue;
                }
                let foreign = at(Ids {
                    ..Ids { tenant: foreign.tenant, agent: foreign.agent, token: foreign.token }
                });
                let asked = ask(&app, actor, method, &foreign).await;
                let random = ask(&app, actor, method, &at(Ids::random(77))).await;
                assert_eq!(asked.shape(), random.shape(), "{method} {path}");
                assert!(
                    matches!(asked.status.as_u16(), 403 | 404),
                    "{method} {path}: {}",
                    asked.status
                );
            }
        }
    }
    // Nothing of theirs changed.
    let agent = app
        .get(&format!("/v1/tenants/{other}/agents/{}", theirs.id()), &app.other_admin())
        .await
        .expect(200);
    assert!(agent.get("revoked_at").is_none());
}

#[tokio::test]
async fn malformed_ids_answer_as_foreign_ones() {
    let app = App::start().await;
    for bad in [
        "ten_1",
        "x",
        "ten_ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ",
        "%2e%2e",
        "agt_00000000000000000000000000000000",
    ] {
        app.get(&format!("/v1/tenants/{bad}"), &app.admin()).await.refused(404, "not_found");
        app.get(&app.path(&format!("agents/{bad}x")), &app.admin()).await.refused(404, "not_found");
    }
}

#[tokio::test]
async fn the_parents_token_is_worth_nothing_below_until_it_asks_for_one_there() {
    let app = App::start().await;
    for path in ["users", "agents", "enrolment-tokens"] {
        app.get(&app.path(path), &app.owner()).await.refused(404, "not_found");
        app.get(&app.path(path), &app.operator()).await.refused(404, "not_found");
    }
}

#[tokio::test]
async fn nobody_gets_anything_without_signing_in() {
    let app = App::start().await;
    let here = Ids { tenant: app.places.tenant.tenant_id, ..Ids::random(77) };
    for (method, path) in operations(&app) {
        ask(&app, "", &method, &here.fill(&path)).await.refused(401, "unauthenticated");
    }
}

//! Agents and the requests they sign.

use api::{internal::VerifyAgentRequest, signature};
use authz::{Role, TenantKind};
use axum::body::Body;
use axum::http::Request;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use domain::{AgentId, TenantId, Timestamp};
use ed25519_dalek::Signer as _;
use runtime::RoleName;
use serde_json::{Value, json};
use std::time::Duration;

use crate::app::{App, Machine, send};

/// A believed agent is told that `me` is not for machines; an unbelieved one is told why not.
const BELIEVED: (u16, &str) = (403, "forbidden");

async fn ask(app: &App, request: Request<Body>) -> (u16, String) {
    let answer = app.send(request).await;
    (answer.status.as_u16(), answer.code().to_owned())
}

#[tokio::test]
async fn a_signed_request_is_believed_once() {
    let app = App::start().await;
    let agent = app.enrolled(app.places.tenant.tenant_id).await;
    let now = app.test.now();
    app.send(agent.get("/v1/me", now)).await.refused(BELIEVED.0, BELIEVED.1);
    let request = || {
        let signed = agent.get("/v1/me", now);
        let (parts, _) = signed.into_parts();
        move || Request::from_parts(parts.clone(), Body::empty())
    };
    let again = request();
    app.send(again()).await.refused(BELIEVED.0, BELIEVED.1);
    app.send(again()).await.refused(401, "nonce_reused");
    // In parallel, to as many replicas as there are tasks.
    let raced = request();
    app.warm_up().await;
    let tries: Vec<_> = (0..20).map(|_| tokio::spawn(send(app.router.clone(), raced()))).collect();
    let mut believed = 0;
    for attempt in tries {
        let answer = attempt.await.expect("joins");
        if answer.code() == BELIEVED.1 {
            believed += 1;
        } else {
            answer.refused(401, "nonce_reused");
        }
    }
    assert_eq!(believed, 1);
}

#[tokio::test]
async fn what_was_not_signed_by_this_agent_is_not_believed() {
    let app = App::start().await;
    let agent = app.enrolled(app.places.tenant.tenant_id).await;
    let now = app.test.now();
    let mut other_path = agent.get("/v1/me", now);
    *other_path.uri_mut() = "/v1/tenants".parse().expect("uri");
    let mut other_host = agent.get("/v1/me", now);
    other_host.headers_mut().insert("host", "evil.test".parse().expect("host"));
    let mut other_body = agent.get("/v1/me", now);
    *other_body.body_mut() = Body::from("x");
    let thief = Machine { key: Machine::fresh(agent.tenant).key, ..agent.clone() };
    let nobody = Machine { id: Some(AgentId::from_bytes([3; 16])), ..agent.clone() };
    let elsewhere = Machine { tenant: app.places.other_tenant.tenant_id, ..agent.clone() };
    let nowhere = Machine { tenant: TenantId::from_bytes([3; 16]), ..agent.clone() };
    let mut shapes = Vec::new();
    for request in [
        other_path,
        other_host,
        other_body,
        thief.get("/v1/me", now),
        nobody.get("/v1/me", now),
        elsewhere.get("/v1/me", now),
        nowhere.get("/v1/me", now),
    ] {
        let answer = app.send(request).await;
        answer.refused(401, "signature_invalid");
        shapes.push(answer.shape());
    }
    assert!(shapes.windows(2).all(|pair| pair[0] == pair[1]), "a stranger can tell nothing apart");
}

#[tokio::test]
async fn a_request_outside_the_window_learns_the_time() {
    let app = App::start().await;
    let agent = app.enrolled(app.places.tenant.tenant_id).await;
    let now = app.test.now();
    for (shift, fits) in [(90, true), (91, false)] {
        let shift = Duration::from_secs(shift);
        for dated in [now + shift, now - shift] {
            let answer = app.send(agent.get("/v1/me", dated)).await;
            if fits {
                answer.refused(BELIEVED.0, BELIEVED.1);
            } else {
                answer.refused(401, "clock_skew");
                assert_eq!(answer.body["server_time"], json!(now));
            }
        }
    }
}

#[tokio::test]
async fn a_revoked_agent_is_refused_at_once_and_only_its_key_learns_why() {
    let app = App::start().await;
    let tenant = app.places.tenant.tenant_id;
    let agent = app.enrolled(tenant).await;
    let path = app.path(&format!("agents/{}/revoke", agent.id()));
    let shown = app.act(&path, &app.admin()).await.expect(200);
    assert_eq!(shown["revoked_at"], json!(app.test.now()));
    app.send(agent.get("/v1/me", app.test.now())).await.refused(401, "agent_revoked");
    let thief = Machine { key: Machine::fresh(tenant).key, ..agent.clone() };
    app.send(thief.get("/v1/me", app.test.now())).await.refused(401, "signature_invalid");
    app.advance(60);
    assert_eq!(app.act(&path, &app.admin()).await.expect(200), shown, "the first time stays");
    assert_eq!(app.count_events(tenant, "agent.revoked").await, 1);
    let events = app.events(tenant).await;
    let event = events.iter().rfind(|event| event["action"] == "agent.revoked").expect("event");
    assert_eq!(
        (&event["subject_id"], &event["actor"]["id"]),
        (&json!(agent.id()), &json!(app.places.tenant.user_id))
    );
}

#[tokio::test]
async fn agents_are_listed_and_shown_with_when_they_were_last_seen() {
    let app = App::start().await;
    let tenant = app.places.tenant.tenant_id;
    let agent = app.enrolled(tenant).await;
    app.enrolled(app.places.other_tenant.tenant_id).await;
    let path = app.path(&format!("agents/{}", agent.id()));
    let seen = |at: Option<Timestamp>| {
        let app = &app;
        let path = &path;
        async move {
            let shown = app.get(path, &app.admin()).await.expect(200);
            assert_eq!(shown.get("last_seen_at").cloned(), at.map(|at| json!(at)));
            shown
        }
    };
    seen(None).await;
    let first = app.test.now();
    assert_eq!(ask(&app, agent.get("/v1/me", first)).await.0, 403);
    seen(Some(first)).await;
    app.advance(59);
    assert_eq!(ask(&app, agent.get("/v1/me", app.test.now())).await.0, 403);
    seen(Some(first)).await;
    app.advance(1);
    assert_eq!(ask(&app, agent.get("/v1/me", app.test.now())).await.0, 403);
    let shown = seen(Some(app.test.now())).await;
    assert_eq!(shown["verify_key"], json!(STANDARD.encode(agent.key.verifying_key().as_bytes())));
    let list = app.get(&app.path("agents"), &app.admin()).await.expect(200);
    assert_eq!(list["items"], json!([shown]));
    for role in [Role::TenantApprover, Role::BillingViewer] {
        let token = app.token(app.places.tenant, TenantKind::Tenant, &[role]);
        app.get(&path, &token).await.refused(403, "forbidden");
        app.act(&format!("{path}/revoke"), &token).await.refused(403, "forbidden");
    }
    app.get(&path, "").await.refused(401, "unauthenticated");
    app.act(&format!("{path}/revoke"), "").await.refused(401, "unauthenticated");
}

/// What another role asks, for a request signed over `base`.
fn question(agent: &Machine, created: i64, nonce: &str, base: &str) -> VerifyAgentRequest {
    VerifyAgentRequest {
        tenant_id: agent.tenant,
        agent_id: agent.id(),
        created,
        nonce: nonce.to_owned(),
        base: STANDARD.encode(base),
        signature: STANDARD.encode(agent.key.sign(base.as_bytes()).to_bytes()),
    }
}

#[tokio::test]
async fn the_internal_check_believes_only_what_was_signed() {
    let app = App::start().await;
    let agent = app.enrolled(app.places.tenant.tenant_id).await;
    let created = app.test.now().unix_secs();
    let (one, two) = ("A".repeat(22), "B".repeat(22));
    let base = |nonce: &str| {
        let params = signature::SignatureParams {
            created,
            nonce: nonce.to_owned(),
            tenant_id: agent.tenant,
            agent_id: agent.id(),
        };
        signature::signature_base("GET", "http://everhold.test/v1/me", "sha-256=:x:", &params)
    };
    let client = app.test.service(RoleName::Catalog, RoleName::Auth);
    let ask = async |body: &VerifyAgentRequest| {
        let reply = client.post::<_, Value>("/internal/v1/auth/agent-request", body).await;
        testkit::code(&reply).map_or("believed", |code| code.as_str())
    };
    assert_eq!(ask(&question(&agent, created, &one, &base(&one))).await, "believed");
    assert_eq!(ask(&question(&agent, created, &one, &base(&one))).await, "nonce_reused");
    // A new nonce beside an old signature, and any other part that differs from what was signed.
    assert_eq!(ask(&question(&agent, created, &two, &base(&one))).await, "signature_invalid");
    assert_eq!(ask(&question(&agent, created + 1, &two, &base(&two))).await, "signature_invalid");
    assert_eq!(ask(&question(&agent, created - 91, &two, &base(&two))).await, "clock_skew");
    let mut broken = question(&agent, created, &two, &base(&two));
    broken.signature = "AAAA".to_owned();
    assert_eq!(ask(&broken).await, "signature_invalid");
    let mut broken = question(&agent, created, &two, &base(&two));
    broken.base = "?".to_owned();
    assert_eq!(ask(&broken).await, "signature_invalid");
    assert_eq!(ask(&question(&agent, created, &two, &base(&two))).await, "believed");
}

#[tokio::test]
async fn the_internal_check_is_not_reachable_from_outside_and_needs_a_service_token() {
    let app = App::start().await;
    let path = "/internal/v1/auth/agent-request";
    for token in ["", &app.admin(), &app.operator()] {
        app.post(path, token, json!({})).await.refused(404, "not_found");
    }
    for token in ["", &app.admin()] {
        let request = crate::app::request(
            axum::http::Method::POST,
            &format!("/auth{path}"),
            token,
            Some(json!({})),
        );
        send(app.test.assembly().internal.clone(), request).await.refused(401, "unauthenticated");
    }
}

#[tokio::test]
async fn nonces_are_forgotten_when_no_signature_can_use_them_any_more() {
    let app = App::start().await;
    let agent = app.enrolled(app.places.tenant.tenant_id).await;
    assert_eq!(ask(&app, agent.get("/v1/me", app.test.now())).await.0, 403);
    app.advance(500);
    assert_eq!(ask(&app, agent.get("/v1/me", app.test.now())).await.0, 403);
    assert_eq!(auth::maintenance::prune_nonces(app.platform()).await.expect("prunes"), 0);
    app.advance(101);
    assert_eq!(auth::maintenance::prune_nonces(app.platform()).await.expect("prunes"), 1);
}

//! Tokens for machines, and machines that use them.

use std::collections::BTreeSet;

use authz::{Role, TenantKind};
use axum::http::Method;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::app::{App, Machine, request, send};

#[tokio::test]
async fn a_token_shows_its_secret_once_and_lets_a_machine_in() {
    let app = App::start().await;
    let body = json!({"label": "Empfang", "max_uses": 2, "ttl_s": 600});
    let token = app.post(&app.path("enrolment-tokens"), &app.admin(), body).await.expect(201);
    let secret = token["token"].as_str().expect("secret");
    assert!(secret.starts_with("evh_en_"));
    let machine = Machine::fresh(app.places.tenant.tenant_id);
    let reply = app.post("/v1/enrol", "", machine.enrol(secret)).await.expect(201);
    assert_eq!(reply["tenant_id"], json!(app.places.tenant.tenant_id));
    assert_eq!(reply["tenant_name"], "Praxis Hartmann");
    assert_eq!(reply["server_time"], json!(app.test.now()));
    let list = app.get(&app.path("enrolment-tokens"), &app.admin()).await.expect(200);
    assert_eq!(
        (&list["items"][0]["uses"], &list["items"][0]["label"]),
        (&json!(1), &json!("Empfang"))
    );
    assert!(list["items"][0].get("token").is_none());
    let events = app.events(app.places.tenant.tenant_id).await;
    let event = events.iter().rfind(|event| event["action"] == "agent.enrolled").expect("event");
    assert_eq!(event["subject_id"], reply["agent_id"]);
    assert_eq!(event["details"]["enrolment_token_id"], token["id"]);
    let stored: Vec<u8> = sqlx::query_scalar("SELECT token_hash FROM auth.enrolment_tokens")
        .fetch_one(&mut app.superuser().await)
        .await
        .expect("row");
    assert!(!secret.as_bytes().windows(32).any(|part| part == stored));
}

#[tokio::test]
async fn of_many_racing_machines_exactly_as_many_as_the_token_is_good_for_get_in() {
    let app = App::start().await;
    let tenant = app.places.tenant.tenant_id;
    let token = app.mint(tenant, 3).await;
    app.warm_up().await;
    let tries: Vec<_> = (0..30)
        .map(|_| {
            let body = Machine::fresh(tenant).enrol(&token);
            tokio::spawn(send(
                app.router.clone(),
                request(Method::POST, "/v1/enrol", "", Some(body)),
            ))
        })
        .collect();
    let mut in_now = BTreeSet::new();
    for attempt in tries {
        let answer = attempt.await.expect("joins");
        match answer.status.as_u16() {
            201 => assert!(in_now.insert(answer.body["agent_id"].to_string())),
            _ => answer.refused(401, "enrolment_token_invalid"),
        }
    }
    assert_eq!(in_now.len(), 3);
    let (uses, agents): (i32, i64) = sqlx::query_as(
        "SELECT uses, (SELECT count(*) FROM auth.agents) FROM auth.enrolment_tokens",
    )
    .fetch_one(&mut app.superuser().await)
    .await
    .expect("row");
    assert_eq!((uses, agents), (3, 3));
    assert_eq!(app.count_events(tenant, "agent.enrolled").await, 3);
}

#[tokio::test]
async fn a_machine_whose_reply_was_lost_asks_again_and_gets_the_same_answer() {
    let app = App::start().await;
    let tenant = app.places.tenant.tenant_id;
    let token = app.mint(tenant, 1).await;
    let machine = Machine::fresh(tenant);
    let first = app.post("/v1/enrol", "", machine.enrol(&token)).await.expect(201);
    // In parallel too, against itself.
    app.warm_up().await;
    let tries: Vec<_> = (0..10)
        .map(|_| {
            let request = request(Method::POST, "/v1/enrol", "", Some(machine.enrol(&token)));
            tokio::spawn(send(app.router.clone(), request))
        })
        .collect();
    for attempt in tries {
        assert_eq!(attempt.await.expect("joins").expect(201)["agent_id"], first["agent_id"]);
    }
    assert_eq!(app.count_events(tenant, "agent.enrolled").await, 1);
    // The same key with another token, or with other keys beside it, is not the same machine asking again.
    let other = app.mint(tenant, 1).await;
    app.post("/v1/enrol", "", machine.enrol(&other)).await.refused(409, "already_exists");
    let mut changed = machine.enrol(&token);
    changed["hpke_key"] = json!(STANDARD.encode([6; 32]));
    app.post("/v1/enrol", "", changed).await.refused(409, "already_exists");
}

#[tokio::test]
async fn unknown_expired_used_up_and_revoked_tokens_answer_alike() {
    let app = App::start().await;
    let tenant = app.places.tenant.tenant_id;
    let used = app.mint(tenant, 1).await;
    app.post("/v1/enrol", "", Machine::fresh(tenant).enrol(&used)).await.expect(201);
    let body = json!({"ttl_s": 3_000_000});
    app.post(&app.path("enrolment-tokens"), &app.admin(), body).await.refused(422, "validation");
    let revoked =
        app.post(&app.path("enrolment-tokens"), &app.admin(), json!({})).await.expect(201);
    let path =
        app.path(&format!("enrolment-tokens/{}/revoke", revoked["id"].as_str().expect("id")));
    let ended = app.act(&path, &app.admin()).await.expect(200);
    assert_eq!(ended["revoked_at"], json!(app.test.now()));
    assert_eq!(app.act(&path, &app.admin()).await.expect(200), ended);
    assert_eq!(app.count_events(tenant, "enrolment_token.revoked").await, 1);
    let expired = app.mint(tenant, 1).await;
    app.advance(3_600);
    let (head, _) = used.rsplit_once('_').expect("form");
    let unknown = format!("{head}_{}", "A".repeat(43));
    let foreign = unknown.replace(&tenant.uuid().simple().to_string(), &"0".repeat(32));
    let revoked = revoked["token"].as_str().expect("token").to_owned();
    let mut shapes = Vec::new();
    for token in [&used, &revoked, &expired, &unknown, &foreign, &"nonsense".to_owned()] {
        let answer = app.post("/v1/enrol", "", Machine::fresh(tenant).enrol(token)).await;
        answer.refused(401, "enrolment_token_invalid");
        shapes.push(answer.shape());
    }
    assert!(shapes.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn without_proof_of_the_key_nobody_gets_in_and_the_token_is_not_used() {
    let app = App::start().await;
    let tenant = app.places.tenant.tenant_id;
    let token = app.mint(tenant, 1).await;
    let other = app.mint(tenant, 1).await;
    let machine = Machine::fresh(tenant);
    let mut stranger = machine.enrol(&token);
    stranger["proof"] = Machine::fresh(tenant).enrol(&token)["proof"].clone();
    let mut replayed = machine.enrol(&other);
    replayed["token"] = json!(token);
    // The neutral element signs for everything where weak keys are let in.
    let mut weak = machine.enrol(&token);
    let mut identity = [0; 32];
    identity[0] = 1;
    weak["verify_key"] = json!(STANDARD.encode(identity));
    let mut forged = [0; 64];
    forged[0] = 1;
    weak["proof"] = json!(STANDARD.encode(forged));
    for body in [stranger, replayed, weak] {
        app.post("/v1/enrol", "", body).await.refused(401, "signature_invalid");
    }
    app.post("/v1/enrol", "", machine.enrol(&token)).await.expect(201);
}

#[tokio::test]
async fn a_machine_that_describes_itself_badly_is_refused() {
    let app = App::start().await;
    let tenant = app.places.tenant.tenant_id;
    let token = app.mint(tenant, 1).await;
    let good = Machine::fresh(tenant).enrol(&token);
    for (field, value) in [
        ("name", json!("a\nb")),
        ("name", json!("")),
        ("hostname", json!("x".repeat(300))),
        ("os", json!("plan9")),
        ("arch", json!("\u{0}")),
        ("agent_version", json!("")),
        ("verify_key", json!("AAAA")),
        ("hpke_key", json!(STANDARD.encode([0; 32]))),
        ("hpke_key", json!("not base64")),
        ("proof", json!(STANDARD.encode([1; 63]))),
    ] {
        let mut body = good.clone();
        body[field] = value.clone();
        let answer = app.post("/v1/enrol", "", body).await;
        answer.refused(422, "validation");
        assert_eq!(answer.fields(), [field], "{value}");
    }
    let mut extra = good.clone();
    extra["tenant_id"] = json!(app.places.other_tenant.tenant_id);
    app.post("/v1/enrol", "", extra).await.refused(422, "validation");
    app.post("/v1/enrol", "", Value::Null).await.refused(422, "validation");
    app.act("/v1/enrol", "").await.refused(415, "unsupported_media_type");
    app.post("/v1/enrol", "", good).await.expect(201);
}

#[tokio::test]
async fn figures_of_a_token_have_bounds() {
    let app = App::start().await;
    let path = app.path("enrolment-tokens");
    for (field, body) in [
        ("max_uses", json!({"max_uses": 0})),
        ("max_uses", json!({"max_uses": 1_001})),
        ("ttl_s", json!({"ttl_s": 0})),
        ("ttl_s", json!({"ttl_s": 604_801})),
        ("label", json!({"label": "a\u{202e}b"})),
    ] {
        let answer = app.post(&path, &app.admin(), body).await;
        answer.refused(422, "validation");
        assert_eq!(answer.fields(), [field]);
    }
    for body in [json!({"max_uses": -1}), json!({"max_uses": 1.5}), json!({"uses": 0})] {
        app.post(&path, &app.admin(), body).await.refused(422, "validation");
    }
    let plain = app.post(&path, &app.admin(), json!({})).await.expect(201);
    assert_eq!(
        (&plain["max_uses"], &plain["uses"], &plain["label"]),
        (&json!(1), &json!(0), &json!(""))
    );
}

#[tokio::test]
async fn only_those_who_manage_agents_handle_tokens() {
    let app = App::start().await;
    let path = app.path("enrolment-tokens");
    for role in [Role::TenantRestorer, Role::KeyCustodian, Role::BillingViewer] {
        let token = app.token(app.places.tenant, TenantKind::Tenant, &[role]);
        app.get(&path, &token).await.refused(403, "forbidden");
        app.post(&path, &token, json!({})).await.refused(403, "forbidden");
    }
    let auditor = app.token(app.places.tenant, TenantKind::Tenant, &[Role::Auditor]);
    app.get(&path, &auditor).await.expect(200);
    app.post(&path, &auditor, json!({})).await.refused(403, "forbidden");
    app.get(&path, "").await.refused(401, "unauthenticated");
    app.post(&path, "", json!({})).await.refused(401, "unauthenticated");
}

//! First start, and every start after it.

use std::time::Duration;

use auth::{Secret, bootstrap};
use serde_json::json;

use crate::app::{App, Machine, PASSWORD, account, installation};

#[tokio::test]
async fn a_second_start_changes_nothing_passwords_above_all() {
    let app = App::start().await;
    let before = app.events(app.places.msp.tenant_id).await.len();
    let mut again = installation();
    again.tenant.password = Secret::new("another password entirely".to_owned());
    let places = bootstrap::ensure(app.platform(), again).await.expect("bootstrap");
    assert_eq!(places, app.places);
    assert_eq!(app.events(app.places.msp.tenant_id).await.len(), before);
    app.sign_in("admin@praxis.example", PASSWORD, None).await.expect(200);
    app.sign_in("admin@praxis.example", "another password entirely", None)
        .await
        .refused(401, "wrong_credentials");
}

#[tokio::test]
async fn everybody_made_at_first_start_can_work_and_every_step_is_recorded() {
    let app = App::start().await;
    for (email, place, roles) in [
        (
            "admin@platform.example",
            app.places.platform,
            json!(["platform.operator", "platform.security"]),
        ),
        ("owner@msp.example", app.places.msp, json!(["msp.owner"])),
        ("admin@praxis.example", app.places.tenant, json!(["tenant.admin"])),
        ("admin@kanzlei.example", app.places.other_tenant, json!(["tenant.admin"])),
    ] {
        let reply = app.sign_in(email, PASSWORD, None).await.expect(200);
        let me =
            app.get("/v1/me", reply["access_token"].as_str().expect("token")).await.expect(200);
        assert_eq!((&me["id"], &me["roles"]), (&json!(place.user_id), &roles));
        assert_eq!(me["tenant"]["id"], json!(place.tenant_id));
        let events = app.events(place.tenant_id).await;
        let made = events.iter().find(|event| event["action"] == "user.created").expect("event");
        assert_eq!(made["actor"], json!({"kind": "service", "id": "bootstrap"}));
    }
    assert_eq!(app.count_events(app.places.platform.tenant_id, "tenant.created").await, 2);
}

#[tokio::test]
async fn a_start_that_stopped_half_way_is_finished_by_the_next_and_two_at_once_agree() {
    let app = App::start().await;
    let mut more = installation();
    more.other_tenant_name = "Dritter Mandant".to_owned();
    more.other_tenant = account("admin@dritter.example");
    let mut same = installation();
    same.other_tenant_name = "Dritter Mandant".to_owned();
    same.other_tenant = account("admin@dritter.example");
    let (one, two) = tokio::join!(
        bootstrap::ensure(app.platform(), more),
        bootstrap::ensure(app.platform(), same)
    );
    let (one, two) = (one.expect("bootstrap"), two.expect("bootstrap"));
    assert_eq!(one, two);
    assert_eq!(
        (one.platform, one.msp, one.tenant),
        (app.places.platform, app.places.msp, app.places.tenant)
    );
    assert_ne!(one.other_tenant, app.places.other_tenant);
}

#[tokio::test]
async fn a_token_minted_at_start_enrols_several_machines() {
    let app = App::start().await;
    let tenant = app.places.tenant.tenant_id;
    let ttl = Duration::from_secs(86_400);
    let minted =
        bootstrap::mint_enrolment_token(app.platform(), tenant, 2, ttl).await.expect("mints");
    assert_eq!(minted.expires_at, app.test.now() + ttl);
    for _ in 0..2 {
        app.post("/v1/enrol", "", Machine::fresh(tenant).enrol(&minted.token)).await.expect(201);
    }
    let third = app.post("/v1/enrol", "", Machine::fresh(tenant).enrol(&minted.token)).await;
    third.refused(401, "enrolment_token_invalid");
    assert_eq!(app.count_events(tenant, "enrolment_token.created").await, 1);
}

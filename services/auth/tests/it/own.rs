//! A person's own sign-ins and password.

use axum::http::Method;
use serde_json::{Value, json};

use crate::app::{App, PASSWORD, request};

const EMAIL: &str = "admin@praxis.example";
const NEW: &str = "vier Reiher im Nebel";

async fn signed_in(app: &App, client: &str) -> Value {
    let body = json!({"grant_type": "password", "email": EMAIL, "password": PASSWORD});
    let mut request = request(Method::POST, "/v1/auth/token", "", Some(body));
    request.headers_mut().insert("user-agent", client.parse().expect("a header"));
    app.send(request).await.expect(200)
}

async fn change(app: &App, token: &str, current: &str, new: &str) -> crate::app::Answer {
    app.post("/v1/me/password", token, json!({"current": current, "new": new})).await
}

fn text<'a>(reply: &'a Value, field: &str) -> &'a str {
    reply[field].as_str().expect("text")
}

async fn open(app: &App, token: &str) -> Vec<Value> {
    let page = app.get("/v1/me/sessions", token).await.expect(200);
    page["items"].as_array().expect("items").clone()
}

#[tokio::test]
async fn a_person_sees_their_sign_ins_and_ends_one() {
    let app = App::start().await;
    let lost = signed_in(&app, "everhold/0.1 (a laptop that was left in a train)").await;
    app.advance(60);
    let kept = signed_in(&app, "Firefox").await;
    app.advance(60);
    let kept = app.refresh(text(&kept, "refresh_token")).await.expect(200);
    let token = text(&kept, "access_token");
    let shown = open(&app, token).await;
    let clients: Vec<&str> = shown.iter().map(|one| text(one, "client")).collect();
    assert_eq!(clients, ["Firefox", "everhold/0.1 (a laptop that was left in a train)"]);
    assert!(text(&shown[0], "last_used_at") > text(&shown[0], "started_at"), "it was renewed");
    let path = format!("/v1/me/sessions/{}", text(&shown[1], "id"));
    // Of somebody else it is not there.
    app.call(Method::DELETE, &path, &app.other_admin(), None).await.refused(404, "not_found");
    assert_eq!(app.call(Method::DELETE, &path, token, None).await.status, 204);
    app.call(Method::DELETE, &path, token, None).await.refused(404, "not_found");
    app.refresh(text(&lost, "refresh_token")).await.refused(401, "token_expired");
    app.refresh(text(&kept, "refresh_token")).await.expect(200);
    assert_eq!(open(&app, token).await.len(), 1);
    assert_eq!(app.count_events(app.places.tenant.tenant_id, "session.ended").await, 1);
    // Nobody is nobody, and a machine has no sign-ins.
    app.get("/v1/me/sessions", "").await.refused(401, "unauthenticated");
    let agent = app.enrolled(app.places.tenant.tenant_id).await;
    app.send(agent.get("/v1/me/sessions", app.test.now())).await.refused(403, "forbidden");
}

#[tokio::test]
async fn a_client_is_shown_without_what_a_screen_would_obey() {
    let app = App::start().await;
    let long = "x".repeat(400);
    for client in ["tab\tand more", &long] {
        signed_in(&app, client).await;
        app.advance(1);
    }
    let shown = open(&app, &app.admin()).await;
    let clients: Vec<&str> = shown.iter().map(|one| text(one, "client")).collect();
    assert_eq!(clients, [&long[..200], ""]);
}

#[tokio::test]
async fn a_changed_password_ends_every_sign_in_but_the_one_it_makes() {
    let app = App::start().await;
    let first = signed_in(&app, "a").await;
    let second = signed_in(&app, "b").await;
    let token = text(&second, "access_token");
    for (current, new, field) in [
        (PASSWORD, "short", "new"),
        (PASSWORD, PASSWORD, "new"),
        (PASSWORD, "Admin@Praxis.example", "new"),
        ("not my password", NEW, "current"),
    ] {
        let refused = change(&app, token, current, new).await;
        refused.refused(422, "validation");
        assert_eq!(refused.fields(), [field]);
    }
    app.refresh(text(&first, "refresh_token")).await.expect(200);
    let fresh = change(&app, token, PASSWORD, NEW).await.expect(200);
    for old in [&first, &second] {
        let refused = app.refresh(text(old, "refresh_token")).await;
        assert_eq!(refused.status, 401);
    }
    app.refresh(text(&fresh, "refresh_token")).await.expect(200);
    assert_eq!(open(&app, text(&fresh, "access_token")).await.len(), 1);
    app.sign_in(EMAIL, PASSWORD, None).await.refused(401, "wrong_credentials");
    app.sign_in(EMAIL, NEW, None).await.expect(200);
    let events = app.events(app.places.tenant.tenant_id).await;
    let said =
        events.iter().find(|event| event["action"] == "user.password_changed").expect("said");
    assert_eq!(said["details"]["sessions_ended"], 2);
}

#[tokio::test]
async fn a_stolen_token_guesses_no_faster_than_a_stranger() {
    let app = App::start().await;
    let token = app.admin();
    for _ in 0..5 {
        change(&app, &token, "not my password", NEW).await.refused(422, "validation");
    }
    change(&app, &token, PASSWORD, NEW).await.refused(429, "too_many_requests");
}

#[tokio::test]
async fn a_sign_in_under_way_does_not_survive_the_change_of_its_password() {
    let app = App::start().await;
    let (mut now, mut next) = (PASSWORD, NEW);
    for round in 0..6 {
        let token = app.admin();
        let sign_ins = (0..5).map(|_| app.sign_in(EMAIL, now, None));
        let (changed, _) =
            tokio::join!(change(&app, &token, now, next), futures::future::join_all(sign_ins));
        let fresh = changed.expect(200);
        assert_eq!(open(&app, text(&fresh, "access_token")).await.len(), 1, "round {round}");
        (now, next) = (next, now);
        app.advance(1);
    }
}

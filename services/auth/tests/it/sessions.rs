//! Sign-in, renewal, acting below one's home.

use axum::http::{Method, header};
use domain::TenantId;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::app::{App, PASSWORD, request, send};

fn text<'a>(reply: &'a Value, field: &str) -> &'a str {
    reply[field].as_str().expect("text")
}

#[tokio::test]
async fn the_right_password_opens_and_the_token_says_who_and_where() {
    let app = App::start().await;
    let reply = app.sign_in("Admin@Praxis.example ", PASSWORD, None).await;
    assert_eq!(reply.headers[header::CACHE_CONTROL], "no-store");
    let reply = reply.expect(200);
    assert_eq!((text(&reply, "token_type"), reply["expires_in"].as_u64()), ("Bearer", Some(300)));
    let me = app.get("/v1/me", text(&reply, "access_token")).await.expect(200);
    assert_eq!(me["email"], "admin@praxis.example");
    assert_eq!(me["tenant"]["id"], json!(app.places.tenant.tenant_id));
    assert_eq!(me["home_tenant_id"], json!(app.places.tenant.tenant_id));
    assert_eq!(me["roles"], json!(["tenant.admin"]));
    assert_eq!(app.count_events(app.places.tenant.tenant_id, "session.started").await, 1);
}

#[tokio::test]
async fn an_unknown_name_and_a_wrong_password_answer_alike() {
    let app = App::start().await;
    let wrong = app.sign_in("admin@praxis.example", "not the password", None).await;
    wrong.refused(401, "wrong_credentials");
    for name in
        ["nobody@praxis.example", "no address", "a\0b@praxis.example", "", &"x".repeat(5_000)]
    {
        let unknown = app.sign_in(name, "not the password", None).await;
        assert_eq!(unknown.shape(), wrong.shape(), "{name:?}");
    }
}

#[tokio::test]
async fn guessing_is_slowed_down_and_waiting_helps() {
    let app = App::start().await;
    for _ in 0..5 {
        app.sign_in("admin@praxis.example", "wrong password", None)
            .await
            .refused(401, "wrong_credentials");
    }
    let told = app.sign_in("admin@praxis.example", PASSWORD, None).await;
    told.refused(429, "too_many_requests");
    assert!(told.headers.contains_key(header::RETRY_AFTER));
    app.sign_in("admin@kanzlei.example", PASSWORD, None).await.expect(200);
    app.advance(1);
    app.sign_in("admin@praxis.example", PASSWORD, None).await.expect(200);
    app.sign_in("admin@praxis.example", "wrong password", None)
        .await
        .refused(401, "wrong_credentials");
}

/// One sign-in over a socket from an address of this machine; the status it got.
async fn sign_in_from(
    source: std::net::Ipv4Addr,
    server: std::net::SocketAddr,
    password: &str,
) -> u16 {
    let socket = tokio::net::TcpSocket::new_v4().expect("socket");
    socket.bind((source, 0).into()).expect("an address of the loopback");
    let mut stream = socket.connect(server).await.expect("connects");
    let body =
        json!({"grant_type": "password", "email": "admin@praxis.example", "password": password});
    let body = body.to_string();
    let request = format!(
        "POST /v1/auth/token HTTP/1.1\r\nhost: everhold.test\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answers");
    answer.split(' ').nth(1).expect("a status").parse().expect("a number")
}

#[tokio::test]
async fn guessing_from_one_address_does_not_delay_the_owner_at_another() {
    let app = App::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let server = listener.local_addr().expect("address");
    let stop = CancellationToken::new();
    let serving = runtime::serve_public(listener, app.router.clone(), stop.clone());
    let serving = tokio::spawn(serving);
    let [attacker, owner] = [[127, 0, 0, 2], [127, 0, 0, 3]].map(std::net::Ipv4Addr::from);
    let mut seen = Vec::new();
    for _ in 0..7 {
        seen.push(sign_in_from(attacker, server, "wrong password").await);
    }
    assert_eq!(seen, [401, 401, 401, 401, 401, 429, 429]);
    assert_eq!(sign_in_from(attacker, server, PASSWORD).await, 429, "not even the right one");
    assert_eq!(sign_in_from(owner, server, PASSWORD).await, 200);
    stop.cancel();
    serving.await.expect("joins").expect("serves");
}

#[tokio::test]
async fn a_name_taken_in_many_other_tenants_still_opens_the_tenant_named() {
    let app = App::start().await;
    let make = async |place: auth::bootstrap::Place, token: String, password: &str| {
        let body = json!({"email": "gast@praxis.example", "name": "Gast", "password": password,
            "roles": ["auditor"]});
        let path = format!("/v1/tenants/{}/users", place.tenant_id);
        app.post(&path, &token, body).await.expect(201);
    };
    let squatted = "drei Möwen am Kai";
    make(app.places.platform, app.operator(), squatted).await;
    make(app.places.msp, app.owner(), squatted).await;
    make(app.places.other_tenant, app.other_admin(), squatted).await;
    app.advance(1);
    make(app.places.tenant, app.admin(), PASSWORD).await;
    let home = app.places.tenant.tenant_id;
    app.sign_in("gast@praxis.example", PASSWORD, Some(home)).await.expect(200);
}

#[tokio::test]
async fn malformed_token_requests_are_refused() {
    let app = App::start().await;
    let url = "/v1/auth/token";
    for body in [
        json!({"grant_type": "password", "email": "a@b.example"}),
        json!({"grant_type": "password", "email": "a@b.example", "password": "x", "admin": true}),
        json!({"grant_type": "client_credentials"}),
        json!({"email": "a@b.example", "password": "x"}),
        json!({"grant_type": "password", "email": "a@b.example", "password": "x", "tenant_id": "ten_1"}),
        json!([]),
    ] {
        app.post(url, "", body).await.refused(422, "validation");
    }
    let mut plain = request(Method::POST, url, "", Some(json!({})));
    plain.headers_mut().insert(header::CONTENT_TYPE, "text/plain".parse().expect("value"));
    app.send(plain).await.refused(415, "unsupported_media_type");
    app.get(url, "").await.refused(405, "method_not_allowed");
}

#[tokio::test]
async fn a_refresh_token_is_good_once() {
    let app = App::start().await;
    let first = app.sign_in("admin@praxis.example", PASSWORD, None).await.expect(200);
    let second = app.refresh(text(&first, "refresh_token")).await.expect(200);
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    app.get("/v1/me", text(&second, "access_token")).await.expect(200);
    app.refresh(text(&first, "refresh_token")).await.refused(401, "token_reused");
    // The honest holder's newest token is dead too, and says why.
    app.refresh(text(&second, "refresh_token")).await.refused(401, "token_reused");
    let tenant = app.places.tenant.tenant_id;
    assert_eq!(app.count_events(tenant, "session.reuse_detected").await, 1);
    // Another sign-in of the same person goes on.
    app.sign_in("admin@praxis.example", PASSWORD, None).await.expect(200);
}

#[tokio::test]
async fn of_fifty_parallel_uses_exactly_one_wins_and_the_family_ends() {
    let app = App::start().await;
    let first = app.sign_in("admin@praxis.example", PASSWORD, None).await.expect(200);
    let body = json!({"grant_type": "refresh_token", "refresh_token": first["refresh_token"]});
    app.warm_up().await;
    let tries: Vec<_> = (0..50)
        .map(|_| {
            let request = request(Method::POST, "/v1/auth/token", "", Some(body.clone()));
            tokio::spawn(send(app.router.clone(), request))
        })
        .collect();
    let mut won = Vec::new();
    for attempt in tries {
        let answer = attempt.await.expect("joins");
        if answer.status == 200 {
            won.push(answer.body);
        } else {
            answer.refused(401, "token_reused");
        }
    }
    assert_eq!(won.len(), 1);
    app.refresh(text(&won[0], "refresh_token")).await.refused(401, "token_reused");
    let tenant = app.places.tenant.tenant_id;
    assert_eq!(app.count_events(tenant, "session.reuse_detected").await, 1);
    let ended: Vec<Option<String>> =
        sqlx::query_scalar("SELECT end_reason FROM auth.refresh_families")
            .fetch_all(&mut app.superuser().await)
            .await
            .expect("rows");
    assert_eq!(ended, [Some("reused".to_owned())]);
}

#[tokio::test]
async fn refresh_tokens_age_and_the_session_ends_however_often_it_is_renewed() {
    let app = App::start().await;
    let idle = app.sign_in("admin@praxis.example", PASSWORD, None).await.expect(200);
    app.advance(86_400);
    app.refresh(text(&idle, "refresh_token")).await.refused(401, "token_expired");
    let mut reply = app.sign_in("admin@praxis.example", PASSWORD, None).await.expect(200);
    for _ in 0..30 {
        app.advance(86_000);
        reply = app.refresh(text(&reply, "refresh_token")).await.expect(200);
    }
    app.advance(12_001);
    app.refresh(text(&reply, "refresh_token")).await.refused(401, "token_expired");
    // A long-forgotten session is removed; a young one stays.
    app.sign_in("admin@praxis.example", PASSWORD, None).await.expect(200);
    app.advance(10 * 86_400);
    assert_eq!(auth::maintenance::prune_sessions(app.platform()).await.expect("prunes"), 2);
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM auth.refresh_tokens")
        .fetch_one(&mut app.superuser().await)
        .await
        .expect("count");
    assert_eq!(left, 1);
}

#[tokio::test]
async fn what_is_no_refresh_token_of_ours_is_a_wrong_secret() {
    let app = App::start().await;
    let real = app.sign_in("admin@praxis.example", PASSWORD, None).await.expect(200);
    let real = text(&real, "refresh_token");
    let (head, secret) = real.rsplit_once('_').expect("form");
    let other = app.places.other_tenant.tenant_id.uuid().simple().to_string();
    for bad in [
        "",
        "evh_rt_",
        "x",
        &real[..real.len() - 1],
        // Another secret, and the right secret under another tenant.
        &format!("{head}_{}", "A".repeat(43)),
        &format!("evh_rt_{other}_{secret}"),
        &format!("evh_rt_{}_{secret}", "0".repeat(32)),
        &real.replace("evh_rt_", "evh_en_"),
    ] {
        app.refresh(bad).await.refused(401, "wrong_credentials");
    }
    app.refresh(real).await.expect(200);
}

#[tokio::test]
async fn revoking_ends_the_session_and_says_nothing() {
    let app = App::start().await;
    let reply = app.sign_in("admin@praxis.example", PASSWORD, None).await.expect(200);
    let token = text(&reply, "refresh_token").to_owned();
    let end = |token: &str| app.post("/v1/auth/revoke", "", json!({"refresh_token": token}));
    for token in
        ["nonsense", &format!("evh_rt_{}_{}", "0".repeat(32), "A".repeat(43)), &token, &token]
    {
        assert_eq!(end(token).await.status, 204);
    }
    app.refresh(&token).await.refused(401, "token_expired");
    assert_eq!(app.count_events(app.places.tenant.tenant_id, "session.ended").await, 1);
    let extra = json!({"refresh_token": token, "all": true});
    app.post("/v1/auth/revoke", "", extra).await.refused(422, "validation");
}

#[tokio::test]
async fn an_msp_acts_in_its_tenant_and_the_tenant_sees_it() {
    let app = App::start().await;
    let tenant = app.places.tenant.tenant_id;
    let reply = app.sign_in("owner@msp.example", PASSWORD, Some(tenant)).await.expect(200);
    let me = app.get("/v1/me", text(&reply, "access_token")).await.expect(200);
    assert_eq!(me["tenant"]["id"], json!(tenant));
    assert_eq!(me["home_tenant_id"], json!(app.places.msp.tenant_id));
    assert_eq!(me["roles"], json!(["msp.owner"]));
    app.get(&app.path("agents"), text(&reply, "access_token")).await.expect(200);
    // Everything else, its own tenant too, is out of this token's reach.
    for place in [app.places.msp, app.places.other_tenant, app.places.platform] {
        let path = format!("/v1/tenants/{}", place.tenant_id);
        app.get(&path, text(&reply, "access_token")).await.refused(404, "not_found");
    }
    // Renewal stays there, is seen again, and going home is possible.
    let again = app.refresh(text(&reply, "refresh_token")).await.expect(200);
    app.get(&app.path("agents"), text(&again, "access_token")).await.expect(200);
    let events = app.events(tenant).await;
    let seen: Vec<_> = events.iter().filter(|event| event["action"] == "tenant.accessed").collect();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0]["actor"]["id"], json!(app.places.msp.user_id));
    assert_eq!(seen[0]["actor"]["home_tenant_id"], json!(app.places.msp.tenant_id));
    let home = json!({"grant_type": "refresh_token", "refresh_token": again["refresh_token"],
        "tenant_id": app.places.msp.tenant_id});
    let home = app.post("/v1/auth/token", "", home).await.expect(200);
    app.get(&app.path("agents"), text(&home, "access_token")).await.refused(404, "not_found");
    assert_eq!(app.count_events(tenant, "tenant.accessed").await, 2);
}

#[tokio::test]
async fn nobody_acts_beside_or_above_and_a_foreign_tenant_answers_as_none() {
    let app = App::start().await;
    let name = json!({"name": "Südwind IT"});
    let path = format!("/v1/tenants/{}/children", app.places.platform.tenant_id);
    let rival = app.post(&path, &app.operator(), name).await.expect(201);
    let rival: TenantId = text(&rival, "id").parse().expect("id");
    let random = TenantId::from_bytes([42; 16]);
    for (email, foreign) in [
        ("owner@msp.example", rival),
        ("owner@msp.example", app.places.platform.tenant_id),
        ("admin@praxis.example", app.places.other_tenant.tenant_id),
        ("admin@praxis.example", app.places.msp.tenant_id),
    ] {
        let answer = app.sign_in(email, PASSWORD, Some(foreign)).await;
        answer.refused(404, "not_found");
        assert_eq!(answer.shape(), app.sign_in(email, PASSWORD, Some(random)).await.shape());
    }
    assert_eq!(app.count_events(rival, "tenant.accessed").await, 0);
    // By renewal neither, and the refused try does not use the token up.
    let reply = app.sign_in("owner@msp.example", PASSWORD, None).await.expect(200);
    let renew = |tenant: TenantId| {
        json!({"grant_type": "refresh_token",
        "refresh_token": reply["refresh_token"], "tenant_id": tenant})
    };
    app.post("/v1/auth/token", "", renew(rival)).await.refused(404, "not_found");
    app.post("/v1/auth/token", "", renew(app.places.tenant.tenant_id)).await.expect(200);
}

#[tokio::test]
async fn a_platform_operator_in_a_tenant_sees_none_of_its_objects() {
    let app = App::start().await;
    let tenant = app.places.tenant.tenant_id;
    let reply = app.sign_in("admin@platform.example", PASSWORD, Some(tenant)).await.expect(200);
    let token = text(&reply, "access_token");
    app.get(&app.path(""), token).await.refused(404, "not_found");
    app.get(&format!("/v1/tenants/{tenant}"), token).await.expect(200);
    for hidden in ["users", "agents", "enrolment-tokens"] {
        app.get(&app.path(hidden), token).await.refused(403, "forbidden");
    }
    assert_eq!(app.count_events(tenant, "tenant.accessed").await, 1);
}

#[tokio::test]
async fn a_role_that_only_looks_does_not_reach_below_its_home() {
    let app = App::start().await;
    let path = format!("/v1/tenants/{}/users", app.places.msp.tenant_id);
    let body = json!({"email": "auditor@msp.example", "name": "Auditor", "password": PASSWORD, "roles": ["auditor"]});
    app.post(&path, &app.owner(), body).await.expect(201);
    app.sign_in("auditor@msp.example", PASSWORD, None).await.expect(200);
    let below =
        app.sign_in("auditor@msp.example", PASSWORD, Some(app.places.tenant.tenant_id)).await;
    below.refused(403, "forbidden");
}

#[tokio::test]
async fn one_address_may_have_accounts_in_two_tenants_and_the_password_tells_which() {
    let app = App::start().await;
    let path = format!("/v1/tenants/{}/users", app.places.other_tenant.tenant_id);
    let theirs = "fünf Reiher im Schilf";
    let body = json!({"email": "admin@praxis.example", "name": "Same", "password": theirs, "roles": ["tenant.operator"]});
    app.post(&path, &app.other_admin(), body).await.expect(201);
    for (password, home) in [(PASSWORD, app.places.tenant), (theirs, app.places.other_tenant)] {
        let reply = app.sign_in("admin@praxis.example", password, None).await.expect(200);
        let me = app.get("/v1/me", text(&reply, "access_token")).await.expect(200);
        assert_eq!(me["home_tenant_id"], json!(home.tenant_id));
    }
}

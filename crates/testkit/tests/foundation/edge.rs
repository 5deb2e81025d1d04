//! What leaves the edge: identities believed, problems in one form, headers always.

use std::{convert::Infallible, time::Duration};

use api::{
    Code, Problem,
    client::{Client, Error},
};
use authz::{Role, TenantKind, User};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use runtime::{LeaseClaims, Limits, RoleName};
use serde_json::{Value, json};
use testkit::TestApp;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::sample::{app, role};

async fn get(client: &Client, path: &str) -> Result<Value, Error> {
    client.get(path).await
}

fn request(
    method: Method,
    path: &str,
    token: &str,
    kind: &str,
    body: &'static str,
) -> Request<Bytes> {
    let mut request = Request::builder().method(method).uri(format!("http://everhold.test{path}"));
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    if !kind.is_empty() {
        request = request.header("content-type", kind);
    }
    request.body(Bytes::from(body)).unwrap()
}

fn problem(response: &Response<Bytes>) -> Problem {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Problem = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(problem.status, response.status().as_u16());
    assert_eq!(problem.request_id.as_deref().unwrap(), response.headers()["x-request-id"]);
    problem
}

fn admin_token(app: &TestApp) -> (domain::TenantId, String) {
    let tenant = app.tenant();
    let user = User {
        id: app.id(),
        home: tenant,
        tenant,
        kind: TenantKind::Tenant,
        roles: vec![Role::TenantAdmin],
    };
    (tenant, app.token(&user))
}

#[tokio::test]
async fn nobody_is_asked_to_sign_in_and_somebody_with_the_right_role_gets_through() {
    let app = app().await;
    let tenant = app.tenant();
    let path = format!("/v1/tenants/{tenant}/workloads");
    assert_eq!(testkit::code(&get(&app.client(), &path).await), Some(Code::Unauthenticated));
    let seen = get(&app.user(tenant, Role::TenantOperator), &path).await.unwrap();
    assert_eq!(seen, json!({ "kind": "user", "id": tenant.to_string() }));
    let viewer = app.user(tenant, Role::BillingViewer);
    assert_eq!(testkit::code(&get(&viewer, &path).await), Some(Code::Forbidden));
    let hello = get(&app.client(), "/v1/hello").await.unwrap();
    assert_eq!(hello["kind"], "anonymous");
}

#[tokio::test]
async fn another_tenants_id_a_random_one_and_a_malformed_one_answer_alike() {
    let app = app().await;
    let (_, token) = admin_token(&app);
    let foreign = app.tenant();
    app.agent(foreign);
    let mut bodies = Vec::new();
    for id in [foreign.to_string(), app.tenant().to_string(), "ten_x".into(), "x".into()] {
        let path = format!("/v1/tenants/{id}/workloads");
        let response = app.raw(request(Method::GET, &path, &token, "", "")).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let mut body = problem(&response);
        body.request_id = None;
        bodies.push(body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
}

#[tokio::test]
async fn a_path_without_a_tenant_means_the_tokens_own() {
    let app = app().await;
    let tenant = app.tenant();
    let own = get(&app.user(tenant, Role::TenantAdmin), "/v1/browse").await.unwrap();
    assert_eq!(own, tenant.to_string());
    let msp = app.msp_user(app.tenant(), tenant, Role::MspOwner);
    assert_eq!(testkit::code(&get(&msp, "/v1/browse").await), Some(Code::Forbidden));
}

#[tokio::test]
async fn a_malformed_object_id_is_not_found() {
    let app = app().await;
    let tenant = app.tenant();
    let admin = app.user(tenant, Role::TenantAdmin);
    for id in ["snp_x", "wkl_0190f3a1c2d47e8f9a0b1c2d3e4f5a6b", "..%2F..", "%FF"] {
        let answer = get(&admin, &format!("/v1/tenants/{tenant}/snapshots/{id}")).await;
        assert_eq!(testkit::code(&answer), Some(Code::NotFound), "{id}");
    }
}

#[tokio::test]
async fn a_token_ends_when_the_platforms_clock_says_so() {
    let app = app().await;
    let tenant = app.tenant();
    let admin = app.user(tenant, Role::TenantAdmin);
    let path = format!("/v1/tenants/{tenant}/workloads");
    assert!(get(&admin, &path).await.is_ok());
    app.advance(Duration::from_secs(306));
    assert_eq!(testkit::code(&get(&admin, &path).await), Some(Code::TokenExpired));
}

#[tokio::test]
async fn only_an_access_token_opens_the_public_door() {
    let app = app().await;
    let tenant = app.tenant();
    let path = format!("/v1/tenants/{tenant}/workloads");
    let keys = &app.platform(RoleName::Scheduler).service_keys;
    let lease = LeaseClaims {
        tenant,
        agent: app.id(),
        workload: app.id(),
        run: app.id(),
        epoch: 1,
        lease_until: app.now() + Duration::from_secs(60),
    };
    let lease = keys.sign_lease(&lease, app.now()).unwrap();
    let service = keys.sign_service("catalog", app.now()).unwrap();
    for token in [lease.as_str(), service.as_str(), "x", "a.b.c"] {
        let response = app.raw(request(Method::GET, &path, token, "", "")).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        // A public operation does not pass a bad credential over either.
        let response = app.raw(request(Method::GET, "/v1/hello", token, "", "")).await;
        assert_eq!(problem(&response).code, Code::Unauthenticated);
    }
}

#[tokio::test]
async fn internal_operations_are_not_on_the_public_router_and_want_a_service_token() {
    let app = app().await;
    let (_, token) = admin_token(&app);
    let outside = app.raw(request(Method::GET, "/internal/v1/who", &token, "", "")).await;
    assert_eq!(problem(&outside).code, Code::NotFound);
    let inside = app.service(RoleName::Scheduler, RoleName::Catalog);
    assert_eq!(get(&inside, "/internal/v1/who").await.unwrap(), "scheduler");
    let person = inside.with_identity(api::client::Identity::Bearer(token));
    assert_eq!(testkit::code(&get(&person, "/internal/v1/who").await), Some(Code::Unauthenticated));
    let nobody = inside.with_identity(api::client::Identity::Anonymous);
    assert_eq!(testkit::code(&get(&nobody, "/internal/v1/who").await), Some(Code::Unauthenticated));
    app.advance(Duration::from_secs(66));
    assert_eq!(testkit::code(&get(&inside, "/internal/v1/who").await), Some(Code::Unauthenticated));
    // A role that does not run here is a part that does not answer, not a crash.
    let absent = app.service(RoleName::Catalog, RoleName::Billing);
    let answer = get(&absent, "/internal/v1/who").await;
    assert!(answer.unwrap_err().is_retryable());
}

#[tokio::test]
async fn bodies_that_cannot_be_taken_say_why() {
    let app = app().await;
    let (tenant, token) = admin_token(&app);
    let path = format!("/v1/tenants/{tenant}/notes");
    let big: &'static str =
        Box::leak(format!("{{\"text\":\"{}\"}}", "x".repeat(1 << 20)).into_boxed_str());
    for (kind, body, code) in [
        ("application/json", "{\"text\":\"a\",\"more\":1}", Code::Validation),
        ("application/json", "{\"text\":1}", Code::Validation),
        ("application/json", "{", Code::BadRequest),
        ("application/json", "", Code::BadRequest),
        ("text/plain", "{\"text\":\"a\"}", Code::UnsupportedMediaType),
        ("", "{\"text\":\"a\"}", Code::UnsupportedMediaType),
        ("application/json", big, Code::PayloadTooLarge),
    ] {
        let response = app.raw(request(Method::POST, &path, &token, kind, body)).await;
        assert_eq!(problem(&response).code, code, "{kind}");
    }
    let good =
        request(Method::POST, &path, &token, "application/json; charset=utf-8", "{\"text\":\"a\"}");
    assert_eq!(app.raw(good).await.status(), StatusCode::OK);
    let query = format!("/v1/tenants/{tenant}/workloads?limt=3");
    let response = app.raw(request(Method::GET, &query, &token, "", "")).await;
    assert_eq!(problem(&response).code, Code::Validation);
}

#[tokio::test]
async fn everything_that_fails_is_a_problem_and_everything_that_leaves_has_the_time() {
    let app = app().await;
    let (tenant, token) = admin_token(&app);
    let panicking = format!("/v1/tenants/{tenant}/workloads?limit=5000");
    for (method, path, code) in [
        (Method::GET, "/v1/nothing", Code::NotFound),
        (Method::DELETE, "/v1/hello", Code::MethodNotAllowed),
        (Method::GET, panicking.as_str(), Code::Internal),
    ] {
        let response = app.raw(request(method, path, &token, "", "")).await;
        assert_eq!(problem(&response).code, code, "{path}");
        let time = response.headers()["x-everhold-time-ms"].to_str().unwrap();
        assert_eq!(time.parse(), Ok(app.now().unix_millis()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_answers_is_cut_off() {
    let limits = Limits { answer_within: Duration::from_secs(5), ..Limits::default() };
    let app =
        TestApp::builder().role(RoleName::Catalog, role).limits(limits).start().await.unwrap();
    let response = app.raw(request(Method::GET, "/v1/wait", "", "", "")).await;
    assert_eq!(problem(&response).code, Code::Unavailable);
}

#[tokio::test]
async fn more_requests_than_slots_are_told_to_come_back() {
    let limits = Limits { in_flight: 1, ..Limits::default() };
    let app =
        TestApp::builder().role(RoleName::Catalog, role).limits(limits).start().await.unwrap();
    let waiting = app.raw(request(Method::GET, "/v1/wait", "", "", ""));
    tokio::pin!(waiting);
    assert!(futures_poll(waiting.as_mut()).await);
    let response = app.raw(request(Method::GET, "/v1/hello", "", "", "")).await;
    assert_eq!(problem(&response).code, Code::TooManyRequests);
    assert!(response.headers().contains_key("retry-after"));
}

/// A request whose body never arrives.
fn stalled(path: &str) -> Request<axum::body::Body> {
    let never =
        axum::body::Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>());
    Request::post(path).header("content-type", "application/json").body(never).unwrap()
}

async fn sent(app: &TestApp, request: Request<axum::body::Body>) -> StatusCode {
    app.assembly().public.clone().oneshot(request).await.unwrap().status()
}

#[tokio::test]
async fn slow_bodies_keep_nobody_out() {
    let limits = Limits { in_flight: 1, ..Limits::default() };
    let app =
        TestApp::builder().role(RoleName::Catalog, role).limits(limits).start().await.unwrap();
    let mut slow: Vec<_> =
        (0..1_100).map(|_| Box::pin(sent(&app, stalled("/v1/tenants/x/notes")))).collect();
    for request in &mut slow {
        assert!(futures_poll(request.as_mut()).await, "the body is waited for");
    }
    let response = app.raw(request(Method::GET, "/v1/hello", "", "", "")).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let limits = Limits { body_within: Duration::from_millis(50), ..Limits::default() };
    let app =
        TestApp::builder().role(RoleName::Catalog, role).limits(limits).start().await.unwrap();
    assert_eq!(sent(&app, stalled("/v1/tenants/x/notes")).await, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn large_bodies_share_a_bounded_room_and_small_ones_always_pass() {
    let limits = Limits { bodies: 20 * 1024, ..Limits::default() };
    let app =
        TestApp::builder().role(RoleName::Catalog, role).limits(limits).start().await.unwrap();
    let (tenant, token) = admin_token(&app);
    let path = format!("/v1/tenants/{tenant}/notes");
    let post = |length: usize| {
        let body = format!("{{\"text\":\"{}\"}}", "x".repeat(length));
        let mut request = request(Method::POST, &path, &token, "application/json", "");
        *request.body_mut() = Bytes::from(body);
        app.raw(request)
    };
    assert_eq!(problem(&post(21 * 1024).await).code, Code::TooManyRequests);
    assert_eq!(post(1_000).await.status(), StatusCode::OK);
    // What one took is there for the next.
    for _ in 0..3 {
        assert_eq!(post(19 * 1024).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_connection_too_many_is_told_and_closed() {
    let app = app().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let router = app.assembly().public.clone();
    let serving = tokio::spawn(runtime::serve::serve_at_most(1, listener, router, stop.clone()));
    let ask = b"GET /v1/hello HTTP/1.1\r\nhost: everhold.test\r\n\r\n";
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(ask).await.unwrap();
    let mut head = [0; 12];
    first.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let mut second = TcpStream::connect(address).await.unwrap();
    let mut answer = String::new();
    second.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after"), "{answer}");
    drop(first);
    // The place is free as soon as the server has noticed.
    loop {
        let mut third = TcpStream::connect(address).await.unwrap();
        if third.write_all(ask).await.is_ok()
            && third.read_exact(&mut head).await.is_ok()
            && &head == b"HTTP/1.1 200"
        {
            break;
        }
    }
    stop.cancel();
    serving.await.unwrap().unwrap();
}

/// Polls once; true when the future still waits.
async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

#[tokio::test]
async fn the_document_says_who_may_call_and_how_it_fails() {
    let app = app().await;
    let document = get(&app.client(), "/openapi.json").await.unwrap();
    let hello = &document["paths"]["/v1/hello"]["get"];
    assert_eq!(hello["security"], json!([]), "public operations ask for nothing");
    let read = &document["paths"]["/v1/tenants/{tenant_id}/workloads"]["get"];
    assert_eq!(read["security"], json!([{ "bearer": [] }, { "agent": [] }]));
    let default = &read["responses"]["default"]["content"]["application/problem+json"];
    assert_eq!(default["schema"]["$ref"], "#/components/schemas/Problem");
    assert!(document["components"]["schemas"]["Problem"]["properties"]["code"].is_object());
    assert!(document["components"]["schemas"]["Code"].is_object());
    assert!(!document.to_string().contains("/internal/"));
}

#[tokio::test]
async fn metrics_name_routes_and_never_a_tenant() {
    let app = app().await;
    let tenant = app.tenant();
    let admin = app.user(tenant, Role::TenantAdmin);
    get(&admin, &format!("/v1/tenants/{tenant}/workloads")).await.unwrap();
    get(&admin, "/v1/nothing").await.unwrap_err();
    let text = app.edge().metrics().render();
    assert!(
        text.contains("route=\"/v1/tenants/{tenant_id}/workloads\",status=\"200\"} 1"),
        "{text}"
    );
    assert!(text.contains("route=\"unmatched\",status=\"404\"} 1"), "{text}");
    assert!(!text.contains("ten_"));
}

//! The role behind its real edge, on a real database, with a clock that stands still.

use std::time::Duration;

use auth::{
    AuthConfig, Secret,
    bootstrap::{self, Account, Bootstrap, Installed, Place},
};
use authz::{Role, Scope, ScopeReason, TenantKind, User};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use domain::{AgentId, IdGen as _, SystemIds, TenantId, Timestamp};
use ed25519_dalek::{Signer as _, SigningKey};
use runtime::{Platform, RoleName};
use serde_json::{Value, json};
use sqlx::PgConnection;
use testkit::TestApp;
use tower::ServiceExt as _;

pub const ORIGIN: &str = "http://everhold.test";
pub const PASSWORD: &str = "vier Kähne auf dem See";

/// The key access tokens are signed with.
pub fn access_key() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

pub struct App {
    pub router: Router,
    pub test: TestApp,
    pub places: Installed,
}

/// An answer, body read.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or("")
    }
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{:#}", self.body);
        self.body
    }
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.code()), (status, code), "{:#}", self.body);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
    }
    /// What a stranger can tell apart.
    pub fn shape(&self) -> (StatusCode, Value) {
        let mut body = self.body.clone();
        if let Some(object) = body.as_object_mut() {
            object.remove("request_id");
        }
        (self.status, body)
    }
    /// Fields a validation problem names.
    pub fn fields(&self) -> Vec<&str> {
        let fields = self.body["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
        fields.iter().filter_map(|field| field["field"].as_str()).collect()
    }
}

pub fn account(email: &str) -> Account {
    Account {
        email: email.to_owned(),
        name: "A Person".to_owned(),
        password: Secret::new(PASSWORD.to_owned()),
    }
}

pub fn installation() -> Bootstrap {
    Bootstrap {
        platform_name: "Everhold".to_owned(),
        platform_admin: account("admin@platform.example"),
        msp_name: "Nordlicht IT".to_owned(),
        msp: account("owner@msp.example"),
        tenant_name: "Praxis Hartmann".to_owned(),
        tenant: account("admin@praxis.example"),
        other_tenant_name: "Kanzlei Brandt".to_owned(),
        other_tenant: account("admin@kanzlei.example"),
    }
}

impl App {
    pub async fn start() -> Self {
        let config = AuthConfig::new(&STANDARD.encode([2; 32]), &[], 2).expect("config");
        let test = TestApp::builder()
            .role(RoleName::Auth, |platform| auth::role(&platform, config))
            .start()
            .await
            .expect("starts");
        let places = bootstrap::ensure(test.platform(RoleName::Auth), installation());
        let places = places.await.expect("bootstrap");
        Self { router: test.assembly().public.clone(), test, places }
    }

    pub fn platform(&self) -> &Platform {
        self.test.platform(RoleName::Auth)
    }
    /// For looking and for planting: row security does not bind it.
    pub async fn superuser(&self) -> PgConnection {
        self.test.database().superuser().await.expect("superuser")
    }

    /// Opens every connection of the pool. A race over the one a fresh pool has is none: it is a queue.
    pub async fn warm_up(&self) {
        let scope =
            Scope::without_permit(self.places.tenant.tenant_id, ScopeReason::PresentedCredential);
        let connections = (0..6).map(|_| pg::TenantTx::begin(&self.platform().db, scope));
        for connection in futures::future::join_all(connections).await {
            connection.expect("opens");
        }
    }

    pub fn advance(&self, seconds: u64) {
        self.test.advance(Duration::from_secs(seconds));
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        send(self.router.clone(), request).await
    }

    pub async fn call(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> Answer {
        self.send(request(method, path, token, body)).await
    }
    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.call(Method::GET, path, token, None).await
    }
    pub async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.call(Method::POST, path, token, Some(body)).await
    }
    /// A POST without a body.
    pub async fn act(&self, path: &str, token: &str) -> Answer {
        self.call(Method::POST, path, token, None).await
    }

    pub async fn sign_in(&self, email: &str, password: &str, tenant: Option<TenantId>) -> Answer {
        let mut body = json!({"grant_type": "password", "email": email, "password": password});
        if let Some(tenant) = tenant {
            body["tenant_id"] = json!(tenant);
        }
        self.post("/v1/auth/token", "", body).await
    }
    pub async fn refresh(&self, token: &str) -> Answer {
        let body = json!({"grant_type": "refresh_token", "refresh_token": token});
        self.post("/v1/auth/token", "", body).await
    }

    /// An access token as the role signs it, without the cost of a sign-in.
    pub fn token(&self, place: Place, kind: TenantKind, roles: &[Role]) -> String {
        self.token_in(place, place.tenant_id, kind, roles)
    }
    pub fn token_in(
        &self,
        place: Place,
        acting: TenantId,
        kind: TenantKind,
        roles: &[Role],
    ) -> String {
        let user = User {
            id: place.user_id,
            home: place.tenant_id,
            tenant: acting,
            kind,
            roles: roles.to_vec(),
        };
        self.test.token(&user)
    }
    pub fn operator(&self) -> String {
        self.token(self.places.platform, TenantKind::Platform, &[Role::PlatformOperator])
    }
    pub fn owner(&self) -> String {
        self.token(self.places.msp, TenantKind::Msp, &[Role::MspOwner])
    }
    pub fn admin(&self) -> String {
        self.token(self.places.tenant, TenantKind::Tenant, &[Role::TenantAdmin])
    }
    pub fn other_admin(&self) -> String {
        self.token(self.places.other_tenant, TenantKind::Tenant, &[Role::TenantAdmin])
    }

    /// Path below the first tenant.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/tenants/{}/{rest}", self.places.tenant.tenant_id)
    }

    pub async fn mint(&self, tenant: TenantId, uses: u32) -> String {
        let ttl = Duration::from_secs(3_600);
        bootstrap::mint_enrolment_token(self.platform(), tenant, uses, ttl)
            .await
            .expect("token")
            .token
    }

    /// An enrolled agent of `tenant`.
    pub async fn enrolled(&self, tenant: TenantId) -> Machine {
        let token = self.mint(tenant, 1).await;
        let machine = Machine::fresh(tenant);
        let reply = self.post("/v1/enrol", "", machine.enrol(&token)).await.expect(201);
        let id = reply["agent_id"].as_str().expect("id").parse().expect("id");
        Machine { id: Some(id), ..machine }
    }

    /// Actions of the events recorded in `tenant`, oldest first.
    pub async fn events(&self, tenant: TenantId) -> Vec<Value> {
        sqlx::query_scalar(
            "SELECT payload FROM auth.outbox WHERE tenant_id = $1 AND topic = 'audit' ORDER BY position",
        )
        .bind(tenant.uuid())
        .fetch_all(&mut self.superuser().await)
        .await
        .expect("events")
    }
    pub async fn count_events(&self, tenant: TenantId, action: &str) -> usize {
        self.events(tenant).await.iter().filter(|event| event["action"] == action).count()
    }
}

pub async fn send(router: Router, request: Request<Body>) -> Answer {
    let response = router.oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, 1 << 20).await.expect("body");
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    assert!(parts.headers.contains_key("x-request-id"));
    Answer { status: parts.status, headers: parts.headers, body }
}

pub fn request(method: Method, path: &str, token: &str, body: Option<Value>) -> Request<Body> {
    let mut request =
        Request::builder().method(method).uri(path).header(header::HOST, "everhold.test");
    if !token.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    match body {
        Some(body) => request
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string())),
        None => request.body(Body::empty()),
    }
    .expect("request")
}

/// A machine with its keys.
#[derive(Clone)]
pub struct Machine {
    pub tenant: TenantId,
    pub key: SigningKey,
    pub id: Option<AgentId>,
}

impl Machine {
    pub fn fresh(tenant: TenantId) -> Self {
        let mut seed = [0; 32];
        SystemIds.fill(&mut seed);
        Self { tenant, key: SigningKey::from_bytes(&seed), id: None }
    }
    pub fn id(&self) -> AgentId {
        self.id.expect("enrolled")
    }
    /// The body of its enrolment.
    pub fn enrol(&self, token: &str) -> Value {
        let proof = self.key.sign(format!("everhold/enrol/v1\n{token}").as_bytes());
        json!({
            "token": token, "name": "srv-01", "hostname": "srv-01.praxis.example", "os": "linux",
            "arch": "x86_64", "agent_version": "0.1.0",
            "verify_key": STANDARD.encode(self.key.verifying_key().as_bytes()),
            "hpke_key": STANDARD.encode([5; 32]),
            "proof": STANDARD.encode(proof.to_bytes()),
        })
    }
    /// A signed GET, dated `now`.
    pub fn get(&self, path: &str, now: Timestamp) -> Request<Body> {
        let mut nonce = [0; 16];
        SystemIds.fill(&mut nonce);
        let uri = format!("{ORIGIN}{path}");
        let signed =
            api::signature::sign(&self.key, self.tenant, self.id(), "GET", &uri, b"", now, nonce);
        Request::get(path)
            .header(header::HOST, "everhold.test")
            .header("content-digest", signed.content_digest)
            .header("signature-input", signed.signature_input)
            .header("signature", signed.signature)
            .body(Body::empty())
            .expect("request")
    }
}

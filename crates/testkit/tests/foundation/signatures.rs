//! Signed requests of agents: what is believed, and every way it is not.

use std::time::Duration;

use api::{
    Code, Problem,
    client::{AgentIdentity, Identity},
    signature,
};
use authz::Role;
use bytes::Bytes;
use domain::ManualClock;
use http::{Request, Response};
use serde_json::{Value, json};
use testkit::{TestAgent, TestApp};

use super::sample::app;

struct Signed {
    method: &'static str,
    uri: String,
    body: &'static str,
    headers: signature::SignatureHeaders,
}

/// A request signed as the client does it, to be altered.
fn signed(
    app: &TestApp,
    agent: &TestAgent,
    method: &'static str,
    path: &str,
    body: &'static str,
) -> Signed {
    let uri = format!("http://everhold.test{path}");
    let mut nonce = [0; 16];
    app.ids().fill(&mut nonce);
    let headers = signature::sign(
        &agent.key,
        agent.tenant,
        agent.id,
        method,
        &uri,
        body.as_bytes(),
        app.now(),
        nonce,
    );
    Signed { method, uri, body, headers }
}

impl Signed {
    fn request(&self) -> Request<Bytes> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(&self.uri)
            .header("content-digest", &self.headers.content_digest)
            .header("signature-input", &self.headers.signature_input)
            .header("signature", &self.headers.signature);
        if !self.body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        request.body(Bytes::from(self.body)).unwrap()
    }
}

fn code(response: &Response<Bytes>) -> Option<Code> {
    serde_json::from_slice::<Problem>(response.body()).ok().map(|problem| problem.code)
}

#[tokio::test]
async fn an_agent_acts_in_its_own_tenant_only() {
    let app = app().await;
    let agent = app.agent(app.tenant());
    let own: Value =
        agent.client.get(&format!("/v1/tenants/{}/workloads?limit=2", agent.tenant)).await.unwrap();
    assert_eq!(own["kind"], "agent");
    let body: Value = agent
        .client
        .post(&format!("/v1/tenants/{}/notes", agent.tenant), &json!({ "text": "hello" }))
        .await
        .unwrap();
    assert_eq!(body["text"], "hello");
    let foreign: Result<Value, _> =
        agent.client.get(&format!("/v1/tenants/{}/workloads", app.tenant())).await;
    assert_eq!(testkit::code(&foreign), Some(Code::NotFound));
    let decrypting: Result<Value, _> = agent.client.get("/v1/browse").await;
    assert_eq!(testkit::code(&decrypting), Some(Code::Forbidden));
}

#[tokio::test]
async fn a_request_is_good_once() {
    let app = app().await;
    let agent = app.agent(app.tenant());
    let request = signed(&app, &agent, "GET", "/v1/hello", "");
    assert_eq!(app.raw(request.request()).await.status(), 200);
    let again = app.raw(request.request()).await;
    assert_eq!(code(&again), Some(Code::NonceReused));
}

/// A name and what it does to a signed request.
type Alteration<'a> = (&'a str, &'a dyn Fn(&mut Signed));

#[tokio::test]
async fn nothing_signed_can_be_altered() {
    let app = app().await;
    let agent = app.agent(app.tenant());
    let path = format!("/v1/tenants/{}/notes", agent.tenant);
    let make = || signed(&app, &agent, "POST", &path, "{\"text\":\"a\"}");
    let other = make();
    let alterations: [Alteration<'_>; 7] = [
        ("body", &|s| s.body = "{\"text\":\"b\"}"),
        ("method", &|s| s.method = "PUT"),
        ("path", &|s| s.uri.push_str("?x=1")),
        ("host", &|s| s.uri = s.uri.replace("everhold.test", "evil.test")),
        ("digest and body", &|s| {
            s.body = "{\"text\":\"b\"}";
            s.headers.content_digest = signature::content_digest(s.body.as_bytes());
        }),
        ("signature", &|s| s.headers.signature = other.headers.signature.clone()),
        ("nonce", &|s| s.headers.signature_input = other.headers.signature_input.clone()),
    ];
    for (what, alter) in alterations {
        let mut request = make();
        alter(&mut request);
        let response = app.raw(request.request()).await;
        assert_eq!(code(&response), Some(Code::SignatureInvalid), "{what}");
    }
    assert_eq!(app.raw(make().request()).await.status(), 200);
}

#[tokio::test]
async fn half_a_signature_or_two_identities_are_nobody() {
    let app = app().await;
    let agent = app.agent(app.tenant());
    for missing in ["content-digest", "signature-input", "signature"] {
        let mut request = signed(&app, &agent, "GET", "/v1/hello", "").request();
        request.headers_mut().remove(missing);
        assert_eq!(code(&app.raw(request).await), Some(Code::SignatureInvalid), "{missing}");
    }
    for doubled in ["content-digest", "signature-input", "signature"] {
        let mut request = signed(&app, &agent, "GET", "/v1/hello", "").request();
        let value = request.headers()[doubled].clone();
        request.headers_mut().append(doubled, value);
        assert_eq!(code(&app.raw(request).await), Some(Code::SignatureInvalid), "{doubled}");
    }
    let mut request = signed(&app, &agent, "GET", "/v1/hello", "").request();
    request.headers_mut().insert("authorization", "Bearer x".parse().unwrap());
    assert_eq!(code(&app.raw(request).await), Some(Code::Unauthenticated));
}

#[tokio::test]
async fn a_wrong_clock_is_told_the_right_time_and_learns_it() {
    let app = app().await;
    let agent = app.agent(app.tenant());
    let request = signed(&app, &agent, "GET", "/v1/hello", "");
    app.advance(Duration::from_secs(91));
    let late = app.raw(request.request()).await;
    let problem: Problem = serde_json::from_slice(late.body()).unwrap();
    assert_eq!((problem.code, problem.server_time), (Code::ClockSkew, Some(app.now())));

    let wrong = std::sync::Arc::new(ManualClock::at(app.now() - Duration::from_secs(3_600)));
    let identity =
        AgentIdentity::new(agent.tenant, agent.id, agent.key.clone(), wrong, app.ids().clone());
    let client = app.client().with_identity(Identity::Agent(std::sync::Arc::new(identity)));
    let hello: Value = client.get("/v1/hello").await.unwrap();
    assert_eq!(hello["id"], agent.id.to_string());
}

#[tokio::test]
async fn a_removed_agent_and_a_stranger_are_refused_at_once() {
    let app = app().await;
    let agent = app.agent(app.tenant());
    app.revoke(&agent);
    let gone: Result<Value, _> = agent.client.get("/v1/hello").await;
    assert_eq!(testkit::code(&gone), Some(Code::AgentRevoked));
    let known = app.agent(app.tenant());
    let stranger = app.agent_with(known.tenant, known.id, agent.key);
    let answer: Result<Value, _> = stranger.client.get("/v1/hello").await;
    assert_eq!(testkit::code(&answer), Some(Code::SignatureInvalid));
    // Its own key, another tenant's name.
    let moved = app.agent_with(app.tenant(), known.id, known.key);
    let answer: Result<Value, _> = moved.client.get("/v1/hello").await;
    assert_eq!(testkit::code(&answer), Some(Code::SignatureInvalid));
    let person: Value = app.user(app.tenant(), Role::TenantAdmin).get("/v1/hello").await.unwrap();
    assert_eq!(person["kind"], "user");
}

//! Routes of agents: for people, and the check other roles ask for.

use std::sync::Arc;

use api::{
    auth::Agent,
    internal::{VerifiedAgent, VerifyAgentRequest},
    page::{Page, PageQuery},
    problem::{Code, Problem},
};
use authz::actions::{AgentRead, AgentRevoke};
use axum::{Router, extract::State, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::{AgentId, TenantId};
use runtime::{Caller, Cx, Failure, Json, Path, Permit, Query, Reply, paging};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{AgentError, AgentRow, SignedRequest};
use crate::state::{Auth, Shared};

pub fn routes() -> OpenApiRouter<Arc<Auth>> {
    OpenApiRouter::new()
        .routes(routes!(list_agents))
        .routes(routes!(get_agent))
        .routes(routes!(revoke_agent))
}

pub fn internal_routes() -> Router<Arc<Auth>> {
    Router::new().route("/internal/v1/auth/agent-request", post(verify_request))
}

/// The agents of a tenant, revoked ones too.
#[utoipa::path(get, path = "/v1/tenants/{tenant_id}/agents", tag = "agents",
    params(("tenant_id" = TenantId, Path), PageQuery),
    responses((status = 200, description = "Agents in the order they enrolled", body = Page<Agent>)))]
async fn list_agents(
    State(auth): Shared,
    permit: Permit<AgentRead>,
    Query(query): Query<PageQuery>,
) -> Reply<Json<Page<Agent>>> {
    let (after, limit) = paging::bounds(&query)?;
    let rows = super::list(&auth.db, permit.scope(), after, limit).await?;
    Ok(Json(paging::page(&query, rows, |row| row.id.uuid())))
}

/// One agent.
#[utoipa::path(get, path = "/v1/tenants/{tenant_id}/agents/{agent_id}", tag = "agents",
    params(("tenant_id" = TenantId, Path), ("agent_id" = AgentId, Path)),
    responses((status = 200, description = "The agent", body = Agent)))]
async fn get_agent(
    State(auth): Shared,
    permit: Permit<AgentRead>,
    Path((_tenant_id, id)): Path<(TenantId, AgentId)>,
) -> Reply<Json<Agent>> {
    let row = super::get(&auth.db, permit.scope(), id).await?;
    Ok(Json(row.into()))
}

/// Ends an agent's identity at once and for good. What it backed up stays.
#[utoipa::path(post, path = "/v1/tenants/{tenant_id}/agents/{agent_id}/revoke", tag = "agents",
    params(("tenant_id" = TenantId, Path), ("agent_id" = AgentId, Path)),
    responses((status = 200, description = "The revoked agent", body = Agent)))]
async fn revoke_agent(
    State(auth): Shared,
    cx: Cx,
    permit: Permit<AgentRevoke>,
    Path((_tenant_id, id)): Path<(TenantId, AgentId)>,
) -> Reply<Json<Agent>> {
    let row = super::revoke(&auth.db, &cx, permit.scope(), id).await?;
    Ok(Json(row.into()))
}

/// Internal: believes an agent's request once, for the role it was made to.
async fn verify_request(
    State(auth): Shared,
    _: Caller,
    cx: Cx,
    Json(body): Json<VerifyAgentRequest>,
) -> Reply<Json<VerifiedAgent>> {
    let request = read(body).ok_or(AgentError::SignatureInvalid)?;
    let agent = super::verify(&auth.db, cx.now(), &request).await?;
    Ok(Json(VerifiedAgent {
        tenant_id: request.tenant_id,
        agent_id: agent.id,
        verify_key: BASE64.encode(&agent.verify_key),
        hpke_key: BASE64.encode(&agent.hpke_key),
    }))
}

fn read(body: VerifyAgentRequest) -> Option<SignedRequest> {
    let base = BASE64.decode(&body.base).ok()?;
    Some(SignedRequest {
        tenant_id: body.tenant_id,
        agent_id: body.agent_id,
        created: body.created,
        nonce: body.nonce,
        base: String::from_utf8(base).ok()?,
        signature: BASE64.decode(&body.signature).ok()?.try_into().ok()?,
    })
}

impl From<AgentRow> for Agent {
    fn from(row: AgentRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            hostname: row.hostname,
            os: row.os,
            arch: row.arch,
            agent_version: row.agent_version,
            verify_key: BASE64.encode(&row.verify_key),
            hpke_key: BASE64.encode(&row.hpke_key),
            enrolled_at: row.enrolled_at,
            last_seen_at: row.last_seen_at,
            revoked_at: row.revoked_at,
        }
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::NotFound => Self::not_found(),
            AgentError::SignatureInvalid => Code::SignatureInvalid.into(),
            AgentError::ClockSkew { server_time } => {
                let mut problem = Problem::new(Code::ClockSkew);
                problem.server_time = Some(server_time);
                Self(problem)
            }
            AgentError::NonceReused => Code::NonceReused.into(),
            AgentError::Revoked => Code::AgentRevoked.into(),
            AgentError::Db(error) => error.into(),
        }
    }
}

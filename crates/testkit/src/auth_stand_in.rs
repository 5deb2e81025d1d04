//! Stands at the seam where auth would be, when a test does not bring the auth role: verifies real
//! signatures of the agents it was told of, and refuses a nonce it has seen.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use api::{
    Code,
    internal::{VerifiedAgent, VerifyAgentRequest},
    signature,
};
use axum::{Router, extract::State, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::{AgentId, TenantId};
use ed25519_dalek::VerifyingKey;
use runtime::{Caller, Json, Reply, Role, RoleName};

#[derive(Default)]
struct Known {
    agents: HashMap<AgentId, (TenantId, VerifyingKey)>,
    revoked: HashSet<AgentId>,
    nonces: HashSet<(AgentId, String)>,
}

#[derive(Clone, Default)]
pub(crate) struct StandIn(Arc<Mutex<Known>>);

impl StandIn {
    pub fn enrol(&self, tenant: TenantId, agent: AgentId, key: VerifyingKey) {
        self.known().agents.insert(agent, (tenant, key));
    }
    pub fn revoke(&self, agent: AgentId) {
        self.known().revoked.insert(agent);
    }
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub fn role(&self) -> Role {
        let router = Router::new()
            .route("/internal/v1/auth/agent-request", post(verify))
            .with_state(self.clone());
        Role::new(RoleName::Auth).internal(router)
    }
}

async fn verify(
    State(stand_in): State<StandIn>,
    _: Caller,
    Json(ask): Json<VerifyAgentRequest>,
) -> Reply<Json<VerifiedAgent>> {
    let mut known = stand_in.known();
    let invalid = Code::SignatureInvalid;
    let (tenant, key) = *known.agents.get(&ask.agent_id).ok_or(invalid)?;
    let base = BASE64.decode(&ask.base).map_err(|_| invalid)?;
    let base = String::from_utf8(base).map_err(|_| invalid)?;
    let bytes = BASE64.decode(&ask.signature).ok().and_then(|bytes| bytes.try_into().ok());
    signature::verify(&key, &base, &bytes.ok_or(invalid)?).map_err(|_| invalid)?;
    if tenant != ask.tenant_id {
        return Err(invalid.into());
    }
    if known.revoked.contains(&ask.agent_id) {
        return Err(Code::AgentRevoked.into());
    }
    if !known.nonces.insert((ask.agent_id, ask.nonce)) {
        return Err(Code::NonceReused.into());
    }
    Ok(Json(VerifiedAgent {
        tenant_id: tenant,
        agent_id: ask.agent_id,
        verify_key: BASE64.encode(key.as_bytes()),
        hpke_key: BASE64.encode([0; 32]),
    }))
}

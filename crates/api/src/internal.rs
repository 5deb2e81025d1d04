//! What roles say to each other under `/internal/v1`, with a service token. Never reachable from outside
//! the platform: the public listener does not route it.

use domain::{AgentId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{audit::AuditEvent, billing::MeterEvent};

/// `POST /internal/v1/auth/agent-request`: verify a signed request, record its nonce.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyAgentRequest {
    pub tenant_id: TenantId,
    pub agent_id: AgentId,
    pub created: i64,
    pub nonce: String,
    /// Base64 of the RFC 9421 signature base.
    pub base: String,
    /// Base64.
    pub signature: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifiedAgent {
    pub tenant_id: TenantId,
    pub agent_id: AgentId,
    /// Base64, 32 bytes each: for rosters and wraps.
    pub verify_key: String,
    pub hpke_key: String,
}

/// `POST /internal/v1/outbox`: facts from another role's outbox, in its order. Delivered at least once;
/// receivers keep the event id.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliverFacts {
    pub facts: Vec<Fact>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "topic", rename_all = "snake_case")]
pub enum Fact {
    Audit(AuditEvent),
    Meter(MeterEvent),
    /// The catalog committed a snapshot for this run: the scheduler's truth about success.
    SnapshotCommitted(SnapshotCommitted),
    /// The catalog knows a new workload: the tenant's default policy may hold for it.
    WorkloadCreated(WorkloadCreated),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkloadCreated {
    pub event_id: domain::EventId,
    pub tenant_id: TenantId,
    pub workload_id: domain::WorkloadId,
    pub agent_id: AgentId,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SnapshotCommitted {
    pub event_id: domain::EventId,
    pub tenant_id: TenantId,
    pub run_id: domain::RunId,
    pub snapshot_id: domain::SnapshotId,
    pub exceptions: u64,
    pub committed_at: Timestamp,
}

//! Bodies of the audit role.

use domain::{EventId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who acted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventActor {
    /// `user`, `agent`, `service` or `anonymous`.
    pub kind: String,
    pub id: String,
    /// The tenant the actor's account lives in, when it is another than the event's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home_tenant_id: Option<TenantId>,
}

/// One change of meaning, recorded in the transaction that made it (R8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEvent {
    pub id: EventId,
    pub tenant_id: TenantId,
    /// Past tense: `snapshot.committed`.
    pub action: String,
    pub actor: EventActor,
    /// Type and id of the thing: `snapshot`, `snp_…`.
    pub subject_kind: String,
    pub subject_id: String,
    pub occurred_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Facts of the event, never a secret, never a customer's path.
    pub details: serde_json::Map<String, serde_json::Value>,
}

/// An event as recorded, with its place in the tenant's record.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RecordedEvent {
    /// Gapless within the tenant, from 1.
    pub seq: u64,
    pub recorded_at: Timestamp,
    #[serde(flatten)]
    pub event: AuditEvent,
}

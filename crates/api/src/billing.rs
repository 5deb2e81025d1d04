//! Bodies of the billing role: metered use.

use domain::{EventId, TenantId, Timestamp, WorkloadId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A fact that costs or counts, recorded in the transaction that made it true.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MeterEvent {
    pub id: EventId,
    pub tenant_id: TenantId,
    /// `source_bytes`, `stored_bytes`, `snapshots`.
    pub meter: String,
    pub quantity: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_id: Option<WorkloadId>,
    pub occurred_at: Timestamp,
}

/// `GET /v1/tenants/{tenant_id}/usage`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct UsageQuery {
    /// Start, inclusive; 30 days ago unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// End, exclusive; now unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UsageLine {
    pub meter: String,
    pub events: u64,
    pub quantity: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    pub from: Timestamp,
    pub until: Timestamp,
    pub lines: Vec<UsageLine>,
}

//! Bodies of the scheduler role: runs, leases, progress.

use domain::{
    AgentId, PolicyId, RunId, SnapshotId, TenantId, Timestamp, WorkloadId, run::RunState,
    source::RunException,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// Somebody pressed "run now".
    Manual,
    /// Started on the machine itself.
    Local,
    /// It was due by its policy.
    Schedule,
    /// Another attempt after one that failed.
    Retry,
}

impl Trigger {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Local => "local",
            Self::Schedule => "schedule",
            Self::Retry => "retry",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Manual, Self::Local, Self::Schedule, Self::Retry];
        all.into_iter().find(|trigger| trigger.as_str() == text)
    }
    /// Nobody asked for it: its policy did.
    pub const fn is_planned(self) -> bool {
        matches!(self, Self::Schedule | Self::Retry)
    }
}

/// `POST /v1/tenants/{tenant_id}/runs`. A person queues it for the agent; an agent's own run is leased to
/// it at once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRun {
    pub workload_id: WorkloadId,
    /// What to back up. Absent: what its policy says, or else what the workload's last run did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RunSource>,
}

/// What a files run reads. Declarative: nothing here is ever executed (R9).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunSource {
    /// Absolute paths.
    pub paths: Vec<String>,
    #[serde(default)]
    pub excludes: Vec<String>,
    #[serde(default)]
    pub one_file_system: bool,
    #[serde(default)]
    pub exclude_caches: bool,
    #[serde(default)]
    pub tags: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Run {
    pub id: RunId,
    pub tenant_id: TenantId,
    pub workload_id: WorkloadId,
    pub agent_id: AgentId,
    pub trigger: Trigger,
    pub state: RunState,
    pub source: RunSource,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    pub cancel_requested: bool,
    pub progress: Progress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<SnapshotId>,
    /// The first 1000 exceptions, each listed; `progress.exceptions` counts all.
    pub exceptions: Vec<RunException>,
    /// Why it failed, in words that say what to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The policy it became due by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<PolicyId>,
    /// When it became due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// It does not start before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_after: Option<Timestamp>,
    /// Queued until then, it is missed, or waits for its next window. Absent: it waits for its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_by: Option<Timestamp>,
}

/// Figures of a run under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    pub files: u64,
    pub source_bytes: u64,
    pub new_bytes: u64,
    pub stored_bytes: u64,
    pub exceptions: u64,
    /// What the agent does now: `scanning`, `uploading`, `committing`.
    #[serde(default)]
    pub phase: String,
}

/// `GET /v1/tenants/{tenant_id}/runs`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RunQuery {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_id: Option<WorkloadId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `POST /v1/tenants/{tenant_id}/leases`: the agent's long poll for its next queued run.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PollLease {
    /// Seconds to wait for work: 0 to 30.
    pub wait_s: u32,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct PollReply {
    /// Absent: nothing to do yet, poll again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment: Option<Assignment>,
}

/// A run and the right to execute it.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Assignment {
    pub run: Run,
    /// Every later call carries it.
    pub epoch: u64,
    /// Renewed by heartbeats; after that the run is lost to this agent.
    pub lease_until: Timestamp,
    /// Opens the catalog's session (B0).
    pub lease_token: String,
}

/// `POST …/runs/{run_id}/heartbeat`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunHeartbeat {
    pub epoch: u64,
    pub progress: Progress,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HeartbeatReply {
    pub lease_until: Timestamp,
    /// True: stop, and finish as canceled.
    pub cancel: bool,
}

/// `POST …/runs/{run_id}/finish`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishRun {
    pub epoch: u64,
    /// `succeeded`, `succeeded_with_exceptions`, `failed` or `canceled`.
    pub state: RunState,
    pub progress: Progress,
    /// Receipt of the commit (base64); demanded for both kinds of success.
    #[serde(default)]
    pub receipt: Option<String>,
    #[serde(default)]
    pub snapshot_id: Option<SnapshotId>,
    #[serde(default)]
    pub exceptions: Vec<RunException>,
    #[serde(default)]
    pub error: Option<String>,
}

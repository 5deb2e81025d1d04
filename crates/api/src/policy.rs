//! Bodies of policies: what is backed up when, and what a lower level may not loosen.

use domain::{PolicyId, TenantId, Timestamp, WorkloadId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::scheduler::RunSource;

/// What a policy says. What is absent is said by the policy it extends, or by nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySettings {
    /// What is read. Nobody says: what the workload's last run read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RunSource>,
    /// When. Nobody says: only by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// The recovery point objective: an alert is raised when the newest good backup is older. 15 minutes to a year.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo_minutes: Option<u32>,
}

/// A part of a policy that can be protected: a policy that extends this one may be stricter there, never looser. Who may
/// write policies may also write one that extends none: protection keeps from mistakes, not from administrators.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// Every path stays; nothing may be excluded beyond what is excluded here.
    Source,
    /// Stays as it is, and is not paused.
    Schedule,
    /// At least as many attempts, and none later.
    Retry,
    /// At most as many minutes.
    Rpo,
}

/// When runs are due: at the times of cron lines, or at an interval; one of both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Cron lines of five fields (minute, hour, day, month, weekday): due at the times of any of them. 1 to 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cron: Vec<String>,
    /// Due every so many minutes, 5 to 10080. Every workload has its own place in the interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_minutes: Option<u32>,
    /// IANA time zone of the cron lines and windows: `Europe/Berlin`.
    #[serde(default = "utc")]
    pub zone: String,
    /// When a run may start; none: at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// Starts are spread over so many minutes, so that a thousand machines do not start at once. 0 to 720, and no more
    /// than the shortest time between two ticks.
    #[serde(default)]
    pub jitter_minutes: u32,
    /// A machine that was off when its run was due runs as soon as it is back (and a window is open), once for all
    /// that it missed. Otherwise a run that does not start within an hour is missed.
    #[serde(default)]
    pub run_if_missed: bool,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// A part of the day in the schedule's zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The days it begins on; none: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Weekday>,
    /// `22:00`.
    pub from: String,
    /// `06:00`; not later than `from`: of the next day.
    pub to: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// What follows a run that failed or was lost: another, later each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Further attempts, 0 to 10.
    pub attempts: u32,
    /// Minutes before the first of them, 1 to 1440; each further one waits twice as long as the one before.
    pub after_minutes: u32,
}

/// `POST /v1/tenants/{tenant_id}/policies`, and `PUT …/policies/{policy_id}`, which replaces it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WritePolicy {
    pub name: String,
    /// The policy whose settings hold where this one says nothing: of this tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extends: Option<PolicyId>,
    pub settings: PolicySettings,
    /// What policies that extend this one may not loosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protected: Vec<Setting>,
    /// Holds for every workload of the tenant that was given no other. One policy of a tenant at most.
    #[serde(default)]
    pub is_default: bool,
    /// Paused: nothing becomes due. What is running goes on.
    #[serde(default)]
    pub is_paused: bool,
    /// With `PUT`: the revision that was read; refused when there is a newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Policy {
    pub id: PolicyId,
    pub tenant_id: TenantId,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extends: Option<PolicyId>,
    /// What it says itself.
    pub settings: PolicySettings,
    /// What is in force: its own settings, and those of the policies it extends.
    pub effective: PolicySettings,
    /// Settings of its own that are not in force, because a policy above protects something stricter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overruled: Vec<Setting>,
    pub protected: Vec<Setting>,
    pub is_default: bool,
    pub is_paused: bool,
    /// Raised by every change.
    pub revision: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// How many workloads it holds for.
    pub workloads: u64,
    /// The schedule in words, in English.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_words: Option<String>,
}

/// `PUT /v1/tenants/{tenant_id}/workloads/{workload_id}/policy`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignPolicy {
    /// Absent: the tenant's default policy, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<PolicyId>,
}

/// How a workload stands with its policy: `GET /v1/tenants/{tenant_id}/protections`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Protection {
    pub workload_id: WorkloadId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<PolicyId>,
    /// Given to this workload; otherwise it is the tenant's default.
    pub is_assigned: bool,
    /// When its next run becomes due; absent: not by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_due_at: Option<Timestamp>,
    /// Beginning of the newest run that succeeded and read all that the policy says: what changed later is not protected
    /// yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected_at: Option<Timestamp>,
    /// When the newest good backup will be, or was, older than the objective allows; absent: no objective is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo_due_at: Option<Timestamp>,
    /// Since when the newest good backup is older than the objective allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo_breached_at: Option<Timestamp>,
    /// Failures since the last success.
    pub failures: u32,
}

/// `POST /v1/tenants/{tenant_id}/policy-simulations`: what settings would do, before they are saved.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SimulatePolicy {
    pub schedule: Schedule,
    /// The moment from which on; absent: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// How many ticks: 1 to 100.
    pub ticks: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Simulation {
    pub ticks: Vec<SimulatedTick>,
    /// The schedule in words, in English.
    pub words: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SimulatedTick {
    pub at: Timestamp,
    /// The same in the schedule's zone: `2026-03-29T03:00:00+02:00[Europe/Berlin]`.
    pub local: String,
    /// A run that has not started by then is missed; absent: it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_by: Option<Timestamp>,
}

//! Who asks. An actor is what the credentials proved, nothing more.

use domain::{AgentId, TenantId, UserId};
use serde::{Deserialize, Serialize};

use crate::role::Role;

/// Where a tenant stands in the tree platform ▸ MSP ▸ tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantKind {
    Platform,
    Msp,
    Tenant,
}

impl TenantKind {
    pub const ALL: [Self; 3] = [Self::Platform, Self::Msp, Self::Tenant];
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Msp => "msp",
            Self::Tenant => "tenant",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A person or service account, acting in exactly one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    /// Where the account lives.
    pub home: TenantId,
    /// Where the token acts; the home or a tenant below it.
    pub tenant: TenantId,
    /// Of `tenant`.
    pub kind: TenantKind,
    /// In force in `tenant`.
    pub roles: Vec<Role>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    User(User),
    /// An enrolled agent whose signature was verified.
    Agent {
        tenant: TenantId,
        id: AgentId,
    },
    /// Another role of the platform, on internal calls.
    Service {
        name: String,
    },
    Anonymous,
}

impl Actor {
    /// The tenant this actor acts in, if it acts in one.
    pub const fn tenant(&self) -> Option<TenantId> {
        match self {
            Self::User(user) => Some(user.tenant),
            Self::Agent { tenant, .. } => Some(*tenant),
            Self::Service { .. } | Self::Anonymous => None,
        }
    }
    /// `user`, `agent`, `service` or `anonymous`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Agent { .. } => "agent",
            Self::Service { .. } => "service",
            Self::Anonymous => "anonymous",
        }
    }
    /// The id for the audit record: `usr_…`, `agt_…`, a role name, or empty.
    pub fn id(&self) -> String {
        match self {
            Self::User(user) => user.id.to_string(),
            Self::Agent { id, .. } => id.to_string(),
            Self::Service { name } => name.clone(),
            Self::Anonymous => String::new(),
        }
    }
    /// The tenant of the account when it is another than the one acted in.
    pub fn foreign_home(&self) -> Option<TenantId> {
        match self {
            Self::User(user) if user.home != user.tenant => Some(user.home),
            _ => None,
        }
    }
    pub const fn agent_id(&self) -> Option<AgentId> {
        match self {
            Self::Agent { id, .. } => Some(*id),
            _ => None,
        }
    }
    pub const fn user_id(&self) -> Option<UserId> {
        match self {
            Self::User(user) => Some(user.id),
            _ => None,
        }
    }
}

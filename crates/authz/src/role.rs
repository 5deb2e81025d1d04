//! The roles people, agents and services have. Names are stable: they are in tokens and in the database.

use std::{fmt, str::FromStr};

macro_rules! roles {
    ($($role:ident $name:literal $doc:literal;)*) => {
        /// A role, as `control-plane.md` lists them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Role { $(#[doc = $doc] $role,)* }
        impl Role {
            pub const ALL: &'static [Self] = &[$(Self::$role),*];
            pub const fn as_str(self) -> &'static str { match self { $(Self::$role => $name),* } }
        }
    };
}

roles! {
    PlatformOperator "platform.operator" "Runs the deployment; sees no tenant's objects.";
    PlatformSecurity "platform.security" "Approves break-glass, rotates signers; never alone.";
    MspOwner "msp.owner" "Manages an MSP's tenants.";
    MspTech "msp.tech" "Agents, policies and jobs of an MSP's tenants; no keys, no content.";
    TenantAdmin "tenant.admin" "People, policies and agents of one tenant.";
    TenantOperator "tenant.operator" "Runs and restores to the origin.";
    TenantRestorer "tenant.restorer" "Restores; changes no policy.";
    TenantApprover "tenant.approver" "Approves what others asked for.";
    KeyCustodian "key.custodian" "Key ceremonies; no people.";
    Auditor "auditor" "Reads the record; its reads are events.";
    BillingViewer "billing.viewer" "Usage and invoices, nothing else.";
    Agent "agent" "An enrolled agent, in its own tenant. Never given to people.";
    Service "service" "Another role of the platform. Never given to people.";
}

impl Role {
    /// Whether an account may hold it; the others are what an actor is, not what it is given.
    pub const fn is_for_people(self) -> bool {
        !matches!(self, Self::Agent | Self::Service)
    }
    /// Platform staff: inside a customer's tenant they see only what an action marks as administrative.
    pub const fn is_platform(self) -> bool {
        matches!(self, Self::PlatformOperator | Self::PlatformSecurity)
    }
}

/// The text names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no such role")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

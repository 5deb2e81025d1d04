//! The closed list of actions: one line each, with the roles that may. Everything else is denied.

use crate::role::Role::{self, *};

/// A marker type per action, so that a permit for one cannot be used for another.
pub trait Action: Send + Sync + 'static {
    const NAME: ActionName;
}

macro_rules! define_actions {
    ($($action:ident $name:literal $reach:ident [$($role:expr),* $(,)?];)*) => {
        /// The name of an action: `snapshot.read`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ActionName { $(#[doc = $name] $action,)* }
        impl ActionName {
            pub const ALL: &'static [Self] = &[$(Self::$action),*];
            pub const fn as_str(self) -> &'static str { match self { $(Self::$action => $name),* } }
            /// Who may, wherever platform staff are not kept out.
            pub const fn roles(self) -> &'static [Role] {
                match self { $(Self::$action => &[$($role),*]),* }
            }
            pub(crate) const fn reach(self) -> Reach {
                match self { $(Self::$action => Reach::$reach),* }
            }
        }
        /// Marker types of the actions, for [`crate::Permit`].
        pub mod actions {
            use super::{Action, ActionName};
            $(
                #[doc = concat!("`", $name, "`")]
                #[derive(Debug, Clone, Copy)]
                pub struct $action;
                impl Action for $action { const NAME: ActionName = ActionName::$action; }
            )*
        }
    };
}

/// Whether platform staff keep their rights inside a customer's tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// About the tenant as an account.
    Administrative,
    /// About what belongs to the tenant: hidden from platform staff.
    Owned,
}

define_actions! {
    MeRead "me.read" Administrative [
        PlatformOperator, PlatformSecurity, MspOwner, MspTech, TenantAdmin, TenantOperator, TenantRestorer,
        TenantApprover, KeyCustodian, Auditor, BillingViewer];
    // One's own account: its password, its sign-ins.
    MeChange "me.change" Administrative [
        PlatformOperator, PlatformSecurity, MspOwner, MspTech, TenantAdmin, TenantOperator, TenantRestorer,
        TenantApprover, KeyCustodian, Auditor, BillingViewer];
    TenantRead "tenant.read" Administrative [
        PlatformOperator, PlatformSecurity, MspOwner, MspTech, TenantAdmin, TenantOperator, TenantRestorer,
        TenantApprover, KeyCustodian, Auditor, BillingViewer];
    TenantCreate "tenant.create" Administrative [PlatformOperator, MspOwner];
    UserRead "user.read" Owned [PlatformOperator, PlatformSecurity, MspOwner, TenantAdmin, Auditor];
    UserCreate "user.create" Owned [PlatformOperator, MspOwner, TenantAdmin];
    EnrolmentTokenCreate "enrolment_token.create" Owned [MspOwner, MspTech, TenantAdmin, TenantOperator];
    EnrolmentTokenRead "enrolment_token.read" Owned [
        MspOwner, MspTech, TenantAdmin, TenantOperator, Auditor];
    EnrolmentTokenRevoke "enrolment_token.revoke" Owned [MspOwner, MspTech, TenantAdmin, TenantOperator];
    AgentRead "agent.read" Owned [
        MspOwner, MspTech, TenantAdmin, TenantOperator, TenantRestorer, KeyCustodian, Auditor];
    AgentRevoke "agent.revoke" Owned [MspOwner, MspTech, TenantAdmin];
    VaultCreate "vault.create" Owned [Agent];
    VaultRead "vault.read" Owned [
        MspOwner, MspTech, TenantAdmin, TenantOperator, TenantRestorer, KeyCustodian, Auditor, Agent];
    VaultKeysRead "vault_keys.read" Owned [Agent];
    PlatformKeysRead "platform_keys.read" Owned [TenantAdmin, KeyCustodian, Agent];
    WorkloadRead "workload.read" Owned [
        MspOwner, MspTech, TenantAdmin, TenantOperator, TenantRestorer, TenantApprover, Auditor, Agent];
    SessionWrite "session.write" Owned [Agent];
    SnapshotRead "snapshot.read" Owned [
        MspOwner, MspTech, TenantAdmin, TenantOperator, TenantRestorer, TenantApprover, Auditor, Agent];
    // Decrypting is a right apart from managing: never MSP, never platform, never auditor.
    SnapshotBrowse "snapshot.browse" Owned [TenantAdmin, TenantOperator, TenantRestorer];
    SnapshotRestore "snapshot.restore" Owned [TenantAdmin, TenantOperator, TenantRestorer, Agent];
    // Asks the store about every object: costs calls, changes nothing.
    SnapshotCertify "snapshot.certify" Owned [
        MspOwner, MspTech, TenantAdmin, TenantOperator, TenantApprover, Auditor];
    // Keeps more, never less: whoever runs backups may.
    SnapshotHold "snapshot.hold" Owned [MspOwner, MspTech, TenantAdmin, TenantOperator, TenantApprover];
    SnapshotUndoExpiry "snapshot.undo_expiry" Owned [
        MspOwner, MspTech, TenantAdmin, TenantOperator, TenantApprover];
    // Reasons name lawsuits and people.
    HoldRead "hold.read" Owned [MspOwner, MspTech, TenantAdmin, TenantOperator, TenantApprover, Auditor];
    // Lets go what the law may want: the tenant's own people, never MSP, never platform.
    HoldRelease "hold.release" Owned [TenantAdmin, TenantApprover];
    RunCreate "run.create" Owned [MspOwner, MspTech, TenantAdmin, TenantOperator, Agent];
    RunRead "run.read" Owned [
        MspOwner, MspTech, TenantAdmin, TenantOperator, TenantRestorer, TenantApprover, Auditor, Agent];
    RunLease "run.lease" Owned [Agent];
    RunCancel "run.cancel" Owned [MspOwner, MspTech, TenantAdmin, TenantOperator];
    PolicyRead "policy.read" Owned [
        MspOwner, MspTech, TenantAdmin, TenantOperator, TenantRestorer, TenantApprover, Auditor];
    // What is read on a machine, and when: the tenant's administrators and its MSP.
    PolicyWrite "policy.write" Owned [MspOwner, MspTech, TenantAdmin];
    AuditRead "audit.read" Owned [PlatformOperator, PlatformSecurity, MspOwner, TenantAdmin, Auditor];
    UsageRead "usage.read" Administrative [PlatformOperator, MspOwner, TenantAdmin, BillingViewer];
}

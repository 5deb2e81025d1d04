//! Which roles exist where, what of them holds when acting below one's home, and who may give which.
//!
//! Invariant: nobody gives a role that would let the new account do what the giver may not manage. Whoever
//! stands above a tenant names its first administrator and nobody else who could read its content. Pure.

use authz::{
    Role::{self, *},
    TenantKind, User,
};

/// The roles an account of a tenant of this kind can have.
pub const fn of_kind(kind: TenantKind) -> &'static [Role] {
    match kind {
        TenantKind::Platform => &[PlatformOperator, PlatformSecurity, Auditor, BillingViewer],
        TenantKind::Msp => &[MspOwner, MspTech, Auditor, BillingViewer],
        TenantKind::Tenant => &[
            TenantAdmin,
            TenantOperator,
            TenantRestorer,
            TenantApprover,
            KeyCustodian,
            Auditor,
            BillingViewer,
        ],
    }
}

/// What is left of the roles of one's home in a tenant below it. Auditors and billing viewers were given
/// a look at their own tenant, not at every one below.
pub fn in_force(home_roles: &[Role], acts_at_home: bool) -> Vec<Role> {
    let reaches_down =
        |role: &Role| matches!(role, PlatformOperator | PlatformSecurity | MspOwner | MspTech);
    home_roles.iter().copied().filter(|role| acts_at_home || reaches_down(role)).collect()
}

/// How far the right to give a role goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gift {
    Never,
    /// To the first administrator only, see [`First`].
    First(First),
    Freely,
}

/// What "the first" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum First {
    /// The tenant has no account of its own yet.
    Account,
    /// Nobody has this role yet.
    Holder,
}

/// What `giver`, acting where it acts, may do about giving `role` there.
///
/// Roles that read a tenant's content, approve in it or keep its keys are the tenant's own to name: somebody
/// above it who could give them could give them to itself. Only the very first administrator has to come from
/// above. The same holds for the operator above an MSP, whose people reach into tenants. Security staff is
/// named by security staff.
pub fn may_give(giver: &User, role: Role) -> Gift {
    let freely = |held: &Role| -> &'static [Role] {
        match (held, giver.kind) {
            (PlatformSecurity, TenantKind::Platform) => of_kind(TenantKind::Platform),
            (PlatformOperator, TenantKind::Platform) => &[PlatformOperator, Auditor, BillingViewer],
            (MspOwner, TenantKind::Msp) => of_kind(TenantKind::Msp),
            (PlatformOperator, TenantKind::Msp) | (MspOwner, TenantKind::Tenant) => {
                &[Auditor, BillingViewer]
            }
            (TenantAdmin, TenantKind::Tenant) => of_kind(TenantKind::Tenant),
            _ => &[],
        }
    };
    let gift = |held: &Role| match (held, giver.kind, role) {
        _ if freely(held).contains(&role) => Gift::Freely,
        (MspOwner, TenantKind::Tenant, TenantAdmin) => Gift::First(First::Account),
        (PlatformOperator, TenantKind::Msp, MspOwner) => Gift::First(First::Holder),
        _ => Gift::Never,
    };
    giver.roles.iter().map(gift).max().unwrap_or(Gift::Never)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use domain::{TenantId, UserId};

    use super::*;

    fn giver(role: Role, kind: TenantKind) -> User {
        let tenant = TenantId::from_bytes([1; 16]);
        User { id: UserId::from_bytes([2; 16]), home: tenant, tenant, kind, roles: vec![role] }
    }

    #[test]
    fn who_may_give_which_role_is_the_reviewed_table() {
        let mut table = String::new();
        for kind in TenantKind::ALL {
            for held in Role::ALL {
                let gives: Vec<String> = Role::ALL
                    .iter()
                    .filter_map(|role| match may_give(&giver(*held, kind), *role) {
                        Gift::Never => None,
                        Gift::First(_) => Some(format!("{role} (the first)")),
                        Gift::Freely => Some(role.to_string()),
                    })
                    .collect();
                if !gives.is_empty() {
                    writeln!(table, "{held} in {}: {}", kind.as_str(), gives.join(" "))
                        .expect("a string takes all");
                }
            }
        }
        insta::assert_snapshot!(table, @"
        platform.operator in platform: platform.operator auditor billing.viewer
        platform.security in platform: platform.operator platform.security auditor billing.viewer
        platform.operator in msp: msp.owner (the first) auditor billing.viewer
        msp.owner in msp: msp.owner msp.tech auditor billing.viewer
        msp.owner in tenant: tenant.admin (the first) auditor billing.viewer
        tenant.admin in tenant: tenant.admin tenant.operator tenant.restorer tenant.approver key.custodian auditor billing.viewer
        ");
    }

    #[test]
    fn nobody_gives_a_role_of_another_kind_of_tenant_or_of_a_machine() {
        for kind in TenantKind::ALL {
            for held in Role::ALL {
                for role in Role::ALL.iter().filter(|role| !of_kind(kind).contains(role)) {
                    assert_eq!(may_give(&giver(*held, kind), *role), Gift::Never, "{held} {role}");
                }
            }
        }
    }

    #[test]
    fn below_ones_home_only_the_roles_that_manage_reach() {
        let home = [MspOwner, Auditor, BillingViewer];
        assert_eq!(in_force(&home, true), home);
        assert_eq!(in_force(&home, false), [MspOwner]);
    }
}

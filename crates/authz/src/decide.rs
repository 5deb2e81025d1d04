//! The decision: a pure table lookup.

use domain::TenantId;

use crate::{
    action::{ActionName, Reach},
    actor::{Actor, TenantKind},
    role::Role,
};

/// What is asked about. Everything belongs to exactly one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    pub tenant: TenantId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// The actor may know of the tenant, but its roles do not suffice.
    Deny,
    /// Another tenant's: answers as if it did not exist.
    Hide,
}

/// May `actor` do `action` to what belongs to `resource.tenant`?
pub fn decide(actor: &Actor, action: ActionName, resource: &Resource) -> Decision {
    let allowed = match actor {
        Actor::User(user) => {
            if user.tenant != resource.tenant {
                return Decision::Hide;
            }
            user.roles.iter().any(|role| may(*role, action, user.kind))
        }
        Actor::Agent { tenant, .. } => {
            if *tenant != resource.tenant {
                return Decision::Hide;
            }
            action.roles().contains(&Role::Agent)
        }
        Actor::Service { .. } | Actor::Anonymous => false,
    };
    if allowed { Decision::Allow } else { Decision::Deny }
}

/// A person's role in a tenant of this kind. Roles of machines in a token of a person count for nothing.
fn may(role: Role, action: ActionName, kind: TenantKind) -> bool {
    let kept_out =
        role.is_platform() && kind == TenantKind::Tenant && action.reach() == Reach::Owned;
    role.is_for_people() && !kept_out && action.roles().contains(&role)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use domain::{AgentId, UserId};

    use super::*;
    use crate::actor::User;

    const HERE: Resource = Resource { tenant: TenantId::from_bytes([1; 16]) };
    const THERE: Resource = Resource { tenant: TenantId::from_bytes([2; 16]) };

    fn person(role: Role, kind: TenantKind) -> Actor {
        Actor::User(User {
            id: UserId::from_bytes([3; 16]),
            home: HERE.tenant,
            tenant: HERE.tenant,
            kind,
            roles: vec![role],
        })
    }

    fn actors(kind: TenantKind) -> Vec<(&'static str, Actor)> {
        let people = Role::ALL.iter().filter(|r| r.is_for_people());
        let mut all: Vec<_> = people.map(|r| (r.as_str(), person(*r, kind))).collect();
        all.push(("agent", Actor::Agent { tenant: HERE.tenant, id: AgentId::from_bytes([4; 16]) }));
        all.push(("service", Actor::Service { name: "catalog".into() }));
        all.push(("anonymous", Actor::Anonymous));
        all
    }

    #[test]
    fn the_matrix_of_roles_and_actions_is_the_reviewed_one() {
        let mut matrix = String::new();
        for action in ActionName::ALL {
            for kind in TenantKind::ALL {
                let allowed: Vec<&str> = actors(kind)
                    .into_iter()
                    .filter(|(_, actor)| decide(actor, *action, &HERE) == Decision::Allow)
                    .map(|(name, _)| name)
                    .collect();
                writeln!(matrix, "{} in {}: {}", action.as_str(), kind.as_str(), allowed.join(" "))
                    .expect("a string takes all");
            }
        }
        insta::assert_snapshot!(matrix);
    }

    #[test]
    fn whatever_belongs_to_another_tenant_is_hidden_from_everyone_with_a_tenant() {
        for kind in TenantKind::ALL {
            for (name, actor) in actors(kind) {
                for action in ActionName::ALL {
                    let decision = decide(&actor, *action, &THERE);
                    let expected =
                        if actor.tenant().is_some() { Decision::Hide } else { Decision::Deny };
                    assert_eq!(decision, expected, "{name} {}", action.as_str());
                }
            }
        }
    }

    #[test]
    fn only_the_tenants_own_people_decrypt() {
        for (name, actor) in actors(TenantKind::Tenant) {
            let may_browse = decide(&actor, ActionName::SnapshotBrowse, &HERE) == Decision::Allow;
            let own = matches!(name, "tenant.admin" | "tenant.operator" | "tenant.restorer");
            assert_eq!(may_browse, own, "{name}");
        }
    }

    #[test]
    fn a_machine_role_in_a_persons_token_counts_for_nothing() {
        for role in [Role::Agent, Role::Service] {
            for action in ActionName::ALL {
                let decision = decide(&person(role, TenantKind::Tenant), *action, &HERE);
                assert_eq!(decision, Decision::Deny, "{role} {}", action.as_str());
            }
        }
    }

    #[test]
    fn names_read_back_and_are_unique() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(*role));
        }
        assert!("root".parse::<Role>().is_err());
        let mut names: Vec<_> = ActionName::ALL.iter().map(|a| a.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ActionName::ALL.len());
    }
}

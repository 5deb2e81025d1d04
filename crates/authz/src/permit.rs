//! Proof that a decision was made. No permit, no scope; no scope, no rows.

use std::marker::PhantomData;

use domain::TenantId;

use crate::{
    action::Action,
    actor::Actor,
    decide::{Decision, Resource, decide},
};

/// Proof that this actor may do `A` in this tenant. Only [`Permit::decide`] makes one.
#[derive(Debug, Clone)]
pub struct Permit<A> {
    actor: Actor,
    tenant: TenantId,
    action: PhantomData<fn() -> A>,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody is known yet: 401.
    #[error("not signed in")]
    Unauthenticated,
    /// Known, but the roles do not suffice: 403.
    #[error("the role does not allow this")]
    Forbidden,
    /// Another tenant's: 404, as for what does not exist.
    #[error("there is no such thing")]
    Hidden,
}

impl<A: Action> Permit<A> {
    /// Decides and, if allowed, proves it.
    ///
    /// # Errors
    /// [`Refusal`], to be answered as it says.
    pub fn decide(actor: Actor, resource: Resource) -> Result<Self, Refusal> {
        if actor == Actor::Anonymous {
            return Err(Refusal::Unauthenticated);
        }
        match decide(&actor, A::NAME, &resource) {
            Decision::Allow => Ok(Self { actor, tenant: resource.tenant, action: PhantomData }),
            Decision::Deny => Err(Refusal::Forbidden),
            Decision::Hide => Err(Refusal::Hidden),
        }
    }

    pub const fn actor(&self) -> &Actor {
        &self.actor
    }
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }
    /// The key to a tenant's transaction.
    pub const fn scope(&self) -> Scope {
        Scope { tenant: self.tenant }
    }
}

/// The right to open a transaction in one tenant: from a permit, or for a reason of the closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    tenant: TenantId,
}

/// Why a transaction may be opened in a tenant although nobody holds a permit for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScopeReason {
    /// A secret was presented that names its tenant and is about to be checked there (sign-in, refresh,
    /// enrolment, agent signature).
    PresentedCredential,
    /// Another role asks, with its service token.
    ServiceCall,
    /// A fact of this tenant arrived from another role's outbox.
    FactDelivery,
    /// A reconciler found, as system role, that something of this tenant is due.
    Reconcile,
    /// A tenant is being made by its parent, and its own record begins.
    Provision,
    /// First start: the platform's own tenant and accounts.
    Bootstrap,
}

impl Scope {
    /// A scope without a permit. Each use is a place to review.
    pub const fn without_permit(tenant: TenantId, _reason: ScopeReason) -> Self {
        Self { tenant }
    }
    pub const fn tenant(self) -> TenantId {
        self.tenant
    }
}

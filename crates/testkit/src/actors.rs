//! Who tests act as: people with real tokens, agents with real signatures, roles with service tokens.

use std::sync::Arc;

use api::client::{AgentIdentity, Client, Identity};
use authz::{Actor, Role, TenantKind, User};
use domain::{AgentId, Id, TenantId, UserId};
use ed25519_dalek::SigningKey;
use runtime::{AccessClaims, RoleName};

use crate::TestApp;

/// An agent the stand-in for auth knows.
#[derive(Clone)]
pub struct TestAgent {
    pub tenant: TenantId,
    pub id: AgentId,
    pub key: SigningKey,
    pub client: Client,
}

impl TestAgent {
    pub const fn actor(&self) -> Actor {
        Actor::Agent { tenant: self.tenant, id: self.id }
    }
}

impl TestApp {
    /// A fresh tenant's id. Tenants are facts of the auth role; others only know their ids.
    pub fn tenant(&self) -> TenantId {
        self.id()
    }

    /// A person of a customer's tenant with one role there.
    pub fn user(&self, tenant: TenantId, role: Role) -> Client {
        self.person(&User {
            id: self.id::<domain::id::User>(),
            home: tenant,
            tenant,
            kind: TenantKind::Tenant,
            roles: vec![role],
        })
    }

    /// A person of an MSP, acting in a tenant below.
    pub fn msp_user(&self, msp: TenantId, tenant: TenantId, role: Role) -> Client {
        let id: UserId = self.id();
        self.person(&User { id, home: msp, tenant, kind: TenantKind::Tenant, roles: vec![role] })
    }

    /// Any person, with a token of five minutes.
    pub fn person(&self, user: &User) -> Client {
        self.client().with_identity(Identity::Bearer(self.token(user)))
    }

    /// That person's access token.
    pub fn token(&self, user: &User) -> String {
        let issuer = self.verifier().issuer();
        let claims = AccessClaims::new(issuer, user, self.now(), 300, self.ids().as_ref());
        self.signer().sign(&claims).expect("test claims sign")
    }

    /// An agent enrolled in `tenant`, as far as the stand-in for auth is concerned.
    pub fn agent(&self, tenant: TenantId) -> TestAgent {
        let mut seed = [0; 32];
        self.ids().fill(&mut seed);
        let key = SigningKey::from_bytes(&seed);
        let id: AgentId = self.id();
        self.stand_in().enrol(tenant, id, key.verifying_key());
        self.agent_with(tenant, id, key)
    }

    /// A client that signs as this agent, whoever enrolled it.
    pub fn agent_with(&self, tenant: TenantId, id: AgentId, key: SigningKey) -> TestAgent {
        let identity =
            AgentIdentity::new(tenant, id, key.clone(), self.clock(), self.ids().clone());
        let client = self.client().with_identity(Identity::Agent(Arc::new(identity)));
        TestAgent { tenant, id, key, client }
    }

    /// Agents of the stand-in are refused from now on.
    pub fn revoke(&self, agent: &TestAgent) {
        self.stand_in().revoke(agent.id);
    }

    /// A client of `to`'s internal operations, speaking as `from`. Good for a minute of test time.
    pub fn service(&self, from: RoleName, to: RoleName) -> Client {
        self.peers().as_seen_by(from).client(to).expect("service tokens sign")
    }

    /// A fresh id of any kind.
    pub fn id<K: domain::Kind>(&self) -> Id<K> {
        Id::fresh(self.ids().as_ref(), self.now())
    }
}

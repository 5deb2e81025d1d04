//! First start: the platform's own tenant, and the tenants and accounts a fresh installation needs.
//!
//! Invariant: what exists stays as it is, passwords above all; running it again, or twice at once, makes
//! nothing twice. It goes through the same use cases, transactions and audit events as everything else.

use api::names;
use std::time::Duration;

use authz::{Actor, Role, Scope, ScopeReason, TenantKind};
use domain::{TenantId, Timestamp, TokenId, UserId};
use pg::{SystemReason, SystemTx, TenantTx};
use runtime::{Cx, Platform};

use crate::{
    enrolment::{self, EnrolError},
    password::{Passwords, Secret},
    tenants::{self, TenantError, TenantRow},
    users::{self, NewUser, UserError},
};

/// An account to make if it is missing.
pub struct Account {
    pub email: String,
    pub name: String,
    pub password: Secret,
}

/// What an installation is to have.
pub struct Bootstrap {
    pub platform_name: String,
    /// `platform.operator` and `platform.security`.
    pub platform_admin: Account,
    pub msp_name: String,
    /// `msp.owner`.
    pub msp: Account,
    pub tenant_name: String,
    /// `tenant.admin`.
    pub tenant: Account,
    pub other_tenant_name: String,
    pub other_tenant: Account,
}

/// A tenant and its first account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub tenant_id: TenantId,
    pub user_id: UserId,
}

/// What the installation has now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installed {
    pub platform: Place,
    pub msp: Place,
    pub tenant: Place,
    pub other_tenant: Place,
}

/// A fresh enrolment token.
pub struct EnrolmentSecret {
    pub id: TokenId,
    /// `evh_en_…`
    pub token: String,
    pub expires_at: Timestamp,
}

/// Why the installation is not complete.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("a tenant could not be made")]
    Tenant(#[from] TenantError),
    #[error("an account could not be made")]
    User(#[from] UserError),
    #[error("an enrolment token could not be made")]
    Enrolment(#[from] EnrolError),
    #[error(transparent)]
    Db(#[from] pg::Error),
}

/// Makes what is missing of `wanted`. `platform` is the auth role's.
///
/// # Errors
/// See [`BootstrapError`]; what was made before stays, and the next run goes on from there.
pub async fn ensure(platform: &Platform, wanted: Bootstrap) -> Result<Installed, BootstrapError> {
    let setup = Setup { platform, passwords: Passwords::new(1), cx: context(platform) };
    let root = setup.root(&wanted.platform_name).await?;
    let staff = &[Role::PlatformOperator, Role::PlatformSecurity];
    let admin = setup.account(root, wanted.platform_admin, staff).await?;
    let msp = setup.child(root, &wanted.msp_name).await?;
    let owner = setup.account(msp, wanted.msp, &[Role::MspOwner]).await?;
    let tenant = setup.child(msp, &wanted.tenant_name).await?;
    let first = setup.account(tenant, wanted.tenant, &[Role::TenantAdmin]).await?;
    let other = setup.child(msp, &wanted.other_tenant_name).await?;
    let second = setup.account(other, wanted.other_tenant, &[Role::TenantAdmin]).await?;
    Ok(Installed {
        platform: Place { tenant_id: root, user_id: admin },
        msp: Place { tenant_id: msp, user_id: owner },
        tenant: Place { tenant_id: tenant, user_id: first },
        other_tenant: Place { tenant_id: other, user_id: second },
    })
}

/// A token with which machines enrol in `tenant`.
///
/// # Errors
/// See [`BootstrapError`]; a foreign key violation when there is no such tenant.
pub async fn mint_enrolment_token(
    platform: &Platform,
    tenant: TenantId,
    max_uses: u32,
    ttl: Duration,
) -> Result<EnrolmentSecret, BootstrapError> {
    let label = "made at start".to_owned();
    let uses = max_uses.clamp(1, enrolment::MAX_USES);
    let ttl = ttl.min(enrolment::MAX_TTL);
    let cx = context(platform);
    let minted = enrolment::create(&platform.db, &cx, scope(tenant), label, uses, ttl).await?;
    Ok(EnrolmentSecret {
        id: minted.row.id,
        token: minted.token.reveal(),
        expires_at: minted.row.expires_at,
    })
}

fn context(platform: &Platform) -> Cx {
    Cx {
        actor: Actor::Service { name: "bootstrap".to_owned() },
        clock: platform.clock.clone(),
        ids: platform.ids.clone(),
        request_id: "bootstrap".into(),
    }
}

const fn scope(tenant: TenantId) -> Scope {
    Scope::without_permit(tenant, ScopeReason::Bootstrap)
}

struct Setup<'a> {
    platform: &'a Platform,
    passwords: Passwords,
    cx: Cx,
}

impl Setup<'_> {
    async fn root(&self, name: &str) -> Result<TenantId, BootstrapError> {
        if let Some(id) = self.find_root().await? {
            return Ok(id);
        }
        match self.insert_root(name).await {
            // Another process was first.
            Err(BootstrapError::Db(error)) if error.violates("tenants_kind_key") => {
                self.find_root().await?.ok_or(BootstrapError::Tenant(TenantError::NotFound))
            }
            other => other,
        }
    }

    async fn find_root(&self) -> Result<Option<TenantId>, BootstrapError> {
        let mut tx = SystemTx::begin(&self.platform.db, SystemReason::Bootstrap).await?;
        Ok(tenants::store::find_root(&mut tx).await?)
    }

    async fn insert_root(&self, name: &str) -> Result<TenantId, BootstrapError> {
        let id: TenantId = self.cx.id();
        let root = TenantRow {
            id,
            parent_id: None,
            kind: TenantKind::Platform,
            name: name.to_owned(),
            path: vec![id.uuid()],
            created_at: self.cx.now(),
        };
        let mut tx = TenantTx::begin(&self.platform.db, scope(id)).await?;
        tenants::store::insert(&mut tx, &root).await?;
        tx.commit(self.cx.event("tenant.created", "tenant", &id).detail("name", name)).await?;
        Ok(id)
    }

    async fn child(&self, parent: TenantId, name: &str) -> Result<TenantId, BootstrapError> {
        if let Some(id) = self.find_child(parent, name).await? {
            return Ok(id);
        }
        let made =
            tenants::create_child(&self.platform.db, &self.cx, scope(parent), name.to_owned());
        match made.await {
            Ok(row) => Ok(row.id),
            Err(TenantError::NameTaken) => self
                .find_child(parent, name)
                .await?
                .ok_or(BootstrapError::Tenant(TenantError::NameTaken)),
            Err(error) => Err(error.into()),
        }
    }

    async fn find_child(
        &self,
        parent: TenantId,
        name: &str,
    ) -> Result<Option<TenantId>, BootstrapError> {
        let mut tx = TenantTx::begin(&self.platform.db, scope(parent)).await?;
        let row = tenants::store::find_child(&mut tx, &names::key(name)).await?;
        Ok(row.map(|row| row.id))
    }

    async fn account(
        &self,
        tenant: TenantId,
        account: Account,
        roles: &[Role],
    ) -> Result<UserId, BootstrapError> {
        let key = names::key(&account.email);
        if let Some(id) = self.find_account(tenant, &key).await? {
            return Ok(id);
        }
        let new = NewUser {
            email: account.email,
            name: account.name,
            password: account.password,
            roles: roles.to_vec(),
        };
        let db = &self.platform.db;
        match users::insert(db, &self.passwords, &self.cx, scope(tenant), new, None).await {
            Ok(row) => Ok(row.id),
            Err(UserError::NameTaken) => self
                .find_account(tenant, &key)
                .await?
                .ok_or(BootstrapError::User(UserError::NameTaken)),
            Err(error) => Err(error.into()),
        }
    }

    async fn find_account(
        &self,
        tenant: TenantId,
        key: &str,
    ) -> Result<Option<UserId>, BootstrapError> {
        let mut tx = TenantTx::begin(&self.platform.db, scope(tenant)).await?;
        Ok(users::store::find_by_name(&mut tx, key).await?)
    }
}

//! People: accounts of a tenant and the roles they are given.
//!
//! Invariant: an account holds only roles of its tenant's kind, given by somebody who may give them;
//! its password is long enough, not a common one, and stored as Argon2id only. A name is unique within a
//! tenant; whether it exists elsewhere is told to nobody.

pub mod http;
pub mod store;

use authz::{Actor, Role, Scope};
use domain::UserId;
use pg::{Db, TenantTx};
use runtime::Cx;
use uuid::Uuid;

use crate::{
    password::{PasswordError, Passwords, Secret},
    roles::{self, First, Gift},
    tenants,
};
pub use store::UserRow;

/// Why an account was not made.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("there is no such account")]
    NotFound,
    #[error("the tenant has an account of this name")]
    NameTaken,
    /// A role that does not exist in this kind of tenant, or that the creator may not give.
    #[error("the role {0} is not yours to give here")]
    RoleRefused(Role),
    /// It came from above once; now it is theirs.
    #[error(
        "the first account with the role {0} is there; further ones are made by those who manage it"
    )]
    NotTheFirst(Role),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Db(#[from] pg::Error),
}

/// A new account, every field already valid.
pub struct NewUser {
    pub email: String,
    pub name: String,
    pub password: Secret,
    pub roles: Vec<Role>,
}

pub async fn get(db: &Db, scope: Scope, id: UserId) -> Result<UserRow, UserError> {
    let mut tx = TenantTx::begin(db, scope).await?;
    store::find(&mut tx, id).await?.ok_or(UserError::NotFound)
}

pub async fn list(
    db: &Db,
    scope: Scope,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<UserRow>, UserError> {
    let mut tx = TenantTx::begin(db, scope).await?;
    Ok(store::list(&mut tx, after, limit).await?)
}

/// Makes an account on behalf of the actor of `cx`, who may not give more than [`roles::may_give`] says.
pub async fn create(
    db: &Db,
    passwords: &Passwords,
    cx: &Cx,
    scope: Scope,
    new: NewUser,
) -> Result<UserRow, UserError> {
    let mut first = None;
    for role in &new.roles {
        let gift = match &cx.actor {
            Actor::User(giver) => roles::may_give(giver, *role),
            Actor::Agent { .. } | Actor::Service { .. } | Actor::Anonymous => Gift::Never,
        };
        match gift {
            Gift::Freely => {}
            Gift::First(what) => first = Some((*role, what)),
            Gift::Never => return Err(UserError::RoleRefused(*role)),
        }
    }
    let mut tx = TenantTx::begin(db, scope).await?;
    // Asked first, to spare the hashing; the lock and the constraint decide.
    if let Some((role, what)) = first {
        require_first(&mut tx, role, what).await?;
    }
    if store::find_by_name(&mut tx, &api::names::key(&new.email)).await?.is_some() {
        return Err(UserError::NameTaken);
    }
    drop(tx);
    insert(db, passwords, cx, scope, new, first).await
}

/// Refuses when somebody was first already.
async fn require_first(tx: &mut TenantTx, role: Role, what: First) -> Result<(), UserError> {
    let there = match what {
        First::Account => store::count(tx).await?,
        First::Holder => store::count_holders(tx, role).await?,
    };
    if there == 0 { Ok(()) } else { Err(UserError::NotTheFirst(role)) }
}

/// Makes the account. For [`create`] and the first start, which has nobody to ask. With `first`, only while
/// nobody was: the tenant's row is held from the count to the commit, so that of two only one is.
pub(crate) async fn insert(
    db: &Db,
    passwords: &Passwords,
    cx: &Cx,
    scope: Scope,
    new: NewUser,
    first: Option<(Role, First)>,
) -> Result<UserRow, UserError> {
    // Before the transaction: hashing waits its turn, and a transaction must not.
    let password_hash = passwords.hash(new.password, &*cx.ids).await?;
    let now = cx.now();
    let mut roles = new.roles;
    roles.sort_unstable();
    roles.dedup();
    let user = UserRow {
        id: UserId::fresh(&*cx.ids, now),
        email: new.email,
        name: new.name,
        roles,
        created_at: now,
    };
    let mut tx = TenantTx::begin(db, scope).await?;
    if let Some((role, what)) = first {
        tenants::store::lock(&mut tx).await?;
        require_first(&mut tx, role, what).await?;
    }
    store::insert(&mut tx, &user, &password_hash).await.map_err(|error| {
        if error.violates("signin_names_pkey") { UserError::NameTaken } else { error.into() }
    })?;
    let roles: Vec<&str> = user.roles.iter().map(|role| role.as_str()).collect();
    let mut events = vec![cx.event("user.created", "user", &user.id).detail("roles", roles)];
    if let Some((role, _)) = first {
        let event = cx.event("tenant.first_admin_created", "user", &user.id);
        events.push(event.detail("role", role.as_str()));
    }
    tx.commit_all(events).await?;
    Ok(user)
}

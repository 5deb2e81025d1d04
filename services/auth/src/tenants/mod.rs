//! The tenant tree: platform ▸ MSP ▸ tenant.
//!
//! Invariant: a child is made by its parent only, carries the parent's whole path, and a tenant sees
//! itself and what is below, never a sibling or what is above. Names are unique among siblings, whom the
//! parent sees anyway, so a refused name tells nobody anything.

pub mod http;
pub mod store;

use authz::{Scope, TenantKind};
use domain::{TenantId, Timestamp};
use pg::{Db, TenantTx};
use runtime::Cx;
use uuid::Uuid;

pub use store::TenantRow;

/// Why a tenant was not made.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// The tenant acted in is gone.
    #[error("there is no such tenant")]
    NotFound,
    #[error("a tenant has no tenants below it")]
    NoChildren,
    #[error("a sibling has this name")]
    NameTaken,
    #[error(transparent)]
    Db(#[from] pg::Error),
}

/// The tenant of the scope.
pub async fn get(db: &Db, scope: Scope) -> Result<TenantRow, TenantError> {
    let mut tx = TenantTx::begin(db, scope).await?;
    store::find(&mut tx, scope.tenant()).await?.ok_or(TenantError::NotFound)
}

/// The tenant of the scope and all below it.
pub async fn list(
    db: &Db,
    scope: Scope,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<TenantRow>, TenantError> {
    let mut tx = TenantTx::begin(db, scope).await?;
    Ok(store::list(&mut tx, after, limit).await?)
}

/// Makes a tenant below the one of the scope; `name` is already valid.
pub async fn create_child(
    db: &Db,
    cx: &Cx,
    scope: Scope,
    name: String,
) -> Result<TenantRow, TenantError> {
    let mut tx = TenantTx::begin(db, scope).await?;
    let parent = store::find(&mut tx, scope.tenant()).await?.ok_or(TenantError::NotFound)?;
    let child = child_of(&parent, TenantId::fresh(&*cx.ids, cx.now()), name, cx.now())?;
    store::insert(&mut tx, &child).await.map_err(name_taken)?;
    let event = cx
        .event("tenant.created", "tenant", &child.id)
        .detail("name", &child.name)
        .detail("kind", child.kind.as_str());
    tx.commit(event).await?;
    Ok(child)
}

fn child_of(
    parent: &TenantRow,
    id: TenantId,
    name: String,
    now: Timestamp,
) -> Result<TenantRow, TenantError> {
    let kind = match parent.kind {
        TenantKind::Platform => TenantKind::Msp,
        TenantKind::Msp => TenantKind::Tenant,
        TenantKind::Tenant => return Err(TenantError::NoChildren),
    };
    let mut path = parent.path.clone();
    path.push(id.uuid());
    Ok(TenantRow { id, parent_id: Some(parent.id), kind, name, path, created_at: now })
}

fn name_taken(error: pg::Error) -> TenantError {
    if error.violates("tenants_parent_id_name_key_key") {
        TenantError::NameTaken
    } else {
        TenantError::Db(error)
    }
}

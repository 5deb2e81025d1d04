//! The tenant tree: platform ▸ MSP ▸ tenant.
//!
//! Invariant: a child is made by its parent only, carries the parent's whole path, and a tenant sees
//! itself and what is below, never a sibling or what is above. Names are unique among siblings, whom the
//! parent sees anyway, so a refused name tells nobody anything.

pub mod http;
pub mod store;

use authz::{Scope, ScopeReason, TenantKind};
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
    // Asked first, so that a refused name leaves no record; the constraint decides.
    if store::find_child(&mut tx, &api::names::key(&child.name)).await?.is_some() {
        return Err(TenantError::NameTaken);
    }
    drop(tx);
    // The child's own record begins with its making. In this order: a crash between the two leaves a record
    // without a tenant, which nobody can read, and never a tenant without its record.
    let own = TenantTx::begin(db, Scope::without_permit(child.id, ScopeReason::Provision)).await?;
    own.commit(created(cx, &child).detail("parent_id", parent.id)).await?;
    let mut tx = TenantTx::begin(db, scope).await?;
    store::insert(&mut tx, &child).await.map_err(name_taken)?;
    tx.commit(created(cx, &child)).await?;
    Ok(child)
}

fn created(cx: &Cx, tenant: &TenantRow) -> pg::AuditEvent {
    cx.event("tenant.created", "tenant", &tenant.id)
        .detail("name", &tenant.name)
        .detail("kind", tenant.kind.as_str())
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

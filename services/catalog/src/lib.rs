//! Vaults, sessions, packs, snapshots, browse, restore grants: the commit point.
//!
//! Owns the catalog's tables and R5: a backup becomes a snapshot in exactly one transaction
//! (`sessions::commit`). It opens managed vaults for browsing and asks the store to lock; it never sees a
//! customer-held name, and it deletes nothing that a warrant does not name.

mod browse;
pub mod collection;
pub mod error;
pub mod freezes;
pub mod holds;
mod objects;
pub mod packs;
mod paging;
mod place;
pub mod rebuild;
pub mod replica;
mod restores;
mod round;
pub mod scrub;
pub mod sessions;
pub mod snapshots;
pub mod state;
pub mod steward;
pub mod vaults;
pub mod workloads;

use std::{sync::Arc, time::Duration};

use authz::{Actor, Scope, ScopeReason};
use domain::TenantId;
use runtime::{Check, Platform, Role, RoleName, Worker};
use utoipa_axum::router::OpenApiRouter;

pub use state::{Catalog, CatalogConfig, StartError};

/// Who reconcilers of this role are in the audit record.
pub(crate) fn reconciler() -> Actor {
    Actor::Service { name: RoleName::Catalog.as_str().to_owned() }
}

/// A tenant's transaction for a reconciler that found work in it.
pub(crate) const fn reconciler_scope(tenant: TenantId) -> Scope {
    Scope::without_permit(tenant, ScopeReason::Reconcile)
}

/// Where and as whom an operator acts by hand, who needs the platform's configuration for it (`everhold admin`).
pub fn by_hand(tenant: TenantId) -> (Scope, Actor) {
    (reconciler_scope(tenant), reconciler())
}

/// The catalog role.
///
/// # Errors
/// [`StartError`] when the store or the key wrapper cannot be set up.
pub async fn role(platform: Platform, config: CatalogConfig) -> Result<Role, StartError> {
    Ok(role_of(&Arc::new(Catalog::new(platform, config).await?)))
}

/// The role over parts that exist already.
pub fn role_of(app: &Arc<Catalog>) -> Role {
    let platform = app.platform();
    Role::new(RoleName::Catalog)
        .public(router(app.clone()))
        .internal(workloads::http::internal(app.clone()))
        .workers(runtime::relay_workers(platform))
        .workers(workers(app))
        .collectors(app.lock_figures.collectors())
        .collectors(app.replica_figures.collectors())
        .ready_when(Check::database(&app.db))
}

fn router(app: Arc<Catalog>) -> OpenApiRouter {
    OpenApiRouter::new()
        .merge(vaults::http::router())
        .merge(workloads::http::router())
        .merge(sessions::http::router())
        .merge(packs::http::router())
        .merge(snapshots::http::router())
        .merge(holds::http::router())
        .merge(browse::http::router())
        .merge(restores::http::router())
        .merge(replica::http::router())
        .merge(collection::http::router())
        .merge(steward::http::router())
        .with_state(app)
}

fn workers(app: &Arc<Catalog>) -> Vec<Worker> {
    let (expiry, steward, keeper) = (app.clone(), app.clone(), app.clone());
    let (abandon, keys) = (app.clone(), app.clone());
    let (copier, copy_keeper) = (app.clone(), app.clone());
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3_600));
    vec![
        Worker::every("session_expiry", minute, move || {
            let app = expiry.clone();
            async move { sessions::jobs::expire_round(&app).await }
        }),
        Worker::every("lock_steward", hour, move || {
            let app = steward.clone();
            async move { sessions::jobs::steward_round(&app).await }
        }),
        Worker::every("lock_keeper", hour, move || {
            let app = keeper.clone();
            async move {
                let report = steward::round(&app, steward::BUDGET).await?;
                // Failed ones alone would make it go on at once and for ever.
                Ok::<_, error::Error>(report.left_over && report.extended > 0)
            }
        }),
        Worker::every("pack_abandon", hour, move || {
            let app = abandon.clone();
            async move { sessions::jobs::abandon_round(&app).await }
        }),
        Worker::every("replica_copier", minute, move || {
            let app = copier.clone();
            async move { replica::round(&app).await }
        }),
        Worker::every("replica_lock_keeper", hour, move || {
            let app = copy_keeper.clone();
            async move { replica::keep::round(&app).await }
        }),
        Worker::every("key_store_writer", KEEP_TRYING, move || {
            let app = keys.clone();
            async move { vaults::jobs::round(&app).await }
        }),
        receipt_writer(app.clone()),
    ]
}

/// How often what was left over is tried again.
const KEEP_TRYING: Duration = Duration::from_secs(15);

/// Woken by every commit of this process; looks by itself for what other replicas or a crash left.
fn receipt_writer(app: Arc<Catalog>) -> Worker {
    Worker::new("receipt_writer", move |stop| async move {
        while !stop.is_cancelled() {
            match snapshots::receipts::round(&app).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    let cause: &dyn std::error::Error = &error;
                    tracing::warn!(error = cause, "receipts wait for the object store");
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = app.receipts_waiting.notified() => {}
                () = tokio::time::sleep(KEEP_TRYING) => {}
            }
        }
    })
}

//! Freezes: collection, expiry and key destruction of a tenant stand still until a person has decided.
//!
//! Owns what raises them (a receipt the database does not know, a manifest nobody confirmed) and how one ends.
//! Invariants: a freeze never ends by itself; lifting one is an audit event that says why; what a person has decided
//! about once does not freeze the tenant again.

pub mod store;

use domain::{EventId, TenantId, Timestamp};
use pg::{AuditEvent, TenantTx};
use serde::Serialize;

use crate::{error::Error, state::Catalog};

/// Longest reason for a lifting, in characters.
pub const MAX_REASON: usize = 1_000;

/// Whether this says something, and not too much.
pub fn is_reason(text: &str) -> bool {
    !text.trim().is_empty() && text.chars().count() <= MAX_REASON
}

/// Why collection stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// An agent showed a receipt of ours for a snapshot the database does not know: it went back in time.
    UnknownReceipt,
    /// A rebuild found a manifest with neither receipt nor forget record.
    UnconfirmedManifest,
}

impl Reason {
    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownReceipt => "unknown_receipt",
            Self::UnconfirmedManifest => "unconfirmed_manifest",
        }
    }
}

/// One freeze that stands, or has just been lifted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Freeze {
    pub id: EventId,
    /// `unknown_receipt` or `unconfirmed_manifest`.
    pub reason: String,
    /// The snapshot or manifest it is about.
    pub evidence: String,
    pub frozen_at: Timestamp,
}

/// A tenant's standing freezes, oldest first.
///
/// # Errors
/// The database's.
pub async fn list(app: &Catalog, tenant: TenantId) -> Result<Vec<Freeze>, Error> {
    let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(tenant)).await?;
    Ok(store::list_standing(&mut tx).await?)
}

/// Lifts freezes of a tenant. Gives those that stood; collection goes on when none is left.
///
/// # Errors
/// `validation` without a reason or with a very long one.
pub async fn lift(
    app: &Catalog,
    tenant: TenantId,
    ids: &[EventId],
    because: &str,
) -> Result<Vec<Freeze>, Error> {
    let because = because.trim();
    if !is_reason(because) {
        return Err(Error::field("reason", format!("1 to {MAX_REASON} characters")));
    }
    let now = app.clock.now();
    let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(tenant)).await?;
    let lifted = store::set_lifted(&mut tx, ids, because, now).await?;
    let events: Vec<AuditEvent> = lifted.iter().map(|freeze| event(app, freeze, because)).collect();
    if events.is_empty() {
        tx.rollback().await?;
    } else {
        tx.commit_all(events).await?;
    }
    Ok(lifted)
}

fn event(app: &Catalog, freeze: &Freeze, because: &str) -> AuditEvent {
    let now = app.clock.now();
    let id = EventId::fresh(&*app.ids, now);
    AuditEvent::new(id, now, &crate::reconciler(), "collection.unfrozen", "freeze", &freeze.id)
        .detail("frozen_for", &freeze.reason)
        .detail("evidence", &freeze.evidence)
        .detail("frozen_at", freeze.frozen_at)
        .detail("reason", because)
}

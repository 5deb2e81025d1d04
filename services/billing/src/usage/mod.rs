//! What a tenant used: facts appended as commits made them true, summed when asked.
//!
//! Invariant: a fact counts once. Rating and invoices come later and will only ever read these facts.

pub(crate) mod http;
mod store;

use api::billing::{MeterEvent, Usage};
use authz::{Scope, ScopeReason};
use domain::Timestamp;
use pg::{Db, OperationalReason, TenantTx};

/// What can go wrong with usage.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("from must be before until")]
    Period,
    #[error("a meter's name is 1 to 40 of a-z and _")]
    Meter,
    #[error("the meters cannot be reached")]
    Database(#[from] pg::Error),
}

fn is_meter(name: &str) -> bool {
    (1..=40).contains(&name.len()) && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'_'))
}

/// Records delivered facts; those recorded before are passed over. A fact without a meter's name is refused
/// (the relay then parks it alone); a quantity beyond the column counts as the most it holds.
pub(crate) async fn record(db: &Db, facts: Vec<MeterEvent>, now: Timestamp) -> Result<(), Error> {
    for fact in facts {
        if !is_meter(&fact.meter) {
            return Err(Error::Meter);
        }
        let quantity = i64::try_from(fact.quantity).unwrap_or_else(|_| {
            tracing::error!(fact = %fact.id, "a metered quantity is too large to be true and is cut");
            i64::MAX
        });
        let scope = Scope::without_permit(fact.tenant_id, ScopeReason::FactDelivery);
        let mut tx = TenantTx::begin(db, scope).await?;
        store::insert_meter_event(&mut tx, &fact, quantity, now).await?;
        tx.commit_operational(OperationalReason::FactIngest).await?;
    }
    Ok(())
}

/// Sums per meter in `[from, until)`.
pub(crate) async fn usage(
    db: &Db,
    scope: Scope,
    from: Timestamp,
    until: Timestamp,
) -> Result<Usage, Error> {
    if from >= until {
        return Err(Error::Period);
    }
    let mut tx = TenantTx::begin(db, scope).await?;
    let lines = store::list_usage(&mut tx, from, until).await?;
    tx.commit_operational(OperationalReason::Read).await?;
    Ok(Usage { from, until, lines })
}

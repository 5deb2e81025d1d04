//! What happens to sessions by themselves: silent ones end, packs of open ones stay locked, grants nobody
//! used are given up.
//!
//! Invariant: only time in which the control plane was serving counts as silence, so an outage of ours ends
//! nobody's backup.

use std::time::Duration;

use domain::{EventId, PackId, SessionId, TenantId, Timestamp};
use pg::{AuditEvent, OperationalReason, SystemReason, SystemTx, TenantTx};
use time::OffsetDateTime;

use super::job_store as sql;
use crate::{
    error::Error,
    packs::{self, locks},
    round::Round,
    state::Catalog,
};

/// Silence that ends a session.
pub const SILENCE: Duration = Duration::from_secs(72 * 3_600);
/// Longest session.
pub const LONGEST: Duration = Duration::from_secs(30 * 86_400);
/// A longer pause between two rounds was an outage.
pub const OUTAGE: Duration = Duration::from_secs(600);

/// Counts serving time, then ends what was silent or open too long.
///
/// # Errors
/// The database's.
pub async fn expire_round(app: &Catalog) -> Result<bool, Error> {
    let now = app.clock.now();
    let mut tx = SystemTx::begin(&app.db, SystemReason::SessionExpiry).await?;
    let served = sql::tick(&mut tx, now, OUTAGE).await?;
    let silence = i64::try_from(SILENCE.as_secs()).unwrap_or(i64::MAX);
    let due = sql::list_due(&mut tx, served - silence, now - LONGEST).await?;
    tx.commit_operational(OperationalReason::JobState).await?;
    let mut round = Round::default();
    for (tenant, session) in &due {
        round.note("session", expire(app, *tenant, *session, served - silence, now).await);
    }
    round.end(!due.is_empty())
}

async fn expire(
    app: &Catalog,
    tenant: TenantId,
    session: SessionId,
    silent_before: i64,
    now: Timestamp,
) -> Result<(), Error> {
    let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(tenant)).await?;
    // Asked again under the row: a heartbeat may have arrived since.
    let Some(by) = sql::set_expired(&mut tx, session, silent_before, now - LONGEST, now).await?
    else {
        return Ok(());
    };
    let id = EventId::fresh(&*app.ids, now);
    let event =
        AuditEvent::new(id, now, &crate::reconciler(), "session.expired", "session", &session);
    Ok(tx.commit(event.detail("by", by)).await?)
}

/// Extends the locks of uploaded packs whose session is still open, before they run out.
///
/// # Errors
/// The store's or the database's; what was extended is recorded.
pub async fn steward_round(app: &Catalog) -> Result<bool, Error> {
    let until = app.clock.now() + locks::SESSION_AHEAD;
    let (mut round, mut after) = (Round::default(), None);
    // What cannot be extended stays in the list: to begin with it again would keep others waiting.
    loop {
        let mut tx = SystemTx::begin(&app.db, SystemReason::LockSteward).await?;
        let short = sql::list_short(&mut tx, until, after).await?;
        drop(tx);
        after = short.last().copied();
        if after.is_none() {
            return round.end(false);
        }
        for (tenant, ids) in by_tenant(short) {
            round.note("locks of a tenant", steward(app, tenant, &ids, until).await);
        }
    }
}

async fn steward(
    app: &Catalog,
    tenant: TenantId,
    ids: &[uuid::Uuid],
    until: Timestamp,
) -> Result<(), Error> {
    let scope = crate::reconciler_scope(tenant);
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    let rows = sql::find_uploaded(&mut tx, ids).await?;
    drop(tx);
    let (extended, failed) = packs::extend(app, &rows, until).await;
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    packs::store::set_locks(&mut tx, &extended).await?;
    tx.commit_operational(OperationalReason::PackBookkeeping).await?;
    failed.map_or(Ok(()), Err)
}

/// Gives up rows whose upload grant ended a day ago without a confirmation.
///
/// # Errors
/// The database's.
pub async fn abandon_round(app: &Catalog) -> Result<bool, Error> {
    let before = app.clock.now() - locks::ABANDON_AFTER;
    let mut tx = SystemTx::begin(&app.db, SystemReason::PackReaper).await?;
    let tenants = sql::list_abandonable(&mut tx, before).await?;
    drop(tx);
    let mut round = Round::default();
    for tenant in &tenants {
        round.note("grants of a tenant", abandon(app, *tenant, before).await);
    }
    round.end(false)
}

async fn abandon(app: &Catalog, tenant: TenantId, before: Timestamp) -> Result<(), Error> {
    let mut tx = TenantTx::begin(&app.db, crate::reconciler_scope(tenant)).await?;
    sql::set_abandoned(&mut tx, before).await?;
    Ok(tx.commit_operational(OperationalReason::PackBookkeeping).await?)
}

/// Ids grouped by tenant, as a system query gives them in tenant order.
fn by_tenant(rows: Vec<(TenantId, PackId)>) -> Vec<(TenantId, Vec<uuid::Uuid>)> {
    let mut grouped: Vec<(TenantId, Vec<uuid::Uuid>)> = Vec::new();
    for (tenant, pack) in rows {
        match grouped.last_mut() {
            Some((last, ids)) if *last == tenant => ids.push(pack.uuid()),
            _ => grouped.push((tenant, vec![pack.uuid()])),
        }
    }
    grouped
}

/// As SQL wants it.
pub(super) fn at(time: Timestamp) -> OffsetDateTime {
    time.into()
}

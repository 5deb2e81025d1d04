//! Legal holds: a snapshot that somebody has to keep stays, whatever rule and promise say, until its last hold is
//! released.
//!
//! Invariants: placing takes the snapshot's row, as expiring and forgetting do, so none misses the other; a softly
//! expired snapshot comes back under its hold; what was decided for good cannot be held any more; a hold ends by its
//! own id, by somebody who says why, and both ends are audit events. Release by four eyes is not here yet: one person
//! with the right suffices.

pub mod http;
mod store;

use api::{
    catalog::{Hold, HoldQuery, HoldState},
    page::Page,
    problem::Code,
};
use authz::{Actor, Scope};
use domain::{EventId, HoldId, SnapshotId, Timestamp};
use pg::{AuditEvent, TenantTx};
use runtime::idempotency;

use crate::{
    collection::{expiry_store, letting_go},
    error::Error,
    freezes::{MAX_REASON, is_reason},
    paging::{self, after, page_limit},
    state::Catalog,
};

/// A reason worth recording, without the space around it.
fn reason(text: &str) -> Result<&str, Error> {
    let wrong = || Error::field("reason", format!("say why, in 1 to {MAX_REASON} characters"));
    is_reason(text).then(|| text.trim()).ok_or_else(wrong)
}

fn request_key(by: &Actor, key: &str) -> Result<String, Error> {
    idempotency::check(key).map_err(|problem| Error::Refused(Box::new(problem)))?;
    Ok(format!("{}:{key}", by.id()))
}

fn used_up() -> Error {
    Error::because(Code::Conflict, idempotency::USED_UP)
}

fn event(
    app: &Catalog,
    now: Timestamp,
    by: &Actor,
    action: &'static str,
    hold: &Hold,
) -> AuditEvent {
    let (id, snapshot) = (EventId::fresh(&*app.ids, now), hold.snapshot_id);
    AuditEvent::new(id, now, by, action, "snapshot", &snapshot).detail("hold_id", hold.id)
}

/// Places a hold; a softly expired snapshot comes back. `key`: repeating the request under it gives the same hold.
///
/// # Errors
/// `validation` for a reason or key that is none; `not_found`; `conflict` for a snapshot that was let go for good, and
/// for a key that asked for something else before.
pub async fn place(
    app: &Catalog,
    scope: Scope,
    by: &Actor,
    snapshot: SnapshotId,
    why: &str,
    key: Option<&str>,
) -> Result<Hold, Error> {
    let (now, why) = (app.clock.now(), reason(why)?);
    let key = key.map(|key| request_key(by, key)).transpose()?;
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    let state = expiry_store::lock_snapshot(&mut tx, snapshot).await?.map(|(_, state)| state);
    if let Some(key) = &key
        && let Some(earlier) = store::find_by_request(&mut tx, key).await?
    {
        let same = earlier.snapshot_id == snapshot && earlier.reason == why;
        tx.rollback().await?;
        return if same { Ok(earlier) } else { Err(used_up()) };
    }
    if !matches!(state.as_deref(), Some("committed" | "expired")) {
        let why_not = letting_go::gone(&mut tx, snapshot).await?;
        tx.rollback().await?;
        return Err(why_not);
    }
    let hold = Hold {
        id: HoldId::fresh(&*app.ids, now),
        snapshot_id: snapshot,
        state: HoldState::Standing,
        reason: why.to_owned(),
        placed_at: now,
        placed_by: Some(by.id()),
        released_at: None,
        released_by: None,
        released_because: None,
    };
    if !store::insert(&mut tx, &hold, key.as_deref()).await? {
        tx.rollback().await?;
        return Err(used_up());
    }
    let mut events = vec![event(app, now, by, "snapshot.held", &hold).detail("reason", why)];
    if expiry_store::set_unexpired(&mut tx, snapshot, now).await? {
        let back = event(app, now, by, "snapshot.expiry_undone", &hold);
        events.push(back.detail("reason", "a hold was placed"));
    }
    tx.commit_all(events).await?;
    Ok(hold)
}

/// Ends one hold. Repeated with the same words it changes nothing and answers the same.
///
/// # Errors
/// `validation` without a reason; `not_found`; `conflict` when it was released before, for another reason.
pub async fn release(
    app: &Catalog,
    scope: Scope,
    by: &Actor,
    id: HoldId,
    because: &str,
) -> Result<Hold, Error> {
    let (now, because) = (app.clock.now(), reason(because)?);
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    let hold = store::lock(&mut tx, id).await?.ok_or_else(Error::not_found)?;
    if let (Some(at), Some(before)) = (hold.released_at, &hold.released_because) {
        tx.rollback().await?;
        if before == because {
            return Ok(hold);
        }
        let words = format!("it was released at {at}: {before}");
        return Err(Error::because(Code::Conflict, words));
    }
    store::set_released(&mut tx, id, &by.id(), because, now).await?;
    let released = event(app, now, by, "snapshot.hold_released", &hold).detail("reason", because);
    tx.commit(released.detail("held_for", &hold.reason).detail("placed_at", hold.placed_at))
        .await?;
    Ok(Hold {
        state: HoldState::Released,
        released_at: Some(now),
        released_by: Some(by.id()),
        released_because: Some(because.to_owned()),
        ..hold
    })
}

/// A tenant's holds, newest first.
///
/// # Errors
/// `validation` for a bad cursor.
pub async fn list(app: &Catalog, scope: Scope, query: &HoldQuery) -> Result<Page<Hold>, Error> {
    let limit = page_limit(query.limit);
    let after = after(query.cursor.as_deref())?;
    let mut tx = TenantTx::begin(&app.db, scope).await?;
    let holds = store::list(&mut tx, query, after, i64::from(limit) + 1).await?;
    Ok(paging::page(holds, limit, |hold| hold.id.to_string()))
}

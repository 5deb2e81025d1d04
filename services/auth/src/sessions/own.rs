//! What people do about their own sign-ins: look at them, end them, change the password they begin with.
//!
//! Invariant: whoever changes a password ends every sign-in there is, in one transaction, also one whose password was
//! being checked at that moment; and nobody guesses the password faster with a token than without one.

use std::net::IpAddr;

use api::names;
use authz::User;
use domain::TokenId;
use pg::TenantTx;
use runtime::Cx;

use super::{
    SessionError, Tokens, presented, start,
    store::{self, EndReason, SignInRow},
};
use crate::{
    password::{self, Secret},
    state::Auth,
    users,
};

pub async fn list(auth: &Auth, cx: &Cx, me: &User) -> Result<Vec<SignInRow>, SessionError> {
    let mut tx = TenantTx::begin(&auth.db, presented(me.home)).await?;
    Ok(store::list_open(&mut tx, me.id, cx.now()).await?)
}

/// Ends one. Doing it again answers as for one that never was.
pub async fn end(auth: &Auth, cx: &Cx, me: &User, id: TokenId) -> Result<(), SessionError> {
    let mut tx = TenantTx::begin(&auth.db, presented(me.home)).await?;
    if store::end_open(&mut tx, me.id, Some(id), EndReason::Revoked, cx.now()).await? == 0 {
        return Err(SessionError::NotFound);
    }
    tx.commit(cx.event("session.ended", "session", &id).detail("user_id", me.id)).await?;
    Ok(())
}

/// Every sign-in ends; the new one acts where the caller acted.
pub async fn change_password(
    auth: &Auth,
    cx: &Cx,
    from: Option<IpAddr>,
    client: &str,
    me: &User,
    current: Secret,
    new: Secret,
) -> Result<Tokens, SessionError> {
    let mut tx = TenantTx::begin(&auth.db, presented(me.home)).await?;
    // Disabled since: as if the session had ended.
    let account = users::store::find(&mut tx, me.id).await?.ok_or(SessionError::Expired)?;
    let before = store::find_password(&mut tx, me.id).await?.ok_or(SessionError::Expired)?;
    // Checking and hashing wait their turn; the connection must not wait with them.
    drop(tx);
    let attempt = auth
        .throttle
        .admit(&names::key(&account.email), from, cx.now())
        .map_err(SessionError::Throttled)?;
    if !auth.passwords.verify(current.clone(), Some(before.clone())).await? {
        attempt.failed(cx.now());
        return Err(SessionError::WrongPassword);
    }
    attempt.succeeded();
    password::judge(&new, &account.email)?;
    if current == new {
        return Err(SessionError::Unchanged);
    }
    let after = auth.passwords.hash(new, &*cx.ids).await?;
    let mut tx = TenantTx::begin(&auth.db, presented(me.home)).await?;
    if !store::replace_password(&mut tx, me.id, &before, &after).await? {
        // Somebody changed it meanwhile.
        return Err(SessionError::WrongPassword);
    }
    let ended = store::end_open(&mut tx, me.id, None, EndReason::PasswordChanged, cx.now()).await?;
    tx.commit(cx.event("user.password_changed", "user", &me.id).detail("sessions_ended", ended))
        .await?;
    let mut tx = TenantTx::begin(&auth.db, presented(me.home)).await?;
    if !store::still_has_password(&mut tx, me.id, &after).await? {
        return Err(SessionError::Expired);
    }
    start(auth, cx, tx, me.id, me.tenant, client).await
}

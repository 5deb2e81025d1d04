//! Sign-in and renewal: who a person is, and in which one tenant a token lets them act.
//!
//! Invariant: a refresh token is used once; using it again ends every token descending from that sign-in,
//! in the same transaction that found out. Roles are read anew for every token. No token that acts below
//! its home leaves before the tenant acted in has recorded it. Names that do not exist cost what wrong
//! passwords cost.

pub mod http;
pub mod jobs;
pub mod own;
pub mod store;

use api::names;
use std::{net::IpAddr, time::Duration};

use authz::{Actor, Role, Scope, ScopeReason, User};
use domain::{TenantId, TokenId, UserId};
use pg::{LookupTx, OperationalReason, TenantTx};
use runtime::Cx;

use crate::{
    password::{PasswordError, Secret, Weakness},
    roles,
    secret::{OpaqueToken, TokenKind},
    state::Auth,
    tenants::{self, TenantRow},
    throttle::Wait,
};
use store::{Candidate, EndReason, Family};

/// How long an access token lives, in seconds.
pub const ACCESS_TTL_S: u32 = 300;
/// A refresh token not used for this long is worth nothing.
const REFRESH_TTL: Duration = Duration::from_secs(86_400);
/// However often it was renewed, a sign-in ends after this.
const FAMILY_TTL: Duration = Duration::from_secs(30 * 86_400);
/// Accounts in different tenants one name may mean: the one in the tenant asked for goes first, then the
/// oldest. Each costs a password check, and every sign-in costs as many as this, however many accounts there
/// are: else the time would tell somebody with accounts of that name how many others have one. Three, because
/// all pay for it; who has a fourth names its tenant.
const CHECKS: usize = 3;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the name or the secret is wrong")]
    WrongCredentials,
    #[error("too many wrong tries")]
    Throttled(Wait),
    #[error("the session has expired or was ended")]
    Expired,
    #[error("the refresh token was used before")]
    Reused,
    /// The tenant asked for is not one's own and not below it.
    #[error("there is no such tenant")]
    NotFound,
    /// It is below one's own, but no role of the account reaches that far.
    #[error("no role reaches into that tenant")]
    Forbidden,
    #[error("this is not the password of the account")]
    WrongPassword,
    #[error(transparent)]
    Weak(#[from] Weakness),
    #[error("the new password is the old one")]
    Unchanged,
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("the access token could not be signed")]
    Sign(#[source] runtime::TokenError),
    #[error(transparent)]
    Db(#[from] pg::Error),
}

/// What a signed-in person gets.
pub struct Tokens {
    pub access: String,
    pub refresh: OpaqueToken,
}

/// Somebody whose credential was right, in the tenant asked for.
struct Entry {
    user: User,
    tenant: TenantRow,
}

/// Signs in by name and password.
pub async fn sign_in(
    auth: &Auth,
    cx: &Cx,
    from: Option<IpAddr>,
    client: &str,
    email: &str,
    password: Secret,
    asked: Option<TenantId>,
) -> Result<Tokens, SessionError> {
    let name_key = names::key(email.trim());
    let attempt =
        auth.throttle.admit(&name_key, from, cx.now()).map_err(SessionError::Throttled)?;
    let Some((account, stored)) = identify(auth, &name_key, password, asked).await? else {
        attempt.failed(cx.now());
        return Err(SessionError::WrongCredentials);
    };
    attempt.succeeded();
    let mut tx = TenantTx::begin(&auth.db, presented(account.tenant_id)).await?;
    // Changed while it was checked: what ended every sign-in must not miss this one.
    if !store::still_has_password(&mut tx, account.user_id, &stored).await? {
        return Err(SessionError::WrongCredentials);
    }
    start(auth, cx, tx, account.user_id, asked.unwrap_or(account.tenant_id), client).await
}

/// The account this name and password open.
async fn identify(
    auth: &Auth,
    name_key: &str,
    password: Secret,
    asked: Option<TenantId>,
) -> Result<Option<(Candidate, String)>, SessionError> {
    let mut candidates = Vec::new();
    // What is no address is nobody's name, and may not even be text for the database.
    if names::email("email", name_key).is_ok() {
        let mut tx = LookupTx::begin(&auth.db, name_key).await?;
        candidates = store::find_candidates(&mut tx, name_key, asked, CHECKS as i64).await?;
    }
    let mut found = None;
    for candidate in line_up(candidates) {
        let opened = opens(auth, candidate, password.clone()).await?;
        let Some(stored) = opened.filter(|_| found.is_none()) else { continue };
        found = Some((candidate, stored));
        // It was checked first because it was named: stopping here tells nothing of other tenants.
        if Some(candidate.tenant_id) == asked {
            break;
        }
    }
    Ok(found)
}

/// Always as many, filled up with nobody: the same round trips and hashes as for an account that exists.
fn line_up(candidates: Vec<Candidate>) -> impl Iterator<Item = Candidate> {
    let nobody = Candidate {
        tenant_id: TenantId::from_bytes([0; 16]),
        user_id: UserId::from_bytes([0; 16]),
    };
    candidates.into_iter().chain(std::iter::repeat(nobody)).take(CHECKS)
}

/// The stored password, if this one is it.
async fn opens(
    auth: &Auth,
    account: Candidate,
    password: Secret,
) -> Result<Option<String>, SessionError> {
    let mut tx = TenantTx::begin(&auth.db, presented(account.tenant_id)).await?;
    let stored = store::find_password(&mut tx, account.user_id).await?;
    // Checking waits its turn; the connection must not wait with it.
    drop(tx);
    Ok(if auth.passwords.verify(password, stored.clone()).await? { stored } else { None })
}

/// A new sign-in of an account of the transaction's tenant, acting in `acting`.
async fn start(
    auth: &Auth,
    cx: &Cx,
    mut tx: TenantTx,
    user_id: UserId,
    acting: TenantId,
    client: &str,
) -> Result<Tokens, SessionError> {
    let now = cx.now();
    let entry = enter(&mut tx, user_id, acting).await?;
    let family = Family {
        id: TokenId::fresh(&*cx.ids, now),
        user_id,
        acting_tenant_id: entry.tenant.id,
        expires_at: now + FAMILY_TTL,
        end: None,
        client: client.to_owned(),
    };
    store::insert_family(&mut tx, &family, now).await?;
    let refresh = mint(&mut tx, cx, &family).await?;
    let me = Actor::User(entry.user.clone());
    tx.commit(cx.event_by(&me, "session.started", "session", &family.id)).await?;
    hand_over(auth, cx, entry, refresh).await
}

/// Uses a refresh token up for the next one.
pub async fn refresh(
    auth: &Auth,
    cx: &Cx,
    text: &str,
    asked: Option<TenantId>,
) -> Result<Tokens, SessionError> {
    let presented_token =
        OpaqueToken::parse(TokenKind::Refresh, text).ok_or(SessionError::WrongCredentials)?;
    let now = cx.now();
    let mut tx = TenantTx::begin(&auth.db, presented(presented_token.tenant_id())).await?;
    let family = store::lock_family(&mut tx, &presented_token.hash())
        .await?
        .ok_or(SessionError::WrongCredentials)?;
    match family.end {
        Some(EndReason::Reused) => return Err(SessionError::Reused),
        Some(EndReason::Revoked | EndReason::PasswordChanged) => return Err(SessionError::Expired),
        None => {}
    }
    let token = store::get_token(&mut tx, &presented_token.hash()).await?;
    if token.used {
        return end_reused(tx, cx, &family).await;
    }
    if token.expires_at <= now || family.expires_at <= now {
        return Err(SessionError::Expired);
    }
    let acting = asked.unwrap_or(family.acting_tenant_id);
    let entry = enter(&mut tx, family.user_id, acting).await?;
    store::set_token_used(&mut tx, token.id, now).await?;
    store::set_renewed(&mut tx, family.id, acting, now).await?;
    let refresh = mint(&mut tx, cx, &family).await?;
    tx.commit_operational(OperationalReason::CredentialBookkeeping).await?;
    hand_over(auth, cx, entry, refresh).await
}

/// One of two holders of the token is a thief, and nobody can say which: both lose everything it led to.
async fn end_reused(mut tx: TenantTx, cx: &Cx, family: &Family) -> Result<Tokens, SessionError> {
    store::set_family_ended(&mut tx, family.id, EndReason::Reused, cx.now()).await?;
    let event =
        cx.event("session.reuse_detected", "session", &family.id).detail("user_id", family.user_id);
    tx.commit(event).await?;
    Err(SessionError::Reused)
}

/// Ends the session a refresh token belongs to. Says nothing about whether there was one.
pub async fn revoke(auth: &Auth, cx: &Cx, text: &str) -> Result<(), SessionError> {
    let Some(token) = OpaqueToken::parse(TokenKind::Refresh, text) else { return Ok(()) };
    let mut tx = TenantTx::begin(&auth.db, presented(token.tenant_id())).await?;
    let Some(family) = store::lock_family(&mut tx, &token.hash()).await? else { return Ok(()) };
    if family.end.is_none() {
        store::set_family_ended(&mut tx, family.id, EndReason::Revoked, cx.now()).await?;
        let event =
            cx.event("session.ended", "session", &family.id).detail("user_id", family.user_id);
        tx.commit(event).await?;
    }
    Ok(())
}

/// The person in the tenant `acting`, seen from the home tenant, whose transaction this is.
async fn enter(
    tx: &mut TenantTx,
    user_id: UserId,
    acting: TenantId,
) -> Result<Entry, SessionError> {
    let home = tx.tenant();
    // Disabled since: as if the session had ended.
    let held = store::find_roles(tx, user_id).await?.ok_or(SessionError::Expired)?;
    let tenant = tenants::store::find(tx, acting).await?.ok_or(SessionError::NotFound)?;
    let at_home = tenant.id == home;
    let roles: Vec<Role> = roles::in_force(&held, at_home);
    if roles.is_empty() && !at_home {
        return Err(SessionError::Forbidden);
    }
    let user = User { id: user_id, home, tenant: tenant.id, kind: tenant.kind, roles };
    Ok(Entry { user, tenant })
}

async fn mint(tx: &mut TenantTx, cx: &Cx, family: &Family) -> Result<OpaqueToken, SessionError> {
    let now = cx.now();
    let token = OpaqueToken::mint(TokenKind::Refresh, tx.tenant(), &*cx.ids);
    let id = TokenId::fresh(&*cx.ids, now);
    let expires_at = (now + REFRESH_TTL).min(family.expires_at);
    store::insert_token(tx, family.id, id, &token.hash(), now, expires_at).await?;
    Ok(token)
}

/// Records the act where it happens, then hands out the tokens: in this order, so that a crash between the
/// two leaves an event without a token and never a token without an event.
async fn hand_over(
    auth: &Auth,
    cx: &Cx,
    entry: Entry,
    refresh: OpaqueToken,
) -> Result<Tokens, SessionError> {
    let Entry { user, tenant } = entry;
    if user.home != tenant.id {
        let tx = TenantTx::begin(&auth.db, presented(tenant.id)).await?;
        let roles: Vec<&str> = user.roles.iter().map(|role| role.as_str()).collect();
        let me = Actor::User(user.clone());
        let event =
            cx.event_by(&me, "tenant.accessed", "tenant", &tenant.id).detail("roles", roles);
        tx.commit(event).await?;
    }
    let access = auth.access_token(&user, cx.now(), &*cx.ids).map_err(SessionError::Sign)?;
    Ok(Tokens { access, refresh })
}

const fn presented(tenant: TenantId) -> Scope {
    Scope::without_permit(tenant, ScopeReason::PresentedCredential)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sign_in_costs_as_many_checks() {
        let account = |n: usize| Candidate {
            tenant_id: TenantId::from_bytes([u8::try_from(n).expect("small"); 16]),
            user_id: UserId::from_bytes([1; 16]),
        };
        for there in 0..6 {
            let line: Vec<Candidate> = line_up((1..=there).map(account).collect()).collect();
            assert_eq!(line.len(), CHECKS);
            let real = line.iter().filter(|one| one.user_id == UserId::from_bytes([1; 16])).count();
            assert_eq!(real, there.min(CHECKS));
        }
    }
}

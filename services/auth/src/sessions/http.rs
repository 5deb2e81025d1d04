//! Routes of sign-in, which are public (the credential is in the body), and of a person's own sign-ins.

use std::sync::Arc;

use api::{
    auth::{ChangePassword, RevokeRequest, SignIn, TokenReply, TokenRequest},
    names,
    page::Page,
    problem::{Code, Problem},
};
use authz::{
    Actor,
    actions::{MeChange, MeRead},
};
use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
};
use domain::TokenId;
use runtime::{Cx, Failure, Json, Path, Permit, Reply};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{ACCESS_TTL_S, SessionError, Tokens, own, store::SignInRow};
use crate::{
    address::CameFrom,
    password::Secret,
    state::{Auth, Shared},
};

/// Tokens are for the asker alone.
const NO_STORE: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

pub fn routes() -> OpenApiRouter<Arc<Auth>> {
    OpenApiRouter::new()
        .routes(routes!(issue_token))
        .routes(routes!(revoke_token))
        .routes(routes!(list_sessions))
        .routes(routes!(end_session))
        .routes(routes!(change_password))
}

/// Signs in, or renews a sign-in.
#[utoipa::path(post, path = "/v1/auth/token", tag = "public", request_body = TokenRequest,
    responses((status = 200, description = "An access token and the next refresh token", body = TokenReply)))]
async fn issue_token(
    State(auth): Shared,
    cx: Cx,
    CameFrom(from): CameFrom,
    headers: HeaderMap,
    Json(body): Json<TokenRequest>,
) -> Reply<([(HeaderName, &'static str); 1], Json<TokenReply>)> {
    let tokens = match body {
        TokenRequest::Password { email, password, tenant_id } => {
            let password = Secret::new(password);
            let client = client_of(&headers);
            super::sign_in(&auth, &cx, from, &client, &email, password, tenant_id).await?
        }
        TokenRequest::RefreshToken { refresh_token, tenant_id } => {
            super::refresh(&auth, &cx, &refresh_token, tenant_id).await?
        }
    };
    Ok((NO_STORE, Json(tokens.into())))
}

/// Ends the session a refresh token belongs to. Answers alike whether there was one.
#[utoipa::path(post, path = "/v1/auth/revoke", tag = "public", request_body = RevokeRequest,
    responses((status = 204, description = "The session, if there was one, has ended")))]
async fn revoke_token(
    State(auth): Shared,
    cx: Cx,
    Json(body): Json<RevokeRequest>,
) -> Reply<StatusCode> {
    super::revoke(&auth, &cx, &body.refresh_token).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The caller's own sign-ins that have not ended, newest first: 100 at most, in one page.
#[utoipa::path(get, path = "/v1/me/sessions", tag = "users",
    responses((status = 200, description = "Sign-ins that have not ended", body = Page<SignIn>)))]
async fn list_sessions(
    State(auth): Shared,
    cx: Cx,
    permit: Permit<MeRead>,
) -> Reply<Json<Page<SignIn>>> {
    let me = person(permit.actor())?;
    let items = own::list(&auth, &cx, me).await?.into_iter().map(Into::into).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// Ends one of the caller's own sign-ins. Access tokens it gave out are good for up to five minutes more.
#[utoipa::path(delete, path = "/v1/me/sessions/{session_id}", tag = "users",
    params(("session_id" = TokenId, Path)),
    responses((status = 204, description = "It has ended")))]
async fn end_session(
    State(auth): Shared,
    cx: Cx,
    permit: Permit<MeChange>,
    Path(id): Path<TokenId>,
) -> Reply<StatusCode> {
    own::end(&auth, &cx, person(permit.actor())?, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Changes the caller's own password. Every sign-in of theirs ends; the reply is a new one, acting where the caller did.
#[utoipa::path(post, path = "/v1/me/password", tag = "users", request_body = ChangePassword,
    responses((status = 200, description = "An access token and a refresh token", body = TokenReply)))]
async fn change_password(
    State(auth): Shared,
    cx: Cx,
    CameFrom(from): CameFrom,
    permit: Permit<MeChange>,
    headers: HeaderMap,
    Json(body): Json<ChangePassword>,
) -> Reply<([(HeaderName, &'static str); 1], Json<TokenReply>)> {
    let (current, new) = (Secret::new(body.current), Secret::new(body.new));
    let client = client_of(&headers);
    let me = person(permit.actor())?;
    let tokens = own::change_password(&auth, &cx, from, &client, me, current, new).await?;
    Ok((NO_STORE, Json(tokens.into())))
}

fn person(actor: &Actor) -> Result<&authz::User, Failure> {
    match actor {
        Actor::User(person) => Ok(person),
        Actor::Agent { .. } | Actor::Service { .. } | Actor::Anonymous => {
            Err(Code::Forbidden.into())
        }
    }
}

/// What the caller calls itself, made fit to be shown.
fn client_of(headers: &HeaderMap) -> String {
    let said =
        headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let short: String = said.chars().take(names::MAX_CHARS).collect();
    names::note("client", &short).unwrap_or_default()
}

impl From<SignInRow> for SignIn {
    fn from(row: SignInRow) -> Self {
        Self {
            id: row.id,
            client: row.client,
            tenant_id: row.acting_tenant_id,
            started_at: row.started_at,
            last_used_at: row.last_used_at,
            expires_at: row.expires_at,
        }
    }
}

impl From<Tokens> for TokenReply {
    fn from(tokens: Tokens) -> Self {
        Self {
            access_token: tokens.access,
            refresh_token: tokens.refresh.reveal(),
            token_type: "Bearer".to_owned(),
            expires_in: ACCESS_TTL_S,
        }
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::WrongCredentials => Code::WrongCredentials.into(),
            SessionError::Throttled(wait) => {
                let seconds = wait.0.as_secs().max(1);
                Self(
                    Problem::new(Code::TooManyRequests)
                        .detail(format!("too many wrong tries; wait {seconds} s")),
                )
            }
            SessionError::Expired => Code::TokenExpired.into(),
            SessionError::Reused => Code::TokenReused.into(),
            SessionError::NotFound => Self::not_found(),
            SessionError::WrongPassword => {
                Self(Problem::validation("current", "is not your password"))
            }
            SessionError::Weak(weakness) => Self(Problem::validation("new", weakness.to_string())),
            SessionError::Unchanged => {
                Self(Problem::validation("new", "must be another one than before"))
            }
            SessionError::Forbidden => Code::Forbidden.into(),
            SessionError::Password(error) => error.into(),
            SessionError::Sign(error) => Self::internal(&error),
            SessionError::Db(error) => error.into(),
        }
    }
}

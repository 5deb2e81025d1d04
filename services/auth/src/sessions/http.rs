//! Routes of sign-in. Public: the credential is in the body.

use std::sync::Arc;

use api::{
    auth::{RevokeRequest, TokenReply, TokenRequest},
    problem::{Code, Problem},
};
use axum::{
    extract::State,
    http::{HeaderName, StatusCode, header},
};
use runtime::{Cx, Failure, Json, Reply};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{ACCESS_TTL_S, SessionError, Tokens};
use crate::{
    address::CameFrom,
    password::Secret,
    state::{Auth, Shared},
};

/// Tokens are for the asker alone.
const NO_STORE: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

pub fn routes() -> OpenApiRouter<Arc<Auth>> {
    OpenApiRouter::new().routes(routes!(issue_token)).routes(routes!(revoke_token))
}

/// Signs in, or renews a sign-in.
#[utoipa::path(post, path = "/v1/auth/token", tag = "public", request_body = TokenRequest,
    responses((status = 200, description = "An access token and the next refresh token", body = TokenReply)))]
async fn issue_token(
    State(auth): Shared,
    cx: Cx,
    CameFrom(from): CameFrom,
    Json(body): Json<TokenRequest>,
) -> Reply<([(HeaderName, &'static str); 1], Json<TokenReply>)> {
    let tokens = match body {
        TokenRequest::Password { email, password, tenant_id } => {
            let password = Secret::new(password);
            super::sign_in(&auth, &cx, from, &email, password, tenant_id).await?
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
            SessionError::Forbidden => Code::Forbidden.into(),
            SessionError::Password(error) => error.into(),
            SessionError::Sign(error) => Self::internal(&error),
            SessionError::Db(error) => error.into(),
        }
    }
}

//! Routes of enrolment. Making tokens needs a permit; enrolling needs a token and a key.

use std::{sync::Arc, time::Duration};

use api::{
    auth::{CreateEnrolmentToken, EnrolReply, EnrolRequest, EnrolmentToken},
    names,
    page::{Page, PageQuery},
    problem::{Code, Problem},
};
use authz::actions::{EnrolmentTokenCreate, EnrolmentTokenRead, EnrolmentTokenRevoke};
use axum::{extract::State, http::StatusCode};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::{TenantId, TokenId};
use runtime::{Cx, Failure, Json, Path, Permit, Query, Reply, paging};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{EnrolError, Enrolled, MAX_TTL, MAX_USES, Machine, Minted, TokenRow};
use crate::{
    secret::{OpaqueToken, TokenKind},
    state::{Auth, Shared},
};

pub fn routes() -> OpenApiRouter<Arc<Auth>> {
    OpenApiRouter::new()
        .routes(routes!(list_enrolment_tokens, create_enrolment_token))
        .routes(routes!(revoke_enrolment_token))
        .routes(routes!(enrol))
}

/// The enrolment tokens of a tenant, without their secrets.
#[utoipa::path(get, path = "/v1/tenants/{tenant_id}/enrolment-tokens", tag = "enrolment",
    params(("tenant_id" = TenantId, Path), PageQuery),
    responses((status = 200, description = "Tokens in the order they were made", body = Page<EnrolmentToken>)))]
async fn list_enrolment_tokens(
    State(auth): Shared,
    permit: Permit<EnrolmentTokenRead>,
    Query(query): Query<PageQuery>,
) -> Reply<Json<Page<EnrolmentToken>>> {
    let (after, limit) = paging::bounds(&query)?;
    let rows = super::list(&auth.db, permit.scope(), after, limit).await?;
    Ok(Json(paging::page(&query, rows, |row| row.id.uuid())))
}

/// Makes a token that lets machines become agents of the tenant. This reply alone shows its secret.
#[utoipa::path(post, path = "/v1/tenants/{tenant_id}/enrolment-tokens", tag = "enrolment",
    params(("tenant_id" = TenantId, Path)), request_body = CreateEnrolmentToken,
    responses((status = 201, description = "The new token with its secret", body = EnrolmentToken)))]
async fn create_enrolment_token(
    State(auth): Shared,
    cx: Cx,
    permit: Permit<EnrolmentTokenCreate>,
    Json(body): Json<CreateEnrolmentToken>,
) -> Reply<(StatusCode, Json<EnrolmentToken>)> {
    let label = names::note("label", &body.label)?;
    if !(1..=MAX_USES).contains(&body.max_uses) {
        return Err(Problem::validation("max_uses", format!("1 to {MAX_USES}")).into());
    }
    let ttl = Duration::from_secs(u64::from(body.ttl_s));
    if ttl.is_zero() || ttl > MAX_TTL {
        return Err(Problem::validation("ttl_s", format!("1 to {}", MAX_TTL.as_secs())).into());
    }
    let minted = super::create(&auth.db, &cx, permit.scope(), label, body.max_uses, ttl).await?;
    Ok((StatusCode::CREATED, Json(minted.into())))
}

/// Ends a token. Agents that used it stay.
#[utoipa::path(post, path = "/v1/tenants/{tenant_id}/enrolment-tokens/{token_id}/revoke", tag = "enrolment",
    params(("tenant_id" = TenantId, Path), ("token_id" = TokenId, Path)),
    responses((status = 200, description = "The ended token", body = EnrolmentToken)))]
async fn revoke_enrolment_token(
    State(auth): Shared,
    cx: Cx,
    permit: Permit<EnrolmentTokenRevoke>,
    Path((_tenant_id, id)): Path<(TenantId, TokenId)>,
) -> Reply<Json<EnrolmentToken>> {
    let row = super::revoke(&auth.db, &cx, permit.scope(), id).await?;
    Ok(Json(row.into()))
}

/// Makes the asking machine an agent. Asking again with the same token and keys gets the same answer.
#[utoipa::path(post, path = "/v1/enrol", tag = "public", request_body = EnrolRequest,
    responses((status = 201, description = "The agent's identity", body = EnrolReply)))]
async fn enrol(
    State(auth): Shared,
    cx: Cx,
    Json(body): Json<EnrolRequest>,
) -> Reply<(StatusCode, Json<EnrolReply>)> {
    let machine = check(&body)?;
    let token =
        OpaqueToken::parse(TokenKind::Enrolment, &body.token).ok_or(Code::EnrolmentTokenInvalid)?;
    let enrolled = super::enrol(&auth.db, &cx, &token, machine).await?;
    Ok((StatusCode::CREATED, Json(enrolled.into())))
}

/// Every wrong field at once.
fn check(body: &EnrolRequest) -> Result<Machine, Problem> {
    let mut wrong = Problem::new(Code::Validation);
    let mut text = |checked: Result<String, Problem>| {
        checked.unwrap_or_else(|problem| {
            wrong.fields.extend(problem.fields);
            String::new()
        })
    };
    let name = text(names::name("name", &body.name));
    let hostname = text(names::name("hostname", &body.hostname));
    let arch = text(names::name("arch", &body.arch));
    let agent_version = text(names::name("agent_version", &body.agent_version));
    if !matches!(body.os.as_str(), "linux" | "windows" | "macos") {
        wrong = wrong.field("os", "one of linux, windows, macos");
    }
    let (verify_key, hpke_key, proof) =
        (decode::<32>(&body.verify_key), decode::<32>(&body.hpke_key), decode::<64>(&body.proof));
    for (field, good, length) in [
        ("verify_key", verify_key.is_some(), 32),
        ("hpke_key", hpke_key.is_some_and(|key| key != [0; 32]), 32),
        ("proof", proof.is_some(), 64),
    ] {
        if !good {
            wrong = wrong.field(field, format!("{length} bytes in base64"));
        }
    }
    match (verify_key, hpke_key, proof) {
        (Some(verify_key), Some(hpke_key), Some(proof)) if wrong.fields.is_empty() => Ok(Machine {
            name,
            hostname,
            os: body.os.clone(),
            arch,
            agent_version,
            verify_key,
            hpke_key,
            proof,
        }),
        _ => Err(wrong),
    }
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

impl From<TokenRow> for EnrolmentToken {
    fn from(row: TokenRow) -> Self {
        Self {
            id: row.id,
            label: row.label,
            max_uses: row.max_uses,
            uses: row.uses,
            expires_at: row.expires_at,
            created_at: row.created_at,
            revoked_at: row.revoked_at,
            token: None,
        }
    }
}

impl From<Minted> for EnrolmentToken {
    fn from(minted: Minted) -> Self {
        Self { token: Some(minted.token.reveal()), ..minted.row.into() }
    }
}

impl From<Enrolled> for EnrolReply {
    fn from(enrolled: Enrolled) -> Self {
        Self {
            tenant_id: enrolled.tenant_id,
            tenant_name: enrolled.tenant_name,
            agent_id: enrolled.agent_id,
            server_time: enrolled.server_time,
        }
    }
}

impl From<EnrolError> for Failure {
    fn from(error: EnrolError) -> Self {
        match error {
            EnrolError::NotFound => Self::not_found(),
            EnrolError::TokenInvalid => Code::EnrolmentTokenInvalid.into(),
            EnrolError::ProofInvalid => Code::SignatureInvalid.into(),
            EnrolError::KeyTaken => Self(
                Problem::new(Code::AlreadyExists).detail("make a new key pair and enrol again"),
            ),
            EnrolError::Db(error) => error.into(),
        }
    }
}

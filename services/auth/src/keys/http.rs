//! The public keys, for whoever wants to read our tokens.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderName, header},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use runtime::{Json, VerifyKey};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::{Auth, Shared};

pub fn routes() -> OpenApiRouter<Arc<Auth>> {
    OpenApiRouter::new().routes(routes!(get_jwks))
}

/// A key set after RFC 7517, Ed25519 keys after RFC 8037.
#[derive(Debug, Serialize, ToSchema)]
struct Jwks {
    keys: Vec<Jwk>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Jwk {
    kty: &'static str,
    crv: &'static str,
    /// The public key, 32 bytes in base64url.
    x: String,
    kid: String,
    alg: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
}

impl From<&VerifyKey> for Jwk {
    fn from(key: &VerifyKey) -> Self {
        Self {
            kty: "OKP",
            crv: "Ed25519",
            x: URL_SAFE_NO_PAD.encode(key.key),
            kid: key.kid.clone(),
            alg: "EdDSA",
            usage: "sig",
        }
    }
}

/// The keys access tokens are signed with: the current one, and others during a rotation.
#[utoipa::path(get, path = "/v1/auth/jwks.json", tag = "public",
    responses((status = 200, description = "The key set", body = Jwks)))]
async fn get_jwks(State(auth): Shared) -> ([(HeaderName, &'static str); 1], Json<Jwks>) {
    let keys = auth.keys.public().iter().map(Jwk::from).collect();
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(Jwks { keys }))
}

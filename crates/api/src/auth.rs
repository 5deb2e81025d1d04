//! Bodies of the auth role: sign-in, tenants, people, enrolment, agents.

use domain::{AgentId, TenantId, Timestamp, TokenId, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/auth/token`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(tag = "grant_type", rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenRequest {
    /// Sign in. `tenant_id`: act in this tenant below one's own (every such act is an event there).
    Password {
        email: String,
        password: String,
        #[serde(default)]
        tenant_id: Option<TenantId>,
    },
    /// Rotate. The refresh token is used up; using it again ends every session descending from it. Without
    /// `tenant_id` the new token acts where the last one did.
    RefreshToken {
        refresh_token: String,
        #[serde(default)]
        tenant_id: Option<TenantId>,
    },
}

/// A short-lived access JWT, valid in exactly one tenant, and a one-time refresh token.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenReply {
    pub access_token: String,
    pub refresh_token: String,
    /// Always `Bearer`.
    pub token_type: String,
    /// Seconds until the access token expires.
    pub expires_in: u32,
}

/// `POST /v1/auth/revoke`: ends the session this refresh token belongs to. Always 204.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    pub refresh_token: String,
}

/// A sign-in of one's own that has not ended: `GET /v1/me/sessions`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SignIn {
    pub id: TokenId,
    /// What signed in, as it named itself.
    pub client: String,
    /// Where it acts now.
    pub tenant_id: TenantId,
    pub started_at: Timestamp,
    /// When it was last renewed.
    pub last_used_at: Timestamp,
    /// However often it is renewed, it ends then.
    pub expires_at: Timestamp,
}

/// `POST /v1/me/password`: every sign-in ends, and the reply is a new one.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    pub current: String,
    /// At least 12 characters, not on the breached list, and another than before.
    pub new: String,
}

/// `GET /v1/me`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Me {
    pub id: UserId,
    pub email: String,
    pub name: String,
    /// Where this person's account lives.
    pub home_tenant_id: TenantId,
    /// Where the token used acts.
    pub tenant: Tenant,
    /// Role names in force in `tenant`.
    pub roles: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TenantKind {
    Platform,
    Msp,
    Tenant,
}

impl TenantKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Msp => "msp",
            Self::Tenant => "tenant",
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Tenant {
    pub id: TenantId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<TenantId>,
    pub kind: TenantKind,
    pub name: String,
    pub created_at: Timestamp,
}

/// `POST /v1/tenants/{tenant_id}/children`: an MSP below the platform, a tenant below an MSP.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTenant {
    /// 1 to 200 characters, no control characters; unique among its siblings.
    pub name: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct User {
    pub id: UserId,
    pub email: String,
    pub name: String,
    pub roles: Vec<String>,
    pub created_at: Timestamp,
}

/// `POST /v1/tenants/{tenant_id}/users`.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    pub email: String,
    pub name: String,
    /// At least 12 characters and not on the breached list.
    pub password: String,
    /// Role names, e.g. `tenant.admin`.
    pub roles: Vec<String>,
}

/// `POST /v1/tenants/{tenant_id}/enrolment-tokens`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateEnrolmentToken {
    /// How many agents may use it: 1 to 1000. One unless told.
    #[serde(default = "one")]
    pub max_uses: u32,
    /// Seconds it lives: up to 7 days. A day unless told.
    #[serde(default = "a_day")]
    pub ttl_s: u32,
    /// A note for people.
    #[serde(default)]
    pub label: String,
}

const fn one() -> u32 {
    1
}
const fn a_day() -> u32 {
    86_400
}

/// The secret is shown once, in the reply to its creation.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct EnrolmentToken {
    pub id: TokenId,
    pub label: String,
    pub max_uses: u32,
    pub uses: u32,
    pub expires_at: Timestamp,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// `evh_en_…`; only in the reply that created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// `POST /v1/enrol`. Public; proves itself by the token, and the key by signing the request.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    pub token: String,
    /// Name of the machine for people; unique names are not asked for.
    pub name: String,
    pub hostname: String,
    /// `linux`, `windows` or `macos`.
    pub os: String,
    pub arch: String,
    pub agent_version: String,
    /// Ed25519 public key, 32 bytes, base64.
    pub verify_key: String,
    /// X25519 HPKE public key, 32 bytes, base64.
    pub hpke_key: String,
    /// Ed25519 signature (base64) by `verify_key` over `everhold/enrol/v1\n` + token: proof of possession.
    pub proof: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EnrolReply {
    pub tenant_id: TenantId,
    pub tenant_name: String,
    pub agent_id: AgentId,
    pub server_time: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    pub id: AgentId,
    pub name: String,
    pub hostname: String,
    pub os: String,
    pub arch: String,
    pub agent_version: String,
    /// Base64; compare its fingerprint out of band.
    pub verify_key: String,
    pub hpke_key: String,
    pub enrolled_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

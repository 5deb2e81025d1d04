//! The three JWTs: access (people), service (roles), lease (a run). One algorithm, `typ` always checked,
//! times compared with the platform's clock (R10), never with the machine's.

use std::sync::{Arc, PoisonError, RwLock};

use authz::{Actor, Role, TenantKind, User};
use domain::{AgentId, Clock, IdGen, RunId, TenantId, Timestamp, UserId, WorkloadId};
use ed25519_dalek::{SigningKey, pkcs8::EncodePrivateKey as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use crate::RoleName;

const LEEWAY_S: i64 = 5;
const ACCESS_TYP: &str = "at+jwt";
const SERVICE_TYP: &str = "svc+jwt";
const LEASE_TYP: &str = "lease+jwt";
const ACCESS_AUDIENCE: &str = "everhold";
const SERVICE_AUDIENCE: &str = "everhold-internal";
const LEASE_AUDIENCE: &str = "catalog";
const SERVICE_LIFE_S: i64 = 60;

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token has expired")]
    Expired,
    /// Malformed, wrong type, audience, issuer, key or signature, or not valid yet. Not told apart.
    #[error("the token is not valid")]
    Invalid,
}

/// What an access token says (`typ: at+jwt`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessClaims {
    pub iss: String,
    pub aud: String,
    pub sub: UserId,
    pub jti: String,
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
    /// The one tenant the token acts in.
    pub ten: TenantId,
    /// Where the account lives.
    pub home: TenantId,
    /// In force in `ten`.
    pub roles: Vec<String>,
    pub ten_kind: TenantKind,
}

impl AccessClaims {
    /// Claims of a person acting in a tenant, valid from `now` for `life_s` seconds.
    pub fn new(issuer: &str, user: &User, now: Timestamp, life_s: u32, ids: &dyn IdGen) -> Self {
        let iat = now.unix_secs();
        Self {
            iss: issuer.to_owned(),
            aud: ACCESS_AUDIENCE.to_owned(),
            sub: user.id,
            jti: ids.uuid(now).simple().to_string(),
            iat,
            nbf: iat,
            exp: iat.saturating_add(i64::from(life_s)),
            ten: user.tenant,
            home: user.home,
            roles: user.roles.iter().map(ToString::to_string).collect(),
            ten_kind: user.kind,
        }
    }

    /// The actor. A role of an older or newer version counts for nothing.
    fn actor(self) -> Actor {
        let roles = self.roles.iter().filter_map(|name| name.parse::<Role>().ok());
        Actor::User(User {
            id: self.sub,
            home: self.home,
            tenant: self.ten,
            kind: self.ten_kind,
            roles: roles.collect(),
        })
    }
}

/// A signing key in the form the JWT library wants, with its public name.
#[derive(Clone)]
struct Signer {
    kid: Arc<str>,
    key: Arc<EncodingKey>,
}

impl Signer {
    fn new(key: &SigningKey) -> Result<Self, TokenError> {
        let der = key.to_pkcs8_der().map_err(|_| TokenError::Invalid)?;
        Ok(Self {
            kid: VerifyKey::of(key).kid.into(),
            key: Arc::new(EncodingKey::from_ed_der(der.as_bytes())),
        })
    }
    fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<String, TokenError> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(typ.to_owned());
        header.kid = Some(self.kid.as_ref().to_owned());
        jsonwebtoken::encode(&header, claims, &self.key).map_err(|_| TokenError::Invalid)
    }
}

/// A public key with the name tokens call it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyKey {
    pub kid: String,
    /// Ed25519.
    pub key: [u8; 32],
}

impl VerifyKey {
    /// The public half; its name is the start of its hash, so that a key and its name cannot part.
    pub fn of(key: &SigningKey) -> Self {
        Self::from_public(key.verifying_key().to_bytes())
    }
    pub fn from_public(key: [u8; 32]) -> Self {
        let hash = Sha256::digest(key);
        let kid = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { kid, key }
    }
}

/// Reads a token: signature by a known key, `typ`, audience, issuer, and times by `now`.
fn read<C: DeserializeOwned + Timed>(
    token: &str,
    keys: &[VerifyKey],
    typ: &str,
    audience: &str,
    issuer: Option<&str>,
    now: Timestamp,
) -> Result<C, TokenError> {
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
    if header.typ.as_deref() != Some(typ) || header.alg != Algorithm::EdDSA {
        return Err(TokenError::Invalid);
    }
    let kid = header.kid.as_deref().ok_or(TokenError::Invalid)?;
    let key = keys.iter().find(|key| key.kid == kid).ok_or(TokenError::Invalid)?;
    let mut rules = Validation::new(Algorithm::EdDSA);
    rules.set_audience(&[audience]);
    if let Some(issuer) = issuer {
        rules.set_issuer(&[issuer]);
    }
    rules.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
    // The library reads the machine's clock; ours is an argument. Both claims are compared below.
    rules.validate_exp = false;
    rules.validate_nbf = false;
    let key = DecodingKey::from_ed_der(&key.key);
    let claims: C =
        jsonwebtoken::decode(token, &key, &rules).map_err(|_| TokenError::Invalid)?.claims;
    let (nbf, exp) = claims.window();
    let now = now.unix_secs();
    if now.saturating_add(LEEWAY_S) < nbf {
        return Err(TokenError::Invalid);
    }
    if now.saturating_sub(LEEWAY_S) >= exp {
        return Err(TokenError::Expired);
    }
    Ok(claims)
}

trait Timed {
    /// `nbf` and `exp`.
    fn window(&self) -> (i64, i64);
}
impl Timed for AccessClaims {
    fn window(&self) -> (i64, i64) {
        (self.nbf, self.exp)
    }
}

/// Signs access tokens; only the auth role (and testkit) holds one.
#[derive(Clone)]
pub struct AccessSigner(Signer);

impl AccessSigner {
    /// # Errors
    /// [`TokenError::Invalid`] when the key has no PKCS#8 form.
    pub fn new(key: &SigningKey) -> Result<Self, TokenError> {
        Ok(Self(Signer::new(key)?))
    }
    /// # Errors
    /// [`TokenError::Invalid`] when the claims have no JSON form.
    pub fn sign(&self, claims: &AccessClaims) -> Result<String, TokenError> {
        self.0.sign(ACCESS_TYP, claims)
    }
}

/// Verifies access tokens. Clones share their keys, so that a rotation reaches every role at once.
#[derive(Clone)]
pub struct TokenVerifier {
    issuer: Arc<str>,
    clock: Arc<dyn Clock>,
    keys: Arc<RwLock<Vec<VerifyKey>>>,
}

impl TokenVerifier {
    /// Knows no key yet: every token is invalid until [`Self::set_keys`]. `issuer` is the public origin.
    pub fn new(issuer: &str, clock: Arc<dyn Clock>) -> Self {
        Self { issuer: issuer.into(), clock, keys: Arc::default() }
    }
    pub fn issuer(&self) -> &str {
        &self.issuer
    }
    /// Replaces the accepted keys: the current one and, during a rotation, the one before.
    pub fn set_keys(&self, keys: Vec<VerifyKey>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }
    pub fn keys(&self) -> Vec<VerifyKey> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// # Errors
    /// [`TokenError`].
    pub fn verify(&self, token: &str) -> Result<Actor, TokenError> {
        let now = self.clock.now();
        let claims: AccessClaims =
            read(token, &self.keys(), ACCESS_TYP, ACCESS_AUDIENCE, Some(&self.issuer), now)?;
        Ok(claims.actor())
    }
}

#[derive(Serialize, Deserialize)]
struct ServiceClaims {
    iss: String,
    aud: String,
    sub: String,
    iat: i64,
    nbf: i64,
    exp: i64,
}
impl Timed for ServiceClaims {
    fn window(&self) -> (i64, i64) {
        (self.nbf, self.exp)
    }
}

/// What a lease token says: this agent holds this run at this epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseClaims {
    pub tenant: TenantId,
    pub agent: AgentId,
    pub workload: WorkloadId,
    pub run: RunId,
    pub epoch: u64,
    pub lease_until: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct LeaseWire {
    iss: String,
    aud: String,
    sub: String,
    nbf: i64,
    exp: i64,
    ten: TenantId,
    agt: AgentId,
    wkl: WorkloadId,
    run: RunId,
    epoch: u64,
}
impl Timed for LeaseWire {
    fn window(&self) -> (i64, i64) {
        (self.nbf, self.exp)
    }
}

/// The platform's service key: every role signs and verifies with it.
#[derive(Clone)]
pub struct ServiceKeys {
    signer: Signer,
    keys: Arc<[VerifyKey]>,
}

impl ServiceKeys {
    /// # Errors
    /// [`TokenError::Invalid`] when the key has no PKCS#8 form.
    pub fn new(key: &SigningKey) -> Result<Self, TokenError> {
        Ok(Self { signer: Signer::new(key)?, keys: Arc::new([VerifyKey::of(key)]) })
    }

    /// A service token of `role`, good for a minute.
    ///
    /// # Errors
    /// [`TokenError::Invalid`] when it cannot be written.
    pub fn sign_service(&self, role: &str, now: Timestamp) -> Result<String, TokenError> {
        let iat = now.unix_secs();
        let claims = ServiceClaims {
            iss: role.to_owned(),
            aud: SERVICE_AUDIENCE.to_owned(),
            sub: role.to_owned(),
            iat,
            nbf: iat,
            exp: iat.saturating_add(SERVICE_LIFE_S),
        };
        self.signer.sign(SERVICE_TYP, &claims)
    }

    /// The role that signed.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify_service(&self, token: &str, now: Timestamp) -> Result<RoleName, TokenError> {
        let claims: ServiceClaims =
            read(token, &self.keys, SERVICE_TYP, SERVICE_AUDIENCE, None, now)?;
        RoleName::parse(&claims.sub).ok_or(TokenError::Invalid)
    }

    /// A lease token, good until the lease ends.
    ///
    /// # Errors
    /// [`TokenError::Invalid`] when it cannot be written.
    pub fn sign_lease(&self, claims: &LeaseClaims, now: Timestamp) -> Result<String, TokenError> {
        let wire = LeaseWire {
            iss: RoleName::Scheduler.as_str().to_owned(),
            aud: LEASE_AUDIENCE.to_owned(),
            sub: claims.agent.to_string(),
            nbf: now.unix_secs(),
            exp: claims.lease_until.unix_secs(),
            ten: claims.tenant,
            agt: claims.agent,
            wkl: claims.workload,
            run: claims.run,
            epoch: claims.epoch,
        };
        self.signer.sign(LEASE_TYP, &wire)
    }

    /// What a lease token proves.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify_lease(&self, token: &str, now: Timestamp) -> Result<LeaseClaims, TokenError> {
        let issuer = RoleName::Scheduler.as_str();
        let wire: LeaseWire =
            read(token, &self.keys, LEASE_TYP, LEASE_AUDIENCE, Some(issuer), now)?;
        Ok(LeaseClaims {
            tenant: wire.ten,
            agent: wire.agt,
            workload: wire.wkl,
            run: wire.run,
            epoch: wire.epoch,
            lease_until: Timestamp::from_unix_secs(wire.exp).ok_or(TokenError::Invalid)?,
        })
    }
}

#[cfg(test)]
mod tests;

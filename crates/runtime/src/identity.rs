//! Credentials to actors: a bearer token, or an agent's signature (RFC 9421 profile of `api::signature`).

use api::{
    Code, Problem,
    internal::{VerifiedAgent, VerifyAgentRequest},
    signature::{self, SignatureParams},
};
use authz::Actor;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, Uri, header, request::Parts};

use crate::{Edge, RoleName, TokenError, failure::chain};

type Identified = Result<Actor, Box<Problem>>;

fn refused(code: Code) -> Box<Problem> {
    Box::new(Problem::new(code))
}

/// Whether the request carries an agent's signature, so that its body has to be read first.
pub(crate) fn is_signed(headers: &HeaderMap) -> bool {
    headers.contains_key("signature-input") || headers.contains_key("signature")
}

/// Who a public request proves to come from.
/// An agent's enrolled keys, as auth verified them, are left in the request's extensions for handlers that
/// need them (a vault's roster).
pub(crate) async fn of_public(edge: &Edge, parts: &mut Parts, body: &[u8]) -> Identified {
    let bearer = parts.headers.contains_key(header::AUTHORIZATION);
    match (bearer, is_signed(&parts.headers)) {
        (false, false) => Ok(Actor::Anonymous),
        (true, false) => {
            let token =
                bearer_token(&parts.headers).ok_or_else(|| refused(Code::Unauthenticated))?;
            edge.verifier.verify(token).map_err(|error| match error {
                TokenError::Expired => refused(Code::TokenExpired),
                TokenError::Invalid => refused(Code::Unauthenticated),
            })
        }
        (false, true) => {
            let verified = agent(edge, parts, body).await?;
            let actor = Actor::Agent { tenant: verified.tenant_id, id: verified.agent_id };
            parts.extensions.insert(verified);
            Ok(actor)
        }
        // Two claims of who one is: neither is believed.
        (true, true) => Err(refused(Code::Unauthenticated)),
    }
}

/// Who an internal request proves to come from: another role, or nobody.
pub(crate) fn of_internal(edge: &Edge, parts: &Parts) -> Identified {
    let token = bearer_token(&parts.headers).ok_or_else(|| refused(Code::Unauthenticated))?;
    let role = edge
        .service_keys
        .verify_service(token, edge.clock.now())
        .map_err(|_| refused(Code::Unauthenticated))?;
    Ok(Actor::Service { name: role.to_string() })
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// Checks digest and window here, and asks auth for the key, the signature and the nonce.
async fn agent(edge: &Edge, parts: &Parts, body: &[u8]) -> Result<VerifiedAgent, Box<Problem>> {
    let invalid = || refused(Code::SignatureInvalid);
    let header = |name: &str| {
        let mut values = parts.headers.get_all(name).iter();
        let value = values.next().and_then(|value| value.to_str().ok());
        if values.next().is_some() { None } else { value }
    };
    let input = header("signature-input").ok_or_else(invalid)?;
    let digest = header("content-digest").ok_or_else(invalid)?;
    let signature = header("signature").ok_or_else(invalid)?;
    let params = SignatureParams::parse(input).map_err(|_| invalid())?;
    let signature = signature::parse_signature(signature).map_err(|_| invalid())?;
    if digest != signature::content_digest(body) {
        return Err(invalid());
    }
    let now = edge.clock.now();
    if now.unix_secs().abs_diff(params.created) > signature::WINDOW_S {
        let mut problem = Problem::new(Code::ClockSkew);
        problem.server_time = Some(now);
        return Err(Box::new(problem));
    }
    let target = target_uri(edge, &parts.headers, &parts.uri).ok_or_else(invalid)?;
    let base = signature::signature_base(parts.method.as_str(), &target, digest, &params);
    let ask = VerifyAgentRequest {
        tenant_id: params.tenant_id,
        agent_id: params.agent_id,
        created: params.created,
        nonce: params.nonce,
        base: BASE64.encode(base),
        signature: BASE64.encode(signature),
    };
    ask_auth(edge, &ask).await
}

async fn ask_auth(edge: &Edge, ask: &VerifyAgentRequest) -> Result<VerifiedAgent, Box<Problem>> {
    let call = async {
        let client = edge.peers.client(RoleName::Auth)?;
        client.post::<_, VerifiedAgent>("/internal/v1/auth/agent-request", ask).await
    };
    match call.await {
        Ok(verified) => Ok(verified),
        Err(error) => match error.code() {
            Some(
                code @ (Code::SignatureInvalid
                | Code::NonceReused
                | Code::AgentRevoked
                | Code::ClockSkew),
            ) => Err(refused(code)),
            _ => {
                tracing::warn!(error = %chain(&error), "auth does not answer for an agent");
                Err(refused(Code::Unavailable))
            }
        },
    }
}

/// Our scheme, the host the agent spoke to, and the path it asked for.
fn target_uri(edge: &Edge, headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let scheme = edge.public_url.split_once("://")?.0;
    let host = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers.get(header::HOST)?.to_str().ok()?,
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Some(format!("{scheme}://{host}{path}"))
}

//! Small translations between the store's words and the wire's.

use api::catalog::{Header, PresignedRequest};
use domain::Timestamp;
use vault::store::{self, LockMode, ObjectFacts};

/// A signed request as clients get it.
pub fn presigned(request: store::PresignedRequest, expires_at: Timestamp) -> PresignedRequest {
    let header = |(name, value)| Header { name, value };
    PresignedRequest {
        method: request.method,
        url: request.url,
        headers: request.headers.into_iter().map(header).collect(),
        expires_at,
    }
}

/// Until when the object is locked in the one mode that nobody can lift.
pub fn compliance_until(facts: &ObjectFacts) -> Option<Timestamp> {
    match facts.lock_mode {
        Some(LockMode::Compliance) => facts.lock_until,
        Some(LockMode::Governance) | None => None,
    }
}

//! What a handler is given about its request: who, when, under which id, and what it may do.

use std::sync::Arc;

use api::{Code, Problem};
use authz::{Action, Actor, Refusal, Resource, Scope};
use axum::extract::{FromRequestParts, RawPathParams};
use domain::{Clock, EventId, Id, IdGen, Kind, TenantId, Timestamp};
use http::request::Parts;

use crate::{Failure, RoleName};

/// The request's context. In handlers of public operations the actor may be anonymous; ask for a
/// [`Permit`] wherever somebody must be known.
#[derive(Clone)]
pub struct Cx {
    pub actor: Actor,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdGen>,
    pub request_id: Arc<str>,
}

impl Cx {
    /// Server time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
    /// A fresh id.
    pub fn id<K: Kind>(&self) -> Id<K> {
        Id::fresh(self.ids.as_ref(), self.now())
    }
    /// An audit event of this request: by its actor, now, under its id.
    pub fn event(
        &self,
        action: &'static str,
        subject_kind: &'static str,
        subject_id: &(impl std::fmt::Display + ?Sized),
    ) -> pg::AuditEvent {
        self.event_by(&self.actor, action, subject_kind, subject_id)
    }
    /// The same by another actor: one that proved itself in the body (sign-in, enrolment).
    pub fn event_by(
        &self,
        actor: &Actor,
        action: &'static str,
        subject_kind: &'static str,
        subject_id: &(impl std::fmt::Display + ?Sized),
    ) -> pg::AuditEvent {
        let id: EventId = self.id();
        let mut event =
            pg::AuditEvent::new(id, self.now(), actor, action, subject_kind, subject_id)
                .request_id(self.request_id.as_ref());
        event.trace_context = process::telemetry::traceparent();
        event
    }
}

/// Put into every request by the edge.
#[derive(Clone)]
pub(crate) struct RequestContext {
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdGen>,
    pub request_id: Arc<str>,
    /// Who the credentials prove, or why they prove nobody.
    pub identity: Result<Actor, Box<Problem>>,
}

impl RequestContext {
    fn of(parts: &Parts) -> Result<&Self, Failure> {
        // Only a router served without the edge has none: a bug, answered as one.
        parts.extensions.get::<Self>().ok_or_else(|| Failure(Problem::new(Code::Internal)))
    }
    fn cx(&self) -> Result<Cx, Failure> {
        let actor = self.identity.clone().map_err(|problem| Failure(*problem))?;
        Ok(Cx {
            actor,
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            request_id: self.request_id.clone(),
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Cx {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        RequestContext::of(parts)?.cx()
    }
}

/// Proof that the caller may do `A` in the tenant of the path (`{tenant_id}`), or, on paths without one,
/// in the tenant its token acts in. 401 for nobody, 403 for too little, 404 for another tenant's.
#[derive(Debug, Clone)]
pub struct Permit<A>(authz::Permit<A>);

impl<A: Action> Permit<A> {
    pub const fn scope(&self) -> Scope {
        self.0.scope()
    }
    pub const fn tenant(&self) -> TenantId {
        self.0.tenant()
    }
    pub const fn actor(&self) -> &Actor {
        self.0.actor()
    }
    pub const fn proof(&self) -> &authz::Permit<A> {
        &self.0
    }
}

impl<S: Send + Sync, A: Action> FromRequestParts<S> for Permit<A> {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let cx = RequestContext::of(parts)?.cx()?;
        if cx.actor == Actor::Anonymous {
            return Err(Code::Unauthenticated.into());
        }
        let named = RawPathParams::from_request_parts(parts, state).await.ok().and_then(|params| {
            let found = params.iter().find(|(name, _)| *name == "tenant_id");
            found.map(|(_, value)| value.parse::<TenantId>())
        });
        let tenant = match named {
            // A malformed id answers like a foreign one.
            Some(parsed) => parsed.map_err(|_| Failure::not_found())?,
            None => cx.actor.tenant().ok_or(Failure::from(Code::Forbidden))?,
        };
        authz::Permit::decide(cx.actor, Resource { tenant }).map(Self).map_err(|refusal| {
            match refusal {
                Refusal::Unauthenticated => Code::Unauthenticated.into(),
                Refusal::Forbidden => Code::Forbidden.into(),
                Refusal::Hidden => Failure::not_found(),
            }
        })
    }
}

/// The role that calls an internal operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller(pub RoleName);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        match RequestContext::of(parts)?.cx()?.actor {
            Actor::Service { name } => {
                RoleName::parse(&name).map(Self).ok_or_else(|| Code::Unauthenticated.into())
            }
            _ => Err(Code::Unauthenticated.into()),
        }
    }
}

//! The audit event as services write it. On the wire it is `api::audit::AuditEvent`, field for field.

use authz::Actor;
use domain::{EventId, TenantId, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// One change of meaning (R8). The tenant is the transaction's.
#[derive(Debug, Clone)]
pub struct AuditEvent {
    pub id: EventId,
    /// Past tense: `snapshot.committed`.
    pub action: &'static str,
    pub actor_kind: &'static str,
    pub actor_id: String,
    /// The account's tenant when it is another than the event's.
    pub actor_home: Option<TenantId>,
    pub subject_kind: &'static str,
    pub subject_id: String,
    pub occurred_at: Timestamp,
    pub request_id: Option<String>,
    /// W3C `traceparent` of the request that caused it.
    pub trace_context: Option<String>,
    /// Facts, never a secret, never a customer's path.
    pub details: Map<String, Value>,
}

impl AuditEvent {
    /// An event by `actor`; in a request, `runtime::Cx::event` fills in the rest.
    pub fn new(
        id: EventId,
        occurred_at: Timestamp,
        actor: &Actor,
        action: &'static str,
        subject_kind: &'static str,
        subject_id: &(impl std::fmt::Display + ?Sized),
    ) -> Self {
        Self {
            id,
            action,
            actor_kind: actor.kind(),
            actor_id: actor.id(),
            actor_home: actor.foreign_home(),
            subject_kind,
            subject_id: subject_id.to_string(),
            occurred_at,
            request_id: None,
            trace_context: None,
            details: Map::new(),
        }
    }

    /// Adds a fact. A value that has no JSON form is left out.
    #[must_use]
    pub fn detail(mut self, name: &'static str, value: impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_value(value) {
            self.details.insert(name.to_owned(), value);
        }
        self
    }

    #[must_use]
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    /// The wire form.
    pub fn payload(&self, tenant: TenantId) -> Value {
        let mut actor = json!({ "kind": self.actor_kind, "id": self.actor_id });
        if let Some(home) = self.actor_home.filter(|home| *home != tenant) {
            actor["home_tenant_id"] = json!(home);
        }
        let mut event = json!({
            "id": self.id,
            "tenant_id": tenant,
            "action": self.action,
            "actor": actor,
            "subject_kind": self.subject_kind,
            "subject_id": self.subject_id,
            "occurred_at": self.occurred_at,
            "details": self.details,
        });
        if let Some(request_id) = &self.request_id {
            event["request_id"] = json!(request_id);
        }
        event
    }
}

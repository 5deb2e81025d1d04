//! Problems as RFC 9457 `application/problem+json`, with a closed list of codes.
//!
//! Every problem says what to do next ([`Advice`]); 404 answers for what is not there and for what is
//! not yours, with the same body. The cause is logged where it is handled and never sent.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a caller can sensibly do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// The same request may succeed later.
    Retry,
    /// The request is wrong; change it.
    Reject,
    /// Our fault; report it with the request id.
    Bug,
}

macro_rules! codes {
    ($($code:ident $text:literal $status:literal $advice:ident $title:literal;)*) => {
        /// The closed list of problem codes. Stable: clients match on them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code { $(#[serde(rename = $text)] #[doc = $title] $code,)* }
        impl Code {
            pub const ALL: &'static [Self] = &[$(Self::$code),*];
            pub const fn as_str(self) -> &'static str { match self { $(Self::$code => $text),* } }
            pub const fn status(self) -> u16 { match self { $(Self::$code => $status),* } }
            pub const fn advice(self) -> Advice { match self { $(Self::$code => Advice::$advice),* } }
            pub const fn title(self) -> &'static str { match self { $(Self::$code => $title),* } }
        }
    };
}

codes! {
    BadRequest "bad_request" 400 Reject "The request cannot be read";
    Validation "validation" 422 Reject "A field is wrong";
    Unauthenticated "unauthenticated" 401 Reject "Sign in first";
    WrongCredentials "wrong_credentials" 401 Reject "The name or the secret is wrong";
    TokenExpired "token_expired" 401 Reject "The token has expired";
    TokenReused "token_reused" 401 Reject "This token was used before; every session from it has ended";
    EnrolmentTokenInvalid "enrolment_token_invalid" 401 Reject "The enrolment token is unknown, used up or expired";
    SignatureInvalid "signature_invalid" 401 Reject "The request signature does not match";
    ClockSkew "clock_skew" 401 Retry "The clocks differ too much; use the server time given";
    NonceReused "nonce_reused" 401 Reject "This request was seen before";
    AgentRevoked "agent_revoked" 401 Reject "This agent was removed";
    Forbidden "forbidden" 403 Reject "Your role does not allow this";
    NotFound "not_found" 404 Reject "There is no such thing";
    MethodNotAllowed "method_not_allowed" 405 Reject "This method is not offered here";
    Conflict "conflict" 409 Reject "The state does not allow this";
    AlreadyExists "already_exists" 409 Reject "It exists already";
    Fenced "fenced" 409 Reject "A newer session has taken over";
    LeaseLost "lease_lost" 409 Reject "The lease of this run is no longer yours";
    SessionEnded "session_ended" 409 Reject "The session has ended; open a new one";
    PackNotConfirmed "pack_not_confirmed" 409 Retry "The store does not confirm this object yet";
    PackUnusable "pack_unusable" 409 Reject "A referenced pack can no longer be used; back up again";
    ManifestRejected "manifest_rejected" 422 Reject "The manifest is not acceptable";
    NoSources "no_sources" 409 Reject "Nothing is chosen to back up yet";
    CustomerHeld "customer_held" 409 Reject "Only the customer holds the key of this vault";
    SnapshotDamaged "snapshot_damaged" 409 Reject "The snapshot is damaged at this place";
    PayloadTooLarge "payload_too_large" 413 Reject "The body is too large";
    UnsupportedMediaType "unsupported_media_type" 415 Reject "Send application/json";
    TooManyRequests "too_many_requests" 429 Retry "Too many requests; wait";
    Internal "internal" 500 Bug "Something went wrong on our side";
    StoreUnavailable "store_unavailable" 503 Retry "The object store does not answer";
    Unavailable "unavailable" 503 Retry "A part of the platform does not answer";
}

// Written out: the derive does not see a name that comes from a macro's variable.
impl ToSchema for Code {}
impl utoipa::PartialSchema for Code {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("The closed list of problem codes. Stable: clients match on them."))
            .enum_values(Some(Self::ALL.iter().map(|code| code.as_str())))
            .into()
    }
}

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldProblem {
    /// JSON pointer-like path: `sources/0`.
    pub field: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

/// RFC 9457 body. Content type `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{title}{}", said(.detail.as_deref(), .fields))]
pub struct Problem {
    pub code: Code,
    pub status: u16,
    pub title: String,
    /// What exactly, and what to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    pub advice: Advice,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldProblem>,
    /// Quote this when asking for help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Server time, with `clock_skew`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_time: Option<domain::Timestamp>,
}

/// What follows the title: the detail, and every wrong field.
fn said(detail: Option<&str>, fields: &[FieldProblem]) -> String {
    let fields = fields.iter().map(|wrong| format!("{}: {}", wrong.field, wrong.detail));
    let all: Vec<String> = detail.map(str::to_owned).into_iter().chain(fields).collect();
    if all.is_empty() { String::new() } else { format!(": {}", all.join("; ")) }
}

impl Problem {
    pub fn new(code: Code) -> Self {
        Self {
            code,
            status: code.status(),
            title: code.title().to_owned(),
            detail: None,
            advice: code.advice(),
            fields: Vec::new(),
            request_id: None,
            server_time: None,
        }
    }
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
    #[must_use]
    pub fn field(mut self, field: impl Into<String>, detail: impl Into<String>) -> Self {
        self.fields.push(FieldProblem { field: field.into(), detail: detail.into() });
        self
    }
    pub fn not_found() -> Self {
        Self::new(Code::NotFound)
    }
    pub fn validation(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Code::Validation).field(field, detail)
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_codes_is_what_clients_know() {
        let list: Vec<String> = Code::ALL
            .iter()
            .map(|c| format!("{} {} {:?} {}", c.status(), c.as_str(), c.advice(), c.title()))
            .collect();
        insta::assert_snapshot!(list.join("\n"));
    }

    #[test]
    fn a_problem_says_every_wrong_field() {
        let problem = Problem::new(Code::Validation)
            .field("name", "must not be empty")
            .field("zone", "is none");
        assert_eq!(problem.to_string(), "A field is wrong: name: must not be empty; zone: is none");
        assert_eq!(Problem::not_found().to_string(), "There is no such thing");
    }

    #[test]
    fn a_code_is_written_as_its_name() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).expect("json"), code.as_str());
        }
    }
}

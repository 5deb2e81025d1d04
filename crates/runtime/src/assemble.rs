//! Roles to routers: one public router with its OpenAPI document, one internal router per role.

use std::sync::Arc;

use axum::{Router, middleware, response::IntoResponse as _, routing::get};
use utoipa::PartialSchema;
use utoipa::openapi::{
    Components, Content, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, ResponseBuilder,
    path::Operation,
    schema::Schema,
    security::{
        ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
    },
};
use utoipa_axum::router::OpenApiRouter;

use crate::{Check, Edge, Failure, Role, Worker, edge};

/// Roles, ready to be served.
pub struct Assembly {
    /// Every public operation, `/openapi.json`, problems for everything else.
    pub public: Router,
    /// `/<role>/internal/v1/…`, for the internal listener. Roles in this process are bound already.
    pub internal: Router,
    pub openapi: Arc<OpenApi>,
    /// Not started yet.
    pub workers: Vec<Worker>,
    pub readiness: Vec<(&'static str, Check)>,
}

/// Puts roles together behind one edge and binds them as each other's peers.
pub fn assemble(edge: &Edge, roles: Vec<Role>) -> Assembly {
    let mut documented = OpenApiRouter::with_openapi(base_document());
    let mut internal = Router::new();
    let mut workers = Vec::new();
    let mut readiness = Vec::new();
    for role in roles {
        documented = documented.merge(role.router);
        let inner = role
            .internal
            .fallback(nothing_here)
            .layer(middleware::from_fn_with_state(edge.clone(), edge::internal));
        edge.peers.bind(role.name, inner.clone());
        internal = internal.nest(&format!("/{}", role.name), inner);
        workers.extend(role.workers);
        let name = role.name.as_str();
        for collector in role.collectors {
            if let Err(error) = edge.metrics().registry().register(collector) {
                tracing::error!(role = name, %error, "figures of this role are not shown");
            }
        }
        readiness.extend(role.readiness.into_iter().map(|check| (name, check)));
    }
    let (router, mut openapi) = documented.split_for_parts();
    complete(&mut openapi);
    let openapi = Arc::new(openapi);
    let body: Arc<str> = serde_json::to_string(openapi.as_ref()).unwrap_or_default().into();
    let public = router
        .route("/openapi.json", get(move || document(body.clone())))
        .fallback(nothing_here)
        .layer(middleware::from_fn_with_state(edge.clone(), edge::public));
    Assembly { public, internal, openapi, workers, readiness }
}

async fn document(body: Arc<str>) -> axum::response::Response {
    ([(http::header::CONTENT_TYPE, "application/json")], body.as_ref().to_owned()).into_response()
}

async fn nothing_here() -> Failure {
    Failure::not_found()
}

fn base_document() -> OpenApi {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("Access token of `POST /v1/auth/token`; valid in one tenant."))
        .build();
    let signature = ApiKeyValue::with_description(
        "signature",
        "RFC 9421 signature of an enrolled agent, with `signature-input` and `content-digest`.",
    );
    let mut components = Components::new();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    components.add_security_scheme("agent", SecurityScheme::ApiKey(ApiKey::Header(signature)));
    let problem: RefOr<Schema> = api::Problem::schema();
    components.schemas.insert("Problem".to_owned(), problem);
    let mut nested = Vec::new();
    <api::Problem as utoipa::ToSchema>::schemas(&mut nested);
    components.schemas.extend(nested);
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Everhold")
                .version("1")
                .description(Some("Backup as a service. Errors are RFC 9457 problems."))
                .build(),
        )
        .components(Some(components))
        .build()
}

/// What every operation shares: who may call it, and how it fails.
fn complete(openapi: &mut OpenApi) {
    for item in openapi.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.patch,
            &mut item.head,
            &mut item.options,
        ];
        for operation in operations.into_iter().flatten() {
            complete_operation(operation);
        }
    }
}

fn complete_operation(operation: &mut Operation) {
    let public = operation.tags.as_ref().is_some_and(|tags| tags.iter().any(|t| t == "public"));
    if operation.security.is_none() {
        let schemes: &[&str] = if public { &[] } else { &["bearer", "agent"] };
        let none: [&str; 0] = [];
        operation.security =
            Some(schemes.iter().map(|name| SecurityRequirement::new(*name, none)).collect());
    }
    let problem = ResponseBuilder::new()
        .description("A problem (RFC 9457); `code` is of a closed list, `advice` says what to do")
        .content(
            "application/problem+json",
            Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem")))),
        )
        .build();
    operation.responses.responses.entry("default".to_owned()).or_insert(RefOr::T(problem));
}

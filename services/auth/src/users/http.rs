//! Routes of people.

use std::sync::Arc;

use api::{
    auth::{CreateUser, Me, User},
    names,
    page::{Page, PageQuery},
    problem::{Code, Problem},
};
use authz::{
    Actor, Role, Scope, ScopeReason, TenantKind,
    actions::{MeRead, UserCreate, UserRead},
};
use axum::{extract::State, http::StatusCode};
use domain::TenantId;
use runtime::{Cx, Failure, Json, Permit, Query, Reply, paging};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{NewUser, UserError, UserRow};
use crate::{
    password::{self, PasswordError, Secret},
    roles,
    state::{Auth, Shared},
    tenants,
};

/// More roles than there are is a mistake.
const MAX_ROLES: usize = 16;

pub fn routes() -> OpenApiRouter<Arc<Auth>> {
    OpenApiRouter::new().routes(routes!(me)).routes(routes!(list_users, create_user))
}

/// Who the token speaks for, and where it acts.
#[utoipa::path(get, path = "/v1/me", tag = "users",
    responses((status = 200, description = "The person behind the token", body = Me)))]
async fn me(State(auth): Shared, permit: Permit<MeRead>) -> Reply<Json<Me>> {
    let Actor::User(person) = permit.actor() else { return Err(Code::Forbidden.into()) };
    // The account lives at home; the token, which is verified, names it.
    let home = Scope::without_permit(person.home, ScopeReason::PresentedCredential);
    let account = super::get(&auth.db, home, person.id).await?;
    let tenant = tenants::get(&auth.db, permit.scope()).await?;
    Ok(Json(Me {
        id: account.id,
        email: account.email,
        name: account.name,
        home_tenant_id: person.home,
        tenant: tenant.into(),
        roles: person.roles.iter().map(ToString::to_string).collect(),
    }))
}

/// The accounts of a tenant.
#[utoipa::path(get, path = "/v1/tenants/{tenant_id}/users", tag = "users",
    params(("tenant_id" = TenantId, Path), PageQuery),
    responses((status = 200, description = "Accounts in the order they were made", body = Page<User>)))]
async fn list_users(
    State(auth): Shared,
    permit: Permit<UserRead>,
    Query(query): Query<PageQuery>,
) -> Reply<Json<Page<User>>> {
    let (after, limit) = paging::bounds(&query)?;
    let rows = super::list(&auth.db, permit.scope(), after, limit).await?;
    Ok(Json(paging::page(&query, rows, |row| row.id.uuid())))
}

/// Makes an account. Only roles of this kind of tenant, and only those the caller may give: from above, a
/// tenant is given its first administrator, auditors and billing viewers.
#[utoipa::path(post, path = "/v1/tenants/{tenant_id}/users", tag = "users",
    params(("tenant_id" = TenantId, Path)), request_body = CreateUser,
    responses((status = 201, description = "The new account", body = User)))]
async fn create_user(
    State(auth): Shared,
    cx: Cx,
    permit: Permit<UserCreate>,
    Json(body): Json<CreateUser>,
) -> Reply<(StatusCode, Json<User>)> {
    let Actor::User(giver) = permit.actor() else { return Err(Code::Forbidden.into()) };
    let new = check(body, giver.kind)?;
    let row = super::create(&auth.db, &auth.passwords, &cx, permit.scope(), new).await?;
    Ok((StatusCode::CREATED, Json(row.into())))
}

/// Every wrong field at once.
fn check(body: CreateUser, kind: TenantKind) -> Result<NewUser, Problem> {
    let password = Secret::new(body.password);
    let mut wrong = Problem::new(Code::Validation);
    let mut keep = |checked: Result<String, Problem>| {
        checked.unwrap_or_else(|problem| {
            wrong.fields.extend(problem.fields);
            String::new()
        })
    };
    let email = keep(names::email("email", &body.email));
    let name = keep(names::name("name", &body.name));
    if let Err(weakness) = password::judge(&password, &body.email) {
        wrong = wrong.field("password", weakness.to_string());
    }
    if body.roles.is_empty() || body.roles.len() > MAX_ROLES {
        wrong = wrong.field("roles", format!("1 to {MAX_ROLES} roles"));
    }
    let mut given = Vec::new();
    for (at, role) in body.roles.iter().take(MAX_ROLES).enumerate() {
        match role.parse::<Role>().ok().filter(|role| roles::of_kind(kind).contains(role)) {
            Some(role) => given.push(role),
            None => {
                let known: Vec<&str> =
                    roles::of_kind(kind).iter().map(|role| role.as_str()).collect();
                wrong = wrong.field(format!("roles/{at}"), format!("one of {}", known.join(", ")));
            }
        }
    }
    if wrong.fields.is_empty() {
        Ok(NewUser { email, name, password, roles: given })
    } else {
        Err(wrong)
    }
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self {
            id: row.id,
            email: row.email,
            name: row.name,
            roles: row.roles.iter().map(ToString::to_string).collect(),
            created_at: row.created_at,
        }
    }
}

impl From<PasswordError> for Failure {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Code::TooManyRequests.into(),
            error @ (PasswordError::Hash(_) | PasswordError::Task(_)) => Self::internal(&error),
        }
    }
}

impl From<UserError> for Failure {
    fn from(error: UserError) -> Self {
        match error {
            UserError::NotFound => Self::not_found(),
            UserError::NameTaken => Self(
                Problem::new(Code::AlreadyExists)
                    .field("email", "this tenant has an account of this name"),
            ),
            UserError::RoleRefused(_) | UserError::NotTheFirst(_) => {
                Self(Problem::new(Code::Forbidden).detail(error.to_string()))
            }
            UserError::Password(error) => error.into(),
            UserError::Db(error) => error.into(),
        }
    }
}

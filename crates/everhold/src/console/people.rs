//! Tenants and people.

use std::io::Read as _;

use api::auth::{CreateTenant, CreateUser, Me, Tenant, User};

use super::{
    Out, all,
    args::{TenantCommand, UserCommand},
    session::Session,
    table::{Table, moment},
};

pub async fn whoami(session: &Session, out: &Out) -> anyhow::Result<()> {
    let me: Me = session.get("/v1/me").await?;
    out.one(&me, |me| {
        format!("{} in {} ({}): {}", me.email, me.tenant.name, me.tenant.id, me.roles.join(", "))
    })
}

pub async fn tenant(session: &Session, out: &Out, command: &TenantCommand) -> anyhow::Result<()> {
    match command {
        TenantCommand::List => {
            let tenants: Vec<Tenant> = all(session, "/v1/tenants").await?;
            out.list(&tenants, |tenants| {
                Table::new(&["TENANT", "KIND", "NAME", "SINCE"], "no tenants").rows(tenants, |t| {
                    vec![
                        t.id.to_string(),
                        t.kind.as_str().to_owned(),
                        t.name.clone(),
                        moment(Some(t.created_at)),
                    ]
                })
            })
        }
        TenantCommand::Create { name } => {
            let body = CreateTenant { name: name.clone() };
            let made: Tenant = session.post(&session.path("children"), &body).await?;
            out.one(&made, |t| format!("{} {} {}", t.id, t.kind.as_str(), t.name))
        }
    }
}

pub async fn user(session: &Session, out: &Out, command: &UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::List => {
            let users: Vec<User> = all(session, &session.path("users")).await?;
            out.list(&users, |users| {
                Table::new(&["USER", "EMAIL", "NAME", "ROLES"], "no accounts").rows(users, |u| {
                    vec![u.id.to_string(), u.email.clone(), u.name.clone(), u.roles.join(", ")]
                })
            })
        }
        UserCommand::Create { email, name, roles } => {
            let mut password = String::new();
            std::io::stdin().read_to_string(&mut password)?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            let body = CreateUser {
                email: email.clone(),
                name: name.clone(),
                password,
                roles: roles.clone(),
            };
            let made: User = session.post(&session.path("users"), &body).await?;
            out.one(&made, |u| format!("{} {} {}", u.id, u.email, u.roles.join(", ")))
        }
    }
}

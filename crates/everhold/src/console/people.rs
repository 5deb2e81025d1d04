//! Tenants and people.

use std::io::Read as _;

use api::{
    Page,
    auth::{CreateTenant, CreateUser, Me, SignIn, Tenant, User},
};

use super::{
    Out, all,
    args::{SessionCommand, TenantCommand, UserCommand},
    session::Session,
    table::{Table, moment},
};
use crate::commands::say;

pub async fn whoami(session: &Session, out: &Out) -> anyhow::Result<()> {
    let me: Me = session.get("/v1/me").await?;
    out.one(&me, |me| {
        format!("{} in {} ({}): {}", me.email, me.tenant.name, me.tenant.id, me.roles.join(", "))
    })
}

pub async fn session(session: &Session, out: &Out, command: &SessionCommand) -> anyhow::Result<()> {
    match command {
        SessionCommand::List => {
            let page: Page<SignIn> = session.get("/v1/me/sessions").await?;
            out.list(&page.items, |sessions| {
                let head = ["SESSION", "CLIENT", "STARTED", "LAST USED", "UNTIL"];
                Table::new(&head, "no sign-ins").rows(sessions, |s| {
                    vec![
                        s.id.to_string(),
                        s.client.clone(),
                        moment(Some(s.started_at)),
                        moment(Some(s.last_used_at)),
                        moment(Some(s.expires_at)),
                    ]
                })
            })
        }
        SessionCommand::End { session: id } => {
            session.delete(&format!("/v1/me/sessions/{id}")).await?;
            Ok(say(format_args!(
                "{id} has ended; what it was given is good for up to five minutes more"
            ))?)
        }
    }
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

//! Machines: how they get in, what they are, what protects them.

use std::collections::BTreeMap;

use api::{
    auth::{Agent, CreateEnrolmentToken, EnrolmentToken},
    catalog::Workload,
    policy::{AssignPolicy, Policy, Protection},
};
use serde::Serialize;

use super::{
    Out, all,
    args::{AgentCommand, TokenCommand, WorkloadCommand},
    find,
    session::Session,
    table::{Table, moment},
};

pub async fn agent(session: &Session, out: &Out, command: &AgentCommand) -> anyhow::Result<()> {
    let agents: Vec<Agent> = all(session, &session.path("agents")).await?;
    match command {
        AgentCommand::List => out.list(&agents, |agents| {
            let head = ["AGENT", "NAME", "SYSTEM", "VERSION", "LAST SEEN", "STATE"];
            Table::new(&head, "no agents; `everhold token create` lets one in").rows(agents, |a| {
                let state = if a.revoked_at.is_some() { "revoked" } else { "enrolled" };
                vec![
                    a.id.to_string(),
                    a.name.clone(),
                    format!("{} {}", a.os, a.arch),
                    a.agent_version.clone(),
                    moment(a.last_seen_at),
                    state.to_owned(),
                ]
            })
        }),
        AgentCommand::Revoke { agent } => {
            let found = find("agent", &agents, agent, |a| a.id.to_string(), |a| &a.name)?;
            let path = session.path(format_args!("agents/{}/revoke", found.id));
            let revoked: Agent = session.post(&path, &serde_json::json!({})).await?;
            out.one(&revoked, |a| {
                format!("{} {} is revoked; what it backed up stays", a.id, a.name)
            })
        }
    }
}

pub async fn token(session: &Session, out: &Out, command: &TokenCommand) -> anyhow::Result<()> {
    let path = session.path("enrolment-tokens");
    match command {
        TokenCommand::List => {
            let tokens: Vec<EnrolmentToken> = all(session, &path).await?;
            out.list(&tokens, |tokens| {
                let head = ["TOKEN", "LABEL", "USED", "UNTIL", "STATE"];
                Table::new(&head, "no tokens; `everhold token create` makes one").rows(
                    tokens,
                    |t| {
                        let state = if t.revoked_at.is_some() { "revoked" } else { "" };
                        vec![
                            t.id.to_string(),
                            t.label.clone(),
                            format!("{} of {}", t.uses, t.max_uses),
                            moment(Some(t.expires_at)),
                            state.to_owned(),
                        ]
                    },
                )
            })
        }
        TokenCommand::Create { uses, hours, label } => {
            let body = CreateEnrolmentToken {
                max_uses: *uses,
                ttl_s: hours.saturating_mul(3_600),
                label: label.clone(),
            };
            let made: EnrolmentToken = session.post(&path, &body).await?;
            // Alone on its line, so that a script can take it.
            out.one(&made, |t| t.token.clone().unwrap_or_default())
        }
        TokenCommand::Revoke { token } => {
            let path = session.path(format_args!("enrolment-tokens/{token}/revoke"));
            let revoked: EnrolmentToken = session.post(&path, &serde_json::json!({})).await?;
            out.one(&revoked, |t| format!("{} is revoked; machines it let in stay", t.id))
        }
    }
}

/// A workload beside how it stands.
#[derive(Serialize)]
struct Row {
    workload: Workload,
    protection: Option<Protection>,
    policy: Option<String>,
}

pub async fn workload(
    session: &Session,
    out: &Out,
    command: &WorkloadCommand,
) -> anyhow::Result<()> {
    let workloads: Vec<Workload> = all(session, &session.path("workloads")).await?;
    let policies: Vec<Policy> = super::policy::list(session).await?;
    match command {
        WorkloadCommand::List => {
            let protections: Vec<Protection> = all(session, &session.path("protections")).await?;
            let mut by_id: BTreeMap<_, _> =
                protections.into_iter().map(|p| (p.workload_id, p)).collect();
            let name = |id| policies.iter().find(|p| p.id == id).map(|p| p.name.clone());
            let row = |workload: Workload| {
                let protection = by_id.remove(&workload.id);
                let policy = protection.as_ref().and_then(|p| p.policy_id).and_then(name);
                Row { workload, protection, policy }
            };
            let rows: Vec<Row> = workloads.into_iter().map(row).collect();
            out.list(&rows, |rows| {
                let head = ["WORKLOAD", "NAME", "POLICY", "NEXT RUN", "PROTECTED", "OBJECTIVE"];
                Table::new(&head, "no workloads; enrol a machine first").rows(rows, cells)
            })
        }
        WorkloadCommand::Assign { workload, policy, default: _ } => {
            let found = find("workload", &workloads, workload, |w| w.id.to_string(), |w| &w.name)?;
            let policy_id = match policy {
                Some(name) => {
                    Some(find("policy", &policies, name, |p| p.id.to_string(), |p| &p.name)?.id)
                }
                None => None,
            };
            let path = session.path(format_args!("workloads/{}/policy", found.id));
            let stands: Protection = session.put(&path, &AssignPolicy { policy_id }).await?;
            out.one(&stands, |stands| {
                format!("{}: next run {}", found.name, moment(stands.next_due_at))
            })
        }
    }
}

fn cells(row: &Row) -> Vec<String> {
    let stands = row.protection.as_ref();
    let objective = match stands.map(|p| (p.rpo_breached_at, p.rpo_due_at, p.protected_at)) {
        Some((Some(since), ..)) => format!("breached since {}", moment(Some(since))),
        Some((None, Some(due), Some(_))) => format!("kept until {}", moment(Some(due))),
        Some((None, Some(due), None)) => format!("no backup yet, due by {}", moment(Some(due))),
        Some((None, None, _)) | None => "-".to_owned(),
    };
    vec![
        row.workload.id.to_string(),
        row.workload.name.clone(),
        row.policy.clone().unwrap_or_else(|| "-".to_owned()),
        moment(stands.and_then(|p| p.next_due_at)),
        moment(stands.and_then(|p| p.protected_at)),
        objective,
    ]
}

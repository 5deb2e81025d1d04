//! Runs.

use api::{
    Page,
    catalog::Workload,
    scheduler::{CreateRun, Run},
};

use super::{
    Out, all,
    args::RunCommand,
    find,
    session::Session,
    table::{Table, moment},
};

pub async fn run(session: &Session, out: &Out, command: &RunCommand) -> anyhow::Result<()> {
    match command {
        RunCommand::List { workload, limit } => {
            let workloads: Vec<Workload> = all(session, &session.path("workloads")).await?;
            let only = match workload {
                Some(name) => {
                    let found =
                        find("workload", &workloads, name, |w| w.id.to_string(), |w| &w.name)?;
                    format!("&workload_id={}", found.id)
                }
                None => String::new(),
            };
            let path = session.path(format_args!("runs?limit={limit}{only}"));
            let page: Page<Run> = session.get(&path).await?;
            let name = |run: &Run| {
                let found = workloads.iter().find(|w| w.id == run.workload_id);
                found.map_or_else(|| run.workload_id.to_string(), |w| w.name.clone())
            };
            out.list(&page.items, |runs| {
                let head = ["RUN", "WORKLOAD", "STATE", "TRIGGER", "BEGAN", "ENDED", "ERROR"];
                Table::new(&head, "no runs").rows(runs, |run| {
                    vec![
                        run.id.to_string(),
                        name(run),
                        run.state.to_string(),
                        run.trigger.as_str().to_owned(),
                        moment(run.started_at),
                        moment(run.ended_at),
                        run.error.clone().unwrap_or_default(),
                    ]
                })
            })
        }
        RunCommand::Start { workload } => {
            let workloads: Vec<Workload> = all(session, &session.path("workloads")).await?;
            let found = find("workload", &workloads, workload, |w| w.id.to_string(), |w| &w.name)?;
            let body = CreateRun { workload_id: found.id, source: None };
            let queued: Run = session.post(&session.path("runs"), &body).await?;
            out.one(&queued, line)
        }
        RunCommand::Show { run } => {
            let run: Run = session.get(&session.path(format_args!("runs/{run}"))).await?;
            out.one(&run, line)
        }
        RunCommand::Cancel { run } => {
            let path = session.path(format_args!("runs/{run}/cancel"));
            let run: Run = session.post(&path, &serde_json::json!({})).await?;
            out.one(&run, line)
        }
    }
}

fn line(run: &Run) -> String {
    let why = run.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
    let asked = if run.cancel_requested && !run.state.is_final() { ", to be canceled" } else { "" };
    format!("{} {}{asked}{why}", run.id, run.state)
}

//! `enroll`.

use anyhow::Result;
use serde::Serialize;

use super::Enroll;
use crate::{
    control::{Order, Way, World, enrol},
    output::{Exit, Output, plain},
    state::Home,
};

#[derive(Serialize)]
struct Report<'a> {
    agent_id: domain::AgentId,
    tenant_id: domain::TenantId,
    tenant_name: &'a str,
    workload_id: domain::WorkloadId,
    vault_id: domain::VaultId,
    name: &'a str,
    server: &'a str,
    home: String,
    kit_file: Option<String>,
    resumed: bool,
    /// It was enrolled, and looks for its platform at this address from now on.
    moved: bool,
}

pub async fn run(home: &Home, args: Enroll, world: &World, output: &Output) -> Result<Exit> {
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = args.name.unwrap_or_else(|| hostname.clone());
    let order =
        Order { server: args.server, token: args.token, name, hostname, kit_out: args.kit_out };
    let enrolled = enrol(home, &order, world).await?;
    let identity = &enrolled.identity;
    let kit_file = identity.kit_file.as_ref().map(|path| path.display().to_string());
    if output.is_json() {
        output.json(&Report {
            agent_id: identity.agent_id,
            tenant_id: identity.tenant_id,
            tenant_name: &identity.tenant_name,
            workload_id: identity.workload_id,
            vault_id: identity.vault_id,
            name: &identity.name,
            server: &identity.server,
            home: home.path().display().to_string(),
            kit_file,
            resumed: enrolled.way == Way::Resumed,
            moved: enrolled.way == Way::Moved,
        });
        return Ok(Exit::Good);
    }
    match enrolled.way {
        Way::Anew => {}
        Way::Resumed => output.line("An interrupted enrolment was finished."),
        Way::Moved => {
            output.line(format_args!(
                "{} ({}) was enrolled already, and looks for its platform at {} from now on. The token was not used; keys, kit and backups are what they were. Restart its daemon, if one runs.",
                plain(&identity.name),
                identity.agent_id,
                plain(&identity.server)
            ));
            return Ok(Exit::Good);
        }
    }
    output.line(format_args!(
        "Enrolled {} as {} in {}.",
        plain(&identity.name),
        identity.agent_id,
        plain(&identity.tenant_name)
    ));
    match kit_file {
        Some(file) => output.line(format_args!(
            "Recovery kit: {file}\nMove it off this machine now: whoever has it and the bucket can read the backups, and without it nobody can restore when the platform is gone."
        )),
        None => output.line(
            "No recovery kit was written: only the platform's key can bring the backups back if this machine is lost.",
        ),
    }
    output.line("Next: everhold-agent backup PATH");
    Ok(Exit::Good)
}

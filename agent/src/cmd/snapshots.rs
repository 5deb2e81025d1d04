//! `snapshots` and `status`.

use anyhow::Result;
use api::catalog::Snapshot;
use domain::{SnapshotId, Timestamp, run::RunState};
use serde::Serialize;

use crate::{
    output::{Exit, Output, bytes, plain},
    pipeline::member::Member,
};

#[derive(Serialize)]
struct Line<'a> {
    id: SnapshotId,
    committed_at: Timestamp,
    status: RunState,
    paths: &'a [String],
    source_bytes: u64,
    locked_until: Timestamp,
    protect_until: Timestamp,
    files: u64,
    new_bytes: u64,
    stored_bytes: u64,
    exceptions: u64,
    tags: &'a std::collections::BTreeMap<String, String>,
}

impl<'a> From<&'a Snapshot> for Line<'a> {
    fn from(snapshot: &'a Snapshot) -> Self {
        Self {
            id: snapshot.id,
            committed_at: snapshot.committed_at,
            status: snapshot.status,
            paths: &snapshot.paths,
            source_bytes: snapshot.stats.source_bytes,
            locked_until: snapshot.locked_until,
            protect_until: snapshot.protect_until,
            files: snapshot.stats.files,
            new_bytes: snapshot.stats.new_bytes,
            stored_bytes: snapshot.stats.stored_bytes,
            exceptions: snapshot.stats.exceptions,
            tags: &snapshot.tags,
        }
    }
}

pub async fn run(member: Member, output: &Output) -> Result<Exit> {
    let all = member.control.snapshots(member.identity.workload_id).await?;
    if output.is_json() {
        output.json(&all.iter().map(Line::from).collect::<Vec<_>>());
        return Ok(Exit::Good);
    }
    if all.is_empty() {
        output.line("There is no snapshot yet. Run: everhold-agent backup PATH");
    }
    for snapshot in &all {
        output.line(format_args!(
            "{}  {}  {:>10}  {} files  locked until {}  {}  {}",
            snapshot.id,
            snapshot.committed_at,
            bytes(snapshot.stats.source_bytes).to_string(),
            snapshot.stats.files,
            snapshot.locked_until,
            snapshot.status,
            plain(&snapshot.paths.join(" "))
        ));
    }
    Ok(Exit::Good)
}

#[derive(Serialize)]
struct Status<'a> {
    agent_id: domain::AgentId,
    name: &'a str,
    tenant_id: domain::TenantId,
    tenant_name: &'a str,
    server: &'a str,
    server_reachable: bool,
    server_error: Option<String>,
    vault_id: domain::VaultId,
    workload_id: domain::WorkloadId,
    home: String,
    enrolled_at: Timestamp,
    has_kit: bool,
    running: bool,
    last_snapshot: Option<Last>,
}

#[derive(Serialize)]
struct Last {
    id: SnapshotId,
    committed_at: Timestamp,
}

pub async fn status(member: Member, output: &Output) -> Result<Exit> {
    let running = member.home.lock_for_run().is_err();
    let asked = member.control.snapshots(member.identity.workload_id).await;
    let server_error = asked.as_ref().err().map(ToString::to_string);
    let newest = asked.ok().and_then(|all| all.into_iter().next());
    let newest =
        newest.map(|snapshot| Last { id: snapshot.id, committed_at: snapshot.committed_at });
    let remembered = member.home.last_commit();
    let last_snapshot = newest.or_else(|| {
        remembered.map(|last| Last { id: last.snapshot_id, committed_at: last.committed_at })
    });
    let identity = &member.identity;
    let reachable = server_error.is_none();
    let status = Status {
        agent_id: identity.agent_id,
        name: &identity.name,
        tenant_id: identity.tenant_id,
        tenant_name: &identity.tenant_name,
        server: &identity.server,
        server_reachable: reachable,
        server_error,
        vault_id: identity.vault_id,
        workload_id: identity.workload_id,
        home: member.home.path().display().to_string(),
        enrolled_at: identity.enrolled_at,
        has_kit: identity.kit_roster_key.is_some(),
        running,
        last_snapshot,
    };
    if output.is_json() {
        output.json(&status);
    } else {
        tell(&status, output);
    }
    Ok(if reachable { Exit::Good } else { Exit::Failed })
}

fn tell(status: &Status<'_>, output: &Output) {
    output.line(format_args!("agent       {} ({})", plain(status.name), status.agent_id));
    output.line(format_args!("tenant      {} ({})", plain(status.tenant_name), status.tenant_id));
    let reach = match &status.server_error {
        None => "reachable".to_owned(),
        Some(error) => format!("NOT reachable: {}", plain(error)),
    };
    output.line(format_args!("server      {} ({reach})", status.server));
    output.line(format_args!("home        {}", status.home));
    let kit = if status.has_kit { "written at enrolment" } else { "none" };
    output.line(format_args!("kit         {kit}"));
    output.line(format_args!("running     {}", if status.running { "yes" } else { "no" }));
    match &status.last_snapshot {
        Some(last) => output.line(format_args!("last        {} at {}", last.id, last.committed_at)),
        None => output.line("last        none yet; run: everhold-agent backup PATH"),
    }
}

//! `rescue`: list, look, restore and verify with nothing but the bucket and the recovery kit.

use std::{os::unix::ffi::OsStrExt as _, path::PathBuf, sync::Arc};

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};
use domain::{Timestamp, VaultId};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use vault::{
    fsck::Depth,
    rescue::{Found, Opened, Standing},
    snapshot::Reader,
    tree::Entry,
};

use super::{Overwrite as Choice, browse, fsck, open, restore};
use crate::{
    control::World,
    output::{Exit, Output, plain},
    rescue::{self, Place, RescueError, Vault, zero},
    restore::{Figures, Options, Order, ProblemKind, Report, safe_root::SafeRoot},
    sources::{display_path, exact_path, glob_rules},
};

/// Where the copy is, and what to do.
#[derive(Debug, Args)]
pub struct Rescue {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Job,
}

#[derive(Debug, Subcommand)]
enum Job {
    /// List every snapshot: committed (with a receipt), forgotten, or unconfirmed.
    List,
    /// List a folder of a snapshot.
    Ls {
        /// Snapshot as `list` names it, or `latest`.
        snapshot: String,
        /// Folder or file; the top when absent.
        path: Option<PathBuf>,
    },
    /// Restore a snapshot, or parts of it, into a folder.
    Restore(Restore),
    /// Check the whole vault, every byte: the same as fsck.
    Verify {
        /// Open data packs by both ends instead of reading every byte of them.
        #[arg(long)]
        structure: bool,
    },
}

#[derive(Debug, Args)]
struct Restore {
    /// Snapshot as `list` names it, or `latest`.
    snapshot: String,
    /// Folder to restore into; /a/b of the snapshot becomes DIR/a/b.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Only what matches: a name (`*.conf`) or a path (`/etc/ssh`), with all below it.
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// What to do with files that exist in the target already.
    #[arg(long, value_enum, default_value_t = Choice::Never)]
    overwrite: Choice,
    /// Also write files of which a part is lost, with zeros in its place; each is listed.
    #[arg(long)]
    zero_damaged: bool,
}

#[derive(Serialize)]
struct Line {
    id: String,
    vault_id: VaultId,
    /// `committed`, `forgotten` or `unconfirmed`.
    standing: &'static str,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    committed_at: Option<Timestamp>,
    agent_id: domain::AgentId,
    workload_id: domain::WorkloadId,
    manifest_id: domain::PackId,
    entries: u64,
    /// Where the list of packs is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    packs: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Carries out a rescue.
pub async fn run(args: Rescue, world: &World, output: &Output) -> Result<Exit> {
    let (runtime, place) = (tokio::runtime::Handle::current(), args.place);
    let told = output.clone();
    let vaults = open::blocking(move || {
        let opened = rescue::open(&place, &runtime)?;
        tell_opened(&opened, &told);
        Ok(opened.vaults.into_iter().map(rescue::read).collect::<Result<Vec<_>, _>>()?)
    })
    .await?;
    let output = output.clone();
    match args.command {
        Job::List => open::blocking(move || Ok(list(&vaults, &output))).await,
        Job::Ls { snapshot, path } => {
            open::blocking(move || {
                let (reader, _) = find(&vaults, &snapshot)?;
                let path = path.unwrap_or_default();
                browse::show(&reader, path.as_os_str().as_bytes(), &snapshot, &output)
            })
            .await
        }
        Job::Restore(args) => restore_one(vaults, args, world, &output).await,
        Job::Verify { structure } => {
            let depth = if structure { Depth::Structure } else { Depth::Data };
            open::blocking(move || {
                let mut exit = Exit::Good;
                for vault in &vaults {
                    if fsck::check(&vault.open, depth, &output)? != Exit::Good {
                        exit = Exit::Failed;
                    }
                }
                Ok(exit)
            })
            .await
        }
    }
}

fn tell_opened(opened: &Opened, output: &Output) {
    for note in &opened.notes {
        output.note(format_args!("note: {}", plain(note)));
    }
    for closed in &opened.closed {
        output.note(format_args!("{} stays closed: {}", closed.vault, closed.why));
    }
}

fn list(vaults: &[Vault], output: &Output) -> Exit {
    let mut lines = Vec::new();
    for vault in vaults {
        for finding in &vault.snapshots.findings {
            output.note(fsck::words(finding));
        }
        lines.extend(vault.snapshots.found.iter().map(|found| line(vault, found)));
    }
    let exit = Exit::with_exceptions(vaults.iter().map(|v| v.snapshots.findings.len()).sum());
    if output.is_json() {
        output.json(&lines);
        return exit;
    }
    for line in &lines {
        let when = line.committed_at.unwrap_or(line.created_at);
        let problem = line.problem.as_ref().map(|why| format!("  UNREADABLE: {why}"));
        output.line(format_args!(
            "{}  {when}  {:<11}  {} entries  {}{}",
            line.id,
            line.standing,
            line.entries,
            line.agent_id,
            problem.unwrap_or_default()
        ));
    }
    if lines.is_empty() {
        output.line("There is no snapshot in this bucket that the kit vouches for.");
    }
    exit
}

fn line(vault: &Vault, found: &Found) -> Line {
    let manifest = &found.signed.manifest;
    let (standing, committed_at) = match &found.standing {
        Standing::Committed(receipt) => ("committed", Some(receipt.committed_at)),
        Standing::Forgotten(_) => ("forgotten", None),
        Standing::Unconfirmed => ("unconfirmed", None),
    };
    let packs = vault.snapshots.packs(found);
    Line {
        id: found.name(),
        vault_id: vault.open.vault,
        standing,
        created_at: manifest.created,
        committed_at,
        agent_id: manifest.agent,
        workload_id: manifest.workload,
        manifest_id: found.signed.id,
        entries: manifest.root.entries,
        packs: packs.as_ref().ok().map(vault::manifest::PackSet::len),
        problem: packs.err().map(|why| why.to_string()),
    }
}

/// The snapshot called so in any of the vaults; of several `latest` the newest.
fn find(vaults: &[Vault], name: &str) -> Result<(Arc<Reader>, String)> {
    let found = vaults.iter().filter_map(|vault| Some((vault, vault.snapshots.find(name)?)));
    let (vault, found) = found
        .max_by_key(|(_, found)| match &found.standing {
            Standing::Committed(receipt) => (true, receipt.committed_at),
            _ => (false, found.signed.manifest.created),
        })
        .ok_or_else(|| RescueError::NoSnapshot(name.to_owned()))?;
    let reader = vault
        .snapshots
        .reader_of_all(&vault.open, found)
        .map_err(|why| RescueError::Unreadable(found.name(), why))?;
    Ok((Arc::new(reader), found.name()))
}

async fn restore_one(
    vaults: Vec<Vault>,
    args: Restore,
    world: &World,
    output: &Output,
) -> Result<Exit> {
    let started = std::time::Instant::now();
    let order = Order {
        target: std::path::absolute(&args.to)?,
        include: glob_rules(&args.include)?,
        overwrite: restore::choice(args.overwrite),
        options: Options::default(),
    };
    let (figures, cancel) = (Arc::new(Figures::default()), CancellationToken::new());
    let watch = restore::Watch::begin(&figures, &cancel, output);
    let ids = world.ids.clone();
    let done = open::blocking(move || {
        let (reader, name) = find(&vaults, &args.snapshot)?;
        let mut report = crate::restore::restore(&reader, &order, ids.as_ref(), figures, cancel)?;
        let zeroed = if args.zero_damaged {
            zero_lost(&reader, &order, ids.as_ref(), &mut report)?
        } else {
            Vec::new()
        };
        Ok((report, zeroed, name, order.target.display().to_string()))
    })
    .await;
    watch.end().await;
    let (report, zeroed, name, target) = done?;
    let took = started.elapsed();
    restore::tell(
        &restore::Outcome {
            snapshot: &name,
            target: &target,
            report: &report,
            zeroed: &zeroed,
            second: (0, 0),
            took,
        },
        output,
    );
    Ok(Exit::with_exceptions(report.problems.len() + zeroed.len()))
}

/// Writes what was not restored because a part of it is lost. What now is there, zeros and all, is no longer among
/// the problems.
fn zero_lost(
    reader: &Reader,
    order: &Order,
    ids: &dyn domain::IdGen,
    report: &mut Report,
) -> Result<Vec<zero::Zeroed>> {
    let lost = |problem: &crate::restore::Problem| problem.kind == ProblemKind::NotRestored;
    let names: std::collections::HashSet<(String, Option<String>)> = report
        .problems
        .iter()
        .filter(|problem| lost(problem))
        .map(|problem| (problem.path.clone(), problem.path_b64.clone()))
        .collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let root = SafeRoot::create(&order.target)
        .map_err(|error| anyhow!("the target {}: {error}", order.target.display()))?;
    let mut zeroed = Vec::new();
    // What the tree still names is done.
    for entry in reader.entries()?.filter_map(Result::ok).filter(Entry::is_file) {
        if names.contains(&(display_path(&entry.path), exact_path(&entry.path))) {
            zeroed.push(zero::write(reader, &root, &entry, ids));
        }
    }
    let there: std::collections::HashSet<&str> = zeroed
        .iter()
        .filter(|file| file.problem.is_none())
        .map(|file| file.path.as_str())
        .collect();
    report.problems.retain(|problem| !lost(problem) || !there.contains(problem.path.as_str()));
    Ok(zeroed)
}

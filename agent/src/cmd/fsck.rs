//! `fsck`: a whole vault, checked from the bytes up; and from a damaged pack to the files that suffer.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use serde::Serialize;
use vault::{
    fsck::{
        Affected, Coverage, Depth, Finding, Loss, Options, Progress, Report, Severity, TreeProblem,
    },
    id::Sha256,
    rescue::OpenVault,
};

use super::open;
use crate::{
    output::{Exit, Output, bytes, plain},
    pipeline::member::Member,
    rescue::{self, Place, granted},
    sources::{display_path, exact_path},
};

/// What to check, and where.
#[derive(Debug, Args)]
pub struct Fsck {
    #[command(flatten)]
    place: Place,
    /// Open data packs by both ends instead of reading every byte of them.
    #[arg(long)]
    structure: bool,
    /// List the files that a damaged pack takes with it: the SHA-256 in its name, or its whole key.
    #[arg(long, value_name = "PACK", conflicts_with = "structure")]
    affected: Option<String>,
}

impl Fsck {
    /// Without a kit the agent's own snapshots are read through the server.
    pub const fn needs_server(&self) -> bool {
        self.place.kit.is_none()
    }
}

#[derive(Serialize)]
struct Summary<'a> {
    vault_id: domain::VaultId,
    status: &'static str,
    /// `structure` or `data`.
    level: &'static str,
    manifests: u64,
    snapshots: u64,
    unconfirmed: u64,
    forgotten: u64,
    entries: u64,
    source_bytes: u64,
    coverage: Coverage,
    unreferenced_packs: u64,
    findings: Vec<Shown<'a>>,
    unlisted_findings: u64,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_b64: Option<String>,
}

impl<'a> From<&'a Finding> for Shown<'a> {
    fn from(finding: &'a Finding) -> Self {
        let path = finding.path.as_deref();
        Self { finding, path: path.map(display_path), path_b64: path.and_then(exact_path) }
    }
}

#[derive(Serialize)]
struct Suffering<'a> {
    pack: String,
    vault_id: domain::VaultId,
    /// `nothing`, `frames` or `everything`.
    loss: &'static str,
    damaged_frames: u64,
    faults: &'a [String],
    snapshots: Vec<Sufferer<'a>>,
    unlisted_paths: u64,
}

#[derive(Serialize)]
struct Sufferer<'a> {
    snapshot: &'a str,
    paths: Vec<Lost>,
}

#[derive(Serialize)]
struct Lost {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_b64: Option<String>,
    /// A part of the list of entries itself is lost: everything from `path` up to this one (or to the end).
    #[serde(skip_serializing_if = "Option::is_none")]
    up_to: Option<String>,
    whole_range: bool,
}

/// Through the server: every snapshot of this machine.
pub async fn run_here(member: Member, args: Fsck, output: &Output) -> Result<Exit> {
    let all = member.control.snapshots(member.identity.workload_id).await?;
    let ids: Vec<_> = all.iter().map(|snapshot| snapshot.id).collect();
    let vault = granted::open(&member, &ids).await?;
    let output = output.clone();
    open::blocking(move || one(&vault, &args, &output)).await
}

/// A copy of the bucket, with the kit.
pub async fn run_on_copy(args: Fsck, output: &Output) -> Result<Exit> {
    let place = args.place.clone();
    let output = output.clone();
    let runtime = tokio::runtime::Handle::current();
    open::blocking(move || {
        let opened = rescue::open(&place, &runtime)?;
        for note in &opened.notes {
            output.note(format_args!("note: {}", plain(note)));
        }
        let mut exit = if opened.closed.is_empty() { Exit::Good } else { Exit::Failed };
        for closed in &opened.closed {
            output.note(format_args!("{} stays closed: {}", closed.vault, closed.why));
        }
        for vault in &opened.vaults {
            if one(vault, &args, &output)? != Exit::Good {
                exit = Exit::Failed;
            }
        }
        Ok(exit)
    })
    .await
}

fn one(vault: &OpenVault, args: &Fsck, output: &Output) -> Result<Exit> {
    match &args.affected {
        Some(pack) => suffering(vault, pack, output),
        None => check(vault, if args.structure { Depth::Structure } else { Depth::Data }, output),
    }
}

/// Checks one vault and tells. Blocking.
pub fn check(vault: &OpenVault, depth: Depth, output: &Output) -> Result<Exit> {
    let bar = output.progress(None);
    let last = AtomicU64::new(0);
    let progress = |progress: Progress| match progress {
        Progress::Packs { done, of, bytes: read } => {
            // Workers report out of order: the bar only moves on.
            if last.fetch_max(done, Ordering::Relaxed) < done {
                bar.message(format!("{done} of {of} packs, {} read", bytes(read)));
            }
        }
        Progress::Snapshots { done, of } => bar.message(format!("{done} of {of} snapshots")),
    };
    let workers = std::thread::available_parallelism().map_or(2, |count| count.get().min(4));
    let options = Options { depth, workers, progress: &progress, ..Options::default() };
    let report = vault::fsck::check(vault, &options).context("the bucket cannot be listed")?;
    drop(bar);
    tell(vault, depth, &report, output);
    Ok(if report.is_clean() { Exit::Good } else { Exit::Failed })
}

fn tell(vault: &OpenVault, depth: Depth, report: &Report, output: &Output) {
    if output.is_json() {
        return output.json(&Summary {
            vault_id: vault.vault,
            status: if report.is_clean() { "succeeded" } else { "failed" },
            level: if depth == Depth::Data { "data" } else { "structure" },
            manifests: report.manifests,
            snapshots: report.snapshots,
            unconfirmed: report.unconfirmed,
            forgotten: report.forgotten,
            entries: report.entries,
            source_bytes: report.source_bytes,
            coverage: report.coverage,
            unreferenced_packs: report.unreferenced,
            findings: report.findings.iter().map(Shown::from).collect(),
            unlisted_findings: report.unlisted,
        });
    }
    for finding in &report.findings {
        output.line(words(finding));
    }
    if report.unlisted > 0 {
        output.line(format_args!("… and {} more", report.unlisted));
    }
    output.line(format_args!(
        "Vault {}: {} snapshots ({} unconfirmed, {} forgotten), {} entries, {}; {} packs, {} of them to the last byte, {} read, {} frames opened. {}",
        vault.vault,
        report.snapshots,
        report.unconfirmed,
        report.forgotten,
        report.entries,
        bytes(report.source_bytes),
        report.coverage.packs,
        report.coverage.packs_whole,
        bytes(report.coverage.bytes),
        report.coverage.frames,
        if report.is_clean() { "All is well." } else { "NOT all is as it should be." }
    ));
}

/// One finding for people.
pub fn words(finding: &Finding) -> String {
    let word = match finding.severity {
        Severity::Damage => "damage",
        Severity::Suspicious => "suspicious",
        Severity::Note => "note",
    };
    let mut line = format!("{word}:");
    let path = finding.path.as_deref().map(display_path);
    for part in [finding.snapshot.as_ref(), finding.object.as_ref(), path.as_ref()] {
        line.extend(part.map(|part| format!(" {}:", plain(part))));
    }
    format!("{line} {}", plain(&finding.detail))
}

fn suffering(vault: &OpenVault, pack: &str, output: &Output) -> Result<Exit> {
    let wanted = hash(pack).ok_or_else(|| {
        anyhow!("{pack:?} is no pack: give the 64 hex digits in its name, or its whole key")
    })?;
    let Some(affected) = vault::fsck::affected(vault, &wanted)? else {
        output.note(format_args!("no snapshot of {} uses pack {wanted}", vault.vault));
        return Ok(Exit::Good);
    };
    let (loss, damaged_frames) = match affected.loss {
        Loss::Nothing => ("nothing", 0),
        Loss::Frames(count) => ("frames", count),
        Loss::Everything => ("everything", 0),
    };
    let lines = lines(&affected);
    if output.is_json() {
        output.json(&Suffering {
            pack: wanted.to_string(),
            vault_id: vault.vault,
            loss,
            damaged_frames,
            faults: &affected.faults,
            snapshots: lines,
            unlisted_paths: affected.unlisted,
        });
    } else {
        for snapshot in &lines {
            output.line(format_args!("{}:", snapshot.snapshot));
            for lost in &snapshot.paths {
                let until = match (&lost.up_to, lost.whole_range) {
                    (Some(until), _) => format!(" and all that follows, up to {}", plain(until)),
                    (None, true) => " and all that follows".to_owned(),
                    (None, false) => String::new(),
                };
                output.line(format_args!("  {}{until}", plain(&lost.path)));
            }
        }
        for fault in &affected.faults {
            output.line(format_args!("pack {wanted}: {}", plain(fault)));
        }
        output.line(match affected.loss {
            Loss::Nothing => "The pack is sound; these files use it.".to_owned(),
            Loss::Frames(count) => {
                format!("{count} frames of the pack are lost; these files suffer.")
            }
            Loss::Everything => "All of the pack is lost; these files suffer.".to_owned(),
        });
    }
    Ok(if affected.loss == Loss::Nothing { Exit::Good } else { Exit::Failed })
}

fn lines<'a>(affected: &'a Affected) -> Vec<Sufferer<'a>> {
    let lost = |problem: &TreeProblem| {
        let (path, up_to, whole_range) = match problem {
            TreeProblem::Content { path, .. } => (path, None, false),
            TreeProblem::Node { from, until, .. } => (from, until.as_deref(), true),
            TreeProblem::Boundaries | TreeProblem::Usage { .. } => return None,
        };
        let up_to = up_to.map(display_path);
        Some(Lost { path: display_path(path), path_b64: exact_path(path), up_to, whole_range })
    };
    let each = |(snapshot, problems): &'a (String, Vec<TreeProblem>)| Sufferer {
        snapshot,
        paths: problems.iter().filter_map(lost).collect(),
    };
    affected.snapshots.iter().map(each).collect()
}

fn hash(text: &str) -> Option<Sha256> {
    let name = text.rsplit('/').next()?;
    let digits = name.split('-').next()?;
    Sha256::from_slice(&hex::decode(digits).ok()?)
}

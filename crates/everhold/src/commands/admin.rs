//! `everhold admin`: what an operator does by hand, beside a running platform or after its loss.
//!
//! Speaks to the database as the catalog's own login, under row security, and to the store with its scoped keys; it
//! serves nothing. Everything it changes is in the audit record.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context as _;
use api::catalog::VaultReplica;
use catalog::{
    Catalog,
    freezes::{self, Freeze},
    rebuild::{self, Mode},
    replica::{
        self, copy,
        repair::{self, Repaired},
    },
    scrub::{self, Where},
};
use domain::{IdGen as _, SystemClock, SystemIds};
use serde::Serialize;
use vault::scrub::Sample;

use super::{FOUND, Usage, keeping, load, say};
use crate::{
    cli::{
        AdminCommand, DeclareLost, LiftFreeze, List, Platform, Rebuild, ReplicaAt, ReplicaCommand,
        ReplicaSet, Scrub,
    },
    dev, server,
};

pub async fn run(command: &AdminCommand) -> anyhow::Result<ExitCode> {
    match command {
        AdminCommand::RebuildCatalog(args) => rebuild(args).await,
        AdminCommand::Scrub(args) => scrub(args).await,
        AdminCommand::Replica { command } => match command {
            ReplicaCommand::Set(args) => replica_set(args).await,
            ReplicaCommand::Status(args) => replica_status(args).await,
            ReplicaCommand::Copy(args) => replica_copy(args).await,
        },
        AdminCommand::DeclareLost(args) => declare_lost(args).await,
        AdminCommand::Freezes(args) => list_freezes(args).await,
        AdminCommand::LiftFreeze(args) => lift_freeze(args).await,
        AdminCommand::Hold(args) => keeping::hold(args).await,
        AdminCommand::Holds(args) => keeping::holds(args).await,
        AdminCommand::ReleaseHold(args) => keeping::release(args).await,
        AdminCommand::Expired(args) => keeping::expired(args).await,
        AdminCommand::UndoExpiry(args) => keeping::undo(args).await,
    }
}

pub async fn open(platform: &Platform) -> anyhow::Result<Catalog> {
    let config = match &platform.state {
        Some(state) => dev::config_of_state(state)?,
        None => load(platform.config.config.as_deref())?,
    };
    server::catalog_alone(&config, Arc::new(SystemClock), Arc::new(SystemIds)).await
}

pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(say(serde_json::to_string_pretty(value)?)?)
}

async fn rebuild(args: &Rebuild) -> anyhow::Result<ExitCode> {
    let app = open(&args.platform).await?;
    let mode = if args.apply { Mode::Apply } else { Mode::DryRun };
    let reports = rebuild::rebuild(&app, args.platform.tenant, args.platform.vault, mode).await?;
    let whole = reports.iter().all(|r| r.findings.is_empty() && r.unconfirmed.is_empty());
    let code = if whole && !reports.is_empty() { ExitCode::SUCCESS } else { FOUND };
    if args.json {
        json(&reports)?;
        return Ok(code);
    }
    for report in &reports {
        for finding in &report.findings {
            say(format_args!("finding: {finding}"))?;
        }
        for manifest in &report.unconfirmed {
            say(format_args!(
                "undecided: {manifest} has neither receipt nor forget record; its packs are kept, and collection stands still for this tenant until a person decides"
            ))?;
        }
        say(format_args!(
            "{}: {} members, {} wraps, {} workloads, {} sessions, {} packs ({} lost), {} committed and {} forgotten snapshots, {} references; {}",
            report.vault_id,
            report.members,
            report.wraps,
            report.workloads,
            report.sessions,
            report.packs,
            report.lost_packs,
            report.committed,
            report.forgotten,
            report.references,
            match mode {
                Mode::DryRun => "nothing was written: add --apply".to_owned(),
                Mode::Apply => format!("{} rows written", report.written),
            }
        ))?;
    }
    if reports.is_empty() {
        say("The key store has no vault of this tenant.")?;
    }
    Ok(code)
}

async fn scrub(args: &Scrub) -> anyhow::Result<ExitCode> {
    let app = open(&args.platform).await?;
    let vault = vault_of(&args.platform)?;
    let seed = args.seed.unwrap_or_else(|| {
        let mut bytes = [0; 8];
        SystemIds.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    });
    let (tenant, at) =
        (args.platform.tenant, if args.second { Where::Second } else { Where::First });
    let report = scrub::scrub_at(&app, tenant, vault, at, args.sample.0, seed).await?;
    let repaired = if args.repair && !report.is_clean() {
        repair::repair(&app, tenant, vault, at, &report.findings).await?
    } else {
        Vec::new()
    };
    let left = report.findings.len() - repaired.iter().filter(|one| one.why_not.is_none()).count();
    let code = if left == 0 { ExitCode::SUCCESS } else { FOUND };
    if args.json {
        json(&Scrubbed { report: &report, repaired: &repaired })?;
        return Ok(code);
    }
    tell_scrub(&report)?;
    for one in &repaired {
        match &one.why_not {
            None => say(format_args!("repaired: {}", one.pack_id))?,
            Some(why) => say(format_args!("not repaired: {}: {why}", one.pack_id))?,
        }
    }
    Ok(code)
}

#[derive(Serialize)]
struct Scrubbed<'a> {
    #[serde(flatten)]
    report: &'a scrub::Report,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    repaired: &'a [Repaired],
}

fn tell_scrub(report: &scrub::Report) -> anyhow::Result<()> {
    for finding in &report.findings {
        say(format_args!(
            "{:?}: {} ({}): {}; {} snapshots need it",
            finding.what,
            finding.pack_id,
            finding.object_key,
            finding.detail,
            finding.snapshots.len()
        ))?;
        for snapshot in &finding.snapshots {
            say(format_args!("  {snapshot}"))?;
        }
    }
    for line in &report.confidence {
        say(format_args!(
            "if {} % of the packs ({}) were damaged: {:.2} % chance that none of them was read",
            line.damaged_percent,
            line.damaged_packs,
            line.chance_of_missing * 100.0
        ))?;
    }
    say(format_args!(
        "{}: {} of {} objects, {} of {} bytes ({:.2} %) read in {:.1} s, seed {}. {}",
        report.vault_id,
        report.packs_read,
        report.packs,
        report.bytes_read,
        report.bytes,
        report.coverage_percent,
        std::time::Duration::from_millis(report.duration_ms).as_secs_f64(),
        report.seed,
        if report.is_clean() {
            "What was read is sound."
        } else {
            "NOT sound. Which files suffer: everhold-agent fsck --affected PACK. From the vault's other copy: scrub --repair."
        }
    ))?;
    Ok(())
}

fn vault_of(platform: &Platform) -> anyhow::Result<domain::VaultId> {
    Ok(platform.vault.ok_or_else(|| Usage("--vault is missing".to_owned()))?)
}

async fn replica_set(args: &ReplicaSet) -> anyhow::Result<ExitCode> {
    let app = open(&args.platform).await?;
    let (tenant, vault) = (args.platform.tenant, vault_of(&args.platform)?);
    let evidence = replica::look_at(&app, &args.store).await.map_err(refusal)?;
    let (name, days) = (&args.store, args.lock_days);
    let status = replica::configure(&app, tenant, vault, name, days, &evidence).await;
    tell_replica(&status.map_err(refusal)?, args.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn replica_status(args: &ReplicaAt) -> anyhow::Result<ExitCode> {
    let app = open(&args.platform).await?;
    tell_status(&app, args).await
}

async fn replica_copy(args: &ReplicaAt) -> anyhow::Result<ExitCode> {
    let app = open(&args.platform).await?;
    let vault = vault_of(&args.platform)?;
    loop {
        let turn = copy::turn(&app, args.platform.tenant, vault, copy::BUDGET).await;
        let turn = turn.map_err(refusal)?;
        if !turn.left_over || turn.copied == 0 {
            return tell_status(&app, args).await;
        }
    }
}

async fn tell_status(app: &Catalog, args: &ReplicaAt) -> anyhow::Result<ExitCode> {
    let status = replica::status(app, args.platform.tenant, vault_of(&args.platform)?).await;
    let status = status.map_err(refusal)?;
    tell_replica(&status, args.json)?;
    Ok(if status.snapshots_behind == 0 { ExitCode::SUCCESS } else { FOUND })
}

/// A list, as JSON or a line each; `none` when it is empty.
pub fn tell_all<T: Serialize>(
    items: &[T],
    as_json: bool,
    words: impl Fn(&T) -> String,
    none: &str,
) -> anyhow::Result<()> {
    if as_json {
        return json(&items);
    }
    items.iter().try_for_each(|item| say(words(item)))?;
    if items.is_empty() {
        say(none)?;
    }
    Ok(())
}

/// A refusal with the fields it is about; the rest as it is.
pub fn refusal(error: catalog::error::Error) -> anyhow::Error {
    match error {
        catalog::error::Error::Refused(problem) => {
            let fields = problem.fields.iter().map(|f| format!("{}: {}", f.field, f.detail));
            let said: Vec<String> = fields.collect();
            if said.is_empty() {
                anyhow::anyhow!("{problem}")
            } else {
                anyhow::anyhow!(said.join("; "))
            }
        }
        other => other.into(),
    }
}

fn tell_replica(status: &VaultReplica, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return json(status);
    }
    say(format_args!(
        "{}: second copy in bucket {} at {} ({}), locked for {} days at least",
        status.vault_id, status.bucket, status.endpoint, status.store, status.lock_days
    ))?;
    say(format_args!(
        "{} objects ({} bytes) are there; {} objects ({} bytes) and {} snapshots are missing{}",
        status.packs_copied,
        status.bytes_copied,
        status.packs_behind,
        status.bytes_behind,
        status.snapshots_behind,
        status.oldest_uncopied_at.map(|at| format!(", the oldest of {at}")).unwrap_or_default()
    ))?;
    if let Some(trouble) = &status.trouble {
        say(format_args!("in the way: {trouble}"))?;
    }
    Ok(())
}

async fn declare_lost(args: &DeclareLost) -> anyhow::Result<ExitCode> {
    let app = open(&args.platform).await?;
    let vault = vault_of(&args.platform)?;
    let declared = scrub::declare(&app, args.platform.tenant, vault, &args.packs)
        .await
        .context("the packs were not declared lost")?;
    let all = declared.iter().all(|one| one.lost.is_some());
    if args.json {
        json(&declared)?;
    } else {
        for one in &declared {
            let word = one.lost.as_deref().unwrap_or("stays as it is");
            say(format_args!("{}: {word}: {}", one.pack_id, one.detail))?;
        }
    }
    Ok(if all { ExitCode::SUCCESS } else { FOUND })
}

async fn list_freezes(args: &List) -> anyhow::Result<ExitCode> {
    let app = open(&args.platform).await?;
    let standing = freezes::list(&app, args.platform.tenant).await?;
    tell_all(&standing, args.json, words, "Nothing is frozen.")?;
    Ok(if standing.is_empty() { ExitCode::SUCCESS } else { FOUND })
}

fn words(freeze: &Freeze) -> String {
    let what = match freeze.reason.as_str() {
        "unknown_receipt" => "an agent showed a receipt the database does not know, of snapshot",
        _ => "a rebuild found neither receipt nor forget record of manifest",
    };
    format!("{} since {}: {what} {}", freeze.id, freeze.frozen_at, freeze.evidence)
}

/// A reason worth recording.
pub fn reason(text: &str) -> Result<String, String> {
    if freezes::is_reason(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("say in 1 to {} characters what was decided and why", freezes::MAX_REASON))
    }
}

async fn lift_freeze(args: &LiftFreeze) -> anyhow::Result<ExitCode> {
    let app = open(&args.platform).await?;
    let lifted = freezes::lift(&app, args.platform.tenant, &args.freezes, &args.reason)
        .await
        .context("no freeze was lifted")?;
    if args.json {
        json(&lifted)?;
    } else {
        lifted.iter().try_for_each(|freeze| say(format!("lifted: {}", words(freeze))))?;
        let missing = |id: &&domain::EventId| !lifted.iter().any(|freeze| freeze.id == **id);
        for id in args.freezes.iter().filter(missing) {
            say(format_args!("{id}: no freeze of this tenant that stands is called so"))?;
        }
    }
    Ok(if lifted.len() == args.freezes.len() { ExitCode::SUCCESS } else { FOUND })
}

/// `full`, `5%`, `0.5%`, or bytes with a unit (`10GiB`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleArg(pub Sample);

impl std::str::FromStr for SampleArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "say full, a share like 5% or 0.25%, or bytes like 512MiB".to_owned();
        let text = text.trim();
        if text == "full" {
            return Ok(Self(Sample::Full));
        }
        if let Some(percent) = text.strip_suffix('%') {
            let (whole, part) = percent.split_once('.').unwrap_or((percent, ""));
            let part = format!("{part:0<2}");
            let digits = format!("{whole}{}", part.get(..2).ok_or_else(wrong)?);
            let plain = part.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
            let permyriad =
                digits.parse().ok().filter(|share| plain && (1..=10_000).contains(share));
            return Ok(Self(Sample::Share { permyriad: permyriad.ok_or_else(wrong)? }));
        }
        let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(at);
        let shift = match unit {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return Err(wrong()),
        };
        let bytes: u64 = number.parse().map_err(|_| wrong())?;
        bytes.checked_mul(1 << shift).map(|bytes| Self(Sample::Bytes(bytes))).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_spelled_as_shares_bytes_or_everything() {
        let parse = |text: &str| text.parse::<SampleArg>().map(|sample| sample.0);
        assert_eq!(parse("full"), Ok(Sample::Full));
        assert_eq!(parse("5%"), Ok(Sample::Share { permyriad: 500 }));
        assert_eq!(parse("0.25%"), Ok(Sample::Share { permyriad: 25 }));
        assert_eq!(parse("100%"), Ok(Sample::Share { permyriad: 10_000 }));
        assert_eq!(parse("512MiB"), Ok(Sample::Bytes(512 << 20)));
        for wrong in ["", "0%", "101%", "0.001%", "-1%", "5", "1.5GiB", "x%", "20000000TiB"] {
            let fine = wrong == "5";
            assert_eq!(parse(wrong).is_ok(), fine, "{wrong}");
        }
    }
}

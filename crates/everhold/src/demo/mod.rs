//! The main job, shown: what `make run` does, step by step, with figures.
//!
//! Owns the order of the steps and their words. It uses the platform as a stranger would: a child process,
//! `dev.json`, the public API, the real agent binary, and an S3 client with the store administrator's key.
//! It must not reach into any role. Every figure printed was measured or answered in this very run.

mod agent;
mod compare;
mod lock;
mod platform;
mod print;
mod source;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use api::{
    Page,
    catalog::{Entry, Snapshot},
};

use self::{agent::Agent, platform::Platform, print::Printer};

/// `everhold demo`: back up and restore something real on the embedded platform, and show it.
#[derive(Debug, Clone, clap::Args)]
pub struct Demo {
    /// State folder of the platform.
    #[arg(long, default_value = ".everhold")]
    pub state: PathBuf,
    /// The agent's program; beside this one unless told.
    #[arg(long)]
    pub agent: Option<PathBuf>,
    /// Exit after the job instead of staying up.
    #[arg(long)]
    pub once: bool,
    /// Port of the portal; the one of the last start, or a free one, unless told.
    #[arg(long)]
    pub port: Option<u16>,
}

/// Runs the job. The platform is stopped however it ends.
///
/// # Errors
/// Whatever step failed, with what to look at.
pub async fn run(demo: Demo) -> Result<()> {
    let printer = Printer::new();
    let mut platform = Platform::start(&demo).await?;
    let ended = tokio::select! {
        ended = job(&demo, &platform, &printer) => ended,
        () = platform::stop_requested() => Ok(()),
    };
    if ended.is_ok() && !demo.once {
        printer.signs(&platform.dev);
        platform::stop_requested().await;
        printer.line("stopping …");
    }
    let stopped = platform.stop().await;
    ended?;
    stopped
}

async fn job(demo: &Demo, platform: &Platform, printer: &Printer) -> Result<()> {
    let folder = platform.state.join("demo");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("{} cannot be made", folder.display()))?;
    printer.step(
        "platform",
        &format!("{} · ready in {}", platform.dev.portal_url, print::seconds(platform.ready_in)),
    );

    let agent = Agent::new(demo.agent.as_deref(), &platform.state.join("demo-agent"))?;
    enrol(&agent, platform, &folder, printer).await?;
    let earlier = agent.snapshots().await?;
    if !earlier.is_empty() {
        printer.step(
            "earlier data",
            &format!("{} found again", print::plural(earlier.len(), "snapshot")),
        );
    }

    let real = source::real_folder()?;
    let notes = source::notes(&folder)?;
    let first = backup(&agent, &[&real, &notes], "first backup", printer).await?;
    browse(platform, &first, &notes, printer).await?;
    restore(&agent, &first, &[&real, &notes], &folder, printer).await?;

    let changed = source::change(&notes)?;
    let second = backup(&agent, &[&real, &notes], "second backup", printer).await?;
    printer.more(&format!(
        "{} changed, and only {} travelled",
        print::plural(changed, "file"),
        print::bytes(second.stored_bytes)
    ));
    show_lock(platform, &second, printer).await
}

async fn enrol(agent: &Agent, platform: &Platform, folder: &Path, printer: &Printer) -> Result<()> {
    if agent.is_enrolled() {
        printer.step("agent", "enrolled at an earlier start");
        return Ok(());
    }
    let kit = folder.join("recovery-kit.json");
    let _ = std::fs::remove_file(&kit);
    agent.enrol(&platform.dev, &kit).await?;
    printer.step("agent", "enrolled with its own keys");
    printer.more(&format!("recovery kit: {} (a real one is kept elsewhere)", kit.display()));
    Ok(())
}

async fn backup(
    agent: &Agent,
    paths: &[&Path],
    name: &str,
    printer: &Printer,
) -> Result<agent::Backup> {
    let result = agent.backup(paths).await?;
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    printer.step(
        name,
        &format!(
            "{} files, {} · {} new · {} stored · {}",
            print::count(result.files),
            print::bytes(result.source_bytes),
            print::bytes(result.new_bytes),
            print::bytes(result.stored_bytes),
            print::seconds(std::time::Duration::from_millis(result.duration_ms)),
        ),
    );
    printer.more(&paths.join(" and "));
    printer.more(&format!("committed as {} ({})", result.snapshot_id, result.status));
    for exception in &result.exceptions {
        printer.more(&format!("exception: {exception}"));
    }
    Ok(result)
}

async fn browse(
    platform: &Platform,
    backup: &agent::Backup,
    folder: &Path,
    printer: &Printer,
) -> Result<()> {
    let path = format!(
        "/v1/tenants/{}/snapshots/{}/entries?path={}&limit=5",
        platform.dev.tenant.id,
        backup.snapshot_id,
        print::query(&folder.display().to_string()),
    );
    let page: Page<Entry> =
        platform.as_tenant().await?.get(&path).await.context("browse the snapshot")?;
    ensure!(!page.items.is_empty(), "the snapshot shows an empty {}", folder.display());
    let names: Vec<&str> = page.items.iter().map(|entry| entry.name.as_str()).collect();
    printer.step("browse", &format!("{}: {} …", folder.display(), names.join(", ")));
    Ok(())
}

async fn restore(
    agent: &Agent,
    backup: &agent::Backup,
    paths: &[&Path],
    folder: &Path,
    printer: &Printer,
) -> Result<()> {
    let target = folder.join("restored");
    if target.exists() {
        std::fs::remove_dir_all(&target).context("clear the folder of an earlier restore")?;
    }
    let start = Instant::now();
    agent.restore(&backup.snapshot_id, &target).await?;
    let took = start.elapsed();
    let mut seen = compare::Compared::default();
    for path in paths {
        let restored = target.join(path.strip_prefix("/").unwrap_or(path));
        seen.add(&compare::trees(path, &restored)?);
    }
    ensure!(
        seen.differences.is_empty(),
        "the restored tree differs:\n  {}",
        seen.differences.join("\n  ")
    );
    printer.step("restore", &format!("to {} · {}", target.display(), print::seconds(took)));
    printer.more(&format!(
        "compared: {} entries, {} byte for byte, {} · no difference",
        print::count(seen.entries),
        print::bytes(seen.bytes),
        seen.attributes(),
    ));
    std::fs::remove_dir_all(&target).context("remove what was restored for the comparison")
}

async fn show_lock(platform: &Platform, backup: &agent::Backup, printer: &Printer) -> Result<()> {
    let tenant = &platform.dev.tenant.id;
    let client = platform.as_tenant().await?;
    let snapshot: Snapshot =
        client.get(&format!("/v1/tenants/{tenant}/snapshots/{}", backup.snapshot_id)).await?;
    let shown = lock::try_to_delete(platform, &client, &snapshot).await?;
    printer.step(
        "lock",
        &format!("{} is locked in COMPLIANCE mode until {}", shown.pack, shown.until),
    );
    printer.more(&format!(
        "deleting it with the store administrator's key: refused ({})",
        shown.refusal
    ));
    printer.more(&format!("the snapshot is protected until {}", snapshot.protect_until));
    Ok(())
}

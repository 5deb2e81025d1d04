//! `backup`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{Backup, Share};
use crate::{
    output::{Exit, Output, bytes, plain},
    pipeline::{
        backup::{CHECKPOINT, Done, Limits, Plan, Watch, bury_predecessor, execute},
        feed::LeftOut,
        member::Member,
    },
    sources::{Excluded, Excludes, Names, Roots, WalkOptions, glob_rules},
    state::Home,
};
use anyhow::{Context as _, Result, bail};
use api::{
    Code,
    scheduler::{Assignment, CreateRun, RunSource},
};
use domain::{SnapshotId, run::RunState, source::RunException};
use serde::Serialize;

/// The last line of `backup --json`.
#[derive(Debug, Serialize)]
pub struct Summary<'a> {
    pub snapshot_id: SnapshotId,
    pub status: RunState,
    pub files: u64,
    pub source_bytes: u64,
    /// Content not stored before, without metadata.
    pub new_bytes: u64,
    /// Read from files: what looked as before was not.
    pub read_bytes: u64,
    pub stored_bytes: u64,
    pub duration_ms: u64,
    /// All, or the first of very many.
    pub exceptions: &'a [RunException],
    /// A file with all of them, where they are too many to be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exceptions_file: Option<&'a Path>,
}

#[derive(Serialize)]
struct WarningLine<'a> {
    event: &'static str,
    detail: &'a str,
}

#[derive(Serialize)]
struct LeftOutLine<'a> {
    event: &'static str,
    path: &'a str,
    reason: String,
}

pub async fn run(member: Member, args: Backup, output: &Output) -> Result<Exit> {
    let cwd = std::env::current_dir().context("the current folder cannot be named")?;
    let source = source_of(&args)?;
    let plan = plan(&member.home, &args.paths, source, &cwd, &args.share)?;
    for (link, target) in plan.roots.followed() {
        output.note(format_args!(
            "{} is a link: it and {} are backed up",
            plain(&link.display().to_string()),
            plain(&target.display().to_string())
        ));
    }
    let _lock = member.home.lock_for_run()?;
    let member = Arc::new(member);
    let create = CreateRun {
        workload_id: member.identity.workload_id,
        source: Some(RunSource { paths: plan.roots.display(), ..plan.source.clone() }),
    };
    bury_predecessor(&member).await;
    let assignment = start(&member, &create, output).await?;
    let watch = Watch::default();
    let signals = tokio::spawn(cancel_on_signal(watch.clone()));
    let progress = tokio::spawn(show(watch.clone(), output.clone()));
    let done = execute(&member, plan, &assignment, &watch).await;
    progress.abort();
    signals.abort();
    // The bar is gone when its task is.
    let _ = progress.await;
    let done = done?;
    report(&done, output);
    Ok(Exit::with_exceptions(usize::try_from(done.exceptions.count()).unwrap_or(usize::MAX)))
}

/// How long a lease of a run that nobody carries on is waited for, in tries of [`LEASE_PAUSE`].
const LEASE_TRIES: u32 = 30;
const LEASE_PAUSE: Duration = Duration::from_secs(3);

/// Starts a run. One of a process that died without leaving a note is waited for: its lease ends.
async fn start(member: &Member, create: &CreateRun, output: &Output) -> Result<Assignment> {
    for attempt in 1.. {
        match member.control.start_local_run(create).await {
            Err(error) if error.code() == Some(Code::Conflict) && attempt < LEASE_TRIES => {
                if attempt == 1 {
                    output.note(format_args!("{error}; waiting for it to end"));
                }
                tokio::time::sleep(LEASE_PAUSE).await;
            }
            other => return Ok(other?),
        }
    }
    bail!("the run of another process does not end; try again later")
}

/// SIGINT and SIGTERM end the run at a safe point, as canceled.
async fn cancel_on_signal(watch: Watch) {
    super::daemon::stop_signal().await;
    watch.cancel.cancel();
}

fn source_of(args: &Backup) -> Result<RunSource> {
    let mut excludes = args.exclude.clone();
    for file in &args.exclude_from {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        excludes.extend(patterns_in(&text)?);
    }
    Ok(RunSource {
        paths: Vec::new(),
        excludes,
        one_file_system: args.one_file_system,
        exclude_caches: args.exclude_caches,
        tags: args.tag.iter().cloned().collect(),
    })
}

fn patterns_in(text: &str) -> Result<Vec<String>> {
    let mut patterns = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.chars().next() {
            Some('#') => {}
            Some('!') => {
                bail!("{line:?}: patterns that include again are not supported; remove it")
            }
            _ => patterns.push(line.to_owned()),
        }
    }
    Ok(patterns)
}

/// What a run is to do, checked before anybody is told of it.
pub fn plan(
    home: &Home,
    paths: &[PathBuf],
    source: RunSource,
    cwd: &Path,
    share: &Share,
) -> Result<Plan> {
    let roots = Roots::resolve(paths, cwd)?;
    if !roots.paths().iter().any(|root| exists(root)) {
        bail!("none of {} can be reached; check the paths", roots.display().join(", "));
    }
    let excludes = Excludes {
        patterns: glob_rules(&source.excludes)?,
        one_file_system: source.one_file_system,
        caches: source.exclude_caches,
        agent_home: home.fingerprint(),
    };
    let options = WalkOptions { excludes, names: Names::of_this_machine() };
    let limits = Limits {
        upload: share.limit_upload,
        download: share.limit_download,
        read: share.limit_read,
    };
    let checkpoint = share.checkpoint_every.map_or(CHECKPOINT, Duration::from_secs);
    Ok(Plan { roots, options, source, memory: share.memory, limits, checkpoint })
}

fn exists(root: &[Vec<u8>]) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let mut path = PathBuf::from("/");
    path.extend(root.iter().map(|name| std::ffi::OsStr::from_bytes(name)));
    path.symlink_metadata().is_ok()
}

async fn show(watch: Watch, output: Output) {
    let bar = output.progress(None);
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        ticks.tick().await;
        let now = watch.counters.progress("");
        let mut line = format!(
            "{} files, {} read, {} stored",
            now.files,
            bytes(now.source_bytes),
            bytes(now.stored_bytes)
        );
        if now.exceptions > 0 {
            line.push_str(&format!(", {} exceptions", now.exceptions));
        }
        bar.message(line);
    }
}

/// Tells how it went; the last line on stdout is the summary.
pub fn report(done: &Done, output: &Output) {
    if output.is_json() {
        for LeftOut { path, why } in done.left_out.iter() {
            output.json(&LeftOutLine { event: "left_out", path, reason: why.to_string() });
        }
        for detail in &done.warnings {
            output.json(&WarningLine { event: "warning", detail });
        }
        output.json(&Summary {
            snapshot_id: done.snapshot_id,
            status: done.status,
            files: done.stats.files,
            source_bytes: done.stats.source_bytes,
            new_bytes: done.stats.new_bytes,
            read_bytes: done.read_bytes,
            stored_bytes: done.stats.stored_bytes,
            duration_ms: done.stats.duration_ms,
            exceptions: &done.exceptions,
            exceptions_file: done.exceptions.file(),
        });
        return;
    }
    let by_pattern = done.left_out.iter().filter(|left| left.why == Excluded::Pattern).count();
    for left in done.left_out.iter().filter(|left| left.why != Excluded::Pattern) {
        output.line(format_args!("left out: {} ({})", plain(&left.path), left.why));
    }
    if by_pattern > 0 {
        output.line(format_args!("left out: {by_pattern} entries by exclude patterns"));
    }
    let left_out = &done.left_out;
    say_more("left out", (left_out.len(), left_out.count()), left_out.file(), output);
    for exception in done.exceptions.iter() {
        let kind = serde_json::to_string(&exception.kind).unwrap_or_default();
        output.line(format_args!(
            "exception: {} {}: {}",
            kind.trim_matches('"'),
            plain(&exception.path),
            plain(&exception.detail)
        ));
    }
    let exceptions = &done.exceptions;
    say_more("exceptions", (exceptions.len(), exceptions.count()), exceptions.file(), output);
    for warning in &done.warnings {
        output.line(format_args!("warning: {}", plain(warning)));
    }
    let stats = &done.stats;
    output.line(format_args!(
        "Snapshot {}: {} files, {}; {} new, {} stored, in {:.1} s; locked until {}",
        done.snapshot_id,
        stats.files,
        bytes(stats.source_bytes),
        bytes(stats.new_bytes),
        bytes(stats.stored_bytes),
        Duration::from_millis(stats.duration_ms).as_secs_f64(),
        done.locked_until
    ));
    if !done.exceptions.is_empty() {
        output.line(format_args!(
            "{} exceptions, listed above; everything else is protected.",
            done.exceptions.count()
        ));
    }
}

/// Where the rest of a long list is, if not `all` of it is shown.
pub fn say_more(what: &str, (shown, all): (usize, u64), file: Option<&Path>, output: &Output) {
    if all > shown as u64 {
        let file = file.map_or_else(|| "in the log".to_owned(), |f| f.display().to_string());
        output.line(format_args!(
            "{what}: these are the first {shown} of {all}; all of them: {}",
            plain(&file)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_files_have_comments_and_no_second_thoughts() {
        let patterns = patterns_in("# all\n*.tmp\n\n  /var/cache  \n").expect("good");
        assert_eq!(patterns, ["*.tmp", "/var/cache"]);
        assert!(patterns_in("!keep").is_err());
    }

    #[test]
    fn a_backup_of_nothing_does_not_begin() {
        let home = Home::at(PathBuf::from("/nonexistent-home"));
        let paths = [PathBuf::from("/nonexistent-a"), PathBuf::from("/nonexistent-b")];
        let error = plan(&home, &paths, RunSource::default(), Path::new("/"), &Share::default());
        assert!(error.err().is_some_and(|e| e.to_string().contains("/nonexistent-a")));
    }

    #[test]
    fn the_summary_has_exactly_the_promised_fields() {
        let summary = Summary {
            snapshot_id: SnapshotId::from_bytes([1; 16]),
            status: RunState::Succeeded,
            files: 1,
            source_bytes: 2,
            new_bytes: 3,
            read_bytes: 4,
            stored_bytes: 5,
            duration_ms: 6,
            exceptions: &[],
            exceptions_file: None,
        };
        let text = serde_json::to_string(&summary).expect("json");
        assert_eq!(
            text,
            r#"{"snapshot_id":"snp_01010101010101010101010101010101","status":"succeeded","files":1,"source_bytes":2,"new_bytes":3,"read_bytes":4,"stored_bytes":5,"duration_ms":6,"exceptions":[]}"#
        );
    }
}

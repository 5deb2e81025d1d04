//! `restore`.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use domain::SnapshotId;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use vault::snapshot::{ReadError, Reader};

use super::{Overwrite as Choice, Restore, backup::say_more, open};
use crate::{
    control::Pace,
    output::{Exit, Output, bytes, plain},
    pipeline::{member::Member, second::SecondCopy, source::Caching},
    rescue::zero::Zeroed,
    restore::{
        Action, Afterwards, Durability, Figures, Options, Order, Overwrite, Problem, Report,
        RestoreError, Selection, Unreadable, dry_run, restore,
        stream::{Shape, Streamed, is_closed, stream},
    },
    sources::glob_rules,
};

/// What became of a restore, with a control plane or without.
pub struct Outcome<'a> {
    /// The snapshot's name: its id, or its manifest's while nobody confirmed it.
    pub snapshot: &'a str,
    pub target: &'a str,
    pub report: &'a Report,
    /// Files written with zeros for what of them is lost.
    pub zeroed: &'a [Zeroed],
    /// Reads, and their bytes, that the vault's second copy gave.
    pub second: (u64, u64),
    pub took: Duration,
}

/// File in the agent's home with the whole of a list of problems too long to show.
const PROBLEMS: &str = "restore-problems.jsonl";

/// The last line of a restore with `--json`.
#[derive(Serialize)]
struct Summary<'a> {
    snapshot_id: &'a str,
    target: &'a str,
    status: &'static str,
    files: u64,
    directories: u64,
    others: u64,
    /// Bytes written.
    restored_bytes: u64,
    /// Bytes of existing files that were right already.
    matched_bytes: u64,
    /// Files read back, with --verify.
    verified: u64,
    kept: u64,
    /// Reads, and their bytes, that the vault's second copy gave because the first did not.
    second_copy_reads: u64,
    second_copy_bytes: u64,
    /// Pieces, and their bytes, out of other snapshots' packs because this one's had lost them.
    other_snapshots_pieces: u64,
    other_snapshots_bytes: u64,
    duration_ms: u128,
    problems: &'a [Problem],
    /// So many more, and the file with all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    problems_unlisted: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problems_file: Option<&'a Path>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    zeroed: &'a [Zeroed],
}

#[derive(Serialize)]
struct DryRun<'a> {
    snapshot_id: SnapshotId,
    dry_run: bool,
    create: usize,
    replace: usize,
    keep: usize,
    bytes: u64,
    problems: &'a [Problem],
}

pub async fn run(member: Member, args: Restore, output: &Output) -> Result<Exit> {
    let started = std::time::Instant::now();
    let selection = selection(&args)?;
    let snapshot = open::find(&member, &args.snapshot).await?;
    let pace = Pace::shared(args.limit_download);
    let second = SecondCopy::when(Caching::Use);
    let reader = open::reader_at(&member, &snapshot, Caching::Use, pace, second.clone()).await?;
    let unreadable = if args.zero_damaged { Unreadable::Zero } else { Unreadable::Skip };
    let Some(target) = args.target.as_deref() else {
        let shape = if args.tar { Shape::Tar } else { Shape::Bare };
        let frames = reader.frames().clone();
        let exit = pipe(reader, selection, shape, unreadable, output).await;
        tell_second(second.figures()).iter().for_each(|told| output.note(told));
        tell_others(frames.from_others()).iter().for_each(|told| output.note(told));
        return exit;
    };
    let order = Order {
        target: std::path::absolute(target)?,
        include: selection.include,
        overwrite: choice(args.overwrite),
        options: Options {
            paths: selection.paths,
            unreadable,
            afterwards: if args.verify { Afterwards::Verify } else { Afterwards::Nothing },
            durability: if args.no_sync { Durability::Unsynced } else { Durability::AtEnd },
            limits: None,
            long_list: Some(member.home.path().join(PROBLEMS)),
        },
    };
    if args.dry_run {
        return preview(snapshot.id, reader, order, output.clone()).await;
    }
    let (figures, cancel) = (Arc::new(Figures::default()), CancellationToken::new());
    let watch = Watch::begin(&figures, &cancel, output);
    let ids = member.control.world().ids.clone();
    let target = order.target.display().to_string();
    let done =
        open::blocking(move || Ok(restore(&reader, &order, ids.as_ref(), figures, cancel)?)).await;
    watch.end().await;
    let report = done?;
    let outcome = Outcome {
        snapshot: &snapshot.id.to_string(),
        target: &target,
        report: &report,
        zeroed: &[],
        second: second.figures(),
        took: started.elapsed(),
    };
    tell(&outcome, output);
    Ok(if report.mismatch { Exit::Failed } else { Exit::with_exceptions(report.problems.len()) })
}

/// Patterns, or paths where all are plain ones: those are found without reading the rest.
fn selection(args: &Restore) -> Result<Selection> {
    let is_plain = |pattern: &String| {
        pattern.starts_with('/') && !pattern.contains(['*', '?', '[', '{', '\\'])
    };
    let mut paths: Vec<PathBuf> = args.path.clone();
    let mut include = &args.include[..];
    if paths.is_empty() && include.iter().all(is_plain) {
        paths = include.iter().map(PathBuf::from).collect();
        include = &[];
    }
    let bare = |path: &PathBuf| {
        let bytes = path.as_os_str().as_bytes();
        let kept = bytes.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        kept.collect::<Vec<_>>().join(&b'/')
    };
    Ok(Selection { include: glob_rules(include)?, paths: paths.iter().map(bare).collect() })
}

/// To standard output; what else there is to say goes to standard error.
async fn pipe(
    reader: Arc<Reader>,
    selection: Selection,
    shape: Shape,
    unreadable: Unreadable,
    output: &Output,
) -> Result<Exit> {
    let streamed = open::blocking(move || {
        let mut out = std::io::BufWriter::with_capacity(256 << 10, std::io::stdout().lock());
        match stream(&reader, &selection, shape, unreadable, &mut out) {
            // Whoever reads has seen enough.
            Err(RestoreError::Pipe(error)) if is_closed(&error) => Ok(Streamed::default()),
            Err(RestoreError::Snapshot(ReadError::Output(error))) if is_closed(&error) => {
                Ok(Streamed::default())
            }
            other => Ok(other?),
        }
    })
    .await?;
    streamed.problems.iter().for_each(|problem| output.note(words(problem)));
    Ok(Exit::with_exceptions(streamed.problems.len()))
}

/// The engine's word for the choice.
pub const fn choice(choice: Choice) -> Overwrite {
    match choice {
        Choice::Never => Overwrite::Never,
        Choice::Older => Overwrite::Older,
        Choice::Changed => Overwrite::Changed,
        Choice::Always => Overwrite::Always,
    }
}

/// Beside a restore: the bar, and the signals that stop it.
pub struct Watch {
    signals: tokio::task::JoinHandle<()>,
    progress: tokio::task::JoinHandle<()>,
}

impl Watch {
    pub fn begin(figures: &Arc<Figures>, cancel: &CancellationToken, output: &Output) -> Self {
        let cancel = cancel.clone();
        let signals = tokio::spawn(async move {
            super::daemon::stop_signal().await;
            cancel.cancel();
        });
        Self { signals, progress: tokio::spawn(show(figures.clone(), output.clone())) }
    }
    pub async fn end(self) {
        self.progress.abort();
        self.signals.abort();
        // The bar is gone when its task is.
        let _ = self.progress.await;
    }
}

async fn show(figures: Arc<Figures>, output: Output) {
    use std::sync::atomic::Ordering::Relaxed;
    let bar = output.progress(None);
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        ticks.tick().await;
        let (done, total) = (figures.bytes.load(Relaxed), figures.bytes_total.load(Relaxed));
        bar.message(format!(
            "{} files, {} of {}",
            figures.files.load(Relaxed),
            bytes(done),
            bytes(total)
        ));
    }
}

/// Says each entry as it is met: there may be many.
async fn preview(
    id: SnapshotId,
    reader: Arc<Reader>,
    order: Order,
    output: Output,
) -> Result<Exit> {
    let lines = output.clone();
    let (problems, [create, replace, keep], size) = open::blocking(move || {
        let (mut counts, mut size) = ([0; 3], 0);
        let problems = dry_run(&reader, &order, |line| {
            let (at, word) = match line.action {
                Action::Create => (0, "create "),
                Action::Replace => (1, "replace"),
                Action::Keep => (2, "keep   "),
            };
            counts[at] += 1;
            size += if line.action == Action::Keep { 0 } else { line.size };
            if lines.is_json() {
                lines.json(&line);
            } else {
                lines.line(format_args!("{word} {}", plain(&line.path)));
            }
        })?;
        Ok((problems, counts, size))
    })
    .await?;
    let exit = Exit::with_exceptions(problems.len());
    if output.is_json() {
        let dry_run = true;
        let problems = &problems[..];
        let told =
            DryRun { snapshot_id: id, dry_run, create, replace, keep, bytes: size, problems };
        output.json(&told);
        return Ok(exit);
    }
    list(&problems, &output);
    output.line(format_args!(
        "Nothing was done. A restore would create {create}, replace {replace}, keep {keep}, and write {}.",
        bytes(size)
    ));
    Ok(exit)
}

/// What a person should know when the first store did not give everything.
fn tell_second((reads, size): (u64, u64)) -> Option<String> {
    (reads > 0).then(|| {
        format!(
            "{reads} reads ({}) came from the vault's second copy, for the first did not give them intact; ask your administrator to run: everhold admin scrub --repair",
            bytes(size)
        )
    })
}

/// What a person should know when the snapshot's own packs did not give everything.
fn tell_others((pieces, size): (u64, u64)) -> Option<String> {
    (pieces > 0).then(|| {
        format!(
            "{pieces} pieces ({}) were lost in this snapshot's own packs and came from those of other snapshots, as long as those are kept; everhold-agent verify --read-data says what is lost",
            bytes(size)
        )
    })
}

/// Tells how it went; with `--json` in one line.
pub fn tell(outcome: &Outcome<'_>, output: &Output) {
    let Outcome { snapshot, target, report, zeroed, second, took } = *outcome;
    let clean = report.problems.is_empty() && zeroed.is_empty();
    if output.is_json() {
        return output.json(&Summary {
            snapshot_id: snapshot,
            target,
            status: if clean { "succeeded" } else { "succeeded_with_exceptions" },
            files: report.files,
            directories: report.directories,
            others: report.others,
            restored_bytes: report.bytes,
            matched_bytes: report.matched,
            verified: report.verified,
            kept: report.kept,
            second_copy_reads: second.0,
            second_copy_bytes: second.1,
            other_snapshots_pieces: report.from_others.0,
            other_snapshots_bytes: report.from_others.1,
            duration_ms: took.as_millis(),
            problems: &report.problems,
            problems_unlisted: (report.unlisted > 0).then_some(report.unlisted),
            problems_file: report.long_list.as_deref(),
            zeroed,
        });
    }
    list(&report.problems, output);
    let (shown, all) = (report.problems.len(), report.exceptions());
    say_more("exceptions", (shown, all), report.long_list.as_deref(), output);
    for file in zeroed {
        let lost: u64 = file.stretches.iter().map(|(_, length)| length).sum();
        let problem = file.problem.as_ref().map(|why| format!("; {}", plain(why)));
        output.line(format_args!(
            "zeroed: {}: {} of {} are lost, at {:?}{}",
            plain(&file.path),
            bytes(lost),
            bytes(file.size),
            file.stretches.iter().map(|(offset, _)| offset).collect::<Vec<_>>(),
            problem.unwrap_or_default()
        ));
    }
    output.line(format_args!(
        "Restored {} files, {} folders and {} others ({}) of {snapshot} to {} in {:.1} s; {} existing entries kept",
        report.files,
        report.directories,
        report.others,
        bytes(report.bytes),
        plain(target),
        took.as_secs_f64(),
        report.kept
    ));
    if report.matched > 0 {
        output.line(format_args!("{} were right already", bytes(report.matched)));
    }
    if report.verified > 0 {
        output.line(format_args!("{} files read back and found right", report.verified));
    }
    for told in [tell_second(second), tell_others(report.from_others)].into_iter().flatten() {
        output.line(told);
    }
    if !clean {
        let exceptions = report.exceptions() + zeroed.len() as u64;
        output.line(format_args!("{exceptions} exceptions, listed above."));
    }
}

/// Says each problem.
pub fn list(problems: &[Problem], output: &Output) {
    problems.iter().for_each(|problem| output.line(words(problem)));
}

fn words(problem: &Problem) -> String {
    let kind = serde_json::to_string(&problem.kind).unwrap_or_default();
    let (path, detail) = (plain(&problem.path), plain(&problem.detail));
    format!("exception: {} {path}: {detail}", kind.trim_matches('"'))
}

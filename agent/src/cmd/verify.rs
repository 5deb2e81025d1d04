//! `verify`: against the store itself, past every local cache.

use anyhow::Result;
use domain::SnapshotId;
use serde::Serialize;
use vault::{
    snapshot::ReadError,
    verify::{Problem, Report, deep, quick},
};

use super::open;
use crate::{
    output::{Exit, Output, bytes, plain},
    pipeline::{member::Member, source::Caching},
    restore::told,
    sources::display_path,
};

#[derive(Serialize)]
struct Summary {
    snapshot_id: SnapshotId,
    /// `quick` or `deep`.
    level: &'static str,
    status: &'static str,
    packs: u64,
    read_bytes: u64,
    entries: u64,
    source_bytes: u64,
    /// Files that a restore takes in part from other snapshots' packs, because their own are lost.
    files_from_other_snapshots: u64,
    /// The first of them.
    problems: Vec<String>,
    /// How many more there are.
    unlisted_problems: u64,
}

pub async fn run(
    member: Member,
    snapshot: String,
    read_data: bool,
    output: &Output,
) -> Result<Exit> {
    let found = open::find(&member, &snapshot).await?;
    let reader = open::reader(&member, &found, Caching::Bypass).await?;
    let bar = output.progress(None);
    let report = open::blocking(move || {
        bar.message("reading the directories of packs".to_owned());
        Ok(if read_data {
            deep(&reader, |read| bar.message(format!("{} read and hashed", bytes(read))))
        } else {
            quick(&reader)
        })
    })
    .await?;
    tell(found.id, read_data, &report, output);
    // What cannot be restored as it was is no exception: the snapshot failed its test.
    Ok(if report.is_clean() { Exit::Good } else { Exit::Failed })
}

fn words(problem: &Problem) -> String {
    match problem {
        Problem::Pack { pack, error } => format!("pack {pack}: {error}"),
        Problem::Content { path, error } => format!("{}: {error}", plain(&display_path(path))),
        Problem::Tree { error: error @ ReadError::Stretch { from, .. } } => {
            format!("{}: {}", plain(&display_path(from)), told(error))
        }
        Problem::Tree { error } => format!("the list of files: {error}"),
        Problem::Elsewhere { times } => {
            format!(
                "{times} references lead to nothing in the snapshot's own packs; other snapshots' packs have it"
            )
        }
        Problem::Usage { pack } => format!("pack {pack}: used otherwise than the manifest says"),
    }
}

fn tell(id: SnapshotId, read_data: bool, report: &Report, output: &Output) {
    let problems: Vec<String> = report.problems.iter().map(words).collect();
    let level = if read_data { "deep" } else { "quick" };
    if output.is_json() {
        return output.json(&Summary {
            snapshot_id: id,
            level,
            status: if report.is_clean() { "succeeded" } else { "failed" },
            packs: report.packs,
            read_bytes: report.pack_bytes,
            entries: report.entries,
            source_bytes: report.source_bytes,
            files_from_other_snapshots: report.elsewhere,
            problems,
            unlisted_problems: report.unlisted,
        });
    }
    for problem in &problems {
        output.line(format_args!("problem: {problem}"));
    }
    if report.unlisted > 0 {
        output.line(format_args!("problem: and {} more that are not listed", report.unlisted));
    }
    let read = if read_data {
        format!("{} read and re-hashed", bytes(report.pack_bytes))
    } else {
        "directories read; --read-data reads every byte".to_owned()
    };
    if report.elsewhere > 0 {
        output.line(format_args!(
            "{} files lack something in their own packs that other snapshots have: a restore takes it from there, as long as those snapshots are kept",
            report.elsewhere
        ));
    }
    output.line(format_args!(
        "Snapshot {id}: {} packs, {} entries, {}: {read}. {}",
        report.packs,
        report.entries,
        bytes(report.source_bytes),
        if report.is_clean() { "All is well." } else { "It is NOT whole." }
    ));
}

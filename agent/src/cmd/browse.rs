//! `ls`, `find`, `diff`.

use std::{os::unix::ffi::OsStrExt as _, path::PathBuf};

use anyhow::{Result, anyhow};
use serde::Serialize;
use vault::{
    snapshot::{ReadError, Reader, Walk},
    tree::{Change, Entry, EntryKind},
};

use super::open;
use crate::{
    output::{Exit, Output, plain},
    pipeline::{member::Member, source::Caching},
    restore::told,
    sources::{display_path, exact_path, glob_rules},
};

/// An entry as JSON.
#[derive(Serialize)]
struct Shown {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_b64: Option<String>,
    kind: &'static str,
    size: u64,
    mode: String,
    uid: u32,
    gid: u32,
    modified_at: Option<domain::Timestamp>,
    mtime_ns: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_target: Option<String>,
}

fn shown(entry: &Entry) -> Shown {
    let target = match &entry.kind {
        EntryKind::Symlink { target } => Some(String::from_utf8_lossy(target).into_owned()),
        _ => None,
    };
    Shown {
        path: display_path(&entry.path),
        path_b64: exact_path(&entry.path),
        kind: kind_name(&entry.kind),
        size: entry.size(),
        mode: format!("{:04o}", entry.mode),
        uid: entry.uid,
        gid: entry.gid,
        modified_at: domain::Timestamp::from_unix_secs(entry.mtime.secs),
        mtime_ns: entry.mtime.nanos,
        link_target: target,
    }
}

const fn kind_name(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::File { .. } => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink { .. } => "symlink",
        EntryKind::Fifo => "fifo",
        EntryKind::Socket => "socket",
        EntryKind::CharDevice { .. } => "char_device",
        EntryKind::BlockDevice { .. } => "block_device",
    }
}

fn print(entry: &Entry, output: &Output) {
    if output.is_json() {
        return output.json(&shown(entry));
    }
    let letter = match &entry.kind {
        EntryKind::File { .. } => '-',
        EntryKind::Directory => 'd',
        EntryKind::Symlink { .. } => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::Socket => 's',
        EntryKind::CharDevice { .. } => 'c',
        EntryKind::BlockDevice { .. } => 'b',
    };
    let time = domain::Timestamp::from_unix_secs(entry.mtime.secs)
        .map_or_else(|| entry.mtime.secs.to_string(), |time| time.to_string());
    let arrow = match &entry.kind {
        EntryKind::Symlink { target } => format!(" -> {}", plain(&String::from_utf8_lossy(target))),
        _ => String::new(),
    };
    output.line(format_args!(
        "{letter}{:04o} {:>6} {:>6} {:>12} {time} {}{arrow}",
        entry.mode,
        entry.uid,
        entry.gid,
        entry.size(),
        plain(&display_path(&entry.path)),
    ));
}

pub async fn ls(
    member: Member,
    snapshot: String,
    path: Option<PathBuf>,
    output: &Output,
) -> Result<Exit> {
    let found = open::find(&member, &snapshot).await?;
    let reader = open::reader(&member, &found, Caching::Use).await?;
    let output = output.clone();
    let path = path.unwrap_or_default();
    let folder = path.as_os_str().as_bytes().to_vec();
    open::blocking(move || show(&reader, &folder, &snapshot, &output)).await
}

/// Prints a folder, or one entry. Blocking.
pub fn show(reader: &Reader, path: &[u8], snapshot: &str, output: &Output) -> Result<Exit> {
    let folder = trimmed(path);
    let entry = if folder.is_empty() { None } else { reader.get(&folder)? };
    match entry {
        Some(entry) if !entry.is_dir() => {
            print(&entry, output);
            return Ok(Exit::Good);
        }
        None if !folder.is_empty() => {
            return Err(anyhow!(
                "{} is not in the snapshot; see everhold-agent ls {snapshot}",
                display_path(&folder)
            ));
        }
        _ => {}
    }
    listing(reader.list_dir(&folder, None)?, |_| true, output)
}

/// Prints the wanted ones of what is walked, and where something of it is lost. Blocking.
fn listing(walk: Walk, wanted: impl Fn(&Entry) -> bool, output: &Output) -> Result<Exit> {
    let mut exit = Exit::Good;
    for entry in walk {
        match entry {
            Ok(entry) if wanted(&entry) => print(&entry, output),
            Ok(_) => {}
            Err(error) => {
                let ReadError::Stretch { from, .. } = &error else { return Err(error.into()) };
                output.note(format_args!("{}: {}", display_path(from), told(&error)));
                exit = Exit::Exceptions;
            }
        }
    }
    Ok(exit)
}

/// As the tree spells it: no slashes at the ends, none twice.
fn trimmed(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && part != b".");
    parts.collect::<Vec<_>>().join(&b'/')
}

pub async fn find(
    member: Member,
    pattern: String,
    snapshot: String,
    output: &Output,
) -> Result<Exit> {
    let rules = glob_rules(&[pattern])?;
    let found = open::find(&member, &snapshot).await?;
    let reader = open::reader(&member, &found, Caching::Use).await?;
    let output = output.clone();
    open::blocking(move || listing(reader.entries()?, |entry| rules.matches(&entry.path), &output))
        .await
}

#[derive(Serialize)]
struct Difference {
    change: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Shown>,
}

pub async fn diff(member: Member, a: String, b: String, output: &Output) -> Result<Exit> {
    let (older, newer) = (open::find(&member, &a).await?, open::find(&member, &b).await?);
    let older = open::reader(&member, &older, Caching::Use).await?;
    let newer = open::reader(&member, &newer, Caching::Use).await?;
    let output = output.clone();
    open::blocking(move || {
        let mut changes = newer.diff_from(&older);
        while let Some(change) = changes.next_change()? {
            tell(&change, &output);
        }
        Ok(Exit::Good)
    })
    .await
}

fn tell(change: &Change, output: &Output) {
    let (word, sign) = match (&change.before, &change.after) {
        (None, _) => ("added", '+'),
        (_, None) => ("removed", '-'),
        (Some(before), Some(after)) if only_hints_differ(before, after) => return,
        _ => ("changed", 'M'),
    };
    let path = display_path(change.path());
    if output.is_json() {
        let (before, after) = (change.before.as_ref().map(shown), change.after.as_ref().map(shown));
        output.json(&Difference { change: word, path, before, after });
    } else {
        output.line(format_args!("{sign} {}", plain(&path)));
    }
}

/// Inode numbers and ctimes help finding changes; they are none.
fn only_hints_differ(before: &Entry, after: &Entry) -> bool {
    let bare = |entry: &Entry| Entry {
        ctime: None,
        atime: None,
        inode: 0,
        device: 0,
        hardlink: entry.hardlink.map(|_| 0),
        ..entry.clone()
    };
    bare(before) == bare(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_as_people_write_them() {
        assert_eq!(trimmed(b"/etc//ssh/"), b"etc/ssh");
        assert_eq!(trimmed(b"./etc"), b"etc");
        assert_eq!(trimmed(b"/"), b"");
    }

    #[test]
    fn a_new_inode_number_is_no_difference() {
        let mut before = Entry::file(b"a".to_vec());
        let mut after = before.clone();
        before.inode = 1;
        after.inode = 2;
        assert!(only_hints_differ(&before, &after));
        after.mode = 0o600;
        assert!(!only_hints_differ(&before, &after));
    }
}

//! What comes after content: links, FIFOs, sockets, devices, and the metadata of folders.

use std::{collections::HashMap, os::fd::AsFd as _};

use vault::tree::{Entry, EntryKind};

use super::{
    ProblemKind, Report, Work, apply,
    content::{Written, give_name},
    safe_root::{Refused, split},
    scan::{FolderDue, Scanned},
};
use crate::{
    pipeline::entry::{attributes, kind_of},
    sources::Kind,
};

/// Makes everything that is not a file of its own.
pub fn links_and_nodes(work: &Work<'_>, scanned: &Scanned, written: &Written, report: &mut Report) {
    // First names by group: files written now, or kept as they were.
    let mut first: HashMap<u64, Vec<u8>> = scanned.kept_groups.clone();
    for entry in &scanned.files {
        if let Some(group) = entry.hardlink
            && written.contains_key(&entry.path)
        {
            first.insert(group, entry.path.clone());
        }
    }
    for entry in &scanned.others {
        if work.cancel.is_cancelled() {
            return;
        }
        let made = match entry.hardlink.and_then(|group| first.get(&group)) {
            Some(of) => hard_link(work, entry, of, written),
            None if entry.is_file() => Err(Failure::Words(
                "it is a further name of a file that could not be restored".to_owned(),
            )),
            None => node(work, entry),
        };
        match made {
            Ok(()) => {
                if entry.is_file() {
                    report.files += 1;
                } else {
                    report.others += 1;
                }
                if let Some(group) = entry.hardlink {
                    first.entry(group).or_insert_with(|| entry.path.clone());
                }
            }
            Err(Failure::Refused(refused)) => {
                work.confess(&entry.path, ProblemKind::NotRestored, refused);
            }
            Err(Failure::Words(words)) => {
                work.confess(&entry.path, ProblemKind::NotRestored, words);
            }
        }
    }
}

enum Failure {
    Refused(Refused),
    Words(String),
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

fn hard_link(work: &Work<'_>, entry: &Entry, of: &[u8], written: &Written) -> Result<(), Failure> {
    let (of_above, of_name) = split(of)?;
    let of_above = work.root.folder(of_above)?;
    let (above, name) = split(&entry.path)?;
    let above = work.root.make_folders(above)?;
    let temporary = work.temporary();
    above.hard_link(&of_above, of_name, &temporary)?;
    // The name may have been swapped since we wrote it: what was linked must be what we wrote.
    let linked = above.stat(&temporary)?.map(|stat| (stat.identity(), stat.kind));
    let swapped = match written.get(of) {
        Some(identity) => linked.is_none_or(|(found, _)| found != *identity),
        None => linked.is_none_or(|(_, kind)| kind != kind_of(entry)),
    };
    if swapped {
        above.remove(&temporary)?;
        return Err(Failure::Words("its first name was swapped during the restore".to_owned()));
    }
    give_name(work.overwrite, &above, &temporary, name)?;
    // Renaming one name of a file onto another of the same file does nothing and leaves both.
    match above.remove(&temporary) {
        Err(refused) if !refused.is_not_found() => Err(refused.into()),
        _ => Ok(()),
    }
}

fn node(work: &Work<'_>, entry: &Entry) -> Result<(), Failure> {
    let kind = kind_of(entry);
    let (above, name) = split(&entry.path)?;
    let above = work.root.make_folders(above)?;
    let temporary = work.temporary();
    let made = match &entry.kind {
        EntryKind::Symlink { target } => above.symlink(target, &temporary),
        _ => above.make_node(kind, &temporary),
    };
    made.map_err(|refused| explain(kind, refused))?;
    let finished = above.pin(&temporary).and_then(|pinned| {
        let short = apply::to_pinned(pinned.as_fd(), kind, &attributes(entry));
        give_name(work.overwrite, &above, &temporary, name)?;
        Ok(short)
    });
    match finished {
        Ok(short) => {
            work.shortfalls(&entry.path, &short);
            Ok(())
        }
        Err(refused) => {
            let _ = above.remove(&temporary);
            Err(refused.into())
        }
    }
}

fn explain(kind: Kind, refused: Refused) -> Failure {
    let device = matches!(kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. });
    if device && refused == Refused::System(rustix::io::Errno::PERM) {
        return Failure::Words("only root can make devices; restore as root".to_owned());
    }
    refused.into()
}

/// Metadata of folders, deepest first: setting one must not be undone by working below it.
pub fn folders(work: &Work<'_>, folders: &[FolderDue]) {
    for FolderDue { entry, apply } in folders.iter().rev() {
        if !apply {
            continue;
        }
        match work.root.folder(&entry.path) {
            Ok(folder) => {
                let short = apply::to_handle(folder.handle(), &attributes(entry));
                work.shortfalls(&entry.path, &short);
            }
            Err(refused) => {
                work.confess(&entry.path, ProblemKind::MetadataIncomplete, refused);
            }
        }
    }
}

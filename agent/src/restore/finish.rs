//! What comes after content: links, FIFOs, sockets, devices, and the metadata of folders.

use std::{os::fd::AsFd as _, sync::atomic::Ordering};

use vault::tree::{Entry, EntryKind};

use super::{
    ProblemKind, Report, RestoreError, Work, apply,
    content::give_name,
    links::First,
    marker::{Leavings, sweep},
    safe_root::{Refused, split},
    scan::Due,
    spill::Spill,
};
use crate::{
    pipeline::entry::{attributes, kind_of},
    sources::{Kind, Stat},
};

/// Makes the further names of hard links.
///
/// # Errors
/// When the list of them cannot be read again.
pub fn further_names(
    work: &Work<'_>,
    later: Spill,
    report: &mut Report,
) -> Result<(), RestoreError> {
    let each = |record: &[u8]| {
        if work.is_stopped() {
            return;
        }
        let Some(Due { entry, mark: group }) = Due::decode(record) else {
            let detail =
                "a further name of a file was noted in a temporary file and is not what was noted";
            return work.confess(b"", ProblemKind::NotRestored, detail);
        };
        let linked = match work.links.get(group) {
            Some(First::Made { path, identity }) => hard_link(work, &entry, &path, Some(identity)),
            Some(First::Kept { path }) => hard_link(work, &entry, &path, None),
            Some(First::Begun) | None if entry.is_file() => Err(Failure::Words(
                "it is a further name of a file that could not be restored".to_owned(),
            )),
            Some(First::Begun) | None => node(work, &entry).map(drop),
        };
        match linked {
            Ok(()) if entry.is_file() => report.files += 1,
            Ok(()) => report.others += 1,
            Err(failure) => work.confess(&entry.path, ProblemKind::NotRestored, failure),
        }
    };
    later.backwards(each).map_err(RestoreError::Spill)?;
    if work.links.is_broken() {
        let detail = "what was noted of files with several names cannot be read again from the temporary folder (TMPDIR): some of those names are files of their own now, or are not there; restore again with another";
        work.confess(b"", ProblemKind::MetadataIncomplete, detail);
    }
    Ok(())
}

/// Why there is no such entry.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{0}")]
    Words(String),
}

fn hard_link(
    work: &Work<'_>,
    entry: &Entry,
    of: &[u8],
    identity: Option<(u64, u64)>,
) -> Result<(), Failure> {
    let (of_above, of_name) = split(of)?;
    let of_above = work.root.folder(of_above)?;
    let (above, name) = split(&entry.path)?;
    let above = work.root.make_folders(above)?;
    let temporary = work.temporary();
    above.hard_link(&of_above, of_name, &temporary)?;
    // The name may have been swapped since we wrote it: what was linked must be what we wrote.
    let linked = above.stat(&temporary)?.map(|stat| (stat.identity(), stat.kind));
    let swapped = match identity {
        Some(identity) => linked.is_none_or(|(found, _)| found != identity),
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

/// Makes a link, FIFO, socket or device; gives its identity.
pub fn node(work: &Work<'_>, entry: &Entry) -> Result<(u64, u64), Failure> {
    let kind = kind_of(entry);
    let (above, name) = split(&entry.path)?;
    let seat = work.seats.at(above)?;
    let above = &seat.folder;
    let temporary = work.temporary();
    let made = match &entry.kind {
        EntryKind::Symlink { target } => above.symlink(target, &temporary),
        _ => above.make_node(kind, &temporary),
    };
    made.map_err(|refused| explain(kind, refused))?;
    let finished = above.pin(&temporary).and_then(|pinned| {
        let raw = rustix::fs::fstat(&pinned)?;
        // The name may have been swapped since it was made.
        let ours = Stat::from_raw(&raw).is_some_and(|it| it.kind == kind && it.links == 1);
        if !ours {
            return Err(Refused::System(rustix::io::Errno::STALE));
        }
        let short = apply::to_pinned(pinned.as_fd(), kind, &attributes(entry));
        give_name(work.overwrite, above, &temporary, name)?;
        Ok((short, (raw.st_dev, raw.st_ino)))
    });
    match finished {
        Ok((short, identity)) => {
            work.shortfalls(&entry.path, &short);
            Ok(identity)
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

/// Said of a file that an interrupted restore was changing, and this one had nothing to do with.
const SET_ASIDE: &str = "a restore that was interrupted was changing a file that was here, and this is that file, changed in part; restore it again, or give it its name";

/// Metadata of folders, deepest first: setting one must not be undone by working below it.
///
/// # Errors
/// When the list of them cannot be read again.
pub fn folders(work: &Work<'_>, folders: Spill) -> Result<(), RestoreError> {
    let each = |record: &[u8]| {
        let Some(Due { entry, mark: apply }) = Due::decode(record) else { return };
        let folder = match work.root.folder(&entry.path) {
            Ok(folder) => folder,
            Err(refused) => {
                return work.confess(&entry.path, ProblemKind::MetadataIncomplete, refused);
            }
        };
        if work.resumed {
            for name in sweep(&folder, Leavings::Parts) {
                work.left_aside.store(true, Ordering::Relaxed);
                let path = [&entry.path[..], &name].join(&b'/');
                work.confess(
                    path.strip_prefix(b"/").unwrap_or(&path),
                    ProblemKind::NotRestored,
                    SET_ASIDE,
                );
            }
        }
        if apply == 1 {
            let wanted = attributes(&entry);
            let short = apply::to_handle(folder.handle(), &wanted, apply::Inherited::Perhaps);
            work.shortfalls(&entry.path, &short);
        }
    };
    folders.backwards(each).map_err(RestoreError::Spill)
}

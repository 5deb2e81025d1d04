//! Files of which a part is lost, written with zeros in its place, each stretch told.
//!
//! For people who would rather have most of a file than none. Invariant: every byte written is either proven by its id
//! or zero, and every zeroed stretch is in the report.

use std::os::{fd::AsFd as _, unix::fs::FileExt as _};

use domain::IdGen;
use rustix::fs::ftruncate;
use serde::Serialize;
use vault::{
    snapshot::{PieceSource, ReadError, Reader},
    tree::{Content, Entry, EntryKind},
};

use crate::{
    pipeline::entry::attributes,
    restore::{
        apply,
        safe_root::{Refused, Replace, SafeRoot, split},
    },
    sources::{display_path, exact_path},
};

/// A file that came back with holes in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Zeroed {
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    pub size: u64,
    /// Offset and length of what is zeros now and was not.
    pub stretches: Vec<(u64, u64)>,
    /// Why the file is not there after all, or not quite as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Writes one file, whatever of it can still be had. The name must be free: nothing of the target gives way to a
/// damaged file.
pub fn write(reader: &Reader, root: &SafeRoot, entry: &Entry, ids: &dyn IdGen) -> Zeroed {
    let mut zeroed = Zeroed {
        path: display_path(&entry.path),
        path_b64: exact_path(&entry.path),
        size: entry.size(),
        stretches: Vec::new(),
        problem: None,
    };
    if let Err(error) = place(reader, root, entry, ids, &mut zeroed) {
        zeroed.problem = Some(error.to_string());
        zeroed.stretches.clear();
    }
    zeroed
}

/// Why there is no such file.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nothing says that it is lost.
    #[error("not written, because it could not be asked for; try again: {0}")]
    Passing(ReadError),
}

fn place(
    reader: &Reader,
    root: &SafeRoot,
    entry: &Entry,
    ids: &dyn IdGen,
    zeroed: &mut Zeroed,
) -> Result<(), Failure> {
    let (above, name) = split(&entry.path)?;
    let above = root.make_folders(above)?;
    let mut random = [0; 10];
    ids.fill(&mut random);
    let temporary = format!(".everhold-{}", hex::encode(random)).into_bytes();
    let file = above.create_file(&temporary)?;
    let truncated = ftruncate(&file, entry.size()).map_err(Refused::from);
    let written = truncated.map_err(Failure::from).and_then(|()| {
        fill(reader, entry, &file, zeroed)?;
        let inherited = apply::Inherited::Perhaps;
        let short = apply::to_handle(file.as_fd(), &attributes(entry), inherited);
        if !short.is_empty() {
            zeroed.problem = Some(short.join("; "));
        }
        Ok(above.rename(&temporary, name, Replace::Never)?)
    });
    if written.is_err() {
        let _ = above.remove(&temporary);
    }
    written
}

fn fill(
    reader: &Reader,
    entry: &Entry,
    file: &std::fs::File,
    zeroed: &mut Zeroed,
) -> Result<(), Failure> {
    let system = |error: &std::io::Error| {
        Refused::System(rustix::io::Errno::from_io_error(error).unwrap_or(rustix::io::Errno::IO))
    };
    if let EntryKind::File { content: Content::Bundled { .. }, .. } = &entry.kind {
        // Proven as a whole by its own id, or not at all.
        let mut content = Vec::new();
        match reader.read_file(entry, &mut content) {
            Ok(()) => file.write_all_at(&content, 0).map_err(|error| system(&error))?,
            Err(error) if error.is_passing() => return Err(Failure::Passing(error)),
            Err(_) => zeroed.stretches.push((0, entry.size())),
        }
        return Ok(());
    }
    let mut failed = None;
    let mut reached = 0;
    let walked = reader.pieces::<ReadError>(entry, |piece| {
        reached = piece.offset.saturating_add(piece.length);
        if piece.from == PieceSource::Hole || failed.is_some() {
            return Ok(());
        }
        match reader.piece(&piece) {
            Ok(bytes) => {
                failed = file.write_all_at(&bytes, piece.offset).err();
            }
            Err(error) if error.is_passing() => return Err(error),
            Err(_) => lose(&mut zeroed.stretches, piece.offset, piece.length),
        }
        Ok(())
    });
    if let Some(error) = failed {
        return Err(system(&error).into());
    }
    match walked {
        Err(error) if error.is_passing() => return Err(Failure::Passing(error)),
        // A lost list hides everything behind it.
        Err(_) => lose(&mut zeroed.stretches, reached, entry.size().saturating_sub(reached)),
        Ok(()) => {}
    }
    Ok(())
}

fn lose(stretches: &mut Vec<(u64, u64)>, offset: u64, length: u64) {
    match stretches.last_mut() {
        Some((start, so_far)) if *start + *so_far == offset => *so_far += length,
        _ => stretches.push((offset, length)),
    }
}

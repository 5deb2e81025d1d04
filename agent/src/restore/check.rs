//! `--verify`: every file of the order is read back from the target and its ids compared.
//!
//! Invariant: a file is good only if every stretch of it has the id the snapshot names, and nothing follows
//! them. Files that were told to differ already are passed over.

use std::{
    os::fd::AsFd as _,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::fs::{Advice, fadvise};
use vault::{
    snapshot::{FilePiece, ReadError},
    tree::Entry,
};

use super::{
    Order, ProblemKind, RestoreError, Work,
    compare::reads_the_same,
    safe_root::{Access, split},
    selection::Found,
};

/// Files read back side by side.
const BATCH: usize = 512;

/// Reads everything back; how many files were.
///
/// # Errors
/// When the snapshot cannot be read, or a cancel.
pub fn read_back(work: &Work<'_>, order: &Order) -> Result<u64, RestoreError> {
    let verified = AtomicU64::new(0);
    let mut batch = Vec::new();
    order.selection().each(work.reader, |found| {
        if work.is_stopped() {
            return Err(RestoreError::Canceled);
        }
        match found {
            Found::Wanted(entry) if entry.is_file() && !work.is_excused(&entry.path) => {
                batch.push(entry);
            }
            // What was lost when it was to be restored was told then.
            Found::Broken(path, error) if !error.is_loss() || !work.is_excused(&path) => {
                return Err(error.into());
            }
            Found::Wanted(_) | Found::Leads(_) | Found::Missing(_) | Found::Broken(..) => {}
        }
        if batch.len() >= BATCH {
            side_by_side(work, &std::mem::take(&mut batch), &verified);
        }
        Ok(())
    })?;
    side_by_side(work, &batch, &verified);
    Ok(verified.into_inner())
}

fn side_by_side(work: &Work<'_>, batch: &[Entry], verified: &AtomicU64) {
    let share = batch.len().div_ceil(work.limits.workers.max(1)).max(1);
    std::thread::scope(|scope| {
        for share in batch.chunks(share) {
            scope.spawn(move || {
                let mut buffer = Vec::new();
                for entry in share {
                    if let Some(wrong) = wrong(work, entry, &mut buffer) {
                        work.confess(&entry.path, ProblemKind::Mismatch, wrong);
                    } else {
                        verified.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

/// What is wrong with a restored file.
fn wrong(work: &Work<'_>, entry: &Entry, buffer: &mut Vec<u8>) -> Option<String> {
    let opened = split(&entry.path)
        .and_then(|(above, name)| work.seats.at(above)?.folder.open_file(name, Access::Read));
    let file = match opened {
        Ok(file) => file,
        Err(refused) => return Some(format!("it cannot be read back: {refused}")),
    };
    match file.metadata() {
        Ok(meta) if meta.len() == entry.size() => {}
        Ok(meta) => return Some(format!("it has {} bytes, not {}", meta.len(), entry.size())),
        Err(error) => return Some(format!("it cannot be read back: {error}")),
    }
    // After a sync the disk answers, not memory; advice that is not taken makes the check weaker, not wrong.
    let _ = fadvise(file.as_fd(), 0, None, Advice::DontNeed);
    let (own, ids) = (entry.bundled(), work.reader.frames().ids());
    let mut differs = None::<FilePiece>;
    let read = work.reader.pieces::<ReadError>(entry, |piece| {
        if differs.is_none() && !reads_the_same(&file, &piece, own, ids, buffer) {
            differs = Some(piece);
        }
        Ok(())
    });
    match (read, differs) {
        (Err(error), _) => Some(format!("what it should be cannot be read: {error}")),
        (Ok(()), Some(piece)) => Some(format!(
            "read back, bytes {} to {} are not what was restored",
            piece.offset,
            piece.offset + piece.length
        )),
        (Ok(()), None) => None,
    }
}

//! From the walk into the engine: decides what is unchanged, reads what is not, confesses what failed.
//!
//! Invariant: nothing that was asked for is missing from the snapshot without an exception that says so
//! (R12). A single file never ends the run; only the engine, the journal or a cancel does.

use std::{
    io::{self, Read},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use domain::{
    Clock,
    source::{ExceptionKind, RunException},
};
use tokio_util::sync::CancellationToken;
use vault::{
    backup::{BackupError, Reuse, Writer},
    tree::{Entry, FileTime},
};

use super::{
    entry::{LinkGroups, from_stat, to_entry},
    parent::ParentCursor,
};
use crate::sources::{
    Excluded, Extent, Found, Names, OpenFile, Stat, Verdict, Visitor, display_path, exception,
};

/// A change this soon after a time stamp may carry the same stamp: kernels tick every 1 to 10 ms.
const RACY: Duration = Duration::from_millis(100);
/// The first read of a file decides whether it is readable at all.
const FIRST_READ: usize = 64 * 1024;

/// Figures of a run under way, for heartbeats and progress bars.
#[derive(Debug, Default)]
pub struct Counters {
    pub files: AtomicU64,
    pub source_bytes: AtomicU64,
    pub exceptions: AtomicU64,
    pub stored_bytes: Arc<AtomicU64>,
}

/// Something left out on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub path: String,
    pub why: Excluded,
}

/// Why feeding stopped.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error(transparent)]
    Engine(#[from] BackupError),
    #[error("the run was canceled")]
    Canceled,
}

/// The walk's visitor and the engine's feeder.
pub struct Feeder<'a> {
    pub writer: &'a mut Writer,
    pub parent: Option<ParentCursor>,
    pub names: &'a Names,
    pub counters: Arc<Counters>,
    pub cancel: CancellationToken,
    pub clock: Arc<dyn Clock>,
    pub groups: LinkGroups,
    pub exceptions: Vec<RunException>,
    pub left_out: Vec<LeftOut>,
    pub buffer: Vec<u8>,
}

impl<'a> Feeder<'a> {
    pub fn new(
        writer: &'a mut Writer,
        parent: Option<ParentCursor>,
        names: &'a Names,
        counters: Arc<Counters>,
        cancel: CancellationToken,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            writer,
            parent,
            names,
            counters,
            cancel,
            clock,
            groups: LinkGroups::default(),
            exceptions: Vec::new(),
            left_out: Vec::new(),
            buffer: vec![0; FIRST_READ],
        }
    }

    fn count(&self, bytes: u64) {
        self.counters.files.fetch_add(1, Ordering::Relaxed);
        self.counters.source_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn confess(&mut self, exception: RunException) {
        self.counters.exceptions.fetch_add(1, Ordering::Relaxed);
        self.exceptions.push(exception);
    }

    /// A time stamp so fresh that a later change could hide behind it is not remembered.
    fn without_racy_time(&self, entry: &mut Entry) {
        let Some(ctime) = entry.ctime else { return };
        let horizon = (self.clock.now() - RACY).to_offset();
        let (secs, nanos) = (horizon.unix_timestamp(), horizon.nanosecond());
        if ctime >= (FileTime { secs, nanos }) {
            entry.ctime = None;
        }
    }

    fn unchanged_entry(&mut self, path: &[u8], stat: &Stat) -> Option<Entry> {
        let before = self.parent.as_mut()?.at(path)?;
        let mut entry = from_stat(path, stat);
        if !before.looks_unchanged(&entry) || before.flags & Entry::INCOMPLETE != 0 {
            return None;
        }
        entry.kind = before.kind;
        // Attributes cannot change without the ctime.
        entry.xattrs = before.xattrs;
        entry.user = self.names.user(stat.uid).map(|name| name.as_bytes().to_vec());
        entry.group = self.names.group(stat.gid).map(|name| name.as_bytes().to_vec());
        entry.hardlink = self.groups.of(stat);
        Some(entry)
    }

    /// A further name of a file that was read under its first one.
    fn is_known_link(&mut self, found: &Found) -> Result<bool, FeedError> {
        let Some(group) = self.groups.of(&found.meta.stat) else { return Ok(false) };
        let entry = to_entry(found.clone(), Some(group));
        match self.writer.add_link(entry) {
            Ok(Reuse::Taken) => {
                self.count(found.meta.stat.size);
                Ok(true)
            }
            Ok(Reuse::ReadAgain) => Ok(false),
            Err(error) => self.unless_only_this(&found.path, error).map(|()| true),
        }
    }

    fn read_file(&mut self, found: Found, mut content: OpenFile) -> Result<(), FeedError> {
        let path = found.path.clone();
        let first = match content.read(&mut self.buffer) {
            Ok(first) => first,
            Err(error) => {
                let detail = format!("cannot be read: {error}");
                self.confess(exception(&path, ExceptionKind::Unreadable, detail));
                return Ok(());
            }
        };
        let group = self.groups.of(&found.meta.stat);
        let mut entry = to_entry(found, group);
        self.without_racy_time(&mut entry);
        let holes = holes(content.extents(), content.stat().size);
        let mut rest = Tolerant { inner: &mut content, failure: None, cancel: &self.cancel };
        let outcome = {
            let head = self.buffer.get(..first).unwrap_or_default();
            self.writer.add_file(entry, &mut head.chain(&mut rest), &holes)
        };
        let failure = rest.failure;
        if self.cancel.is_cancelled() {
            return Err(FeedError::Canceled);
        }
        match outcome {
            Ok(outcome) => {
                self.count(outcome.size);
                self.judge(&path, failure, content.verdict(), outcome.size);
                Ok(())
            }
            Err(error) => self.unless_only_this(&path, error),
        }
    }

    /// An entry the format cannot hold is an exception; anything else ends the run.
    fn unless_only_this(&mut self, path: &[u8], error: BackupError) -> Result<(), FeedError> {
        match error {
            BackupError::BadPath(_) | BackupError::BadEntry => {
                self.confess(exception(path, ExceptionKind::Unreadable, error));
                Ok(())
            }
            error => Err(error.into()),
        }
    }

    fn judge(&mut self, path: &[u8], failure: Option<io::Error>, verdict: Verdict, size: u64) {
        let told = match (failure, verdict) {
            (Some(error), _) => exception(
                path,
                ExceptionKind::Unreadable,
                format_args!(
                    "{error} in the middle; what came before is in the snapshot ({size} bytes)"
                ),
            ),
            (None, Verdict::Steady) => return,
            (None, Verdict::Changed) => exception(
                path,
                ExceptionKind::ChangedWhileRead,
                format_args!("what was read is in the snapshot ({size} bytes)"),
            ),
            (None, Verdict::Shrank) => exception(
                path,
                ExceptionKind::Shrank,
                format_args!("what was read is in the snapshot ({size} bytes)"),
            ),
        };
        self.confess(told);
    }
}

impl Visitor for Feeder<'_> {
    type Error = FeedError;

    fn take_unchanged(&mut self, path: &[u8], stat: &Stat) -> Result<bool, FeedError> {
        if self.cancel.is_cancelled() {
            return Err(FeedError::Canceled);
        }
        let Some(entry) = self.unchanged_entry(path, stat) else { return Ok(false) };
        match self.writer.unchanged(entry) {
            Ok(Reuse::Taken) => {
                self.count(stat.size);
                Ok(true)
            }
            Ok(Reuse::ReadAgain) => Ok(false),
            // A parent that cannot be read costs time, not the backup.
            Err(BackupError::Parent(error)) => {
                tracing::warn!(%error, "the parent snapshot cannot be read; files are read again");
                self.parent = None;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn file(&mut self, found: Found, content: OpenFile) -> Result<(), FeedError> {
        if self.is_known_link(&found)? {
            return Ok(());
        }
        self.read_file(found, content)
    }

    fn entry(&mut self, found: Found) -> Result<(), FeedError> {
        if self.cancel.is_cancelled() {
            return Err(FeedError::Canceled);
        }
        let path = found.path.clone();
        let group = self.groups.of(&found.meta.stat);
        match self.writer.add_entry(to_entry(found, group)) {
            Ok(()) => Ok(()),
            Err(error) => self.unless_only_this(&path, error),
        }
    }

    fn exception(&mut self, exception: RunException) {
        self.confess(exception);
    }

    fn excluded(&mut self, path: &[u8], why: Excluded) {
        self.left_out.push(LeftOut { path: display_path(path), why });
    }
}

/// A read that fails ends the file, not the run; the failure is kept.
struct Tolerant<'a> {
    inner: &'a mut OpenFile,
    failure: Option<io::Error>,
    cancel: &'a CancellationToken,
}

impl Read for Tolerant<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failure.is_some() || self.cancel.is_cancelled() {
            return Ok(0);
        }
        match self.inner.read(buffer) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                self.failure = Some(error);
                Ok(0)
            }
            other => other,
        }
    }
}

/// What lies between and after the data, up to `size`.
fn holes(extents: &[Extent], size: u64) -> Vec<Range<u64>> {
    let mut holes = Vec::new();
    let mut at = 0;
    for extent in extents {
        if extent.offset > at {
            holes.push(at..extent.offset);
        }
        at = extent.offset + extent.length;
    }
    if at < size {
        holes.push(at..size);
    }
    holes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_what_the_extents_leave() {
        let extent = |offset, length| Extent { offset, length };
        let shown = |extents: &[Extent], size| format!("{:?}", holes(extents, size));
        assert_eq!(shown(&[], 10), "[0..10]");
        assert_eq!(shown(&[extent(0, 10)], 10), "[]");
        assert_eq!(shown(&[extent(2, 3), extent(8, 1)], 10), "[0..2, 5..8, 9..10]");
        assert_eq!(shown(&[], 0), "[]");
    }
}

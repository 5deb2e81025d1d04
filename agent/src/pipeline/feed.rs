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
};

use domain::{
    Clock,
    source::{ExceptionKind, RunException},
};
use tokio_util::sync::CancellationToken;
use vault::{
    backup::{BackupError, Begun, Reuse, Writer},
    snapshot::Frames,
    tree::{Entry, FileTime},
};

use super::{
    entry::{from_stat, to_entry},
    links::{LinkGroups, Readings},
    parent::ParentCursor,
    salvage::Salvage,
    told::Telling,
};
use crate::control::Pace;
use crate::sources::{
    Excluded, Extent, Found, Names, OpenFile, Stat, Verdict, Visitor, display_path, exception,
    looks_like_image,
};

/// The first read of a file decides whether it is readable at all.
const FIRST_READ: usize = 64 * 1024;

/// Figures of a run under way, for heartbeats and progress bars.
#[derive(Debug, Default)]
pub struct Counters {
    pub files: AtomicU64,
    pub source_bytes: AtomicU64,
    /// Read from files, what was read twice counted twice; what looked as before was not.
    pub read_bytes: AtomicU64,
    pub exceptions: AtomicU64,
    pub stored_bytes: Arc<AtomicU64>,
}

/// Something left out on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub path: String,
    pub why: Excluded,
}

impl serde::Serialize for LeftOut {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut out = serializer.serialize_struct("LeftOut", 2)?;
        out.serialize_field("path", &self.path)?;
        out.serialize_field("reason", &self.why.to_string())?;
        out.end()
    }
}

/// What is known of a file that looks as it did before.
struct Before {
    entry: Entry,
    /// The encoding of the entry, if every byte of it is the same.
    encoded: Option<Vec<u8>>,
    /// Where the lists of its content are.
    lists: Arc<Frames>,
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
    /// What an interrupted run had finished; newer than the parent.
    pub salvage: Option<Salvage>,
    pub names: &'a Names,
    pub counters: Arc<Counters>,
    pub cancel: CancellationToken,
    pub clock: Arc<dyn Clock>,
    pub groups: LinkGroups,
    readings: Readings,
    pub exceptions: Telling<RunException>,
    pub left_out: Telling<LeftOut>,
    pub buffer: Vec<u8>,
    /// Holds reading to a limit.
    pub pace: Option<Arc<Pace>>,
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
        let (groups, readings) = (LinkGroups::new(writer.shelf()), Readings::new(writer.shelf()));
        Self {
            writer,
            parent,
            salvage: None,
            names,
            counters,
            cancel,
            clock,
            groups,
            readings,
            exceptions: Telling::default(),
            left_out: Telling::default(),
            buffer: vec![0; FIRST_READ],
            pace: None,
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

    /// The entry of a file that looks as it did before.
    fn unchanged_entry(&mut self, path: &[u8], stat: &Stat) -> Option<Before> {
        let now = from_stat(Vec::new(), stat);
        let fits =
            |before: &Entry| before.looks_unchanged(&now) && before.flags & Entry::INCOMPLETE == 0;
        let salvaged = self.salvage.as_mut().and_then(|salvage| salvage.at(path, fits));
        let (before, encoded, lists) = match (salvaged, &self.salvage) {
            (Some(before), Some(salvage)) => (before, None, salvage.frames().clone()),
            _ => {
                let parent = self.parent.as_mut()?;
                let (before, encoded) = parent.at(path)?;
                if !fits(&before) {
                    return None;
                }
                (before, Some(encoded), parent.frames().clone())
            }
        };
        let user = self.names.user(stat.uid).map(str::as_bytes);
        let group = self.names.group(stat.gid).map(str::as_bytes);
        let hardlink = self.groups.of(stat);
        let same = (before.mode, before.uid, before.gid) == (now.mode, now.uid, now.gid)
            && (before.user.as_deref(), before.group.as_deref()) == (user, group)
            && (before.hardlink, before.flags, before.atime) == (hardlink, 0, None);
        if same {
            return Some(Before { entry: before, encoded, lists });
        }
        // Attributes cannot change without the ctime.
        let (path, kind, xattrs) = (before.path, before.kind, before.xattrs);
        let (user, group) = (user.map(<[u8]>::to_vec), group.map(<[u8]>::to_vec));
        let entry = Entry { path, kind, xattrs, user, group, hardlink, ..now };
        Some(Before { entry, encoded: None, lists })
    }

    /// A further name of a file that was read under its first one and not touched since.
    fn is_known_link(&mut self, found: &Found) -> Result<bool, FeedError> {
        let stat = &found.meta.stat;
        let Some(group) = self.groups.of(stat) else { return Ok(false) };
        let Some(reading) = self.readings.of(group) else { return Ok(false) };
        if reading.same_content(stat) {
            let mut entry = to_entry(found.clone(), Some(group));
            entry.ctime = reading.ctime;
            return self.link(entry);
        }
        if reading.is_written(stat) {
            self.groups.split(stat);
            let detail = "it was written after it was read under another of its names: here it is in the snapshot as a file of its own";
            self.confess(exception(&found.path, ExceptionKind::ChangedWhileRead, detail));
        }
        Ok(false)
    }

    fn link(&mut self, entry: Entry) -> Result<bool, FeedError> {
        let path = entry.path.clone();
        match self.writer.add_link(entry) {
            Ok(Reuse::Taken) => {
                // The bytes were counted under the first name.
                self.count(0);
                Ok(true)
            }
            Ok(Reuse::ReadAgain) => Ok(false),
            Err(error) => self.unless_only_this(&path, error).map(|()| true),
        }
    }

    fn remember(&mut self, group: Option<u64>, stat: &Stat, ctime: Option<FileTime>) {
        if let Some(group) = group {
            self.readings.remember(group, stat, ctime);
        }
    }

    fn read_file(&mut self, found: Found, mut content: OpenFile) -> Result<(), FeedError> {
        let path = found.path.clone();
        // Not after the first read: that may take long, and a write meanwhile must not look old.
        let begun = self.clock.now();
        let first = match first_read(
            &mut content,
            &mut self.buffer,
            self.pace.as_deref(),
            &self.counters,
        ) {
            Ok(first) => first,
            Err(error) => {
                let detail = format!("cannot be read: {error}");
                self.confess(exception(&path, ExceptionKind::Unreadable, detail));
                return Ok(());
            }
        };
        let group = self.groups.of(&found.meta.stat);
        let mut entry = to_entry(found, group);
        if content.stat().is_racy(begun) {
            entry.ctime = None;
        }
        let ctime = entry.ctime;
        let content_size = content.stat().size;
        let holes = holes(content.extents(), content_size);
        let beginning = self.beginning(&entry)?;
        let taken_over = beginning.as_ref().map_or(0, Begun::length);
        if taken_over > 0 {
            content.skip_to(taken_over);
        }
        self.counters.source_bytes.fetch_add(taken_over, Ordering::Relaxed);
        let head = self.buffer.get(..first).unwrap_or_default();
        let image = looks_like_image(head, content_size);
        let (cancel, pace) = (&self.cancel, self.pace.as_deref());
        let mut rest = Tolerant {
            inner: &mut content,
            failure: None,
            cancel,
            pace,
            counters: &self.counters,
            counted: taken_over,
        };
        let outcome = match beginning {
            Some(begun) => self.writer.add_rest(entry, begun, &mut rest, &holes, image),
            None if image => self.writer.add_image(entry, &mut head.chain(&mut rest), &holes),
            None => self.writer.add_file(entry, &mut head.chain(&mut rest), &holes),
        };
        let (failure, counted) = (rest.failure, rest.counted);
        if self.cancel.is_cancelled() {
            return Err(FeedError::Canceled);
        }
        match outcome {
            Ok(outcome) => {
                self.count(outcome.size.saturating_sub(counted));
                let verdict = content.verdict(begun);
                if failure.is_none() && verdict == Verdict::Steady {
                    self.remember(group, content.stat(), ctime);
                } else {
                    // Further names are read for themselves: a torn reading is not theirs.
                    self.groups.split(content.stat());
                }
                self.judge(&path, failure, verdict, outcome.size);
                Ok(())
            }
            Err(error) => {
                self.counters.source_bytes.fetch_sub(counted, Ordering::Relaxed);
                self.unless_only_this(&path, error)
            }
        }
    }

    /// What an interrupted run had read of this file, if it looks the same.
    fn beginning(&mut self, entry: &Entry) -> Result<Option<Begun>, FeedError> {
        let Some(salvage) = &self.salvage else { return Ok(None) };
        let Some(before) = salvage.begun(entry) else { return Ok(None) };
        let begun = self.writer.take_begun(before, salvage.frames())?;
        Ok(Some(begun).filter(|begun| begun.length() > 0))
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
            (None, Verdict::Unsure) => exception(
                path,
                ExceptionKind::ChangedWhileRead,
                format_args!(
                    "perhaps: it was written moments before, and time stamps here are too coarse to tell; what was read is in the snapshot ({size} bytes), and the next backup reads it again"
                ),
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
        let Some(Before { mut entry, encoded, lists }) = self.unchanged_entry(path, stat) else {
            return Ok(false);
        };
        let group = entry.hardlink;
        if let Some(reading) = group.and_then(|group| self.readings.of(group)) {
            if !reading.same_content(stat) {
                return Ok(false);
            }
            entry.ctime = reading.ctime;
            return self.link(entry);
        }
        let ctime = entry.ctime;
        match self.writer.unchanged(entry, encoded, &lists) {
            Ok(Reuse::Taken) => {
                self.count(stat.size);
                self.remember(group, stat, ctime);
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

fn first_read(
    content: &mut OpenFile,
    buffer: &mut [u8],
    pace: Option<&Pace>,
    counters: &Counters,
) -> io::Result<usize> {
    loop {
        match content.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return paid(other, pace, counters),
        }
    }
}

/// The same, counted, and once what was read is within the limit.
fn paid(read: io::Result<usize>, pace: Option<&Pace>, counters: &Counters) -> io::Result<usize> {
    if let Ok(bytes) = &read {
        counters.read_bytes.fetch_add(*bytes as u64, Ordering::Relaxed);
        if let Some(pace) = pace {
            pace.take_blocking(*bytes as u64);
        }
    }
    read
}

/// A read that fails ends the file, not the run; the failure is kept. What is read counts at once: a file may take hours.
struct Tolerant<'a> {
    inner: &'a mut OpenFile,
    failure: Option<io::Error>,
    cancel: &'a CancellationToken,
    pace: Option<&'a Pace>,
    counters: &'a Counters,
    /// Bytes of this file in `counters`.
    counted: u64,
}

impl Read for Tolerant<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failure.is_some() || self.cancel.is_cancelled() {
            return Ok(0);
        }
        let most = self.pace.map_or(buffer.len(), |pace| pace.piece(buffer.len()));
        match paid(self.inner.read(&mut buffer[..most]), self.pace, self.counters) {
            Ok(bytes) => {
                self.counters.source_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                self.counted += bytes as u64;
                Ok(bytes)
            }
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

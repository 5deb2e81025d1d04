//! A file, or a folder as a tar archive, to a pipe: read ahead by several threads, written in order.
//!
//! Invariant: memory does not depend on the size of what is streamed, and a reader that goes away ends the
//! reading. Nothing of the target's file system is touched.

use std::{
    collections::VecDeque,
    io::{self, Write},
};

use vault::{
    restore::{Gauge, Limits, Segment, Segments, Unread, ordered},
    snapshot::{PieceSource, ReadError, Reader},
    tree::Entry,
};

use crate::sources::display_path;

use super::{
    Problem, ProblemKind, RestoreError, Selection, Unreadable, problem, selection::Found, tar, told,
};

/// What went over.
#[derive(Debug, Default)]
pub struct Streamed {
    pub files: u64,
    pub bytes: u64,
    pub problems: Vec<Problem>,
}

/// What stands between the bytes.
enum Mark {
    Entry(Box<Entry>),
    /// So many zeros.
    Hole(u64),
    /// The file cannot be read from here on: so many bytes of it.
    Lost {
        length: u64,
        why: Unread,
    },
    /// What follows from this path is lost, or could not be listed.
    Broken(Vec<u8>, ReadError),
}

/// How the entries are put into the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The content alone, of exactly one file.
    Bare,
    Tar,
}

/// Streams what is selected.
///
/// # Errors
/// A pipe that is closed, content that cannot be had (unless it is to be zeros), nothing to stream.
pub fn stream(
    reader: &Reader,
    selection: &Selection,
    shape: Shape,
    unreadable: Unreadable,
    out: &mut dyn Write,
) -> Result<Streamed, RestoreError> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let mut sink = Stream {
        out,
        shape,
        unreadable,
        entry: None,
        archive: tar::Archive::default(),
        done: Streamed::default(),
    };
    let feed = |segments: &mut Segments<'_, '_, '_, Mark>| -> Result<u64, RestoreError> {
        let (mut named, mut folders) = (0, Folders::default());
        selection.each(reader, |found| {
            match found {
                Found::Broken(path, error) => {
                    segments.mark(Mark::Broken(path, error)).map_err(ReadError::from)?;
                }
                // Nothing would tell whoever reads the stream.
                Found::Missing(path) => {
                    return Err(RestoreError::NotInSnapshot(display_path(&path)));
                }
                Found::Wanted(entry) if shape == Shape::Bare && !entry.is_file() => {}
                Found::Leads(_) if shape == Shape::Bare => {}
                Found::Wanted(entry) | Found::Leads(entry) => {
                    named += 1;
                    folders.pass(entry, &mut |entry| name(reader, &entry, segments))?;
                }
            }
            Ok(())
        })?;
        folders.end(&mut |entry| name(reader, &entry, segments))?;
        Ok(named)
    };
    let gauge = Gauge::default();
    let fed = ordered(reader.frames(), Limits::for_cores(cores), &gauge, feed, |segment| {
        sink.take(segment)
    })?;
    match (fed?, shape) {
        (0, _) if sink.done.problems.is_empty() => return Err(RestoreError::NothingMatches),
        (2.., Shape::Bare) => return Err(RestoreError::NotOneFile),
        _ => {}
    }
    sink.finish()
}

/// Folders held back until what lies in them comes: in a snapshot all children of a folder come before
/// what lies in its child folders, and tar takes a folder for finished when something else follows.
#[derive(Default)]
struct Folders {
    /// From the top down: a folder's path and its child folders that did not have their turn.
    levels: Vec<(Vec<u8>, VecDeque<Entry>)>,
}

type Emit<'a> = &'a mut dyn FnMut(Entry) -> Result<(), ReadError>;

impl Folders {
    fn pass(&mut self, entry: Entry, emit: Emit<'_>) -> Result<(), ReadError> {
        if entry.path.is_empty() {
            return emit(entry);
        }
        let cut = entry.path.iter().rposition(|byte| *byte == b'/');
        let above = entry.path.get(..cut.unwrap_or(0)).unwrap_or_default();
        self.come_to(above, emit)?;
        match self.levels.last_mut() {
            Some((_, waiting)) if entry.is_dir() => {
                waiting.push_back(entry);
                Ok(())
            }
            _ => emit(entry),
        }
    }

    /// Makes `folder` the open one: those before it have had their turn then.
    fn come_to(&mut self, folder: &[u8], emit: Emit<'_>) -> Result<(), ReadError> {
        while let Some((level, waiting)) = self.levels.last_mut() {
            if level == folder {
                return Ok(());
            }
            let leads = |to: &[u8]| {
                to.is_empty() || folder == to || {
                    folder.strip_prefix(to).is_some_and(|rest| rest.starts_with(b"/"))
                }
            };
            let here = leads(level);
            let wanted = waiting.iter().position(|child| here && leads(&child.path));
            for child in waiting.drain(..wanted.map_or(waiting.len(), |at| at + 1)) {
                emit(child)?;
            }
            if here {
                break;
            }
            self.levels.pop();
        }
        self.levels.push((folder.to_vec(), VecDeque::new()));
        Ok(())
    }

    fn end(self, emit: Emit<'_>) -> Result<(), ReadError> {
        self.levels.into_iter().rev().flat_map(|(_, waiting)| waiting).try_for_each(emit)
    }
}

/// Asks for everything of an entry.
fn name(
    reader: &Reader,
    entry: &Entry,
    segments: &mut Segments<'_, '_, '_, Mark>,
) -> Result<(), ReadError> {
    segments.mark(Mark::Entry(Box::new(entry.clone())))?;
    if !entry.is_file() {
        return Ok(());
    }
    let (own, mut at, mut ended) = (entry.bundled(), 0, false);
    let pieces = reader.pieces::<ReadError>(entry, |piece| {
        at = piece.offset + piece.length;
        let asked = match piece.from {
            PieceSource::Hole => segments.mark(Mark::Hole(piece.length)),
            PieceSource::Frame { kind, id, at } => {
                let length = u32::try_from(piece.length).map_err(|_| ReadError::WrongContent)?;
                segments.bytes((kind, id, at), length, own)
            }
        };
        ended |= asked.is_err();
        Ok(asked?)
    });
    match pieces {
        Err(error) if !ended => {
            let length = entry.size().saturating_sub(at);
            segments.mark(Mark::Lost { length, why: Unread::from(&error) })?;
            Ok(())
        }
        other => other,
    }
}

struct Stream<'a> {
    out: &'a mut dyn Write,
    shape: Shape,
    unreadable: Unreadable,
    entry: Option<Box<Entry>>,
    archive: tar::Archive,
    done: Streamed,
}

impl Stream<'_> {
    fn take(&mut self, segment: Segment<Mark>) -> Result<(), RestoreError> {
        match segment {
            Segment::Mark(Mark::Entry(entry)) => {
                self.end_entry()?;
                if self.shape == Shape::Bare && self.done.files > 0 {
                    return Err(RestoreError::NotOneFile);
                }
                self.done.files += u64::from(entry.is_file());
                if self.shape == Shape::Tar {
                    self.archive.begin(&entry, self.out).map_err(RestoreError::Pipe)?;
                }
                self.entry = Some(entry);
                Ok(())
            }
            Segment::Mark(Mark::Hole(length)) => self.zeros(length),
            Segment::Mark(Mark::Lost { length, why }) => self.lost(length, &why),
            Segment::Mark(Mark::Broken(path, error)) => self.broken(&path, error),
            Segment::Bytes { length, bytes } => match bytes {
                Ok(bytes) => self.bytes(&bytes),
                Err(why) => self.lost(length, &why),
            },
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        if self.archive.carries_content() || self.shape == Shape::Bare {
            self.out.write_all(bytes).map_err(RestoreError::Pipe)?;
            self.done.bytes += bytes.len() as u64;
        }
        Ok(())
    }

    fn zeros(&mut self, mut length: u64) -> Result<(), RestoreError> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        while length > 0 {
            let part = usize::try_from(length).unwrap_or(usize::MAX).min(ZEROS.len());
            self.bytes(ZEROS.get(..part).unwrap_or_default())?;
            length -= part as u64;
        }
        Ok(())
    }

    /// A stream cannot leave anything out once its length was said: zeros, or the end of it all.
    fn lost(&mut self, length: u64, unread: &Unread) -> Result<(), RestoreError> {
        let path = self.entry.as_ref().map(|entry| entry.path.clone()).unwrap_or_default();
        let why = &unread.why;
        if self.unreadable == Unreadable::Skip || unread.is_passing {
            return Err(RestoreError::StreamLost { path: display_path(&path), why: why.clone() });
        }
        let detail = format!("{length} bytes of it cannot be read and are zeros: {why}");
        self.done.problems.push(problem(&path, ProblemKind::Zeroed, detail));
        self.zeros(length)
    }

    /// What is lost of the tree is left out where lost content is zeros.
    fn broken(&mut self, path: &[u8], error: ReadError) -> Result<(), RestoreError> {
        let goes_on = self.shape == Shape::Tar && self.unreadable == Unreadable::Zero;
        if !goes_on || !error.is_loss() {
            return Err(error.into());
        }
        self.done.problems.push(problem(path, ProblemKind::Unlisted, told(&error)));
        Ok(())
    }

    fn end_entry(&mut self) -> Result<(), RestoreError> {
        if self.entry.take().is_some() && self.shape == Shape::Tar {
            self.archive.end(self.out).map_err(RestoreError::Pipe)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Streamed, RestoreError> {
        self.end_entry()?;
        let ended = match self.shape {
            Shape::Tar => self.archive.finish(self.out),
            Shape::Bare => Ok(()),
        };
        ended.and_then(|()| self.out.flush()).map_err(RestoreError::Pipe)?;
        Ok(self.done)
    }
}

/// A pipe that nobody reads any more is the reader's decision.
pub fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

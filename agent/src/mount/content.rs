//! A range of a file out of its pieces: only the lists and frames the range needs.
//!
//! Invariant: as many bytes as the file has in that range, each from a checked frame or from a hole the entry names.

use std::sync::Arc;

use vault::{
    content,
    id::{ChunkId, FrameKind},
    snapshot::{Frames, ReadError},
    tree::{Content, Entry, EntryKind, Piece},
};

use super::frames::Loader;

/// A stretch of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    offset: u64,
    length: u64,
    from: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Hole,
    Chunk(ChunkId),
}

/// Bytes of a file.
pub enum Bytes {
    /// A part of one frame.
    Part(Arc<Vec<u8>>, std::ops::Range<usize>),
    Joined(Vec<u8>),
}

impl Bytes {
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Part(frame, range) => frame.get(range.clone()).unwrap_or_default(),
            Self::Joined(bytes) => bytes,
        }
    }
}

/// Where data or a hole begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    Data,
    Hole,
}

type Shared<T> = Result<T, Arc<ReadError>>;

fn wrong<T>() -> Shared<T> {
    Err(Arc::new(ReadError::WrongContent))
}

/// Up to `length` bytes from `offset`; fewer only at the end of the file.
pub fn read(
    loader: &Arc<Loader>,
    frames: &Arc<Frames>,
    entry: &Entry,
    offset: u64,
    length: u64,
) -> Shared<Bytes> {
    let EntryKind::File { size, content } = &entry.kind else {
        return Err(Arc::new(ReadError::NotAFile));
    };
    if content.length() != Some(*size) {
        return wrong();
    }
    let end = offset.saturating_add(length).min(*size);
    if offset >= end {
        return Ok(Bytes::Joined(Vec::new()));
    }
    match content {
        Content::Empty => wrong(),
        Content::Bundled { bundle, offset: at, length, file } => {
            let frame = match loader.frame(frames, FrameKind::Bundle, *bundle) {
                Ok(frame) => frame,
                Err(lost) => {
                    let found = frames.file_instead(file, &lost).ok_or(lost)?;
                    let range = part(&(0..found.len()), offset, end)?;
                    return Ok(Bytes::Part(Arc::new(found), range));
                }
            };
            let from = *at as usize;
            let whole = from..from.saturating_add(*length as usize);
            let Some(bytes) = frame.get(whole.clone()) else { return wrong() };
            if frames.ids().file(bytes) != *file {
                return wrong();
            }
            Ok(Bytes::Part(Arc::clone(&frame), part(&whole, offset, end)?))
        }
        Content::Pieces { depth, pieces } => {
            let mut found = Vec::new();
            collect(frames, *depth, pieces, 0, offset..end, &mut |stretch| found.push(stretch))?;
            join(loader, frames, &found, offset, end)
        }
    }
}

fn part(whole: &std::ops::Range<usize>, from: u64, to: u64) -> Shared<std::ops::Range<usize>> {
    let place = |at: u64| usize::try_from(at).ok().and_then(|at| whole.start.checked_add(at));
    match (place(from), place(to)) {
        (Some(from), Some(to)) if from <= to && to <= whole.end => Ok(from..to),
        _ => wrong(),
    }
}

fn join(
    loader: &Arc<Loader>,
    frames: &Arc<Frames>,
    found: &[Stretch],
    offset: u64,
    end: u64,
) -> Shared<Bytes> {
    let mut joined = Vec::new();
    for stretch in found {
        let from = offset.max(stretch.offset) - stretch.offset;
        let to = end.min(stretch.offset + stretch.length) - stretch.offset;
        match stretch.from {
            Origin::Hole => {
                let length = usize::try_from(to - from).or_else(|_| wrong())?;
                joined.resize(joined.len() + length, 0);
            }
            Origin::Chunk(id) => {
                let frame = loader.frame(frames, FrameKind::Chunk, id)?;
                // A chunk belongs to a file wholly.
                if frame.len() as u64 != stretch.length {
                    return wrong();
                }
                let range = part(&(0..frame.len()), from, to)?;
                if found.len() == 1 {
                    return Ok(Bytes::Part(frame, range));
                }
                joined.extend_from_slice(frame.get(range).unwrap_or_default());
            }
        }
    }
    if joined.len() as u64 == end - offset { Ok(Bytes::Joined(joined)) } else { wrong() }
}

/// The pieces that overlap `range`, in order; lists outside of it are not read. `start`: where `pieces` begin.
fn collect(
    frames: &Frames,
    depth: u8,
    pieces: &[Piece],
    start: u64,
    range: std::ops::Range<u64>,
    each: &mut impl FnMut(Stretch),
) -> Shared<()> {
    let mut offset = start;
    for piece in pieces {
        let length = piece.length();
        let (from, to) = (offset, offset.saturating_add(length));
        offset = to;
        if to <= range.start {
            continue;
        }
        if from >= range.end {
            break;
        }
        match piece {
            Piece::Hole { .. } => each(Stretch { offset: from, length, from: Origin::Hole }),
            Piece::Data { id, .. } if depth == 0 => {
                each(Stretch { offset: from, length, from: Origin::Chunk(*id) });
            }
            Piece::Data { id, .. } => {
                let list = frames.frame(FrameKind::List, id).map_err(Arc::new)?;
                let below = content::decode(&list, depth - 1, length)
                    .map_err(|error| Arc::new(ReadError::Cbor(error)))?;
                collect(frames, depth - 1, &below, from, range.clone(), each)?;
            }
        }
    }
    Ok(())
}

/// The first place from `offset` on that is data, or a hole; every file ends in a hole. `None`: none there.
pub fn seek(frames: &Frames, entry: &Entry, offset: u64, what: Seek) -> Shared<Option<u64>> {
    let EntryKind::File { size, content } = &entry.kind else {
        return Err(Arc::new(ReadError::NotAFile));
    };
    if offset >= *size {
        return Ok(None);
    }
    let Content::Pieces { depth, pieces } = content else {
        return Ok(Some(if what == Seek::Data { offset } else { *size }));
    };
    // Stretches are looked through a few at a time: a terabyte has millions.
    let mut from = offset;
    while from < *size {
        let to = from.saturating_add(1 << 30).min(*size);
        let mut found = None;
        collect(frames, *depth, pieces, 0, from..to, &mut |stretch| {
            let is = if stretch.from == Origin::Hole { Seek::Hole } else { Seek::Data };
            if is == what && found.is_none() {
                found = Some(stretch.offset.max(offset));
            }
        })?;
        if found.is_some() {
            return Ok(found);
        }
        from = to;
    }
    Ok((what == Seek::Hole).then_some(*size))
}

/// Bytes that are not holes, as far as the entry itself tells.
pub fn allocated(entry: &Entry) -> u64 {
    match &entry.kind {
        EntryKind::File { content: Content::Pieces { pieces, .. }, .. } => pieces
            .iter()
            .filter(|piece| matches!(piece, Piece::Data { .. }))
            .map(Piece::length)
            .sum(),
        EntryKind::File { size, .. } => *size,
        _ => 0,
    }
}

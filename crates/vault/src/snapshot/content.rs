//! File content: the pieces of a file, in order, with lists resolved.

use super::{Frames, ReadError};
use crate::{
    content,
    id::{ChunkId, FrameKind},
    tree::{Content, Entry, EntryKind, Piece},
};

/// A stretch of a file and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilePiece {
    /// Offset in the file.
    pub offset: u64,
    pub length: u64,
    pub from: PieceSource,
}

/// Where a stretch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceSource {
    Hole,
    /// `length` bytes of a frame, from byte `at` of its plaintext.
    Frame {
        kind: FrameKind,
        id: ChunkId,
        at: u32,
    },
}

/// Calls `each` for every piece of a regular file, in order. Lists are read, chunks are not.
pub fn for_each_piece<E: From<ReadError>>(
    frames: &Frames,
    entry: &Entry,
    each: &mut impl FnMut(FilePiece) -> Result<(), E>,
) -> Result<(), E> {
    let EntryKind::File { size, content } = &entry.kind else {
        return Err(ReadError::NotAFile.into());
    };
    if content.length() != Some(*size) {
        return Err(ReadError::WrongContent.into());
    }
    match content {
        Content::Empty => Ok(()),
        Content::Bundled { bundle, offset, length, .. } => {
            let from = PieceSource::Frame { kind: FrameKind::Bundle, id: *bundle, at: *offset };
            each(FilePiece { offset: 0, length: (*length).into(), from })
        }
        Content::Pieces { depth, pieces } => {
            walk(frames, *depth, pieces, &mut 0, &mut |_| Ok(()), each)
        }
    }
}

/// Calls `each` for every list frame of a file.
pub fn for_each_list<E: From<ReadError>>(
    frames: &Frames,
    entry: &Entry,
    each: &mut impl FnMut(ChunkId) -> Result<(), E>,
) -> Result<(), E> {
    let EntryKind::File { content: Content::Pieces { depth, pieces }, .. } = &entry.kind else {
        return Ok(());
    };
    walk(frames, *depth, pieces, &mut 0, each, &mut |_| Ok(()))
}

fn walk<E: From<ReadError>>(
    frames: &Frames,
    depth: u8,
    pieces: &[Piece],
    offset: &mut u64,
    list: &mut impl FnMut(ChunkId) -> Result<(), E>,
    each: &mut impl FnMut(FilePiece) -> Result<(), E>,
) -> Result<(), E> {
    for piece in pieces {
        match piece {
            Piece::Hole { length } => {
                each(FilePiece { offset: *offset, length: *length, from: PieceSource::Hole })?;
                *offset += length;
            }
            Piece::Data { id, length } if depth == 0 => {
                let from = PieceSource::Frame { kind: FrameKind::Chunk, id: *id, at: 0 };
                each(FilePiece { offset: *offset, length: *length, from })?;
                *offset += length;
            }
            Piece::Data { id, length } => {
                list(*id)?;
                let below = frames.frame(FrameKind::List, id)?;
                let pieces =
                    content::decode(&below, depth - 1, *length).map_err(ReadError::Cbor)?;
                walk(frames, depth - 1, &pieces, offset, list, each)?;
            }
        }
    }
    Ok(())
}

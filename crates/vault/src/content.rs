//! Content lists: the pieces of a file when there are too many for its entry.
//!
//! A list is a frame of kind List holding pieces; lists of lists follow the same rule, so a terabyte image changed
//! in one place shares all lists but one per level. Invariant: boundaries depend on the pieces alone.

use crate::{
    cbor::{CborError, Reader, Writer},
    id::ChunkId,
    tree::{Content, Piece},
};

/// Lists of lists of lists: more than any file needs.
pub const MAX_DEPTH: u8 = 4;
/// Up to this many pieces stay in the entry.
const INLINE: usize = 32;
const MIN: usize = 128;
const MAX: usize = 4_096;
/// One piece in 512 ends a list.
const MASK: u16 = 511;

/// Collects the pieces of one file in order.
#[derive(Clone, Default)]
pub struct ListBuilder {
    levels: Vec<Vec<Piece>>,
}

impl ListBuilder {
    pub const fn new() -> Self {
        Self { levels: Vec::new() }
    }

    /// Adds a piece; holes that follow each other become one. `store` stores a list and names it.
    pub fn push<E>(
        &mut self,
        piece: Piece,
        store: &mut impl FnMut(Vec<u8>) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        if let (Piece::Hole { length }, Some(Piece::Hole { length: open })) =
            (piece, self.levels.first_mut().and_then(|level| level.last_mut()))
        {
            *open += length;
            return Ok(());
        }
        // A hole may still grow, so a list is closed when the piece after its end arrives.
        self.close_full(0, store)?;
        self.level(0).push(piece);
        Ok(())
    }

    fn level(&mut self, level: usize) -> &mut Vec<Piece> {
        if self.levels.len() <= level {
            self.levels.resize(level + 1, Vec::new());
        }
        &mut self.levels[level]
    }

    fn close_full<E>(
        &mut self,
        level: usize,
        store: &mut impl FnMut(Vec<u8>) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        if level < usize::from(MAX_DEPTH) && full(self.level(level)) {
            self.close_full(level + 1, store)?;
            self.close(level, store)?;
        }
        Ok(())
    }

    fn close<E>(
        &mut self,
        level: usize,
        store: &mut impl FnMut(Vec<u8>) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        let pieces = std::mem::take(self.level(level));
        let length = pieces.iter().map(Piece::length).sum();
        let depth = u8::try_from(level).unwrap_or(MAX_DEPTH);
        let id = store(encode(depth, &pieces))?;
        self.level(level + 1).push(Piece::Data { id, length });
        Ok(())
    }

    /// What goes into the entry.
    pub fn finish<E>(
        mut self,
        store: &mut impl FnMut(Vec<u8>) -> Result<ChunkId, E>,
    ) -> Result<Content, E> {
        let mut level = 0;
        loop {
            let top = level + 1 >= self.levels.len();
            let open = self.level(level);
            if top && (open.len() <= INLINE || level == usize::from(MAX_DEPTH)) {
                let pieces = std::mem::take(open);
                if pieces.is_empty() {
                    return Ok(Content::Empty);
                }
                return Ok(Content::Pieces {
                    depth: u8::try_from(level).unwrap_or(MAX_DEPTH),
                    pieces,
                });
            }
            if !open.is_empty() {
                self.close(level, store)?;
            }
            level += 1;
        }
    }
}

fn full(pieces: &[Piece]) -> bool {
    let ends = match pieces.last() {
        Some(Piece::Data { id, .. }) => u16::from_le_bytes([id.0[0], id.0[1]]) & MASK == 0,
        _ => false,
    };
    pieces.len() >= MAX || (ends && pieces.len() >= MIN)
}

fn encode(depth: u8, pieces: &[Piece]) -> Vec<u8> {
    let mut out = Writer::new();
    crate::tree::encode_pieces(&mut out, depth, pieces);
    out.into_bytes()
}

/// Reads a list that should have `depth` and stand for `length` bytes.
pub fn decode(bytes: &[u8], depth: u8, length: u64) -> Result<Vec<Piece>, CborError> {
    let mut reader = Reader::new(bytes);
    let (found, pieces) = crate::tree::decode_pieces(&mut reader)?;
    reader.end()?;
    if found == depth && crate::tree::total(&pieces) == Some(length) && pieces.len() <= MAX {
        Ok(pieces)
    } else {
        Err(CborError::OutOfBounds)
    }
}

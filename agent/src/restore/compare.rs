//! What of a file in the target is the snapshot's already: stretches are read and their keyed ids compared.
//!
//! Owns the comparison for delta restores, for interrupted ones and for `--verify`. Invariant: a stretch counts as
//! equal only if its bytes have the id the snapshot names. It writes nothing.

use std::{fs::File, os::unix::fs::FileExt as _};

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};
use vault::{
    id::{FileId, FrameKind, IdKeys},
    snapshot::{FilePiece, PieceSource},
};

/// Whether the stretch `piece` of `file` is what the snapshot says; `buffer` is reused.
pub fn is_same(
    file: &File,
    piece: &FilePiece,
    own: Option<FileId>,
    ids: &IdKeys,
    buffer: &mut Vec<u8>,
) -> bool {
    let PieceSource::Frame { kind, id, .. } = piece.from else {
        return is_hole(file, piece.offset, piece.length);
    };
    let Ok(length) = usize::try_from(piece.length) else { return false };
    buffer.resize(length, 0);
    if file.read_exact_at(buffer, piece.offset).is_err() {
        return false;
    }
    match (kind, own) {
        (FrameKind::Chunk, _) => ids.matches(kind, &id, buffer),
        (_, Some(own)) => ids.file(buffer) == own,
        (_, None) => false,
    }
}

/// No data from `offset` on for `length` bytes.
fn is_hole(file: &File, offset: u64, length: u64) -> bool {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) => data >= offset.saturating_add(length),
        // Beyond the last data.
        Err(Errno::NXIO) => true,
        Err(_) => false,
    }
}

/// For `--verify`: a hole may also be zeros that somebody wrote.
pub fn reads_the_same(
    file: &File,
    piece: &FilePiece,
    own: Option<FileId>,
    ids: &IdKeys,
    buffer: &mut Vec<u8>,
) -> bool {
    if piece.from != PieceSource::Hole || is_hole(file, piece.offset, piece.length) {
        return is_same(file, piece, own, ids, buffer);
    }
    let (mut at, end) = (piece.offset, piece.offset.saturating_add(piece.length));
    buffer.resize(1 << 20, 0);
    while at < end {
        let part = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let Some(room) = buffer.get_mut(..part) else { return false };
        if file.read_exact_at(room, at).is_err() || room.iter().any(|byte| *byte != 0) {
            return false;
        }
        at += part as u64;
    }
    true
}

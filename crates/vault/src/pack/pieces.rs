//! The bytes of an object as they were made.

use std::{
    fmt,
    io::{self, Read},
};

use bytes::Bytes;

use crate::id::Sha256;

/// Bytes in pieces, in order: putting the 32 MiB of a pack together would take a copy of each and as much memory again.
#[derive(Clone, Default)]
pub struct Pieces(Vec<Bytes>);

impl Pieces {
    /// Bytes altogether.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }
    /// True when there is not one byte.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }
    /// The pieces, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Bytes> + Clone {
        self.0.iter()
    }
    /// A copy in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.concat()
    }
    /// In one piece; a copy unless they are.
    pub fn joined(&self) -> Bytes {
        match self.0.as_slice() {
            [one] => one.clone(),
            _ => self.to_vec().into(),
        }
    }
    /// SHA-256 of all of them.
    pub fn sha256(&self) -> Sha256 {
        use sha2::Digest as _;
        let mut hasher = sha2::Sha256::new();
        self.0.iter().for_each(|piece| hasher.update(piece));
        Sha256(hasher.finalize().into())
    }
    /// Reads them from the front.
    pub fn reader(&self) -> impl Read + '_ {
        Front { pieces: self.0.iter(), piece: &[] }
    }
}

struct Front<'a> {
    pieces: std::slice::Iter<'a, Bytes>,
    piece: &'a [u8],
}

impl Read for Front<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.next() {
                Some(next) => self.piece = next,
                None => return Ok(0),
            }
        }
        self.piece.read(buffer)
    }
}

impl<B: Into<Bytes>> From<B> for Pieces {
    fn from(bytes: B) -> Self {
        Self(vec![bytes.into()])
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in {} pieces", self.len(), self.0.len())
    }
}

/// Collects pieces; what is small is put together, or there would be a piece for every node of a tree.
#[derive(Default)]
pub(super) struct Joiner {
    done: Vec<Bytes>,
    open: Vec<u8>,
}

impl Joiner {
    /// Room of what is put together.
    const ROOM: usize = 256 << 10;

    pub fn push(&mut self, bytes: Vec<u8>) {
        if bytes.len() > Self::ROOM / 2 {
            self.close();
            self.done.push(bytes.into());
            return;
        }
        if self.open.len() + bytes.len() > Self::ROOM {
            self.close();
        }
        if self.open.is_empty() {
            self.open.reserve_exact(Self::ROOM);
        }
        self.open.extend_from_slice(&bytes);
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.done.push(std::mem::take(&mut self.open).into());
        }
    }

    pub fn finish(mut self) -> Pieces {
        self.open.shrink_to_fit();
        self.close();
        Pieces(self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_is_what_was_pushed() {
        let (mut joiner, mut plain) = (Joiner::default(), Vec::new());
        for length in [0, 1, 1_000, 131_072, 131_073, 5, 600_000, 131_072, 131_072, 7] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            plain.extend_from_slice(&bytes);
            joiner.push(bytes);
        }
        let pieces = joiner.finish();
        assert!(pieces.iter().all(|piece| !piece.is_empty()));
        assert!((4..=6).contains(&pieces.iter().len()), "{pieces:?}");
        assert!(pieces.joined() == plain && pieces.to_vec() == plain);
        assert_eq!((pieces.len(), pieces.sha256()), (plain.len(), Sha256::of(&plain)));
        let mut read = Vec::new();
        pieces.reader().read_to_end(&mut read).unwrap();
        assert!(read == plain);
        assert!(Joiner::default().finish().is_empty());
    }
}

//! Cutting streams into chunks.
//!
//! Owns the two ways of cutting of a vault descriptor. Invariant: cuts depend on the bytes (and, for FastCDC, on the
//! vault's secret gear table) alone, never on how the bytes were read. What the secret table hides and what it does
//! not: `docs/vault-format.md`.

use std::io::{self, Read};

use fastcdc::v2020::{Normalization, cut_gear, select_masks};

use crate::{descriptor::Chunking, seal::derive_key};

/// How much is read at once.
const READ: usize = 256 << 10;

/// Gear table and masks, made once per vault.
pub struct Gear {
    table: Vec<u64>,
    shifted: Vec<u64>,
}

impl Gear {
    /// 256 words of keyed BLAKE3 output, little-endian.
    pub fn new(id_secret: &[u8; 32]) -> Self {
        let key = derive_key(id_secret, "everhold/v1/chunk/gear");
        let mut bytes = [0; 2_048];
        blake3::Hasher::new_keyed(&key).finalize_xof().fill(&mut bytes);
        let word =
            |word: &[u8]| word.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        let table: Vec<u64> = bytes.chunks_exact(8).map(word).collect();
        let shifted = table.iter().map(|word| word << 1).collect();
        Self { table, shifted }
    }
}

/// Cuts one stream.
pub struct Chunker<'a> {
    gear: &'a Gear,
    chunking: Chunking,
    /// Longer than what is in it: zeroing it for every read would cost as much as hashing.
    buffer: &'a mut Vec<u8>,
    /// What was read and not given out yet.
    start: usize,
    end: usize,
    ended: bool,
    /// Length of the first block of a stretch that does not begin at a block's start.
    lead: Option<usize>,
}

impl<'a> Chunker<'a> {
    /// Cuts a stretch that begins at `offset` of its file: blocks are aligned to the file. `buffer` is scratch
    /// space to be used again for the next stretch; what it holds does not matter.
    pub const fn new(
        gear: &'a Gear,
        chunking: Chunking,
        offset: u64,
        buffer: &'a mut Vec<u8>,
    ) -> Self {
        let lead = match chunking {
            Chunking::Fixed { block } => match offset % block as u64 {
                0 => None,
                over => Some((block as u64 - over) as usize),
            },
            Chunking::FastCdc { .. } => None,
        };
        Self { gear, chunking, buffer, start: 0, end: 0, ended: false, lead }
    }

    const fn max(&self) -> usize {
        match self.chunking {
            Chunking::FastCdc { max, .. } => max as usize,
            Chunking::Fixed { block } => block as usize,
        }
    }

    /// The next chunk; `None` at the end. `data` is read to its end, in pieces.
    pub fn next_chunk(&mut self, data: &mut dyn Read) -> io::Result<Option<&[u8]>> {
        self.fill(data)?;
        let lead = self.lead.take();
        let ready = &self.buffer[self.start..self.end];
        if ready.is_empty() {
            return Ok(None);
        }
        let length = lead.map_or_else(|| self.cut(ready), |lead| lead.min(ready.len()));
        let from = self.start;
        self.start += length;
        Ok(Some(&self.buffer[from..from + length]))
    }

    /// Makes sure that a whole chunk is there, or everything up to the end.
    fn fill(&mut self, data: &mut dyn Read) -> io::Result<()> {
        let max = self.max();
        if self.ended || self.end - self.start >= max {
            return Ok(());
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.buffer.len() < max + READ {
            self.buffer.resize(max + READ, 0);
        }
        while self.end < self.buffer.len() {
            match data.read(&mut self.buffer[self.end..]) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(());
                }
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn cut(&self, ready: &[u8]) -> usize {
        match self.chunking {
            Chunking::Fixed { block } => ready.len().min(block as usize),
            Chunking::FastCdc { min, avg, max } => {
                let (small, large) = select_masks(avg as usize, Normalization::Level1);
                let (min, avg, max) = (min as usize, avg as usize, max as usize);
                let (table, shifted) = (&self.gear.table, &self.gear.shifted);
                let window = &ready[..ready.len().min(max)];
                let (shifted_small, shifted_large) = (small << 1, large << 1);
                let (_, length) = cut_gear(
                    window,
                    min,
                    avg,
                    max,
                    small,
                    large,
                    shifted_small,
                    shifted_large,
                    table,
                    shifted,
                );
                length
            }
        }
    }
}

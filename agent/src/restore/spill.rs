//! A list that may be longer than memory: written in order, read backwards.
//!
//! Invariant: at most [`SEGMENT`] bytes of it (and one record) are in memory while a temporary file can be had;
//! without one it grows in memory. It must not know what the records are.

use std::{io, os::unix::fs::FileExt as _};

use crate::scratch::Scratch;

const SEGMENT: usize = 2 << 20;

/// Records in order of arrival.
#[derive(Default)]
pub struct Spill {
    /// Segments in the file: offset and length.
    segments: Vec<(u64, usize)>,
    scratch: Scratch,
    open: Segment,
}

#[derive(Default)]
struct Segment {
    bytes: Vec<u8>,
    /// Where each record ends.
    ends: Vec<usize>,
}

impl Spill {
    pub fn push(&mut self, record: &[u8]) {
        self.open.bytes.extend_from_slice(record);
        self.open.ends.push(self.open.bytes.len());
        if self.open.bytes.len() >= SEGMENT && !self.scratch.is_stuck() {
            self.spill();
        }
    }

    fn spill(&mut self) {
        let mut encoded = Vec::with_capacity(self.open.bytes.len() + self.open.ends.len() * 8);
        for end in &self.open.ends {
            encoded.extend_from_slice(&(*end as u64).to_le_bytes());
        }
        encoded.extend_from_slice(&self.open.bytes);
        encoded.extend_from_slice(&(self.open.ends.len() as u64).to_le_bytes());
        if let Some((at, _)) = self.scratch.write(&encoded) {
            self.segments.push((at, encoded.len()));
            self.open = Segment::default();
        }
    }

    /// Every record, the last one first.
    ///
    /// # Errors
    /// When the temporary file cannot be read.
    pub fn backwards(self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.open.backwards(&mut each);
        for (at, length) in self.segments.iter().rev() {
            let mut encoded = vec![0; *length];
            if let Some(file) = self.scratch.file() {
                file.read_exact_at(&mut encoded, *at)?;
            }
            Segment::decode(&encoded).ok_or(io::ErrorKind::InvalidData)?.backwards(&mut each);
        }
        Ok(())
    }
}

impl Segment {
    fn decode(encoded: &[u8]) -> Option<Self> {
        let (rest, count) = encoded.split_last_chunk()?;
        let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
        let (ends, bytes) = rest.split_at_checked(count.checked_mul(8)?)?;
        let (ends, _) = ends.as_chunks::<8>();
        let ends = ends.iter().map(|end| usize::try_from(u64::from_le_bytes(*end)).ok());
        Some(Self { bytes: bytes.to_vec(), ends: ends.collect::<Option<_>>()? })
    }
    fn backwards(&self, each: &mut impl FnMut(&[u8])) {
        for (at, end) in self.ends.iter().enumerate().rev() {
            let from = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
            if let Some(record) = self.bytes.get(from.unwrap_or(0)..*end) {
                each(record);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_longer_than_its_memory_comes_back_backwards() {
        let mut spill = Spill::default();
        let record = |at: u32| vec![u8::try_from(at % 251).expect("small"); at as usize % 3_000];
        for at in 0..4_000 {
            spill.push(&record(at));
        }
        assert!(spill.segments.len() > 1 && spill.open.bytes.len() < SEGMENT);
        let mut at = 4_000;
        spill
            .backwards(|found| {
                at -= 1;
                assert_eq!(found, record(at));
            })
            .expect("reads");
        assert_eq!(at, 0);
    }
}

//! Compression: zstd, or nothing where nothing is to be gained.
//!
//! Owns the codecs of frames and the guess that data is incompressible. Invariant: decompression allocates the
//! authenticated length and not a byte more.

use zstd::zstd_safe::CParameter;

use crate::descriptor::MAX_FRAME_RAW;

/// How a frame's payload is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Raw,
    Zstd,
}

impl Codec {
    /// The number in a frame.
    pub const fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }
    /// The codec with this number.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// How hard a frame's payload is compressed. No reader can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// A level of zstd.
    Level(i32),
    /// A quarter less time than level 3, and 2 to 8 % more bytes. Level 1 takes a tenth less and makes up to 11 % more:
    /// in what is longer than 256 KiB it looks for matches of seven bytes and more, and machine code has shorter ones.
    Haste,
}

/// The payload does not decompress to the length it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the payload does not decompress to its length")]
pub struct DecompressError;

/// Reusable compression state of one thread.
#[derive(Default)]
pub struct Compressor {
    contexts: Vec<(Effort, zstd::bulk::Compressor<'static>)>,
    buffer: Vec<u8>,
}

impl Compressor {
    /// The payload of a frame: compressed if that saves at least a thirty-second, else as it is.
    pub fn compress<'a>(&'a mut self, effort: Effort, raw: &'a [u8]) -> (Codec, &'a [u8]) {
        if raw.len() < 32 || looks_random(raw) {
            return (Codec::Raw, raw);
        }
        self.buffer.clear();
        self.buffer.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        let Ok(at) = self.context(effort) else { return (Codec::Raw, raw) };
        let (_, context) = &mut self.contexts[at];
        match context.compress_to_buffer(raw, &mut self.buffer) {
            Ok(length) if length < raw.len() - raw.len() / 32 => {
                (Codec::Zstd, &self.buffer[..length])
            }
            _ => (Codec::Raw, raw),
        }
    }

    fn context(&mut self, effort: Effort) -> std::io::Result<usize> {
        if let Some(at) = self.contexts.iter().position(|(has, _)| *has == effort) {
            return Ok(at);
        }
        let mut context = match effort {
            Effort::Level(level) => zstd::bulk::Compressor::new(level)?,
            Effort::Haste => {
                let mut context = zstd::bulk::Compressor::new(1)?;
                context.set_parameter(CParameter::HashLog(15))?;
                context.set_parameter(CParameter::MinMatch(5))?;
                context
            }
        };
        // Frames are authenticated and their length is in the directory: nothing to repeat here.
        context.include_checksum(false)?;
        self.contexts.push((effort, context));
        Ok(self.contexts.len() - 1)
    }
}

/// Reusable decompression state of one thread.
#[derive(Default)]
pub struct Decompressor(Option<zstd::bulk::Decompressor<'static>>);

impl Decompressor {
    /// Undoes zstd into `raw`, which is overwritten; the result has exactly `raw_len` bytes.
    pub fn decompress_into(
        &mut self,
        payload: &[u8],
        raw_len: usize,
        raw: &mut Vec<u8>,
    ) -> Result<(), DecompressError> {
        raw.clear();
        if raw_len > MAX_FRAME_RAW {
            return Err(DecompressError);
        }
        raw.reserve_exact(raw_len);
        let context = match &mut self.0 {
            Some(context) => context,
            none => none.insert(zstd::bulk::Decompressor::new().map_err(|_| DecompressError)?),
        };
        let length = context.decompress_to_buffer(payload, raw).map_err(|_| DecompressError)?;
        if length == raw_len && raw.len() == raw_len { Ok(()) } else { Err(DecompressError) }
    }
}

/// Whether four samples look like noise: the sum of squared byte counts of uniform noise is n²/256 + n; text,
/// code and most structured data are at many times that, media and archives within a few per cent.
fn looks_random(raw: &[u8]) -> bool {
    const SAMPLE: usize = 4_096;
    if raw.len() < 4 * SAMPLE {
        return false;
    }
    let stride = (raw.len() - SAMPLE) / 3;
    let samples = [0, 1, 2, 3].map(|at| &raw[at * stride..at * stride + SAMPLE]);
    // Each sample has counts of its own: a processor waits where the same one is raised twice in a row.
    let mut counts = [[0_u32; 256]; 4];
    for at in 0..SAMPLE {
        for (counts, sample) in counts.iter_mut().zip(samples) {
            counts[usize::from(sample[at])] += 1;
        }
    }
    let n = 4 * SAMPLE as u64;
    let squares: u64 = (0..256)
        .map(|byte| counts.iter().map(|counts| u64::from(counts[byte])).sum::<u64>().pow(2))
        .sum();
    squares * 256 * 100 < n * n * 104
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{IdGen as _, SeededIds};

    #[test]
    fn noise_is_stored_raw_and_text_is_not() {
        let mut noise = vec![0; 256 << 10];
        SeededIds::new(1).fill(&mut noise);
        let mut compressor = Compressor::default();
        let as_usual = Effort::Level(3);
        assert_eq!(compressor.compress(as_usual, &noise).0, Codec::Raw);
        let text = b"the quick brown fox jumps over the lazy dog. ".repeat(1_000);
        let mut again = Decompressor::default();
        for effort in [as_usual, Effort::Haste] {
            let (codec, payload) = compressor.compress(effort, &text);
            assert_eq!(codec, Codec::Zstd);
            // A buffer that has more room makes no difference.
            for mut raw in [Vec::new(), Vec::with_capacity(text.len() * 2)] {
                for wrong in [text.len() - 1, text.len() + 1] {
                    let read = again.decompress_into(payload, wrong, &mut raw);
                    assert_eq!(read, Err(DecompressError));
                }
                assert_eq!(again.decompress_into(payload, text.len(), &mut raw), Ok(()));
                assert_eq!(raw, text);
            }
        }
    }

    #[test]
    fn haste_finds_the_short_matches_of_a_large_chunk_that_level_one_does_not() {
        // Words of a few letters, as in machine code: matches are short.
        let ids = SeededIds::new(2);
        let mut picks = vec![0; 200_000];
        ids.fill(&mut picks);
        let words: Vec<[u8; 6]> = (0..512_u32)
            .map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes())
            .map(|[a, b, c, d]| [a, b, c, d, a ^ c, b ^ d])
            .collect();
        let raw: Vec<u8> = picks
            .chunks_exact(2)
            .flat_map(|pick| words[usize::from(u16::from_le_bytes([pick[0], pick[1]])) % 512])
            .collect();
        let mut compressor = Compressor::default();
        let mut length = |effort| compressor.compress(effort, &raw).1.len();
        let [haste, one] = [Effort::Haste, Effort::Level(1)].map(&mut length);
        assert!(haste < one / 2, "{haste} {one}");
    }
}

//! The sealed list of a pack's frames.
//!
//! Binary, big-endian: version, copy, frame count, lengths of the three regions; 41 bytes per frame; in the first
//! copy also the small files of every bundle; zeros up to a multiple of 1 KiB, so that the length of the sealed
//! directory tells little about the number of frames.

use super::{
    PackError,
    read::{FRONT_LEN, total},
};
use crate::{
    descriptor::{MAX_FRAME_RAW, MAX_FRAMES},
    id::{ChunkId, FileId, FrameKind},
    seal::TAG_LEN,
};

const VERSION: u8 = 1;
const FIXED: usize = 1 + 1 + 4 + 8 + 4 + 4;
const PER_FRAME: usize = 1 + 4 + 4 + 32;
const PER_PART: usize = 16 + 3;
const STEP: usize = 1_024;
/// A bundle holds at most this many files (they are at least one byte each).
const MAX_PARTS: usize = u16::MAX as usize;

/// One small file inside a bundle; files lie one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub file: FileId,
    /// Bytes; less than 16 MiB.
    pub length: u32,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameInfo {
    pub kind: FrameKind,
    pub id: ChunkId,
    /// Sealed length in the pack.
    pub sealed_len: u32,
    /// Length of the plaintext it decodes to.
    pub raw_len: u32,
    /// Files of a bundle; empty for other kinds, and when read from the second copy.
    pub parts: Vec<Part>,
}

/// All frames in order; the last is padding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    pub frames: Vec<FrameInfo>,
}

/// Lengths of the sealed regions of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Regions {
    pub first: u32,
    pub second: u32,
    pub frames: u64,
}

impl Directory {
    /// Sum of the sealed frames.
    pub fn frames_len(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.sealed_len)).sum()
    }
    /// Offset of a frame from the start of the frame region.
    pub fn offset(&self, index: u32) -> u64 {
        let before = self.frames.iter().take(index as usize);
        before.map(|frame| u64::from(frame.sealed_len)).sum()
    }
    /// Where the frames begin in the pack of `length` bytes whose directory this is; `None` for one that was read from
    /// the second copy and lacks what the first one lists.
    pub fn frames_at(&self, length: u64) -> Option<u64> {
        let regions = self.regions();
        (total(regions) == Some(length)).then(|| FRONT_LEN + u64::from(regions.first))
    }
    /// Number of frames, padding included.
    pub fn len(&self) -> u32 {
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Sealed length of a copy. `frames` and `parts` may be larger than what is there now.
    pub(super) fn sealed_len(copy: u8, frames: usize, bundles: usize, parts: usize) -> u32 {
        let listing = if copy == 0 { bundles * 2 + parts * PER_PART } else { 0 };
        let length = FIXED + frames * PER_FRAME + listing + TAG_LEN;
        u32::try_from(length.next_multiple_of(STEP)).unwrap_or(u32::MAX)
    }
    pub(super) fn regions(&self) -> Regions {
        let bundles = self.frames.iter().filter(|frame| frame.kind == FrameKind::Bundle).count();
        let parts = self.frames.iter().map(|frame| frame.parts.len()).sum();
        let length = |copy| Self::sealed_len(copy, self.frames.len(), bundles, parts);
        Regions { first: length(0), second: length(1), frames: self.frames_len() }
    }

    pub(super) fn encode(&self, copy: u8, regions: Regions) -> Vec<u8> {
        let length = if copy == 0 { regions.first } else { regions.second } as usize - TAG_LEN;
        let mut out = Vec::with_capacity(length + TAG_LEN);
        out.extend_from_slice(&[VERSION, copy]);
        out.extend_from_slice(&self.len().to_be_bytes());
        out.extend_from_slice(&regions.frames.to_be_bytes());
        out.extend_from_slice(&regions.first.to_be_bytes());
        out.extend_from_slice(&regions.second.to_be_bytes());
        for frame in &self.frames {
            out.push(frame.kind.code());
            out.extend_from_slice(&frame.sealed_len.to_be_bytes());
            out.extend_from_slice(&frame.raw_len.to_be_bytes());
            out.extend_from_slice(&frame.id.0);
        }
        let bundles = self.frames.iter().filter(|frame| frame.kind == FrameKind::Bundle);
        for frame in bundles.filter(|_| copy == 0) {
            let count = u16::try_from(frame.parts.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&count.to_be_bytes());
            for part in &frame.parts {
                out.extend_from_slice(&part.file.0);
                out.extend_from_slice(&part.length.to_be_bytes()[1..]);
            }
        }
        out.resize(length, 0);
        out
    }

    /// Reads an authenticated directory. Even so every count is checked: members of a shared vault hold keys.
    pub(super) fn decode(bytes: &[u8], copy: u8) -> Result<(Self, Regions), PackError> {
        let mut input = Input(bytes);
        if input.take(1)? != [VERSION] || input.take(1)? != [copy] {
            return Err(PackError::Directory);
        }
        let count = input.number(4)?;
        let frames_len = input.number(8)?;
        let regions = Regions { first: input.u32()?, second: input.u32()?, frames: frames_len };
        if count > u64::from(MAX_FRAMES) || count as usize * PER_FRAME > input.0.len() {
            return Err(PackError::Directory);
        }
        let mut directory = Self { frames: Vec::with_capacity(count as usize) };
        for _ in 0..count {
            directory.frames.push(input.frame()?);
        }
        if copy == 0 {
            for frame in &mut directory.frames {
                if frame.kind == FrameKind::Bundle {
                    frame.parts = input.parts(frame.raw_len)?;
                }
            }
        }
        let padded = input.0.iter().all(|byte| *byte == 0);
        let pads = directory.frames.iter().filter(|frame| frame.kind == FrameKind::Pad).count();
        let pad_last = directory.frames.last().is_some_and(|last| last.kind == FrameKind::Pad);
        if !padded || pads != 1 || !pad_last || directory.frames_len() != frames_len {
            return Err(PackError::Directory);
        }
        Ok((directory, regions))
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], PackError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(PackError::Directory)?;
        self.0 = rest;
        Ok(taken)
    }
    fn number(&mut self, bytes: usize) -> Result<u64, PackError> {
        let taken = self.take(bytes)?;
        Ok(taken.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
    }
    fn u32(&mut self) -> Result<u32, PackError> {
        u32::try_from(self.number(4)?).map_err(|_| PackError::Directory)
    }
    fn frame(&mut self) -> Result<FrameInfo, PackError> {
        let kind = self.take(1)?.first().copied().and_then(FrameKind::from_code);
        let kind = kind.ok_or(PackError::Version)?;
        let (sealed_len, raw_len) = (self.u32()?, self.u32()?);
        let id = ChunkId::from_slice(self.take(32)?).ok_or(PackError::Directory)?;
        let too_large = raw_len as usize > MAX_FRAME_RAW
            || sealed_len as usize > MAX_FRAME_RAW + super::write::FRAME_OVERHEAD
            || (sealed_len as usize) < super::write::FRAME_OVERHEAD;
        if too_large {
            return Err(PackError::Directory);
        }
        Ok(FrameInfo { kind, id, sealed_len, raw_len, parts: Vec::new() })
    }
    fn parts(&mut self, raw_len: u32) -> Result<Vec<Part>, PackError> {
        let count = usize::try_from(self.number(2)?).map_err(|_| PackError::Directory)?;
        if count > MAX_PARTS || count * PER_PART > self.0.len() {
            return Err(PackError::Directory);
        }
        let mut parts = Vec::with_capacity(count);
        let mut total = 0;
        for _ in 0..count {
            let file = FileId::from_slice(self.take(16)?).ok_or(PackError::Directory)?;
            let length = u32::try_from(self.number(3)?).map_err(|_| PackError::Directory)?;
            total += u64::from(length);
            parts.push(Part { file, length });
        }
        if total == u64::from(raw_len) { Ok(parts) } else { Err(PackError::Directory) }
    }
}

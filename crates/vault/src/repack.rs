//! Repack: which packs are half-dead, and their live frames.
//!
//! Invariants: ids are of the plaintext, so frames move and trees stay; a frame is given out only after it was
//! authenticated and its keyed id compared; frames nobody uses are not read. Nothing is let go here: old packs go when no
//! snapshot names them. The moving is [`crate::backup::Writer::carry_over`].

use std::ops::Range;

use crate::{
    backup::BackupError,
    id::FrameKind,
    manifest::{FrameBitmap, PackRef},
    pack::{FrameInfo, OpenPack, PackError},
    snapshot::{Frames, ReadError, damaged},
};

/// Neighbouring live frames are read together up to this many bytes.
const WINDOW: u64 = 8 << 20;

/// How much of one pack a snapshot still uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// Frames in use.
    pub live: u32,
    /// Frames that could be in use: all but the padding.
    pub frames: u32,
    /// Length of the object.
    pub length: u64,
}

impl Liveness {
    /// Of one pack of a set.
    pub fn of(pack: &PackRef) -> Self {
        Self::counted(&pack.used, pack.frames, pack.length)
    }
    /// Of a pack of `frames` frames, the padding among them, of which these are used.
    pub fn counted(used: &FrameBitmap, frames: u32, length: u64) -> Self {
        Self { live: used.count(), frames: frames.saturating_sub(1).max(1), length }
    }
    /// Less than half of the frames are in use.
    pub fn is_half_dead(&self) -> bool {
        u64::from(self.live) * 2 < u64::from(self.frames)
    }
    /// Bytes nobody needs: an estimate, because only the sealed directory knows lengths.
    pub fn dead_bytes(&self) -> u64 {
        let dead = u128::from(self.frames.saturating_sub(self.live));
        let bytes = u128::from(self.length) * dead / u128::from(self.frames.max(1));
        u64::try_from(bytes).unwrap_or(self.length)
    }
}

/// Shows every frame of a pack that its snapshot uses, in their order.
pub(crate) fn each_live_frame(
    frames: &Frames,
    pack: &PackRef,
    mut visit: impl FnMut(&FrameInfo, &[u8]) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let open = frames.open(pack)?;
    let live: Vec<u32> = (0..pack.frames).filter(|at| pack.used.contains(*at)).collect();
    for (window, numbers) in windows(pack, &open, &live)? {
        let bytes = frames.read(pack, window.clone())?;
        for at in numbers {
            let info = open.info(at).map_err(|error| damaged(pack, error))?;
            // Opened by its second directory, which does not say what is in a bundle: the files are read from their source.
            if info.kind == FrameKind::Bundle && info.parts.is_empty() {
                return Err(damaged(pack, PackError::Directory).into());
            }
            let raw = frames.decode(pack, &open, at, &bytes, window.start)?;
            visit(info, &raw)?;
        }
    }
    Ok(())
}

/// A stretch of a pack to read, and the live frames in it.
type Window = (Range<u64>, Vec<u32>);

/// The stretches that hold the live frames.
fn windows(pack: &PackRef, open: &OpenPack, live: &[u32]) -> Result<Vec<Window>, ReadError> {
    let mut windows: Vec<Window> = Vec::new();
    for at in live {
        let range = open.range(*at).map_err(|error| damaged(pack, error))?;
        match windows.last_mut() {
            Some((window, numbers))
                if window.end == range.start && range.end - window.start <= WINDOW =>
            {
                window.end = range.end;
                numbers.push(*at);
            }
            _ => windows.push((range, vec![*at])),
        }
    }
    Ok(windows)
}

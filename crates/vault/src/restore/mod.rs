//! Restore: which pieces of which files come out of which pack, and their reading in that order.
//!
//! Owns the reading of any number of pieces in windows by several threads ([`run`]), and the same in order for streams
//! ([`ordered`]). Invariant: every byte handed out was authenticated, re-identified and belongs at the offset it is
//! handed out for; memory depends on [`Limits`], not on the tree. It must not know paths on the target or write
//! anything.

use std::ops::Range;

use crate::{
    id::{FileId, FrameKind},
    manifest::PackRef,
    pack::{Decoder, OpenPack},
    snapshot::{Frames, ReadError, damaged},
};

mod engine;
mod ordered;

pub use engine::{Feed, Gauge, Limits, Sink, Want, run};
pub use ordered::{Ended, Segment, Segments, Unread, ordered};

/// Gaps up to this many bytes are read along rather than asked around.
const GAP: u64 = 256 << 10;
/// No single read is longer, unless a single frame is.
const RUN: u64 = 4 << 20;

/// Bytes for one stretch of a file, or why there are none.
pub type Delivery<'a> = Result<&'a [u8], &'a ReadError>;

/// A frame read by itself, after the run it is in could not be read.
fn alone<'d>(
    frames: &Frames,
    decoder: &'d mut Decoder,
    (pack, open): (&PackRef, &OpenPack),
    frame: u32,
) -> Result<&'d [u8], ReadError> {
    let range = open.range(frame).map_err(|error| damaged(pack, error))?;
    let bytes = frames.read(pack, range.clone())?;
    frames.decode_with(decoder, (pack, open), frame, &bytes, range.start)
}

/// Some bytes of a frame: of a chunk the whole, of a bundle a file that is what its own id says.
fn stretch<'a>(
    frames: &Frames,
    raw: &'a [u8],
    (at, length): (u32, u32),
    kind: FrameKind,
    own: Option<FileId>,
) -> Option<&'a [u8]> {
    let from = at as usize;
    let bytes = raw.get(from..from.checked_add(length as usize)?)?;
    let whole = kind != FrameKind::Chunk || bytes.len() == raw.len();
    let own = own.is_none_or(|own| frames.ids().file(bytes) == own);
    (whole && own).then_some(bytes)
}

struct Run {
    range: Range<u64>,
    /// How many frames are in it.
    frames: usize,
}

/// Whether a frame is read along with those before it.
fn joins(run: &Range<u64>, at: &Range<u64>, most: u64) -> bool {
    at.start >= run.end && at.start - run.end <= GAP && at.end - run.start <= most
}

/// Joins frames that lie near each other, up to `most` bytes.
fn runs(frames: impl Iterator<Item = Range<u64>>, most: u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for at in frames {
        match runs.last_mut() {
            Some(run) if joins(&run.range, &at, most) => {
                run.range.end = at.end;
                run.frames += 1;
            }
            _ => runs.push(Run { range: at, frames: 1 }),
        }
    }
    runs
}

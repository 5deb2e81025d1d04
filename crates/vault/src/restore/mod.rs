//! Restore: which pieces of which files come out of which pack, and their reading in that order.
//!
//! Owns plans of a few files ([`plan`], [`read_pack`]), the reading of any number in windows by several threads
//! ([`run`]), and the same in order for streams ([`ordered`]). Invariant: every byte handed out was authenticated,
//! re-identified and belongs at the offset it is handed out for; memory depends on [`Limits`], not on the tree. It
//! must not know paths on the target or write anything.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use crate::{
    id::{ChunkId, FileId, FrameKind, Sha256},
    manifest::PackRef,
    pack::{Decoder, OpenPack, PackKind},
    snapshot::{Frames, PieceSource, ReadError, Reader, damaged},
    tree::{Content, Entry, EntryKind},
};

mod engine;
mod ordered;

pub use engine::{Feed, Gauge, Limits, Sink, Want, run};
pub use ordered::{Ended, Segment, Segments, ordered};

/// Gaps up to this many bytes are read along rather than asked around.
const GAP: u64 = 256 << 10;
/// No single read is longer, unless a single frame is.
const RUN: u64 = 4 << 20;

/// A stretch of a file that comes out of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// The number the caller gave the file.
    pub file: u64,
    /// Offset in the file.
    pub offset: u64,
    pub length: u32,
    /// Frame in the pack: a hint, the frame's name is what counts.
    pub frame: u32,
    pub kind: FrameKind,
    pub id: ChunkId,
    /// The own id of a small file in a bundle.
    pub own: Option<FileId>,
    /// Offset in the frame's plaintext.
    pub at: u32,
}

/// All that comes out of one pack, in order of its frames.
#[derive(Debug, Clone)]
pub struct PackPlan {
    pub pack: PackRef,
    pub items: Vec<Item>,
}

impl PackPlan {
    /// Bytes of content this pack gives.
    pub fn bytes(&self) -> u64 {
        self.items.iter().map(|item| u64::from(item.length)).sum()
    }
}

/// A hole of a file: punch it or leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    pub file: u64,
    pub offset: u64,
    pub length: u64,
}

/// What restoring some files takes.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub packs: Vec<PackPlan>,
    pub holes: Vec<Hole>,
    /// Files with content that is in no pack, with the reason; the rest of the plan stands.
    pub unreadable: Vec<(u64, String)>,
}

/// Plans the content of regular files; `entries` are the caller's numbers and their entries. Names of one file
/// (hard links) should come once.
pub fn plan<'a>(
    reader: &Reader,
    entries: impl IntoIterator<Item = (u64, &'a Entry)>,
) -> Result<Plan, ReadError> {
    let mut plan = Plan::default();
    let mut packs: HashMap<Sha256, Vec<Item>> = HashMap::new();
    for (file, entry) in entries {
        let mut items = Vec::new();
        let mut holes = Vec::new();
        let own = match &entry.kind {
            EntryKind::File { content: Content::Bundled { file, .. }, .. } => Some(*file),
            _ => None,
        };
        let located = reader.pieces::<ReadError>(entry, |piece| {
            let PieceSource::Frame { kind, id, at } = piece.from else {
                holes.push(Hole { file, offset: piece.offset, length: piece.length });
                return Ok(());
            };
            let (pack, frame) = reader.frames().locate(&id, PackKind::Data)?;
            let length = u32::try_from(piece.length).map_err(|_| ReadError::WrongContent)?;
            let item = Item { file, offset: piece.offset, length, frame, kind, id, own, at };
            items.push((pack.sha256, item));
            Ok(())
        });
        match located {
            Ok(()) => {
                plan.holes.append(&mut holes);
                for (pack, item) in items {
                    packs.entry(pack).or_default().push(item);
                }
            }
            Err(error @ (ReadError::Unlocated(_) | ReadError::WrongContent)) => {
                plan.unreadable.push((file, error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    for pack in reader.frames().packs() {
        if let Some(mut items) = packs.remove(&pack.sha256) {
            items.sort_by_key(|item| (item.frame, item.file, item.offset));
            plan.packs.push(PackPlan { pack: pack.clone(), items });
        }
    }
    // Old packs first is as good an order as any, and the same every time.
    plan.packs.sort_by_key(|pack| pack.pack.id);
    Ok(plan)
}

/// Bytes for one stretch of a file, or why there are none.
pub type Delivery<'a> = Result<&'a [u8], &'a ReadError>;

/// Reads one pack of a plan, in coalesced ranges, and delivers every item; frames that cannot be read are delivered
/// as errors, item by item, and the rest goes on. `deliver` decides whether to stop.
pub fn read_pack<E: From<ReadError>>(
    reader: &Reader,
    plan: &PackPlan,
    mut deliver: impl FnMut(&Item, Delivery<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let frames = reader.frames();
    let open = match frames.open(&plan.pack) {
        Ok(open) => open,
        Err(error) => {
            return plan.items.iter().try_for_each(|item| deliver(item, Err(&error)));
        }
    };
    let mut wanted: BTreeMap<u32, Vec<&Item>> = BTreeMap::new();
    let mut elsewhere = Vec::new();
    for item in &plan.items {
        if open.holds(item.frame, item.kind, &item.id) {
            wanted.entry(item.frame).or_default().push(item);
        } else {
            elsewhere.push(item);
        }
    }
    let mut decoder = Decoder::default();
    let place = (&plan.pack, &*open);
    for run in runs(wanted.keys().copied(), RUN, |frame| open.range(frame).ok()) {
        let bytes = frames.read(&plan.pack, run.range.clone());
        for frame in run.frames {
            let raw = match &bytes {
                Ok(bytes) => frames.decode_with(&mut decoder, place, frame, bytes, run.range.start),
                Err(_) => alone(frames, &mut decoder, place, frame),
            };
            for item in wanted.get(&frame).into_iter().flatten() {
                deliver_one(frames, item, raw.as_ref().copied(), &mut deliver)?;
            }
        }
    }
    // The index was wrong about these: their packs are found by the directories.
    for item in elsewhere {
        let raw = frames.frame(item.kind, &item.id);
        deliver_one(frames, item, raw.as_ref().map(|raw| raw.as_slice()), &mut deliver)?;
    }
    Ok(())
}

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

fn deliver_one<E>(
    frames: &Frames,
    item: &Item,
    raw: Delivery<'_>,
    deliver: &mut impl FnMut(&Item, Delivery<'_>) -> Result<(), E>,
) -> Result<(), E> {
    match raw.map(|raw| stretch(frames, raw, (item.at, item.length), item.kind, item.own)) {
        Ok(Some(bytes)) => deliver(item, Ok(bytes)),
        Ok(None) => deliver(item, Err(&ReadError::WrongContent)),
        Err(error) => deliver(item, Err(error)),
    }
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
    frames: Vec<u32>,
}

/// Joins frames that lie near each other, up to `most` bytes.
fn runs(
    frames: impl Iterator<Item = u32>,
    most: u64,
    range: impl Fn(u32) -> Option<Range<u64>>,
) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for frame in frames {
        // A frame that does not exist gets an empty range: it is delivered as an error.
        let at = range(frame).unwrap_or_default();
        match runs.last_mut() {
            Some(run)
                if at.start >= run.range.end
                    && at.start - run.range.end <= GAP
                    && at.end - run.range.start <= most =>
            {
                run.range.end = at.end;
                run.frames.push(frame);
            }
            _ => runs.push(Run { range: at, frames: vec![frame] }),
        }
    }
    runs
}

/// Packs needed for one file, for a grant.
pub fn packs_of(reader: &Reader, entry: &Entry) -> Result<Vec<PackRef>, ReadError> {
    let plan = plan(reader, [(0, entry)])?;
    match plan.unreadable.first() {
        Some(_) => Err(ReadError::WrongContent),
        None => Ok(plan.packs.into_iter().map(|pack| pack.pack).collect()),
    }
}

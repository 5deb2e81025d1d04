//! Verification of a snapshot: quick (structure) and deep (every byte).
//!
//! Owns what "verified" means. Invariant: a snapshot verifies only if everything its tree names is in its packs, and,
//! deep, if every pack is bit for bit what its manifest says and every frame is what its id says. What a restore would
//! take from another snapshot's packs is counted, and the snapshot does not verify. Nothing is repaired or written here.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    id::{ChunkId, FrameKind, Sha256},
    manifest::{FrameBitmap, PackRef},
    pack::OpenPack,
    snapshot::{
        PieceSource, ReadError, Reader,
        content::{for_each_list, for_each_piece},
    },
    tree::{Child, Content, Entry, EntryKind, Node, NodeSource, Root, TreeError},
};

/// Problems that are listed, and bytes of their paths; more are counted.
const MAX_PROBLEMS: usize = 10_000;
const MAX_PATH_BYTES: usize = 4 << 20;

/// What was looked at and what is wrong with it.
#[derive(Debug, Default)]
pub struct Report {
    pub packs: u64,
    /// Bytes of packs read in full (deep only).
    pub pack_bytes: u64,
    pub entries: u64,
    pub source_bytes: u64,
    /// Files of which something is not in the snapshot's own packs, and all of it in other snapshots'.
    pub elsewhere: u64,
    /// The first of them.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub unlisted: u64,
    path_bytes: usize,
}

impl Report {
    pub const fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
    fn problem(&mut self, problem: Problem) {
        self.path_bytes += problem.path_bytes();
        if self.problems.len() < MAX_PROBLEMS && self.path_bytes <= MAX_PATH_BYTES {
            self.problems.push(problem);
        } else {
            self.unlisted += 1;
        }
    }
}

/// One thing that is wrong.
#[derive(Debug)]
pub enum Problem {
    /// A pack is missing or damaged.
    Pack { pack: Sha256, error: ReadError },
    /// A file's content is not all there. `path` is the entry's.
    Content { path: Vec<u8>, error: ReadError },
    /// A part of the tree cannot be read.
    Tree { error: ReadError },
    /// The manifest's list of used frames is not what the tree uses.
    Usage { pack: Sha256 },
    /// So often something is in none of the snapshot's own packs, and in another snapshot's.
    Elsewhere { times: u64 },
}

impl Problem {
    fn path_bytes(&self) -> usize {
        match self {
            Self::Content { path, .. } => path.len(),
            Self::Tree { error: ReadError::Stretch { from, until, .. } } => {
                from.len() + until.as_ref().map_or(0, Vec::len)
            }
            _ => 0,
        }
    }
}

/// Every pack's directory opens, every node is there, every piece of every file is in a pack, and the used frames
/// are those the manifest names.
pub fn quick(reader: &Reader) -> Report {
    let mut report = Report::default();
    for pack in reader.frames().packs() {
        report.packs += 1;
        if let Err(error) = reader.frames().open(pack) {
            report.problem(Problem::Pack { pack: pack.sha256, error });
        }
    }
    structure(reader, &mut report);
    report
}

/// [`quick`], and every byte of every pack: hash, both directories, every frame and its id. `progress` hears the
/// bytes read so far.
pub fn deep(reader: &Reader, mut progress: impl FnMut(u64)) -> Report {
    let mut report = Report::default();
    for pack in reader.frames().packs() {
        report.packs += 1;
        match whole(reader, pack) {
            Ok(()) => report.pack_bytes += pack.length,
            Err(error) => report.problem(Problem::Pack { pack: pack.sha256, error }),
        }
        progress(report.pack_bytes);
    }
    structure(reader, &mut report);
    report
}

fn whole(reader: &Reader, pack: &PackRef) -> Result<(), ReadError> {
    let frames = reader.frames();
    let bytes = frames.read(pack, 0..pack.length)?;
    if Sha256::of(&bytes) != pack.sha256 {
        return Err(ReadError::WrongHash { pack: pack.sha256 });
    }
    let opened = OpenPack::check_whole(frames.keys(), frames.ids(), pack.kind, &bytes);
    opened.map(drop).map_err(|error| crate::snapshot::damaged(pack, error))
}

/// Walks the tree and counts what it uses.
fn structure(reader: &Reader, report: &mut Report) {
    let mut used = Usage { reader, frames: BTreeMap::new(), elsewhere: 0 };
    let shape = nodes(reader, &mut used);
    if let Err(error) = used.mark(FrameKind::Summary, &reader.summary_id()) {
        report.problem(Problem::Tree { error });
    }
    let listed = entries(reader, report, &mut used);
    match (shape, listed) {
        // A lost node is told as the entries it took along.
        (Err(node), Ok(true)) if node.is_loss() => {}
        (shape, listed) => {
            let errors = shape.err().into_iter().chain(listed.err());
            errors.for_each(|error| report.problem(Problem::Tree { error }));
        }
    }
    if used.elsewhere > 0 {
        report.problem(Problem::Elsewhere { times: used.elsewhere });
    }
    if !report.problems.is_empty() {
        return;
    }
    for pack in reader.frames().packs() {
        if used.frames.get(&pack.sha256).cloned().unwrap_or_default() != pack.used {
            report.problem(Problem::Usage { pack: pack.sha256 });
        }
    }
}

/// Every entry and its content; as many as the root says, and no more are looked at. Whether some are lost.
fn entries(reader: &Reader, report: &mut Report, used: &mut Usage<'_>) -> Result<bool, ReadError> {
    let mut lost = false;
    for entry in reader.entries()? {
        let entry = match entry {
            Err(error @ ReadError::Stretch { .. }) => {
                lost = true;
                report.problem(Problem::Tree { error });
                continue;
            }
            entry => entry?,
        };
        if report.entries == reader.root().entries {
            return Err(TreeError::Shape.into());
        }
        report.entries += 1;
        report.source_bytes = report.source_bytes.saturating_add(entry.size());
        let before = used.elsewhere;
        match content(reader, &entry, used) {
            Ok(()) => report.elsewhere += u64::from(used.elsewhere > before),
            Err(error) => report.problem(Problem::Content { path: entry.path, error }),
        }
    }
    let all = lost || report.entries == reader.root().entries;
    if all { Ok(lost) } else { Err(TreeError::Shape.into()) }
}

struct Usage<'a> {
    reader: &'a Reader,
    frames: BTreeMap<Sha256, FrameBitmap>,
    /// How often something was marked that only other snapshots' packs have.
    elsewhere: u64,
}

impl<'a> Usage<'a> {
    fn mark(&mut self, kind: FrameKind, id: &ChunkId) -> Result<(), ReadError> {
        self.find(kind, id).map(drop)
    }
    fn find(&mut self, kind: FrameKind, id: &ChunkId) -> Result<Place<'a>, ReadError> {
        let frames = self.reader.frames();
        let found = frames.find(kind, id);
        match found {
            Ok((pack, open, frame)) => {
                self.frames.entry(pack.sha256).or_default().insert(frame);
                Ok((pack, open, frame))
            }
            Err(lost) => {
                let found = frames.find_instead(kind, id, &lost).ok_or(lost)?;
                self.elsewhere += 1;
                Ok(found)
            }
        }
    }
    /// A small file whose bundle is lost may be in another one of another snapshot.
    fn file_elsewhere(&mut self, entry: &Entry, lost: ReadError) -> Result<(), ReadError> {
        let frames = self.reader.frames();
        match entry.bundled() {
            Some(file) if frames.has_file_instead(&file, &lost) => {
                self.elsewhere += 1;
                Ok(())
            }
            _ => Err(lost),
        }
    }
}

/// Pack, open, and number of a frame.
type Place<'a> = (&'a PackRef, Arc<OpenPack>, u32);

/// Marks every node. First keys of leaves ascend over the whole tree, so no node is met twice, and counts add up
/// at every level: the walk is no longer than the tree is large, whoever made it.
fn nodes(reader: &Reader, used: &mut Usage<'_>) -> Result<(), ReadError> {
    let Root { node, level, entries } = reader.root();
    let root = Child { first: Vec::new(), id: node, entries };
    if level == 0 {
        return used.mark(FrameKind::Node, &root.id);
    }
    inner(reader, &root, level, &mut None, used)
}

fn inner(
    reader: &Reader,
    at: &Child,
    level: u8,
    before: &mut Option<Vec<u8>>,
    used: &mut Usage<'_>,
) -> Result<(), ReadError> {
    used.mark(FrameKind::Node, &at.id)?;
    let node = NodeSource::node(reader.frames(), &at.id)?;
    let Node::Inner { children, .. } = &*node else { return Err(TreeError::Shape.into()) };
    if node.level() != level || node.entries() != Some(at.entries) {
        return Err(TreeError::Shape.into());
    }
    for child in children {
        if level > 1 {
            inner(reader, child, level - 1, before, used)?;
            continue;
        }
        if before.as_ref().is_some_and(|before| *before >= child.first) || child.entries == 0 {
            return Err(TreeError::Shape.into());
        }
        *before = Some(child.first.clone());
        used.mark(FrameKind::Node, &child.id)?;
    }
    Ok(())
}

fn content(reader: &Reader, entry: &Entry, used: &mut Usage<'_>) -> Result<(), ReadError> {
    if !entry.is_file() {
        return Ok(());
    }
    let frames = Arc::clone(reader.frames());
    for_each_list(&frames, entry, &mut |id| used.mark(FrameKind::List, &id))?;
    for_each_piece(&frames, entry, &mut |piece| -> Result<(), ReadError> {
        let PieceSource::Frame { kind, id, at } = piece.from else { return Ok(()) };
        let (pack, open, frame) = match used.find(kind, &id) {
            Ok(found) => found,
            Err(lost) => return used.file_elsewhere(entry, lost),
        };
        let info = open.info(frame).map_err(|error| crate::snapshot::damaged(pack, error))?;
        let end = u64::from(at).checked_add(piece.length);
        let fits = end.is_some_and(|end| match kind {
            FrameKind::Chunk => end == u64::from(info.raw_len),
            _ => end <= u64::from(info.raw_len),
        });
        if fits && bundle_lists(entry, info) { Ok(()) } else { Err(ReadError::WrongContent) }
    })
}

/// A bundled file must be in its bundle's list under its own id, at its place.
fn bundle_lists(entry: &Entry, info: &crate::pack::FrameInfo) -> bool {
    let EntryKind::File { content: Content::Bundled { offset, length, file, .. }, .. } =
        &entry.kind
    else {
        return true;
    };
    // The second copy of a directory has no lists.
    let mut at = 0;
    info.parts.is_empty()
        || info.parts.iter().any(|part| {
            let here = at == *offset && part.length == *length && part.file == *file;
            at += part.length;
            here
        })
}

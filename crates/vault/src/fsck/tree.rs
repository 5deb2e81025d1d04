//! One snapshot's tree, walked to its end whatever stands in the way.
//!
//! Every node is read, its place checked (level, counts, ascending keys), every entry decoded, every piece located,
//! and the tree is built again from its entries: it must come out with the same root, or its boundaries are not the
//! writer's to choose. What cannot be read costs the entries below it and no others.

use std::collections::{BTreeMap, HashSet};

use crate::{
    content::ListBuilder,
    descriptor::NodeSizes,
    id::{ChunkId, FrameKind, IdKeys, Sha256},
    manifest::FrameBitmap,
    pack::{FrameInfo, PackError},
    snapshot::{
        PieceSource, ReadError, Reader,
        content::{for_each_list, for_each_piece},
        damaged,
    },
    tree::{
        Content, Entry, EntryKind, Node, NodeSink, NodeSource, Piece, Root, TreeBuilder, TreeError,
        decode_item, path,
    },
};

/// Problems of one tree that are listed; more are counted.
const MAX_PROBLEMS: usize = 1_000;

/// Something wrong with a tree.
#[derive(Debug)]
pub enum TreeProblem {
    /// Entries from one path up to another (or to the end) cannot be read.
    Node { error: ReadError, from: Vec<u8>, until: Option<Vec<u8>> },
    /// A file's content is not all there.
    Content { path: Vec<u8>, error: ReadError },
    /// Built again, the tree is another.
    Boundaries,
    /// The manifest's list of used frames is not what the tree uses.
    Usage { pack: Sha256 },
}

/// What was seen.
#[derive(Debug, Default)]
pub struct TreeReport {
    pub entries: u64,
    pub source_bytes: u64,
    pub problems: Vec<TreeProblem>,
    /// Problems that were only counted.
    pub unlisted: u64,
}

/// A check of one tree.
pub struct TreeCheck<'a> {
    reader: &'a Reader,
    bad: &'a HashSet<(Sha256, u32)>,
    sizes: Option<NodeSizes>,
    builder: Option<TreeBuilder>,
    used: BTreeMap<Sha256, FrameBitmap>,
    last: Option<Vec<u8>>,
    report: TreeReport,
}

impl<'a> TreeCheck<'a> {
    /// `bad` are frames known not to open: what uses them is told.
    pub fn new(reader: &'a Reader, bad: &'a HashSet<(Sha256, u32)>) -> Self {
        let (used, report) = (BTreeMap::new(), TreeReport::default());
        Self { reader, bad, sizes: None, builder: None, used, last: None, report }
    }
    /// Also derive boundaries of nodes and lists again.
    pub fn with_boundaries(mut self, sizes: NodeSizes) -> Self {
        self.sizes = Some(sizes);
        self.builder = Some(TreeBuilder::new(self.reader.frames().keys().id_secret(), sizes));
        self
    }

    /// Walks all of it.
    pub fn run(mut self) -> TreeReport {
        let root = self.reader.root();
        self.node(&Place { first: None, id: root.node, entries: root.entries }, root.level, None);
        if let Err(error) = self
            .mark(FrameKind::Summary, &self.reader.summary_id())
            .and_then(|()| self.reader.summary().map(drop))
        {
            self.lost(error, &[], None);
        }
        if self.report.problems.is_empty() {
            self.boundaries(root);
            self.usage();
        }
        self.report
    }

    fn problem(&mut self, problem: TreeProblem) {
        if self.report.problems.len() < MAX_PROBLEMS {
            self.report.problems.push(problem);
        } else {
            self.report.unlisted += 1;
        }
    }
    fn lost(&mut self, error: ReadError, from: &[u8], until: Option<&[u8]>) {
        // A key that is no path is shown as it is.
        let shown = |key: &[u8]| path::from_key(key).unwrap_or_else(|_| key.to_vec());
        self.problem(TreeProblem::Node { error, from: shown(from), until: until.map(shown) });
    }

    fn mark(&mut self, kind: FrameKind, id: &ChunkId) -> Result<(), ReadError> {
        let (pack, _, frame) = self.reader.frames().find(kind, id)?;
        if self.bad.contains(&(pack.sha256, frame)) {
            return Err(damaged(pack, PackError::Frame));
        }
        self.used.entry(pack.sha256).or_default().insert(frame);
        Ok(())
    }

    fn node(&mut self, at: &Place, level: u8, until: Option<&[u8]>) {
        let from = at.first.as_deref().unwrap_or_default();
        match self.read(at, level) {
            Ok(node) => match &*node {
                Node::Leaf(items) => items.iter().for_each(|item| self.item(item)),
                Node::Inner { children, .. } => {
                    for (number, child) in children.iter().enumerate() {
                        let next = children.get(number + 1).map(|next| next.first.as_slice());
                        let first = Some(child.first.clone());
                        let place = Place { first, id: child.id, entries: child.entries };
                        self.node(&place, level - 1, next.or(until));
                    }
                }
            },
            Err(error) => {
                self.builder = None;
                self.lost(error, from, until);
            }
        }
    }

    /// The node, if it is what its parent says. Keys ascend over the whole tree, so one that leads into itself ends
    /// at the first repetition.
    fn read(&mut self, at: &Place, level: u8) -> Result<std::sync::Arc<Node>, ReadError> {
        self.mark(FrameKind::Node, &at.id)?;
        let node = NodeSource::node(&**self.reader.frames(), &at.id)?;
        let first_fits = at.first.as_deref().is_none_or(|first| node.first() == Some(first));
        let ascends = match (node.first(), &self.last) {
            (Some(first), Some(last)) => last.as_slice() < first,
            (None, _) => at.first.is_none() && level == 0,
            (Some(_), None) => true,
        };
        let counts = node.entries() == Some(at.entries);
        if node.level() == level && first_fits && ascends && counts {
            Ok(node)
        } else {
            Err(TreeError::Shape.into())
        }
    }

    fn item(&mut self, item: &(Vec<u8>, Vec<u8>)) {
        self.last = Some(item.0.clone());
        self.report.entries += 1;
        if let Some(builder) = &mut self.builder {
            let mut namer = Namer(self.reader.frames().ids());
            let Ok(()) = builder.push(&item.0, &item.1, &mut namer);
        }
        let entry = match decode_item(item) {
            Ok(entry) => entry,
            Err(error) => {
                let (path, error) = (item.0.clone(), error.into());
                return self.problem(TreeProblem::Content { path, error });
            }
        };
        self.report.source_bytes = self.report.source_bytes.saturating_add(entry.size());
        if let Err(error) = self.content(&entry) {
            self.problem(TreeProblem::Content { path: entry.path, error });
        }
    }

    fn content(&mut self, entry: &Entry) -> Result<(), ReadError> {
        if !entry.is_file() {
            return Ok(());
        }
        let frames = std::sync::Arc::clone(self.reader.frames());
        for_each_list(&frames, entry, &mut |id| self.mark(FrameKind::List, &id))?;
        let mut lists = ListBuilder::new();
        let mut store = |list: Vec<u8>| -> Result<ChunkId, ReadError> {
            Ok(frames.ids().chunk(FrameKind::List, &list))
        };
        for_each_piece(&frames, entry, &mut |piece| -> Result<(), ReadError> {
            let PieceSource::Frame { kind, id, at } = piece.from else {
                return lists.push(Piece::Hole { length: piece.length }, &mut store);
            };
            lists.push(Piece::Data { id, length: piece.length }, &mut store)?;
            self.mark(kind, &id)?;
            let (pack, open, frame) = frames.find(kind, &id)?;
            let info = open.info(frame).map_err(|error| damaged(pack, error))?;
            if fits(entry, info, at, piece.length) { Ok(()) } else { Err(ReadError::WrongContent) }
        })?;
        let EntryKind::File { content: content @ Content::Pieces { .. }, .. } = &entry.kind else {
            return Ok(());
        };
        let same = self.sizes.is_none() || lists.finish(&mut store)? == *content;
        if same { Ok(()) } else { Err(ReadError::WrongContent) }
    }

    fn boundaries(&mut self, root: Root) {
        let Some(builder) = self.builder.take() else { return };
        let Ok(again) = builder.finish(&mut Namer(self.reader.frames().ids()));
        if again != root {
            self.problem(TreeProblem::Boundaries);
        }
    }

    fn usage(&mut self) {
        let reader = self.reader;
        for pack in reader.frames().packs() {
            if self.used.remove(&pack.sha256).unwrap_or_default() != pack.used {
                self.problem(TreeProblem::Usage { pack: pack.sha256 });
            }
        }
    }
}

/// Where a node should be.
struct Place {
    /// `None`: it is the root.
    first: Option<Vec<u8>>,
    id: ChunkId,
    entries: u64,
}

/// Names nodes as a writer would, and stores nothing.
struct Namer<'a>(&'a IdKeys);

impl NodeSink for Namer<'_> {
    type Error = std::convert::Infallible;
    fn store(&mut self, node: Vec<u8>) -> Result<ChunkId, Self::Error> {
        Ok(self.0.chunk(FrameKind::Node, &node))
    }
}

/// A chunk belongs to its file wholly; a bundled file must be in its bundle's list, at its place, under its own id.
fn fits(entry: &Entry, info: &FrameInfo, at: u32, length: u64) -> bool {
    let raw = u64::from(info.raw_len);
    let Some(end) = u64::from(at).checked_add(length) else { return false };
    let EntryKind::File { content: Content::Bundled { offset, length, file, .. }, .. } =
        &entry.kind
    else {
        return end == raw;
    };
    let mut start = 0;
    let listed = info.parts.iter().any(|part| {
        let here = start == *offset && part.length == *length && part.file == *file;
        start += part.length;
        here
    });
    // The second copy of a directory has no lists.
    end <= raw && (info.parts.is_empty() || listed)
}

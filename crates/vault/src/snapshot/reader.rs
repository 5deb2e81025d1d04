//! One snapshot, open for reading.

use std::{io::Write, sync::Arc};

use super::{
    Frames, PackSource, ReadError,
    content::{FilePiece, PieceSource, for_each_piece},
};
use crate::{
    backup::Summary,
    id::{ChunkId, FrameKind},
    index::ChunkIndex,
    keys::VaultKeys,
    manifest::{Manifest, PackSet},
    tree::{Cursor, Diff, Entry, KeyedEntry, Node, NodeSource, Root, Tree, TreeError, path},
};

/// The nodes of a tree, out of the packs.
impl NodeSource for Frames {
    fn node(&self, id: &ChunkId) -> Result<Arc<Node>, TreeError> {
        let frame = self.frame(FrameKind::Node, id)?;
        Ok(Arc::new(Node::decode(&frame)?))
    }
}

type SnapshotTree = Tree<Arc<Frames>>;

/// Reads one snapshot.
pub struct Reader {
    tree: Arc<SnapshotTree>,
    frames: Arc<Frames>,
    summary: ChunkId,
}

/// Entries in key order. What is lost of the tree is told where it comes ([`ReadError::Stretch`], once for all lost
/// nodes in a row), and what follows it is walked all the same; any other error is the end.
pub struct Walk {
    cursor: Cursor<Arc<SnapshotTree>>,
    prefix: Vec<u8>,
    /// What the cursor gave already: on the way to the first entry, or while looking for the end of what is lost.
    ahead: Option<Result<Option<KeyedEntry>, ReadError>>,
    ended: bool,
}

impl Iterator for Walk {
    type Item = Result<Entry, ReadError>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = match self.ahead.take().unwrap_or_else(|| Ok(self.cursor.next_item()?)) {
            Ok(Some(item)) if item.0.starts_with(&self.prefix) => {
                Some(crate::tree::decode_item(&item).map_err(ReadError::from))
            }
            Ok(_) => None,
            Err(error) => self.stretch(error),
        };
        self.ended = !matches!(item, Some(Ok(_) | Err(ReadError::Stretch { .. })));
        item
    }
}

impl Walk {
    /// What of the walk is lost with a node, and with those right behind it; `None` if nothing is.
    fn stretch(&mut self, error: ReadError) -> Option<Result<Entry, ReadError>> {
        let Some((from, mut until)) = self.passed_over().filter(|_| error.is_loss()) else {
            return Some(Err(error));
        };
        if from > self.prefix && !from.starts_with(&self.prefix) {
            return None;
        }
        while until.as_ref().is_some_and(|until| until.starts_with(&self.prefix)) {
            match self.cursor.next_item().map_err(ReadError::from) {
                Err(more) if more.is_loss() => {
                    until = self.passed_over().and_then(|(_, until)| until);
                }
                other => {
                    self.ahead = Some(other);
                    break;
                }
            }
        }
        let path =
            |key: &[u8]| path::from_key(key).map_err(|bad| ReadError::from(TreeError::from(bad)));
        let paths =
            path(&from).and_then(|from| Ok((from, until.as_deref().map(path).transpose()?)));
        let source = Box::new(error);
        Some(Err(match paths {
            Ok((from, until)) => ReadError::Stretch { from, until, source },
            Err(bad) => bad,
        }))
    }

    /// The keys around the node that could not be read.
    fn passed_over(&self) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let (from, until) = self.cursor.passed_over()?;
        Some((from.to_vec(), until.map(<[u8]>::to_vec)))
    }
}

impl Reader {
    /// Opens a snapshot. The manifest was verified and resolved by the caller; nothing is read yet.
    pub fn open(
        manifest: &Manifest,
        set: &PackSet,
        keys: Arc<VaultKeys>,
        source: Arc<dyn PackSource>,
        index: Option<Arc<ChunkIndex>>,
    ) -> Self {
        Self::at(manifest.root, manifest.summary, set, keys, source, index)
    }

    /// Opens a tree that has no manifest yet.
    pub fn at(
        root: Root,
        summary: ChunkId,
        set: &PackSet,
        keys: Arc<VaultKeys>,
        source: Arc<dyn PackSource>,
        index: Option<Arc<ChunkIndex>>,
    ) -> Self {
        let frames = Arc::new(Frames::new(keys, set, source, index));
        let tree = Arc::new(Tree::new(Arc::clone(&frames), root));
        Self { tree, frames, summary }
    }

    /// Frames of the snapshot's packs.
    pub const fn frames(&self) -> &Arc<Frames> {
        &self.frames
    }
    pub fn root(&self) -> Root {
        self.tree.root()
    }
    /// Id of the summary frame.
    pub const fn summary_id(&self) -> ChunkId {
        self.summary
    }
    /// What the snapshot says about itself.
    pub fn summary(&self) -> Result<Summary, ReadError> {
        Ok(Summary::decode(&self.frames.frame(FrameKind::Summary, &self.summary)?)?)
    }

    /// The entry at `path`.
    pub fn get(&self, path: &[u8]) -> Result<Option<Entry>, ReadError> {
        Ok(self.tree.get(path)?)
    }

    /// Direct children of a folder whose names come after `after`, in order of their names.
    pub fn list_dir(&self, folder: &[u8], after: Option<&[u8]>) -> Result<Walk, ReadError> {
        let prefix = path::children_prefix(folder);
        let mut start = prefix.clone();
        if let Some(name) = after {
            start.extend_from_slice(name);
            start.push(0);
        }
        self.walk_from(&start, prefix)
    }

    /// Everything below a folder (the folder itself not included), in key order.
    pub fn walk(&self, folder: &[u8]) -> Result<Walk, ReadError> {
        let prefix = path::below_prefix(folder);
        // The root's own key is empty and comes first; it is not below itself.
        let start = if prefix.is_empty() { vec![0] } else { prefix.clone() };
        self.walk_from(&start, prefix)
    }

    fn walk_from(&self, key: &[u8], prefix: Vec<u8>) -> Result<Walk, ReadError> {
        let mut cursor = Cursor::nowhere(Arc::clone(&self.tree));
        let ahead = match cursor.seek(key) {
            Err(error) if cursor.passed_over().is_none() => return Err(error.into()),
            sought => sought.err().map(|lost| Err(lost.into())),
        };
        Ok(Walk { cursor, prefix, ahead, ended: false })
    }

    /// Every entry, in key order.
    pub fn entries(&self) -> Result<Walk, ReadError> {
        self.walk_from(&[], Vec::new())
    }

    /// A cursor for stepping beside a walk of the source: `find` each path in key order.
    pub fn cursor(&self) -> Result<Cursor<Arc<SnapshotTree>>, ReadError> {
        Ok(Cursor::at(Arc::clone(&self.tree), &[])?)
    }

    /// What changed from `before` to this snapshot.
    pub fn diff_from(&self, before: &Self) -> Diff<Arc<SnapshotTree>, Arc<SnapshotTree>> {
        Diff::new(Arc::clone(&before.tree), Arc::clone(&self.tree))
    }

    /// Calls `each` for every piece of a file, in order; reads lists, not chunks.
    pub fn pieces<E: From<ReadError>>(
        &self,
        entry: &Entry,
        mut each: impl FnMut(FilePiece) -> Result<(), E>,
    ) -> Result<(), E> {
        for_each_piece(&self.frames, entry, &mut each)
    }

    /// The bytes of one piece that is not a hole.
    pub fn piece(&self, piece: &FilePiece) -> Result<bytes::Bytes, ReadError> {
        let PieceSource::Frame { kind, id, at } = piece.from else {
            return Err(ReadError::WrongContent);
        };
        let frame = self.frames.frame(kind, &id)?;
        let from = at as usize;
        let to = usize::try_from(piece.length).ok().and_then(|length| from.checked_add(length));
        let bytes = to.and_then(|to| frame.get(from..to)).ok_or(ReadError::WrongContent)?;
        // A chunk belongs to a file wholly; only bundles are shared.
        if kind == FrameKind::Chunk && bytes.len() != frame.len() {
            return Err(ReadError::WrongContent);
        }
        Ok(bytes::Bytes::copy_from_slice(bytes))
    }

    /// Writes a file's content in order, holes as zeros.
    pub fn read_file(&self, entry: &Entry, out: &mut dyn Write) -> Result<(), ReadError> {
        self.pieces(entry, |piece| match piece.from {
            PieceSource::Hole => zeros(piece.length, out),
            PieceSource::Frame { .. } => {
                let bytes = match self.piece(&piece) {
                    Err(lost) => self.file_instead(entry, &lost).ok_or(lost)?,
                    Ok(bytes) => bytes,
                };
                self.check_file_id(entry, &bytes)?;
                out.write_all(&bytes).map_err(ReadError::Output)
            }
        })
    }

    fn file_instead(&self, entry: &Entry, lost: &ReadError) -> Option<bytes::Bytes> {
        let file = entry.bundled()?;
        let found = self.frames.file_instead(&file, lost)?;
        (found.len() as u64 == entry.size()).then(|| found.into())
    }

    /// The own id of a bundled file, beside that of its bundle.
    pub(crate) fn check_file_id(&self, entry: &Entry, bytes: &[u8]) -> Result<(), ReadError> {
        match entry.bundled() {
            Some(file) if self.frames.ids().file(bytes) != file => Err(ReadError::WrongContent),
            _ => Ok(()),
        }
    }
}

fn zeros(mut length: u64, out: &mut dyn Write) -> Result<(), ReadError> {
    const ZEROS: [u8; 8_192] = [0; 8_192];
    while length > 0 {
        let part = usize::try_from(length).unwrap_or(usize::MAX).min(ZEROS.len());
        out.write_all(&ZEROS[..part]).map_err(ReadError::Output)?;
        length -= part as u64;
    }
    Ok(())
}

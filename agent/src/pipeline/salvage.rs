//! What an interrupted backup had finished: the leaves of the tree it did not get to complete, and how far it was in a
//! large file.
//!
//! Its confirmed metadata packs hold entries with the identity and times of the files they stand for. A file
//! that still looks the same is taken over with its content, as far as it was read; so a backup of days goes on where it
//! was. All of it is advice, as with a parent: what does not fit is read again.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;
use vault::{
    id::{ChunkId, FrameKind},
    index::ChunkIndex,
    keys::VaultKeys,
    manifest::{FrameBitmap, PackRef, PackSet},
    pack::PackKind,
    snapshot::{Frames, PackSource, Reader, SourceError},
    tree::{Entry, Node, NodeSource as _, path},
};

use super::{parent::Adopted, source::Cache};

/// Leaves looked into for one path: attempts that ended at different places overlap.
const CANDIDATES: usize = 3;

/// Entries of interrupted backups, by path.
pub struct Salvage {
    frames: Arc<Frames>,
    /// First key of a leaf, how many entries it has, and the leaf: of those that begin alike the longest, because every
    /// checkpoint stores the leaf it is at.
    leaves: BTreeMap<Vec<u8>, (usize, ChunkId)>,
    /// By key: entries that end where a file was interrupted.
    begun: BTreeMap<Vec<u8>, Vec<Entry>>,
    /// The leaves looked into last.
    near: Vec<(ChunkId, Arc<Node>)>,
}

impl Salvage {
    /// The leaves in the adopted metadata packs whose copies are still in the cache; `None` if there are none. What
    /// they refer to may be in the parent's packs.
    pub fn of(
        keys: &Arc<VaultKeys>,
        (adopted, cache): (&[Adopted], &Cache),
        parent: Option<&Reader>,
        index: &Arc<ChunkIndex>,
    ) -> Option<Self> {
        let metadata = adopted.iter().filter(|pack| pack.kind == PackKind::Meta);
        let own: Vec<PackRef> = metadata
            .filter_map(|pack| Some(reference(pack, pack.directory(keys, cache)?.len())))
            .collect();
        let parent = parent.map(|parent| parent.frames().clone());
        let theirs = parent.iter().flat_map(|parent| parent.packs());
        let all = own.iter().chain(theirs).map(|pack| (pack.id, pack.clone())).collect();
        let source = Arc::new(CachedOr { cache: cache.clone(), parent: parent.clone() });
        let index = Some(index.clone());
        let frames = Arc::new(Frames::new(keys.clone(), &PackSet(all), source, index));
        let (mut leaves, mut begun) = (BTreeMap::<_, (_, _)>::new(), BTreeMap::<_, Vec<_>>::new());
        for open in own.iter().filter_map(|pack| frames.open(pack).ok()) {
            for frame in open.directory.frames.iter().filter(|frame| frame.kind == FrameKind::Node)
            {
                let Ok(node) = frames.node(&frame.id) else { continue };
                let (Node::Leaf(items), Some(first)) = (&*node, node.first()) else { continue };
                match begun_in(items) {
                    Some(entry) => begun.entry(first.to_vec()).or_default().push(entry),
                    None => {
                        let leaf = (items.len(), frame.id);
                        let longest = leaves.entry(first.to_vec()).or_insert(leaf);
                        *longest = leaf.max(*longest);
                    }
                }
            }
        }
        let some = !leaves.is_empty() || !begun.is_empty();
        some.then(|| Self { frames, leaves, begun, near: Vec::new() })
    }

    /// Where the lists of its entries are.
    pub const fn frames(&self) -> &Arc<Frames> {
        &self.frames
    }

    /// The furthest that interrupted backups came in the file that is now `now`, unless it changed since.
    pub fn begun(&self, now: &Entry) -> Option<&Entry> {
        let same = |before: &&Entry| {
            before.ctime.is_some() && before.is_same_file(now) && before.size() <= now.size()
        };
        let begun = self.begun.get(&path::key(&now.path).ok()?)?;
        begun.iter().filter(same).max_by_key(|before| before.size())
    }

    /// The entry an interrupted backup had made of `path`, if `fits`.
    pub fn at(&mut self, path: &[u8], fits: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let key = path::key(path).ok()?;
        let before = self.leaves.range(..=key.clone()).rev().take(CANDIDATES);
        let candidates: Vec<ChunkId> = before.map(|(_, (_, id))| *id).collect();
        candidates.into_iter().find_map(|id| {
            let node = self.leaf(id)?;
            let Node::Leaf(items) = &*node else { return None };
            let at = items.binary_search_by(|(item, _)| item.as_slice().cmp(&key)).ok()?;
            Entry::decode(path.to_vec(), &items.get(at)?.1).ok().filter(&fits)
        })
    }

    fn leaf(&mut self, id: ChunkId) -> Option<Arc<Node>> {
        if let Some((_, node)) = self.near.iter().find(|(known, _)| *known == id) {
            return Some(node.clone());
        }
        let node = self.frames.node(&id).ok()?;
        self.near.truncate(CANDIDATES - 1);
        self.near.insert(0, (id, node.clone()));
        Some(node)
    }
}

/// The one entry of a leaf, if its file ended before it was read to its end.
fn begun_in(items: &[(Vec<u8>, Vec<u8>)]) -> Option<Entry> {
    let [(_, value)] = items else { return None };
    let entry = Entry::decode(Vec::new(), value).ok()?;
    (entry.is_file() && entry.flags & Entry::SHRANK != 0).then_some(entry)
}

fn reference(pack: &Adopted, frames: u32) -> PackRef {
    PackRef {
        id: pack.confirmed.id,
        kind: pack.kind,
        sha256: pack.sha256,
        length: pack.length,
        version_id: pack.confirmed.version_id.clone(),
        frames,
        used: FrameBitmap::default(),
    }
}

/// Adopted packs are read from the cache or not at all: fetching them would cost what they save. The parent's are read
/// as the parent reads them.
struct CachedOr {
    cache: Cache,
    parent: Option<Arc<Frames>>,
}

impl PackSource for CachedOr {
    fn read(&self, pack: &PackRef, range: Range<u64>) -> Result<Bytes, SourceError> {
        if let Some(bytes) = self.cache.beginning(&pack.sha256, range.clone()) {
            return Ok(bytes);
        }
        let theirs = self.parent.as_ref().filter(|parent| parent.pack_ref(&pack.sha256).is_some());
        let parent = theirs.ok_or(SourceError::Missing)?;
        parent.read(pack, range).map_err(|error| SourceError::Failed(Box::new(error)))
    }
}

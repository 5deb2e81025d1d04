//! The writer: entries in key order in, a tree and packs out.

use std::{
    collections::HashMap,
    io::{self, Read},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use domain::IdGen;

use super::{
    BackupContext, BackupError, FinishedSnapshot, PackSink, Stats, Summary,
    bundle::OpenBundle,
    flight::{Flight, IdLog},
    pool::Pool,
    store::{FrameStore, Stored},
};
use crate::{
    chunk::{Chunker, Gear},
    content::ListBuilder,
    descriptor::{Chunking, VaultDescriptor},
    id::{ChunkId, FileId, FrameKind, IdKeys},
    index::{ChunkIndex, FilePlace, Shelf},
    keys::VaultKeys,
    manifest::PackRef,
    repack::each_live_frame,
    snapshot::{
        Frames, PieceSource, ReadError,
        content::{for_each_list, for_each_piece},
    },
    tree::{Content, Entry, EntryKind, MAX_ENTRY_BYTES, Piece, TreeBuilder, leaf_of_one, path},
};

/// Entries that wait for an open bundle; more close it.
const MAX_PENDING: usize = 16_384;

/// What became of a file that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileOutcome {
    /// Bytes in the snapshot, holes included.
    pub size: u64,
    /// The file ended before the size it was announced with.
    pub shrank: bool,
}

/// Whether known content could be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// The entry is in the snapshot.
    Taken,
    /// Some of its content is in no known pack: read the file and call `add_file`. Nothing was added.
    ReadAgain,
}

/// A file's content, perhaps in a bundle that has no id yet.
#[derive(Clone)]
enum Found {
    Ready(Content),
    InBundle { offset: u32, length: u32, file: FileId },
}

/// What is to be put into the tree.
enum Waiting {
    Entry(Box<Entry>, Option<Found>),
    /// As the tree has it.
    Encoded(Vec<u8>),
}

/// A backup in progress. Calls must come in key order (see [`crate::tree::path`]).
pub struct Writer {
    descriptor: VaultDescriptor,
    store: FrameStore,
    tree: TreeBuilder,
    gear: Arc<Gear>,
    bundle: OpenBundle,
    pending: Vec<(Vec<u8>, Waiting)>,
    links: Links,
    last_key: Option<Vec<u8>>,
    checkpoints: Checkpoints,
    stats: Stats,
}

/// When what was read is made safe.
struct Checkpoints {
    every: Duration,
    last: Instant,
}

impl Checkpoints {
    fn is_due(&self) -> bool {
        self.last.elapsed() >= self.every
    }
}

impl Writer {
    /// Starts a backup.
    pub fn begin(
        context: BackupContext,
        keys: Arc<VaultKeys>,
        descriptor: &VaultDescriptor,
        index: Arc<ChunkIndex>,
        sink: Arc<dyn PackSink>,
        ids: Arc<dyn IdGen>,
    ) -> Result<Self, BackupError> {
        descriptor.check()?;
        keys.epoch(context.key_epoch)?;
        let same = keys.tenant() == descriptor.tenant && keys.vault() == descriptor.vault;
        if !same || index.vault() != descriptor.vault {
            return Err(crate::keys::WrapError::Foreign.into());
        }
        let id_keys = IdKeys::new(keys.id_secret());
        let tree = TreeBuilder::new(keys.id_secret(), descriptor.nodes);
        let gear = Arc::new(Gear::new(keys.id_secret()));
        let flight = Arc::<Flight>::default();
        let shared = (Arc::clone(&index), Arc::clone(&flight));
        let pool = Pool::start(context, descriptor, keys, sink, ids, shared);
        let links = Links::new(&index);
        Ok(Self {
            descriptor: descriptor.clone(),
            store: FrameStore::new(id_keys, index, flight, pool),
            tree,
            gear,
            bundle: OpenBundle::default(),
            pending: Vec::new(),
            links,
            last_key: None,
            checkpoints: Checkpoints { every: Duration::MAX, last: Instant::now() },
            stats: Stats::default(),
        })
    }

    /// From now on open packs are handed over this often, in the middle of large files too, so that a later session can
    /// adopt what is in them should this one be interrupted, with every entry so far.
    pub const fn checkpoint_every(&mut self, every: Duration) {
        self.checkpoints.every = every;
    }

    /// Adds a regular file. `entry` has kind `File` with the size seen at open; `data` gives the bytes outside
    /// of `holes` (sorted, disjoint ranges of file offsets) in order. At most the announced size is read.
    /// [`BackupError::Source`] means that this file is not in the snapshot and the next may follow.
    pub fn add_file(
        &mut self,
        entry: Entry,
        data: &mut dyn Read,
        holes: &[Range<u64>],
    ) -> Result<FileOutcome, BackupError> {
        let small = entry.size() < self.descriptor.bundling.below.into() && holes.is_empty();
        if small {
            self.add_small(entry, data)
        } else {
            self.add_large(entry, None, data, holes, self.descriptor.files)
        }
    }

    /// Like [`Self::add_file`], cut into aligned blocks: for disk images and volumes.
    pub fn add_image(
        &mut self,
        entry: Entry,
        data: &mut dyn Read,
        holes: &[Range<u64>],
    ) -> Result<FileOutcome, BackupError> {
        self.add_large(entry, None, data, holes, self.descriptor.images)
    }

    /// Takes over what an interrupted backup had read of a file that still looks the same: of the content of `before`,
    /// an entry out of its checkpoint, what comes before the first piece that is in no known pack. Lists are read from
    /// `lists`.
    pub fn take_begun(&mut self, before: &Entry, lists: &Frames) -> Result<Begun, BackupError> {
        enum Stop {
            Here,
            Failed(BackupError),
        }
        impl From<ReadError> for Stop {
            fn from(_: ReadError) -> Self {
                Self::Here
            }
        }
        let mut large = LargeFile::new(&self.store);
        let store = &mut self.store;
        let taken = for_each_piece(lists, before, &mut |piece| {
            let length = piece.length;
            let piece = match piece.from {
                PieceSource::Hole => Piece::Hole { length },
                PieceSource::Frame { kind: FrameKind::Chunk, id, .. }
                    if store.take(&id, FrameKind::Chunk) =>
                {
                    Piece::Data { id, length }
                }
                PieceSource::Frame { .. } => return Err(Stop::Here),
            };
            large.piece(store, piece).map_err(Stop::Failed)
        });
        match taken {
            Err(Stop::Failed(error)) => Err(error),
            Ok(()) | Err(Stop::Here) => Ok(Begun(large)),
        }
    }

    /// As [`Self::add_file`] or, for an `image`, [`Self::add_image`], with a beginning that was taken over: `data` gives
    /// what comes after it.
    pub fn add_rest(
        &mut self,
        entry: Entry,
        begun: Begun,
        data: &mut dyn Read,
        holes: &[Range<u64>],
        image: bool,
    ) -> Result<FileOutcome, BackupError> {
        let chunking = if image { self.descriptor.images } else { self.descriptor.files };
        self.add_large(entry, Some(begun), data, holes, chunking)
    }

    fn add_small(&mut self, entry: Entry, data: &mut dyn Read) -> Result<FileOutcome, BackupError> {
        let key = self.next_key(&entry, true)?;
        let announced = entry.size();
        let (size, found) = self.find_small(data, announced)?;
        self.take_file(key, entry, size.into(), announced, found)
    }

    fn find_small(
        &mut self,
        data: &mut dyn Read,
        announced: u64,
    ) -> Result<(u32, Found), BackupError> {
        let content = self.bundle.read(data, announced, self.descriptor.bundling);
        let content = content.map_err(BackupError::Source)?;
        let Ok(length) = u32::try_from(content.len()) else { return Err(BackupError::BadEntry) };
        if length == 0 {
            return Ok((0, Found::Ready(Content::Empty)));
        }
        let file = self.store.ids.file(content);
        if let Some(offset) = self.bundle.find(&file) {
            return Ok((length, Found::InBundle { offset, length, file }));
        }
        if let Some(FilePlace { bundle, offset, length: known }) = self.store.file(&file)
            && known == length
            && self.store.take(&bundle, FrameKind::Bundle)
        {
            let content = Content::Bundled { bundle, offset, length, file };
            return Ok((length, Found::Ready(content)));
        }
        let offset = self.bundle.append(file);
        self.store.new_bytes += u64::from(length);
        Ok((length, Found::InBundle { offset, length, file }))
    }

    fn add_large(
        &mut self,
        entry: Entry,
        begun: Option<Begun>,
        data: &mut dyn Read,
        holes: &[Range<u64>],
        chunking: Chunking,
    ) -> Result<FileOutcome, BackupError> {
        let key = self.next_key(&entry, true)?;
        let announced = entry.size();
        let mut large = begun.map_or_else(|| LargeFile::new(&self.store), |Begun(large)| large);
        let way = Way { chunking, entry: (&key, &entry) };
        match large.read(self, &way, data, holes) {
            Ok(()) => {}
            Err(error) => {
                self.store.new_bytes -= large.new_bytes;
                self.store.abandon(large.new);
                return Err(error);
            }
        }
        let size = large.size;
        let store = &mut self.store;
        let content = large.list.finish(&mut |list: Vec<u8>| {
            store.put(FrameKind::List, list, Vec::new()).map(|(id, _)| id)
        })?;
        self.take_file(key, entry, size, announced, Found::Ready(content))
    }

    fn take_file(
        &mut self,
        key: Vec<u8>,
        mut entry: Entry,
        size: u64,
        announced: u64,
        found: Found,
    ) -> Result<FileOutcome, BackupError> {
        let shrank = size < announced;
        if shrank {
            entry.flags |= Entry::SHRANK;
        }
        entry.kind = EntryKind::File { size, content: Content::Empty };
        self.remember_link(&entry, size, &found);
        self.stats.source_bytes += size;
        self.enqueue(key, entry, Some(found))?;
        if self.checkpoints.is_due() {
            self.checkpoint()?;
        }
        Ok(FileOutcome { size, shrank })
    }

    fn checkpoint(&mut self) -> Result<(), BackupError> {
        self.close_bundle()?;
        // A leaf of large files may stay open for hours.
        if let Some(leaf) = self.tree.open_leaf() {
            self.store.note(FrameKind::Node, leaf)?;
        }
        self.store.checkpoint()?;
        self.checkpoints.last = Instant::now();
        Ok(())
    }

    fn remember_link(&mut self, entry: &Entry, size: u64, found: &Found) {
        if let Some(group) = entry.hardlink {
            self.links.put(group, size, found);
        }
    }

    /// Adds anything that is not a regular file.
    pub fn add_entry(&mut self, entry: Entry) -> Result<(), BackupError> {
        let key = self.next_key(&entry, false)?;
        self.enqueue(key, entry, None)
    }

    /// Adds a further name of a file that came before in this backup with the same `hardlink` number; nothing is
    /// read. `ReadAgain` if no name came before.
    pub fn add_link(&mut self, mut entry: Entry) -> Result<Reuse, BackupError> {
        let first = entry.hardlink.and_then(|group| self.links.get(group));
        let Some((size, found)) = first else { return Ok(Reuse::ReadAgain) };
        let key = self.next_key(&entry, true)?;
        entry.kind = EntryKind::File { size, content: Content::Empty };
        self.enqueue(key, entry, Some(found))?;
        Ok(Reuse::Taken)
    }

    /// Adds a file with the size and content of an earlier entry in its `kind`, and fresh metadata. `encoded` is
    /// the entry as the parent's tree has it, if nothing about it is fresh: it is then taken over as it is. Lists of the
    /// content are read from `lists`.
    pub fn unchanged(
        &mut self,
        entry: Entry,
        encoded: Option<Vec<u8>>,
        lists: &Frames,
    ) -> Result<Reuse, BackupError> {
        let EntryKind::File { size, content } = &entry.kind else {
            return Err(BackupError::BadEntry);
        };
        let size = *size;
        if content.length() != Some(size) {
            return Err(BackupError::BadEntry);
        }
        if !self.each_frame(&entry, lists, FrameStore::knows) {
            return Ok(Reuse::ReadAgain);
        }
        let key = self.next_key(&entry, true)?;
        if !self.each_frame(&entry, lists, FrameStore::take) {
            // Some of it counts by now: a snapshot would need what it does not name, or name what it does not need.
            return Err(BackupError::Unlocated);
        }
        self.stats.source_bytes += size;
        self.stats.files += 1;
        if entry.hardlink.is_some()
            && let EntryKind::File { content, .. } = &entry.kind
        {
            self.remember_link(&entry, size, &Found::Ready(content.clone()));
        }
        debug_assert!(encoded.as_ref().is_none_or(|encoded| *encoded == entry.encode()));
        let waiting = match encoded {
            Some(encoded) => Waiting::Encoded(encoded),
            None => Waiting::Entry(Box::new(entry), None),
        };
        self.enqueue_waiting(key, waiting)?;
        Ok(Reuse::Taken)
    }

    /// Goes through the frames of an entry's content while `go` is true; false: it ended early. Gone through twice
    /// rather than kept: an image has millions.
    fn each_frame(
        &mut self,
        entry: &Entry,
        lists: &Frames,
        go: fn(&mut FrameStore, &ChunkId, FrameKind) -> bool,
    ) -> bool {
        let EntryKind::File { content, .. } = &entry.kind else { return false };
        let store = &mut self.store;
        match content {
            Content::Empty => true,
            Content::Bundled { bundle, .. } => go(store, bundle, FrameKind::Bundle),
            Content::Pieces { depth: 0, pieces } => pieces.iter().all(|piece| match piece {
                Piece::Data { id, .. } => go(store, id, FrameKind::Chunk),
                Piece::Hole { .. } => true,
            }),
            Content::Pieces { .. } => {
                let mut go = |id: &ChunkId, kind| {
                    let known = go(store, id, kind);
                    known.then_some(()).ok_or(ReadError::Unlocated(*id))
                };
                // A list that cannot be read means reading the file, not ending the backup.
                for_each_list(lists, entry, &mut |id| go(&id, FrameKind::List)).is_ok()
                    && for_each_piece(lists, entry, &mut |piece| match piece.from {
                        PieceSource::Frame { kind, id, .. } => go(&id, kind),
                        PieceSource::Hole => Ok(()),
                    })
                    .is_ok()
            }
        }
    }

    /// Checks the entry and its place; nothing is remembered yet.
    fn next_key(&self, entry: &Entry, file: bool) -> Result<Vec<u8>, BackupError> {
        let key = path::key(&entry.path)?;
        if self.last_key.as_ref().is_some_and(|last| *last >= key) {
            return Err(BackupError::OutOfOrder);
        }
        let sorted = entry.xattrs.windows(2).all(|pair| pair[0].name < pair[1].name);
        let bytes: usize = entry.xattrs.iter().map(|x| x.name.len() + x.value.len() + 10).sum();
        let good = entry.is_file() == file
            && entry.mode <= 0o7777
            && entry.mtime.nanos < 1_000_000_000
            && sorted
            && bytes < MAX_ENTRY_BYTES / 2;
        if good { Ok(key) } else { Err(BackupError::BadEntry) }
    }

    fn enqueue(
        &mut self,
        key: Vec<u8>,
        entry: Entry,
        found: Option<Found>,
    ) -> Result<(), BackupError> {
        match entry.kind {
            EntryKind::File { .. } => self.stats.files += 1,
            EntryKind::Directory => self.stats.directories += 1,
            _ => self.stats.others += 1,
        }
        self.enqueue_waiting(key, Waiting::Entry(Box::new(entry), found))
    }

    fn enqueue_waiting(&mut self, key: Vec<u8>, waiting: Waiting) -> Result<(), BackupError> {
        self.last_key.get_or_insert_default().clone_from(&key);
        if self.bundle.is_empty() {
            return self.push(&key, waiting, None);
        }
        self.pending.push((key, waiting));
        if self.bundle.ends(self.descriptor.bundling) || self.pending.len() >= MAX_PENDING {
            self.close_bundle()?;
        }
        Ok(())
    }

    fn close_bundle(&mut self) -> Result<(), BackupError> {
        if self.bundle.is_empty() {
            return Ok(());
        }
        let (bytes, parts) = std::mem::take(&mut self.bundle).close();
        let (bundle, _) = self.store.put(FrameKind::Bundle, bytes, parts)?;
        self.links.close(bundle)?;
        for (key, waiting) in std::mem::take(&mut self.pending) {
            self.push(&key, waiting, Some(bundle))?;
        }
        Ok(())
    }

    fn push(
        &mut self,
        key: &[u8],
        waiting: Waiting,
        bundle: Option<ChunkId>,
    ) -> Result<(), BackupError> {
        let (mut entry, found) = match waiting {
            Waiting::Entry(entry, found) => (entry, found),
            Waiting::Encoded(encoded) => return self.tree.push(key, &encoded, &mut self.store),
        };
        if let (EntryKind::File { content, .. }, Some(found)) = (&mut entry.kind, found) {
            *content = resolve(found, bundle)?;
        }
        self.tree.push(key, &entry.encode(), &mut self.store)
    }

    /// Stores what the parent, whose frames these are, uses of a half-dead pack anew, in packs of this backup; the index
    /// must not know the old one. Call it before the first entry. What this backup then does not need counts as unused.
    ///
    /// # Errors
    /// [`BackupError::Parent`] when the pack cannot be read: what was not stored by then is read from its source.
    pub fn carry_over(&mut self, parent: &Frames, pack: &PackRef) -> Result<(), BackupError> {
        each_live_frame(parent, pack, |frame, raw| self.store.carry(frame, raw))
    }

    /// A shelf with its share of the memory of this backup, for whoever feeds it.
    pub fn shelf(&self) -> Shelf {
        self.store.index.shelf()
    }

    /// Seals what is left, writes the tree and the summary (its counts are filled in here).
    pub fn finish(mut self, summary: Summary) -> Result<FinishedSnapshot, BackupError> {
        self.close_bundle()?;
        let Self { tree, mut store, mut stats, .. } = self;
        let root = tree.finish(&mut store)?;
        let summary = summary.with_counts(&stats).encode();
        let (summary, _) = store.put(FrameKind::Summary, summary, Vec::new())?;
        stats.new_bytes = store.new_bytes;
        let Stored { usage, next_seq, packs, stored_bytes } = store.finish()?;
        stats.packs = packs;
        stats.stored_bytes = stored_bytes;
        Ok(FinishedSnapshot { root, summary, usage, next_seq, stats })
    }
}

fn resolve(found: Found, bundle: Option<ChunkId>) -> Result<Content, BackupError> {
    match (found, bundle) {
        (Found::Ready(content), _) => Ok(content),
        (Found::InBundle { offset, length, file }, Some(bundle)) => {
            Ok(Content::Bundled { bundle, offset, length, file })
        }
        (Found::InBundle { .. }, None) => Err(BackupError::Unlocated),
    }
}

/// First names of hard-linked files: size and content.
struct Links {
    /// Those whose content is in the open bundle.
    open: HashMap<u64, (u64, Found)>,
    closed: Shelf,
}

impl Links {
    fn new(index: &ChunkIndex) -> Self {
        Self { open: HashMap::new(), closed: index.shelf() }
    }

    fn put(&mut self, group: u64, size: u64, found: &Found) {
        match found {
            Found::InBundle { .. } => drop(self.open.insert(group, (size, found.clone()))),
            Found::Ready(content) => {
                self.open.remove(&group);
                let kind = EntryKind::File { size, content: content.clone() };
                self.closed.put(group, &Entry::new(Vec::new(), kind).encode());
            }
        }
    }

    fn get(&self, group: u64) -> Option<(u64, Found)> {
        if let Some(found) = self.open.get(&group) {
            return Some(found.clone());
        }
        match Entry::decode(Vec::new(), &self.closed.get(group)?).ok()?.kind {
            EntryKind::File { size, content } => Some((size, Found::Ready(content))),
            _ => None,
        }
    }

    /// The open bundle has an id now.
    fn close(&mut self, bundle: ChunkId) -> Result<(), BackupError> {
        for (group, (size, found)) in std::mem::take(&mut self.open) {
            self.put(group, size, &Found::Ready(resolve(found, Some(bundle))?));
        }
        Ok(())
    }
}

/// The beginning of a file, out of an interrupted backup.
pub struct Begun(LargeFile);

impl Begun {
    /// Bytes of the file that need not be read, holes included.
    pub const fn length(&self) -> u64 {
        self.0.size
    }
}

/// How a large file is read.
struct Way<'a> {
    chunking: Chunking,
    /// Its key, and what is known of it before it is read.
    entry: (&'a [u8], &'a Entry),
}

/// A file on its way into chunks.
struct LargeFile {
    /// Frames stored for this file, and the content bytes among them.
    new: IdLog,
    new_bytes: u64,
    list: ListBuilder,
    size: u64,
}

impl LargeFile {
    fn new(store: &FrameStore) -> Self {
        let new = IdLog::new(store.index.folder());
        Self { new, new_bytes: 0, list: ListBuilder::new(), size: 0 }
    }

    /// Reads on, from where it is.
    fn read(
        &mut self,
        writer: &mut Writer,
        way: &Way<'_>,
        data: &mut dyn Read,
        holes: &[Range<u64>],
    ) -> Result<(), BackupError> {
        let (begun, announced) = (self.size, way.entry.1.size());
        let mut at = begun;
        for hole in holes.iter().chain([&(announced..announced)]) {
            let within = |place: u64| place.max(begun).min(announced);
            let (start, end) = (within(hole.start), within(hole.end));
            if start < at || end < start {
                return Err(BackupError::Source(io::ErrorKind::InvalidInput.into()));
            }
            self.stretch(writer, way, &mut data.take(start - at))?;
            if self.size < start {
                return Ok(());
            }
            if end > start {
                self.piece(&mut writer.store, Piece::Hole { length: end - start })?;
            }
            at = end;
        }
        Ok(())
    }

    fn stretch(
        &mut self,
        writer: &mut Writer,
        way: &Way<'_>,
        data: &mut dyn Read,
    ) -> Result<(), BackupError> {
        let mut buffer = std::mem::take(&mut writer.store.scratch);
        let gear = Arc::clone(&writer.gear);
        let mut chunker = Chunker::new(&gear, way.chunking, self.size, &mut buffer);
        while let Some(chunk) = chunker.next_chunk(data).map_err(BackupError::Source)? {
            // Not after the last chunk: it may end where reading had to.
            if self.size > 0 && writer.checkpoints.is_due() {
                self.note(way, &mut writer.store)?;
                writer.checkpoint()?;
            }
            let store = &mut writer.store;
            let length = chunk.len() as u64;
            let (id, new) = store.put(FrameKind::Chunk, chunk, Vec::new())?;
            if new {
                store.new_bytes += length;
                self.new_bytes += length;
                self.new.push(id);
            }
            self.piece(store, Piece::Data { id, length })?;
        }
        writer.store.scratch = buffer;
        Ok(())
    }

    /// Stores how far this file is, for [`Writer::take_begun`] of a later session: as a leaf of its own, with the entry of
    /// a file that ended here. The tree of this backup has no use for it.
    fn note(&self, way: &Way<'_>, store: &mut FrameStore) -> Result<(), BackupError> {
        let content = self.list.clone().finish(&mut |list| store.note(FrameKind::List, list))?;
        let (key, entry) = way.entry;
        let mut begun = entry.clone();
        begun.kind = EntryKind::File { size: self.size, content };
        begun.flags |= Entry::SHRANK;
        store.note(FrameKind::Node, leaf_of_one(key, &begun.encode())).map(drop)
    }

    fn piece(&mut self, store: &mut FrameStore, piece: Piece) -> Result<(), BackupError> {
        self.size += piece.length();
        let new = &mut self.new;
        self.list.push(piece, &mut |list: Vec<u8>| {
            let (id, fresh) = store.put(FrameKind::List, list, Vec::new())?;
            if fresh {
                new.push(id);
            }
            Ok(id)
        })
    }
}

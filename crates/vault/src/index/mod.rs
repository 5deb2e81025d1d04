//! The index: which chunk, and which small file, is in which pack.
//!
//! Derived from pack directories and nothing else. It is advice: a wrong entry costs an upload or a failed commit,
//! never data, because every read compares ids and every commit checks its references. On disk it is a folder of
//! sorted runs under one head; opening reads the head and the runs' tops, a look-up a page or two. Invariants: a
//! stored index that is torn, altered or of another vault says nothing, at opening or when the damage is met;
//! memory stays within the [`Budget`] however many chunks there are (40 bytes a pack come on top).

mod head;
mod places;
mod records;
mod run;
mod shelf;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic::AtomicU64},
};

use domain::VaultId;

pub use self::shelf::Shelf;
use self::{
    head::Head,
    records::{Records, Yard},
    run::{Meter, RunMeta},
};
pub(crate) use self::{places::Places, shelf::nameless};
use crate::{
    id::{ChunkId, FileId, FrameKind, Sha256},
    pack::{Directory, PackKind},
};

/// A frame of a known pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the pack in this index.
    pub pack: u32,
    pub frame: u32,
    pub kind: FrameKind,
    /// Where its sealed bytes begin in the pack; [`u32::MAX`] and beyond is not told.
    pub offset: u32,
    /// How many they are.
    pub length: u32,
}

/// A small file inside a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilePlace {
    pub bundle: ChunkId,
    pub offset: u32,
    pub length: u32,
}

/// What the index knows of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownPack {
    pub kind: PackKind,
    pub sha256: Sha256,
    pub length: u64,
    /// Frames in the pack, padding included.
    pub frames: u32,
    /// Where the frames begin; [`u32::MAX`]: not told.
    frames_at: u32,
    chunks: u32,
    files: u32,
}

impl KnownPack {
    /// Bytes before the first frame, where that is known.
    pub fn front(&self) -> Option<u64> {
        (self.frames_at != u32::MAX).then(|| self.frames_at.into())
    }
}

/// Memory the index may use, in bytes. Tables grow to their share as they fill; less costs time, never knowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    pub bytes: usize,
}

impl Budget {
    /// For small machines.
    pub const SMALL: Self = Self { bytes: 8 << 20 };
    /// Enough for ten million chunks without a second page read per new one.
    pub const NORMAL: Self = Self { bytes: 32 << 20 };

    const fn eighths(self, share: usize) -> usize {
        self.bytes / 8 * share
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::NORMAL
    }
}

const CHUNK: usize = ChunkId::LEN + 4 + 4 + 1 + 4 + 4;
const FILE: usize = FileId::LEN + 4 + ChunkId::LEN + 4 + 4;
type Chunks = Records<CHUNK, { ChunkId::LEN }>;
type Files = Records<FILE, { FileId::LEN }>;

/// Chunk and small-file look-up; shared between threads.
pub struct ChunkIndex {
    vault: VaultId,
    /// Where it lives; `None`: in memory alone.
    folder: Option<PathBuf>,
    budget: Budget,
    yard: Arc<Yard>,
    packs: RwLock<Packs>,
    chunks: Chunks,
    files: Files,
}

/// The packs that are vouched for. A record of any other is dead.
#[derive(Default)]
struct Packs {
    by_number: BTreeMap<u32, KnownPack>,
    by_hash: HashMap<Sha256, u32>,
    next: u32,
}

impl Packs {
    fn add(&mut self, number: u32, pack: KnownPack) {
        self.by_hash.insert(pack.sha256, number);
        self.by_number.insert(number, pack);
    }
    fn records(&self) -> u64 {
        self.by_number.values().map(|pack| u64::from(pack.chunks) + u64::from(pack.files)).sum()
    }
}

impl ChunkIndex {
    /// An empty index in memory: no bound, for few packs.
    pub fn new(vault: VaultId) -> Self {
        Self::empty(vault, None, Budget::default(), 1)
    }

    fn empty(vault: VaultId, folder: Option<PathBuf>, budget: Budget, next_run: u64) -> Self {
        let meter = Meter::new(budget.eighths(2));
        let (next, named) = (AtomicU64::new(next_run), true);
        let yard = Arc::new(Yard { folder: folder.clone(), named, next, meter });
        Self {
            vault,
            folder,
            budget,
            packs: RwLock::default(),
            chunks: Records::empty(&yard, budget.eighths(2)),
            files: Records::empty(&yard, budget.eighths(3)),
            yard,
        }
    }

    /// The index in `folder`, for a backup: what it learns beyond its budget is written there, and seen by others
    /// when it is saved. What is wrong, or of another generation, is removed. One process at a time.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(
        folder: &Path,
        vault: VaultId,
        generation: u64,
        budget: Budget,
    ) -> io::Result<Self> {
        if std::fs::symlink_metadata(folder).is_ok_and(|meta| meta.is_file()) {
            faults::point("index: remove")?;
            std::fs::remove_file(folder)?;
        }
        faults::point("index: make the folder")?;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let head = Head::load(folder);
        let head = head.filter(|head| head.vault == vault && head.generation == generation);
        let index = head.as_ref().and_then(|head| Self::of(head, Some(folder), folder, budget));
        let named = head.filter(|_| index.is_some()).map_or_else(Vec::new, |head| {
            head.chunks.iter().chain(&head.files).map(|run| run::file_name(run.number)).collect()
        });
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let live = name.to_str().is_some_and(|name| named.iter().any(|run| run == name));
            let head = name == head::HEAD && index.is_some();
            if !live && !head && entry.file_type()?.is_file() {
                faults::point("index: remove")?;
                std::fs::remove_file(entry.path())?;
            }
        }
        let empty = || Self::empty(vault, Some(folder.to_path_buf()), budget, 1);
        Ok(index.unwrap_or_else(empty))
    }

    /// The index in `folder` and its generation, for reading; `None` for anything that is not wholly right as far as
    /// it was looked at. Nothing is changed there, and what is added stays in memory.
    pub fn load(folder: &Path, vault: VaultId) -> Option<(Self, u64)> {
        let head = Head::load(folder).filter(|head| head.vault == vault)?;
        Some((Self::of(&head, None, folder, Budget::SMALL)?, head.generation))
    }

    fn of(head: &Head, home: Option<&Path>, folder: &Path, budget: Budget) -> Option<Self> {
        let mut index = Self::empty(head.vault, home.map(Path::to_path_buf), budget, head.next_run);
        let yard = &index.yard;
        index.chunks = Records::open(yard, budget.eighths(2), folder, &head.chunks).ok()?;
        index.files = Records::open(yard, budget.eighths(3), folder, &head.files).ok()?;
        let mut packs = Packs { next: head.next_pack, ..Packs::default() };
        for (number, pack) in &head.packs {
            packs.add(*number, *pack);
        }
        index.packs = RwLock::new(packs);
        Some(index)
    }

    fn known(&self) -> RwLockReadGuard<'_, Packs> {
        self.packs.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn known_mut(&self) -> RwLockWriteGuard<'_, Packs> {
        self.packs.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a pack with its directory; one that is known already changes nothing.
    pub fn add(&self, kind: PackKind, sha256: Sha256, length: u64, directory: &Directory) {
        self.number(kind, sha256, length, directory);
    }

    /// Adds a pack as [`Self::add`] does; gives its number.
    pub(crate) fn number(
        &self,
        kind: PackKind,
        sha256: Sha256,
        length: u64,
        directory: &Directory,
    ) -> u32 {
        let frames_at = directory.frames_at(length).and_then(|at| u32::try_from(at).ok());
        let frames_at = frames_at.unwrap_or(u32::MAX);
        let chunks = directory.frames.iter().filter(|frame| frame.kind != FrameKind::Pad).count();
        let files: usize = directory.frames.iter().map(|frame| frame.parts.len()).sum();
        let pack = KnownPack {
            kind,
            sha256,
            length,
            frames: directory.len(),
            frames_at,
            chunks: u32::try_from(chunks).unwrap_or(u32::MAX),
            files: u32::try_from(files).unwrap_or(u32::MAX),
        };
        let number = {
            let mut packs = self.known_mut();
            if let Some(known) = packs.by_hash.get(&sha256) {
                return *known;
            }
            let number = packs.next;
            if number == u32::MAX {
                return number;
            }
            packs.next += 1;
            packs.add(number, pack);
            number
        };
        let live = |pack| self.known().by_number.contains_key(&pack);
        self.chunks.insert(chunk_records(number, frames_at, directory), &live);
        self.files.insert(file_records(number, directory), &live);
        number
    }

    /// The packs to keep; everything else is forgotten. Call it with the packs the server still vouches for. Costs
    /// O(packs): records of the others are dropped when runs are merged.
    pub fn retain(&self, keep: impl Fn(&Sha256) -> bool) {
        let mut packs = self.known_mut();
        packs.by_number.retain(|_, pack| keep(&pack.sha256));
        packs.by_hash.retain(|sha256, _| keep(sha256));
    }

    pub fn has_pack(&self, sha256: &Sha256) -> bool {
        self.known().by_hash.contains_key(sha256)
    }
    /// The pack with this hash.
    pub fn known_pack(&self, sha256: &Sha256) -> Option<KnownPack> {
        let packs = self.known();
        packs.by_hash.get(sha256).and_then(|number| packs.by_number.get(number)).copied()
    }
    /// The pack with this number ([`Place::pack`]).
    pub fn pack(&self, number: u32) -> Option<KnownPack> {
        self.known().by_number.get(&number).copied()
    }
    /// The packs, in the order they came.
    pub fn packs(&self) -> Vec<KnownPack> {
        self.known().by_number.values().copied().collect()
    }
    /// Chunks known; one in two packs counts twice.
    pub fn len(&self) -> usize {
        self.known().by_number.values().map(|pack| pack.chunks as usize).sum()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub const fn vault(&self) -> VaultId {
        self.vault
    }
    /// Memory it may use.
    pub const fn budget(&self) -> Budget {
        self.budget
    }
    /// Where it lives, and where a backup may keep what does not fit its memory.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }
    /// Bytes of memory that tables, guides and tops hold, by capacity.
    pub fn held(&self) -> usize {
        self.chunks.held() + self.files.held()
    }
    /// A shelf beside the index, with a sixty-fourth of its budget: room for four.
    pub fn shelf(&self) -> Shelf {
        Shelf::new(&self.yard, self.budget.eighths(1) / 8)
    }
    /// Sorted runs of chunks and of files.
    pub fn runs(&self) -> (usize, usize) {
        (self.chunks.runs(), self.files.runs())
    }

    /// Where a chunk is.
    pub fn chunk(&self, id: &ChunkId) -> Option<Place> {
        self.chunks.find(&id.0, |record| {
            let mut input = Fields(&record[ChunkId::LEN..]);
            let (pack, frame, [kind]) = (input.u32()?, input.u32()?, input.take()?);
            let (offset, length) = (input.u32()?, input.u32()?);
            self.known().by_number.get(&pack).filter(|known| frame < known.frames)?;
            Some(Place { pack, frame, kind: FrameKind::from_code(kind)?, offset, length })
        })
    }
    /// Where a small file's content is.
    pub fn file(&self, id: &FileId) -> Option<FilePlace> {
        self.files.find(&id.0, |record| {
            let mut input = Fields(&record[FileId::LEN..]);
            let (pack, bundle, offset, length) =
                (input.u32()?, input.take()?, input.u32()?, input.u32()?);
            self.known().by_number.get(&pack)?;
            Some(FilePlace { bundle: ChunkId(bundle), offset, length })
        })
    }

    /// Makes the index durable in `folder`, in one step for whoever loads it: the folder it was opened in, or any for
    /// one that lives in memory. `generation` is for the reader to compare.
    ///
    /// # Errors
    /// What the system says. An index that lost a part of itself to a full disk, or met damage, removes its head: the
    /// next one begins anew.
    pub fn save(&self, folder: &Path, generation: u64) -> io::Result<()> {
        match &self.folder {
            Some(home) if home == folder => self.save_home(home, generation),
            Some(_) => Err(io::ErrorKind::InvalidInput.into()),
            None => {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
                let chunks = self.chunks.export(folder, 1)?;
                let files = self.files.export(folder, 2)?;
                self.head(generation, 3, chunks, files).save(folder)
            }
        }
    }

    fn save_home(&self, home: &Path, generation: u64) -> io::Result<()> {
        let saved = self.settle().and_then(|(chunks, files)| {
            let next = self.yard.next.load(std::sync::atomic::Ordering::Acquire);
            self.head(generation, next, chunks, files).save(home)
        });
        if saved.is_ok() {
            self.chunks.settled();
            self.files.settled();
        } else if (self.chunks.is_broken() || self.files.is_broken())
            && faults::point("index: remove the head").is_ok()
        {
            drop(std::fs::remove_file(home.join(head::HEAD)));
        }
        saved
    }

    /// Merges what is due and makes every run durable.
    fn settle(&self) -> io::Result<(Vec<RunMeta>, Vec<RunMeta>)> {
        let live = |pack| self.known().by_number.contains_key(&pack);
        let all = self.chunks.count() + self.files.count();
        let dead = all.saturating_sub(self.known().records());
        if dead > all / 4 {
            self.chunks.merge_all(&live)?;
            self.files.merge_all(&live)?;
        }
        Ok((self.chunks.settle(&live)?, self.files.settle(&live)?))
    }

    fn head(
        &self,
        generation: u64,
        next_run: u64,
        chunks: Vec<RunMeta>,
        files: Vec<RunMeta>,
    ) -> Head {
        let packs = self.known();
        let vault = self.vault;
        let (next_pack, known) = (packs.next, &packs.by_number);
        let packs = known.iter().map(|(number, pack)| (*number, *pack)).collect();
        Head { vault, generation, next_run, next_pack, packs, chunks, files }
    }
}

fn chunk_records(
    pack: u32,
    frames_at: u32,
    directory: &Directory,
) -> impl Iterator<Item = [u8; CHUNK]> {
    let mut next = u64::from(frames_at);
    let frames = (0_u32..).zip(&directory.frames).map(move |(at, frame)| {
        let offset = u32::try_from(next).unwrap_or(u32::MAX);
        next += u64::from(frame.sealed_len);
        (at, frame, offset)
    });
    frames.filter(|(_, frame, _)| frame.kind != FrameKind::Pad).map(move |(at, frame, offset)| {
        let mut record = [0; CHUNK];
        let kind = [frame.kind.code()];
        fill(
            &mut record,
            &[
                &frame.id.0,
                &pack.to_be_bytes(),
                &at.to_be_bytes(),
                &kind,
                &offset.to_be_bytes(),
                &frame.sealed_len.to_be_bytes(),
            ],
        );
        record
    })
}

fn file_records(pack: u32, directory: &Directory) -> impl Iterator<Item = [u8; FILE]> {
    directory.frames.iter().flat_map(move |frame| {
        let mut offset = 0_u32;
        frame.parts.iter().map(move |part| {
            let mut record = [0; FILE];
            let (at, length) = (offset.to_be_bytes(), part.length.to_be_bytes());
            fill(&mut record, &[&part.file.0, &pack.to_be_bytes(), &frame.id.0, &at, &length]);
            offset = offset.saturating_add(part.length);
            record
        })
    })
}

fn fill(record: &mut [u8], fields: &[&[u8]]) {
    let mut rest = record;
    for field in fields {
        let (here, after) = rest.split_at_mut(field.len());
        here.copy_from_slice(field);
        rest = after;
    }
}

/// Numbers and ids of a record or a head, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const L: usize>(&mut self) -> Option<[u8; L]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
}

/// Brings the index up to a snapshot's packs: directories of unknown packs are read, packs for which `keep` is
/// false and that the snapshot does not use are forgotten.
pub fn sync(
    index: &ChunkIndex,
    frames: &crate::snapshot::Frames,
    keep: impl Fn(&Sha256) -> bool,
) -> Result<(), crate::snapshot::ReadError> {
    index.retain(|sha256| frames.pack_ref(sha256).is_some() || keep(sha256));
    for pack in frames.packs() {
        if !index.has_pack(&pack.sha256) {
            let open = frames.open(pack)?;
            index.add(pack.kind, pack.sha256, pack.length, &open.directory);
        }
    }
    Ok(())
}

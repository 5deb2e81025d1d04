//! Frames by chunk id, out of the packs of one set.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{PackSource, ReadError};
use crate::{
    id::{ChunkId, FrameKind, IdKeys, Sha256},
    index::ChunkIndex,
    keys::VaultKeys,
    manifest::{PackRef, PackSet},
    pack::{OpenPack, PackError, PackKind},
};

/// Metadata frames are read this many bytes at a time: neighbours in the pack are neighbours in the tree.
const WINDOW: u64 = 256 << 10;
/// Decoded frames kept, in bytes.
const CACHE: usize = 32 << 20;

/// Reads frames by id. Shared by everything that reads a snapshot; cheap to share between threads.
pub struct Frames {
    keys: Arc<VaultKeys>,
    ids: IdKeys,
    packs: BTreeMap<Sha256, PackRef>,
    source: Arc<dyn PackSource>,
    index: Option<Arc<ChunkIndex>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<Sha256, Arc<OpenPack>>,
    located: HashMap<ChunkId, (Sha256, u32)>,
    cache: Cache,
}

/// Frames in order of arrival; the oldest go first.
#[derive(Default)]
struct Cache {
    frames: HashMap<ChunkId, Arc<Vec<u8>>>,
    order: VecDeque<ChunkId>,
    bytes: usize,
}

impl Cache {
    fn insert(&mut self, id: ChunkId, frame: Arc<Vec<u8>>) {
        let length = frame.len();
        if self.frames.insert(id, frame).is_some() {
            return;
        }
        self.order.push_back(id);
        self.bytes += length;
        while self.bytes > CACHE {
            let Some(oldest) = self.order.pop_front() else { return };
            self.bytes -= self.frames.remove(&oldest).map_or(0, |frame| frame.len());
        }
    }
}

impl Frames {
    /// `index` saves reading directories; it is not believed where it is wrong.
    pub fn new(
        keys: Arc<VaultKeys>,
        set: &PackSet,
        source: Arc<dyn PackSource>,
        index: Option<Arc<ChunkIndex>>,
    ) -> Self {
        let ids = IdKeys::new(keys.id_secret());
        let packs = set.iter().map(|pack| (pack.sha256, pack.clone())).collect();
        Self { keys, ids, packs, source, index, state: Mutex::default() }
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub const fn ids(&self) -> &IdKeys {
        &self.ids
    }
    pub const fn keys(&self) -> &Arc<VaultKeys> {
        &self.keys
    }
    /// The packs of the snapshot.
    pub fn packs(&self) -> impl Iterator<Item = &PackRef> {
        self.packs.values()
    }
    pub fn pack_ref(&self, sha256: &Sha256) -> Option<&PackRef> {
        self.packs.get(sha256)
    }

    /// Bytes of a pack as they are stored.
    pub fn read(&self, pack: &PackRef, range: Range<u64>) -> Result<bytes::Bytes, ReadError> {
        let wanted = range.end - range.start;
        let source = |source| ReadError::Source { pack: pack.sha256, source };
        let bytes = self.source.read(pack, range).map_err(source)?;
        if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(damaged(pack, PackError::Short)) }
    }

    /// A pack with its directory; read once.
    pub fn open(&self, pack: &PackRef) -> Result<Arc<OpenPack>, ReadError> {
        if let Some(open) = self.state().open.get(&pack.sha256) {
            return Ok(Arc::clone(open));
        }
        let read = |range| self.read(pack, range).map_err(Opening::Read);
        let opened = OpenPack::open(&self.keys, pack.kind, pack.length, read);
        let opened = opened.map_err(|error| match error {
            Opening::Read(error) => error,
            Opening::Pack(error) => damaged(pack, error),
        })?;
        if opened.directory.len() != pack.frames {
            return Err(damaged(pack, PackError::Directory));
        }
        let opened = Arc::new(opened);
        self.adopt(pack.sha256, &opened);
        Ok(opened)
    }

    /// Takes over a pack of the set that somebody else has opened already.
    pub(crate) fn adopt(&self, pack: Sha256, opened: &Arc<OpenPack>) {
        let mut state = self.state();
        for (at, frame) in (0_u32..).zip(&opened.directory.frames) {
            state.located.entry(frame.id).or_insert((pack, at));
        }
        state.open.insert(pack, Arc::clone(opened));
    }

    /// The pack and the number of the frame that is said to hold `id`. What the index says is taken as it is: whoever
    /// reads compares with the pack's own directory ([`OpenPack::holds`]).
    pub fn locate(&self, id: &ChunkId, kind: PackKind) -> Result<(&PackRef, u32), ReadError> {
        if let Some(place) = self.opened(id) {
            return Ok(place);
        }
        if let Some(index) = &self.index
            && let Some(place) = index.chunk(id)
            && let Some(known) = index.pack(place.pack)
            && let Some(pack) = self.packs.get(&known.sha256)
        {
            return Ok((pack, place.frame));
        }
        self.search(id, kind)
    }

    /// A frame among the directories that were read.
    fn opened(&self, id: &ChunkId) -> Option<(&PackRef, u32)> {
        let (sha256, frame) = self.state().located.get(id).copied()?;
        Some((self.packs.get(&sha256)?, frame))
    }

    /// Looks into every directory, never at the index. A pack that cannot be read matters only if no other has the
    /// frame.
    fn search(&self, id: &ChunkId, kind: PackKind) -> Result<(&PackRef, u32), ReadError> {
        if let Some(place) = self.opened(id) {
            return Ok(place);
        }
        let mut unreadable = None;
        for pack in self.packs.values().filter(|pack| pack.kind == kind) {
            if self.state().open.contains_key(&pack.sha256) {
                continue;
            }
            match self.open(pack) {
                Ok(open) => {
                    let at = open.directory.frames.iter().position(|frame| frame.id == *id);
                    if let Some(at) = at {
                        return Ok((pack, u32::try_from(at).unwrap_or(u32::MAX)));
                    }
                }
                Err(error) => drop(unreadable.get_or_insert(error)),
            }
        }
        Err(unreadable.unwrap_or(ReadError::Unlocated(*id)))
    }

    /// The open pack and the number of the frame that holds `id` by the pack's own directory: a wrong index costs a
    /// search.
    pub(crate) fn find(
        &self,
        kind: FrameKind,
        id: &ChunkId,
    ) -> Result<(&PackRef, Arc<OpenPack>, u32), ReadError> {
        let of = home(kind);
        let (pack, at) = self.locate(id, of)?;
        let open = self.open(pack)?;
        if open.holds(at, kind, id) {
            return Ok((pack, open, at));
        }
        let (pack, at) = self.search(id, of)?;
        let open = self.open(pack)?;
        if open.holds(at, kind, id) { Ok((pack, open, at)) } else { Err(ReadError::Unlocated(*id)) }
    }

    /// The plaintext of a frame, authenticated and re-identified.
    pub fn frame(&self, kind: FrameKind, id: &ChunkId) -> Result<Arc<Vec<u8>>, ReadError> {
        if let Some(frame) = self.state().cache.frames.get(id) {
            return Ok(Arc::clone(frame));
        }
        let (pack, open, at) = self.find(kind, id)?;
        let range = open.range(at).map_err(|error| damaged(pack, error))?;
        let end = match pack.kind {
            PackKind::Meta => self.window_end(&open, at, range.start),
            PackKind::Data => range.end,
        };
        let bytes = self.read(pack, range.start..end)?;
        let frame = self.decode(pack, &open, at, &bytes, range.start)?;
        self.state().cache.insert(*id, Arc::clone(&frame));
        if pack.kind == PackKind::Meta {
            self.read_ahead(pack, &open, at + 1, &bytes, range.start);
        }
        Ok(frame)
    }

    fn window_end(&self, open: &OpenPack, at: u32, start: u64) -> u64 {
        let mut end = open.range(at).map_or(start, |range| range.end);
        let mut next = at + 1;
        while let Ok(range) = open.range(next) {
            if range.end - start > WINDOW {
                break;
            }
            end = range.end;
            next += 1;
        }
        end
    }

    /// Decodes the frames that came along; what does not decode is met again when it is asked for.
    fn read_ahead(&self, pack: &PackRef, open: &OpenPack, from: u32, bytes: &[u8], start: u64) {
        for at in from.. {
            let (Ok(info), Ok(range)) = (open.info(at), open.range(at)) else { return };
            if range.end - start > bytes.len() as u64 || info.kind == FrameKind::Pad {
                return;
            }
            let Ok(frame) = self.decode(pack, open, at, bytes, start) else { return };
            self.state().cache.insert(info.id, frame);
        }
    }

    /// Frame `at` out of `bytes`, which begin at offset `start` of the pack.
    pub fn decode(
        &self,
        pack: &PackRef,
        open: &OpenPack,
        at: u32,
        bytes: &[u8],
        start: u64,
    ) -> Result<Arc<Vec<u8>>, ReadError> {
        let broken = |error| damaged(pack, error);
        let (info, range) = (open.info(at).map_err(broken)?, open.range(at).map_err(broken)?);
        let from = range.start.checked_sub(start).map(|from| from as usize);
        let to = range.end.checked_sub(start).map(|to| to as usize);
        let sealed = from.zip(to).and_then(|(from, to)| bytes.get(from..to));
        let raw = open.frame(at, sealed.ok_or(broken(PackError::Short))?).map_err(broken)?;
        if !self.ids.matches(info.kind, &info.id, &raw) {
            return Err(ReadError::WrongId(info.id));
        }
        Ok(Arc::new(raw))
    }
}

/// The packs a kind of frame is in.
const fn home(kind: FrameKind) -> PackKind {
    match kind {
        FrameKind::Node | FrameKind::List | FrameKind::Summary => PackKind::Meta,
        FrameKind::Chunk | FrameKind::Bundle | FrameKind::Pad => PackKind::Data,
    }
}

enum Opening {
    Read(ReadError),
    Pack(PackError),
}

impl From<PackError> for Opening {
    fn from(error: PackError) -> Self {
        Self::Pack(error)
    }
}

pub(crate) fn damaged(pack: &PackRef, source: PackError) -> ReadError {
    ReadError::Pack { pack: pack.sha256, source }
}

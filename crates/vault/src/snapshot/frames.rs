//! Frames by chunk id, out of the packs of one set.
//!
//! Owns what is kept of packs and frames while a snapshot is read. Invariant: open packs and decoded frames are held
//! up to a fixed number of bytes; of every directory that was read the places of its frames stay, in files where they
//! are many, as hints that whoever reads compares with the directory itself. What a lost pack held is looked for in packs of other snapshots
//! ([`PackSource::others`]), under the same keys and ids: nothing else could be handed out from there.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Others, PackSource, ReadError};
use crate::{
    compress::Codec,
    id::{ChunkId, FrameKind, IdKeys, Sha256},
    index::{ChunkIndex, Places},
    keys::VaultKeys,
    manifest::{PackRef, PackSet},
    pack::{Decoder, FrameInfo, OpenPack, PackError, PackKind},
};

/// Metadata frames are read this many bytes at a time: neighbours in the pack are neighbours in the tree.
const WINDOW: u64 = 256 << 10;
/// Decoded frames kept, in bytes.
const CACHE: usize = 16 << 20;
/// Open packs kept, in bytes of their directories.
const OPEN: usize = 16 << 20;
/// Directories read at once when a frame has to be looked for.
const SEARCHERS: usize = 8;
/// Memory for places of frames.
const PLACES: usize = 16 << 20;
/// A pack that was lost is not searched again so soon: it would be for every frame. Whoever knows that a frame is in it
/// asks for it.
const LOST: Duration = Duration::from_secs(10);
/// One of another snapshot, lost or not answering: many are asked in vain.
const OTHER_LOST: Duration = Duration::from_secs(600);
/// Who else there is is not asked again so soon after nobody could say.
const ASKED: Duration = Duration::from_secs(60);

/// Reads frames by id. Shared by everything that reads a snapshot; cheap to share between threads.
pub struct Frames {
    keys: Arc<VaultKeys>,
    ids: IdKeys,
    /// In order of their ids, which is about the order they were made in.
    packs: Vec<PackRef>,
    numbers: BTreeMap<Sha256, u32>,
    source: Arc<dyn PackSource>,
    index: Option<Arc<ChunkIndex>>,
    state: Mutex<State>,
    /// Packs of other snapshots, from when something was lost.
    others: OnceLock<Box<Frames>>,
    /// When they may be asked for next. Held while somebody does.
    asking: Mutex<Option<Instant>>,
    from_others: Taken,
    /// These are the others.
    is_other: bool,
}

/// Frames, and their bytes.
#[derive(Default)]
struct Taken {
    frames: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Default)]
struct State {
    open: Open,
    /// Places in the packs that the index does not know, and in all that were searched.
    located: Located,
    /// By number: the pack's directory is in `located`.
    seen: Vec<bool>,
    /// The index was wrong once: it is not asked again.
    doubted: bool,
    /// Packs whose directory could not be had lately: until when that stands, and why.
    lost: HashMap<u32, (Instant, ReadError)>,
    cache: Cache,
}

struct Located(Places);

impl Default for Located {
    fn default() -> Self {
        Self(Places::new(Some(&std::env::temp_dir()), PLACES))
    }
}

impl State {
    /// Keeps the places of a pack's frames; there are so many packs.
    fn learn(&mut self, number: u32, packs: usize, frames: &[FrameInfo]) {
        if self.is_seen(number) {
            return;
        }
        self.located.0.insert(number, frames);
        if self.mend() {
            self.located.0.insert(number, frames);
        }
        self.seen.resize(packs, false);
        self.seen.get_mut(number as usize).into_iter().for_each(|seen| *seen = true);
    }

    /// What is in `located` may be less than was put there: everything is learned anew, in memory.
    fn mend(&mut self) -> bool {
        let is_broken = self.located.0.is_broken();
        if is_broken {
            self.located = Located(Places::new(None, PLACES));
            self.seen.clear();
        }
        is_broken
    }
    fn lost(&mut self, number: u32) -> Option<ReadError> {
        let (until, error) = self.lost.get(&number)?;
        if Instant::now() < *until {
            return Some(error.again());
        }
        self.lost.remove(&number);
        None
    }
    fn is_seen(&self, number: u32) -> bool {
        self.seen.get(number as usize).copied().unwrap_or(false)
    }
}

/// Open packs; those not used longest go first.
#[derive(Default)]
struct Open {
    packs: HashMap<u32, Held>,
    bytes: usize,
    uses: u64,
}

struct Held {
    pack: Arc<OpenPack>,
    bytes: usize,
    used: u64,
}

impl Open {
    fn get(&mut self, number: u32) -> Option<Arc<OpenPack>> {
        self.uses += 1;
        let held = self.packs.get_mut(&number)?;
        held.used = self.uses;
        Some(Arc::clone(&held.pack))
    }
    fn insert(&mut self, number: u32, pack: Arc<OpenPack>) {
        self.uses += 1;
        let frames = &pack.directory.frames;
        let parts: usize = frames.iter().map(|frame| frame.parts.len()).sum();
        let bytes = frames.len() * (size_of::<crate::pack::FrameInfo>() + size_of::<u64>())
            + parts * size_of::<crate::pack::Part>();
        let held = Held { pack, bytes, used: self.uses };
        self.bytes += bytes;
        self.bytes -= self.packs.insert(number, held).map_or(0, |before| before.bytes);
        while self.bytes > OPEN && self.packs.len() > 1 {
            let Some(oldest) = self.packs.iter().min_by_key(|(_, held)| held.used) else { return };
            let oldest = *oldest.0;
            self.bytes -= self.packs.remove(&oldest).map_or(0, |held| held.bytes);
        }
    }
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
        let mut packs: Vec<PackRef> = set.iter().cloned().collect();
        packs.sort_by_key(|pack| pack.id);
        let numbers = (0_u32..).zip(&packs).map(|(number, pack)| (pack.sha256, number)).collect();
        Self {
            keys,
            ids,
            packs,
            numbers,
            source,
            index,
            state: Mutex::default(),
            others: OnceLock::new(),
            asking: Mutex::default(),
            from_others: Taken::default(),
            is_other: false,
        }
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
        self.packs.iter()
    }
    pub fn pack_ref(&self, sha256: &Sha256) -> Option<&PackRef> {
        self.numbered(self.number(sha256)?)
    }
    /// The place of a pack in [`Self::packs`].
    pub(crate) fn number(&self, sha256: &Sha256) -> Option<u32> {
        self.numbers.get(sha256).copied()
    }
    pub(crate) fn numbered(&self, number: u32) -> Option<&PackRef> {
        self.packs.get(number as usize)
    }

    /// Bytes of a pack as they are stored.
    pub fn read(&self, pack: &PackRef, range: Range<u64>) -> Result<bytes::Bytes, ReadError> {
        let wanted = range.end - range.start;
        let source = |source| ReadError::Source { pack: pack.sha256, source };
        let mut bytes = self.source.read(pack, range.clone()).map_err(source)?;
        if bytes.len() as u64 != wanted && self.source.distrust(pack) {
            bytes = self.source.read(pack, range).map_err(source)?;
        }
        if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(damaged(pack, PackError::Short)) }
    }

    /// A pack with its directory; kept for a while.
    pub fn open(&self, pack: &PackRef) -> Result<Arc<OpenPack>, ReadError> {
        let number = self.number(&pack.sha256);
        if let Some(open) = number.and_then(|number| self.state().open.get(number)) {
            return Ok(open);
        }
        if self.is_other
            && let Some(lost) = number.and_then(|number| self.state().lost(number))
        {
            return Err(lost);
        }
        let opened = match self.read_directory(pack) {
            Err(ReadError::Pack { .. }) if self.source.distrust(pack) => self.read_directory(pack),
            other => other,
        };
        if let (Some(number), Err(error)) = (number, &opened)
            && (self.is_other || error.is_loss())
        {
            let until = Instant::now() + if self.is_other { OTHER_LOST } else { LOST };
            self.state().lost.insert(number, (until, error.again()));
        }
        let opened = Arc::new(opened?);
        self.adopt(pack.sha256, &opened);
        Ok(opened)
    }

    fn read_directory(&self, pack: &PackRef) -> Result<OpenPack, ReadError> {
        let read = |range| self.read(pack, range).map_err(Opening::Read);
        let opened = OpenPack::open(&self.keys, pack.kind, pack.length, read);
        let opened = opened.map_err(|error| match error {
            Opening::Read(error) => error,
            Opening::Pack(error) => damaged(pack, error),
        })?;
        if opened.directory.len() != pack.frames {
            return Err(damaged(pack, PackError::Directory));
        }
        Ok(opened)
    }

    /// Takes over a pack of the set that somebody else has opened already.
    pub(crate) fn adopt(&self, pack: Sha256, opened: &Arc<OpenPack>) {
        let Some(number) = self.number(&pack) else { return };
        let mut state = self.state();
        // What the index knows need not be learned, until something is missed.
        if !self.index.as_ref().is_some_and(|index| index.has_pack(&pack)) {
            state.learn(number, self.packs.len(), &opened.directory.frames);
        }
        state.open.insert(number, Arc::clone(opened));
    }

    /// The pack and the number of the frame that is said to hold `id`. What the index says is taken as it is: whoever
    /// reads compares with the pack's own directory ([`OpenPack::holds`]).
    pub fn locate(&self, id: &ChunkId, kind: PackKind) -> Result<(&PackRef, u32), ReadError> {
        if let Some((pack, frame)) = self.opened(id)
            && pack.kind == kind
        {
            return Ok((pack, frame));
        }
        if let Some(index) = self.index.as_ref().filter(|_| !self.state().doubted)
            && let Some(place) = index.chunk(id)
            && let Some(known) = index.pack(place.pack)
            && let Some(pack) = self.pack_ref(&known.sha256)
        {
            return Ok((pack, place.frame));
        }
        self.search(id, kind)
    }

    /// A frame that is likely the one, among the directories that were learned.
    fn opened(&self, id: &ChunkId) -> Option<(&PackRef, u32)> {
        let mut state = self.state();
        let found = state.located.0.find(id, |pack, frame| Some((pack, frame)));
        state.mend();
        let (number, frame) = found?;
        Some((self.numbered(number)?, frame))
    }

    /// All of them, for a chunk may be in several packs, and the packs that were not learned at that moment.
    fn candidates(&self, id: &ChunkId, kind: PackKind) -> (Vec<(u32, u32)>, Vec<u32>) {
        let mut found = Vec::new();
        let mut state = self.state();
        let none: Option<()> = state.located.0.find(id, |pack, frame| {
            found.push((pack, frame));
            None
        });
        debug_assert!(none.is_none());
        state.mend();
        let wanted = |number: &u32| self.numbered(*number).is_some_and(|pack| pack.kind == kind);
        let all = self.numbers.values().copied().filter(wanted);
        (found, all.filter(|number| !state.is_seen(*number)).collect())
    }

    /// Looks into every directory, never at the index. A pack that cannot be read matters only if no other has the
    /// frame.
    fn search(&self, id: &ChunkId, kind: PackKind) -> Result<(&PackRef, u32), ReadError> {
        let mut unreadable = None;
        let (candidates, unseen) = self.candidates(id, kind);
        for (number, at) in candidates {
            let Some(pack) = self.numbered(number).filter(|pack| pack.kind == kind) else {
                continue;
            };
            match self.open(pack) {
                Ok(open) if open.info(at).is_ok_and(|frame| frame.id == *id) => {
                    return Ok((pack, at));
                }
                Ok(_) => {}
                Err(error) => drop(unreadable.get_or_insert(error)),
            }
        }
        for batch in unseen.chunks(SEARCHERS) {
            for (number, found) in self.positions(batch, id) {
                match (found, self.numbered(number)) {
                    (Ok(Some(at)), Some(pack)) => return Ok((pack, at)),
                    (Err(error), _) => drop(unreadable.get_or_insert(error)),
                    _ => {}
                }
            }
        }
        Err(unreadable.unwrap_or(ReadError::Unlocated(*id)))
    }

    /// Where the frame is in each of some packs, which are opened side by side.
    fn positions(&self, batch: &[u32], id: &ChunkId) -> Vec<(u32, Result<Option<u32>, ReadError>)> {
        let look = |number: u32| match self.numbered(number) {
            Some(pack) => (number, self.position(pack, id)),
            None => (number, Ok(None)),
        };
        if let [number] = batch {
            return vec![look(*number)];
        }
        std::thread::scope(|scope| {
            let searchers: Vec<_> =
                batch.iter().map(|number| scope.spawn(move || look(*number))).collect();
            searchers.into_iter().filter_map(|searcher| searcher.join().ok()).collect()
        })
    }

    fn position(&self, pack: &PackRef, id: &ChunkId) -> Result<Option<u32>, ReadError> {
        let number = self.number(&pack.sha256);
        if let Some(lost) = number.and_then(|number| self.state().lost(number)) {
            return Err(lost);
        }
        let open = self.open(pack)?;
        if let Some(number) = number {
            self.state().learn(number, self.packs.len(), &open.directory.frames);
        }
        let at = open.directory.frames.iter().position(|frame| frame.id == *id);
        Ok(at.and_then(|at| u32::try_from(at).ok()))
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
        self.state().doubted = true;
        let (pack, at) = self.search(id, of)?;
        let open = self.open(pack)?;
        if open.holds(at, kind, id) { Ok((pack, open, at)) } else { Err(ReadError::Unlocated(*id)) }
    }

    /// The plaintext of a frame, authenticated and re-identified; from another snapshot's pack if it is lost in its own.
    pub fn frame(&self, kind: FrameKind, id: &ChunkId) -> Result<Arc<Vec<u8>>, ReadError> {
        if let Some(frame) = self.state().cache.frames.get(id) {
            return Ok(Arc::clone(frame));
        }
        match self.own_frame(kind, id) {
            Err(error) => self.instead(kind, id, &error).ok_or(error),
            own => own,
        }
    }

    /// A frame that was lost where it should be, out of another snapshot's pack.
    pub fn instead(&self, kind: FrameKind, id: &ChunkId, lost: &ReadError) -> Option<Arc<Vec<u8>>> {
        if let Some(frame) = self.state().cache.frames.get(id) {
            return Some(Arc::clone(frame));
        }
        let frame = self.others(lost)?.frame(kind, id).ok()?;
        self.state().cache.insert(*id, Arc::clone(&frame));
        self.from_others.frames.fetch_add(1, Ordering::Relaxed);
        self.from_others.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        Some(frame)
    }

    /// Frames that other snapshots' packs gave instead of this one's, and their bytes.
    pub fn from_others(&self) -> (u64, u64) {
        let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        (read(&self.from_others.frames), read(&self.from_others.bytes))
    }

    /// Where another snapshot's packs have a frame that is lost.
    pub(crate) fn find_instead(
        &self,
        kind: FrameKind,
        id: &ChunkId,
        lost: &ReadError,
    ) -> Option<(&PackRef, Arc<OpenPack>, u32)> {
        self.others(lost)?.find(kind, id).ok()
    }

    fn others(&self, lost: &ReadError) -> Option<&Self> {
        if !lost.is_loss() {
            return None;
        }
        if let Some(others) = self.others.get() {
            return Some(others);
        }
        let mut not_before = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.others.get().is_none() && not_before.is_none_or(|then| then <= Instant::now()) {
            match self.source.others() {
                Some(Others { mut packs, source }) => {
                    packs.0.retain(|_, pack| self.number(&pack.sha256).is_none());
                    let (keys, index) = (Arc::clone(&self.keys), self.index.clone());
                    let others = Self { is_other: true, ..Self::new(keys, &packs, source, index) };
                    drop(self.others.set(Box::new(others)));
                }
                None => *not_before = Some(Instant::now() + ASKED),
            }
        }
        self.others.get().map(|others| &**others)
    }

    fn own_frame(&self, kind: FrameKind, id: &ChunkId) -> Result<Arc<Vec<u8>>, ReadError> {
        let (pack, open, at) = self.find(kind, id)?;
        let range = open.range(at).map_err(|error| damaged(pack, error))?;
        let end = match pack.kind {
            PackKind::Meta => self.window_end(&open, at, range.start),
            PackKind::Data => range.end,
        };
        let bytes = self.read(pack, range.start..end)?;
        let mut decoder = Decoder::default();
        let of = (pack, &*open);
        let raw = self.decode_with(&mut decoder, of, at, &bytes, range.start)?;
        let frame = Arc::new(raw.to_vec());
        self.state().cache.insert(*id, Arc::clone(&frame));
        if pack.kind == PackKind::Meta {
            self.read_ahead(&mut decoder, of, at + 1, &bytes, range.start);
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
    fn read_ahead(
        &self,
        decoder: &mut Decoder,
        (pack, open): (&PackRef, &OpenPack),
        from: u32,
        bytes: &[u8],
        start: u64,
    ) {
        for at in from.. {
            let (Ok(info), Ok(range)) = (open.info(at), open.range(at)) else { return };
            if range.end - start > bytes.len() as u64 || info.kind == FrameKind::Pad {
                return;
            }
            let Ok(raw) = self.decode_with(decoder, (pack, open), at, bytes, start) else { return };
            self.state().cache.insert(info.id, Arc::new(raw.to_vec()));
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
        let mut decoder = Decoder::default();
        let raw = self.decode_with(&mut decoder, (pack, open), at, bytes, start)?;
        Ok(Arc::new(raw.to_vec()))
    }

    /// [`Self::decode`] into the buffers of a thread that decodes many. A frame that is wrong in `bytes` is read once
    /// more by itself, if the source has another place for it.
    pub fn decode_with<'d>(
        &self,
        decoder: &'d mut Decoder,
        (pack, open): (&PackRef, &OpenPack),
        at: u32,
        bytes: &[u8],
        start: u64,
    ) -> Result<&'d [u8], ReadError> {
        let codec = match self.decode_into(decoder, (pack, open), at, bytes, start) {
            Err(_) if self.source.distrust(pack) => {
                let range = open.range(at).map_err(|error| damaged(pack, error))?;
                let again = self.read(pack, range.clone())?;
                self.decode_into(decoder, (pack, open), at, &again, range.start)?
            }
            other => other?,
        };
        decoder.content(codec).map_err(|error| damaged(pack, error))
    }

    fn decode_into(
        &self,
        decoder: &mut Decoder,
        (pack, open): (&PackRef, &OpenPack),
        at: u32,
        bytes: &[u8],
        start: u64,
    ) -> Result<Codec, ReadError> {
        let broken = |error| damaged(pack, error);
        let (info, range) = (open.info(at).map_err(broken)?, open.range(at).map_err(broken)?);
        let from = range.start.checked_sub(start).map(|from| from as usize);
        let to = range.end.checked_sub(start).map(|to| to as usize);
        let sealed = from.zip(to).and_then(|(from, to)| bytes.get(from..to));
        let sealed = sealed.ok_or(broken(PackError::Short))?;
        let codec = open.frame_into(decoder, at, sealed).map_err(broken)?;
        let raw = decoder.content(codec).map_err(broken)?;
        if !self.ids.matches(info.kind, &info.id, raw) {
            return Err(ReadError::WrongId(info.id));
        }
        Ok(codec)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::FrameKind;

    fn frames(pack: u32) -> Vec<FrameInfo> {
        let id = |at: u32| {
            let mut id = [7; ChunkId::LEN];
            id[..4].copy_from_slice(&at.to_be_bytes());
            id[8..12].copy_from_slice(&pack.to_be_bytes());
            ChunkId(id)
        };
        let frame = |at| FrameInfo {
            kind: FrameKind::Chunk,
            id: id(at),
            sealed_len: 0,
            raw_len: 0,
            parts: Vec::new(),
        };
        (0..100).map(frame).collect()
    }

    #[test]
    fn places_that_the_disk_does_not_take_stay_in_memory() {
        let nowhere = std::path::Path::new("/nonexistent/folder");
        let located = Located(Places::new(Some(nowhere), 8_192));
        let mut state = State { located, ..State::default() };
        for pack in 0..20 {
            state.learn(pack, 20, &frames(pack));
        }
        for pack in 0..20 {
            assert!(state.is_seen(pack));
            for (at, frame) in (0_u32..).zip(frames(pack)) {
                let found = state.located.0.find(&frame.id, |pack, at| Some((pack, at)));
                assert_eq!(found, Some((pack, at)));
            }
        }
    }
}

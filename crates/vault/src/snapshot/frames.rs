//! Frames by chunk id, out of the packs of one set.
//!
//! Owns where a frame is looked for, and in how many round trips. Invariant: what an index or an earlier look says is a
//! hint that whoever reads compares with the pack's directory. What a lost pack held is looked for in packs of other
//! snapshots ([`PackSource::others`]), under the same keys and ids: nothing else could be handed out from there.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Others, PackSource, ReadError, SourceError, kept::State};
use crate::{
    compress::Codec,
    id::{ChunkId, FileId, FrameKind, IdKeys, Sha256},
    index::ChunkIndex,
    keys::VaultKeys,
    manifest::{PackRef, PackSet},
    pack::{Decoder, FrameInfo, OpenPack, PackError, PackKind},
};

/// Metadata frames are read this many bytes at a time: neighbours in the pack are neighbours in the tree. A pack that
/// is no longer is read whole.
const WINDOW: u64 = 256 << 10;
/// Directories read at once when a frame has to be looked for.
const SEARCHERS: usize = 8;
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

/// Where a frame is said to be.
pub struct Spot<'a> {
    pub pack: &'a PackRef,
    /// Its number in the pack.
    pub frame: u32,
    /// Its sealed bytes in the pack, where somebody knows before the pack's directory is read.
    pub range: Option<Range<u64>>,
}

/// Sealed bytes that were asked for while their pack was opened, so that both were waited for once.
pub struct Early {
    range: Range<u64>,
    bytes: Result<bytes::Bytes, ReadError>,
}

impl Early {
    fn covers(&self, range: &Range<u64>) -> bool {
        self.range.start <= range.start && self.range.end >= range.end
    }

    /// The stretch `range` of the pack, or why it was not read; `None` if it was not asked for.
    pub fn of(&self, range: &Range<u64>) -> Option<Result<bytes::Bytes, ReadError>> {
        let from = |place: u64| (place - self.range.start) as usize;
        // A part does not keep the whole.
        let part = |bytes: &bytes::Bytes| match bytes.get(from(range.start)..from(range.end)) {
            Some(part) if part.len() < bytes.len() => bytes::Bytes::copy_from_slice(part),
            _ => bytes.clone(),
        };
        let told = || self.bytes.as_ref().map(part).map_err(ReadError::again);
        self.covers(range).then(told)
    }
}

/// Frames, and their bytes.
#[derive(Default)]
struct Taken {
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Taken {
    fn add(&self, bytes: usize) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
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
        match self.read_from(None, pack, range.clone()) {
            Err(error @ ReadError::Pack { .. }) => {
                let again =
                    self.elsewhere(pack, |place| self.read_from(place, pack, range.clone()));
                again.ok_or(error)
            }
            other => other,
        }
    }

    /// The same from one place of the source, or from wherever it reads.
    fn read_from(
        &self,
        place: Option<u8>,
        pack: &PackRef,
        range: Range<u64>,
    ) -> Result<bytes::Bytes, ReadError> {
        let wanted = range.end - range.start;
        let bytes = match place {
            None => self.source.read(pack, range),
            Some(place) => self.source.read_at(place, pack, range),
        };
        let bytes = bytes.map_err(|source| ReadError::Source { pack: pack.sha256, source })?;
        if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(damaged(pack, PackError::Short)) }
    }

    /// What `attempt` comes to with the first place of a pack that gives what it should.
    fn elsewhere<T>(
        &self,
        pack: &PackRef,
        mut attempt: impl FnMut(Option<u8>) -> Result<T, ReadError>,
    ) -> Option<T> {
        (0..self.source.places(pack)).find_map(|place| {
            let done = attempt(Some(place)).ok()?;
            self.source.prefer(place, pack);
            Some(done)
        })
    }

    /// What to read of a pack while it is opened, if it has to be read for that: all of a small one, or what is told.
    pub(crate) fn early(
        &self,
        pack: &PackRef,
        told: impl FnOnce() -> Option<Range<u64>>,
    ) -> Option<Range<u64>> {
        let number = self.number(&pack.sha256)?;
        let is_known = {
            let mut state = self.state();
            state.opened(number).is_some() || state.lost(number).is_some()
        };
        let whole = 0..pack.length;
        if is_known { None } else { Some(whole).filter(|all| all.end <= WINDOW).or_else(told) }
    }

    /// Opens a pack and, if it has to be read for that, a stretch of it in the same round trip. What was read early was
    /// compared with nothing: it may be another frame's, or none.
    pub fn open_reading(
        &self,
        pack: &PackRef,
        range: Option<Range<u64>>,
    ) -> (Result<Arc<OpenPack>, ReadError>, Option<Early>) {
        self.open_with(pack, self.early(pack, || range))
    }

    /// Opens a pack and, if a stretch of it is to be read early, does that in the same round trip.
    pub(crate) fn open_with(
        &self,
        pack: &PackRef,
        early: Option<Range<u64>>,
    ) -> (Result<Arc<OpenPack>, ReadError>, Option<Early>) {
        let Some(range) = early else { return (self.open(pack), None) };
        let read = || self.read(pack, range.clone());
        if range == (0..pack.length) {
            let early = Early { bytes: read(), range };
            return (self.open_from(pack, Some(&early)), Some(early));
        }
        let (opened, bytes) = std::thread::scope(|scope| {
            let reading = scope.spawn(read);
            (self.open(pack), reading.join())
        });
        (opened, bytes.ok().map(|bytes| Early { range, bytes }))
    }

    /// A pack with its directory; kept for a while.
    pub fn open(&self, pack: &PackRef) -> Result<Arc<OpenPack>, ReadError> {
        self.open_from(pack, None)
    }

    fn open_from(&self, pack: &PackRef, whole: Option<&Early>) -> Result<Arc<OpenPack>, ReadError> {
        let number = self.number(&pack.sha256);
        if let Some(open) = number.and_then(|number| self.state().opened(number)) {
            return Ok(open);
        }
        if let Some(lost) = number.and_then(|number| self.state().lost(number)) {
            return Err(lost);
        }
        let opened = match self.read_directory(pack, whole, None) {
            Err(error @ ReadError::Pack { .. }) => {
                let again = self.elsewhere(pack, |place| self.read_directory(pack, None, place));
                again.ok_or(error)
            }
            other => other,
        };
        if let (Some(number), Err(error)) = (number, &opened)
            && (self.is_other || error.is_loss())
        {
            let until = Instant::now() + if self.is_other { OTHER_LOST } else { LOST };
            self.state().lost.insert(number, (until, error.again()));
        }
        let opened = Arc::new(opened?);
        if let Some(number) = number {
            let mut state = self.state();
            self.note(&mut state, number, pack.sha256, &opened);
            state.open.insert(number, Arc::clone(&opened));
        }
        Ok(opened)
    }

    fn read_directory(
        &self,
        pack: &PackRef,
        whole: Option<&Early>,
        place: Option<u8>,
    ) -> Result<OpenPack, ReadError> {
        let read = |range| {
            let early = whole.and_then(|whole| whole.of(&range));
            let early = early.filter(|early| !early.as_ref().is_err_and(is_partial));
            early.unwrap_or_else(|| self.read_from(place, pack, range)).map_err(Opening::Read)
        };
        let known = self.index.as_ref().and_then(|index| index.known_pack(&pack.sha256));
        let open = |front| OpenPack::open(&self.keys, pack.kind, pack.length, front, read);
        let opened = match open(known.and_then(|known| known.front())) {
            // What ends too early has its beginning all the same.
            Err(Opening::Read(error)) if is_partial(&error) => {
                open(Some(0)).map_err(|_| Opening::Read(error))
            }
            other => other,
        };
        let opened = opened.map_err(|error| match error {
            Opening::Read(error) => error,
            Opening::Pack(error) => damaged(pack, error),
        })?;
        if opened.directory.len() != pack.frames {
            return Err(damaged(pack, PackError::Directory));
        }
        Ok(opened)
    }

    /// Takes over a pack of the set that somebody else has opened already, and keeps.
    pub(crate) fn adopt(&self, pack: Sha256, opened: &Arc<OpenPack>) {
        let Some(number) = self.number(&pack) else { return };
        let mut state = self.state();
        self.note(&mut state, number, pack, opened);
        state.adopted.insert(number, Arc::clone(opened));
    }

    /// What the index knows need not be learned, until something is missed.
    fn note(&self, state: &mut State, number: u32, pack: Sha256, opened: &OpenPack) {
        if !self.index.as_ref().is_some_and(|index| index.has_pack(&pack)) {
            state.learn(number, self.packs.len(), &opened.directory.frames, self.is_other);
        }
    }

    /// The frame that is said to hold `id`. What the index says is taken as it is: whoever reads compares with the
    /// pack's own directory ([`OpenPack::holds`]).
    pub fn locate(&self, id: &ChunkId, kind: PackKind) -> Result<Spot<'_>, ReadError> {
        if let Some((pack, frame)) = self.opened(id)
            && pack.kind == kind
        {
            return Ok(Spot { pack, frame, range: None });
        }
        if let Some(spot) = self.told(id) {
            return Ok(spot);
        }
        let (pack, frame) = self.search(id, kind)?;
        Ok(Spot { pack, frame, range: None })
    }

    /// Where the index says a frame is, until it was wrong once.
    pub(crate) fn told(&self, id: &ChunkId) -> Option<Spot<'_>> {
        let index = self.index.as_ref().filter(|_| !self.state().doubted)?;
        let place = index.chunk(id)?;
        let pack = self.pack_ref(&index.pack(place.pack)?.sha256)?;
        let from = u64::from(place.offset);
        let range = from..from + u64::from(place.length);
        let range = (range.end <= pack.length).then_some(range);
        Some(Spot { pack, frame: place.frame, range })
    }

    /// A frame that is likely the one, among the directories that were learned.
    fn opened(&self, id: &ChunkId) -> Option<(&PackRef, u32)> {
        let mut state = self.state();
        let found = state.located.find(id, |pack, frame| Some((pack, frame)));
        state.mend();
        let (number, frame) = found?;
        Some((self.numbered(number)?, frame))
    }

    /// Where a frame may be, among the directories that were learned, for a chunk may be in several packs; and the packs
    /// of a kind that were not learned at that moment.
    fn candidates(&self, id: &ChunkId, unseen: Option<PackKind>) -> (Vec<(u32, u32)>, Vec<u32>) {
        let mut found = Vec::new();
        let mut state = self.state();
        let none: Option<()> = state.located.find(id, |pack, frame| {
            found.push((pack, frame));
            None
        });
        debug_assert!(none.is_none());
        state.mend();
        (found, unseen.map_or_else(Vec::new, |kind| self.unseen(&mut state, kind)))
    }

    /// Packs of a kind that were not learned, those that were lost lately included.
    fn unseen(&self, state: &mut State, kind: PackKind) -> Vec<u32> {
        let wanted = |number: &u32| self.numbered(*number).is_some_and(|pack| pack.kind == kind);
        state.unseen(self.packs.len()).iter().copied().filter(wanted).collect()
    }

    /// Looks into every directory, never at the index. A pack that cannot be read matters only if no other has the
    /// frame.
    fn search(&self, id: &ChunkId, kind: PackKind) -> Result<(&PackRef, u32), ReadError> {
        let mut unreadable = None;
        let (candidates, unseen) = self.candidates(id, Some(kind));
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
        let position = |open: &OpenPack| position(open, id);
        for batch in unseen.chunks(SEARCHERS) {
            for (number, found) in self.look(batch, &position) {
                match (found, self.numbered(number)) {
                    (Ok(Some(at)), Some(pack)) => return Ok((pack, at)),
                    (Err(error), _) => drop(unreadable.get_or_insert(error)),
                    _ => {}
                }
            }
        }
        Err(unreadable.unwrap_or(ReadError::Unlocated(*id)))
    }

    /// What is to be found in each of some packs, which are opened and learned side by side.
    fn look<T: Send>(
        &self,
        batch: &[u32],
        find: &(impl Fn(&OpenPack) -> Option<T> + Sync),
    ) -> Vec<(u32, Result<Option<T>, ReadError>)> {
        let look = |number: u32| match self.numbered(number) {
            Some(pack) => (number, self.learned(number, pack).map(|open| find(&open))),
            None => (number, Ok(None)),
        };
        let (mut found, mut open) = (Vec::new(), Vec::new());
        for number in batch.iter().copied() {
            match self.state().lost(number) {
                Some(lost) => found.push((number, Err(lost))),
                None => open.push(number),
            }
        }
        if let [number] = open[..] {
            found.push(look(number));
        } else {
            std::thread::scope(|scope| {
                let searchers: Vec<_> =
                    open.into_iter().map(|number| scope.spawn(move || look(number))).collect();
                found.extend(searchers.into_iter().filter_map(|searcher| searcher.join().ok()));
            });
        }
        found
    }

    fn learned(&self, number: u32, pack: &PackRef) -> Result<Arc<OpenPack>, ReadError> {
        let open = self.open(pack)?;
        self.state().learn(number, self.packs.len(), &open.directory.frames, self.is_other);
        Ok(open)
    }

    /// The first bundle with a small file that `fits`, by its id and the place in it: by the directories of every data
    /// pack.
    fn find_file<T>(
        &self,
        id: &FileId,
        mut fits: impl FnMut(&ChunkId, Range<usize>) -> Option<T>,
    ) -> Option<T> {
        let within = |frame: &FrameInfo| {
            let mut from = 0;
            frame.parts.iter().find_map(|part| {
                let range = from..from + part.length as usize;
                from = range.end;
                (part.file == *id).then_some((frame.id, range))
            })
        };
        let (found, unseen) = {
            let mut found = Vec::new();
            let mut state = self.state();
            let none: Option<()> = state.files.find_file(id, |pack, frame| {
                found.push((pack, frame));
                None
            });
            debug_assert!(none.is_none());
            state.mend();
            let mut unseen = self.unseen(&mut state, PackKind::Data);
            unseen.retain(|number| state.lost(*number).is_none());
            (found, unseen)
        };
        let known = found.into_iter().find_map(|(number, at)| {
            let open = self.open(self.numbered(number)?).ok()?;
            let (bundle, range) = within(open.info(at).ok()?)?;
            fits(&bundle, range)
        });
        known.or_else(|| {
            unseen.chunks(SEARCHERS).find_map(|batch| {
                let looked =
                    self.look(batch, &|open| open.directory.frames.iter().find_map(within));
                let mut found = looked.into_iter().filter_map(|(_, found)| found.ok().flatten());
                found.find_map(|(bundle, range)| fits(&bundle, range))
            })
        })
    }

    /// The open pack and the number of the frame that holds `id` by the pack's own directory: a wrong index costs a
    /// search.
    pub(crate) fn find(
        &self,
        kind: FrameKind,
        id: &ChunkId,
    ) -> Result<(&PackRef, Arc<OpenPack>, u32), ReadError> {
        let Spot { pack, frame, .. } = self.locate(id, home(kind))?;
        let open = self.open(pack)?;
        if open.holds(frame, kind, id) { Ok((pack, open, frame)) } else { self.find_anew(kind, id) }
    }

    /// Where a frame is that is not where it was said to be.
    fn find_anew(
        &self,
        kind: FrameKind,
        id: &ChunkId,
    ) -> Result<(&PackRef, Arc<OpenPack>, u32), ReadError> {
        self.state().doubted = true;
        let (pack, at) = self.search(id, home(kind))?;
        let open = self.open(pack)?;
        if open.holds(at, kind, id) { Ok((pack, open, at)) } else { Err(ReadError::Unlocated(*id)) }
    }

    /// The plaintext of a frame, authenticated and re-identified; from another snapshot's pack if it is lost in its own.
    pub fn frame(&self, kind: FrameKind, id: &ChunkId) -> Result<Arc<Vec<u8>>, ReadError> {
        if let Some(frame) = self.state().cache.frames.get(id) {
            return Ok(Arc::clone(frame));
        }
        match self.own_frame(kind, id) {
            Err(error) => {
                let other = self.another(kind, id, &error);
                other.or_else(|| self.instead(kind, id, &error)).ok_or(error)
            }
            own => own,
        }
    }

    /// A frame that is lost in one pack, out of another one of these that has it too: as far as their directories were
    /// learned, and of other snapshots' packs in all of them.
    fn another(&self, kind: FrameKind, id: &ChunkId, lost: &ReadError) -> Option<Arc<Vec<u8>>> {
        if !lost.is_loss() {
            return None;
        }
        let read = |(number, at): (u32, u32)| {
            let pack = self.numbered(number).filter(|pack| lost.pack() != Some(pack.sha256))?;
            let open = self.open(pack).ok()?;
            let there = open.holds(at, kind, id);
            there.then(|| self.read_frame((pack, &open), at, None).ok()).flatten()
        };
        let position = |open: &OpenPack| position(open, id);
        let (known, unseen) = self.candidates(id, self.is_other.then_some(home(kind)));
        known.into_iter().find_map(read).or_else(|| {
            unseen.chunks(SEARCHERS).find_map(|batch| {
                let found = self.look(batch, &position).into_iter();
                let mut found = found.filter_map(|(number, at)| Some((number, at.ok()??)));
                found.find_map(read)
            })
        })
    }

    /// A frame that was lost where it should be, out of another snapshot's pack.
    pub fn instead(&self, kind: FrameKind, id: &ChunkId, lost: &ReadError) -> Option<Arc<Vec<u8>>> {
        if let Some(frame) = self.state().cache.frames.get(id) {
            return Some(Arc::clone(frame));
        }
        let frame = self.others(lost)?.frame(kind, id).ok()?;
        self.state().cache.insert(*id, Arc::clone(&frame));
        self.from_others.add(frame.len());
        Some(frame)
    }

    /// A small file whose bundle is lost, out of any bundle of another snapshot: files that changed beside it, and it
    /// was stored anew among others.
    pub fn file_instead(&self, id: &FileId, lost: &ReadError) -> Option<Vec<u8>> {
        let others = self.others(lost)?;
        let found = others.find_file(id, |bundle, range| {
            let frame = others.frame(FrameKind::Bundle, bundle).ok()?;
            let bytes = frame.get(range).filter(|bytes| self.ids.file(bytes) == *id)?;
            Some(bytes.to_vec())
        })?;
        self.from_others.add(found.len());
        Some(found)
    }

    /// Whether [`Self::file_instead`] would look into a bundle that says it has the file.
    pub(crate) fn has_file_instead(&self, id: &FileId, lost: &ReadError) -> bool {
        self.others(lost).is_some_and(|others| others.find_file(id, |_, _| Some(())).is_some())
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
        let Spot { pack, frame, range } = self.locate(id, home(kind))?;
        let window = |range: Range<u64>| match pack.kind {
            PackKind::Meta => range.start..range.end.max(pack.length.min(range.start + WINDOW)),
            PackKind::Data => range,
        };
        let (open, early) = self.open_reading(pack, range.map(window));
        let open = open?;
        if open.holds(frame, kind, id) {
            return self.read_frame((pack, &open), frame, early);
        }
        let (pack, open, frame) = self.find_anew(kind, id)?;
        self.read_frame((pack, &open), frame, None)
    }

    fn read_frame(
        &self,
        (pack, open): (&PackRef, &OpenPack),
        at: u32,
        early: Option<Early>,
    ) -> Result<Arc<Vec<u8>>, ReadError> {
        let broken = |error| damaged(pack, error);
        let (id, range) = (open.info(at).map_err(broken)?.id, open.range(at).map_err(broken)?);
        let (start, bytes) = match early.filter(|early| early.covers(&range)) {
            Some(early) => (early.range.start, early.bytes),
            None => {
                let end = match pack.kind {
                    PackKind::Meta => self.window_end(open, at, range.start),
                    PackKind::Data => range.end,
                };
                (range.start, self.read(pack, range.start..end))
            }
        };
        let (start, bytes) = match bytes {
            // What ends too early may have this one all the same.
            Err(error) if is_partial(&error) => (range.start, self.read(pack, range)?),
            other => (start, other?),
        };
        let mut decoder = Decoder::default();
        let of = (pack, open);
        let raw = self.decode_with(&mut decoder, of, at, &bytes, start)?;
        let frame = Arc::new(raw.to_vec());
        self.state().cache.insert(id, Arc::clone(&frame));
        if pack.kind == PackKind::Meta {
            let first = if start == 0 { 0 } else { at + 1 };
            self.read_ahead(&mut decoder, of, first, &bytes, start);
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
            if self.state().cache.frames.contains_key(&info.id) {
                continue;
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
    /// more by itself, from each place the source has.
    pub fn decode_with<'d>(
        &self,
        decoder: &'d mut Decoder,
        (pack, open): (&PackRef, &OpenPack),
        at: u32,
        bytes: &[u8],
        start: u64,
    ) -> Result<&'d [u8], ReadError> {
        let codec = match self.decode_into(decoder, (pack, open), at, bytes, start) {
            Err(error) => {
                let range = open.range(at).map_err(|error| damaged(pack, error))?;
                let again = self.elsewhere(pack, |place| {
                    let again = self.read_from(place, pack, range.clone())?;
                    self.decode_into(decoder, (pack, open), at, &again, range.start)
                });
                again.ok_or(error)?
            }
            Ok(codec) => codec,
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

/// The number of a frame in a pack.
fn position(open: &OpenPack, id: &ChunkId) -> Option<u32> {
    let at = open.directory.frames.iter().position(|frame| frame.id == *id)?;
    u32::try_from(at).ok()
}

/// Less is there than was asked for, or what was asked for is not all right: a part of it may be.
const fn is_partial(error: &ReadError) -> bool {
    match error {
        ReadError::Pack { source, .. } => matches!(source, PackError::Short),
        ReadError::Source { source, .. } => matches!(source, SourceError::Wrong),
        _ => false,
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

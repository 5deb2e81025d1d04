//! Decoded frames for many readers at once: bounded caches, windows of packs, reading ahead.
//!
//! A frame met alone is fetched alone. Where a second one of the same stretch is asked for, the stretch is fetched
//! whole and the next one after it, and the frames that follow are decoded before they are asked for: that is what
//! reading files one after the other looks like. Invariant: what is handed out was authenticated and re-identified;
//! what failed is not kept, so the next reader tries again.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use bytes::Bytes;
use vault::{
    id::{ChunkId, FrameKind, Sha256},
    manifest::PackRef,
    pack::{OpenPack, PackKind},
    snapshot::{Early, Frames, ReadError, Spot},
};

/// Bytes of a pack that are fetched together.
const WINDOW: u64 = 2 << 20;
/// Decoded frames kept.
const DECODED: usize = 64 << 20;
/// Fetched windows kept.
const SEALED: usize = 48 << 20;
/// Frames decoded before they are asked for.
const AHEAD: u32 = 2;
/// Threads that read ahead.
const HELPERS: usize = 2;
/// Stretches remembered as touched.
const WARM: usize = 1_024;

/// A value that one thread makes and others wait for.
struct Slot<T>(OnceLock<Result<T, Arc<ReadError>>>);

/// Values by key, the oldest going first when they weigh too much. Those being made weigh nothing yet.
struct Cache<K, T> {
    slots: HashMap<K, (Arc<Slot<T>>, usize)>,
    order: VecDeque<K>,
    weight: usize,
    most: usize,
}

impl<K: Copy + Eq + Hash, T> Cache<K, T> {
    fn new(most: usize) -> Self {
        Self { slots: HashMap::new(), order: VecDeque::new(), weight: 0, most }
    }

    fn slot(&mut self, key: K) -> Arc<Slot<T>> {
        let fresh = || (Arc::new(Slot(OnceLock::new())), 0);
        Arc::clone(&self.slots.entry(key).or_insert_with(fresh).0)
    }

    fn has(&self, key: K) -> bool {
        self.slots.contains_key(&key)
    }

    fn remove(&mut self, key: K) {
        self.weight -= self.slots.remove(&key).map_or(0, |(_, weight)| weight);
        self.order.retain(|known| *known != key);
    }

    /// The value of this slot is there: weighed once, or taken out because it is an error.
    fn settle(&mut self, key: K, made: &Arc<Slot<T>>, weight: Option<usize>) {
        let Some((slot, known)) = self.slots.get_mut(&key) else { return };
        if !Arc::ptr_eq(slot, made) || *known > 0 {
            return;
        }
        let Some(weight) = weight else {
            self.slots.remove(&key);
            return;
        };
        *known = weight.max(1);
        self.weight += *known;
        self.order.push_back(key);
        while self.weight > self.most && self.order.len() > 1 {
            let Some(oldest) = self.order.pop_front() else { return };
            self.weight -= self.slots.remove(&oldest).map_or(0, |(_, weight)| weight);
        }
    }
}

/// A window of a pack: the pack and the number of the window.
type WindowKey = (Sha256, u64);
/// Where it begins in the pack, and its bytes as they are stored.
type Window = (u64, Bytes);

struct State {
    decoded: Cache<ChunkId, Arc<Vec<u8>>>,
    sealed: Cache<WindowKey, Window>,
    /// Windows in which a frame was asked for.
    warm: VecDeque<WindowKey>,
}

/// A frame by its place.
#[derive(Clone)]
struct At {
    frames: Arc<Frames>,
    pack: PackRef,
    open: Arc<OpenPack>,
    frame: u32,
}

type Task = Box<dyn FnOnce() + Send>;

/// The caches and the threads that fill them ahead of time.
pub struct Loader {
    state: Mutex<State>,
    tasks: SyncSender<Task>,
}

type Loaded = Result<Arc<Vec<u8>>, Arc<ReadError>>;

impl Loader {
    /// Starts the helpers; they end with the loader.
    pub fn start() -> Arc<Self> {
        let (tasks, waiting) = sync_channel::<Task>(HELPERS * 4);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..HELPERS {
            let waiting = Arc::clone(&waiting);
            std::thread::spawn(move || help(&waiting));
        }
        let state = State {
            decoded: Cache::new(DECODED),
            sealed: Cache::new(SEALED),
            warm: VecDeque::new(),
        };
        Arc::new(Self { state: Mutex::new(state), tasks })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plaintext of a data frame.
    pub fn frame(self: &Arc<Self>, frames: &Arc<Frames>, kind: FrameKind, id: ChunkId) -> Loaded {
        let slot = {
            let mut state = self.state();
            let slot = state.decoded.slot(id);
            if let Some(Ok(frame)) = slot.0.get() {
                return Ok(Arc::clone(frame));
            }
            slot
        };
        let mut is_ours = false;
        let make = || {
            is_ours = true;
            self.make(frames, kind, &id)
        };
        let made = slot.0.get_or_init(make).clone();
        self.state().decoded.settle(id, &slot, made.as_ref().ok().map(|frame| frame.len()));
        // What somebody else met may have passed before we asked.
        if made.is_err() && !is_ours { self.make(frames, kind, &id) } else { made }
    }

    fn make(self: &Arc<Self>, frames: &Arc<Frames>, kind: FrameKind, id: &ChunkId) -> Loaded {
        let own = self.make_own(frames, kind, id);
        own.or_else(|error| frames.instead(kind, id, &error).ok_or(error))
    }

    fn make_own(self: &Arc<Self>, frames: &Arc<Frames>, kind: FrameKind, id: &ChunkId) -> Loaded {
        let Spot { pack, frame, range } = frames.locate(id, PackKind::Data).map_err(Arc::new)?;
        let (open, early) = frames.open_reading(pack, range);
        let open = open.map_err(Arc::new)?;
        if !open.holds(frame, kind, id) {
            // The index was wrong: the packs' own directories are searched.
            return frames.frame(kind, id).map_err(Arc::new);
        }
        let at = At { frames: Arc::clone(frames), pack: pack.clone(), open, frame };
        let number = at.window()?;
        if !self.is_worth_a_window(&at, number) {
            return at.alone(early);
        }
        let window = self.window(&at, number)?;
        self.read_ahead(&at, number);
        self.decode(&at, number, &window)
    }

    /// A frame out of its window. One that is damaged, on the way or in the store, is asked for once more, and the
    /// window not kept for the next reader.
    fn decode(&self, at: &At, number: u64, (start, bytes): &Window) -> Loaded {
        at.frames.decode(&at.pack, &at.open, at.frame, bytes, *start).or_else(|_| {
            self.state().sealed.remove((at.pack.sha256, number));
            at.alone(None)
        })
    }

    /// Whether others of this window were asked for, or the one before it was: somebody reads on.
    fn is_worth_a_window(&self, at: &At, number: u64) -> bool {
        let key = (at.pack.sha256, number);
        let mut state = self.state();
        if state.warm.contains(&key) {
            return true;
        }
        let before = number.checked_sub(1).map(|before| (at.pack.sha256, before));
        let reads_on = before.is_some_and(|before| state.warm.contains(&before));
        state.warm.push_back(key);
        if state.warm.len() > WARM {
            state.warm.pop_front();
        }
        reads_on || state.sealed.has(key)
    }

    fn window(&self, at: &At, number: u64) -> Result<Window, Arc<ReadError>> {
        let key = (at.pack.sha256, number);
        let slot = self.state().sealed.slot(key);
        let fetch = || {
            let range = at.window_range(number);
            let start = range.start;
            let bytes = at.frames.read(&at.pack, range).map_err(Arc::new)?;
            Ok((start, bytes))
        };
        let made = slot.0.get_or_init(fetch).clone();
        self.state().sealed.settle(key, &slot, made.as_ref().ok().map(|(_, bytes)| bytes.len()));
        made
    }

    /// The next window, and the next frames of this one.
    fn read_ahead(self: &Arc<Self>, at: &At, number: u64) {
        let next = number + 1;
        let exists = !at.window_range(next).is_empty();
        let fetched = !exists || self.state().sealed.has((at.pack.sha256, next));
        if !fetched {
            let (loader, at) = (Arc::clone(self), at.clone());
            self.offer(Box::new(move || drop(loader.window(&at, next))));
        }
        for frame in at.frame + 1..=at.frame.saturating_add(AHEAD) {
            let Ok(info) = at.open.info(frame) else { return };
            let (id, kind) = (info.id, info.kind);
            let content = matches!(kind, FrameKind::Chunk | FrameKind::Bundle);
            if !content || self.state().decoded.has(id) {
                continue;
            }
            let (loader, at) = (Arc::clone(self), At { frame, ..at.clone() });
            self.offer(Box::new(move || loader.decode_ahead(&at, id)));
        }
    }

    fn decode_ahead(self: &Arc<Self>, at: &At, id: ChunkId) {
        let Ok(number) = at.window() else { return };
        let slot = self.state().decoded.slot(id);
        let made = slot.0.get_or_init(|| {
            let own = self.window(at, number).and_then(|window| self.decode(at, number, &window));
            let kind = at.open.info(at.frame).map_or(FrameKind::Chunk, |info| info.kind);
            own.or_else(|error| at.frames.instead(kind, &id, &error).ok_or(error))
        });
        let weight = made.as_ref().ok().map(|frame| frame.len());
        self.state().decoded.settle(id, &slot, weight);
    }

    /// Full hands mean that reading ahead would not be ahead.
    fn offer(&self, task: Task) {
        let _ = self.tasks.try_send(task);
    }
}

impl At {
    fn range(&self) -> Result<std::ops::Range<u64>, Arc<ReadError>> {
        let pack = self.pack.sha256;
        let told = |source| Arc::new(ReadError::Pack { pack, source });
        self.open.range(self.frame).map_err(told)
    }

    fn window(&self) -> Result<u64, Arc<ReadError>> {
        Ok(self.range()?.start / WINDOW)
    }

    /// The frame, read by itself, early or now.
    fn alone(&self, early: Option<Early>) -> Loaded {
        let range = self.range()?;
        let start = range.start;
        let bytes = match early.and_then(|early| early.of(&range)) {
            Some(bytes) => bytes,
            None => self.frames.read(&self.pack, range),
        };
        let bytes = bytes.map_err(Arc::new)?;
        self.frames.decode(&self.pack, &self.open, self.frame, &bytes, start).map_err(Arc::new)
    }

    /// From the first frame that begins in the window to the end of the last one.
    fn window_range(&self, number: u64) -> std::ops::Range<u64> {
        let first_from = |place: u64| {
            let (mut low, mut high) = (0, self.open.directory.len());
            while low < high {
                let middle = low + (high - low) / 2;
                let before = self.open.range(middle).is_ok_and(|range| range.start < place);
                if before { low = middle + 1 } else { high = middle }
            }
            low
        };
        let (first, last) = (first_from(number * WINDOW), first_from((number + 1) * WINDOW));
        let start = self.open.range(first).map(|range| range.start);
        let end = last.checked_sub(1).and_then(|last| self.open.range(last).ok());
        match (start, end) {
            (Ok(start), Some(end)) if start < end.end => start..end.end,
            _ => 0..0,
        }
    }
}

fn help(waiting: &Mutex<Receiver<Task>>) {
    loop {
        let task = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(task) = task else { return };
        task();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(cache: &mut Cache<u8, u8>, key: u8, weight: usize) {
        let slot = cache.slot(key);
        slot.0.get_or_init(|| Ok(key));
        cache.settle(key, &slot, Some(weight));
        cache.settle(key, &slot, Some(weight));
    }

    #[test]
    fn the_oldest_go_when_a_cache_is_full_and_nothing_is_weighed_twice() {
        let mut cache = Cache::new(10);
        for key in 0..5 {
            fill(&mut cache, key, 4);
        }
        assert_eq!(cache.weight, 8);
        assert!(!cache.has(2) && cache.has(3) && cache.has(4));
        cache.remove(3);
        cache.remove(3);
        assert_eq!((cache.weight, cache.order.len()), (4, 1));
    }

    #[test]
    fn a_failure_is_not_kept() {
        let mut cache: Cache<u8, u8> = Cache::new(10);
        let slot = cache.slot(1);
        slot.0.get_or_init(|| Err(Arc::new(ReadError::NotAFile)));
        cache.settle(1, &slot, None);
        assert!(!cache.has(1));
    }
}

//! Any number of pieces, read in windows: one thread names what is wanted, fetchers read packs, workers decode.
//!
//! A window of wants is sorted by pack and frame, so within it every range of a pack is read once and in order.
//! Invariant: at most two windows of wants and [`Limits::buffers`] bytes of packs are in memory; whoever names more
//! waits. Every want is delivered exactly once, unless the sink says stop. It must not know what wants are for.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{Delivery, RUN, alone, joins, runs, stretch};
use crate::{
    id::{ChunkId, FileId, FrameKind},
    manifest::PackRef,
    pack::{Decoder, OpenPack, PackKind},
    snapshot::{Early, Frames, ReadError, SourceError, Spot},
};

/// A stretch of a file that comes out of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want<T> {
    /// Whom the bytes are for.
    pub to: T,
    /// Offset in the file.
    pub offset: u64,
    pub length: u32,
    /// Offset in the frame's plaintext.
    pub at: u32,
    pub kind: FrameKind,
    pub id: ChunkId,
    /// The own id of a small file in a bundle.
    pub own: Option<FileId>,
}

/// Takes what was read. Called by several threads.
pub trait Sink<T>: Sync {
    /// The bytes of a want, or why there are none.
    fn deliver(&self, want: Want<T>, bytes: Delivery<'_>);
    /// What is not read yet need not be.
    fn is_stopped(&self) -> bool;
}

/// How much may be under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Wants in a window.
    pub pieces: usize,
    /// Bytes of packs read and not decoded yet. One read is let through whatever its size.
    pub buffers: u64,
    /// Reads at once.
    pub fetchers: usize,
    /// Decoding threads.
    pub workers: usize,
}

impl Limits {
    /// For a machine with so many cores. Three windows of small files are about 15 MiB with what is known of each.
    pub const fn for_cores(cores: usize) -> Self {
        Self { pieces: 8 << 10, buffers: 12 << 20, fetchers: 6, workers: cores }
    }
}

/// Figures of what is and was under way.
#[derive(Debug, Default)]
pub struct Gauge {
    /// Most wants there were at once.
    pub most_pieces: AtomicU64,
    /// Most bytes of packs there were at once.
    pub most_buffered: AtomicU64,
    /// Reads of packs, their directories not counted.
    pub reads: AtomicU64,
    /// Bytes of packs read.
    pub read_bytes: AtomicU64,
}

/// Wants of one frame.
type Wanted<T> = (u32, Vec<Want<T>>);

/// What is wanted of one pack, in order of frames.
struct PackJob<T> {
    pack: u32,
    frames: Vec<Wanted<T>>,
}

/// A stretch of a pack, to be decoded.
struct Fetched<T> {
    pack: u32,
    open: Arc<OpenPack>,
    range: Range<u64>,
    bytes: Result<Bytes, ReadError>,
    frames: Vec<Wanted<T>>,
}

enum Work<T> {
    Fetched(Fetched<T>),
    /// The index was wrong about these: their packs are found by the directories.
    Elsewhere(Vec<Want<T>>),
}

struct Line<T> {
    jobs: VecDeque<PackJob<T>>,
    work: VecDeque<Work<T>>,
    /// Wants handed over and not delivered yet.
    pieces: usize,
    buffered: u64,
    /// No more jobs come.
    fed: bool,
    fetchers: usize,
    /// A thread ended unexpectedly: nobody waits for it.
    broken: bool,
}

struct Shared<'a, T, S> {
    frames: &'a Frames,
    limits: Limits,
    gauge: &'a Gauge,
    sink: &'a S,
    line: Mutex<Line<T>>,
    changed: Condvar,
}

/// Reads whatever `feed` pushes and gives it to `sink`; returns when all of it is delivered.
pub fn run<T: Send, S: Sink<T>, R>(
    frames: &Frames,
    limits: Limits,
    gauge: &Gauge,
    sink: &S,
    feed: impl FnOnce(&mut Feed<'_, '_, T, S>) -> R,
) -> R {
    let line = Line {
        jobs: VecDeque::new(),
        work: VecDeque::new(),
        pieces: 0,
        buffered: 0,
        fed: false,
        fetchers: limits.fetchers.max(1),
        broken: false,
    };
    let (line, changed) = (Mutex::new(line), Condvar::new());
    let shared = Shared { frames, limits, gauge, sink, line, changed };
    std::thread::scope(|scope| {
        for _ in 0..limits.fetchers.max(1) {
            scope.spawn(|| {
                let _watch = Watch(&shared);
                shared.fetch();
                shared.line().fetchers -= 1;
                shared.changed.notify_all();
            });
        }
        for _ in 0..limits.workers.max(1) {
            scope.spawn(|| {
                let _watch = Watch(&shared);
                shared.decode();
            });
        }
        // However the feed ends, the threads must.
        let end = End(&shared);
        let mut feeding = Feed { shared: &shared, window: Vec::new() };
        let fed = feed(&mut feeding);
        feeding.flush();
        drop(end);
        fed
    })
}

struct End<'a, 'b, T, S>(&'a Shared<'b, T, S>);

impl<T, S> Drop for End<'_, '_, T, S> {
    fn drop(&mut self) {
        self.0.line().fed = true;
        self.0.changed.notify_all();
    }
}

struct Watch<'a, 'b, T, S>(&'a Shared<'b, T, S>);

impl<T, S> Drop for Watch<'_, '_, T, S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.line().broken = true;
            self.0.changed.notify_all();
        }
    }
}

/// Where wants are named.
pub struct Feed<'a, 'b, T, S> {
    shared: &'a Shared<'b, T, S>,
    window: Vec<(u32, u32, Want<T>)>,
}

impl<T, S: Sink<T>> Feed<'_, '_, T, S> {
    /// Wants a stretch. Blocks while too much is under way; a want that is in no pack is delivered here and now.
    pub fn push(&mut self, want: Want<T>) {
        let place = match self.shared.frames.locate(&want.id, PackKind::Data) {
            Ok(Spot { pack, frame, .. }) => {
                let number = self.shared.frames.number(&pack.sha256);
                number.map(|number| (number, frame)).ok_or(ReadError::Unlocated(want.id))
            }
            Err(error) => Err(error),
        };
        match place {
            Ok((pack, frame)) => self.window.push((pack, frame, want)),
            Err(error) => return self.shared.lost(vec![want], &error),
        }
        if self.window.len() >= self.shared.limits.pieces.max(1) {
            self.flush();
        }
    }

    /// Sends off what was wanted so far; the order begins anew after it.
    pub fn flush(&mut self) {
        if self.window.is_empty() {
            return;
        }
        let shared = self.shared;
        let mut window = std::mem::take(&mut self.window);
        // By file within a frame: the files of a folder come one after the other.
        window.sort_by_key(|(pack, frame, want)| (*pack, *frame, want.at));
        let count = window.len();
        let mut jobs: VecDeque<PackJob<T>> = VecDeque::new();
        for (pack, frame, want) in window {
            if jobs.back().is_none_or(|job| job.pack != pack) {
                jobs.push_back(PackJob { pack, frames: Vec::new() });
            }
            let Some(job) = jobs.back_mut() else { continue };
            match job.frames.last_mut() {
                Some((last, wants)) if *last == frame => wants.push(want),
                _ => job.frames.push((frame, vec![want])),
            }
        }
        let mut line = shared.line();
        while line.pieces > shared.limits.pieces && !line.broken && !shared.sink.is_stopped() {
            line = shared.wait(line);
        }
        line.pieces += count;
        shared.gauge.most_pieces.fetch_max(line.pieces as u64, Ordering::Relaxed);
        line.jobs.append(&mut jobs);
        drop(line);
        shared.changed.notify_all();
    }
}

impl<T, S: Sink<T>> Shared<'_, T, S> {
    fn fetch(&self) {
        while let Some(job) = self.next(|line| line.jobs.pop_front(), |line| line.fed) {
            let Some(pack) = self.frames.numbered(job.pack) else { continue };
            if self.sink.is_stopped() {
                self.done(job.frames.iter().map(|(_, wants)| wants.len()).sum(), 0);
                continue;
            }
            let range = self.frames.early(pack, || self.first_run(&job, pack));
            let reserved = range.as_ref().map_or(0, |range| range.end - range.start);
            if reserved > 0 {
                self.reserve(reserved);
            }
            let (open, early) = self.frames.open_with(pack, range);
            match open {
                Ok(open) => self.fetch_open(job, pack, &open, (early, reserved)),
                Err(error) => {
                    self.done(0, reserved);
                    for (_, wants) in job.frames {
                        let count = wants.len();
                        self.lost(wants, &error);
                        self.done(count, 0);
                    }
                }
            }
        }
    }

    /// What to read first of a pack, as far as the index knows.
    fn first_run(&self, job: &PackJob<T>, pack: &PackRef) -> Option<Range<u64>> {
        let mut told = job.frames.iter().map_while(|(frame, wants)| {
            let spot = self.frames.told(&wants.first()?.id)?;
            let here = spot.pack.sha256 == pack.sha256 && spot.frame == *frame;
            spot.range.filter(|_| here)
        });
        let mut run = told.next()?;
        for next in told {
            if !joins(&run, &next, self.most()) {
                break;
            }
            run.end = next.end;
        }
        Some(run)
    }

    /// Bytes that are read at once.
    fn most(&self) -> u64 {
        RUN.min(self.limits.buffers / self.limits.fetchers.max(1) as u64)
    }

    fn fetch_open(
        &self,
        job: PackJob<T>,
        pack: &PackRef,
        open: &Arc<OpenPack>,
        (mut early, mut reserved): (Option<Early>, u64),
    ) {
        let (mut here, mut elsewhere) = (VecDeque::new(), Vec::new());
        for (frame, wants) in job.frames {
            let is_here = |want: &Want<T>| open.holds(frame, want.kind, &want.id);
            let (good, bad): (Vec<_>, Vec<_>) = wants.into_iter().partition(is_here);
            elsewhere.extend(bad);
            if !good.is_empty() {
                here.push_back((frame, good));
            }
        }
        // A frame that does not exist gets an empty range: it is delivered as an error.
        let ranges = here.iter().map(|(frame, _)| open.range(*frame).unwrap_or_default());
        for run in runs(ranges, self.most()) {
            let frames: Vec<Wanted<T>> = here.drain(..run.frames).collect();
            let length = run.range.end - run.range.start;
            let read = early.as_ref().and_then(|early| early.of(&run.range));
            if read.is_some() {
                reserved -= length;
            } else {
                // Nobody waits for room while holding some.
                early = None;
                self.done(0, std::mem::take(&mut reserved));
                self.reserve(length);
            }
            let bytes = if self.sink.is_stopped() {
                Ok(Bytes::new())
            } else {
                self.gauge.reads.fetch_add(1, Ordering::Relaxed);
                self.gauge.read_bytes.fetch_add(length, Ordering::Relaxed);
                read.unwrap_or_else(|| self.frames.read(pack, run.range.clone()))
            };
            let fetched =
                Fetched { pack: job.pack, open: Arc::clone(open), range: run.range, bytes, frames };
            self.line().work.push_back(Work::Fetched(fetched));
            self.changed.notify_all();
        }
        self.done(0, reserved);
        if !elsewhere.is_empty() {
            self.line().work.push_back(Work::Elsewhere(elsewhere));
            self.changed.notify_all();
        }
    }

    fn decode(&self) {
        let mut decoder = Decoder::default();
        while let Some(work) = self.next(|line| line.work.pop_front(), |line| line.fetchers == 0) {
            match work {
                Work::Fetched(fetched) => self.fetched(&mut decoder, fetched),
                Work::Elsewhere(wants) => {
                    for want in wants {
                        match self.frames.frame(want.kind, &want.id) {
                            Ok(raw) => self.give(want, &raw),
                            Err(error) => self.lost(vec![want], &error),
                        }
                        self.done(1, 0);
                    }
                }
            }
        }
    }

    fn fetched(&self, decoder: &mut Decoder, fetched: Fetched<T>) {
        let Fetched { pack, open, range, bytes, frames } = fetched;
        let count = frames.iter().map(|(_, wants)| wants.len()).sum();
        if let Some(pack) = self.frames.numbered(pack) {
            let place = (pack, &*open);
            // One by one, unless that is hopeless too.
            let mut hopeless = bytes.as_ref().is_err_and(is_missing);
            for (frame, wants) in frames {
                if self.sink.is_stopped() {
                    break;
                }
                let raw = match &bytes {
                    Ok(bytes) => self.frames.decode_with(decoder, place, frame, bytes, range.start),
                    Err(_) if !hopeless => alone(self.frames, decoder, place, frame),
                    Err(error) => {
                        self.lost(wants, error);
                        continue;
                    }
                };
                match raw {
                    Ok(raw) => wants.into_iter().for_each(|want| self.give(want, raw)),
                    Err(error) => {
                        hopeless |= matches!(error, ReadError::Source { .. });
                        self.lost(wants, &error);
                    }
                }
            }
        }
        drop(bytes);
        self.done(count, range.end - range.start);
    }

    fn give(&self, want: Want<T>, raw: &[u8]) {
        let bytes = stretch(self.frames, raw, (want.at, want.length), want.kind, want.own);
        self.sink.deliver(want, bytes.ok_or(&ReadError::WrongContent));
    }

    /// A frame that is not where it should be: another snapshot's pack may have it.
    fn lost(&self, wants: Vec<Want<T>>, error: &ReadError) {
        let mut last = None;
        for want in wants {
            // Whoever was said to be in one frame need not be: nothing has compared their ids yet.
            let of = (want.kind, want.id);
            if last.as_ref().is_none_or(|(known, _)| *known != of) {
                let found = || self.frames.instead(want.kind, &want.id, error);
                last = Some((of, (!self.sink.is_stopped()).then(found).flatten()));
            }
            if let Some(raw) = last.as_ref().and_then(|(_, raw)| raw.as_ref()) {
                self.give(want, raw);
                continue;
            }
            let own = want.own.filter(|_| !self.sink.is_stopped());
            let file = own.and_then(|own| self.frames.file_instead(&own, error));
            let file = file.filter(|file| file.len() == want.length as usize);
            self.sink.deliver(want, file.as_deref().ok_or(error));
        }
    }

    /// Waits for room for a read.
    fn reserve(&self, length: u64) {
        let mut line = self.line();
        while line.buffered > 0 && line.buffered + length > self.limits.buffers && !line.broken {
            line = self.wait(line);
        }
        line.buffered += length;
        self.gauge.most_buffered.fetch_max(line.buffered, Ordering::Relaxed);
    }

    fn done(&self, pieces: usize, bytes: u64) {
        let mut line = self.line();
        line.pieces -= pieces;
        line.buffered -= bytes;
        drop(line);
        self.changed.notify_all();
    }

    /// The next thing to do; `None` when there will be none.
    fn next<W>(
        &self,
        mut take: impl FnMut(&mut Line<T>) -> Option<W>,
        ended: impl Fn(&Line<T>) -> bool,
    ) -> Option<W> {
        let mut line = self.line();
        loop {
            if let Some(taken) = take(&mut line) {
                return Some(taken);
            }
            if ended(&line) || line.broken {
                return None;
            }
            line = self.wait(line);
        }
    }
}

impl<T, S> Shared<'_, T, S> {
    fn line(&self) -> MutexGuard<'_, Line<T>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn wait<'l>(&self, line: MutexGuard<'l, Line<T>>) -> MutexGuard<'l, Line<T>> {
        self.changed.wait(line).unwrap_or_else(PoisonError::into_inner)
    }
}

const fn is_missing(error: &ReadError) -> bool {
    matches!(error, ReadError::Source { source: SourceError::Missing, .. })
}

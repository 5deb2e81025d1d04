//! Worker threads: compress, seal, fill packs, hand them over.
//!
//! Invariants: at most a few jobs wait, so memory is bounded and a slow sink stops the reader; a ticket of a
//! pack is sealed by one thread; after the first error nothing more is handed over.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Instant,
};

use domain::IdGen;

use super::{BackupContext, BackupError, PackSink, flight::Flight, haste::Haste};
use crate::{
    compress::{Compressor, Effort},
    descriptor::VaultDescriptor,
    id::{ChunkId, FrameKind, Sha256},
    index::ChunkIndex,
    keys::VaultKeys,
    manifest::FrameBitmap,
    pack::{Decoder, Header, PackBuilder, PackKind, Part},
};

/// Files in one pack: each is in its directory, and in memory until the pack is finished. Files of a few bytes would
/// never fill it otherwise.
const MAX_PARTS: usize = 65_536;

/// A frame to make.
pub(super) struct Job {
    pub kind: FrameKind,
    pub id: ChunkId,
    pub raw: Vec<u8>,
    pub parts: Vec<Part>,
}

/// A pack that was handed over.
#[derive(Debug, Clone)]
pub(super) struct Handed {
    pub kind: PackKind,
    pub seq: u64,
    pub sha256: Sha256,
    pub length: u64,
    pub frames: u32,
    /// Its number in the index.
    pub number: u32,
    /// Its frames that were not abandoned when it was finished.
    pub used: FrameBitmap,
}

/// What all workers share.
struct Shared {
    context: BackupContext,
    descriptor: VaultDescriptor,
    keys: Arc<VaultKeys>,
    ids: Arc<dyn IdGen>,
    sink: Arc<dyn PackSink>,
    next_seq: AtomicU64,
    data: Mutex<Option<Filling>>,
    meta: Mutex<Option<Filling>>,
    handed: Mutex<Vec<Handed>>,
    /// Learns every pack before it is handed over.
    index: Arc<ChunkIndex>,
    flight: Arc<Flight>,
    haste: Haste,
    /// Jobs queued or at work.
    unfinished: Mutex<u64>,
    /// There are none.
    idle: Condvar,
    failed: AtomicBool,
    error: Mutex<Option<BackupError>>,
}

type Filling = Arc<Mutex<Fill>>;

/// A pack with frames on their way.
struct Fill {
    builder: Option<PackBuilder>,
    full: bool,
}

/// The pool.
pub(super) struct Pool {
    shared: Arc<Shared>,
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

/// What the pool leaves behind.
pub(super) struct Packed {
    pub handed: Vec<Handed>,
    pub next_seq: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    pub fn start(
        context: BackupContext,
        descriptor: &VaultDescriptor,
        keys: Arc<VaultKeys>,
        sink: Arc<dyn PackSink>,
        ids: Arc<dyn IdGen>,
        (index, flight): (Arc<ChunkIndex>, Arc<Flight>),
    ) -> Self {
        let workers = context.workers.max(1);
        let shared = Arc::new(Shared {
            next_seq: AtomicU64::new(context.first_seq),
            context,
            descriptor: descriptor.clone(),
            keys,
            ids,
            sink,
            data: Mutex::default(),
            meta: Mutex::default(),
            handed: Mutex::default(),
            index,
            flight,
            haste: Haste::new(Instant::now()),
            unfinished: Mutex::default(),
            idle: Condvar::new(),
            failed: AtomicBool::new(false),
            error: Mutex::default(),
        });
        let (jobs, queue) = sync_channel(workers * 2);
        let queue = Arc::new(Mutex::new(queue));
        let work = |_| {
            let (shared, queue) = (Arc::clone(&shared), Arc::clone(&queue));
            std::thread::spawn(move || shared.run(&queue))
        };
        let threads = (0..workers).map(work).collect();
        Self { shared, jobs: Some(jobs), threads }
    }

    /// Queues a job; blocks while the queue is full.
    pub fn submit(&self, job: Job) -> Result<(), BackupError> {
        if self.shared.failed.load(Ordering::Acquire) {
            return Err(self.shared.take_error());
        }
        let jobs = self.jobs.as_ref().ok_or(BackupError::Worker)?;
        *lock(&self.shared.unfinished) += 1;
        match jobs.try_send(job) {
            Err(TrySendError::Full(job)) => {
                self.shared.haste.reader_waits();
                jobs.send(job).map_err(|_| BackupError::Worker)
            }
            other => {
                self.shared.haste.reader_goes_on();
                other.map_err(|_| BackupError::Worker)
            }
        }
    }

    /// Waits for the jobs so far and hands over the packs they are in.
    pub fn checkpoint(&self) -> Result<(), BackupError> {
        let mut unfinished = lock(&self.shared.unfinished);
        while *unfinished > 0 {
            unfinished = self.shared.idle.wait(unfinished).unwrap_or_else(PoisonError::into_inner);
        }
        drop(unfinished);
        self.hand_over_open()
    }

    /// No job may be under way.
    fn hand_over_open(&self) -> Result<(), BackupError> {
        if self.shared.failed.load(Ordering::Acquire) {
            return Err(self.shared.take_error());
        }
        for slot in [&self.shared.data, &self.shared.meta] {
            let open = lock(slot).take();
            if let Some(builder) = open.and_then(|fill| lock(&fill).builder.take()) {
                self.shared.hand_over(builder)?;
            }
        }
        Ok(())
    }

    /// Waits for all jobs and hands over the last packs.
    pub fn finish(mut self) -> Result<Packed, BackupError> {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| BackupError::Worker)?;
        }
        self.hand_over_open()?;
        Ok(Packed {
            handed: std::mem::take(&mut *lock(&self.shared.handed)),
            next_seq: self.shared.next_seq.load(Ordering::Acquire),
        })
    }
}

impl Drop for Pool {
    /// A backup that is given up: workers end after the job they are at.
    fn drop(&mut self) {
        self.shared.failed.store(true, Ordering::Release);
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A panic was reported where it happened; there is nobody to tell here.
            drop(thread.join());
        }
    }
}

/// A job that ends, even by a panic: nobody waits for it any more.
struct Done<'a>(&'a Shared);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::Release);
        }
        let mut unfinished = lock(&self.0.unfinished);
        *unfinished = unfinished.saturating_sub(1);
        if *unfinished == 0 {
            self.0.idle.notify_all();
        }
    }
}

impl Shared {
    fn run(&self, queue: &Mutex<Receiver<Job>>) {
        let (mut compressor, mut check) = (Compressor::default(), Decoder::default());
        loop {
            let job = lock(queue).recv();
            let Ok(job) = job else { return };
            let _done = Done(self);
            if self.failed.load(Ordering::Acquire) {
                continue;
            }
            if let Err(error) = self.work(job, &mut compressor, &mut check) {
                lock(&self.error).get_or_insert(error);
                self.failed.store(true, Ordering::Release);
            }
        }
    }

    fn take_error(&self) -> BackupError {
        lock(&self.error).take().unwrap_or(BackupError::Worker)
    }

    fn work(
        &self,
        job: Job,
        compressor: &mut Compressor,
        check: &mut Decoder,
    ) -> Result<(), BackupError> {
        let levels = self.descriptor.levels;
        let (kind, effort) = match job.kind {
            FrameKind::Bundle => (PackKind::Data, Effort::Level(levels.bundle)),
            FrameKind::Chunk | FrameKind::Pad => (PackKind::Data, self.haste.effort(levels.data)),
            FrameKind::Node | FrameKind::List | FrameKind::Summary => {
                (PackKind::Meta, Effort::Level(levels.meta))
            }
        };
        let (codec, payload) = compressor.compress(effort, &job.raw);
        let (ticket, fill) = {
            let mut slot = lock(self.slot(kind));
            let fill = match &*slot {
                Some(fill) => Arc::clone(fill),
                None => {
                    let fill = self.start_pack(kind)?;
                    *slot = Some(Arc::clone(&fill));
                    fill
                }
            };
            let mut open = lock(&fill);
            let builder = open.builder.as_mut().ok_or(BackupError::Worker)?;
            let ticket = builder.reserve(job.kind, job.id, job.parts, payload.len());
            let sizes = self.descriptor.packs;
            let target = self.context.max_pack.map_or(sizes.target, |most| most.min(sizes.target));
            if builder.reserved_bytes() >= u64::from(target)
                || builder.frames() + 1 >= sizes.max_frames
                || builder.parts() >= MAX_PARTS
            {
                open.full = true;
                *slot = None;
            }
            drop(open);
            (ticket, fill)
        };
        let frame = ticket.seal(codec, payload, &job.raw, check)?;
        let finished = {
            let mut open = lock(&fill);
            let full = open.full;
            let builder = open.builder.as_mut().ok_or(BackupError::Worker)?;
            builder.place(frame);
            if full && builder.outstanding() == 0 { open.builder.take() } else { None }
        };
        finished.map_or(Ok(()), |builder| self.hand_over(builder))
    }

    const fn slot(&self, kind: PackKind) -> &Mutex<Option<Filling>> {
        match kind {
            PackKind::Data => &self.data,
            PackKind::Meta => &self.meta,
        }
    }

    fn start_pack(&self, kind: PackKind) -> Result<Filling, BackupError> {
        let header = Header {
            kind,
            tenant: self.descriptor.tenant,
            vault: self.descriptor.vault,
            epoch: self.context.key_epoch,
            agent: self.context.agent,
            session: self.context.session,
            seq: self.next_seq.fetch_add(1, Ordering::AcqRel),
            salt: [0; 32],
            commitment: [0; 32],
        };
        let epoch_key = self.keys.epoch(self.context.key_epoch)?;
        let builder = Some(PackBuilder::new(header, epoch_key, &*self.ids));
        Ok(Arc::new(Mutex::new(Fill { builder, full: false })))
    }

    fn hand_over(&self, builder: PackBuilder) -> Result<(), BackupError> {
        let pack = builder.finish()?;
        let length = pack.bytes.len() as u64;
        // The index first: an id is in flight until it is there.
        let number = self.index.number(pack.kind, pack.sha256, length, &pack.directory);
        let used = self.flight.land(&pack.directory);
        let handed = Handed {
            kind: pack.kind,
            seq: pack.seq,
            sha256: pack.sha256,
            length,
            frames: pack.directory.len(),
            number,
            used,
        };
        let begun = Instant::now();
        self.sink.emit(pack)?;
        if handed.kind == PackKind::Data {
            self.haste.handed_over(begun, Instant::now());
        }
        lock(&self.handed).push(handed);
        Ok(())
    }
}

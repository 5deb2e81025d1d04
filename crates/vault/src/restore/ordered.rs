//! The same reading, delivered in the order it was asked for: for streams.
//!
//! Invariant: no more than [`AHEAD`] bytes are asked for beyond what was taken. It must not know what the stream is.

use std::{
    collections::BTreeMap,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use super::{Delivery, Feed, Gauge, Limits, Sink, Want, run};
use crate::{
    id::{ChunkId, FileId, FrameKind},
    snapshot::{Frames, ReadError},
};

/// Bytes asked for and not taken yet.
const AHEAD: u64 = 24 << 20;
/// Bytes that go out together, sorted by pack.
const WINDOW: u64 = 8 << 20;
/// Things in the stream that are no bytes, asked for and not taken.
const MARKS: usize = 1_024;

/// A part of the stream.
#[derive(Debug)]
pub enum Segment<M> {
    /// Whatever the feeder put between the bytes.
    Mark(M),
    /// Bytes, or why there are none; the length is what was asked for.
    Bytes { length: u64, bytes: Result<Vec<u8>, Unread> },
}

/// Why there are no bytes.
#[derive(Debug, Clone)]
pub struct Unread {
    pub why: String,
    /// See [`ReadError::is_passing`].
    pub is_passing: bool,
}

impl From<&ReadError> for Unread {
    fn from(error: &ReadError) -> Self {
        Self { why: error.to_string(), is_passing: error.is_passing() }
    }
}

enum Asked<M> {
    Mark(M),
    Bytes { number: u64, length: u64 },
}

#[derive(Default)]
struct Shelf {
    ready: BTreeMap<u64, Result<Vec<u8>, Unread>>,
    /// Bytes asked for and not taken.
    ahead: u64,
}

struct Reorder {
    shelf: Mutex<Shelf>,
    changed: Condvar,
    stopped: AtomicBool,
}

impl Reorder {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn wait<'l>(&self, shelf: MutexGuard<'l, Shelf>) -> MutexGuard<'l, Shelf> {
        self.changed.wait(shelf).unwrap_or_else(PoisonError::into_inner)
    }
    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        drop(self.shelf());
        self.changed.notify_all();
    }
    fn take(&self, number: u64, length: u64) -> Option<Result<Vec<u8>, Unread>> {
        let mut shelf = self.shelf();
        loop {
            if let Some(bytes) = shelf.ready.remove(&number) {
                shelf.ahead -= length;
                drop(shelf);
                self.changed.notify_all();
                return Some(bytes);
            }
            if self.is_stopped() {
                return None;
            }
            shelf = self.wait(shelf);
        }
    }
}

/// Nobody waits for bytes of threads that ended unexpectedly.
struct Watch<'a>(&'a Reorder);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

impl Sink<u64> for Reorder {
    fn deliver(&self, want: Want<u64>, bytes: Delivery<'_>) {
        let bytes = bytes.map(<[u8]>::to_vec).map_err(Unread::from);
        self.shelf().ready.insert(want.to, bytes);
        self.changed.notify_all();
    }
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// Where the stream is asked for.
pub struct Segments<'a, 'f, 's, M> {
    feed: &'a mut Feed<'f, 's, u64, Reorder>,
    reorder: &'a Reorder,
    asked: SyncSender<Asked<M>>,
    next: u64,
    window: u64,
}

/// Nobody takes the stream any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream is not read any more")]
pub struct Ended;

impl From<Ended> for ReadError {
    fn from(ended: Ended) -> Self {
        Self::Output(std::io::Error::new(std::io::ErrorKind::BrokenPipe, ended))
    }
}

impl<M> Segments<'_, '_, '_, M> {
    /// Puts something between the bytes.
    pub fn mark(&mut self, mark: M) -> Result<(), Ended> {
        self.ask(Asked::Mark(mark))
    }

    /// Asks for the bytes of a frame.
    pub fn bytes(
        &mut self,
        (kind, id, at): (FrameKind, ChunkId, u32),
        length: u32,
        own: Option<FileId>,
    ) -> Result<(), Ended> {
        let number = self.next;
        self.next += 1;
        let bytes = u64::from(length);
        let mut shelf = self.reorder.shelf();
        if shelf.ahead > 0 && shelf.ahead + bytes > AHEAD {
            drop(shelf);
            self.send();
            shelf = self.reorder.shelf();
        }
        while shelf.ahead > 0 && shelf.ahead + bytes > AHEAD && !self.reorder.is_stopped() {
            shelf = self.reorder.wait(shelf);
        }
        shelf.ahead += bytes;
        drop(shelf);
        self.feed.push(Want { to: number, offset: 0, length, at, kind, id, own });
        self.window += bytes;
        if self.window >= WINDOW {
            self.send();
        }
        self.ask(Asked::Bytes { number, length: bytes })
    }

    fn send(&mut self) {
        self.feed.flush();
        self.window = 0;
    }

    fn ask(&mut self, asked: Asked<M>) -> Result<(), Ended> {
        use std::sync::mpsc::TrySendError;
        match self.asked.try_send(asked) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(_)) => Err(Ended),
            Err(TrySendError::Full(asked)) => {
                // Whoever takes may be waiting for bytes that were not sent for yet.
                self.send();
                self.asked.send(asked).map_err(|_| Ended)
            }
        }
    }
}

/// Runs `feed` beside `take`, which gets everything in the order it was asked for. An error of `take` ends both.
pub fn ordered<M: Send, R: Send, E>(
    frames: &Frames,
    limits: Limits,
    gauge: &Gauge,
    feed: impl FnOnce(&mut Segments<'_, '_, '_, M>) -> R + Send,
    mut take: impl FnMut(Segment<M>) -> Result<(), E>,
) -> Result<R, E> {
    let reorder = Reorder {
        shelf: Mutex::default(),
        changed: Condvar::new(),
        stopped: AtomicBool::new(false),
    };
    let (asked, asking): (SyncSender<Asked<M>>, Receiver<Asked<M>>) = sync_channel(MARKS);
    std::thread::scope(|scope| {
        let reorder = &reorder;
        let feeder = scope.spawn(move || {
            let _watch = Watch(reorder);
            run(frames, limits, gauge, reorder, |wants| {
                let mut segments = Segments { feed: wants, reorder, asked, next: 0, window: 0 };
                let fed = feed(&mut segments);
                segments.send();
                fed
            })
        });
        let mut taken = Ok(());
        for asked in &asking {
            let segment = match asked {
                Asked::Mark(mark) => Segment::Mark(mark),
                Asked::Bytes { number, length } => {
                    let Some(bytes) = reorder.take(number, length) else { break };
                    Segment::Bytes { length, bytes }
                }
            };
            taken = take(segment);
            if taken.is_err() {
                break;
            }
        }
        drop(asking);
        reorder.stop();
        match feeder.join() {
            Ok(fed) => taken.map(|()| fed),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

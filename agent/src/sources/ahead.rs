//! Between the walk and the visitor: batches of what was found, so that both work at once.
//!
//! The walk runs on a thread of its own and stays a few batches ahead: names and stats are there before they are
//! asked for, and where files are not in memory their first bytes are on the way. Invariants: the visitor is told
//! everything in the order of the walk; no more than [`BATCH`] events and [`FOLDERS`] folder handles are in a batch and
//! [`WAITING`] batches wait; a visitor that fails ends the walk.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
};

use domain::source::RunException;
use rustix::{
    fs::{Advice, fadvise},
    io::{Errno, ReadWriteFlags, preadv2},
};

use super::{
    exclude::Excluded,
    file::OpenFile,
    meta::Stat,
    refused,
    walk::{Found, Visitor, WalkOptions, found, open_file},
    xattr,
};

const BATCH: usize = 256;
const FOLDERS: usize = 64;
const WAITING: usize = 2;
/// A visitor that has nothing to do gets a batch of this size.
const LEAST: usize = 16;
/// Threads that bring files into memory: enough to keep a disk busy.
const WARMERS: usize = 8;
/// More than this of a file comes by the system's own reading ahead.
const WARM_BYTES: u64 = 512 << 10;

/// What the walk found.
pub(super) enum Event {
    /// A regular file, not opened yet: its name is what follows `name_at` in the path.
    File {
        folder: Arc<OwnedFd>,
        path: Vec<u8>,
        name_at: usize,
        stat: Stat,
    },
    Entry(Found),
    Exception(RunException),
    Excluded(Vec<u8>, Excluded),
}

/// What both sides tell each other beside the events.
#[derive(Default)]
struct Signs {
    /// The visitor waits.
    hungry: AtomicBool,
    /// Of the last batch most files were taken over unread.
    skipping: AtomicBool,
}

/// The walk's side.
pub(super) struct Outbox {
    queue: SyncSender<Vec<Event>>,
    signs: Arc<Signs>,
    batch: Vec<Event>,
    folders: usize,
    newest: Option<Arc<OwnedFd>>,
    gone: bool,
}

/// The visitor's side.
pub(super) struct Inbox {
    queue: Receiver<Vec<Event>>,
    signs: Arc<Signs>,
}

pub(super) fn channel() -> (Outbox, Inbox) {
    let (sender, receiver) = sync_channel(WAITING);
    let signs = Arc::<Signs>::default();
    let outbox = Outbox {
        queue: sender,
        signs: signs.clone(),
        batch: Vec::with_capacity(BATCH),
        folders: 0,
        newest: None,
        gone: false,
    };
    (outbox, Inbox { queue: receiver, signs })
}

impl Outbox {
    pub fn push(&mut self, event: Event) {
        if let Event::File { folder, .. } = &event
            && self.newest.as_ref().is_none_or(|newest| !Arc::ptr_eq(newest, folder))
        {
            self.folders += 1;
            self.newest = Some(folder.clone());
        }
        self.batch.push(event);
        let enough = if self.signs.hungry.load(Ordering::Relaxed) { LEAST } else { BATCH };
        if self.batch.len() >= enough || self.folders >= FOLDERS {
            self.flush();
        }
    }

    /// Sends what there is; waits while the visitor is behind.
    pub fn flush(&mut self) {
        if self.gone || self.batch.is_empty() {
            return;
        }
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        (self.folders, self.newest) = (0, None);
        if !self.signs.skipping.load(Ordering::Relaxed) {
            warm(&batch);
        }
        self.gone |= self.queue.send(batch).is_err();
    }

    /// Nobody listens any more.
    pub const fn is_gone(&self) -> bool {
        self.gone
    }
}

impl Inbox {
    /// Tells the visitor everything, until the walk ends or the visitor fails.
    pub fn tell<V: Visitor>(self, options: &WalkOptions, visitor: &mut V) -> Result<(), V::Error> {
        while let Some(batch) = self.next() {
            let (mut files, mut read) = (0_usize, 0_usize);
            for event in batch {
                match event {
                    Event::File { folder, path, name_at, stat } => {
                        files += 1;
                        if !visitor.take_unchanged(&path, &stat)? {
                            read += 1;
                            tell_file(options, visitor, &folder, path, name_at)?;
                        }
                    }
                    Event::Entry(found) => visitor.entry(found)?,
                    Event::Exception(exception) => visitor.exception(exception),
                    Event::Excluded(path, why) => visitor.excluded(&path, why),
                }
            }
            if files > 0 {
                self.signs.skipping.store(read * 2 < files, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn next(&self) -> Option<Vec<Event>> {
        match self.queue.try_recv() {
            Ok(batch) => Some(batch),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => {
                self.signs.hungry.store(true, Ordering::Relaxed);
                let batch = self.queue.recv().ok();
                self.signs.hungry.store(false, Ordering::Relaxed);
                batch
            }
        }
    }
}

fn tell_file<V: Visitor>(
    options: &WalkOptions,
    visitor: &mut V,
    folder: &OwnedFd,
    path: Vec<u8>,
    name_at: usize,
) -> Result<(), V::Error> {
    let name = path.get(name_at..).unwrap_or_default();
    let opened = open_file(folder.as_fd(), name).and_then(|(handle, stat)| {
        let xattrs = xattr::read_most(&handle);
        Ok((OpenFile::new(handle, stat.clone())?, stat, xattrs))
    });
    match opened {
        Ok((content, stat, xattrs)) => {
            let xattrs = xattr::told(&path, xattrs, |exception| visitor.exception(exception));
            visitor.file(found(options, path, stat, xattrs, None), content)
        }
        Err(errno) => {
            visitor.exception(refused(&path, errno));
            Ok(())
        }
    }
}

/// Where the last file of a batch is not in memory, its others are brought there side by side. Advice only: what fails
/// here is met again when it is read.
fn warm(batch: &[Event]) {
    let Some(last) = batch.iter().rev().find(|event| content_of(event) > 0) else { return };
    if !is_cold(last) {
        return;
    }
    std::thread::scope(|scope| {
        for share in batch.chunks(batch.len().div_ceil(WARMERS)) {
            scope.spawn(move || share.iter().for_each(fetch));
        }
    });
}

/// Bytes that are to be read; 0 where nothing is.
fn content_of(event: &Event) -> u64 {
    match event {
        Event::File { stat, .. } => stat.size,
        _ => 0,
    }
}

fn is_cold(event: &Event) -> bool {
    let Event::File { folder, path, name_at, .. } = event else { return false };
    let name = path.get(*name_at..).unwrap_or_default();
    let Ok((handle, _)) = open_file(folder.as_fd(), name) else { return false };
    let mut byte = [0];
    let room = &mut [std::io::IoSliceMut::new(&mut byte)];
    preadv2(&handle, room, 0, ReadWriteFlags::NOWAIT) == Err(Errno::AGAIN)
}

fn fetch(event: &Event) {
    let Event::File { folder, path, name_at, stat } = event else { return };
    let Some(most) = std::num::NonZeroU64::new(stat.size.min(WARM_BYTES)) else { return };
    let name = path.get(*name_at..).unwrap_or_default();
    if let Ok((handle, _)) = open_file(folder.as_fd(), name) {
        let _ = fadvise(&handle, 0, Some(most), Advice::WillNeed);
    }
}

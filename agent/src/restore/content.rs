//! Content of regular files: written wherever pieces fall as packs are read, by several threads.
//!
//! A file grows under a temporary name, with holes left unwritten, and gets its own name only when the
//! last piece is in and its metadata is set. Large files have a name known beforehand (`marker::part`), so
//! that an interrupted restore is taken up where it was. A file with a piece that cannot be had is removed
//! and told. Invariant: at most [`HANDLES`] files that wait for pieces are open.

use std::{
    collections::VecDeque,
    fs::File,
    os::fd::AsFd as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
};

use faults::write_all_at;
use rustix::{
    fs::{FallocateFlags, fallocate, fchmod, fstat, ftruncate, futimens},
    io::Errno,
};
use vault::{
    restore::{Delivery, Sink, Want},
    snapshot::ReadError,
    tree::{Content, Entry, EntryKind, Piece},
};

use super::{
    Overwrite, ProblemKind, Work, apply, marker,
    safe_root::{Access, Folder, Refused, Replace, point, split},
    seats::Seat,
};
use crate::{
    pipeline::entry::attributes,
    sources::{Kind, Stat},
};

/// Files that wait for pieces and are open.
const HANDLES: usize = 64;
/// Files from this size on get their space at once, so that a full disk shows itself early, and are taken
/// up again after an interruption.
const LARGE: u64 = 1 << 20;

/// One file on its way.
pub struct Job {
    pub entry: Entry,
    /// What of it is there already, of an existing file or of an interrupted restore.
    pub base: Option<Base>,
    state: Mutex<State>,
}

/// A file in the target whose content is compared first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    pub name: Vec<u8>,
    pub identity: (u64, u64),
    pub size: u64,
    /// What an interrupted restore left, not a file of somebody's.
    pub is_part: bool,
}

struct State {
    /// Pieces still to come, and one for whoever plans.
    left: u64,
    temporary: Option<Vec<u8>>,
    /// Of the file with that name: another may get it while no handle is open.
    identity: Option<(u64, u64)>,
    handle: Option<File>,
    failure: Option<String>,
    zeroed: u64,
    why_zeroed: String,
}

impl Job {
    pub fn new(entry: Entry, base: Option<Base>) -> Arc<Self> {
        let state = State {
            left: 1,
            temporary: None,
            identity: None,
            handle: None,
            failure: None,
            zeroed: 0,
            why_zeroed: String::new(),
        };
        Arc::new(Self { entry, base, state: Mutex::new(state) })
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A piece is on its way.
    pub fn expect(&self) {
        self.state().left += 1;
    }
    fn is_large(&self) -> bool {
        self.entry.size() >= LARGE
    }
}

/// Whether a file may have holes; of long lists only reading them would tell.
fn may_be_sparse(entry: &Entry) -> bool {
    match &entry.kind {
        EntryKind::File { content: Content::Pieces { depth, pieces }, .. } => {
            *depth > 0 || pieces.iter().any(|piece| matches!(piece, Piece::Hole { .. }))
        }
        _ => false,
    }
}

/// What the threads that write share.
pub struct Crew<'a> {
    pub work: &'a Work<'a>,
    /// Files with a handle, in the order they got it.
    open: Mutex<VecDeque<Weak<Job>>>,
}

impl Sink<Arc<Job>> for Crew<'_> {
    fn deliver(&self, want: Want<Arc<Job>>, bytes: Delivery<'_>) {
        let job = &want.to;
        let mut state = job.state();
        if state.failure.is_none() {
            let done = match bytes {
                Ok(bytes) => self.write(job, &mut state, want.offset, bytes),
                Err(error) => self.missing(job, &mut state, want.offset, want.length.into(), error),
            };
            state.failure = done.err();
        }
        self.settle(job, &mut state);
        if state.handle.is_some() {
            drop(state);
            self.remember(job);
        }
    }
    fn is_stopped(&self) -> bool {
        self.work.is_stopped()
    }
}

impl<'a> Crew<'a> {
    pub const fn new(work: &'a Work<'a>) -> Self {
        Self { work, open: Mutex::new(VecDeque::new()) }
    }

    /// Everything of the file is planned, or cannot be.
    pub fn planned(&self, job: &Arc<Job>, failure: Option<String>) {
        let mut state = job.state();
        if state.failure.is_none() {
            state.failure = failure;
        }
        self.settle(job, &mut state);
    }

    /// The stretch stays what it is, or becomes zeros, if `--zero-damaged` says so.
    pub fn lost(&self, job: &Job, offset: u64, length: u64, error: &ReadError) {
        let mut state = job.state();
        if state.failure.is_none() {
            state.failure = self.missing(job, &mut state, offset, length, error).err();
        }
    }

    /// A stretch of the base that is a hole in the snapshot and none in the target.
    pub fn punch(&self, job: &Job, offset: u64, length: u64) {
        let mut state = job.state();
        if state.failure.is_none() {
            state.failure = self.make_hole(job, &mut state, offset, length).err();
        }
    }

    fn settle(&self, job: &Job, state: &mut State) {
        state.left -= 1;
        if state.left > 0 {
            return;
        }
        if state.failure.is_none()
            && let Err(refused) = self.complete(job, state)
        {
            state.failure = Some(self.explain(refused));
        }
        if let Some(failure) = state.failure.take() {
            self.give_up(job, state, &failure);
        }
    }

    /// Words for a refusal; a target that takes nothing more ends the whole restore.
    fn explain(&self, refused: Refused) -> String {
        if let Refused::System(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::ROFS)) = refused {
            self.work.end_with(errno);
        }
        refused.to_string()
    }

    fn write(&self, job: &Job, state: &mut State, at: u64, bytes: &[u8]) -> Result<(), String> {
        let end = at.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > job.entry.size()) {
            return Err("the snapshot's pieces reach beyond the file".to_owned());
        }
        self.open(job, state, bytes.len() as u64).map_err(|refused| self.explain(refused))?;
        let Some(handle) = &state.handle else { return Ok(()) };
        write_all_at("restore: write", handle, bytes, at).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            self.explain(errno.into())
        })?;
        self.work.figures.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn missing(
        &self,
        job: &Job,
        state: &mut State,
        offset: u64,
        length: u64,
        error: &ReadError,
    ) -> Result<(), String> {
        // What could not be asked for may be had another time.
        if !self.work.zero_damaged || error.is_passing() {
            return Err(error.to_string());
        }
        self.make_hole(job, state, offset, length)?;
        state.zeroed += length;
        state.why_zeroed = error.to_string();
        Ok(())
    }

    fn make_hole(
        &self,
        job: &Job,
        state: &mut State,
        offset: u64,
        length: u64,
    ) -> Result<(), String> {
        self.open(job, state, 0).map_err(|refused| self.explain(refused))?;
        let Some(handle) = &state.handle else { return Ok(()) };
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match point("restore: make a hole").and_then(|()| fallocate(handle, flags, offset, length))
        {
            Ok(()) => Ok(()),
            Err(Errno::NOTSUP | Errno::NOSYS) => zeros(handle, offset, length),
            Err(errno) => Err(self.explain(errno.into())),
        }
    }

    /// Makes sure that the file has a handle to write by. `first` is the length of the first write.
    fn open(&self, job: &Job, state: &mut State, first: u64) -> Result<(), Refused> {
        if state.handle.is_some() {
            return Ok(());
        }
        let (above, name) = split(&job.entry.path)?;
        let seat = self.work.seats.at(above)?;
        let handle = match (&state.temporary, &job.base) {
            (Some(temporary), _) => open_own(&seat, temporary, state.identity)?,
            (None, Some(base)) => {
                let (handle, temporary) = take_over(&seat, base, name)?;
                state.temporary = Some(temporary);
                point("restore: set the length")?;
                ftruncate(&handle, job.entry.size())?;
                handle
            }
            (None, None) => self.create(job, state, &seat, name, first)?,
        };
        let raw = fstat(&handle)?;
        state.identity = Some((raw.st_dev, raw.st_ino));
        state.handle = Some(handle);
        Ok(())
    }

    fn create(
        &self,
        job: &Job,
        state: &mut State,
        seat: &Seat,
        name: &[u8],
        first: u64,
    ) -> Result<File, Refused> {
        let size = job.entry.size();
        let (mut temporary, mut made) = (marker::part(name), None);
        // Another restore may be at the same file: then both have names of their own.
        if job.is_large() && first < size {
            made = seat.folder.create_file(&temporary).ok();
        }
        let handle = match made {
            Some(handle) => handle,
            None => {
                temporary = self.work.temporary();
                seat.folder.create_file(&temporary)?
            }
        };
        state.temporary = Some(temporary);
        if first == size {
            return Ok(handle);
        }
        if job.is_large() && !may_be_sparse(&job.entry) {
            let flags = FallocateFlags::empty();
            match point("restore: make room").and_then(|()| fallocate(&handle, flags, 0, size)) {
                // A file system that cannot, or a file larger than it can say: the writes will tell.
                Ok(()) | Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        point("restore: set the length")?;
        ftruncate(&handle, size)?;
        Ok(handle)
    }

    /// Metadata, then the final name.
    fn complete(&self, job: &Job, state: &mut State) -> Result<(), Refused> {
        let entry = &job.entry;
        let (above, name) = split(&entry.path)?;
        let seat = self.work.seats.at(above)?;
        let as_it_was = job
            .base
            .as_ref()
            .filter(|base| state.temporary.is_none() && base.size == entry.size() && !base.is_part);
        let handle = match as_it_was {
            // Its content is right already: only what is around it changes.
            Some(base) => open_base(&seat, base, Access::Read)?,
            None => {
                self.open(job, state, 0)?;
                state.handle.take().ok_or(Refused::System(Errno::BADF))?
            }
        };
        let inherited = if job.base.is_some() { apply::Inherited::Perhaps } else { seat.inherited };
        let short = apply::to_handle(handle.as_fd(), &attributes(entry), inherited);
        if state.zeroed > 0 {
            unfinished(&handle)?;
        }
        if let Some(temporary) = &state.temporary {
            give_name(self.work.overwrite, &seat.folder, temporary, name)?;
            state.temporary = None;
        }
        self.work.shortfalls(&entry.path, &short);
        if let Some(group) = entry.hardlink {
            let raw = fstat(&handle)?;
            self.work.links.made(group, entry.path.clone(), (raw.st_dev, raw.st_ino));
        }
        if state.zeroed > 0 {
            let detail = format!(
                "{} bytes of it cannot be read and are zeros, and its time is 1970, so that a later restore looks at it again: {}",
                state.zeroed, state.why_zeroed
            );
            self.work.confess(&entry.path, ProblemKind::Zeroed, detail);
        }
        self.work.figures.files.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Tells a file that did not come together and removes what there is of it; of a file that was there
    /// what is there stays, under its own name and with a time that nobody takes for finished.
    fn give_up(&self, job: &Job, state: &mut State, failure: &str) {
        let existing = job.base.as_ref().is_some_and(|base| !base.is_part);
        let undone = state.temporary.take().map(|temporary| {
            let (above, name) = split(&job.entry.path)?;
            let seat = self.work.seats.at(above)?;
            if existing {
                unfinished(&open_own(&seat, &temporary, state.identity)?)?;
                return seat.folder.rename(&temporary, name, Replace::Never);
            }
            seat.folder.remove(&temporary)
        });
        state.handle = None;
        if let Some(Err(error)) = &undone {
            tracing::warn!(%error, "a temporary file could not be removed");
        }
        let mixed = if existing && undone.is_some() {
            "; the file that was there is changed in part: restore it again"
        } else {
            ""
        };
        let detail = format!("{failure}{mixed}");
        self.work.confess(&job.entry.path, ProblemKind::NotRestored, detail);
    }

    /// Handles of files that wait for other packs are closed in turn: their number must not grow.
    fn remember(&self, job: &Arc<Job>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = open.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(job)));
        if !is_known {
            open.push_back(Arc::downgrade(job));
        }
        for _ in 0..open.len().saturating_sub(HANDLES) {
            let Some(oldest) = open.pop_front() else { return };
            let Some(job) = oldest.upgrade() else { continue };
            match job.state.try_lock() {
                Ok(mut state) => state.handle = None,
                // Somebody is writing to it this moment.
                Err(_) => open.push_back(oldest),
            }
        }
    }
}

/// The base itself and not what has its name by now.
pub fn open_base(seat: &Seat, base: &Base, access: Access) -> Result<File, Refused> {
    open_same(seat, &base.name, access, Some(base.identity))
}

/// What was being written under this name and not what has it by now.
fn open_own(seat: &Seat, temporary: &[u8], identity: Option<(u64, u64)>) -> Result<File, Refused> {
    open_same(seat, temporary, Access::Write, identity)
}

fn open_same(
    seat: &Seat,
    name: &[u8],
    access: Access,
    identity: Option<(u64, u64)>,
) -> Result<File, Refused> {
    let handle = seat.folder.open_file(name, access)?;
    let stat = Stat::from_raw(&fstat(&handle)?);
    match stat {
        // A second name would change with it.
        Some(stat) if Some(stat.identity()) == identity && stat.links == 1 => Ok(handle),
        _ => Err(Refused::System(Errno::STALE)),
    }
}

/// Gives a file a time that nobody takes for finished.
pub fn unfinished(handle: &File) -> Result<(), Refused> {
    point("restore: time")?;
    Ok(futimens(handle, &apply::times(apply::UNFINISHED))?)
}

/// From here on the base is unfinished: it leaves its name until it is whole again. Who may not have what the snapshot
/// has could not have what is there either ([`super::place`]), so its mode stays, but for what would run it as another.
fn take_over(seat: &Seat, base: &Base, name: &[u8]) -> Result<(File, Vec<u8>), Refused> {
    let handle = open_base(seat, base, Access::Write)?;
    if base.is_part {
        return Ok((handle, base.name.clone()));
    }
    let aside = marker::aside(name);
    seat.folder.rename(&base.name, &aside, Replace::Never)?;
    let moved = seat.folder.stat(&aside)?;
    let same = moved.is_some_and(|it| it.identity() == base.identity && it.kind == Kind::File);
    let prepared = if same { plain_mode(&handle) } else { Err(Refused::System(Errno::STALE)) };
    match prepared {
        Ok(()) => Ok((handle, aside)),
        Err(refused) => {
            seat.folder.rename(&aside, &base.name, Replace::Never)?;
            Err(refused)
        }
    }
}

/// Takes set-user-id and its like away.
fn plain_mode(handle: &File) -> Result<(), Refused> {
    let mode = fstat(handle)?.st_mode & 0o7777;
    if mode & 0o7000 != 0 {
        point("restore: mode")?;
        fchmod(handle, rustix::fs::Mode::from_raw_mode(mode & 0o777))?;
    }
    Ok(())
}

fn zeros(handle: &File, mut offset: u64, mut length: u64) -> Result<(), String> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while length > 0 {
        let part = usize::try_from(length).unwrap_or(usize::MAX).min(ZEROS.len());
        let zeros = ZEROS.get(..part).unwrap_or_default();
        write_all_at("restore: write", handle, zeros, offset).map_err(|error| error.to_string())?;
        offset += part as u64;
        length -= part as u64;
    }
    Ok(())
}

/// Renames to the final name; under `Never` only if it is still free.
pub fn give_name(
    overwrite: Overwrite,
    above: &Folder,
    temporary: &[u8],
    name: &[u8],
) -> Result<(), Refused> {
    let replace = match overwrite {
        Overwrite::Never => Replace::Never,
        Overwrite::Older | Overwrite::Changed | Overwrite::Always => Replace::Existing,
    };
    above.rename(temporary, name, replace)
}

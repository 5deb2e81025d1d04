//! Content of regular files: packs in parallel, each read once, files written wherever their pieces fall.
//!
//! A file grows under a temporary name, with holes left unwritten, and gets its own name only when the
//! last piece is in and its metadata is set. A file with a piece that cannot be had is removed and told.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    os::{fd::AsFd as _, unix::fs::FileExt as _},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use domain::PackId;
use rustix::{
    fs::{FallocateFlags, fallocate, ftruncate},
    io::Errno,
};
use vault::{
    restore::{Delivery, Item, PackPlan, Plan, plan, read_pack},
    snapshot::{ReadError, Reader},
    tree::Entry,
};

use super::{
    Overwrite, ProblemKind, RestoreError, Work, apply,
    safe_root::{Access, Folder, Refused, Replace, split},
};
use crate::pipeline::entry::attributes;

/// Packs in work at once.
const WORKERS: usize = 6;
/// Files from this size on get their space at once, so that a full disk shows itself early.
const PREALLOCATE: u64 = 1 << 20;

/// Names that now are regular files of ours, with their identity: what hard links may point to.
pub type Written = HashMap<Vec<u8>, (u64, u64)>;

/// One file on its way.
struct Slot<'a> {
    entry: &'a Entry,
    state: Mutex<State>,
}

struct State {
    /// Pieces still to come.
    pieces: usize,
    sparse: bool,
    temporary: Option<Vec<u8>>,
    handle: Option<File>,
    failure: Option<String>,
    done: bool,
}

impl Slot<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all files.
pub fn write_all(work: &Work<'_>, files: &[Entry]) -> Result<Written, RestoreError> {
    let plan = plan_around_losses(work.reader, files);
    let mut pieces: HashMap<u64, usize> = HashMap::new();
    for item in plan.packs.iter().flat_map(|pack| &pack.items) {
        *pieces.entry(item.file).or_default() += 1;
    }
    let sparse: HashSet<u64> = plan.holes.iter().map(|hole| hole.file).collect();
    let unreadable: HashMap<u64, String> = plan.unreadable.into_iter().collect();
    let slots: Vec<Slot<'_>> = (0_u64..)
        .zip(files)
        .map(|(number, entry)| Slot {
            entry,
            state: Mutex::new(State {
                pieces: pieces.get(&number).copied().unwrap_or(0),
                sparse: sparse.contains(&number),
                temporary: None,
                handle: None,
                failure: unreadable.get(&number).cloned(),
                done: false,
            }),
        })
        .collect();
    let total = plan.packs.iter().map(PackPlan::bytes).sum();
    work.figures.bytes_total.store(total, Ordering::Relaxed);
    let written = Mutex::new(Written::new());
    let crew = Crew { work, slots: &slots, written: &written };
    crew.pieceless();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(plan.packs.len()) {
            scope.spawn(|| {
                while let Some(pack) = plan.packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    crew.pack(pack);
                }
            });
        }
    });
    crew.sweep();
    Ok(written.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The plan of everything; when something stands in its way, of every file for itself, so that a lost
/// pack costs the files in it and no others.
fn plan_around_losses(reader: &Reader, files: &[Entry]) -> Plan {
    if let Ok(plan) = plan(reader, (0_u64..).zip(files)) {
        return plan;
    }
    // What can be opened is known from here on, and looked up without the rest.
    for pack in reader.frames().packs() {
        let _ = reader.frames().open(pack);
    }
    let mut whole = Plan::default();
    let mut packs: BTreeMap<PackId, PackPlan> = BTreeMap::new();
    for (number, entry) in (0_u64..).zip(files) {
        match plan(reader, [(number, entry)]) {
            Ok(part) => {
                whole.holes.extend(part.holes);
                whole.unreadable.extend(part.unreadable);
                for part in part.packs {
                    match packs.get_mut(&part.pack.id) {
                        Some(known) => known.items.extend(part.items),
                        None => drop(packs.insert(part.pack.id, part)),
                    }
                }
            }
            Err(error) => whole.unreadable.push((number, error.to_string())),
        }
    }
    whole.packs = packs.into_values().collect();
    whole
}

/// What the workers share.
struct Crew<'a> {
    work: &'a Work<'a>,
    slots: &'a [Slot<'a>],
    written: &'a Mutex<Written>,
}

impl Crew<'_> {
    /// Empty files and files that are nothing but a hole.
    fn pieceless(&self) {
        for slot in self.slots {
            let mut state = slot.state();
            if state.pieces == 0 && state.failure.is_none() {
                self.complete(slot, &mut state);
            }
        }
    }

    fn pack(&self, pack: &PackPlan) {
        let mut touched = HashSet::new();
        let outcome = read_pack::<Halt>(self.work.reader, pack, |item, bytes| {
            if self.work.cancel.is_cancelled() {
                return Err(Halt);
            }
            touched.insert(item.file);
            self.deliver(item, bytes);
            Ok(())
        });
        if outcome.is_err() && !self.work.cancel.is_cancelled() {
            tracing::warn!("a pack could not be read to its end");
        }
        // Handles of files that wait for other packs are closed: their number must not grow.
        for file in touched {
            if let Some(slot) = usize::try_from(file).ok().and_then(|at| self.slots.get(at)) {
                slot.state().handle = None;
            }
        }
    }

    fn deliver(&self, item: &Item, bytes: Delivery<'_>) {
        let Some(slot) = usize::try_from(item.file).ok().and_then(|at| self.slots.get(at)) else {
            return;
        };
        let mut state = slot.state();
        state.pieces = state.pieces.saturating_sub(1);
        if state.failure.is_none() {
            let written = match bytes {
                Ok(bytes) => self.write(slot.entry, &mut state, item.offset, bytes),
                Err(error) => Err(error.to_string()),
            };
            if let Err(failure) = written {
                state.failure = Some(failure);
            }
        }
        if state.pieces == 0 && state.failure.is_none() {
            self.complete(slot, &mut state);
        }
    }

    fn write(
        &self,
        entry: &Entry,
        state: &mut State,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), String> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > entry.size()) {
            return Err("the snapshot's pieces reach beyond the file".to_owned());
        }
        if state.handle.is_none() {
            state.handle = Some(self.open(entry, state).map_err(|refused| refused.to_string())?);
        }
        let Some(handle) = &state.handle else { return Ok(()) };
        handle.write_all_at(bytes, offset).map_err(|error| error.to_string())?;
        self.work.figures.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The temporary file: made on first use, reopened later.
    fn open(&self, entry: &Entry, state: &mut State) -> Result<File, Refused> {
        let (above, _) = split(&entry.path)?;
        let above = self.work.root.make_folders(above)?;
        if let Some(temporary) = &state.temporary {
            return above.open_file(temporary, Access::Write);
        }
        let temporary = self.work.temporary();
        let handle = above.create_file(&temporary)?;
        state.temporary = Some(temporary);
        let size = entry.size();
        if size >= PREALLOCATE && !state.sparse {
            match fallocate(&handle, FallocateFlags::empty(), 0, size) {
                // A file system that cannot, or a file larger than it can say: the writes will tell.
                Ok(()) | Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        ftruncate(&handle, size)?;
        Ok(handle)
    }

    fn complete(&self, slot: &Slot<'_>, state: &mut State) {
        if let Err(failure) = self.seal(slot.entry, state) {
            state.failure = Some(failure.to_string());
            return;
        }
        state.done = true;
        self.work.figures.files.fetch_add(1, Ordering::Relaxed);
    }

    /// Metadata, then the final name.
    fn seal(&self, entry: &Entry, state: &mut State) -> Result<(), Refused> {
        let handle = match state.handle.take() {
            Some(handle) => handle,
            None => self.open(entry, state)?,
        };
        let short = apply::to_handle(handle.as_fd(), &attributes(entry));
        let (above, name) = split(&entry.path)?;
        let above = self.work.root.folder(above)?;
        let Some(temporary) = &state.temporary else { return Ok(()) };
        give_name(self.work.overwrite, &above, temporary, name)?;
        state.temporary = None;
        self.work.shortfalls(&entry.path, &short);
        let raw = rustix::fs::fstat(&handle)?;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(entry.path.clone(), (raw.st_dev, raw.st_ino));
        Ok(())
    }

    /// Tells every file that did not come together and removes what there is of it.
    fn sweep(&self) {
        for slot in self.slots {
            let state = slot.state();
            if state.done {
                continue;
            }
            if let Some(temporary) = &state.temporary {
                let removed = split(&slot.entry.path)
                    .and_then(|(above, _)| self.work.root.folder(above))
                    .and_then(|above| above.remove(temporary));
                if let Err(error) = removed {
                    tracing::warn!(%error, "a temporary file could not be removed");
                }
            }
            let detail = state.failure.as_deref().unwrap_or("not all of it could be read");
            self.work.confess(&slot.entry.path, ProblemKind::NotRestored, detail);
        }
    }
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

/// Stop reading: canceled, or the pack cannot be read on.
struct Halt;

impl From<ReadError> for Halt {
    fn from(_: ReadError) -> Self {
        Self
    }
}
